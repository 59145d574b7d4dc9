/**
 * One file from the Hub, against a stand-in for `fetch`: which requests are made, how much of their answers is kept,
 * and when to stop.
 */

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { downloadBlob, type HubFile, PATIENCE, sizeOf } from "../../../src/checkpoint/hub/blob.node.ts";
import { temporaryFolder } from "../../cli/harness.ts";

const delays = vi.hoisted((): number[] => []);
vi.mock("node:timers/promises", () => ({ setTimeout: async (ms: number) => void delays.push(ms) }));

const CONTENT = Buffer.from("0123456789");
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** An answer: a status, the body's pieces, and whether the connection is cut after them. */
interface Answer {
  readonly status?: number;
  readonly range?: string;
  readonly pieces?: readonly Uint8Array[];
  readonly isCut?: boolean;
}

interface Download {
  /** The Range headers of the requests. */
  readonly ranges: (string | null)[];
  readonly progress: (number | null)[];
  readonly folder: string;
  readonly run: () => Promise<number>;
  readonly onDisk: (name: string) => string | undefined;
}

/** Gives each answer once, and the last one again and again. */
function download(
  answers: readonly Answer[],
  { kept, ...more }: { kept?: Uint8Array } & Partial<HubFile> = {},
): Download {
  const ranges: (string | null)[] = [];
  const progress: (number | null)[] = [];
  const folder = temporaryFolder(kept ? { "blob.incomplete": kept } : {});
  vi.stubGlobal("fetch", async (_: URL, { headers, signal }: RequestInit) => {
    const sent = new Headers(headers);
    expect(sent.get("accept-encoding")).toBe("identity");
    const { status = 200, range, pieces = [], isCut = false } = answers[Math.min(ranges.length, answers.length - 1)];
    ranges.push(sent.get("range"));
    const left = [...pieces];
    const body = new ReadableStream<Uint8Array>({
      pull: controller => {
        const piece = left.shift();
        if (piece) return controller.enqueue(piece);
        if (isCut) controller.error(new Error("cut"));
        else controller.close();
        signal?.throwIfAborted();
      },
    });
    return new Response(body, { status, headers: range ? { "content-range": range } : {} });
  });
  onTestFinished(() => void vi.unstubAllGlobals());
  delays.length = 0;
  const file = { name: "f", bytes: CONTENT.length, etag: sha256(CONTENT), ...more };
  const target = { id: "org/name", revision: "main", endpoint: "https://hub.test", token: undefined };
  const options = {
    target,
    url: "https://hub.test/f",
    onBytes: (bytes: number | null) => void progress.push(bytes),
    patience: PATIENCE,
  };
  return {
    ...{ ranges, progress, folder },
    run: () => downloadBlob(file, join(folder, "blob"), options),
    onDisk: name => (existsSync(join(folder, name)) ? readFileSync(join(folder, name), "latin1") : undefined),
  };
}

describe("a file", () => {
  test("comes in pieces, is counted and checked, and then gets its name", async () => {
    const { run, ranges, progress, folder, onDisk } = download([
      { pieces: [CONTENT.subarray(0, 4), CONTENT.subarray(4)] },
    ]);
    expect(await run()).toBe(10);
    expect([ranges, progress]).toEqual([[null], [0, 4, 10, null]]);
    expect([readdirSync(folder), onDisk("blob")]).toEqual([["blob"], "0123456789"]);
    expect(delays).toEqual([]);
  });

  test("that is small has git's hash as its name", async () => {
    const etag = createHash("sha1").update("blob 10\0").update(CONTENT).digest("hex");
    const { run, onDisk } = download([{ pieces: [CONTENT] }], { etag });
    expect([await run(), onDisk("blob")]).toEqual([10, "0123456789"]);
  });

  test("of no bytes is requested too", async () => {
    const { run, ranges, onDisk } = download([{}], { bytes: 0, etag: sha256(new Uint8Array(0)) });
    expect([await run(), ranges, onDisk("blob")]).toEqual([0, [null], ""]);
  });

  test("that is longer than the listing says is refused at once", async () => {
    const { run, ranges } = download([{ pieces: [CONTENT, CONTENT.subarray(0, 1)] }]);
    await expect(run()).rejects.toThrow(new RangeError("org/name/f: expected 10 bytes, got more"));
    expect(ranges).toHaveLength(1);
  });

  test("that the server refuses is requested once", async () => {
    const { run, ranges } = download([{ status: 404 }]);
    await expect(run()).rejects.toThrow("org/name: expected a model of the Hub, got no such model");
    expect(ranges).toHaveLength(1);
  });
});

describe("the part kept from an earlier download", () => {
  const rest = CONTENT.subarray(4);
  const kept = CONTENT.subarray(0, 4);

  test.each(["bytes 4-9/10", "bytes 4-9/*"])("is continued when the answer is the rest: %s", async range => {
    const { run, ranges, progress, onDisk } = download([{ status: 206, range, pieces: [rest] }], { kept });
    expect([await run(), ranges, progress, onDisk("blob")]).toEqual([6, ["bytes=4-"], [4, 10, null], "0123456789"]);
  });

  test("is overwritten when the answer is the whole file", async () => {
    const { run, progress, onDisk } = download([{ pieces: [CONTENT] }], { kept: Buffer.from("xxxxxxx") });
    expect([await run(), progress, onDisk("blob")]).toEqual([10, [7, 0, 10, null], "0123456789"]);
  });

  test.each<[string, Answer]>([
    ["another start", { status: 206, range: "bytes 0-9/10", pieces: [rest] }],
    ["another length", { status: 206, range: "bytes 4-9/11", pieces: [rest] }],
    ["no range", { status: 206, pieces: [rest] }],
    ["another unit", { status: 206, range: "xbytes 4-9/10", pieces: [rest] }],
    ["more after the range", { status: 206, range: "bytes 4-9/10x", pieces: [rest] }],
    ["a range of no file", { status: 416, range: "bytes 4-9/10", pieces: [rest] }],
  ])("is dropped when the answer has %s", async (_, answer) => {
    const { run, ranges, progress, onDisk } = download([answer, { pieces: [CONTENT] }], { kept });
    expect([await run(), ranges, onDisk("blob")]).toEqual([10, ["bytes=4-", null], "0123456789"]);
    expect(progress).toEqual([4, 0, 0, 10, null]);
  });

  test("may be the whole file, and then nothing is requested", async () => {
    const { run, ranges, progress, onDisk } = download([{}], { kept: CONTENT });
    expect([await run(), ranges, progress, onDisk("blob")]).toEqual([0, [], [10, null], "0123456789"]);
  });

  test("is dropped if it is longer than the file", async () => {
    const { run, ranges, progress, onDisk } = download([{ pieces: [CONTENT] }], { kept: Buffer.from("01234567890") });
    expect([await run(), ranges, progress, onDisk("blob")]).toEqual([10, [null], [0, 10, null], "0123456789"]);
  });

  test("may have other contents: one download from the beginning decides, and only one", async () => {
    const wrong = Buffer.from("xxxx");
    const range = "bytes 4-9/10";
    const good = download([{ status: 206, range, pieces: [rest] }, { pieces: [CONTENT] }], { kept: wrong });
    expect([await good.run(), good.ranges]).toEqual([16, ["bytes=4-", null]]);
    const bad = download([{ status: 206, range, pieces: [rest] }, { pieces: [Buffer.from("xxxx456789")] }], {
      kept: wrong,
    });
    const got = sha256(Buffer.from("xxxx456789"));
    const message = `org/name/f: expected the checksum ${sha256(CONTENT)}, got ${got}; the file is removed`;
    await expect(bad.run()).rejects.toThrow(new Error(message));
    expect([bad.ranges, readdirSync(bad.folder)]).toEqual([["bytes=4-", null], []]);
    // The second download was itself cut, and its pieces have different contents again. That was the last try.
    const cut = [
      { pieces: [Buffer.from("x")], isCut: true },
      { status: 206, range: "bytes 1-9/10", pieces: [CONTENT.subarray(1)] },
    ];
    const twice = download([{ status: 206, range, pieces: [rest] }, ...cut], { kept: wrong });
    await expect(twice.run()).rejects.toThrow("the file is removed");
    expect(twice.ranges).toEqual(["bytes=4-", null, "bytes=1-"]);
  });

  test("counts as nothing if it is empty: a wrong checksum after it is final", async () => {
    const { run, ranges } = download([{ pieces: [Buffer.from("xxxxxxxxxx")] }], { kept: new Uint8Array(0) });
    await expect(run()).rejects.toThrow("the file is removed");
    expect(ranges).toEqual([null]);
  });
});

describe("a connection that is cut", () => {
  test("is tried five times, with each pause twice the one before, and the downloaded part stays", async () => {
    const { run, ranges, onDisk } = download([{ pieces: [CONTENT.subarray(0, 1)], isCut: true }, { status: 503 }]);
    await expect(run()).rejects.toThrow(
      /^org\/name: expected an answer from https:\/\/hub\.test, got status 503; the downloaded part is kept, and pulling again continues$/,
    );
    expect([ranges, delays, onDisk("blob.incomplete")]).toEqual([
      [null, ...Array(4).fill("bytes=1-")],
      [500, 1000, 2000, 4000],
      "0",
    ]);
  });

  test("is reported with its reason, and so is a file that ends early", async () => {
    const kept = "; the downloaded part is kept, and pulling again continues";
    await expect(download([{ isCut: true }]).run()).rejects.toThrow(
      `org/name/f: expected the whole file, got a connection cut off (cut)${kept}`,
    );
    const early = download([{ pieces: [CONTENT.subarray(0, 9)] }, { status: 206, range: "bytes 9-9/10" }]);
    await expect(early.run()).rejects.toThrow(`org/name/f: expected 10 bytes, got 9${kept}`);
    await expect(download([{ status: 206, range: "bytes 0-9/10", pieces: [CONTENT] }]).run()).rejects.toThrow(
      `org/name/f: expected the file, got status 206 with other bytes${kept}`,
    );
    const other = download([{ status: 416 }], { kept: CONTENT.subarray(0, 4) });
    await expect(other.run()).rejects.toThrow("org/name/f: expected the file, got status 416 with other bytes");
    expect(other.ranges).toEqual(["bytes=4-", null, null, null, null]);
  });

  test("starts the count again after 8 MiB, and not a byte before", async () => {
    const tries = async (bytes: number): Promise<number> => {
      const { run, ranges } = download(
        [
          { status: 503 },
          { status: 503 },
          { status: 503 },
          { status: 503 },
          { pieces: [new Uint8Array(bytes)], isCut: true },
          { status: 503 },
        ],
        { bytes: 2 ** 24 },
      );
      await expect(run()).rejects.toThrow("pulling again continues");
      return ranges.length;
    };
    expect([await tries(8 * 2 ** 20), await tries(8 * 2 ** 20 - 1)]).toEqual([9, 5]);
    expect(delays).toEqual([500, 1000, 2000, 4000]);
  });
});

test("sizeOf gives the size of a file, and undefined where there is none", async () => {
  const folder = temporaryFolder({ five: "12345" });
  writeFileSync(join(folder, "none"), "");
  expect([
    await sizeOf(join(folder, "five")),
    await sizeOf(join(folder, "none")),
    await sizeOf(join(folder, "x")),
  ]).toEqual([5, 0, undefined]);
});
