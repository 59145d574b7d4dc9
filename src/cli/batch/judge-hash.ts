/**
 * Short hashes of what judges a batch, and of what is judged, so that no output is ever continued by another guard or
 * for other lines.
 *
 * A judge's hash covers the text files of the checkpoint, every byte of its tensors (by name, in whichever file they
 * are), the form in which the weights are held, and the options that change a verdict. It does not cover engine and
 * threads, since the bits do not depend on them.
 */

import { createHash, webcrypto } from "node:crypto";
import { type CheckpointFiles, TEXT_FILES } from "../../checkpoint/files.ts";
import { SafetensorsCheckpoint } from "../../checkpoint/safetensors-sharded.ts";
import type { ModerateOptions } from "../../guard/moderate-options.ts";
import { schemeToHold } from "../../model/quantised-weights.ts";
import type { EngineOptions } from "../../tensor/engine-choice.ts";

/** 64 bits: in a batch of a million lines, two hashes are equal once in 40 million batches. */
const HASH_DIGITS = 16;

/** Pieces of a tensor are hashed in parallel, off this thread. */
const PIECE_BYTES = 4 * 2 ** 20;
const PIECES = 4;

export function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, HASH_DIGITS);
}

/** The hash of a guard. Reads every file that the guard reads. */
export async function judgeHash(
  files: CheckpointFiles,
  weights: EngineOptions["weights"],
  options: ModerateOptions,
): Promise<string> {
  const { mode = "strict", threshold, scores = "basic", window, overlap } = options;
  const parts: unknown[] = [{ mode, threshold, scores, window, overlap }];
  for (const file of TEXT_FILES) parts.push([file, (await files.readText(file)) ?? null]);
  const checkpoint = await SafetensorsCheckpoint.open(files);
  try {
    parts.push(schemeToHold(checkpoint, weights) ?? "as stored");
    for (const name of [...checkpoint.tensors.keys()].sort()) {
      const { dtype, shape } = checkpoint.tensors.get(name)!;
      parts.push([name, dtype, shape, await tensorHash(checkpoint, name)]);
    }
  } finally {
    await checkpoint.close();
  }
  return shortHash(JSON.stringify(parts));
}

/** The hash of a tensor: a hash of the hashes of its pieces. */
async function tensorHash(checkpoint: SafetensorsCheckpoint, name: string): Promise<string> {
  const { byteLength } = checkpoint.tensors.get(name)!;
  const hash = createHash("sha256");
  for (let start = 0; start < byteLength; start += PIECES * PIECE_BYTES) {
    const offsets = Array.from({ length: PIECES }, (_, i) => start + i * PIECE_BYTES).filter(
      offset => offset < byteLength,
    );
    const digests = offsets.map(async offset => {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, byteLength - offset));
      await checkpoint.readInto(name, piece, offset);
      return webcrypto.subtle.digest("SHA-256", piece);
    });
    for (const digest of await Promise.all(digests)) hash.update(new Uint8Array(digest));
  }
  return hash.digest("hex");
}
