/**
 * Ids of a conversation whose answer is still being written.
 *
 * In: the messages before the answer, then the answer's text in pieces. Out: the ids up to the answer, then those of
 * the answer as they become certain (see encode-stream.ts). Together they are the ids of `encodeChat` for the whole
 * conversation, up to the token that closes the answer.
 *
 * The answer continues the template's own text ("</think>\n\n"), and a piece of the split may hold some of both. So the
 * stream begins with the text after the last added token. Templates may remove white space at an answer's beginning
 * (Qwen3's own removes line ends), so the template is rendered again once we know how much there is. White space has to
 * wait anyway, because a run of it is cut only where it ends.
 */

import type { EncodeStream } from "./encode-stream.ts";
import { type Encoding, EncodingBuilder } from "./offsets.ts";

/** The text before an answer that begins with some white space: whole ids, then text that the answer continues. */
export interface Opening {
  readonly ids: Int32Array;
  /** It ends with as much of the white space as the template keeps. */
  readonly lead: string;
}

/**
 * Everything that a template might trim: JavaScript's white space, and the characters that only the reference counts as
 * such.
 */
const LEADING_SPACE = /^[\s\u0085\u001C-\u001F]*/;

export class ChatStream {
  /** The ids before the answer, up to the last added token. */
  readonly before: Int32Array;
  readonly #open: (space: string) => Opening;
  readonly #newStream: (origin: number) => EncodeStream;
  readonly #lead: string;
  /** White space at the beginning of the answer, as long as nothing else has come. */
  #space: string[] = [];
  #spaceLength = 0;
  #stream: EncodeStream | undefined;
  /** Where in the answer the text that the template keeps begins. */
  #kept = 0;

  constructor(open: (space: string) => Opening, newStream: (origin: number) => EncodeStream) {
    this.#open = open;
    this.#newStream = newStream;
    const { ids, lead } = open("");
    this.before = ids;
    this.#lead = lead;
  }

  /** How many UTF-16 units are waiting. */
  get pending(): number {
    return this.#stream?.pending ?? this.#spaceLength;
  }

  /** The earliest place in the answer where the range of the next id can begin. */
  get openStart(): number {
    return Math.max(this.#stream?.openStart ?? 0, this.#kept);
  }

  /**
   * The ids that the next part of the answer makes certain. Ranges count in the answer's text. An id that comes from
   * the template's text alone has an empty range.
   */
  push(text: string): Encoding {
    if (this.#stream) return this.#located(this.#stream.push(text));
    const space = LEADING_SPACE.exec(text)![0];
    if (space.length === text.length) {
      this.#space.push(text);
      this.#spaceLength += text.length;
      return new EncodingBuilder().finish();
    }
    return this.#located(this.#begin(space), this.#stream!.push(text.slice(space.length)));
  }

  /** The ids of the rest. */
  end(): Encoding {
    const begun = this.#stream ? [] : [this.#begin("")];
    return this.#located(...begun, this.#stream!.end());
  }

  /** Begins the stream after all the white space; `space` is the last of it. */
  #begin(space: string): Encoding {
    const all = this.#space.join("") + space;
    const lead = all === "" ? this.#lead : this.#open(all).lead;
    const kept = lead.slice(this.#lead.length);
    if (!lead.startsWith(this.#lead) || !all.endsWith(kept)) {
      throw new Error(
        "chat template: expected the text before an answer to stay as it is when the answer begins with white space",
      );
    }
    this.#kept = all.length - kept.length;
    this.#stream = this.#newStream(this.#kept - this.#lead.length);
    return this.#stream.push(lead);
  }

  /** Joins encodings. Ranges are cut to the part of the answer that the template keeps. */
  #located(...encodings: readonly Encoding[]): Encoding {
    const clip = (offset: number): number => Math.max(offset, this.#kept);
    const joined = (arrays: readonly Int32Array[]): Int32Array =>
      Int32Array.from(arrays.flatMap(array => Array.from(array)));
    return {
      ids: joined(encodings.map(encoding => encoding.ids)),
      starts: joined(encodings.map(encoding => encoding.starts)).map(clip),
      ends: joined(encodings.map(encoding => encoding.ends)).map(clip),
    };
  }
}
