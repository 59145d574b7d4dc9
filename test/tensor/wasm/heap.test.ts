import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Heap } from "../../../src/tensor/wasm/heap.ts";

describe("heap", () => {
  test("in any order of use blocks never overlap, are aligned, and merge when they are freed", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 5000 })), { maxLength: 60 }), steps => {
        const heap = new Heap(false, 100);
        const blocks: { address: number; bytes: number }[] = [];
        for (const [isAllocation, n] of steps) {
          if (isAllocation || blocks.length === 0) {
            const address = heap.allocate(n);
            expect(address % 64).toBe(0);
            expect(address).toBeGreaterThanOrEqual(100);
            for (const other of blocks)
              expect(address + n <= other.address || other.address + other.bytes <= address).toBe(true);
            expect(heap.bytes(address, n).length).toBe(n);
            blocks.push({ address, bytes: Math.max(n, 1) });
          } else {
            const [block] = blocks.splice(n % blocks.length, 1);
            heap.free(block.address);
          }
        }
        for (const { address } of blocks) heap.free(address);
        expect(heap.usedBytes).toBe(0);
        // Everything is one block again: all that was used fits at its beginning.
        const end = heap.memory.buffer.byteLength;
        heap.allocate(1);
        expect(heap.memory.buffer.byteLength).toBe(end === 0 ? 65536 : end);
      }),
      { seed: 1, numRuns: 100 },
    );
  });

  test("a limit is an error with both numbers, and what was allocated stays usable", () => {
    const heap = new Heap(false, 64, 2 ** 20);
    const address = heap.allocate(700_000);
    expect(() => heap.allocate(500_000)).toThrow(
      "memory: no room for 0.5 MB beside 0.7 MB in use: the limit is 1.0 MB",
    );
    heap.free(address);
    expect(heap.allocate(600_000)).toBe(address);
    expect(() => heap.free(12345)).toThrow("heap: expected an address that was allocated, got 12345");
  });
});

test("of several at once, none is kept where one does not fit", () => {
  const heap = new Heap(false, 100, 2 ** 20);
  expect(() => heap.allocateAll([1000, 2 ** 20])).toThrow("memory: no room for 1.0 MB");
  expect(heap.usedBytes).toBe(0);
  const [first, second] = heap.allocateAll([1000, 2000]);
  expect(second - first).toBeGreaterThanOrEqual(1000);
});
