/**
 * The guard: messages -> verdict.
 *
 * In: a text, a prompt with its response, or a conversation. Out: a `Verdict` with the model's exact greedy answer, parsed, and the
 * probabilities behind it.
 *
 *     messages --chat template--> prompt ids --model--> answer ids --tokenizer--> text --parser--> verdict
 *
 * Text that a user typed cannot become a control token on the way (Tokenizer.encodeChat), and an answer that does not follow the format is
 * "unparsed": flagged, never Safe.
 */

import type { Qwen3Config } from "../model/config.ts";
import { type CheckpointSource, openCheckpointFiles } from "../model/open-checkpoint.ts";
import { Qwen3, readConfig } from "../model/qwen3.ts";
import { SessionPool } from "../model/session-pool.ts";
import type { EngineOptions } from "../tensor/engine-choice.ts";
import { checkOptions } from "../tensor/options.ts";
import { softmaxInto } from "../tensor/reference.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import { parseAnswer } from "./answer.ts";
import { type ModerationInput, toConversation } from "./conversation.ts";
import { DEMO_GUARD } from "./demo-guard.ts";
import { type Decision, deriveLabels, endsWith, type Labels } from "./labels.ts";
import { type Policy, readPolicy, type SafetyLevel } from "./policy.ts";

/** strict: Unsafe and Controversial are flagged; loose: Unsafe alone. The model's answer is the same. */
export type Mode = "strict" | "loose";

export interface Verdict {
  /** null where the answer did not follow the format (`error` is then "unparsed"). */
  readonly safety: SafetyLevel | null;
  /** As the model writes them; empty for "None". */
  readonly categories: readonly string[];
  /** Whether the judged response refuses; null where a prompt was judged. */
  readonly refusal: "Yes" | "No" | null;
  /** What to act on: depends on `mode`; true where the answer could not be parsed. */
  readonly flagged: boolean;
  readonly mode: Mode;
  /** Softmax over the three level tokens at the position that decides the level; null where the answer never came to it. */
  readonly scores: Readonly<Record<SafetyLevel, number>> | null;
  /** Softmax over the category tokens ("None" included) at the position that decides the first category. */
  readonly categoryScores: Readonly<Record<string, number>> | null;
  /** Probability of "Yes" against "No"; null where a prompt was judged. */
  readonly refusalScore: number | null;
  /** The model's answer, word for word. */
  readonly text: string;
  /** Name of the checkpoint. */
  readonly model: string;
  readonly usage: {
    readonly promptTokens: number;
    readonly cachedTokens: number;
    readonly completionTokens: number;
    readonly passes: number;
  };
  /** Wall time in milliseconds. */
  readonly ms: number;
  readonly error?: "unparsed";
}

export interface ModerateOptions {
  /** strict by default. */
  readonly mode?: Mode;
  /** 128 by default, as the model card has it. */
  readonly maxNewTokens?: number;
  readonly signal?: AbortSignal;
}

/** One kind of judgement: on a user's message, or on an assistant's. */
interface Task {
  readonly policy: Policy;
  readonly labels: Labels;
}

export class Guard {
  readonly tokenizer: Tokenizer;
  readonly model: Qwen3;
  readonly name: string;
  readonly #sessions: SessionPool;
  readonly #tasks: { readonly user: Task; readonly assistant: Task };

  /** Throws Error where model or tokenizer are not those of a Gen guard. `name` stands in verdicts and messages. */
  constructor(model: Qwen3, tokenizer: Tokenizer, name: string) {
    this.#tasks = readTasks(model.config, tokenizer, name);
    this.model = model;
    this.#sessions = new SessionPool(() => model.newSession());
    this.tokenizer = tokenizer;
    this.name = name;
  }

  /**
   * Loads a checkpoint: a folder's path (Node), a URL, or files at hand. Without a source: the embedded demo guard, which is for trying out
   * and testing, not for protection. Throws Error, TypeError or RangeError, `<file>: expected ..., got ...`.
   */
  static async load(source: CheckpointSource = DEMO_GUARD, options: EngineOptions = {}): Promise<Guard> {
    const files = await openCheckpointFiles(source);
    const name = files.name.replace(/^.*[/\\]/, "") || files.name;
    const tokenizer = await Tokenizer.load(files);
    readTasks(await readConfig(files), tokenizer, name); // before the weights: what is no guard is refused at the door
    return new Guard(await Qwen3.load(files, options), tokenizer, name);
  }

  /**
   * Judges the last message of `input`. Throws TypeError or RangeError for an input of the wrong form or too long for the context (with
   * both numbers), and the signal's reason when aborted. An unparsable answer is not thrown: it is a verdict that is flagged.
   */
  async moderate(input: ModerationInput, options: ModerateOptions = {}): Promise<Verdict> {
    const started = performance.now();
    checkOptions(options, ["mode", "maxNewTokens", "signal"], "moderate");
    const mode = checkMode(options.mode ?? "strict");
    const messages = toConversation(input);
    const { policy, labels } = messages[messages.length - 1].role === "user" ? this.#tasks.user : this.#tasks.assistant;
    const prompt = this.encode(messages);

    const session = this.#sessions.acquire(prompt);
    const cachedTokens = session.position;
    const ids: number[] = [];
    let scores: Record<SafetyLevel, number> | null = null;
    let categoryScores: Record<string, number> | null = null;
    let refusalScore: number | null = null;
    const generation = { maxNewTokens: options.maxNewTokens ?? 128, ...(options.signal ? { signal: options.signal } : {}) };
    try {
      for await (const { id, logits } of this.model.generateSteps(prompt.subarray(cachedTokens), generation, session)) {
        if (ids.length === labels.level.lead.length && endsWith(ids, labels.level.lead)) scores = probabilities(logits, labels.level);
        if (categoryScores === null && endsWith(ids, labels.category.lead)) categoryScores = probabilities(logits, labels.category);
        if (labels.refusal && refusalScore === null && endsWith(ids, labels.refusal.lead)) {
          refusalScore = probabilities(logits, labels.refusal).Yes;
        }
        ids.push(id);
      }
    } finally {
      this.#sessions.release(session);
    }

    const text = this.tokenizer.decode(ids, { skipSpecialTokens: true });
    const answer = parseAnswer(text, policy);
    return {
      safety: answer?.safety ?? null,
      categories: answer?.categories ?? [],
      refusal: answer?.refusal ?? null,
      flagged: isFlagged(answer?.safety ?? null, mode),
      mode,
      scores,
      categoryScores,
      refusalScore,
      text,
      model: this.name,
      // Every id costs one pass: the prompt gives the first, and each id but the last is fed back for the next.
      usage: { promptTokens: prompt.length, cachedTokens, completionTokens: ids.length, passes: ids.length },
      ms: performance.now() - started,
      ...(answer ? {} : { error: "unparsed" as const }),
    };
  }

  /** The prompt's ids for a conversation: the guard's own template, with control tokens in message contents kept as text. */
  encode(input: ModerationInput): Int32Array {
    const messages = toConversation(input);
    const { maxPositionEmbeddings } = this.model.config;
    // A text far beyond the context is refused by its length: tokenising megabytes only to refuse them would take seconds.
    const chars = messages.reduce((sum, { content }) => sum + content.length, 0);
    const least = this.tokenizer.leastIds(chars);
    if (least >= maxPositionEmbeddings) {
      throw new RangeError(
        `conversation too long: expected fewer than ${maxPositionEmbeddings} tokens with the guard's prompt, got at least ${least}`,
      );
    }
    const ids = this.tokenizer.encodeChat(messages);
    if (ids.length >= maxPositionEmbeddings) {
      throw new RangeError(
        `conversation too long: expected fewer than ${maxPositionEmbeddings} tokens with the guard's prompt, got ${ids.length}`,
      );
    }
    return ids;
  }

  /** Ends the threads and gives the memory back; the guard must not be used afterwards. */
  close(): void {
    this.model.close();
  }
}

/** What the checkpoint may be asked and may answer. Throws Error or RangeError where it is not a Gen guard's. */
function readTasks(config: Qwen3Config, tokenizer: Tokenizer, name: string): { readonly user: Task; readonly assistant: Task } {
  if (config.architecture !== "Qwen3ForCausalLM") {
    throw new Error(`${name}: expected a Gen guard (Qwen3ForCausalLM), got ${config.architecture} (a Stream guard has other heads)`);
  }
  if (!tokenizer.hasChatTemplate) throw new Error(`${name}: expected a guard's chat template, got a tokenizer without any`);
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new RangeError(
      `${name}: tokenizer: expected at most ${config.vocabSize} ids, the model's vocabulary, got ${tokenizer.vocabSize}`,
    );
  }
  const readTask = (messages: readonly ChatMessage[]): Task => {
    const policy = readPolicy(tokenizer.applyChatTemplate(messages), name);
    return { policy, labels: deriveLabels(tokenizer, policy, name) };
  };
  // Any conversation shows the policy; these two take the template's two branches.
  const user = [{ role: "user", content: "-" }];
  return { user: readTask(user), assistant: readTask([...user, { role: "assistant", content: "-" }]) };
}

/** Severity policy: what counts as flagged. An answer without a level always does. */
export function isFlagged(safety: SafetyLevel | null, mode: Mode): boolean {
  return safety === null || safety === "Unsafe" || (safety === "Controversial" && mode === "strict");
}

function checkMode(mode: unknown): Mode {
  if (mode !== "strict" && mode !== "loose") throw new RangeError(`mode: expected "strict" or "loose", got ${JSON.stringify(mode)}`);
  return mode;
}

/** Softmax over the logits of a decision's labels alone. */
function probabilities<Label extends string>(logits: Float32Array, decision: Decision<Label>): Record<Label, number> {
  const chosen = Float32Array.from(decision.ids, id => logits[id]);
  softmaxInto(chosen);
  return Object.fromEntries(decision.labels.map((label, i) => [label, chosen[i]])) as Record<Label, number>;
}
