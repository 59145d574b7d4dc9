/**
 * Properties of the proxy over many forged cases: test/server/proxy/forged.test.ts has a few hundred of each,
 * test/slow/proxy-forged.slow.ts 10,000.
 */

import fc from "fast-check";
import { expect } from "vitest";
import { answering, forgedAnswer } from "./forged-answers.ts";
import { failing, forgedFailure } from "./forged-failures.ts";
import { asking, forgedRequest } from "./forged-requests.ts";

/** Runs a property, and gives what share of the cases each of these was. */
async function shares<Case, Seen>(
  cases: fc.Arbitrary<Case>,
  run: (given: Case) => Promise<Seen>,
  numRuns: number,
  kinds: Readonly<Record<string, (seen: Seen) => boolean>>,
): Promise<Record<string, number>> {
  const all: Seen[] = [];
  await fc.assert(
    fc.asyncProperty(cases, async given => void all.push(await run(given))),
    { numRuns, seed: 17 },
  );
  return Object.fromEntries(
    Object.entries(kinds).map(([kind, isOne]) => [kind, all.filter(isOne).length / all.length]),
  );
}

/** The shares say that the property is not empty: enough came through, and enough did not. */
export async function answersLeakNothing(count: number): Promise<void> {
  const found = await shares(forgedAnswer, await answering(), count, {
    passing: ({ status, got }) => status === 200 && got > 0,
    less: ({ sent, got }) => got < sent,
    cut: ({ isCut }) => isCut,
    refused: ({ status }) => status === 502,
  });
  expect(found.passing).toBeGreaterThan(0.2);
  expect(found.less).toBeGreaterThan(0.2);
  expect(found.cut).toBeGreaterThan(0.03);
  expect(found.refused).toBeGreaterThan(0.05);
}

export async function requestsLeakNothing(count: number): Promise<void> {
  const isModerated = (route: string | null): boolean =>
    route?.startsWith("POST /v1/") === true && route.endsWith("completions");
  const found = await shares(forgedRequest, await asking(), count, {
    judged: ({ judged }) => judged > 0,
    moderated: ({ route }) => isModerated(route),
    open: ({ route }) => route !== null && !isModerated(route),
    refused: ({ route }) => route === null,
  });
  expect(found.judged).toBeGreaterThan(0.1);
  expect(found.moderated).toBeGreaterThan(0.2);
  expect(found.open).toBeGreaterThan(0.03);
  expect(found.refused).toBeGreaterThan(0.2);
}

export async function failuresLetNothingPass(count: number): Promise<void> {
  const found = await shares(forgedFailure, await failing(), count, {
    refused: ({ isForwarded }) => !isForwarded,
    passing: ({ got }) => got > 0,
  });
  expect(found.refused).toBeGreaterThan(0.15);
  expect(found.passing).toBeGreaterThan(0.2);
}
