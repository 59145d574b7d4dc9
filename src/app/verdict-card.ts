/**
 * A verdict for people: level, categories, probabilities as bars, cost.
 *
 * In: a verdict and what was judged. Out: a few lines, the quoted text cut to the terminal's width, coloured where the terminal takes
 * colours.
 */

import pc from "picocolors";
import type { ModerationInput } from "../guard/conversation.ts";
import { SAFETY_LEVELS } from "../guard/policy.ts";
import type { Verdict } from "../guard/verdict.ts";
import { printable, type Terminal } from "./io.ts";

const BAR_WIDTH = 24;

export function verdictCard(verdict: Verdict, input: ModerationInput, terminal: Pick<Terminal, "columns" | "colors">): string {
  const color = pc.createColors(terminal.colors);
  const tint = { Safe: color.green, Unsafe: color.red, Controversial: color.yellow, unparsed: color.magenta };
  const level = verdict.safety ?? "unparsed";
  const edge = tint[level]("▌");
  const lines: string[] = [];

  const details =
    verdict.categories.length > 0 ? verdict.categories.join(", ") : verdict.safety === null ? "the answer does not follow the format" : "";
  lines.push(
    `${tint[level](color.bold(level))}${details ? `  ${color.bold(details)}` : ""}${verdict.flagged ? "" : color.dim("  not flagged")}`,
  );
  lines.push(color.dim(quote(judgedText(input).slice(verdict.window?.start, verdict.window?.end), terminal.columns - 4)));
  lines.push("");
  if (verdict.safety === null) lines.push(quote(JSON.stringify(verdict.text), terminal.columns - 4), "");
  if (verdict.scores) {
    for (const name of SAFETY_LEVELS) lines.push(bar(name, verdict.scores[name], tint[name]));
  }
  if (verdict.refusal !== null)
    lines.push(
      `${"Refusal".padEnd(14)}${verdict.refusal}${verdict.refusalScore === null ? "" : color.dim(`  (${percent(verdict.refusalScore)})`)}`,
    );
  if (verdict.unsafeCategoryScores && verdict.safety !== "Unsafe") {
    const [name, share] = Object.entries(verdict.unsafeCategoryScores).reduce((best, entry) => (entry[1] > best[1] ? entry : best));
    lines.push(`${"If unsafe".padEnd(14)}${name}${color.dim(`  (${percent(share)})`)}`);
  }
  if (verdict.window) {
    const { index, count, start, end } = verdict.window;
    lines.push(color.dim(`worst of ${count} windows: number ${index + 1}, characters ${start} to ${end}`));
  }
  const { usage } = verdict;
  lines.push(
    "",
    color.dim(`${verdict.model} · ${usage.promptTokens} + ${usage.completionTokens} tokens · ${(verdict.ms / 1000).toFixed(2)} s`),
  );
  return `${lines.map(line => `${edge} ${line}`.trimEnd()).join("\n")}\n`;
}

function bar(name: string, share: number, tint: (text: string) => string): string {
  // Eighths of a block, so that one percent can be told from none.
  const eighths = Math.round(share * BAR_WIDTH * 8);
  const filled = "█".repeat(eighths >> 3) + (eighths & 7 ? "▏▎▍▌▋▊▉"[(eighths & 7) - 1] : "");
  return `${name.padEnd(14)}${tint(filled)}${" ".repeat(BAR_WIDTH - filled.length)} ${percent(share).padStart(7)}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** The message that is judged: the last one. */
export function judgedText(input: ModerationInput): string {
  if (typeof input === "string") return input;
  if ("prompt" in input) return input.response ?? input.prompt;
  return (input as readonly { content: string }[]).at(-1)?.content ?? "";
}

/** One line of at most `width` characters, an ellipsis for what is left out. (Wide characters, as of Chinese, take two columns and may wrap.) */
export function quote(text: string, width: number): string {
  const characters = Array.from(printable(text.slice(0, 4 * Math.max(1, width)).replace(/\s+/g, " ")));
  if (characters.length <= width && text.length <= 4 * width) return characters.join("");
  return `${characters.slice(0, Math.max(0, width - 1)).join("")}…`;
}
