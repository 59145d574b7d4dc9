/**
 * A job: work that is cut into items which touch different outputs, so that who does which item cannot change a bit.
 *
 * In: what a thread has at hand, and the job's arguments (addresses and sizes). Out: what it does for an item. The
 * arguments are declared once, as named fields: the caller names them, between threads they travel as numbers in the
 * fields' order, and the job reads them by name again. The same code runs on the main thread and on workers.
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
  /** Called once a thread; what it returns does an item. */
  begin(context: JobContext, args: JobArgs<Field>): (item: number) => void;
}

/** Room for so many arguments is in the threads' control block. */
export const MAX_JOB_FIELDS = 16;

export function defineJob<const Field extends string>(
  fields: readonly Field[],
  begin: Job<Field>["begin"],
): Job<Field> {
  return { fields, begin };
}

/** Forms of weights: a job is given one by its index. */
const FORMS: readonly WeightForm[] = ["BF16", "F16", "F32", "int8", "int4"];

export function formCode(form: WeightForm): number {
  return FORMS.indexOf(form);
}

export function formOf<Form extends WeightForm = WeightForm>(code: number): Form {
  return FORMS[code] as Form;
}

/**
 * The memory as bytes, at least up to the byte `end`. When one thread has grown a shared memory, another's
 * `memory.buffer` shows it only after V8 has interrupted that thread, which it does at the turn of a loop; until then a
 * write beyond the old end would be lost without a word.
 */
export function bytesUpTo(memory: WebAssembly.Memory, end: number): Uint8Array {
  for (let turns = 0; turns < 1_000_000; turns++) {
    const bytes = new Uint8Array(memory.buffer);
    if (bytes.byteLength >= end) return bytes;
  }
  throw new Error(`memory: expected at least ${end} bytes, got ${memory.buffer.byteLength}`);
}

/** The same as floats. */
export function floatsUpTo(memory: WebAssembly.Memory, end: number): Float32Array {
  return new Float32Array(bytesUpTo(memory, end).buffer);
}
