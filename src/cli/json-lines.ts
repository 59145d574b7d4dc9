/**
 * The lines of a JSONL stream, with their numbers for messages. A line that cannot be read is an error of that line,
 * not of the stream.
 */

/** One line that is not blank. `name` is "<file> line 3". */
export interface JsonLine {
  readonly number: number;
  readonly name: string;
  /** Bytes of the stream up to the end of the line. */
  readonly endByte: number;
  /** The text of the line. Throws TypeError for bytes that are not UTF-8, RangeError for a line too long to hold. */
  readonly line: string;
}

/** Longer lines are not held. */
const MAX_LINE_BYTES = 64 * 2 ** 20;
const LINE_FEED = 0x0a;

/** Splits chunks at line feeds; holds no more than one line. */
export async function* jsonLines(chunks: AsyncIterable<Uint8Array | string>, file: string): AsyncGenerator<JsonLine> {
  let parts: Uint8Array[] = []; // of the current line
  let length = 0; // of all its parts, held or not
  let endByte = 0;
  let number = 0;
  const take = (part: Uint8Array): void => {
    length += part.length;
    if (length <= MAX_LINE_BYTES) parts.push(part);
    else parts = [];
  };
  const finish = (): JsonLine[] => {
    const line = newLine(parts, length, { number: ++number, name: `${file} line ${number}`, endByte });
    parts = [];
    length = 0;
    return line === undefined ? [] : [line];
  };
  for await (const chunk of chunks) {
    const bytes = typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk;
    let start = 0;
    for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
      take(bytes.subarray(start, end));
      endByte += end + 1 - start;
      start = end + 1;
      yield* finish();
    }
    take(bytes.subarray(start));
    endByte += bytes.length - start;
  }
  yield* finish();
}

/** Returns undefined for a blank line. */
function newLine(parts: Uint8Array[], length: number, where: Omit<JsonLine, "line">): JsonLine | undefined {
  const failed = (error: Error): JsonLine => ({
    ...where,
    get line(): string {
      throw error;
    },
  });
  if (length > MAX_LINE_BYTES)
    return failed(new RangeError(`${where.name}: expected at most ${MAX_LINE_BYTES} bytes, got ${length}`));
  let line: string;
  try {
    line = new TextDecoder("utf-8", { fatal: true }).decode(parts.length === 1 ? parts[0] : Buffer.concat(parts));
  } catch {
    return failed(new TypeError(`${where.name}: expected UTF-8 text, got bytes that are not`));
  }
  return line.trim() === "" ? undefined : { ...where, line };
}
