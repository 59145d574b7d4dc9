/**
 * Compares the tokenizer with the reference, Python's tokenizers. Prints what it compared; exit status 1 at the first
 * difference.
 *
 *     node tools/unicode/compare.ts TOKENIZER.json [RANDOM_TEXTS=20000] [SEED=1]
 *
 * It uses the Python in QWEN3GUARD_PYTHON, else python3. It compares ids and decoded text of every code point in four
 * neighbourhoods, ids and decoded text of random texts, the text of random ids, and NFC of every code point and of
 * every sequence that could compose.
 */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { normalizeNfc } from "../../src/tokenizer/unicode.ts";
import { randomNumbers, randomTexts } from "./random-texts.ts";

export type Request = { text: string } | { nfc: string } | { decode: number[] };
export interface Answer {
  ids?: number[];
  decoded?: string;
  nfc?: string;
}

/** The reference's answers, in order; undefined when there is no Python with tokenizers. */
export function askReference(tokenizerPath: string, requests: readonly Request[]): Answer[] | undefined {
  const script = fileURLToPath(new URL("reference.py", import.meta.url));
  const python = spawnSync(process.env.QWEN3GUARD_PYTHON ?? "python3", [script, tokenizerPath], {
    input: requests.map(request => `${JSON.stringify(request)}\n`).join(""),
    encoding: "utf8",
    maxBuffer: 2 ** 31 - 1,
  });
  if (python.status !== 0) return undefined;
  return python.stdout
    .trimEnd()
    .split("\n")
    .map(line => JSON.parse(line) as Answer);
}

/** Every character that a well-formed text can hold. */
const CHARACTERS = Array.from({ length: 0x110000 }, (_, c) => String.fromCodePoint(c)).filter(
  c => !/\p{Surrogate}/u.test(c),
);

/**
 * Texts that together hold every code point after a letter, after an apostrophe, between spaces and before a line end.
 */
export function everyCodePoint(): string[] {
  return chunks(CHARACTERS, 512).map(chunk => chunk.map(c => `a${c}b'${c} ${c} ${c}\n1${c}`).join(";"));
}

/**
 * Texts whose NFC is worth comparing: every code point; each composing character after each character that decomposes
 * and after each letter (a newer Unicode could have a composite for it); two marks in either order, after a letter and
 * after a composite that either may join.
 */
export function nfcTexts(): string[] {
  const decomposing = CHARACTERS.filter(c => c.normalize("NFD") !== c && !/\p{Script=Hangul}/u.test(c));
  const letters = CHARACTERS.filter(c => /\p{L}/u.test(c) && !/\p{Script=Han}|\p{Script=Hangul}/u.test(c));
  const bases = chunks([...new Set([...letters, ...decomposing, "\u1100", "\uAC00", "\uAC01"])], 1000);
  const composing = new Set([...decomposing.map(c => [...c.normalize("NFD")].at(-1)), "\u1161", "\u11A7", "\u11A8"]);
  const marks = CHARACTERS.filter((c, i) => composing.has(c) || (/\p{M}/u.test(c) && i % 4 === 0));
  return [
    ...chunks(CHARACTERS, 4096).map(chunk => chunk.join("\n")),
    ...[...composing].flatMap(mark => bases.map(chunk => chunk.map(base => base + mark).join("\n"))),
    ...marks.map(first => marks.map(second => `a${first}${second}\n\u00EA${first}${second}\u0323`).join("\n")),
  ];
}

export function chunks<T>(list: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size));
}

function compare(tokenizer: Tokenizer, path: string, what: string, requests: readonly Request[]): void {
  const started = performance.now();
  for (const batch of chunks(requests, 1000)) {
    const answers = askReference(path, batch);
    if (answers === undefined)
      throw new Error("reference: expected a Python with tokenizers (QWEN3GUARD_PYTHON), got none");
    batch.forEach((request, i) => {
      const ours: Answer = {};
      if ("nfc" in request) ours.nfc = normalizeNfc(request.nfc);
      else if ("decode" in request) ours.decoded = tokenizer.decode(request.decode);
      else {
        ours.ids = [...tokenizer.encode(request.text)];
        ours.decoded = tokenizer.decode(ours.ids);
      }
      if (JSON.stringify(ours) !== JSON.stringify(answers[i])) {
        throw new Error(
          `${what}: ${JSON.stringify(request)}\n  reference ${JSON.stringify(answers[i])}\n  ours      ${JSON.stringify(ours)}`,
        );
      }
    });
  }
  console.log(`${what}: ${requests.length} equal (${Math.round(performance.now() - started)} ms)`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [path = "", count = "20000", seed = "1"] = process.argv.slice(2);
  const tokenizer = Tokenizer.fromJson(JSON.parse(readFileSync(path, "utf8")));
  const random = randomNumbers(Number(seed));
  const ids = Array.from({ length: 2000 }, () =>
    Array.from({ length: 1 + random(12) }, () => random(tokenizer.vocabSize + 50)),
  );
  console.log(`Node ${process.versions.node}, its Unicode ${process.versions.unicode}`);
  const texts = [...randomTexts(Number(seed), Number(count))];
  // biome-ignore format: one comparison a line
  const comparisons: [string, Request[]][] = [
    ["random ids", ids.map(decode => ({ decode }))],
    ["random texts", texts.map(text => ({ text }))],
    ["texts with every code point", everyCodePoint().map(text => ({ text }))],
    ["NFC of random texts", texts.map(nfc => ({ nfc }))],
    ["texts for NFC", nfcTexts().map(nfc => ({ nfc }))],
  ];
  for (const [what, requests] of comparisons) compare(tokenizer, path, what, requests);
}
