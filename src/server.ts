/** `import ... from "qwen3guard/server"`: the HTTP server as a web-standard handler, for embedding. */

export { createHandler, type Handler, type HandlerOptions } from "./app/server/handler.ts";
export type { Action } from "./app/server/proxy/call.ts";
export { createProxy, type ProxyOptions } from "./app/server/proxy/proxy.ts";
