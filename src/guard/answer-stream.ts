/**
 * Moderates an answer while it is being written: text in pieces -> verdicts on its tokens.
 *
 * In: the conversation so far, then the answer's text as it arrives from any model. Out: a verdict on the question,
 * then one on each token of the answer with its place in the text, and where to cut the answer.
 *
 *     text --ChatStream--> certain ids --Session.classify--> scores --> verdicts --CutRule--> violation
 *
 * A token is judged as soon as no later text can change it (usually one word later: see tokenizer/encode-stream.ts),
 * and the rest at `end`. A verdict is never withdrawn, and each id goes through the model once. The text that waits is
 * bounded by the context: more than could fit is an error.
 *
 * The template's own tokens between question and answer are run too, as in the reference. They belong to no text, so
 * they get no verdict here.
 */

import { ContextLengthError } from "../model/context-length-error.ts";
import type { Session } from "../model/session.ts";
import type { ChatStream } from "../tokenizer/chat-stream.ts";
import type { Encoding } from "../tokenizer/offsets.ts";
import type { CutRule, TokenVerdict, TokenViolation } from "./cut-rule.ts";
import { type HeadLabels, type HeadReading, toReadings } from "./head-reading.ts";
import { checkPiece, type ModerationStream, type StreamUpdate } from "./moderation-stream.ts";
import { Serial } from "./serial.ts";

export interface TokenUpdate extends StreamUpdate {
  readonly verdicts: readonly TokenVerdict[];
  readonly violation: TokenViolation | null;
}

/** What a Stream guard gives to each of its streams. */
export interface AnswerStreamParts {
  readonly session: Session;
  readonly chat: ChatStream;
  /** How many of the ids in `chat.before` belong to the question. */
  readonly questionIds: number;
  readonly labels: { readonly query: HeadLabels; readonly response: HeadLabels };
  readonly rule: CutRule;
  readonly maxTokens: number;
  /** A lower bound on the number of ids in a text of this many UTF-16 units. */
  readonly leastIds: (units: number) => number;
  readonly signal?: AbortSignal | undefined;
  readonly turn?: (() => Promise<void>) | undefined;
}

export class AnswerStream implements ModerationStream {
  readonly #parts: AnswerStreamParts;
  readonly #serial: Serial;
  #query: Promise<HeadReading> | undefined;
  /** The template's ids between question and answer; empty once they have been run. */
  #scaffold: Int32Array;
  #violation: TokenViolation | null = null;
  #clearedTo = 0;
  /** Where the first token after the last Safe one begins; null after a Safe one. */
  #unsafeFrom: number | null = null;

  constructor(parts: AnswerStreamParts) {
    this.#parts = parts;
    this.#serial = new Serial(() => parts.session.close());
    this.#scaffold = parts.chat.before.slice(parts.questionIds);
  }

  /** The verdict on the question, read at the end of the user's turn. The first `push` or `end` computes it anyway. */
  query(): Promise<HeadReading> {
    this.#query ??= this.#serial.run(async () => {
      const { session, chat, questionIds, labels, signal, turn } = this.#parts;
      const readings = toReadings(
        await session.classify(chat.before.subarray(0, questionIds), "query", { signal, turn }),
        labels.query,
      );
      return readings[readings.length - 1];
    });
    return this.#query;
  }

  /**
   * Takes the next piece of the answer, cut anywhere. Throws ContextLengthError if the answer does not fit the context,
   * TypeError if the piece is not a text, Error after the end, and the signal's reason when aborted. After a violation
   * the caller may go on or close the stream.
   */
  async push(text: string): Promise<TokenUpdate> {
    checkPiece(text);
    return this.#next(() => {
      this.#checkFits(0, text.length);
      return this.#parts.chat.push(text);
    });
  }

  /** The answer is complete: judges the rest and frees the memory. */
  async end(): Promise<TokenUpdate> {
    const update = this.#next(() => this.#parts.chat.end());
    this.close();
    return update;
  }

  /** Frees the memory after the operations that have begun. Nothing can be pushed afterwards. */
  close(): void {
    this.#serial.close();
  }

  #next(encode: () => Encoding): Promise<TokenUpdate> {
    this.#serial.checkOpen();
    this.query();
    return this.#serial.run(async () => {
      const verdicts = await this.#judge(encode());
      return { verdicts, clearedTo: this.#violation?.at ?? this.#clearedTo, violation: this.#violation };
    });
  }

  async #judge({ ids, starts, ends }: Encoding): Promise<TokenVerdict[]> {
    const { session, chat, labels, rule, signal, turn } = this.#parts;
    const { openStart } = chat;
    this.#checkFits(ids.length, 0);
    if (ids.length === 0) return [];
    const scaffold = this.#scaffold;
    this.#scaffold = new Int32Array(0);
    const position = session.position + scaffold.length;
    const scores = await session.classify(Int32Array.from([...scaffold, ...ids]), "response", { signal, turn });
    const verdicts = toReadings(scores, labels.response)
      .slice(scaffold.length)
      .map((reading, i) => ({ position: position + i, id: ids[i], start: starts[i], end: ends[i], ...reading }))
      .filter(({ start, end }) => end > start);
    for (const verdict of verdicts) {
      const violation = rule.next(verdict);
      this.#violation ??= violation;
      this.#unsafeFrom = verdict.risk === "Safe" ? null : (this.#unsafeFrom ?? verdict.start);
    }
    // What the rule may still cut is held back. A stretch of text is cleared only when no later token can still belong
    // to it.
    const heldFrom = rule.heldFrom ? rule.heldFrom() : this.#unsafeFrom;
    const judgedTo = verdicts.at(-1)?.end ?? 0;
    this.#clearedTo = Math.max(this.#clearedTo, Math.min(heldFrom ?? judgedTo, openStart));
    return verdicts;
  }

  /**
   * Throws ContextLengthError if the context has no room for `ids` more ids together with the text that waits and
   * `units` more UTF-16 units of text.
   */
  #checkFits(ids: number, units: number): void {
    const { session, chat, maxTokens, leastIds } = this.#parts;
    const least = session.position + this.#scaffold.length + ids + leastIds(chat.pending + units);
    if (least > maxTokens) {
      throw new ContextLengthError(
        `answer too long: expected at most ${maxTokens} tokens with the conversation, got at least ${least}`,
      );
    }
  }
}
