/** A checkpoint's text files: read in one way, whoever asks and wherever they are. */

import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { filesFromBlobs } from "../../src/model/checkpoint-files.ts";
import { openCheckpointFiles } from "../../src/model/open-checkpoint.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { temporaryFolder } from "../app/harness.ts";
import { GEN } from "../checkpoints.ts";

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
  expect(JSON.parse((await config.readText("config.json"))!)).toEqual(JSON.parse((await plain.readText("config.json"))!));
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
