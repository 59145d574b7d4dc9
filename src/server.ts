/** `import ... from "qwen3guard/server"`: the HTTP server and the proxy as web-standard handlers, for embedding. */

export { createHandler, type Handler, type HandlerOptions } from "./app/server/handler.ts";
export type { Action } from "./app/server/proxy/call.ts";
export { createProxy, type ProxyOptions } from "./app/server/proxy/proxy.ts";
