/**
 * One memory of the engine: its heap, the kernels that work on it, and the places that jobs keep in it.
 *
 * In: operands that may lie in another memory. Out: their addresses in this one, for as long as a job takes.
 */

import { type Heap, KeptPlace } from "./heap.ts";
import { instantiateKernels, type Kernels } from "./kernels.ts";
import { FLOAT_BYTES } from "./panel-layout.ts";

/** Values of one memory that a job needs in another. */
export interface Operand {
  readonly address: number;
  readonly length: number;
  /** How many values the job may write after them. */
  readonly slack?: number;
  /** Whether the job reads them or writes them. */
  readonly use: "read" | "write";
}

/** Operands as a job finds them. */
export interface Borrowed {
  /** In the order of the operands. */
  readonly addresses: readonly number[];
  giveBack(): void;
}

export class EngineMemory {
  /** Its place among the engine's memories, by which workers know it. */
  readonly index: number;
  readonly heap: Heap;
  /** The threads' scratch. */
  readonly scratch: KeptPlace;
  /** A few rows of quantised activations, which a step of decoding needs some 200 times. */
  readonly fewRows: KeptPlace;
  #kernels: Kernels | undefined;

  constructor(index: number, heap: Heap) {
    this.index = index;
    this.heap = heap;
    this.scratch = new KeptPlace(heap);
    this.fewRows = new KeptPlace(heap);
  }

  /** Takes the kernels, compiled for a memory that is shared or not, as this one is. */
  instantiate(module: WebAssembly.Module): void {
    this.#kernels = instantiateKernels(module, this.heap.memory);
  }

  get kernels(): Kernels {
    if (!this.#kernels) throw new Error("the engine is closed");
    return this.#kernels;
  }

  /**
   * Where operands that lie in `home` are to be found in this memory: where they are if it is the same, else in copies.
   * `giveBack` must be called when the job is done: it copies what the job wrote back home, and frees the copies.
   */
  borrow(home: EngineMemory, operands: readonly Operand[]): Borrowed {
    if (home === this) return { addresses: operands.map(({ address }) => address), giveBack: () => {} };
    const { heap } = this;
    const copies = heap.allocateAll(operands.map(({ length, slack = 0 }) => (length + slack) * FLOAT_BYTES));
    for (const [i, { use, address, length }] of operands.entries())
      if (use === "read") heap.floats(copies[i], length).set(home.heap.floats(address, length));
    const giveBack = (): void => {
      for (const [i, { use, address, length }] of operands.entries())
        if (use === "write") home.heap.floats(address, length).set(heap.floats(copies[i], length));
      for (const address of copies) heap.free(address);
    };
    return { addresses: copies, giveBack };
  }

  /** Gives the memory back, even if someone still holds a matrix or a cache in it. */
  close(): void {
    this.#kernels = undefined;
    this.heap.close();
  }
}
