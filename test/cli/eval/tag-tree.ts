/**
 * The elements of a page, read strictly: every tag closed in turn, every attribute quoted, every `&` an entity, no
 * stray `<`.
 */

import { expect } from "vitest";

export interface Tag {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  /** All text inside, entities resolved. */
  text: string;
}

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" };

/** All elements, parents first. Fails the test where the page is not well-formed. */
export function tagTree(html: string): Tag[] {
  const body = html.replace(/^<!doctype html>\n/, "");
  expect(body).not.toBe(html);
  const tags: Tag[] = [];
  const open: Tag[] = [];
  const tokens = /<(\/?)([a-z][a-z0-9]*)((?: [a-z-]+(?:="[^"<]*")?)*)(\/?)>|([^<]+)/gi;
  let at = 0;
  for (const token of body.matchAll(tokens)) {
    if (token.index !== at) expect.fail(`stray markup at ${at}: ${body.slice(at, at + 60)}`);
    at += token[0].length;
    const [, closing, name, attributes, empty, text] = token;
    if (text !== undefined) {
      for (const tag of open) tag.text += open.at(-1)?.name === "style" ? "" : decode(text);
    } else if (closing) expect(open.pop()?.name).toBe(name);
    else {
      const pairs = [...attributes.matchAll(/ ([a-z-]+)(?:="([^"]*)")?/gi)].map(([, key, value = ""]) => [
        key,
        decode(value),
      ]);
      expect(new Set(pairs.map(([key]) => key)).size).toBe(pairs.length);
      const tag = { name, attributes: Object.fromEntries(pairs), text: "" };
      tags.push(tag);
      if (!empty) open.push(tag);
    }
  }
  expect([at, open]).toEqual([body.length, []]);
  return tags;
}

function decode(text: string): string {
  return text.replace(
    /&(?:([a-z]+|#\d+);)?/g,
    (entity, name) => ENTITIES[name] ?? expect.fail(`a bare & or an unknown entity: ${entity}`),
  );
}
