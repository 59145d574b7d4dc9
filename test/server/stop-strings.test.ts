/** Stop strings in text that arrives in pieces. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { StopStrings } from "../../src/server/stop-strings.ts";

function run(
  pieces: readonly string[],
  stops: readonly string[],
): { readonly text: string; readonly isStopped: boolean } {
  const finder = new StopStrings(stops);
  let text = "";
  for (const piece of pieces) {
    const found = finder.push(piece);
    text += found.text;
    if (found.isStopped) return { text, isStopped: true };
  }
  return { text: text + finder.end(), isStopped: false };
}

test("text is cut where the first stop string is complete, however it arrives", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(letters),
      fc.array(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 4 }), { maxLength: 3 }),
      (pieces, stops) => {
        const { text, isStopped } = run(pieces, stops);
        const whole = pieces.join("");
        const first = stops.map(stop => whole.indexOf(stop)).filter(at => at >= 0);
        expect(isStopped).toBe(first.length > 0);
        expect(whole.startsWith(text)).toBe(true);
        // Never beyond the beginning of a stop string that was complete, and nothing is kept back without one.
        if (!isStopped) expect(text).toBe(whole);
        else expect(stops.some(stop => whole.startsWith(stop, text.length))).toBe(true);
        if (isStopped) expect(stops.every(stop => !text.includes(stop))).toBe(true);
      },
    ),
    { seed: 1, numRuns: 2000 },
  );
});

test("text that cannot begin a stop string is given at once", () => {
  const finder = new StopStrings(["abc"]);
  expect(["x", "a", "b", "x", "ab", "c"].map(piece => finder.push(piece))).toEqual([
    { text: "x", isStopped: false },
    { text: "", isStopped: false },
    { text: "", isStopped: false },
    { text: "abx", isStopped: false },
    { text: "", isStopped: false },
    { text: "", isStopped: true },
  ]);
});
