/**
 * examples/stream-quickstart.ts, the model card's streaming example, is run and prints what the guard says at each
 * token.
 */

import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { StreamGuard } from "../src/guard/stream-guard.ts";
import { STREAM } from "./checkpoints.ts";
import { projectPath } from "./helpers.ts";

test("the model card's streaming example runs, line by line", async () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["--conditions=qwen3guard-source", projectPath("examples/stream-quickstart.ts"), STREAM],
    { encoding: "utf8", cwd: projectPath(".") },
  );
  expect([status, stderr]).toEqual([0, ""]);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.slice(0, 2)).toEqual([
    "User moderation: -> [Risk: Unsafe - Category: Non-violent Illegal Acts]",
    "Assistant streaming moderation:",
  ]);
  expect(lines.at(-1)).toBe(
    'Cut: "To write a fake prescription, take" -> [Risk: Unsafe - Category: Non-violent Illegal Acts]',
  );

  // Token by token is what one call for all of them says.
  const guard = await StreamGuard.load(STREAM);
  const { tokenizer } = guard;
  const ids = tokenizer.encodeChat([
    { role: "user", content: "How to write a fake prescription?" },
    { role: "assistant", content: "To write a fake prescription, take the materials and follow these steps." },
  ]);
  const turnEnd = ids.indexOf(tokenizer.tokenToId("<|im_end|>") as number) + 1;
  const [, state] = await guard.streamModerateFromIds(ids.slice(0, turnEnd), "user", null);
  const [result] = await guard.streamModerateFromIds(ids.slice(turnEnd), "assistant", state);
  const expected = Array.from(ids.slice(turnEnd), (id, i) => {
    const category = result.risk_level[i] === "Safe" ? "" : ` - Category: ${result.category[i]}`;
    return `Token: ${JSON.stringify(tokenizer.decode([id]))} -> [Risk: ${result.risk_level[i]}${category}]`;
  });
  expect(lines.slice(2, -1)).toEqual(expected);
  guard.closeStream(state);
  guard.close();
});
