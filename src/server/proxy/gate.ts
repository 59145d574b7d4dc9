/**
 * The gate of an answer: text goes in as it is written, and comes out as far as it has been judged.
 *
 * A choice of an answer has texts of several kinds (reasoning, content, a tool call's arguments), one after the other.
 * While the kind stays the same, one stream of the guard judges it. When it changes, the text so far is judged to its
 * end before the next kind begins, so the order is kept and only one sequence is in memory. A kind that comes again is
 * judged from its beginning, so nothing can be hidden by alternating kinds. What came out before its turn ended was
 * judged as if the text ended there.
 *
 * An offending character never leaves: what comes out ends `holdBack` characters before `clearedTo`.
 */

import type { ModerationStream, StreamUpdate, Violation } from "../../guard/moderation-stream.ts";
import type { ChatMessage } from "../../tokenizer/chat-template.ts";
import type { ApiError } from "../api-error.ts";
import type { Judge, Unjudged } from "./judge.ts";
import type { Frame, Part } from "./parts.ts";
import { upstreamFault } from "./upstream.ts";

/** As many as there may be tool calls. With more changes of kind, the same text would be judged again and again. */
export const MAX_RUNS = 128;

/** Why and where an answer is cut: `at` is an offset in the text of `kind`. */
export interface Finding extends Violation {
  readonly kind: string;
  /** Set if the text had no verdict, which counts as the worst. */
  readonly failure?: Unjudged;
}

export interface GateOptions {
  readonly holdBack: number;
  /** Whether the rest passes unjudged if there is no verdict. */
  readonly passes: (failure: Unjudged) => boolean;
  readonly signal: AbortSignal;
}

/** An answer's text of one kind. */
interface Text {
  readonly kind: string;
  readonly wrap: Part["wrap"];
  all: string;
  /** How much of it has come out. */
  shown: number;
}

/** A text that is being written, and the stream that judges it. */
interface Run {
  readonly text: Text;
  readonly stream: ModerationStream;
}

/** Fields of a choice. */
type Fields = Readonly<Record<string, unknown>>;

export class Gate {
  readonly #judge: Judge;
  readonly #question: readonly ChatMessage[];
  readonly #options: GateOptions;
  /** The stream that was opened for the question, for the first run. */
  #spare: ModerationStream | undefined;
  readonly #texts = new Map<string, Text>();
  /** The names of each kind that have come out. */
  readonly #named = new Map<string, Record<string, unknown>>();
  /** The current run. */
  #run: Run | undefined;
  #runs = 0;
  #finding: Finding | null = null;
  #failure: ApiError | null = null;

  constructor(
    judge: Judge,
    question: readonly ChatMessage[],
    spare: ModerationStream | undefined,
    options: GateOptions,
  ) {
    this.#judge = judge;
    this.#question = question;
    this.#spare = spare;
    this.#options = options;
  }

  /** If not null, the answer ends here. */
  get finding(): Finding | null {
    return this.#finding;
  }

  /** If not null, the guard failed and the rest passes unjudged. */
  get failure(): ApiError | null {
    return this.#failure;
  }

  /** The text of a kind so far. */
  textOf(kind: string): string {
    return this.#texts.get(kind)?.all ?? "";
  }

  /**
   * Takes the next part, and returns what may come out now, as fields of choices. Throws ApiError if the guard fails
   * and nothing may pass unjudged.
   */
  async push({ kind, text, frame, wrap }: Part): Promise<Fields[]> {
    const out: Fields[] = [];
    if (this.#run && this.#run.text.kind !== kind) await this.#endRun(this.#run, out);
    if (!this.#run && !this.#failure && !this.#finding) await this.#startRun(kind, wrap, out);
    if (this.#finding) return out;
    if (frame) this.#introduce(kind, frame, out);
    if (text === "") return out;
    const run = this.#run;
    if (!run) return [...out, wrap(text)];
    run.text.all += text;
    await this.#advance(run.text, () => run.stream.push(text), out);
    return out;
  }

  /** The answer is complete. Returns what may still come out. */
  async end(): Promise<Fields[]> {
    const out: Fields[] = [];
    if (this.#run) await this.#endRun(this.#run, out);
    this.close();
    return out;
  }

  /** The rest passes unjudged, because the upstream's answer cannot be read. */
  giveUp(failure: ApiError): void {
    this.#failure ??= failure;
    this.close();
  }

  /** Frees the guard's memory. */
  close(): void {
    this.#run?.stream.close();
    this.#spare?.close();
    this.#run = undefined;
    this.#spare = undefined;
  }

  /** Lets each name out once: a name that changes from chunk to chunk could be a text that nobody judged. */
  #introduce(kind: string, { names, wrap }: Frame, out: Fields[]): void {
    const told = this.#named.get(kind) ?? {};
    const fresh = Object.fromEntries(Object.entries(names).filter(([name]) => !Object.hasOwn(told, name)));
    if (Object.keys(fresh).length > 0) out.push(wrap(fresh));
    this.#named.set(kind, { ...told, ...fresh });
  }

  async #startRun(kind: string, wrap: Part["wrap"], out: Fields[]): Promise<void> {
    if (++this.#runs > MAX_RUNS) throw upstreamFault(`an answer of at most ${MAX_RUNS} texts in turns`, "more");
    const text = this.#texts.get(kind) ?? { kind, wrap, all: "", shown: 0 };
    this.#texts.set(kind, text);
    let stream: ModerationStream;
    try {
      stream = this.#spare ?? this.#judge.open(this.#question, this.#options.signal);
    } catch (error) {
      return this.#fail(error, text, out);
    }
    this.#spare = undefined;
    this.#run = { text, stream };
    if (text.all !== "") await this.#advance(text, () => stream.push(text.all), out);
  }

  async #endRun({ text, stream }: Run, out: Fields[]): Promise<void> {
    // If nothing was written, there is nothing to judge.
    if (text.all !== "") await this.#advance(text, () => stream.end(), out);
    // A single token that is not Safe is no violation if the text ends with it.
    if (!this.#finding) show(text, text.all.length, out);
    stream.close();
    this.#run = undefined;
  }

  /** Lets out what an operation of the guard clears. */
  async #advance(text: Text, judge: () => Promise<StreamUpdate>, out: Fields[]): Promise<void> {
    const { holdBack } = this.#options;
    let update: StreamUpdate;
    try {
      update = await judge();
    } catch (error) {
      return this.#fail(error, text, out);
    }
    const { violation, clearedTo } = update;
    show(text, (violation?.at ?? clearedTo) - holdBack, out);
    if (!violation) return;
    // What has come out cannot be taken back; its kind may have come again since.
    this.#finding = { ...violation, kind: text.kind, at: Math.max(text.shown, violation.at) };
    this.close();
  }

  /**
   * Handles a text without a verdict: it passes, is cut where it was last cleared, or ends the answer with an error.
   */
  async #fail(error: unknown, text: Text, out: Fields[]): Promise<void> {
    this.#options.signal.throwIfAborted();
    this.close();
    const failure = await this.#judge.failureOf(error);
    if (this.#options.passes(failure)) {
      this.#failure = failure;
      for (const text of this.#texts.values()) show(text, text.all.length, out);
    } else if (failure.fault === "text") {
      this.#finding = { risk: null, category: null, kind: text.kind, at: text.shown, failure };
    } else {
      throw failure;
    }
  }
}

/** Lets out the text up to `limit`, but never half a character. */
function show(text: Text, limit: number, out: Fields[]): void {
  const isInside = limit < text.all.length && isHighSurrogate(text.all.charCodeAt(limit - 1));
  const end = isInside ? limit - 1 : limit;
  if (end <= text.shown) return;
  out.push(text.wrap(text.all.slice(text.shown, end)));
  text.shown = end;
}

function isHighSurrogate(code: number): boolean {
  return code >= 0xd800 && code < 0xdc00;
}
