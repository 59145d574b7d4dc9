/** Safetensors files for tests, made by hand so that each can be wrong in one way. */

import { expect } from "vitest";
import { type ByteSource, bytesFromBuffer } from "../../src/checkpoint/bytes.ts";
import type { NamedSources } from "../../src/checkpoint/files.ts";
import { SafetensorsFile } from "../../src/checkpoint/safetensors.ts";
import { SafetensorsError } from "../../src/checkpoint/safetensors-error.ts";

/** A tensor of one byte. */
export const ONE = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';

/** A file with this header, as text or bytes, and this many bytes of data: 0, 1, 2, ... */
export function fileBytes(
  header: string | Uint8Array,
  dataBytes: number = 0,
  headerBytes?: bigint,
): Uint8Array<ArrayBuffer> {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, headerBytes ?? BigInt(json.length), true);
  file.set(json, 8);
  for (let i = 0; i < dataBytes; i++) file[8 + json.length + i] = i;
  return file;
}

export function openBytes(bytes: Uint8Array): Promise<SafetensorsFile> {
  return SafetensorsFile.open(bytesFromBuffer(bytes, "attack.safetensors"));
}

/** Why such a file is refused. */
export async function refusal(bytes: Uint8Array): Promise<string> {
  const error = await openBytes(bytes).then(
    () => undefined,
    error => error,
  );
  if (!(error instanceof SafetensorsError)) throw new Error(`expected a SafetensorsError, got ${error}`);
  expect(error.message).toMatch(/^attack\.safetensors: [^\n]*expected [^\n]+, got [^\n]+$/);
  return error.message;
}

/** A source that counts how often it is closed, and what is read of it. */
export function watched(
  source: ByteSource,
): ByteSource & { closed: number; reads: { offset: number; byteLength: number }[] } {
  const watch = {
    name: source.name,
    byteLength: source.byteLength,
    closed: 0,
    reads: [] as { offset: number; byteLength: number }[],
    readInto: async (target: Uint8Array, offset: number): Promise<void> => {
      watch.reads.push({ offset, byteLength: target.byteLength });
      await source.readInto(target, offset);
    },
    close: async (): Promise<void> => {
      watch.closed++;
      await source.close();
    },
  };
  return watch;
}

/** A folder in memory, which remembers what was opened. */
export function memory(
  files: Record<string, string | Uint8Array>,
): NamedSources & { opened: ReturnType<typeof watched>[] } {
  const opened: ReturnType<typeof watched>[] = [];
  return {
    name: "attack",
    opened,
    open: async (file): Promise<ByteSource | undefined> => {
      const content = Object.hasOwn(files, file) ? files[file] : undefined;
      if (content === undefined) return undefined;
      const source = watched(
        bytesFromBuffer(typeof content === "string" ? new TextEncoder().encode(content) : content, `attack/${file}`),
      );
      opened.push(source);
      return source;
    },
  };
}
