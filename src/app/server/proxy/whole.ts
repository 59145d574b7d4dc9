/** An answer that comes as a whole: each choice is judged before any of it leaves. One that offends is withheld whole, as nobody has seen its beginning. */

import { ApiError } from "../api-error.ts";
import { type Call, EXTENSION } from "./call.ts";
import { type Finding, MAX_RUNS } from "./gate.ts";
import { unreadVerdict } from "./judge.ts";
import { finishReasonOf, headOf, objectOf, type Part, usageOf } from "./parts.ts";
import { parseAnswer } from "./relay.ts";
import { upstreamFault } from "./upstream.ts";
import { readError } from "./upstream-error.ts";

type Json = Readonly<Record<string, unknown>>;

/** An answer with all its log probabilities is a fraction of this. */
const MAX_ANSWER_BYTES = 16 * 2 ** 20;

interface Judged {
  readonly finding: Finding | null;
  readonly failure: ApiError | null;
  readonly text: string;
}

export async function moderateWhole(call: Call, bytes: AsyncIterable<Uint8Array>): Promise<Response> {
  const answer = parseAnswer(await readText(bytes), "an answer");
  const { error, choices } = answer;
  if (!Array.isArray(choices)) {
    if (error !== undefined && error !== null) return Response.json({ error: readError(error) }, { status: 502 });
    throw upstreamFault("choices to be an array", "something else");
  }
  if (choices.length > call.choices) throw upstreamFault(`at most ${call.choices} choices`, String(choices.length));
  const isBlocking = call.service.action === "block";
  const moderated: Json[] = [];
  const usage = usageOf(answer);
  for (const [i, value] of choices.entries()) {
    const choice = objectOf(value, "a choice");
    const { logprobs = null } = choice;
    const finish_reason = isBlocking ? finishReasonOf(choice) : choice.finish_reason;
    const index = call.checkIndex(choice.index ?? i);
    const { finding, failure, text } = await judgeChoice(call, index, choice);
    const extension = call.report(index, finding, failure, text);
    const fields = finding ? call.form.withheld : call.form.copy(choice);
    moderated.push({
      ...(isBlocking ? { index, ...fields, logprobs, finish_reason } : choice),
      ...(isBlocking && finding ? { logprobs: null, finish_reason: "content_filter" } : {}),
      ...(extension ? { [EXTENSION]: extension } : {}),
    });
  }
  return Response.json({ ...(isBlocking ? { ...headOf(answer), ...(usage ? { usage } : {}) } : answer), choices: moderated });
}

/** The first of its texts that offends. Where nothing is blocked, one that cannot be read passes unjudged. */
async function judgeChoice(call: Call, index: number, choice: Json): Promise<Judged> {
  const { judge } = call.service;
  const question = call.questionOf(index);
  let parts: readonly Part[];
  try {
    parts = call.form.ofWhole(choice).parts;
    if (parts.length > MAX_RUNS) throw upstreamFault(`an answer of at most ${MAX_RUNS} texts`, String(parts.length));
  } catch (error) {
    if (call.service.action !== "block" && error instanceof ApiError) return { finding: null, failure: error, text: "" };
    throw error;
  }
  let failure: ApiError | null = null;
  let spare = call.takeSpare(index);
  for (const { kind, text } of parts) {
    if (text === "") continue;
    try {
      const violation = await judge.judgeWhole(question, text, spare, call.signal);
      if (violation?.risk === null && call.service.failOpen) failure = unreadVerdict();
      else if (violation) return { finding: { ...violation, kind }, failure: null, text };
    } catch (error) {
      call.signal.throwIfAborted();
      failure = judge.failureOf(error);
      if (!call.failOpen) throw failure;
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
      if (length > MAX_ANSWER_BYTES) throw upstreamFault(`an answer of at most ${MAX_ANSWER_BYTES} bytes`, "a longer one");
      text += decoder.decode(part, { stream: true });
    }
    return text + decoder.decode();
  } catch (error) {
    throw error instanceof TypeError ? upstreamFault("UTF-8 text", "bytes that are not") : error;
  }
}
