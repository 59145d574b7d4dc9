/**
 * `POST /v1/moderations`: verdicts in OpenAI's form with this model's categories, and the fields of the verdict itself.
 *
 * `input` is a text, an array of texts (a verdict each) or an array of text parts (one text). Our own `messages` is a
 * conversation whose last message is judged. The texts of a request are judged one after the other as one job, and
 * share the cached beginning of the prompt.
 */

import { toConversation } from "../guard/conversation.ts";
import type { ModerateOptions } from "../guard/moderate-options.ts";
import type { Verdict } from "../guard/verdict.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { describe } from "./api-error.ts";
import type { Exchange } from "./exchange.ts";
import { Fields, textOf } from "./fields.ts";
import { newUsage } from "./generation.ts";
import { readMessages, refusedInput } from "./messages.ts";
import { newId } from "./new-id.ts";
import type { Service } from "./service.ts";

/** A verdict is 1.5 kB of JSON: a megabyte of empty texts must not become hundreds of megabytes. */
const MAX_INPUTS = 1024;
/** Estimates for the queue: the prompt after the cached policy, and the characters of a token. */
const TOKENS_OF_PROMPT = 128;
const CHARS_OF_TOKEN = 3;

export async function moderation(
  service: Service,
  body: Record<string, unknown>,
  exchange: Exchange,
): Promise<Response> {
  const fields = new Fields(body);
  fields.refuseOthers(["model", "input", "messages", "mode", "threshold", "user"]);
  service.checkModel(fields);
  const mode = fields.oneOf("mode", ["strict", "loose"]);
  const threshold = fields.number("threshold", 0, 1);
  if (mode !== undefined && threshold !== undefined) throw fields.invalid("threshold", "mode or threshold", "both");
  const inputs = readInputs(fields);
  exchange.texts = inputs.flatMap(({ messages }) => messages.map(({ content }) => content));

  const { signal } = exchange;
  const verdicts: Verdict[] = await service.run({
    size: Math.min(service.maxPositions, sizeOf(exchange.texts)),
    signal,
    run: async turn => {
      const options: ModerateOptions = {
        ...(mode === undefined ? {} : { mode }),
        ...(threshold === undefined ? {} : { threshold }),
        signal,
        turn,
      };
      const verdicts: Verdict[] = [];
      for (const { messages, param } of inputs) {
        if (verdicts.length > 0) await turn();
        try {
          verdicts.push(await service.guard.moderate(messages, options));
        } catch (error) {
          throw refusedInput(param, error);
        }
      }
      return verdicts;
    },
  });

  for (const { safety } of verdicts) service.countVerdict(safety);
  const sum = (what: keyof Verdict["usage"]): number => verdicts.reduce((total, { usage }) => total + usage[what], 0);
  const usage = newUsage(sum("promptTokens"), sum("cachedTokens"), sum("completionTokens"));
  service.countUsage(usage);
  const results = verdicts.map((verdict, i) => toResult(service, inputs[i].messages, verdict));
  return Response.json({ id: newId("modr"), model: service.model, results, usage });
}

interface Input {
  readonly messages: readonly ChatMessage[];
  /** The field that the messages came from. */
  readonly param: string;
}

function readInputs(fields: Fields): Input[] {
  const input = fields.get("input");
  if (fields.get("messages") !== undefined) {
    if (input !== undefined) throw fields.invalid("messages", "input or messages", "both");
    return [{ messages: readMessages(fields), param: "messages" }];
  }
  const conversation = (text: string, param: string): Input => ({ messages: toConversation(text), param });
  if (typeof input === "string") return [conversation(input, "input")];
  if (input === undefined)
    throw fields.invalid("input", "a string, an array of strings or an array of text parts", "nothing");
  const entries = fields.array("input");
  if (entries.length > MAX_INPUTS)
    throw fields.invalid("input", `at most ${MAX_INPUTS} entries`, String(entries.length));
  if (typeof entries[0] === "object" && entries[0] !== null) return [conversation(textOf(entries, "input"), "input")];
  return entries.map((entry, i) => {
    if (typeof entry !== "string") throw fields.invalid(`input[${i}]`, "a string", describe(entry));
    return conversation(entry, `input[${i}]`);
  });
}

function sizeOf(texts: readonly string[]): number {
  return texts.reduce((tokens, { length }) => tokens + TOKENS_OF_PROMPT + length / CHARS_OF_TOKEN, 0);
}

function toResult({ guard }: Service, messages: readonly ChatMessage[], verdict: Verdict): object {
  const { categories } = guard.policyOf(messages);
  const each = <T>(value: (category: string) => T): Record<string, T> =>
    Object.fromEntries(categories.map(category => [category, value(category)]));
  const { flagged, safety, refusal, score, scores, refusalScore, mode, threshold, text, window, error } = verdict;
  return {
    flagged,
    categories: each(category => verdict.categories.includes(category)),
    category_scores: each(category => verdict.categoryScores?.[category] ?? null),
    category_applied_input_types: each(() => ["text"]),
    safety,
    refusal,
    score,
    scores,
    refusal_score: refusalScore,
    ...(threshold === undefined ? { mode } : { threshold }),
    text,
    ...(window ? { window } : {}),
    ...(error ? { error } : {}),
  };
}
