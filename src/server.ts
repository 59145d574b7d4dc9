/** `import ... from "qwen3guard/server"`: the HTTP server as a web-standard handler, for embedding. */

export { createHandler, type Handler, type HandlerOptions } from "./app/server/handler.ts";
