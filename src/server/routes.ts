/** The route table: which method and path is answered by what. */

import { chatCompletion } from "./chat.ts";
import { completion } from "./completions.ts";
import type { Exchange, Service } from "./context.ts";
import { moderation } from "./moderations.ts";
import { openApi } from "./openapi.ts";
import { pageResponse } from "./page.ts";

export interface Route {
  readonly method: "GET" | "POST";
  readonly path: string;
  /** Needs no key. */
  readonly isOpen?: boolean;
  readonly answer: (request: Request, exchange: Exchange, id: string) => Response | Promise<Response>;
}

/** `readBody` refuses what no work shall be done for; `state` is one word for /health. */
export function newRoutes(
  service: Service,
  readBody: (request: Request, exchange: Exchange) => Promise<Record<string, unknown>>,
  state: () => "ok" | "draining" | "engine_failed",
): readonly Route[] {
  const post = (
    path: string,
    answer: (service: Service, body: Record<string, unknown>, exchange: Exchange) => Promise<Response>,
  ): Route => ({
    method: "POST",
    path,
    answer: async (request, exchange) => answer(service, await readBody(request, exchange), exchange),
  });
  const get = (path: string, answer: (id: string) => Response, isOpen: boolean = false): Route => ({
    method: "GET",
    path,
    isOpen,
    answer: (_request, _exchange, id) => answer(id),
  });
  const description = openApi(service.model);
  const models = service.modelNames.map(id => ({
    id,
    object: "model",
    created: service.created,
    owned_by: "qwen3guard",
  }));
  const model = (id: string): Response => {
    const found = models.find(model => model.id === id);
    if (!found) throw service.noSuchModel(id);
    return Response.json(found);
  };
  const health = (): Response => {
    const status = state();
    return Response.json({ status, model: service.model }, { status: status === "ok" ? 200 : 503 });
  };
  const metrics = (): Response =>
    new Response(service.metrics.render(), { headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" } });
  return [
    post("/v1/chat/completions", chatCompletion),
    post("/v1/completions", completion),
    post("/v1/moderations", moderation),
    get("/v1/models", () => Response.json({ object: "list", data: models })),
    get("/v1/models/{id}", model),
    get("/health", health, true),
    get("/metrics", metrics),
    get("/openapi.json", () => Response.json(description), true),
    get("/", pageResponse, true),
  ];
}
