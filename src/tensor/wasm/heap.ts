/**
 * One memory of an engine: a WebAssembly.Memory, and which parts of it are in use.
 *
 * In: sizes in bytes. Out: byte addresses, and views on them. A memory only grows, and growing kills the views of an
 * unshared one, so views are made here at each use and kept nowhere.
 */

import { MemoryError } from "../memory-error.ts";
import { MAX_PAGES, PAGE_BYTES } from "./kernels.ts";

/** A cache line, and a whole number of vectors. */
const ALIGNMENT = 64;

interface Block {
  readonly address: number;
  readonly bytes: number;
}

export class Heap {
  #memory: WebAssembly.Memory | undefined;
  /** The most bytes that the memory may grow to. */
  readonly limit: number;
  /** In order of address; neighbours are always merged. */
  #free: Block[] = [];
  #used = new Map<number, number>();
  #end: number;

  /** The first `reserved` bytes are not given out. */
  constructor(shared: boolean, reserved: number, limit: number = MAX_PAGES * PAGE_BYTES) {
    this.#memory = new WebAssembly.Memory({
      initial: Math.ceil(reserved / PAGE_BYTES),
      maximum: MAX_PAGES,
      ...(shared ? { shared: true } : {}),
    });
    this.limit = limit;
    this.#end = roundUp(reserved, ALIGNMENT);
  }

  /** Bytes in use. */
  get usedBytes(): number {
    let sum = 0;
    for (const bytes of this.#used.values()) sum += bytes;
    return sum;
  }

  /** Throws Error for a heap that was closed. */
  get memory(): WebAssembly.Memory {
    if (!this.#memory) throw new Error("the engine is closed");
    return this.#memory;
  }

  /** Gives the memory back, even if someone still holds the heap. */
  close(): void {
    this.#memory = undefined;
  }

  /**
   * The address of a free place of `bytes`, not cleared. Throws RangeError, with both numbers, where the memory cannot
   * hold them.
   */
  allocate(bytes: number): number {
    const size = roundUp(Math.max(bytes, 1), ALIGNMENT);
    const index = this.#free.findIndex(block => block.bytes >= size);
    if (index >= 0) {
      const { address, bytes: found } = this.#free[index];
      if (found === size) this.#free.splice(index, 1);
      else this.#free[index] = { address: address + size, bytes: found - size };
      this.#used.set(address, size);
      return address;
    }
    const address = this.#end;
    this.#grow(address + size, size);
    this.#end = address + size;
    this.#used.set(address, size);
    return address;
  }

  /** Several places at once; where one does not fit, the others are freed again. */
  allocateAll(sizes: readonly number[]): number[] {
    const addresses: number[] = [];
    try {
      for (const bytes of sizes) addresses.push(this.allocate(bytes));
      return addresses;
    } catch (error) {
      for (const address of addresses) this.free(address);
      throw error;
    }
  }

  /** Whether there is room for `bytes` in one piece. */
  hasRoom(bytes: number): boolean {
    const size = roundUp(bytes, ALIGNMENT);
    return this.#end + size <= this.limit || this.#free.some(block => block.bytes >= size);
  }

  free(address: number): void {
    const bytes = this.#used.get(address);
    if (bytes === undefined) throw new RangeError(`heap: expected an address that was allocated, got ${address}`);
    this.#used.delete(address);
    const at = this.#free.findIndex(block => block.address > address);
    const index = at < 0 ? this.#free.length : at;
    this.#free.splice(index, 0, { address, bytes });
    this.#merge(index);
    if (index > 0) this.#merge(index - 1);
  }

  floats(address: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, length);
  }

  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, length);
  }

  #merge(index: number): void {
    const [block, next] = [this.#free[index], this.#free[index + 1]];
    if (next && block.address + block.bytes === next.address)
      this.#free.splice(index, 2, { address: block.address, bytes: block.bytes + next.bytes });
  }

  #grow(end: number, size: number): void {
    const have = this.memory.buffer.byteLength;
    if (end <= have) return;
    const refuse = (): never => {
      const [asked, used, limit] = [size, this.usedBytes, this.limit].map(
        bytes => `${(bytes / 2 ** 20).toFixed(1)} MB`,
      );
      throw new MemoryError(`memory: no room for ${asked} beside ${used} in use: the limit is ${limit}`);
    };
    if (end > this.limit) refuse();
    try {
      this.memory.grow(Math.ceil((end - have) / PAGE_BYTES));
    } catch {
      refuse();
    }
  }
}

/** A place that is kept from use to use. Where it is too small a larger one replaces it, and its contents are lost. */
export class KeptPlace {
  readonly #heap: Heap;
  #address = 0;
  #bytes = 0;

  constructor(heap: Heap) {
    this.#heap = heap;
  }

  /** The address of at least `bytes`; 0 where none were ever asked for. */
  atLeast(bytes: number): number {
    if (bytes > this.#bytes) {
      if (this.#bytes > 0) this.#heap.free(this.#address);
      this.#bytes = 0;
      this.#address = this.#heap.allocate(bytes);
      this.#bytes = bytes;
    }
    return this.#address;
  }
}

/** The next multiple of `unit`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
