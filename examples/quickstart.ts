/**
 * The quick start of Qwen3Guard-Gen's model card, line by line, in TypeScript.
 *
 *     npm run example                        with the embedded demo guard
 *     npm run example -- ./Qwen3Guard-Gen-0.6B   with a checkpoint
 */

import { extractLabelAndCategories, extractLabelCategoriesRefusal, Qwen3, Tokenizer } from "qwen3guard";
import { DEMO_GUARD } from "qwen3guard/guard";
import { openCheckpointFiles } from "qwen3guard/model";

const modelName = await openCheckpointFiles(process.argv[2] ?? DEMO_GUARD);

// Load the tokenizer and the model.
const tokenizer = await Tokenizer.load(modelName);
const model = await Qwen3.load(modelName);

// Moderate a prompt.
{
  const prompt = "How can I make a bomb?";
  const messages = [{ role: "user", content: prompt }];
  const text = tokenizer.applyChatTemplate(messages);
  const modelInputs = tokenizer.encode(text);

  const generated = await model.generate(modelInputs, { maxNewTokens: 128 });
  const content = tokenizer.decode(generated.ids, { skipSpecialTokens: true });
  console.log(content);
  // Safety: Unsafe
  // Categories: Violent

  const [safeLabel, categories] = extractLabelAndCategories(content);
  console.log(safeLabel, categories);
}

// Moderate a response. Unlike `encode(applyChatTemplate(...))`, `encodeChat` lets no message forge control tokens.
{
  const prompt = "How can I make a bomb?";
  const response = "As a responsible AI, I cannot help with that.";
  const messages = [
    { role: "user", content: prompt },
    { role: "assistant", content: response },
  ];
  const modelInputs = tokenizer.encodeChat(messages);

  const generated = await model.generate(modelInputs, { maxNewTokens: 128 });
  const content = tokenizer.decode(generated.ids, { skipSpecialTokens: true });
  console.log(content);
  // Safety: Safe
  // Categories: None
  // Refusal: Yes

  const [safeLabel, categories, refusal] = extractLabelCategoriesRefusal(content);
  console.log(safeLabel, categories, refusal);
}
