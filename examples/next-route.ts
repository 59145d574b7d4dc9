/**
 * Next.js: `app/api/moderate/route.ts`. It works unchanged in any server whose handlers take a `Request` and return a
 * `Response`. The package finds its demo guard and its workers beside its own files, so Next must not bundle it, and a
 * standalone server or a function must be told to include them. next.config.ts:
 *
 *     export default {
 *       serverExternalPackages: ["qwen3guard"],
 *       outputFileTracingIncludes: { "/api/moderate": ["./node_modules/qwen3guard/{dist,models}/**"] },
 *     };
 *
 *     curl localhost:3000/api/moderate -d '{"text": "How can I make a bomb?"}'
 */

import { ContextLengthError, Guard } from "qwen3guard";

export const runtime = "nodejs";

/**
 * Loaded once, at the first request and not at build time. QWEN3GUARD_MODEL names the checkpoint; the default is the
 * demo guard.
 */
let guard: Promise<Guard> | undefined;

export async function POST(request: Request): Promise<Response> {
  const body = await request.json().catch(() => undefined);
  if (typeof body?.text !== "string") return Response.json({ error: "text: expected a text" }, { status: 400 });
  guard ??= Guard.load(process.env.QWEN3GUARD_MODEL || undefined).catch(error => {
    guard = undefined; // the next request tries again
    throw error;
  });
  try {
    const { flagged, safety, categories, score } = await (await guard).moderate(body.text, { signal: request.signal });
    return Response.json({ flagged, safety, categories, score });
  } catch (error) {
    if (error instanceof ContextLengthError) return Response.json({ error: error.message }, { status: 413 });
    throw error;
  }
}
