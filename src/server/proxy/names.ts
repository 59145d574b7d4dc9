/** Names, ids and the like, which may pass from the upstream without a verdict: they have no room for a text. */

const MAX_CHARS = 256;
const NAME = /^[\w./:@+=~[\]-]*$/;

/** Whether a value is a word without blanks. */
export function isName(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_CHARS && NAME.test(value);
}
