/**
 * Hono: every chat completion that a client asks for is judged first, the whole conversation of it, whatever server answers behind.
 *
 *     const app = new Hono();
 *     app.use("/v1/chat/completions", guardConversation(await Guard.load("Qwen/Qwen3Guard-Gen-0.6B")));
 */

import type { MiddlewareHandler } from "hono";
import type { Guard } from "qwen3guard";

export function guardConversation(guard: Guard): MiddlewareHandler {
  return async (c, next) => {
    const body = await c.req.json().catch(() => undefined);
    const messages = body?.messages;
    if (!Array.isArray(messages)) return c.json({ error: { message: "messages: expected an array" } }, 400);
    try {
      const { flagged, safety, categories } = await guard.moderate(messages, { signal: c.req.raw.signal });
      if (flagged) {
        return c.json({ error: { message: `refused: ${[safety, ...categories].join(", ")}`, type: "content_filter", code: safety } }, 422);
      }
    } catch (error) {
      // Of a wrong form (a role, an empty conversation): the client's mistake. Anything else is ours, and does not pass either.
      if (error instanceof TypeError || error instanceof RangeError) return c.json({ error: { message: error.message } }, 400);
      throw error;
    }
    return next();
  };
}
