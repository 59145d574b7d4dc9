import { execFileSync } from "node:child_process";
import fs, { readdirSync, readlinkSync, type Stats } from "node:fs";
import { mkdtemp, rm, stat, truncate, writeFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { bytesFromFile } from "../../src/checkpoint/bytes.node.ts";
import { type ByteSource, bytesFromBlob, bytesFromBuffer } from "../../src/checkpoint/bytes.ts";

const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i * 7);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "bytes-"));
  await writeFile(join(folder, "file"), bytes);
});
afterAll(() => rm(folder, { recursive: true }));

const sources: Record<string, () => Promise<ByteSource>> = {
  ArrayBuffer: async () => bytesFromBuffer(bytes.slice().buffer),
  "Uint8Array in the middle of a buffer": async () => {
    const outer = new Uint8Array(1100).fill(255);
    outer.set(bytes, 50);
    return bytesFromBuffer(outer.subarray(50, 1050));
  },
  Blob: async () => bytesFromBlob(new Blob([bytes.subarray(0, 300), bytes.subarray(300)])),
  file: () => bytesFromFile(join(folder, "file")),
};

describe.each(Object.entries(sources))("%s", (_, open) => {
  test("gives any range, including the empty one at the end", async () => {
    const source = await open();
    expect(source.byteLength).toBe(1000);
    for (const [offset, count] of [
      [0, 1000],
      [0, 0],
      [1000, 0],
      [999, 1],
      [123, 456],
    ]) {
      const target = new Uint8Array(count);
      await source.readInto(target, offset);
      expect(target).toEqual(bytes.slice(offset, offset + count));
    }
    await source.close();
  });

  test.each([-1, 1001, 999.5, Number.NaN, 2 ** 53, Infinity])("refuses to read from %d on", async offset => {
    const source = await open();
    await expect(source.readInto(new Uint8Array(0), offset)).rejects.toThrow(RangeError);
    await source.close();
  });

  test("refuses to read across the end", async () => {
    const source = await open();
    await expect(source.readInto(new Uint8Array(2), 999)).rejects.toThrow(
      /expected a range within 1000 bytes, got 2 bytes from 999 on/,
    );
    await source.close();
  });
});

test("a file that is truncated while open is an error, not zeros", async () => {
  const path = join(folder, "shrinks");
  await writeFile(path, bytes);
  const source = await bytesFromFile(path);
  await truncate(path, 600);
  await expect(source.readInto(new Uint8Array(1000), 0)).rejects.toThrow(/expected 1000 bytes from 0 on, got 600/);
  await source.close();
});

test("a large Blob is read in pieces", async () => {
  const large = new Uint8Array(40 * 2 ** 20);
  for (let i = 0; i < large.length; i += 4096) large[i] = i / 4096;
  const target = new Uint8Array(large.length - 5);
  await bytesFromBlob(new Blob([large])).readInto(target, 5);
  expect(Buffer.compare(target, large.subarray(5))).toBe(0);
});

test("a directory is refused", async () => {
  await expect(bytesFromFile(folder)).rejects.toThrow(/expected a regular file, got a directory/);
});

test("a missing file throws the system's ENOENT", async () => {
  await expect(bytesFromFile(join(folder, "none"))).rejects.toMatchObject({ code: "ENOENT" });
});

test.skipIf(process.platform === "win32")("a pipe without a writer is refused at once", async () => {
  const pipe = join(folder, "pipe");
  execFileSync("mkfifo", [pipe]);
  await expect(bytesFromFile(pipe)).rejects.toThrow(/expected a regular file, got a pipe/);
});

test.skipIf(process.platform === "win32")("a device is refused", async () => {
  await expect(bytesFromFile("/dev/zero")).rejects.toThrow(/expected a regular file, got a device/);
});

test("a buffer and a Blob have names for messages", async () => {
  await expect(bytesFromBuffer(bytes).readInto(new Uint8Array(1), 1000)).rejects.toThrow(/^buffer: expected a range/);
  await expect(bytesFromBlob(new Blob([bytes])).readInto(new Uint8Array(1), 1000)).rejects.toThrow(
    /^blob: expected a range/,
  );
});

test("a large Blob is read piece by piece, each from its own place", async () => {
  const asked: [number, number][] = [];
  const slice = (start: number, end: number) => {
    asked.push([start, end]);
    return { arrayBuffer: async () => new Uint8Array(end - start).fill(asked.length).buffer };
  };
  const piece = 16 * 2 ** 20;
  const target = new Uint8Array(piece + 2);
  await bytesFromBlob({ size: piece + 9, slice } as unknown as Blob).readInto(target, 7);
  expect(asked).toEqual([
    [7, 7 + piece],
    [7 + piece, 9 + piece],
  ]);
  expect([target[0], target[piece - 1], target[piece], target[piece + 1]]).toEqual([1, 1, 2, 2]);
});

test("a Blob of a file that was truncated is an error, not zeros", async () => {
  const slice = () => new Blob([bytes.subarray(0, 3)]);
  const source = bytesFromBlob({ size: 1000, slice } as unknown as Blob, "picked");
  await expect(source.readInto(new Uint8Array(10), 5)).rejects.toThrow(
    new Error("picked: expected 10 bytes from 5 on, got 3 (was it truncated while open?)"),
  );
});

test.skipIf(process.platform === "win32")("a socket is refused", async () => {
  const path = join(folder, "socket");
  const server = createServer();
  await new Promise<void>(resolve => server.listen(path, resolve));
  onTestFinished(() => void server.close());
  await expect(bytesFromFile(path, "s")).rejects.toThrow(new TypeError("s: expected a regular file, got a socket"));
});

describe("something that is not a regular file", () => {
  /** Replaces a function of `node:fs/promises` until the test ends. */
  function replace(name: "open" | "stat", stand: (path: string, ...rest: never[]) => unknown) {
    const spy = vi.spyOn(fs.promises, name).mockImplementation(stand as never);
    syncBuiltinESMExports();
    onTestFinished(() => {
      spy.mockRestore();
      syncBuiltinESMExports();
    });
    return spy;
  }

  test("is not even opened", async () => {
    const opened = replace("open", () => expect.fail("expected it to be looked at only"));
    await expect(bytesFromFile(folder)).rejects.toThrow("expected a regular file, got a directory");
    expect(opened).not.toHaveBeenCalled();
  });

  test.skipIf(process.platform !== "linux")(
    "is refused, and closed, where it has just taken a file's place",
    async () => {
      const pipe = join(folder, "swapped");
      execFileSync("mkfifo", [pipe]);
      const before: Stats = await stat(join(folder, "file"));
      replace("stat", async () => before);
      await expect(bytesFromFile(pipe)).rejects.toThrow(/expected a regular file, got a pipe$/);
      expect(openPaths()).toEqual([]);
    },
  );
});

test.skipIf(process.platform !== "linux")("closing a source closes its file", async () => {
  const source = await bytesFromFile(join(folder, "file"));
  expect(openPaths()).toEqual([join(folder, "file")]);
  await source.close();
  expect(openPaths()).toEqual([]);
});

/** The files below the folder that this process has open. */
function openPaths(): string[] {
  const paths = readdirSync("/proc/self/fd").map(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // closed in between
    }
  });
  return paths.filter(path => path.startsWith(`${folder}/`) && !path.endsWith("/socket"));
}
