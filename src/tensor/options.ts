/** Checks the options that a caller gives. Unchecked, a misspelt option would silently be the default. */

/** Throws TypeError where `options` is not an object, and RangeError for a key that is not among `keys`. */
export function checkOptions(options: object, keys: readonly string[], what: string): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`${what}: expected an object of options, got ${options === null ? "null" : typeof options}`);
  }
  for (const key of Object.keys(options)) {
    if (!keys.includes(key)) throw new RangeError(`${what}: expected options among ${keys.join(", ")}, got "${key}"`);
  }
}

/** Throws RangeError unless `value` is an integer from `min` to `max`. */
export function checkInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max)
    throw new RangeError(`${name}: expected an integer from ${min} to ${max}, got ${value}`);
}
