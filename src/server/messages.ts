/**
 * A request's `messages` as the guard takes them: contents become text; roles and their order are the guard's own to
 * check.
 */

import { toConversation } from "../guard/conversation.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { describe, invalid } from "./api-error.ts";
import { checked, requireArray } from "./context.ts";
import { Fields, textOf } from "./fields.ts";

const TOOLS = { reason: "a guard's template has no place for tools", unless: ["[]"] };

export function readMessages(fields: Fields): ChatMessage[] {
  const messages = requireArray(fields, "messages").map((message, i) => {
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
