/** A moderated request, and what the files that answer it share. */

import type { ModerationStream, RiskReading } from "../../guard/moderation-stream.ts";
import { isFlagged } from "../../guard/verdict.ts";
import type { ChatMessage } from "../../tokenizer/chat-template.ts";
import { ApiError } from "../api-error.ts";
import type { Metrics } from "../metrics.ts";
import { type Finding, Gate } from "./gate.ts";
import type { Judge, Unjudged } from "./judge.ts";
import type { AnswerForm } from "./parts.ts";
import type { Asked } from "./question.ts";
import type { Slots } from "./slots.ts";
import { type Upstream, upstreamFault } from "./upstream.ts";

/** What to do about a violation: cut the answer, tell the client, or only log it. */
export type Action = "block" | "flag" | "log";
export const ACTIONS: readonly Action[] = ["block", "flag", "log"];

/** The field of an answer that says what the guard did. */
export const EXTENSION = "qwen3guard";
const QUESTION_HEADER = "x-qwen3guard-question";

export interface ProxyService {
  readonly judge: Judge;
  readonly slots: Slots;
  readonly upstream: Upstream;
  readonly metrics: Metrics;
  readonly action: Action;
  readonly holdBack: number;
  readonly failOpen: boolean;
  readonly countQuestion: (outcome: "passed" | "flagged" | "failed") => void;
  readonly countAnswer: (outcome: "passed" | "flagged" | "failed") => void;
  /** Logs a finding, with `text` only if texts may be logged. */
  readonly note: (line: string, text: string) => void;
}

/** A flagged question that is blocked, in the form of Azure's servers, which clients know. */
class FlaggedQuestion extends ApiError {
  readonly #extension: object;

  constructor(extension: object) {
    super(400, "the question was stopped by the guard", { param: "messages", code: "content_filter" });
    this.#extension = extension;
  }

  override get body(): ApiError["body"] {
    return Object.assign(super.body, { [EXTENSION]: this.#extension });
  }
}

export class Call {
  readonly service: ProxyService;
  readonly form: AnswerForm;
  readonly asked: Asked;
  readonly signal: AbortSignal;
  readonly #release: () => void;
  /** The streams opened for the questions. The first answer to each takes its stream. */
  readonly #spares: (ModerationStream | undefined)[] = [];
  readonly #gates: Gate[] = [];

  constructor(service: ProxyService, form: AnswerForm, asked: Asked, signal: AbortSignal, release: () => void) {
    this.service = service;
    this.form = form;
    this.asked = asked;
    this.signal = signal;
    this.#release = release;
  }

  get choices(): number {
    return this.asked.questions.length * this.asked.answersEach;
  }

  /** Judges the questions. Returns the headers that tell the client about it; throws if the request ends here. */
  async judgeQuestions(): Promise<Record<string, string>> {
    const { service, signal } = this;
    const { judge, action } = service;
    let headers: Record<string, string> = {};
    for (const [i, question] of this.asked.questions.entries()) {
      let reading: RiskReading | null = null;
      try {
        const stream = judge.open(question, signal);
        this.#spares[i] = stream;
        reading = await stream.query();
      } catch (error) {
        signal.throwIfAborted();
        this.#spares[i]?.close();
        this.#spares[i] = undefined;
        const failure = await judge.failureOf(error);
        service.countQuestion("failed");
        if (!this.passes(failure)) throw failure.fault === "text" ? refused(failure) : failure;
        service.note(`the question passes unjudged: ${failure.message}`, lastText(question));
        if (action !== "log") headers = { [QUESTION_HEADER]: `unjudged; ${failure.code}` };
        continue;
      }
      if (!isFlagged(reading.risk, judge.mode)) {
        service.countQuestion("passed");
        continue;
      }
      service.countQuestion("flagged");
      const { risk, category } = reading;
      service.note(`question: ${describeRisk(reading)}`, lastText(question));
      if (action === "block")
        throw new FlaggedQuestion({ action, guard: judge.name, risk, category, field: "question" });
      if (action === "flag") headers = { [QUESTION_HEADER]: asHeader(`flagged; ${describeRisk(reading)}`) };
    }
    return headers;
  }

  /**
   * Whether a text without a verdict passes. If violations are blocked, it passes only when the guard itself has
   * failed, which no text can bring about.
   */
  passes({ fault }: Unjudged): boolean {
    const { action, failOpen } = this.service;
    return action !== "block" || (failOpen && fault === "guard");
  }

  /** Checks a choice's index. Throws ApiError if no such choice was asked for. */
  checkIndex(index: unknown): number {
    const { choices } = this;
    if (this.isIndex(index)) return index;
    throw upstreamFault(`choices 0 to ${choices - 1}, which were asked for`, "another");
  }

  isIndex(index: unknown): index is number {
    return Number.isInteger(index) && (index as number) >= 0 && (index as number) < this.choices;
  }

  questionOf(choice: number): readonly ChatMessage[] {
    return this.asked.questions[Math.floor(choice / this.asked.answersEach)];
  }

  /** The stream that was opened for the question of a choice. Only the first call gets it. */
  takeSpare(choice: number): ModerationStream | undefined {
    const i = Math.floor(choice / this.asked.answersEach);
    const spare = this.#spares[i];
    this.#spares[i] = undefined;
    return spare;
  }

  /** Whether a text from the upstream that is not part of an answer may pass. It is judged like an answer. */
  async clears(text: string): Promise<boolean> {
    const { judge } = this.service;
    const spare = this.takeSpare(0);
    try {
      return (await judge.judgeWhole(this.questionOf(0), text, spare, this.signal)) === null;
    } catch (error) {
      this.signal.throwIfAborted();
      return this.passes(await judge.failureOf(error));
    } finally {
      spare?.close();
    }
  }

  newGate(choice: number): Gate {
    const { holdBack, judge } = this.service;
    const options = { holdBack, passes: (failure: Unjudged) => this.passes(failure), signal: this.signal };
    const gate = new Gate(judge, this.questionOf(choice), this.takeSpare(choice), options);
    this.#gates.push(gate);
    return gate;
  }

  /** Counts and logs an answer. Returns what the extension field says about it, or undefined for nothing. */
  report(choice: number, finding: Finding | null, failure: ApiError | null, text: string): object | undefined {
    const { service } = this;
    const { action, judge } = service;
    const unjudged = finding?.failure ?? failure;
    service.countAnswer(unjudged ? "failed" : finding ? "flagged" : "passed");
    if (finding) {
      const { risk, category, kind, at } = finding;
      const what = unjudged ? `cannot be judged (${unjudged.message})` : describeRisk(finding);
      service.note(`answer ${choice}: ${what} from character ${at} of ${kind}`, text);
      const error = unjudged ? { error: unjudged.code } : {};
      return action === "log" ? undefined : { action, guard: judge.name, risk, category, field: kind, at, ...error };
    }
    if (!failure) return undefined;
    service.note(`answer ${choice}: the rest passes unjudged: ${failure.message}`, text);
    return action === "log" ? undefined : { action: "pass", guard: judge.name, error: failure.code };
  }

  /** Frees its streams and its slots. */
  close(): void {
    for (const spare of this.#spares) spare?.close();
    for (const gate of this.#gates) gate.close();
    this.#release();
  }
}

/** A question that cannot be judged, with the code that other servers use for it. */
function refused({ message, code }: Unjudged): ApiError {
  return new ApiError(400, message, {
    param: "messages",
    code: code === "guard_context_exceeded" ? "context_length_exceeded" : "invalid_value",
  });
}

function lastText(question: readonly ChatMessage[]): string {
  return question[question.length - 1].content;
}

function describeRisk({ risk, category }: Pick<RiskReading, "risk" | "category">): string {
  return `${risk ?? "unparsed"}${category === null ? "" : ` (${category})`}`;
}

/** A header takes only printable ASCII; the names of categories come from the checkpoint. */
function asHeader(text: string): string {
  return text.replace(/[^ -~]/g, "?");
}
