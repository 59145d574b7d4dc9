/** `POST /v1/chat/completions`: the guard's own answer to a conversation, in the form of an assistant's. */

import type { ChatMessage } from "../tokenizer/chat-template.ts";
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
import { checked, readMessages } from "./messages.ts";
import { newId } from "./new-id.ts";
import type { Service } from "./service.ts";

/** The model card's value. */
const DEFAULT_MAX_TOKENS = 128;

const NO_TOOLS = "a guard calls no tools";
const REFUSED: Readonly<Record<string, Refused>> = {
  ...GENERATION_REFUSED,
  tools: { reason: NO_TOOLS, unless: ["[]"] },
  tool_choice: { reason: NO_TOOLS, unless: ['"none"', '"auto"'] },
  functions: { reason: NO_TOOLS, unless: ["[]"] },
  function_call: { reason: NO_TOOLS, unless: ['"none"', '"auto"'] },
  response_format: { reason: "a guard has its own format", unless: ['{"type":"text"}'] },
  modalities: { reason: "a guard writes text", unless: ['["text"]'] },
  audio: { reason: "a guard writes text", unless: [] },
  prediction: { reason: "a guard predicts its own answers", unless: [] },
  reasoning_effort: { reason: "a guard does not reason", unless: ['"none"'] },
  verbosity: { reason: "a guard has its own format", unless: [] },
  web_search_options: { reason: "a guard does not search", unless: [] },
};

export async function chatCompletion(
  service: Service,
  body: Record<string, unknown>,
  exchange: Exchange,
): Promise<Response> {
  const fields = new Fields(body);
  fields.refuseOthers(
    [...GENERATION_FIELDS, "messages", "max_completion_tokens", "top_logprobs", "parallel_tool_calls"],
    REFUSED,
  );
  service.checkModel(fields);
  const messages = readMessages(fields);
  exchange.texts = messages.map(({ content }) => content);
  const maxTokens =
    fields.integer("max_completion_tokens", 1, 2 ** 31) ??
    fields.integer("max_tokens", 1, 2 ** 31) ??
    DEFAULT_MAX_TOKENS;
  const generation = readGenerationFields(fields, maxTokens);
  const topLogprobs = readTopLogprobs(fields);
  const promptTokens = checked("messages", () => service.guard.encode(messages)).length;
  // A greedy answer is only a few tokens; a sampled one may be longer.
  const size = Math.min(service.maxPositions, promptTokens + (generation.sampling.temperature === 0 ? 0 : maxTokens));

  const run = (send: (piece: TextPiece) => void): Promise<GenerationEnd> =>
    service.run({
      size,
      signal: exchange.signal,
      run: turn =>
        generateText(service.guard, messages, generation, topLogprobs, { signal: exchange.signal, turn }, send),
    });
  const head = { id: newId("chatcmpl"), created: Math.floor(Date.now() / 1000), model: service.model };
  const shown = (tokens: readonly ChosenLogprob[]): object | null =>
    topLogprobs === undefined ? null : { content: tokens.map(token => showLogprob(service, token)), refusal: null };

  if (!generation.isStream) {
    const pieces: TextPiece[] = [];
    const { finishReason, usage } = await run(piece => pieces.push(piece));
    const content = pieces.map(({ text }) => text).join("");
    count(service, messages, content, { finishReason, usage });
    const message = { role: "assistant", content, refusal: null };
    const logprobs = shown(pieces.flatMap(({ tokens }) => tokens));
    const choice = { index: 0, message, logprobs, finish_reason: finishReason };
    return Response.json({ ...head, object: "chat.completion", choices: [choice], usage });
  }

  return exchange.stream(async send => {
    const event = (choices: readonly object[], usage: object | null = null): void =>
      send({ ...head, object: "chat.completion.chunk", choices, ...(generation.includeUsage ? { usage } : {}) });
    const chunk = (delta: object, logprobs: object | null, finish_reason: string | null = null): void =>
      event([{ index: 0, delta, logprobs, finish_reason }]);
    let content = "";
    let hasBegun = false;
    const begin = (): void => {
      if (!hasBegun) chunk({ role: "assistant", content: "", refusal: null }, null);
      hasBegun = true;
    };
    const end = await run(({ text, tokens }) => {
      begin();
      content += text;
      chunk({ content: text }, shown(tokens));
    });
    count(service, messages, content, end);
    begin();
    chunk({}, null, end.finishReason);
    if (generation.includeUsage) event([], end.usage);
  });
}

function count(service: Service, messages: readonly ChatMessage[], text: string, { usage }: GenerationEnd): void {
  service.countUsage(usage);
  service.countAnswer(messages, text);
}

function readTopLogprobs(fields: Fields): number | undefined {
  const top = fields.integer("top_logprobs", 0, 20);
  const isWanted = fields.boolean("logprobs") ?? false;
  if (top !== undefined && !isWanted) throw fields.invalid("top_logprobs", '"logprobs": true to go with it', "none");
  return isWanted ? (top ?? 0) : undefined;
}

function showLogprob({ guard: { tokenizer } }: Service, { id, logprob, top }: ChosenLogprob): object {
  return {
    ...tokenText(tokenizer, id),
    logprob,
    top_logprobs: top.map(other => ({ ...tokenText(tokenizer, other.id), logprob: other.logprob })),
  };
}
