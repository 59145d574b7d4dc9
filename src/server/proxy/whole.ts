/**
 * An answer that comes as a whole: each choice is judged before any of it leaves. A choice that offends is withheld as
 * a whole, since nobody has seen its beginning yet.
 */

import { ApiError } from "../api-error.ts";
import { type Call, EXTENSION } from "./call.ts";
import { type Finding, MAX_RUNS } from "./gate.ts";
import { finishReasonOf, headOf, isObject, type Json, objectOf, type Part, usageOf } from "./parts.ts";
import { parseAnswer } from "./relay.ts";
import { upstreamFault } from "./upstream.ts";
import { tellError } from "./upstream-error.ts";

/** An answer is much smaller, even with all its log probabilities, which are read and then left out. */
const MAX_ANSWER_BYTES = 16 * 2 ** 20;

interface Judged {
  readonly finding: Finding | null;
  readonly failure: ApiError | null;
  readonly text: string;
}

export async function moderateWhole(call: Call, bytes: AsyncIterable<Uint8Array>): Promise<Response> {
  const answer = parseAnswer(await readText(bytes), "an answer");
  const isError = answer.error !== undefined && answer.error !== null && !Array.isArray(answer.choices);
  if (call.service.action !== "block") return Response.json(await told(call, answer), { status: isError ? 502 : 200 });
  if (isError) return Response.json({ error: await tellError(call, answer.error) }, { status: 502 });
  return Response.json(await recut(call, answer));
}

/** The parts of an answer that may pass. */
async function recut(call: Call, answer: Json): Promise<Json> {
  const { choices } = answer;
  if (!Array.isArray(choices)) throw upstreamFault("choices to be an array", "something else");
  if (choices.length > call.choices) throw upstreamFault(`at most ${call.choices} choices`, String(choices.length));
  const moderated: Json[] = [];
  for (const [i, value] of choices.entries()) {
    const choice = objectOf(value, "a choice");
    const index = call.checkIndex(choice.index ?? i);
    const finish_reason = finishReasonOf(choice);
    const judged = await judgeChoice(call, index, choice);
    const { finding } = judged;
    moderated.push({
      index,
      ...(finding ? call.form.withheld : call.form.copy(choice)),
      logprobs: null, // as in a stream, since they name tokens that nobody judged
      finish_reason: finding ? "content_filter" : finish_reason,
      ...extensionOf(call, index, judged),
    });
  }
  const usage = usageOf(answer);
  return { ...headOf(answer), ...(usage ? { usage } : {}), choices: moderated };
}

/** The answer as it is, even if it cannot be read, with the extension field. */
async function told(call: Call, answer: Json): Promise<Json> {
  if (!Array.isArray(answer.choices)) return answer;
  const choices: unknown[] = [];
  for (const [i, choice] of answer.choices.entries()) {
    const index = isObject(choice) ? (choice.index ?? i) : undefined;
    const isAsked = isObject(choice) && call.isIndex(index);
    choices.push(isAsked ? { ...choice, ...extensionOf(call, index, await judgeChoice(call, index, choice)) } : choice);
  }
  return { ...answer, choices };
}

function extensionOf(call: Call, index: number, { finding, failure, text }: Judged): Json {
  const extension = call.report(index, finding, failure, text);
  return extension ? { [EXTENSION]: extension } : {};
}

/**
 * Finds the first text of a choice that offends. If nothing is blocked, a choice that cannot be read passes unjudged.
 */
async function judgeChoice(call: Call, index: number, choice: Json): Promise<Judged> {
  const { judge } = call.service;
  const question = call.questionOf(index);
  let parts: readonly Part[];
  try {
    parts = call.form.ofWhole(choice).parts;
    if (parts.length > MAX_RUNS) throw upstreamFault(`an answer of at most ${MAX_RUNS} texts`, String(parts.length));
  } catch (error) {
    if (call.service.action !== "block" && error instanceof ApiError)
      return { finding: null, failure: error, text: "" };
    throw error;
  }
  let failure: ApiError | null = null;
  let spare = call.takeSpare(index);
  for (const { kind, text } of parts) {
    if (text === "") continue;
    try {
      const violation = await judge.judgeWhole(question, text, spare, call.signal);
      if (violation) return { finding: { ...violation, kind }, failure: null, text };
    } catch (error) {
      call.signal.throwIfAborted();
      const unjudged = await judge.failureOf(error);
      if (call.passes(unjudged)) failure = unjudged;
      else if (unjudged.fault !== "text") throw unjudged;
      else return { finding: { risk: null, category: null, at: 0, kind, failure: unjudged }, failure: null, text };
    } finally {
      spare?.close();
      spare = undefined;
    }
  }
  spare?.close();
  return { finding: null, failure, text: "" };
}

async function readText(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  let length = 0;
  try {
    for await (const part of bytes) {
      length += part.length;
      if (length > MAX_ANSWER_BYTES)
        throw upstreamFault(`an answer of at most ${MAX_ANSWER_BYTES} bytes`, "a longer one");
      text += decoder.decode(part, { stream: true });
    }
    return text + decoder.decode();
  } catch (error) {
    throw error instanceof TypeError ? upstreamFault("UTF-8 text", "bytes that are not") : error;
  }
}
