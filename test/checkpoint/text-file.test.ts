/** A checkpoint's text files: read in one way, whoever asks and wherever the files are. */

import { cpSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { bytesFromBuffer } from "../../src/checkpoint/bytes.ts";
import { filesFromBlobs } from "../../src/checkpoint/files.ts";
import { filesFromFolder } from "../../src/checkpoint/folder.node.ts";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";
import { decodeText, maxTextBytes, readSourceText } from "../../src/checkpoint/text-file.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { GEN } from "../checkpoints.ts";
import { temporaryFolder } from "../cli/harness.ts";
import { watched } from "./safetensors-files.ts";

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

test("a byte order mark does not belong to the text, whether in a path, an opened folder or Blobs", async () => {
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

test("a git-lfs pointer in place of a text is reported as one", async () => {
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
    const folder = temporaryFolder({ [name]: Buffer.alloc(limit, 0x20) });
    expect((await (await filesFromFolder(folder, "m")).readText(name))?.length).toBe(limit);
    writeFileSync(join(folder, name), Buffer.alloc(limit + 1, 0x20));
    await expect((await filesFromFolder(folder, "m")).readText(name)).rejects.toThrow(
      new RangeError(`m/${name}: expected at most ${limit} bytes, got ${limit + 1}`),
    );
  });

  test("the caller sets the limit, to the byte, and the source is closed either way", async () => {
    const source = watched(bytesFromBuffer(Uint8Array.of(0x61, 0x62), "m"));
    expect(await readSourceText(source, 2)).toBe("ab");
    await expect(readSourceText(source, 1)).rejects.toThrow(new RangeError("m: expected at most 1 bytes, got 2"));
    expect([source.closed, source.reads.length]).toEqual([2, 1]);
  });
});

test("bytes that are not UTF-8 are refused, and git-lfs's mark counts only at the beginning", () => {
  expect(() => decodeText(Uint8Array.of(0xff), "m")).toThrow(
    new TypeError("m: expected UTF-8 text, got bytes that are not"),
  );
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  for (const text of ["a version https://git-lfs.github.com/spec/", "version https://git-lfs.github.com/spec", ""])
    expect(decodeText(encode(text), "m")).toBe(text);
  expect(() => decodeText(encode("version https://git-lfs.github.com/spec/"), "m")).toThrow("got a git-lfs pointer");
});

describe("a folder's path without a text", () => {
  test("is undefined where there is nothing, even below a file", async () => {
    const files = await filesFromFolder(temporaryFolder({ file: "" }), "m");
    for (const path of ["none", "none/none", "file/none"]) expect(await files.readText(path)).toBeUndefined();
    expect(await files.readText("file")).toBe("");
  });

  test("throws where there is something else, or where the system refuses", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "config.json"));
    const files = await filesFromFolder(folder, "m");
    await expect(files.readText("config.json")).rejects.toThrow(
      new TypeError("m/config.json: expected a regular file, got a directory"),
    );
    await expect(files.readText("n".repeat(5000))).rejects.toMatchObject({ code: "ENAMETOOLONG" });
  });

  test.skipIf(process.platform !== "linux")("leaves no file open, whether it was read or refused", async () => {
    const folder = temporaryFolder({ good: "{}" });
    writeFileSync(join(folder, "bad"), Uint8Array.of(0xff));
    const files = await filesFromFolder(folder);
    await files.readText("good");
    await expect(files.readText("bad")).rejects.toThrow("expected UTF-8 text");
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
