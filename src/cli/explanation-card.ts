/**
 * An explanation for people: the judged text, with words coloured by how they change P(Safe), and a list of the words
 * that change it most.
 *
 * In: an explanation and the input that was judged. Out: lines that continue the card of the verdict.
 */

import pc from "picocolors";
import type { ModerationInput } from "../guard/conversation.ts";
import type { ExplainedWord, Explanation } from "../guard/explanation.ts";
import { printable, type Terminal } from "./terminal.ts";
import { judgedText } from "./verdict-card.ts";

/**
 * A word is coloured, and bold, if it changes the log-odds of Safe by at least this much. P(Safe) itself hardly moves
 * near 0 and 1, where most texts are. In the odds, 1 is a factor of 2.7 and 3 is a factor of 20.
 */
const NOTICEABLE = 1;
const STRONG = 3;
const MAX_LISTED = 5;

export function explanationCard(
  { safe, words }: Explanation,
  input: ModerationInput,
  terminal: Pick<Terminal, "columns" | "colors">,
): string {
  const color = pc.createColors(terminal.colors);
  const text = judgedText(input);
  const changeOf = (word: ExplainedWord): number => logOdds(word.safe) - logOdds(safe);
  let painted = "";
  let end = 0;
  for (const word of words) {
    const change = changeOf(word);
    const strong = Math.abs(change) >= STRONG ? color.bold : plain;
    const tint = change >= NOTICEABLE ? color.red : change <= -NOTICEABLE ? color.green : plain;
    painted += printable(text.slice(end, word.start).replace(/\s+/g, " ")) + strong(tint(printable(word.text)));
    end = word.end;
  }
  painted += printable(text.slice(end).replace(/\s+/g, " "));

  const most = words
    .filter(word => Math.abs(changeOf(word)) >= NOTICEABLE)
    .sort((a, b) => Math.abs(changeOf(b)) - Math.abs(changeOf(a)))
    .slice(0, MAX_LISTED);
  const width = Math.max(0, ...most.map(word => printable(word.text).length));
  const lines = [
    "",
    ...(terminal.colors
      ? [color.dim("Why: without a word in red the text looks safer, without one in green less safe."), painted]
      : ["Why:"]),
    ...(most.length === 0 ? [color.dim("No single word matters much.")] : [""]),
    ...most.map(
      word =>
        `${printable(word.text).padEnd(width)}  P(Safe) without it ${percent(word.safe)}, with it ${percent(safe)}`,
    ),
  ];
  return `${lines.join("\n")}\n`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.01 ? 3 : 1)} %`;
}

function plain(text: string): string {
  return text;
}

function logOdds(share: number): number {
  const p = Math.min(1 - 1e-7, Math.max(1e-7, share)); // float32 tells it from 0 and 1 only up to here
  return Math.log(p / (1 - p));
}
