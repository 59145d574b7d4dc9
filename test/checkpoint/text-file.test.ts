/** A checkpoint's text files: read in one way, whoever asks and wherever they are. */

import { cpSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { filesFromBlobs } from "../../src/checkpoint/files.ts";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { readTextFile } from "../../src/checkpoint/text-file.node.ts";
import { decodeText, maxTextBytes } from "../../src/checkpoint/text-file.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { GEN } from "../checkpoints.ts";
import { temporaryFolder } from "../cli/harness.ts";

const TEXTS = ["config.json", "tokenizer.json", "tokenizer_config.json"];
const MESSAGES = [{ role: "user", content: "hi" }];

/** A copy of the demo guard's text files, each changed. */
function changed(change: (bytes: Buffer) => Buffer): string {
  const folder = temporaryFolder();
  for (const name of TEXTS) {
    cpSync(join(GEN, name), join(folder, name));
    writeFileSync(join(folder, name), change(readFileSync(join(GEN, name))));
  }
  return folder;
}

test("a byte order mark is no part of a text: by the tokenizer's own way, as a checkpoint's folder and as Blobs", async () => {
  const folder = changed(bytes => Buffer.concat([Buffer.of(0xef, 0xbb, 0xbf), bytes]));
  const expected = (await Tokenizer.load(GEN)).encodeChat(MESSAGES);
  const blobs = new Map(TEXTS.map(name => [name, new Blob([readFileSync(join(folder, name))])]));
  for (const source of [folder, await openCheckpointFiles(folder), filesFromBlobs(blobs)]) {
    expect((await Tokenizer.load(source)).encodeChat(MESSAGES)).toEqual(expected);
  }
  const [config, plain] = [await openCheckpointFiles(folder), await openCheckpointFiles(GEN)];
  expect(JSON.parse((await config.readText("config.json"))!)).toEqual(
    JSON.parse((await plain.readText("config.json"))!),
  );
});

test("a git-lfs pointer in place of a text is called one", async () => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${"a".repeat(64)}\nsize 11422654\n`;
  const folder = changed(() => Buffer.from(pointer));
  for (const name of TEXTS) {
    const message = `${name}: expected the file itself, got a git-lfs pointer (git lfs pull fetches it)`;
    await expect((await openCheckpointFiles(folder)).readText(name)).rejects.toThrow(message);
    await expect(filesFromBlobs(new Map([[name, new Blob([pointer])]])).readText(name)).rejects.toThrow(message);
  }
  await expect(Tokenizer.load(folder)).rejects.toThrow("got a git-lfs pointer");
});

describe("how large a text may be", () => {
  test.each([
    ["tokenizer.json", 16 * 2 ** 20],
    ["tokenizer_config.json", 2 ** 20],
    ["config.json", 2 ** 20],
  ])("%s: %d bytes, and not one more", async (name, limit) => {
    expect(maxTextBytes(name)).toBe(limit);
    const path = join(temporaryFolder(), name);
    writeFileSync(path, Buffer.alloc(limit, 0x20));
    expect((await readTextFile(path, "m"))?.length).toBe(limit);
    writeFileSync(path, Buffer.alloc(limit + 1, 0x20));
    await expect(readTextFile(path, "m")).rejects.toThrow(
      new RangeError(`m: expected at most ${limit} bytes, got ${limit + 1}`),
    );
  });

  test("the limit is the caller's, to the byte", () => {
    expect(decodeText(Uint8Array.of(0x61, 0x62), "m", 2)).toBe("ab");
    expect(() => decodeText(Uint8Array.of(0x61, 0x62), "m", 1)).toThrow(
      new RangeError("m: expected at most 1 bytes, got more"),
    );
    expect(() => decodeText(Uint8Array.of(0xff), "m", 1)).toThrow(
      new TypeError("m: expected UTF-8 text, got bytes that are not"),
    );
    expect(decodeText(new TextEncoder().encode("a version https://git-lfs.github.com/spec/"), "m", 99)).toMatch(
      /^a version/,
    );
  });
});

describe("a path without a text", () => {
  test("is undefined where there is nothing, in or below what is there", async () => {
    const folder = temporaryFolder({ file: "" });
    for (const path of ["none", "none/none", "file/none"])
      expect(await readTextFile(join(folder, path), "m")).toBeUndefined();
    expect(await readTextFile(join(folder, "file"), "m")).toBe("");
  });

  test("is an error where there is something else, or where the system refuses", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "config.json"));
    await expect(readTextFile(join(folder, "config.json"), "m")).rejects.toThrow(
      new TypeError("m: expected a regular file"),
    );
    await expect(readTextFile(join(folder, "n".repeat(5000)), "m")).rejects.toMatchObject({ code: "ENAMETOOLONG" });
  });

  test.skipIf(process.platform !== "linux")("leaves no file open, whether it was read or refused", async () => {
    const folder = temporaryFolder({ good: "{}" });
    writeFileSync(join(folder, "bad"), Uint8Array.of(0xff));
    await readTextFile(join(folder, "good"), "m");
    await expect(readTextFile(join(folder, "bad"), "m")).rejects.toThrow("expected UTF-8 text");
    const open = readdirSync("/proc/self/fd").filter(fd => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
      } catch {
        return false; // closed in between
      }
    });
    expect(open).toEqual([]);
  });
});
