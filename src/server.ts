/** `import ... from "qwen3guard/server"`: the HTTP server and the proxy as web-standard handlers, for embedding. */

export { createHandler, type Handler, type HandlerOptions } from "./server/handler.ts";
export type { Action } from "./server/proxy/call.ts";
export { createProxy, type ProxyOptions } from "./server/proxy/proxy.ts";
