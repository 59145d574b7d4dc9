/**
 * The chat template by itself: which characters go into shadow, where an answer goes, and what is read from a
 * tokenizer's configuration.
 */

import { describe, expect, test } from "vitest";
import { ChatTemplate, checkMessages, readTokenizerConfig } from "../../src/tokenizer/chat-template.ts";
import { rewriteStrips } from "../../src/tokenizer/template-strip.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { QWEN3_PATH, readJson } from "./checkpoints.ts";

const user = (content: string): { role: string; content: string } => ({ role: "user", content });
const paste = new ChatTemplate("{{ messages[0].content }}", "paste");
const shadowed = (content: string, guarded: Iterable<string>) =>
  paste.renderShadowed([user(content)], false, new Set(guarded));
const range = (from: number, to: number): string =>
  Array.from({ length: to - from + 1 }, (_, i) => String.fromCodePoint(from + i)).join("");
const BMP = range(0xe000, 0xf8ff);

describe("shadows", () => {
  const qwen3 = Tokenizer.fromJson(readJson<object>(QWEN3_PATH));
  const guarded = [...new Set(qwen3.addedTokens.flatMap(({ content }) => [...content]))];

  test("the guarded characters of Qwen3 are those of its tokens", () => {
    expect(guarded).toEqual(expect.arrayContaining([..."<|>_/imstarend"]));
  });

  test.each(guarded.map(character => [character]))(
    "%s in a content, in either case, is not in the text, and comes back",
    character => {
      for (const content of [character, character.toUpperCase(), character.toLowerCase()]) {
        const { text, restore } = shadowed(`é${content}é`, guarded);
        expect(text).toMatch(/^é\p{Co}é$/u);
        expect(restore(text)).toBe(`é${content}é`);
      }
    },
  );

  test.each([
    ["M", "m"],
    ["m", "M"],
    ["\u212A", "k"], // the Kelvin sign, whose lower case is k
    ["ß", "S"], // whose upper case is SS
    ["\u0130", "i"], // whose lower case is i and a dot
  ])("%s, since a change of case turns it into %s", (character, alone) => {
    expect(shadowed(character, [alone]).text).toMatch(/^\p{Co}$/u);
  });

  test("characters that are in no token stay as they are", () => {
    expect(shadowed("Good day\u{1F600}\uE000", "<|>").text).toBe("Good day\u{1F600}\uE000");
  });

  test("a lone surrogate becomes U+FFFD", () => {
    expect(shadowed("\uD83Da", "<").text).toBe("\uFFFDa");
    expect(
      new ChatTemplate("{{ messages[0].content[0] }}", "half").renderShadowed([user("\u{1F600}")], false, new Set())
        .text,
    ).toBe("\uFFFD");
  });

  test("a character that occurs often has only one shadow", () => {
    const content = "<".repeat(140_000); // more than there are private-use characters
    const { text, restore } = shadowed(content, "<");
    expect(new Set(text).size).toBe(1);
    expect(restore(text) === content).toBe(true);
  });

  test("occur neither in the template, its variables and tokens nor in the contents", () => {
    const template = new ChatTemplate("\uE000{{ bos_token }}{{ messages[0].content }}", "t", { bos_token: "\uE001" });
    const { text, restore } = template.renderShadowed([user("<\uE003")], false, new Set("<\uE002"));
    expect(text).toBe("\uE000\uE001\uE004\uE003");
    expect(restore(text)).toBe("\uE000\uE001<\uE003");
  });

  test.each([
    ["the Basic Multilingual Plane, then plane 15", BMP, "\u{F0000}"],
    ["plane 15, then plane 16", BMP + range(0xf0000, 0xffffd), "\u{100000}"],
    ["plane 16 to its last", BMP + range(0xf0000, 0xffffd) + range(0x100000, 0x10fffc), "\u{10FFFD}"],
  ])("come from %s", (_, used, shadow) => {
    const { text, restore } = shadowed(`${used}<`, "<");
    expect(text.slice(used.length)).toBe(shadow);
    expect(restore(text).endsWith("<")).toBe(true);
  });

  test("contents that use all private-use characters are refused", () => {
    const all = BMP + range(0xf0000, 0xffffd) + range(0x100000, 0x10fffd);
    expect(shadowed(all, "<").text === all).toBe(true);
    expect(() => shadowed(`${all}<`, "<")).toThrow(
      "messages: expected a private-use character that does not occur in them, got texts that use them all",
    );
  });
});

describe("an open answer", () => {
  const SOURCE =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}{% if add_generation_prompt %}[{% endif %}";
  const template = new ChatTemplate(SOURCE, "t");
  const open = (source: string, content = "hi") =>
    new ChatTemplate(source, "t").renderOpen([user(content)], "", new Set("<"));

  test("follows the messages as the assistant's, without a generation prompt", () => {
    const { before, after, restore } = template.renderOpen([user("<hi")], " \n", new Set("<"));
    expect(restore(before)).toBe("[user]<hi;[assistant] \n");
    expect(after).toBe(";");
  });

  test.each(["\uE000", "\uE000\uE001", "<\uE000"])(
    "a question that holds the character that would mark the answer: %j",
    content => {
      const { before, after, restore } = template.renderOpen([user(content)], "", new Set("<"));
      expect([restore(before), after]).toEqual([`[user]${content};[assistant]`, ";"]);
    },
  );

  test("a template, a variable or a token that holds the character that would mark the answer", () => {
    const source = "\uE000{{ bos_token }}{{ messages[1].content }}";
    const { before, after } = new ChatTemplate(source, "t", { bos_token: "\uE001" }).renderOpen(
      [user("a")],
      "",
      new Set("\uE002"),
    );
    expect([before, after]).toEqual(["\uE000\uE001", ""]);
  });

  test.each([
    ["leaves it out", "{{ messages[0].content }}"],
    ["writes it twice", "{{ messages[1].content }}{{ messages[1].content }}"],
    ["trims its end", "{{ messages[1].content | trim }}; \n"],
    ["cuts it off", "{{ messages[1].content[:1] }}"],
  ])("a template that %s is refused", (_, source) => {
    expect(() => open(source)).toThrow(
      "t: expected a template that writes an answer once and to its end, got one that does not",
    );
  });
});

describe("a template's source", () => {
  test("may have several runs of 1,000 characters of white space, but no longer run", () => {
    for (const space of [" ", "\n", "\t"]) {
      const most = space.repeat(1_000);
      expect(new ChatTemplate(`{{${most}'a'${most}}}`, "t").render([], false)).toBe("a");
      expect(() => new ChatTemplate(`{{${most}${space}'a'}}`, "t")).toThrow(
        "t: expected at most 1000 characters of white space in a row, got more",
      );
    }
    expect(new ChatTemplate("x".repeat(1_001), "t").render([], false)).toBe("x".repeat(1_001));
  });

  test("an error names the template and keeps its cause", () => {
    const refusing = new ChatTemplate("{{ raise_exception('no tools') }}", "t");
    const named = expect.objectContaining({
      message: "t: no tools",
      cause: expect.objectContaining({ message: "no tools" }),
    });
    expect(() => refusing.render([], false)).toThrow(named);
  });
});

describe("strip in a template", () => {
  const render = (source: string, content: string): string =>
    new ChatTemplate(source, "t").render([user(content)], false);

  test.each([
    ["a text that is removed whole", "{{ messages[0].content.strip('ab') }}", "abba", ""],
    ["from one end", "{{ messages[0].content.lstrip('ab') }}", "ab", ""],
    ["from the other", "{{ messages[0].content.rstrip('ab') }}", "ab", ""],
    ["with two arguments, left to the engine", "{{ messages[0].content.strip('a', 'b') }}", " a ", "a"],
    ["another method with an argument", "{{ messages[0].content.split('a')[0] }}", "bab", "b"],
    ["a method by its name as text", "{{ messages[0].content['upper']() }}", "a", "A"],
    ["a function that is not a method", "{% set f = namespace(x=messages[0].content) %}{{ f.x }}", "a", "a"],
    [
      "a test, a filter and a loop",
      "{% for i in range(2) %}{% if messages[0].content is defined %}{{ messages[0].content | trim }}{% endif %}{% endfor %}",
      " a ",
      "aa",
    ],
  ])("%s", (_, source, content, expected) => {
    expect(render(source, content)).toBe(expected);
  });

  test("of something that is not a text is an error", () => {
    expect(() => render("{{ (1).strip('1') }}", "a")).toThrow("t: strip: expected two texts");
    expect(() => render("{{ messages[0].content.strip(1) }}", "a")).toThrow("t: strip: expected two texts");
  });

  test("only calls of methods are rewritten", () => {
    const other = {
      type: "SliceExpression",
      callee: { type: "MemberExpression", object: 1, property: { value: "strip" } },
      args: [2],
    };
    const plain = {
      type: "CallExpression",
      callee: { type: "Identifier", value: "strip", property: { value: "strip" } },
      args: [2],
    };
    const parsed = [null, other, plain];
    const before = structuredClone(parsed);
    rewriteStrips(parsed);
    expect(parsed).toEqual(before);
  });
});

describe("input", () => {
  test("every role, and a copy of role and content", () => {
    const messages = ["system", "user", "assistant", "tool"].map(role => ({ role, content: role, name: "x" }));
    expect(checkMessages(messages)).toEqual(messages.map(({ role, content }) => ({ role, content })));
  });

  test("every variable of a tokenizer's configuration, given as a text or as a token", () => {
    const names = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    const texts = Object.fromEntries(names.map(name => [name, `<${name}>`]));
    expect(readTokenizerConfig({ ...texts, other: "x" }, "f")).toEqual({ variables: texts, template: undefined });
    const tokens = Object.fromEntries(names.map(name => [name, { content: `<${name}>` }]));
    expect(readTokenizerConfig({ ...tokens, chat_template: "t" }, "f")).toEqual({ variables: texts, template: "t" });
    const none = Object.fromEntries(names.map((name, i) => [name, i % 2 === 0 ? null : undefined]));
    expect(readTokenizerConfig({ ...none, chat_template: null }, "f")).toEqual({ variables: {}, template: undefined });
  });

  test.each([
    [{ bos_token: 5 }, "f: bos_token: expected an object, got 5"],
    [{ eos_token: { content: 5 } }, "f: eos_token.content: expected a string, got 5"],
    [{ chat_template: [] }, "f: chat_template: expected a string (named templates are not implemented), got an array"],
    [[], "f: expected an object, got an array"],
  ])("%j is refused", (config, message) => {
    expect(() => readTokenizerConfig(config, "f")).toThrow(message);
  });
});
