/** Activations of the fast engine: float32 values at an address of its first memory. */

import type { FloatBuffer } from "../engine.ts";
import type { Heap } from "./heap.ts";

export class WasmBuffer implements FloatBuffer {
  readonly address: number;
  readonly length: number;
  readonly #heap: Heap;

  constructor(heap: Heap, address: number, length: number) {
    this.#heap = heap;
    this.address = address;
    this.length = length;
  }

  get data(): Float32Array {
    return this.#heap.floats(this.address, this.length);
  }
}

/** Throws TypeError for a buffer of another engine. */
export function addressOf(buffer: FloatBuffer): number {
  if (!(buffer instanceof WasmBuffer)) throw new TypeError("buffer: expected one of this engine, got one of another");
  return buffer.address;
}
