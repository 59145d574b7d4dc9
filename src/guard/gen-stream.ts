/**
 * A Gen guard over an answer that is being written: it judges the answer so far every `every` tokens.
 *
 * In: the answer's text in pieces. Out: a verdict on the first `every`, 2 `every`, ... tokens, and on the whole at the
 * end. Each is the same, to the bit, as `Guard.moderate` gives for that text, wherever the pieces were cut.
 *
 * The session keeps the conversation and the answer so far, so each verdict runs only the new tokens and what the
 * template puts after an answer. The model's work then grows with the length of the answer; judging the whole from
 * scratch each time would make it grow with the square. (The whole is still tokenised each time, which costs a
 * thousandth.)
 */

import type { EncodeStream } from "../tokenizer/encode-stream.ts";
import type { Encoding } from "../tokenizer/offsets.ts";
import {
  checkPiece,
  type ModerationStream,
  type RiskReading,
  type StreamUpdate,
  type StretchVerdict,
  type Violation,
} from "./moderation-stream.ts";
import { Serial } from "./serial.ts";
import type { Verdict } from "./verdict.ts";

/** A verdict on the answer up to `end`; `start` is where the previous verdict's text ended. */
export interface GenStretchVerdict extends StretchVerdict {
  readonly verdict: Verdict;
}

export interface GenStreamUpdate extends StreamUpdate {
  readonly verdicts: readonly GenStretchVerdict[];
}

/** What a Gen guard gives to each of its streams. */
export interface GenStreamParts {
  readonly every: number;
  readonly encoder: EncodeStream;
  readonly judgeQuestion: () => Promise<Verdict>;
  readonly judgeAnswer: (answer: string) => Promise<Verdict>;
  readonly close: () => void;
}

export class GenStream implements ModerationStream {
  readonly #parts: GenStreamParts;
  readonly #serial: Serial;
  #query: Promise<Verdict> | undefined;
  #answer = "";
  /**
   * How many tokens the current stretch has. It ends at `#stretchEnd` unless the next token belongs to the same
   * character: an emoji may have several.
   */
  #tokens = 0;
  #stretchEnd = 0;
  /** Where the text of the last verdict ended. */
  #judged = 0;
  /** Where the stretches end that are complete but not judged yet. */
  #ends: number[] = [];
  #violation: Violation | null = null;

  constructor(parts: GenStreamParts) {
    this.#parts = parts;
    this.#serial = new Serial(parts.close);
  }

  /** The verdict on the question. It is computed at the first call, since an answer can be judged without it. */
  async query(): Promise<RiskReading & { readonly verdict: Verdict }> {
    this.#query ??= this.#serial.run(this.#parts.judgeQuestion);
    return toReading(await this.#query);
  }

  /**
   * Throws ContextLengthError if the answer and the verdict on it do not fit the context, TypeError if the piece is not
   * a text, Error after the end, and the signal's reason when aborted.
   */
  async push(text: string): Promise<GenStreamUpdate> {
    checkPiece(text);
    return this.#next(() => {
      this.#answer += text;
      this.#take(this.#parts.encoder.push(text));
    });
  }

  async end(): Promise<GenStreamUpdate> {
    const update = this.#next(() => {
      this.#take(this.#parts.encoder.end());
      if (this.#answer === "" || (this.#ends.at(-1) ?? this.#judged) < this.#answer.length)
        this.#ends.push(this.#answer.length);
    });
    this.close();
    return update;
  }

  /** Divides tokens into stretches. */
  #take({ starts, ends }: Encoding): void {
    for (let i = 0; i < ends.length; i++) {
      if (this.#tokens >= this.#parts.every && starts[i] >= this.#stretchEnd) {
        this.#ends.push(this.#stretchEnd);
        this.#tokens = 0;
      }
      this.#tokens++;
      this.#stretchEnd = ends[i];
    }
  }

  close(): void {
    this.#serial.close();
  }

  #next(take: () => void): Promise<GenStreamUpdate> {
    this.#serial.checkOpen();
    return this.#serial.run(async () => {
      take();
      const verdicts: GenStretchVerdict[] = [];
      for (const end of this.#ends.splice(0)) {
        const verdict = await this.#parts.judgeAnswer(this.#answer.slice(0, end));
        const start = this.#judged;
        this.#judged = end;
        verdicts.push({ start, end, ...toReading(verdict) });
        if (verdict.flagged)
          this.#violation ??= { risk: verdict.safety, category: verdict.categories[0] ?? null, at: start };
      }
      return { verdicts, clearedTo: this.#violation?.at ?? this.#judged, violation: this.#violation };
    });
  }
}

function toReading(verdict: Verdict): RiskReading & { readonly verdict: Verdict } {
  const category = verdict.categories[0] ?? null;
  const categoryProb = category === null ? null : (verdict.categoryScores?.[category] ?? null);
  return { risk: verdict.safety, riskProbs: verdict.scores, category, categoryProb, verdict };
}
