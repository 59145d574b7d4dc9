/** Compares the figures of docs/EVALUATION.md with those that the command prints. */

import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { projectPath } from "../../helpers.ts";
import { cli } from "../harness.ts";

/** Judges bench/data/`name`.jsonl with the demo guard, and expects its row in the table. */
export async function expectFigures(name: string): Promise<void> {
  const { out } = await cli(["eval", projectPath(`bench/data/${name}.jsonl`), "--quiet"]);
  const strict = (figure: string): string =>
    new RegExp(`^${figure} +(n/a|[\\d.]+ \\[[\\d., ]+\\])`, "m").exec(out)?.[1] ?? "none";
  const figures = ["precision", "recall", "F1", "false-positive rate", "ROC AUC"].map(strict);
  const judged = /^([\d,]+) lines:/m.exec(out)?.[1];
  expect(readFileSync(projectPath("docs/EVALUATION.md"), "utf8")).toContain(
    `| \`bench/data/${name}.jsonl\` | ${judged} | ${figures.join(" | ")} |`,
  );
}
