/**
 * Which words a verdict depends on: each word is left out in turn, and P(Safe) is read again.
 *
 * In: a conversation, and a session to work in. Out: for each word of the last message, P(Safe) without it. The method
 * is leave-one-out, or occlusion (Zeiler and Fergus 2014, arXiv:1311.2901), applied to words. It goes from the last
 * word to the first, so that everything before a word is still in the session's cache and only what follows it is run.
 */

import type { Session } from "../model/session.ts";
import type { ChatMessage } from "../tokenizer/chat-template.ts";
import { readSafeProbability } from "./answer-reading.ts";
import type { Task } from "./task.ts";

export interface Explanation {
  /** P(Safe) of the whole text. */
  readonly safe: number;
  readonly words: readonly ExplainedWord[];
}

export interface ExplainedWord {
  /** `content.slice(start, end)` of the judged message. */
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** P(Safe) without this word. */
  readonly safe: number;
  /** `safe` without the word minus `safe` with it: positive if the word makes the text look less safe. */
  readonly change: number;
}

/** Each word costs a pass over everything after it, so the cost grows with the square of the length. */
const MAX_WORDS = 1000;

export async function explain(
  messages: readonly ChatMessage[],
  encode: (messages: readonly ChatMessage[]) => Int32Array,
  session: Session,
  task: Task,
  signal: AbortSignal | undefined,
): Promise<Explanation> {
  const last = messages[messages.length - 1];
  const spans = findWords(last.content);
  if (spans.length > MAX_WORDS)
    throw new RangeError(`explain: expected at most ${MAX_WORDS} words, got ${spans.length}`);
  const read = (content: string): Promise<number> => {
    const prompt = encode([...messages.slice(0, -1), { ...last, content }]);
    session.truncate(Math.min(session.commonPrefix(prompt), prompt.length - 1));
    return readSafeProbability(session, prompt, task, signal);
  };

  const safe = await read(last.content);
  const words: ExplainedWord[] = [];
  for (const { start, end } of spans.reverse()) {
    const without = await read(leaveOut(last.content, start, end));
    words.push({ text: last.content.slice(start, end), start, end, safe: without, change: without - safe });
  }
  return { safe, words: words.reverse() };
}

/**
 * Words and symbols such as emoji, without white space and punctuation. In scripts without spaces, words end where
 * Unicode's segmentation ends them.
 */
function findWords(text: string): { start: number; end: number }[] {
  const segments = new Intl.Segmenter("en", { granularity: "word" }).segment(text);
  return Array.from(segments)
    .filter(({ segment, isWordLike }) => isWordLike || /^\p{S}/u.test(segment))
    .map(({ segment, index }) => ({ start: index, end: index + segment.length }));
}

/** The text without a word and the space before it, or after it for the first word. */
function leaveOut(text: string, start: number, end: number): string {
  if (text[start - 1] === " ") return text.slice(0, start - 1) + text.slice(end);
  return text.slice(0, start) + text.slice(start === 0 && text[end] === " " ? end + 1 : end);
}
