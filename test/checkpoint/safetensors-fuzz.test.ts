/**
 * Valid files, broken at random. Each is refused with a SafetensorsError, or is still valid and readable to the last
 * tensor.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { ByteSource } from "../../src/checkpoint/bytes.ts";
import { SafetensorsFile } from "../../src/checkpoint/safetensors.ts";
import { SafetensorsError } from "../../src/checkpoint/safetensors-error.ts";
import { fileBytes } from "./safetensors-files.ts";

const seeds: Uint8Array[] = [
  new Uint8Array(readFileSync(join(import.meta.dirname, "../fixtures/odd/model-00003-of-00003.safetensors"))),
  fileBytes(
    '{"__metadata__":{"a":"b"},"w":{"dtype":"BF16","shape":[4,2],"data_offsets":[0,16]},"é":{"dtype":"F4","shape":[2],"data_offsets":[16,17]}}',
    17,
  ),
  fileBytes(
    '{"a":["U8",[0,3],[0,0]],"b":{"dtype":{"I8":null},"shape":[],"data_offsets":[0,1],"x":[1.5e3,"\\ud83d\\ude00",{"y":null}]}}',
    1,
  ),
  fileBytes("{}"),
];

/** What a header holds, and what it could hold. */
const SCRAPS = [
  '"',
  "\\",
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  "0",
  "9",
  "-",
  "1e400",
  "18446744073709551616",
  "null",
  '"dtype"',
  '"__metadata__":',
  "\\ud800",
  "\0",
  "\xff",
];

/** A source that checks its reads: none may lie outside of it or be larger than the file. */
function strict(bytes: Uint8Array): ByteSource {
  return {
    name: "fuzzed",
    byteLength: bytes.length,
    readInto: async (target, offset) => {
      if (!(offset >= 0 && offset + target.length <= bytes.length))
        throw new Error(`read of ${target.length} bytes from ${offset} on`);
      target.set(bytes.subarray(offset, offset + target.length));
    },
    close: async () => {},
  };
}

async function survives(bytes: Uint8Array): Promise<boolean> {
  try {
    const file = await SafetensorsFile.open(strict(bytes));
    let byteLength = 0;
    for (const tensor of (await file.readAll()).values()) byteLength += tensor.data.byteLength;
    const begin = Math.min(bytes.length, ...[...file.tensors.values()].map(info => info.byteOffset));
    expect(byteLength).toBe(bytes.length - begin);
    return true;
  } catch (error) {
    if (!(error instanceof SafetensorsError)) throw error;
    expect(error.message).toMatch(/^fuzzed: [^\n]{1,600}$/);
    return false;
  }
}

const seed = fc.constantFrom(...seeds);
/** A place in the file, mostly in the header. */
const place = fc.oneof(fc.nat(7), fc.nat(200), fc.nat(4000), fc.nat());

test("the files are valid before they are broken", async () => {
  for (const bytes of seeds) expect(await survives(bytes)).toBe(true);
});

test("bytes flipped", async () => {
  await fc.assert(
    fc.asyncProperty(
      seed,
      fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 4 }),
      async (bytes, flips) => {
        const broken = bytes.slice();
        for (const [at, value] of flips) broken[at % broken.length] = value;
        await survives(broken);
      },
    ),
    { seed: 2, numRuns: 2000 },
  );
});

test("truncated or with something appended", async () => {
  await fc.assert(
    fc.asyncProperty(seed, place, fc.uint8Array({ maxLength: 9 }), async (bytes, length, more) => {
      const broken = new Uint8Array([...bytes.subarray(0, length % (bytes.length + 1)), ...more]);
      if (broken.length !== bytes.length) expect(await survives(broken)).toBe(false);
    }),
    { seed: 3, numRuns: 500 },
  );
});

test("spliced from two files", async () => {
  await fc.assert(
    fc.asyncProperty(seed, seed, place, place, async (a, b, cut, from) => {
      await survives(Buffer.concat([a.subarray(0, cut % a.length), b.subarray(from % b.length)]));
    }),
    { seed: 4, numRuns: 500 },
  );
});

test("headers edited, with the length made to fit", async () => {
  const edit = fc.record({ at: fc.nat(4000), drop: fc.nat(6), scrap: fc.constantFrom("", ...SCRAPS) });
  let valid = 0;
  await fc.assert(
    fc.asyncProperty(seed, fc.array(edit, { minLength: 1, maxLength: 3 }), async (bytes, edits) => {
      const headerBytes = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
      let header = Buffer.from(bytes.subarray(8, 8 + headerBytes));
      for (const { at, drop, scrap } of edits) {
        const place = at % (header.length + 1);
        header = Buffer.concat([
          header.subarray(0, place),
          Buffer.from(scrap, "latin1"),
          header.subarray(place + drop),
        ]);
      }
      const broken = Buffer.concat([fileBytes(header), bytes.subarray(8 + headerBytes)]);
      if (await survives(broken)) valid++;
    }),
    { seed: 5, numRuns: 3000 },
  );
  expect(valid).toBeGreaterThan(0); // otherwise the edits are too wild to reach the deeper rules
});
