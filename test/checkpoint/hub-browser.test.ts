/**
 * A Hub id where there is no file system: bundlers for browsers put an empty module in the place of folder.node.ts.
 */

import { expect, onTestFinished, test, vi } from "vitest";
import { openCheckpointFiles } from "../../src/checkpoint/open.ts";

vi.mock("../../src/checkpoint/folder.node.ts", () => ({ filesFromFolder: undefined, isThere: undefined }));

test("is the URL of its files on the Hub", async () => {
  const asked: string[] = [];
  vi.stubGlobal("fetch", async (url: URL) => {
    asked.push(url.href);
    return new Response("{}");
  });
  onTestFinished(() => void vi.unstubAllGlobals());
  const files = await openCheckpointFiles("Qwen/Qwen3Guard-Gen-0.6B");
  expect(files.name).toBe("Qwen/Qwen3Guard-Gen-0.6B");
  expect(await files.readText("config.json")).toBe("{}");
  await (await openCheckpointFiles("org/name@refs/pr/1")).readText("config.json");
  expect(asked).toEqual([
    "https://huggingface.co/Qwen/Qwen3Guard-Gen-0.6B/resolve/main/config.json",
    "https://huggingface.co/org/name/resolve/refs%2Fpr%2F1/config.json",
  ]);
});

test("a folder's path is refused", async () => {
  await expect(openCheckpointFiles("./folder")).rejects.toThrow(
    "./folder: expected a URL, a Hub id or filesFromBlobs, since folders need Node",
  );
});
