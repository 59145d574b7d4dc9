/**
 * What an answer may let out: its text goes in as it is written, and comes out as far as it was judged.
 *
 * A choice of an answer has texts of several kinds (reasoning, content, a tool call's arguments), one after the other.
 * As long as the kind stays, one stream of the guard hears it; when it changes, the text so far is judged to its end
 * before the next begins, so the order is kept and one sequence is in memory. A kind that comes again is heard from its
 * beginning, so nothing is hidden by taking turns; what came out before its turn ended was judged as if the text ended
 * there.
 *
 * An offending character never leaves: what comes out ends at `clearedTo`, and `holdBack` characters before it.
 */

import type { ModerationStream, StreamUpdate, Violation } from "../../guard/moderation-stream.ts";
import type { ChatMessage } from "../../tokenizer/chat-template.ts";
import type { ApiError } from "../api-error.ts";
import type { Judge, Unjudged } from "./judge.ts";
import type { Frame, Part } from "./parts.ts";
import { upstreamFault } from "./upstream.ts";

/** Calls of as many tools as there may be; more changes of kind would hear the same text again and again. */
export const MAX_RUNS = 128;

/** Why an answer is cut, and where: `at` is an offset in the text of that kind. */
export interface Finding extends Violation {
  readonly kind: string;
  /** Where the text had no verdict, which is then taken for the worst. */
  readonly failure?: Unjudged;
}

export interface GateOptions {
  readonly holdBack: number;
  /** Whether the rest passes unjudged where there is no verdict. */
  readonly passes: (failure: Unjudged) => boolean;
  readonly signal: AbortSignal;
}

/** What an answer has of one kind. */
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
  /** One that was opened for the question, for the first run. */
  #spare: ModerationStream | undefined;
  readonly #texts = new Map<string, Text>();
  /** What has come out of the names of each kind. */
  readonly #named = new Map<string, Record<string, unknown>>();
  /** The one that is being written, and what hears it. */
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

  /** Not null: the answer ends here. */
  get finding(): Finding | null {
    return this.#finding;
  }

  /** Not null: the guard failed, and the rest passes unjudged. */
  get failure(): ApiError | null {
    return this.#failure;
  }

  /** The text of a kind, as far as it was heard. */
  textOf(kind: string): string {
    return this.#texts.get(kind)?.all ?? "";
  }

  /**
   * Takes the next part; what may come out now, as fields of choices. Throws ApiError where the guard fails and that
   * lets nothing pass.
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

  /** The answer is complete; what may still come out. */
  async end(): Promise<Fields[]> {
    const out: Fields[] = [];
    if (this.#run) await this.#endRun(this.#run, out);
    this.close();
    return out;
  }

  /** The rest passes unjudged, because what came cannot be read. */
  giveUp(failure: ApiError): void {
    this.#failure ??= failure;
    this.close();
  }

  /** Gives the guard's memory back. */
  close(): void {
    this.#run?.stream.close();
    this.#spare?.close();
    this.#run = undefined;
    this.#spare = undefined;
  }

  /** Each name comes out once: one that changed from chunk to chunk would be a text that nobody judged. */
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
    // Where nothing was written, there is nothing to judge.
    if (text.all !== "") await this.#advance(text, () => stream.end(), out);
    // One token that alone would offend is no violation where its text ends with it.
    if (!this.#finding) show(text, text.all.length, out);
    stream.close();
    this.#run = undefined;
  }

  /** Lets out what an operation of the guard's clears. */
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
    // What came out before its kind came again cannot be taken back.
    this.#finding = { ...violation, kind: text.kind, at: Math.max(text.shown, violation.at) };
    this.close();
  }

  /**
   * What is done without a verdict on a text: it passes, it is cut where it was last cleared, or the answer ends with
   * an error.
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

/** Puts out the text up to `limit`, but no half of a character. */
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
