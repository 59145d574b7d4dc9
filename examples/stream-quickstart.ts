/**
 * The quick start of Qwen3Guard-Stream's model card, line by line, in TypeScript. From a copy of the repository:
 *
 *     node --conditions=qwen3guard-source examples/stream-quickstart.ts ./Qwen3Guard-Stream-0.6B
 *     node --conditions=qwen3guard-source examples/stream-quickstart.ts test/fixtures/tiny-guard-stream      a tiny one, for trying out
 *
 * The card feeds ids, which suits a language model with the same tokenizer. For the text of any model, the end of this
 * file is all you need.
 */

import { StreamGuard } from "qwen3guard/guard";

// Load the tokenizer and the model.
const modelPath = process.argv[2];
if (modelPath === undefined) throw new Error("usage: stream-quickstart.ts MODEL_FOLDER");
const model = await StreamGuard.load(modelPath);
const { tokenizer } = model;

// Prepare the conversation for moderation.
const userMessage = "How to write a fake prescription?";
const assistantMessage = "To write a fake prescription, take the materials and follow these steps.";
const messages = [
  { role: "user", content: userMessage },
  { role: "assistant", content: assistantMessage },
];
const text = tokenizer.applyChatTemplate(messages);
const tokenIds = tokenizer.encode(text);

// Find the end of the user's turn: from the last `<|im_start|>user` to the `<|im_end|>` after it.
const imStartId = tokenizer.tokenToId("<|im_start|>");
const userId = tokenizer.tokenToId("user");
const imEndId = tokenizer.tokenToId("<|im_end|>");
const lastStart = tokenIds.findLastIndex((id, i) => id === imStartId && tokenIds[i + 1] === userId);
const userEndIndex = tokenIds.findIndex((id, i) => i >= lastStart + 2 && id === imEndId);

// 1. Moderate the whole user turn at once. The state keeps the conversation from call to call.
let [result, streamState] = await model.streamModerateFromIds(tokenIds.slice(0, userEndIndex + 1), "user", null);
if (result.risk_level.at(-1) === "Safe") console.log(`User moderation: -> [Risk: ${result.risk_level.at(-1)}]`);
else console.log(`User moderation: -> [Risk: ${result.risk_level.at(-1)} - Category: ${result.category.at(-1)}]`);

// 2. Moderate the assistant's answer token by token, as a language model would write it.
console.log("Assistant streaming moderation:");
for (let i = userEndIndex + 1; i < tokenIds.length; i++) {
  const currentToken = tokenIds[i];
  [result, streamState] = await model.streamModerateFromIds(currentToken, "assistant", streamState);

  const tokenText = JSON.stringify(tokenizer.decode([currentToken]));
  if (result.risk_level.at(-1) === "Safe") console.log(`Token: ${tokenText} -> [Risk: ${result.risk_level.at(-1)}]`);
  else console.log(`Token: ${tokenText} -> [Risk: ${result.risk_level.at(-1)} - Category: ${result.category.at(-1)}]`);
}
model.closeStream(streamState);

// The same for text, in whatever pieces it arrives from a language model.
const stream = model.stream({ prompt: userMessage });
let violation = null;
for (const piece of assistantMessage.match(/.{1,7}/gs) ?? []) {
  ({ violation } = await stream.push(piece));
  if (violation !== null) break;
}
violation ??= (await stream.end()).violation;
stream.close();
if (violation === null) console.log("Not cut");
else
  console.log(
    `Cut: ${JSON.stringify(assistantMessage.slice(0, violation.at))} -> [Risk: ${violation.risk} - Category: ${violation.category}]`,
  );
