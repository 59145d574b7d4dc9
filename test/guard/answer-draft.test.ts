/**
 * The draft: a Safe answer first, then what recent answers and the refused logits suggest; always something that the
 * format allows.
 */

import { describe, expect, test } from "vitest";
import { writeAnswer } from "../../src/guard/answer.ts";
import { AnswerDraft } from "../../src/guard/answer-draft.ts";
import type { SafetyLevel } from "../../src/guard/policy.ts";
import { readTasks } from "../../src/guard/task.ts";
import { loadGuard } from "../checkpoints.ts";

const { model, tokenizer } = await loadGuard();
const { user, assistant } = readTasks(model.config, tokenizer, "test");
const encode = (text: string): number[] => Array.from(tokenizer.encode(text, { literal: true }));
const answer = (safety: SafetyLevel, categories: string[] = [], refusal: "Yes" | "No" | null = null): number[] =>
  encode(writeAnswer(safety, categories, refusal));
const newDraft = ({ policy, labels }: typeof user): AnswerDraft => new AnswerDraft(tokenizer, policy, labels);

test("the first guess is a Safe answer, whatever came before", () => {
  const draft = newDraft(user);
  expect(draft.start()([], [])).toEqual(answer("Safe"));
  for (let i = 0; i < 50; i++) draft.learn(answer("Unsafe", ["Violent"]));
  expect(draft.start()([], [])).toEqual(answer("Safe"));
});

test("the refusal is guessed by the commoner recent word", () => {
  const draft = newDraft(assistant);
  expect(draft.start()([], [])).toEqual(answer("Safe", [], "No"));
  for (let i = 0; i < 3; i++) draft.learn(answer("Safe", [], "Yes"));
  expect(draft.start()([], [])).toEqual(answer("Safe", [], "Yes"));
  for (let i = 0; i < 20; i++) draft.learn(answer("Safe", [], "No"));
  expect(draft.start()([], [])).toEqual(answer("Safe", [], "No"));
});

describe("after a level that was not Safe", () => {
  const unsafe = [...user.labels.level.lead, user.labels.level.ids[1]];

  test("the category is the likeliest by the refused logits other than None; without them, the commonest recent one", () => {
    const draft = newDraft(user);
    draft.learn(answer("Unsafe", ["PII"]));
    const logits = new Float32Array(model.config.vocabSize);
    logits[user.labels.category.ids[user.labels.category.labels.indexOf("None")]] = 9;
    logits[user.labels.category.ids[user.labels.category.labels.indexOf("Jailbreak")]] = 5;
    const first = draft.start();
    const guess = first([], []);
    const refused = guess.slice(unsafe.length - 1).map(() => logits);
    expect([...unsafe, ...first(unsafe, refused)]).toEqual(answer("Unsafe", ["Jailbreak"]));
    const second = draft.start();
    second([], []);
    expect([...unsafe, ...second(unsafe, [])]).toEqual(answer("Unsafe", ["PII"]));
  });

  test("several categories are guessed if most recent answers had several", () => {
    const draft = newDraft(user);
    const both = answer("Unsafe", ["Violent", "Unethical Acts"]);
    for (let i = 0; i < 5; i++) draft.learn(both);
    const next = (): number[] => {
      const guess = draft.start();
      guess([], []);
      return [...unsafe, ...guess(unsafe, [])];
    };
    expect(next()).toEqual(both);
    for (let i = 0; i < 40; i++) draft.learn(answer("Unsafe", ["Violent"]));
    expect(next()).toEqual(answer("Unsafe", ["Violent"]));
  });
});

test("ids that begin no answer get no guess, and what is learned is bounded", () => {
  const draft = newDraft(user);
  const guess = draft.start();
  guess([], []);
  expect(guess([1, 2, 3], [])).toEqual([]);
  for (let i = 0; i < 6000; i++) draft.learn([5, 6, i % 4000, i, 7]);
  expect(draft.start()([], [])).toEqual(answer("Safe"));
});
