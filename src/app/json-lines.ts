/** The lines of a JSONL stream, with their numbers for messages. */

/** One non-empty line. `name` is "<file> line 3". */
export interface JsonLine {
  readonly line: string;
  readonly number: number;
  readonly name: string;
}

/** A line longer than this is refused rather than collected without end. */
const MAX_LINE_CHARS = 64 * 2 ** 20;

/** Splits UTF-8 chunks at line breaks; holds no more than one line. Throws TypeError for bytes that are not UTF-8. */
export async function* jsonLines(chunks: AsyncIterable<Uint8Array | string>, file: string): AsyncGenerator<JsonLine> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  let number = 0;
  const next = (line: string): JsonLine[] => {
    number++;
    return line.trim() === "" ? [] : [{ line, number, name: `${file} line ${number}` }];
  };
  for await (const chunk of chunks) {
    let text: string;
    try {
      text = typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true });
    } catch {
      throw new TypeError(`${file} line ${number + 1}: expected UTF-8 text, got bytes that are not`);
    }
    const lines = text.split("\n");
    lines[0] = rest + lines[0];
    rest = lines.pop() as string;
    if (rest.length > MAX_LINE_CHARS)
      throw new RangeError(`${file} line ${number + 1 + lines.length}: expected at most ${MAX_LINE_CHARS} characters, got more`);
    for (const line of lines) yield* next(line);
  }
  yield* next(rest);
}
