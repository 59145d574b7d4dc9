/** Names, ids and the like: what may pass of the upstream's without a verdict, since no text has room in it. */

const MAX_CHARS = 256;
const NAME = /^[\w./:@+=~[\]-]*$/;

/** A word without blanks. */
export function isName(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_CHARS && NAME.test(value);
}
