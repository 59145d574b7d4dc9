/** Which texts name a model of the Hub. */

import { describe, expect, test } from "vitest";
import { hubUrl, isCommit, parseHubId } from "../../../src/checkpoint/hub/id.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

describe("names", () => {
  test.each([
    ["a/b", { id: "a/b", revision: "main" }],
    ["_/_", { id: "_/_", revision: "main" }],
    ["a.b-c_d/E.2-f", { id: "a.b-c_d/E.2-f", revision: "main" }],
    ["a/b@v1+x.y-z", { id: "a/b", revision: "v1+x.y-z" }],
    ["a/b@_", { id: "a/b", revision: "_" }],
    ["a/b.gitx", { id: "a/b.gitx", revision: "main" }],
    [`${"a".repeat(47)}/${"b".repeat(48)}`, { id: `${"a".repeat(47)}/${"b".repeat(48)}`, revision: "main" }],
    [`${"a".repeat(48)}/${"b".repeat(48)}`, undefined],
    ["a./b", undefined],
    ["a/b-", undefined],
    ["a/b.", undefined],
    ["a..b/c", undefined],
    ["a/b--c", undefined],
    ["a/b\n", undefined],
    ["é/b", undefined],
    ["@main", undefined],
    ["a/b@main@x", undefined],
    ["a/b@x/", undefined],
    ["a/b@.x", undefined],
    ["a/b@x..y", undefined],
    ["a/b@x/.y", undefined],
    ["a/b@x%2fy", undefined],
    ["a/b@x\n", undefined],
  ])("%j", (text, hub) => {
    expect(parseHubId(text)).toEqual(hub);
  });

  test("a commit has forty hexadecimal digits", () => {
    expect([COMMIT, COMMIT.slice(1), `${COMMIT}0`, COMMIT.toUpperCase(), "main"].map(isCommit)).toEqual([
      true,
      false,
      false,
      false,
      false,
    ]);
    expect(hubUrl({ id: "a/b", revision: COMMIT }).href).toBe(`https://huggingface.co/a/b/resolve/${COMMIT}/`);
  });
});
