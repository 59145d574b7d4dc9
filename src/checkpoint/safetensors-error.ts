/** The error for a safetensors file or index that cannot be used, and how names from such a file are shown. */

/**
 * The file is bad. Retrying, or asking for another tensor, does not help. Wrong arguments throw TypeError or RangeError
 * instead.
 */
export class SafetensorsError extends Error {
  override readonly name: string = "SafetensorsError";
}

/** Names in messages are cut to this many characters, because a file can hold a name of 100 MB. */
const SHOWN_CHARACTERS = 80;

/**
 * A name from a file, in quotes and fit for one line of a log: shortened, and with escapes for quotes, control
 * characters, line separators and the characters that change the direction of text.
 */
export function quoteName(name: string): string {
  const shown = name.length > SHOWN_CHARACTERS ? `${name.slice(0, SHOWN_CHARACTERS)}…` : name;
  const escaped = (character: string): string =>
    character === '"' || character === "\\" ? `\\${character}` : `\\u{${character.codePointAt(0)!.toString(16)}}`;
  return `"${shown.replace(/["\\\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, escaped)}"`;
}
