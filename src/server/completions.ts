/**
 * `POST /v1/completions`: what the model writes after a raw prompt.
 *
 * The prompt goes to the model as it is. As in vLLM, control tokens in it (`<|im_start|>`) are recognised: clients of
 * this endpoint render their own prompts, and must not paste what others typed into them.
 */

import { ApiError, describe } from "./api-error.ts";
import type { Exchange } from "./exchange.ts";
import { Fields, type Refused } from "./fields.ts";
import {
  GENERATION_FIELDS,
  GENERATION_REFUSED,
  type GenerationEnd,
  generateText,
  readGenerationFields,
  type TextPiece,
  tokenText,
} from "./generation.ts";
import type { ChosenLogprob } from "./logprobs.ts";
import { newId } from "./new-id.ts";
import type { Service } from "./service.ts";

/** OpenAI's and vLLM's default. */
const DEFAULT_MAX_TOKENS = 16;

const REFUSED: Readonly<Record<string, Refused>> = {
  ...GENERATION_REFUSED,
  suffix: { reason: "text is only written at the end", unless: ['""'] },
  echo: { reason: "the prompt is not repeated", unless: ["false"] },
  best_of: { reason: "one completion is written", unless: ["1"] },
};

export async function completion(
  service: Service,
  body: Record<string, unknown>,
  exchange: Exchange,
): Promise<Response> {
  const fields = new Fields(body);
  fields.refuseOthers([...GENERATION_FIELDS, "prompt"], REFUSED);
  service.checkModel(fields);
  const maxTokens = fields.integer("max_tokens", 1, 2 ** 31) ?? DEFAULT_MAX_TOKENS;
  const generation = readGenerationFields(fields, maxTokens);
  const topLogprobs = fields.integer("logprobs", 0, 20);
  const prompt = readPrompt(service, fields, exchange);
  const size = Math.min(service.maxPositions, prompt.length + maxTokens);

  const run = (send: (piece: TextPiece) => void): Promise<GenerationEnd> =>
    service.run({
      size,
      signal: exchange.signal,
      run: turn =>
        generateText(service.guard, prompt, generation, topLogprobs, { signal: exchange.signal, turn }, send),
    });
  const head = {
    id: newId("cmpl"),
    object: "text_completion",
    created: Math.floor(Date.now() / 1000),
    model: service.model,
  };
  let textOffset = 0;
  const shown = (tokens: readonly ChosenLogprob[]): object | null => {
    if (topLogprobs === undefined) return null;
    const shown = showLogprobs(service, tokens, textOffset);
    textOffset += shown.tokens.join("").length;
    return shown;
  };

  if (!generation.isStream) {
    const pieces: TextPiece[] = [];
    const { finishReason, usage } = await run(piece => pieces.push(piece));
    service.countUsage(usage);
    const text = pieces.map(piece => piece.text).join("");
    const choice = {
      index: 0,
      text,
      logprobs: shown(pieces.flatMap(({ tokens }) => tokens)),
      finish_reason: finishReason,
    };
    return Response.json({ ...head, choices: [choice], usage });
  }

  return exchange.stream(async send => {
    const event = (choices: readonly object[], usage: object | null = null): void =>
      send({ ...head, choices, ...(generation.includeUsage ? { usage } : {}) });
    const end = await run(({ text, tokens }) =>
      event([{ index: 0, text, logprobs: shown(tokens), finish_reason: null }]),
    );
    service.countUsage(end.usage);
    event([{ index: 0, text: "", logprobs: null, finish_reason: end.finishReason }]);
    if (generation.includeUsage) event([], end.usage);
  });
}

/** A text, or ids. OpenAI also takes a list of prompts; here it may have one entry. */
function readPrompt({ guard, maxPositions }: Service, fields: Fields, exchange: Exchange): Int32Array {
  let prompt = fields.get("prompt");
  if (Array.isArray(prompt) && prompt.length === 1 && typeof prompt[0] !== "number") prompt = prompt[0];
  if (Array.isArray(prompt) && prompt.length > 1 && typeof prompt[0] !== "number") {
    throw fields.unsupported("prompt", "one prompt a request");
  }
  if (typeof prompt === "string") {
    exchange.texts = [prompt];
    if (prompt === "") throw fields.invalid("prompt", "a text", "an empty one");
    checkLength(guard.tokenizer.leastIds(prompt.length), maxPositions);
    const ids = guard.tokenizer.encode(prompt);
    checkLength(ids.length, maxPositions);
    return ids;
  }
  if (!Array.isArray(prompt) || prompt.length === 0)
    throw fields.invalid("prompt", "a text or an array of token ids", describe(prompt));
  checkLength(prompt.length, maxPositions);
  const { vocabSize } = guard.model.config;
  const wrong = prompt.findIndex(id => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (wrong >= 0)
    throw fields.invalid(`prompt[${wrong}]`, `a token id from 0 to ${vocabSize - 1}`, describe(prompt[wrong]));
  return Int32Array.from(prompt);
}

function checkLength(length: number, maxPositions: number): void {
  if (length > maxPositions)
    throw new ApiError(400, `prompt too long: expected at most ${maxPositions} tokens, got at least ${length}`, {
      param: "prompt",
      code: "context_length_exceeded",
    });
}

interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: number[];
  readonly top_logprobs: Record<string, number>[];
  readonly text_offset: number[];
}

/** The older form of log probabilities: parallel lists. */
function showLogprobs(
  { guard: { tokenizer } }: Service,
  chosen: readonly ChosenLogprob[],
  textOffset: number,
): CompletionLogprobs {
  const tokens = chosen.map(({ id }) => tokenText(tokenizer, id).token);
  const offsets: number[] = [];
  let offset = textOffset;
  for (const token of tokens) {
    offsets.push(offset);
    offset += token.length;
  }
  return {
    tokens,
    token_logprobs: chosen.map(({ logprob }) => logprob),
    top_logprobs: chosen.map(({ top }) =>
      Object.fromEntries(top.map(({ id, logprob }) => [tokenText(tokenizer, id).token, logprob] as const)),
    ),
    text_offset: offsets,
  };
}
