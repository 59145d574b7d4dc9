/**
 * Express (or Connect, or any server with the same middleware): judges a chat message before it reaches the next route.
 *
 *     app.use(express.json());
 *     app.post("/chat", guardMessage(await Guard.load("Qwen/Qwen3Guard-Gen-0.6B")), answer);
 */

import type { ServerResponse } from "node:http";
import { ContextLengthError, type Guard } from "qwen3guard";

export function guardMessage(guard: Guard) {
  return async (
    request: { body?: { message?: unknown } },
    response: ServerResponse,
    next: (error?: unknown) => void,
  ): Promise<void> => {
    const refuse = (status: number, body: object): void => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    };
    const message = request.body?.message;
    if (typeof message !== "string") return refuse(400, { error: "message: expected a text" });

    // Stop if the client goes away.
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    try {
      const { flagged, safety, categories } = await guard.moderate(message, { signal: gone.signal });
      if (flagged) refuse(422, { error: "message refused", safety, categories });
      else next();
    } catch (error) {
      // What cannot be judged does not pass. A text that is too long is the client's mistake; anything else is ours.
      if (error instanceof ContextLengthError) refuse(413, { error: error.message });
      else if (!gone.signal.aborted) next(error);
    }
  };
}
