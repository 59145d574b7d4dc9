/**
 * An answer that streams: new chunks are cut from the upstream's, as far as their text is cleared.
 *
 * In: the upstream's events. Out: chunks for the client, with the upstream's ids, model and roles. A choice whose text
 * offends ends with the finish reason "content_filter" and says why in the extension field. When all choices have
 * ended, the upstream's request ends too, unless the client wants its token counts. An answer that breaks off is an
 * error and never looks complete.
 */

import { ApiError } from "../api-error.ts";
import { type Call, EXTENSION } from "./call.ts";
import type { Gate } from "./gate.ts";
import { finishReasonOf, headOf, isObject, type Json, objectOf, usageOf } from "./parts.ts";
import { upstreamFault } from "./upstream.ts";
import { tellError, UpstreamError } from "./upstream-error.ts";

interface Choice {
  readonly index: number;
  readonly gate: Gate;
  /** Whether it has its finish reason. */
  isOver: boolean;
}

export class Relay {
  readonly #call: Call;
  readonly #send: (event: Json) => void;
  readonly #choices = new Map<number, Choice>();
  readonly #isBlocking: boolean;
  #hasSent = false;
  #wasCut = false;
  #head: Json = {};
  /** The last token counts that came with a choice. They are sent in an event of their own. */
  #usage: Json | null = null;

  constructor(call: Call, send: (event: unknown) => void) {
    this.#call = call;
    this.#isBlocking = call.service.action === "block";
    this.#send = event => {
      this.#hasSent = true;
      send(event);
    };
  }

  async run(events: AsyncIterable<string>): Promise<void> {
    let isDone = false;
    for await (const data of events) {
      if (data === "[DONE]") {
        isDone = true;
        break;
      }
      const chunk = parseAnswer(data, "an event");
      if (chunk.error !== undefined && chunk.error !== null) {
        throw new UpstreamError(await tellError(this.#call, chunk.error));
      }
      await this.#relay(chunk);
      if (this.#wasCut && this.#areAllOver && !this.#call.asked.includeUsage) return;
    }
    if (!isDone && !this.#areAllOver) throw upstreamFault("an answer to its end", "a stream that ended before it");
    for (const choice of this.#choices.values()) if (!choice.isOver) await this.#end(choice, null);
    if (this.#usage) this.#send({ ...this.#head, choices: [], usage: this.#usage });
    if (!this.#hasSent) throw upstreamFault("an answer", "a stream without any");
  }

  get #areAllOver(): boolean {
    const { size } = this.#choices;
    return size === this.#call.choices && Array.from(this.#choices.values()).every(({ isOver }) => isOver);
  }

  async #relay(chunk: Json): Promise<void> {
    const { choices } = chunk;
    if (!this.#isBlocking) return this.#relayAsItIs(chunk, Array.isArray(choices) ? choices : []);
    if (!Array.isArray(choices)) throw upstreamFault("choices to be an array", "something else");
    if (choices.length > this.#call.choices)
      throw upstreamFault(`at most ${this.#call.choices} choices`, String(choices.length));
    // An id or a model that changes from chunk to chunk could be a text that nobody judged.
    for (const [name, value] of Object.entries(headOf(chunk)))
      if (!this.#head[name]) this.#head = { ...this.#head, [name]: value };
    const usage = usageOf(chunk);
    if (choices.length === 0) {
      this.#usage = null;
      return this.#send({ ...this.#head, choices, ...(usage ? { usage } : {}) });
    }
    this.#usage = usage ?? this.#usage;
    for (const value of choices) await this.#recut(objectOf(value, "a choice"));
  }

  async #recut(value: Json): Promise<void> {
    const choice = this.#choiceOf(value);
    if (choice.isOver) return;
    const { opening, parts } = this.#call.form.ofChunk(value);
    if (opening) this.#emit(choice, opening);
    for (const part of parts) {
      for (const fields of await choice.gate.push(part)) this.#emit(choice, fields);
      if (choice.gate.finding) return this.#cut(choice);
    }
    const finishReason = finishReasonOf(value);
    if (finishReason !== null) await this.#end(choice, finishReason);
  }

  async #end(choice: Choice, finishReason: unknown): Promise<void> {
    const { gate } = choice;
    for (const fields of await gate.end()) if (this.#isBlocking) this.#emit(choice, fields);
    if (gate.finding && this.#isBlocking) return this.#cut(choice);
    choice.isOver = true;
    const extension = this.#report(choice);
    if (finishReason !== null || extension) this.#emit(choice, this.#call.form.end, finishReason, extension);
  }

  #cut(choice: Choice): void {
    choice.isOver = true;
    this.#wasCut = true;
    this.#emit(choice, this.#call.form.end, "content_filter", this.#report(choice));
  }

  #report({ index, gate }: Choice): object | undefined {
    const { finding, failure } = gate;
    return this.#call.report(index, finding, failure, finding ? gate.textOf(finding.kind) : "");
  }

  /** There are no log probabilities: they name tokens that nobody judged, and the text is cut anew. */
  #emit({ index }: Choice, fields: Json, finishReason: unknown = null, extension?: object): void {
    const choice = {
      index,
      ...fields,
      logprobs: null,
      finish_reason: finishReason,
      ...(extension ? { [EXTENSION]: extension } : {}),
    };
    this.#send({ ...this.#head, choices: [choice] });
  }

  /** Everything passes at once, even what cannot be read. Only an end that tells about the verdict waits for it. */
  async #relayAsItIs(chunk: Json, values: readonly unknown[]): Promise<void> {
    const isTold = this.#call.service.action === "flag";
    const choices = values.filter(isObject);
    this.#send(
      isTold && choices.length > 0
        ? { ...chunk, choices: choices.map(value => ({ ...value, finish_reason: null })) }
        : chunk,
    );
    this.#head = headOf(chunk);
    for (const value of choices) {
      if (!this.#call.isIndex(value.index ?? 0)) continue;
      const choice = this.#choiceOf(value);
      const { gate } = choice;
      try {
        for (const part of this.#call.form.ofChunk(value).parts) {
          if (!choice.isOver && !gate.finding && !gate.failure) await gate.push(part);
        }
      } catch (error) {
        if (!(error instanceof ApiError) || this.#call.signal.aborted) throw error;
        gate.giveUp(error);
      }
      const finishReason = value.finish_reason || null; // some servers write "" until the end
      if (finishReason !== null && !choice.isOver) await this.#end(choice, isTold ? finishReason : null);
    }
  }

  #choiceOf(value: Json): Choice {
    const index = this.#call.checkIndex(value.index ?? 0);
    let choice = this.#choices.get(index);
    if (!choice) {
      choice = { index, gate: this.#call.newGate(index), isOver: false };
      this.#choices.set(index, choice);
    }
    return choice;
  }
}

/** Reads the upstream's JSON; `what` names it in errors. */
export function parseAnswer(text: string, what: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw upstreamFault(`JSON in ${what}`, "text that is not"); // the parser's own message would quote the text
  }
  return objectOf(value, what);
}
