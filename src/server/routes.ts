/** The route table: which function answers a method and a path. */

import { chatCompletion } from "./chat.ts";
import { completion } from "./completions.ts";
import type { Exchange } from "./exchange.ts";
import { moderation } from "./moderations.ts";
import { openApi } from "./openapi.ts";
import { pageResponse } from "./page.ts";
import type { Service } from "./service.ts";

export interface Route {
  readonly method: "GET" | "POST";
  readonly path: string;
  /** Whether it needs no key. */
  readonly isOpen?: boolean;
  readonly answer: (exchange: Exchange, id: string) => Response | Promise<Response>;
}

/** `checkOpen` throws if no new work is accepted; `state` is one word for /health. */
export function newRoutes(
  service: Service,
  checkOpen: () => void,
  state: () => "ok" | "draining" | "engine_failed",
): readonly Route[] {
  const post = (
    path: string,
    answer: (service: Service, body: Record<string, unknown>, exchange: Exchange) => Promise<Response>,
  ): Route => ({
    method: "POST",
    path,
    answer: async exchange => {
      checkOpen();
      return answer(service, await exchange.readBody(), exchange);
    },
  });
  const get = (path: string, answer: (id: string) => Response, isOpen: boolean = false): Route => ({
    method: "GET",
    path,
    isOpen,
    answer: (_exchange, id) => answer(id),
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
  return [
    post("/v1/chat/completions", chatCompletion),
    post("/v1/completions", completion),
    post("/v1/moderations", moderation),
    get("/v1/models", () => Response.json({ object: "list", data: models })),
    get("/v1/models/{id}", model),
    get("/health", health, true),
    get("/metrics", () => service.metrics.response()),
    get("/openapi.json", () => Response.json(description), true),
    get("/", pageResponse, true),
  ];
}
