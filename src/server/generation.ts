/**
 * Generates text with the guard's model, for the two endpoints that do.
 *
 * In: a conversation or a prompt, and OpenAI's sampling fields. Out: pieces of text as they become certain, each with
 * its tokens; at the end, why it ended and how many tokens it took.
 */

import type { Guard } from "../guard/guard.ts";
import type { FinishReason, GenerateOptions } from "../model/generate.ts";
import { tokenBytes } from "../tokenizer/byte-level.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { describe, invalid } from "./api-error.ts";
import type { Fields, Refused } from "./fields.ts";
import { type ChosenLogprob, chosenLogprob } from "./logprobs.ts";
import type { Turn } from "./queue.ts";
import { StopStrings } from "./stop-strings.ts";

export interface TextPiece {
  readonly text: string;
  /** The tokens since the last piece with their log probabilities; empty unless they were asked for. */
  readonly tokens: readonly ChosenLogprob[];
}

export interface GenerationEnd {
  readonly finishReason: FinishReason;
  readonly usage: Usage;
}

/** Token counts in OpenAI's form. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
}

export interface GenerationFields {
  readonly sampling: Omit<GenerateOptions, "draft">;
  readonly stop: readonly string[];
  readonly isStream: boolean;
  readonly includeUsage: boolean;
}

/** The fields of OpenAI's and vLLM's that both endpoints have. */
export const GENERATION_FIELDS: readonly string[] = [
  ...["model", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "stream_options", "logprobs"],
  // For the bookkeeping of clients or OpenAI; these ask nothing of the model.
  ...["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"],
];

const SAMPLING_REASON = "only temperature, top_p and top_k change how the guard's answer is drawn";
export const GENERATION_REFUSED: Readonly<Record<string, Refused>> = {
  n: { reason: "one answer a request", unless: ["1"] },
  frequency_penalty: { reason: SAMPLING_REASON, unless: ["0"] },
  presence_penalty: { reason: SAMPLING_REASON, unless: ["0"] },
  repetition_penalty: { reason: SAMPLING_REASON, unless: ["1"] },
  min_p: { reason: SAMPLING_REASON, unless: ["0"] },
  logit_bias: { reason: SAMPLING_REASON, unless: ["{}"] },
};

/** Every stop string is searched for at every token. */
const MAX_STOPS = 16;
const MAX_STOP_CHARS = 1024;

/** `maxTokens` limits the answer. */
export function readGenerationFields(fields: Fields, maxTokens: number): GenerationFields {
  const temperature = fields.number("temperature", 0, 2) ?? 0;
  const topP = fields.number("top_p", 0, 1) ?? 1;
  const topK = fields.integer("top_k", -1, 2 ** 31) ?? 0;
  const seed = fields.integer("seed", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  const isStream = fields.boolean("stream") ?? false;
  return {
    sampling: {
      maxNewTokens: maxTokens,
      temperature,
      topP: Math.max(topP, Number.MIN_VALUE), // 0 keeps only the likeliest
      ...(topK > 0 ? { topK } : {}), // vLLM's 0 and -1: all
      seed: seed === undefined ? crypto.getRandomValues(new Uint32Array(1))[0] : seed >>> 0,
    },
    stop: readStop(fields.get("stop")),
    isStream,
    includeUsage: readIncludeUsage(fields, isStream),
  };
}

function readStop(value: unknown): string[] {
  if (value === undefined) return [];
  const stops: unknown[] = Array.isArray(value) ? value : [value];
  if (stops.length > MAX_STOPS) throw invalid("stop", `at most ${MAX_STOPS} strings`, String(stops.length));
  return stops.map((stop, i) => {
    if (typeof stop !== "string" || stop === "" || stop.length > MAX_STOP_CHARS) {
      throw invalid(
        Array.isArray(value) ? `stop[${i}]` : "stop",
        `a string of 1 to ${MAX_STOP_CHARS} characters`,
        describe(stop),
      );
    }
    return stop;
  });
}

function readIncludeUsage(fields: Fields, isStream: boolean): boolean {
  const options = fields.get("stream_options");
  if (options === undefined) return false;
  if (!isStream) throw invalid("stream_options", '"stream": true to go with it', "none");
  const inner = fields.inner("stream_options");
  inner.refuseOthers(["include_usage", "include_obfuscation"]);
  inner.boolean("include_obfuscation");
  return inner.boolean("include_usage") ?? false;
}

/**
 * Generates text and sends it in pieces. `topLogprobs` is how many of the likeliest tokens to report beside each token;
 * undefined means no log probabilities.
 */
export async function generateText(
  guard: Guard,
  input: readonly ChatMessage[] | Int32Array,
  { sampling, stop }: Pick<GenerationFields, "sampling" | "stop">,
  topLogprobs: number | undefined,
  { signal, turn }: { readonly signal: AbortSignal; readonly turn: Turn },
  send: (piece: TextPiece) => void,
): Promise<GenerationEnd> {
  const decoder = guard.tokenizer.decodeStream({ skipSpecialTokens: true });
  const stops = new StopStrings(stop);
  const { stopIds } = guard.model.config;
  let [promptTokens, cachedTokens, completionTokens] = [0, 0, 0];
  let tokens: ChosenLogprob[] = [];
  const emit = (text: string): void => {
    if (text === "" && tokens.length === 0) return;
    send({ text, tokens });
    tokens = [];
  };
  const end = (finishReason: FinishReason): GenerationEnd => ({
    finishReason,
    usage: newUsage(promptTokens, cachedTokens, completionTokens),
  });

  const steps = guard.answer(input, { ...sampling, signal, turn });
  for (;;) {
    const step = await steps.next();
    if (step.done) {
      const { text, isStopped } = stops.push(decoder.end());
      emit(isStopped ? text : text + stops.end());
      return end(isStopped ? "stop" : step.value);
    }
    const { id, logits } = step.value;
    ({ promptTokens, cachedTokens } = step.value);
    completionTokens++;
    if (stopIds.includes(id)) continue; // it ends the answer but is not part of its text
    if (topLogprobs !== undefined) tokens.push(chosenLogprob(logits, id, topLogprobs));
    const { text, isStopped } = stops.push(decoder.push(id));
    if (text !== "" || isStopped) emit(text);
    if (isStopped) {
      await steps.return("stop");
      return end("stop");
    }
  }
}

export function newUsage(promptTokens: number, cachedTokens: number, completionTokens: number): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** A token in OpenAI's form: its own text, with U+FFFD for part of a character, and its bytes. */
export function tokenText(tokenizer: Tokenizer, id: number): { readonly token: string; readonly bytes: number[] } {
  const entry = tokenizer.idToToken(id);
  return { token: tokenizer.decode([id]), bytes: entry === undefined ? [] : Array.from(tokenBytes(entry)) };
}
