/** All jobs, by name. Threads name a job to each other by its index. */

import { attentionFew, attentionMany, storeKeysAndValues } from "./attention-jobs.ts";
import { fillPanel } from "./fill-panels.ts";
import type { Job, JobArgs, JobContext } from "./job.ts";
import { integerFew, integerMany, linearFew, linearMany, quantiseRows } from "./linear-jobs.ts";
import { add, limit, rmsNorm, rope, siluMul } from "./row-jobs.ts";
import { packTile } from "./tiles.ts";

export const JOBS = {
  packTile,
  linearMany,
  linearFew,
  quantiseRows,
  integerMany,
  integerFew,
  fillPanel,
  rmsNorm,
  rope,
  siluMul,
  add,
  storeKeysAndValues,
  attentionMany,
  attentionFew,
  limit,
} as const satisfies Record<string, Job>;

export type JobName = keyof typeof JOBS;
export const JOB_NAMES: readonly JobName[] = Object.keys(JOBS) as JobName[];

/** The arguments of a job, by name. */
export type ArgsOf<Name extends JobName> = (typeof JOBS)[Name] extends Job<infer Field> ? JobArgs<Field> : never;

/** The function that does an item of a job. */
export function beginJob<Name extends JobName>(
  name: Name,
  context: JobContext,
  args: ArgsOf<Name>,
): (item: number) => void {
  return (JOBS[name] as Job).begin(context, args);
}

/** A job's arguments as numbers, as they travel between threads. */
export function argsToNumbers<Name extends JobName>(name: Name, args: ArgsOf<Name>): number[] {
  return JOBS[name].fields.map(field => (args as JobArgs<string>)[field]);
}

export function argsFromNumbers<Name extends JobName>(name: Name, numbers: ArrayLike<number>): ArgsOf<Name> {
  return Object.fromEntries(JOBS[name].fields.map((field, i) => [field, numbers[i]])) as ArgsOf<Name>;
}
