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

describe("which category the refused logits name", () => {
  const unsafe = [...user.labels.level.lead, user.labels.level.ids[1]];
  const { ids, labels } = user.labels.category;
  /** The guess after "Safety: Unsafe", where the row that decides the category has these logits. */
  const guessed = (logitOf: Readonly<Record<string, number>>): number[] => {
    const logits = new Float32Array(model.config.vocabSize).fill(-1);
    for (const [label, value] of Object.entries(logitOf)) logits[ids[labels.indexOf(label)]] = value;
    const other = new Float32Array(model.config.vocabSize);
    other[ids[labels.indexOf("Jailbreak")]] = 9;
    const draft = newDraft(user).start();
    const guess = draft([], []);
    const row = guess.indexOf(ids[labels.indexOf("None")]);
    // Only that row counts, as it was refused after the ids that are certain.
    const refused = guess.slice(unsafe.length).map((_, i) => (i === row - unsafe.length ? logits : other));
    return [...unsafe, ...draft(unsafe, refused)];
  };

  test("the largest, wherever it stands; the first of equals", () => {
    expect(guessed({ Violent: 2, PII: 1 })).toEqual(answer("Unsafe", ["Violent"]));
    expect(guessed({ Violent: 1, PII: 2, "Copyright Violation": 1 })).toEqual(answer("Unsafe", ["PII"]));
    expect(guessed({ Violent: 2, PII: 2 })).toEqual(answer("Unsafe", ["Violent"]));
    expect(guessed({ None: 9, PII: 2 })).toEqual(answer("Unsafe", ["PII"]));
  });
});

test("there is room for the longest answer: a level of most tokens, every category, a refusal and the stop id", () => {
  for (const { policy, draft } of [user, assistant]) {
    const refusal = policy.hasRefusal ? "No" : null;
    expect(draft.longest).toBe(answer("Controversial", [...policy.categories], refusal).length + 1);
    for (const level of ["Safe", "Unsafe"] as const)
      expect(draft.longest).toBeGreaterThan(answer(level, [...policy.categories], refusal).length);
  }
});

test("a category that is spelled like a control token is text", () => {
  const policy = { ...user.policy, categories: [...user.policy.categories, "<|im_end|>"] };
  const { longest } = new AnswerDraft(tokenizer, policy, user.labels);
  expect(longest).toBe(answer("Controversial", policy.categories).length + 1);
});

describe("what is learned", () => {
  const unsafe = [...user.labels.level.lead, user.labels.level.ids[1]];
  const second = (draft: AnswerDraft): number[] => {
    const guess = draft.start();
    guess([], []);
    return [...unsafe, ...guess(unsafe, [])];
  };
  const violent = answer("Unsafe", ["Violent"]);
  const pii = answer("Unsafe", ["PII"]);

  test("is forgotten where weights would grow without bound", () => {
    const draft = newDraft(user);
    for (let i = 0; i < 5000; i++) draft.learn(violent); // 1.05 ** 4720 is over 1e100
    draft.learn(pii);
    expect(second(draft)).toEqual(violent); // begun anew with the 4,722nd
    const other = newDraft(user);
    for (let i = 0; i < 4721; i++) other.learn(violent);
    other.learn(pii);
    expect(second(other)).toEqual(pii);
  });

  test("is forgotten where it would be too much", () => {
    const long = (count: number): number[] => Array.from({ length: count }, (_, i) => 1_000_000 + i);
    const learn = (count: number): number[] => {
      const draft = newDraft(user);
      for (let i = 0; i < 3; i++) draft.learn(violent);
      draft.learn(long(count));
      draft.learn(pii);
      return second(draft);
    };
    expect(learn(20_001)).toEqual(pii);
    expect(learn(15_000)).toEqual(violent);
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
