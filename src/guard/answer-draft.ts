/**
 * Guesses how a guard's answer goes on, so that one pass over the weights can give most of it.
 *
 * In: the ids of an answer so far. Out: the ids most likely to follow. Nearly all of an answer is forced ("Safety:",
 * "\nCategories:"), and a few positions decide it. So the possible answers form a tree of ids whose branches have
 * weights, and a guess follows the heaviest branches down. Finished answers add to the weights, recent ones more. A
 * guess changes only speed, never the answer: see model/generate.ts.
 *
 * The first guess is always a Safe answer. If it is right, one pass is enough. If the level is not Safe, the same pass
 * has also computed which category would follow, as if the guessed level had been right; the second guess names the
 * likeliest of those categories.
 */

import type { Draft } from "../model/generate.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { writeAnswer } from "./answer.ts";
import { type Decision, endsWith, type Labels } from "./labels.ts";
import { NO_CATEGORY, type Policy, SAFETY_LEVELS } from "./policy.ts";

/** One id of an answer; `weight` sums over all finished answers that pass through it. */
interface Branch {
  weight: number;
  readonly next: Map<number, Branch>;
}

/** Each answer weighs this many times the one before it, so an answer counts half after about fourteen more. */
const RECENCY = 1.05;
/**
 * After a category an answer may end or go on ("Violent, PII"). A guess ends before a branch with less than this share
 * of the weight.
 */
const LEAST_SHARE = 0.2;
/** Answers seldom differ, but nothing may grow without bound: above this many ids the tree starts afresh. */
const MAX_BRANCHES = 20_000;
const MAX_WEIGHT = 1e100;

export class AnswerDraft {
  /** How many ids the longest answer to expect has: one that names every category, with the stop id. */
  readonly longest: number;
  readonly #possibleAnswers: () => number[][];
  readonly #labels: Labels;
  readonly #none: number;
  /** Built at the first answer, so that loading does not wait for it. */
  #root: Branch | undefined;
  #branches = 0;
  /** The weight of the next finished answer. */
  #weight = 1;

  constructor(tokenizer: Tokenizer, policy: Policy, labels: Labels) {
    const encode = (answer: string): number[] => Array.from(tokenizer.encode(answer, { literal: true }));
    const refusals = policy.hasRefusal ? (["No", "Yes"] as const) : [null];
    this.#possibleAnswers = () =>
      SAFETY_LEVELS.flatMap(level =>
        [[], ...policy.categories.map(category => [category])].flatMap(categories =>
          refusals.map(refusal => encode(writeAnswer(level, categories, refusal))),
        ),
      );
    this.longest = encode(writeAnswer("Controversial", policy.categories, refusals[0])).length + 1;
    this.#labels = labels;
    this.#none = labels.category.ids[labels.category.labels.indexOf(NO_CATEGORY)];
  }

  /** A draft for one answer. */
  start(): Draft {
    let first: readonly number[] | undefined;
    let category: number | undefined;
    return (answer, refused) => {
      const { level } = this.#labels;
      if (first === undefined) {
        first = [...level.lead, level.ids[level.labels.indexOf("Safe")]];
        first = [...first, ...this.#follow(first, undefined)];
        return first;
      }
      // Row i of `refused` chose an id in place of first[answer.length + i].
      category ??= this.#likeliestCategory(first, answer.length, refused);
      return this.#follow(answer, category);
    };
  }

  /** Adds an answer to the weights. */
  learn(answer: readonly number[]): void {
    if (this.#weight > MAX_WEIGHT || this.#branches > MAX_BRANCHES) this.#root = undefined;
    this.#add(this.#tree(), answer, this.#weight);
    this.#weight *= RECENCY;
  }

  /** The heaviest path down from `answer`. Where a category is due, it takes `category` if that is possible. */
  #follow(answer: readonly number[], category: number | undefined): number[] {
    let at: Branch | undefined = this.#tree();
    for (const id of answer) at = at?.next.get(id);
    const ids = [...answer];
    while (at !== undefined && at.next.size > 0) {
      const isNamed = category !== undefined && endsWith(ids, this.#labels.category.lead) && at.next.has(category);
      const id: number = isNamed ? category : heaviest(at);
      const branch: Branch = at.next.get(id)!;
      if (!isNamed && branch.weight < LEAST_SHARE * at.weight) break;
      ids.push(id);
      at = branch;
    }
    return ids.slice(answer.length);
  }

  /** The category, other than "None", that the rows computed after a wrong level make likeliest. */
  #likeliestCategory(guess: readonly number[], offset: number, refused: readonly Float32Array[]): number | undefined {
    const { lead, ids }: Decision = this.#labels.category;
    const at = guess.findIndex((id, i) => ids.includes(id) && endsWith(guess.slice(0, i), lead));
    const logits = refused[at - offset];
    if (at < 0 || logits === undefined) return undefined;
    const named = ids.filter(id => id !== this.#none);
    return named.reduce((best, id) => (logits[id] > logits[best] ? id : best));
  }

  /** The tree. A new one holds the possible answers with weight 0. */
  #tree(): Branch {
    if (this.#root === undefined) {
      this.#root = newBranch();
      this.#branches = 0;
      this.#weight = 1;
      for (const answer of this.#possibleAnswers()) this.#add(this.#root, answer, 0);
    }
    return this.#root;
  }

  #add(root: Branch, answer: readonly number[], weight: number): void {
    let at = root;
    for (const id of answer) {
      let branch = at.next.get(id);
      if (branch === undefined) {
        branch = newBranch();
        at.next.set(id, branch);
        this.#branches++;
      }
      branch.weight += weight;
      at = branch;
    }
  }
}

/** Of equal weights, the first. */
function heaviest({ next }: Branch): number {
  return [...next].reduce((best, branch) => (branch[1].weight > best[1].weight ? branch : best))[0];
}

function newBranch(): Branch {
  return { weight: 0, next: new Map() };
}
