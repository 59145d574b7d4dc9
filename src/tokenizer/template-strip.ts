/**
 * Python's `strip`, `lstrip` and `rstrip` with an argument, for chat templates.
 *
 * Templates are written for jinja2, where `content.lstrip('\n')` removes line feeds and nothing else; Qwen3's own
 * template uses it. The template engine here ignores the argument and removes all white space, so an answer that begins
 * with a space would get different ids than in the reference. So each such call in the parsed template is replaced by a
 * call of one of our functions, which are passed in the template's context. Calls without an argument stay as they are.
 */

type Strip = (text: unknown, characters: unknown) => string;

/** The functions, by the names that the rewritten calls use. No template uses these names itself. */
export const STRIP_FUNCTIONS: Readonly<Record<string, Strip>> = {
  __strip: (text, characters) => strip(text, characters, true, true),
  __lstrip: (text, characters) => strip(text, characters, true, false),
  __rstrip: (text, characters) => strip(text, characters, false, true),
};

interface Node {
  type?: unknown;
  callee?: Node;
  args?: Node[];
  object?: Node;
  property?: Node;
  value?: unknown;
}

/** Rewrites `text.lstrip(characters)` to `__lstrip(text, characters)` and so on in a parsed template, in place. */
export function rewriteStrips(parsed: unknown): void {
  if (typeof parsed !== "object" || parsed === null) return;
  for (const child of Object.values(parsed)) rewriteStrips(child);
  const node = parsed as Node;
  const { callee, args } = node;
  if (node.type !== "CallExpression" || callee?.type !== "MemberExpression" || args?.length !== 1) return;
  const name = `__${String(callee.property?.value)}`;
  if (!Object.hasOwn(STRIP_FUNCTIONS, name)) return;
  node.args = [callee.object!, args[0]];
  node.callee = { type: "Identifier", value: name };
}

/** Removes characters from an end, as Python does, as long as they are among `characters`. */
function strip(text: unknown, characters: unknown, left: boolean, right: boolean): string {
  if (typeof text !== "string" || typeof characters !== "string") throw new Error("strip: expected two texts");
  const set = new Set(characters);
  const all = Array.from(text);
  let [start, end] = [0, all.length];
  while (left && start < end && set.has(all[start])) start++;
  while (right && start < end && set.has(all[end - 1])) end--;
  return all.slice(start, end).join("");
}
