/**
 * A JSON reader for text that nobody vouches for.
 *
 * In: a range of a ByteSource that holds one JSON object. Out: what a grammar (safetensors-header.ts, safetensors-sharded.ts) makes of its
 * members, one by one; there is never a tree, so what nobody asked for costs nothing. `JSON.parse` will not do: it wants the whole text (a
 * header may have 100 MB), keeps the last of two equal keys without a word, and turns 2^53 + 1 into 2^53.
 *
 * It accepts what the reference accepts, Rust's serde_json, to the letter. What surprised us there, found by experiment:
 *  - 1e400 is refused even where nobody looks at it, and so is a lone surrogate escape; 1e-400 is fine.
 *  - More than 127 containers inside each other are refused, whatever they hold.
 *
 * The text is read through a small window, yet the parser is plain synchronous recursive descent: where a member of the outermost object
 * runs out of the window, it is dropped, more is read, and the member is parsed again from its first byte. Members have 100 bytes and the
 * window 64 KB, so that is rare; for a long member the window doubles, so it is cheap. (Generators that yield for more bytes were the
 * first version: five times slower, and twice the memory in frames and closures.)
 */

import type { ByteSource } from "./bytes.ts";
import { SafetensorsError } from "./safetensors-error.ts";

/** Bytes of the window to begin with. An ordinary header (30 KB for 300 tensors) is one read. */
const WINDOW_BYTES = 2 ** 16;

/** What the window may grow to, and so the longest member. The longest that we know of, an index of 220,000 tensors, has 27 MB. */
const MAX_MEMBER_BYTES = 2 ** 25;

/** Containers inside each other; see above. */
const MAX_DEPTH = 127;

/**
 * What is kept of one text may take about this much memory: 200,000 tensors, more than any published file has, or 24 MB of metadata. The
 * 100 MB of a header could otherwise hold four million tensors, and take gigabytes before the last byte shows that the file is bad.
 */
const MEMORY_BYTES = 48 * 2 ** 20;

/** What is charged for a byte of text that is kept, and for a number: twice what they mostly take, for the copies made on the way. */
const TEXT_MEMORY_BYTES = 2;
const NUMBER_MEMORY_BYTES = 16;

/** A `word` longer than this in the file is none that a grammar knows. Six bytes are the longest escape. */
const WORD_BYTES = 6 * 16;

const MAX_U64 = 2n ** 64n - 1n;

/** Thrown to leave the parser where the window ends and the text does not. */
const OUT_OF_BYTES = Symbol("out of bytes");

/**
 * Reads `byteLength` bytes of `source` from `offset` on as one JSON object. `member` reads the value of each key; it may be called again
 * for the same key, and so must store nothing before it has read all of the value. Keys are kept and accounted for where `keepKeys`, else
 * they are words. Throws SafetensorsError at the first byte that does not fit.
 */
export async function parseJsonObject(
  source: ByteSource,
  offset: number,
  byteLength: number,
  what: string,
  keepKeys: boolean,
  member: (json: JsonReader, key: string) => void,
): Promise<void> {
  const json = new JsonReader(source.name, offset, byteLength);
  const parse = async <T>(step: () => T): Promise<T> => {
    for (;;) {
      const result = json.attempt(step);
      if (result !== OUT_OF_BYTES) return result as T;
      const target = json.room();
      await source.readInto(target, json.endOffset);
      json.add(target.length);
    }
  };
  await parse(() => json.enter(OPEN_BRACE, what));
  let more = !(await parse(() => json.startsWith(CLOSE_BRACE)));
  while (more) {
    more = await parse(() => {
      member(json, json.key(keepKeys));
      return json.comma(CLOSE_BRACE);
    });
  }
  await parse(() => json.leave());
  await parse(() => json.end());
}

export class JsonReader {
  /** What is being read, for messages: `tensor "a": `. Empty again at the next member. */
  where: string = "";
  private readonly file: string;
  private window: Uint8Array;
  private position = 0;
  /** Of the bytes in the window. */
  private end_ = 0;
  /** Of the window's first byte, in the file. */
  private windowOffset: number;
  private readonly textEnd: number;
  private depth = 0;
  private memoryLeft = MEMORY_BYTES;
  // ignoreBOM: U+FEFF is a character of the name, not a mark to drop.
  private readonly decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  private readonly encoder = new TextEncoder();
}
