/** Activations of the fast engine: float32 values at an address of its first memory. */

import { type FloatBuffer, lengthOf, tailShape } from "../engine.ts";
import type { Heap } from "./heap.ts";
import { FLOAT_BYTES } from "./panel-layout.ts";

export class WasmBuffer implements FloatBuffer {
  readonly shape: readonly number[];
  readonly length: number;
  readonly address: number;
  readonly #heap: Heap;

  constructor(heap: Heap, address: number, shape: readonly number[]) {
    this.#heap = heap;
    this.address = address;
    this.shape = shape;
    this.length = lengthOf(shape);
  }

  get data(): Float32Array {
    return this.#heap.floats(this.address, this.length);
  }

  tail(first: number): WasmBuffer {
    const shape = tailShape(this.shape, first);
    return new WasmBuffer(this.#heap, this.address + (this.length - lengthOf(shape)) * FLOAT_BYTES, shape);
  }
}

/** Throws TypeError for a buffer of another engine. */
export function addressOf(buffer: FloatBuffer): number {
  if (!(buffer instanceof WasmBuffer)) throw new TypeError("buffer: expected one of this engine, got one of another");
  return buffer.address;
}
