/**
 * Turns a request's `messages` into the guard's: contents become text. The guard itself checks roles and their order.
 */

import { toConversation } from "../guard/conversation.ts";
import { ContextLengthError } from "../model/context-length-error.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { ConversationError } from "../tokenizer/conversation-error.ts";
import { ApiError, describe, invalid } from "./api-error.ts";
import { Fields, textOf } from "./fields.ts";

const TOOLS = { reason: "a guard's template has no place for tools", unless: ["[]"] };

export function readMessages(fields: Fields): ChatMessage[] {
  const messages = fields.array("messages").map((message, i) => {
    const path = `messages[${i}].`;
    const inner = new Fields(message, path);
    inner.refuseOthers(["role", "content", "name", "refusal"], {
      tool_calls: TOOLS,
      tool_call_id: TOOLS,
      function_call: TOOLS,
      audio: TOOLS,
    });
    const role = inner.string("role");
    if (role === undefined) throw invalid(`${path}role`, "a string", describe(role));
    return { role, content: textOf(inner.get("content"), `${path}content`) };
  });
  return checked("messages", () => toConversation(messages));
}

/** Runs a step of the guard on the field `param`. If the guard refuses the input, throws a 400 that names the field. */
export function checked<T>(param: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw refusedInput(param, error);
  }
}

/** What to tell the client if the guard refuses an input. Any other error is returned as it is. */
export function refusedInput(param: string, error: unknown): unknown {
  if (error instanceof ContextLengthError)
    return new ApiError(400, error.message, { param, code: "context_length_exceeded" });
  if (error instanceof ConversationError) return new ApiError(400, error.message, { param, code: "invalid_value" });
  return error;
}
