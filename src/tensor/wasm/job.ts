/**
 * A job: work that is cut into items which write different outputs, so the bits do not depend on which thread does
 * which item.
 *
 * In: what a thread has at hand, and the job's arguments (addresses and sizes). Out: the function that does an item.
 * The arguments are declared once, as named fields. The caller names them, they travel between threads as numbers in
 * the order of the fields, and the job reads them by name. The same code runs on the main thread and on workers.
 */

import type { Kernels } from "./kernels.ts";
import type { WeightForm } from "./panel-layout.ts";

/** What a job needs of the thread that runs it. */
export interface JobContext {
  readonly kernels: Kernels;
  readonly memory: WebAssembly.Memory;
  /** Address of this thread's scratch. */
  readonly scratch: number;
}

export type JobArgs<Field extends string> = Readonly<Record<Field, number>>;

export interface Job<Field extends string = string> {
  readonly fields: readonly Field[];
  /** Called once in each thread; returns the function that does an item. */
  begin(context: JobContext, args: JobArgs<Field>): (item: number) => void;
}

/** The threads' control block has room for this many arguments. */
export const MAX_JOB_FIELDS = 16;

export function defineJob<const Field extends string>(
  fields: readonly Field[],
  begin: Job<Field>["begin"],
): Job<Field> {
  return { fields, begin };
}

/** Forms of weights. A job is given one as its index here. */
const FORMS: readonly WeightForm[] = ["BF16", "F16", "F32", "int8", "int4"];

export function formCode(form: WeightForm): number {
  return FORMS.indexOf(form);
}

export function formOf<Form extends WeightForm = WeightForm>(code: number): Form {
  return FORMS[code] as Form;
}

/**
 * The memory as bytes, at least up to the byte `end`. When one thread has grown a shared memory, another thread's
 * `memory.buffer` shows it only after V8 has interrupted that thread, which happens at the turn of a loop. Until then,
 * a write beyond the old end would be lost silently.
 */
export function bytesUpTo(memory: WebAssembly.Memory, end: number): Uint8Array {
  for (let turns = 0; turns < 1_000_000; turns++) {
    const bytes = new Uint8Array(memory.buffer);
    if (bytes.byteLength >= end) return bytes;
  }
  throw new Error(`memory: expected at least ${end} bytes, got ${memory.buffer.byteLength}`);
}

/** The memory as floats, at least up to the byte `end`. */
export function floatsUpTo(memory: WebAssembly.Memory, end: number): Float32Array {
  return new Float32Array(bytesUpTo(memory, end).buffer);
}
