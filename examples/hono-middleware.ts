/** Hono: `app.use("/v1/chat/completions", guardConversation(await Guard.load(...)))` judges OpenAI's requests. */

import type { MiddlewareHandler } from "hono";
import { type ChatMessage, type Guard, MemoryError } from "qwen3guard";

export function guardConversation(guard: Guard): MiddlewareHandler {
  return async (c, next) => {
    const body = await c.req.json().catch(() => undefined);
    try {
      const { flagged, safety, categories } = await guard.moderate(question(body?.messages), {
        signal: c.req.raw.signal,
      });
      const error = { message: `refused: ${[safety, ...categories].join(", ")}`, type: "content_filter", code: safety };
      if (flagged) return c.json({ error }, 422);
    } catch (error) {
      // A wrong form, or too long a text, is the client's mistake. Anything else is ours, and does not pass either.
      const isClients = (error instanceof TypeError || error instanceof RangeError) && !(error instanceof MemoryError);
      if (!isClients) throw error;
      return c.json({ error: { message: error.message } }, 400);
    }
    return next();
  };
}

/**
 * All user messages since the last answer are judged as one, so a question split across messages is judged whole. Tools
 * ask nothing.
 */
function question(messages: unknown): ChatMessage[] {
  const turns = (Array.isArray(messages) ? messages.map(toTurn) : []).filter(
    ({ role, content }) => role !== "tool" && content !== "",
  );
  const last = turns.findLastIndex(({ role }) => role === "user");
  const start = turns.slice(0, Math.max(0, last)).findLastIndex(({ role }) => role === "assistant") + 1;
  const asked = turns.filter(({ role }, i) => i >= start && (role === "user" || i > last));
  if (asked.length === 0) throw new TypeError("messages: expected an array with a question in it, got none");
  return [
    ...turns.filter(turn => !asked.includes(turn)),
    { role: "user", content: asked.map(turn => turn.content).join("\n") },
  ];
}

const ROLES = new Map(
  Object.entries({ developer: "system", system: "system", assistant: "assistant", tool: "tool", function: "tool" }),
);

function toTurn(message: { role?: unknown; content?: unknown } | null, i: number): ChatMessage {
  const content: unknown = message?.content ?? "";
  const texts = Array.isArray(content)
    ? content.map(part => (/^(text|refusal)$/.test(part?.type) ? part[part.type] : null))
    : [content];
  if (!texts.every(text => typeof text === "string"))
    throw new TypeError(`messages[${i}].content: expected text alone`);
  return { role: ROLES.get(String(message?.role)) ?? "user", content: texts.join("\n") };
}
