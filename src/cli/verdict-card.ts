/**
 * A verdict for people: level, categories, probabilities as bars, cost.
 *
 * In: a verdict and the input that was judged. Out: a few lines, coloured where the terminal takes colours, with the
 * quoted text cut to the width of the terminal. No line is wider than that, so that the coloured edge is unbroken.
 */

import pc from "picocolors";
import type { ModerationInput } from "../guard/conversation.ts";
import { SAFETY_LEVELS } from "../guard/policy.ts";
import type { Verdict } from "../guard/verdict.ts";
import { printable, type Terminal } from "./terminal.ts";

const LABEL_WIDTH = 14;
const BAR_WIDTH = 24;
/** A narrower bar would say nothing. */
const LEAST_BAR_WIDTH = 4;
const PERCENT_WIDTH = " 100.0 %".length;
const EDGE_WIDTH = "▌ ".length;

type Paint = (text: string) => string;

export function verdictCard(
  verdict: Verdict,
  input: ModerationInput,
  terminal: Pick<Terminal, "columns" | "colors">,
): string {
  const color = pc.createColors(terminal.colors);
  const tint = { Safe: color.green, Unsafe: color.red, Controversial: color.yellow, unparsed: color.magenta };
  const level = verdict.safety ?? "unparsed";
  const edge = tint[level]("▌");
  const room = Math.max(1, terminal.columns - EDGE_WIDTH);
  const lines: string[] = [];
  const dimmed = (text: string): void => void lines.push(...fold(text, room).map(color.dim));
  /** One line if it fits; otherwise the value goes below its label. */
  const row = (label: string, value: string, note: string): void => {
    if (LABEL_WIDTH + value.length + note.length <= room)
      lines.push(`${label.padEnd(LABEL_WIDTH)}${value}${color.dim(note)}`);
    else lines.push(label, ...fold(`${value}${note}`, room));
  };

  const details =
    verdict.categories.length > 0
      ? verdict.categories.join(", ")
      : verdict.safety === null
        ? "the answer does not follow the format"
        : "";
  const note = verdict.flagged ? "" : "not flagged";
  const heading: [string, Paint][] = [
    [level, text => tint[level](color.bold(text))],
    [details, color.bold],
    [note, color.dim],
  ];
  const shown = heading.filter(([text]) => text !== "");
  if (shown.map(([text]) => text).join("  ").length <= room)
    lines.push(shown.map(([text, paint]) => paint(text)).join("  "));
  else lines.push(...shown.flatMap(([text, paint]) => fold(text, room).map(paint)));
  lines.push(
    color.dim(quote(judgedText(input).slice(verdict.window?.start, verdict.window?.end), terminal.columns - 4)),
  );
  lines.push("");
  if (verdict.safety === null) lines.push(quote(JSON.stringify(verdict.text), terminal.columns - 4), "");
  if (verdict.scores) {
    for (const name of SAFETY_LEVELS) lines.push(...bar(name, verdict.scores[name], room, tint[name]));
  }
  if (verdict.refusal !== null)
    row("Refusal", verdict.refusal, verdict.refusalScore === null ? "" : `  (${percent(verdict.refusalScore)})`);
  if (verdict.unsafeCategoryScores && verdict.safety !== "Unsafe") {
    const [name, share] = Object.entries(verdict.unsafeCategoryScores).reduce((best, entry) =>
      entry[1] > best[1] ? entry : best,
    );
    row("If unsafe", name, `  (${percent(share)})`);
  }
  if (verdict.window) {
    const { index, count, start, end } = verdict.window;
    dimmed(`worst of ${count} windows: number ${index + 1}, characters ${start} to ${end}`);
  }
  const { usage } = verdict;
  lines.push("");
  dimmed(
    `${verdict.model} · ${usage.promptTokens} + ${usage.completionTokens} tokens · ${(verdict.ms / 1000).toFixed(2)} s`,
  );
  return `${lines.map(line => `${edge} ${line}`.trimEnd()).join("\n")}\n`;
}

/** One line with a bar; without room for a bar, the share alone. */
function bar(name: string, share: number, room: number, tint: Paint): string[] {
  const width = Math.min(BAR_WIDTH, room - LABEL_WIDTH - PERCENT_WIDTH);
  if (width < LEAST_BAR_WIDTH) return fold(`${name} ${percent(share)}`, room);
  // In eighths of a block, so that one percent differs from nothing.
  const eighths = Math.round(share * width * 8);
  const filled = "█".repeat(eighths >> 3) + (eighths & 7 ? "▏▎▍▌▋▊▉"[(eighths & 7) - 1] : "");
  return [
    `${name.padEnd(LABEL_WIDTH)}${tint(filled)}${" ".repeat(width - filled.length)} ${percent(share).padStart(PERCENT_WIDTH - 1)}`,
  ];
}

/** Breaks text into lines of at most `width` characters: at spaces, and inside a word that is longer than a line. */
function fold(text: string, width: number): string[] {
  if (text.length <= width) return [text];
  const space = text.slice(0, width + 1).lastIndexOf(" ");
  const end = space > 0 ? space : width;
  return [text.slice(0, end).trimEnd(), ...fold(text.slice(end).trimStart(), width)];
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** The text of the message that is judged, which is the last one. */
export function judgedText(input: ModerationInput): string {
  if (typeof input === "string") return input;
  if ("prompt" in input) return input.response ?? input.prompt;
  return (input as readonly { content: string }[]).at(-1)?.content ?? "";
}

/**
 * One line of at most `width` characters, with an ellipsis for what is left out. (Wide characters, such as Chinese
 * ones, take two columns and may wrap.)
 */
export function quote(text: string, width: number): string {
  const characters = Array.from(printable(text.slice(0, 4 * Math.max(1, width)).replace(/\s+/g, " ")));
  if (characters.length <= width && text.length <= 4 * width) return characters.join("");
  return `${characters.slice(0, Math.max(0, width - 1)).join("")}…`;
}
