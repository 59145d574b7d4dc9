/** `import ... from "qwen3guard/tokenizer"`: text <-> ids, messages -> prompt. */

export type { TextFiles } from "./checkpoint/files.ts";
export type { ChatStream } from "./tokenizer/chat-stream.ts";
export type { ChatMessage } from "./tokenizer/chat-template.ts";
export { ConversationError } from "./tokenizer/conversation-error.ts";
export type { DecodeStream } from "./tokenizer/decode-stream.ts";
export type { EncodeStream } from "./tokenizer/encode-stream.ts";
export type { Encoding } from "./tokenizer/offsets.ts";
export { Tokenizer } from "./tokenizer/tokenizer.ts";
