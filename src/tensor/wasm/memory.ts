/**
 * One memory of the engine as one object: who has which part of it, the kernels that work on it, and the places that
 * jobs keep in it.
 *
 * In: values that lie in another memory. Out: their addresses here, for as long as some work takes.
 */

import { type Heap, KeptPlace } from "./heap.ts";
import { instantiateKernels, type Kernels } from "./kernels.ts";
import { FLOAT_BYTES } from "./panel-layout.ts";

/** Values of one memory that a job needs in another. */
export interface Operand {
  readonly address: number;
  /** Values. */
  readonly length: number;
  /** Values that the job may write after them. */
  readonly slack?: number;
  /** Whether the job reads them or writes them. */
  readonly use: "read" | "write";
}

export class EngineMemory {
  /** Which of the engine's memories it is: workers know it by that. */
  readonly index: number;
  readonly heap: Heap;
  /** The threads' scratch. */
  readonly scratch: KeptPlace;
  /** A few rows of activations, quantised: some 200 times a step of decoding. */
  readonly fewRows: KeptPlace;
  #kernels: Kernels | undefined;

  constructor(index: number, heap: Heap) {
    this.index = index;
    this.heap = heap;
    this.scratch = new KeptPlace(heap);
    this.fewRows = new KeptPlace(heap);
  }

  /** Compiled for this memory's kind; see compileKernels. */
  instantiate(module: WebAssembly.Module): void {
    this.#kernels = instantiateKernels(module, this.heap.memory);
  }

  get kernels(): Kernels {
    if (!this.#kernels) throw new Error("engine: expected one that is open, got one that was closed");
    return this.#kernels;
  }

  /**
   * Gives `work` addresses of operands that lie in `home`: their own where that is this memory, else those of copies
   * made for the time.
   */
  with(home: EngineMemory, operands: readonly Operand[], work: (addresses: readonly number[]) => void): void {
    if (home === this) return work(operands.map(({ address }) => address));
    const copies = this.heap.allocateAll(operands.map(({ length, slack = 0 }) => (length + slack) * FLOAT_BYTES));
    try {
      operands.forEach(({ use, address, length }, i) => {
        if (use === "read") this.heap.floats(copies[i], length).set(home.heap.floats(address, length));
      });
      work(copies);
      operands.forEach(({ use, address, length }, i) => {
        if (use === "write") home.heap.floats(address, length).set(this.heap.floats(copies[i], length));
      });
    } finally {
      for (const address of copies) this.heap.free(address);
    }
  }

  /** Gives the memory back, whoever still holds a matrix or a cache in it. */
  close(): void {
    this.#kernels = undefined;
    this.heap.close();
  }
}
