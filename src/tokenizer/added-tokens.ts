/**
 * Added tokens: texts such as `<|im_end|>` or `<think>` that become one id wherever they occur in raw text, before
 * normalization and BPE.
 *
 * Matching is leftmost-longest, as in the reference: find the first place where any token matches, take the longest one
 * that does, and continue after it. What surprised us: `special` only says whether decoding may skip a token. A token
 * with `special: false` is matched in raw text all the same.
 */

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** `decode` leaves it out when asked to skip special tokens. */
  readonly special: boolean;
}

export interface AddedTokenMatch {
  readonly id: number;
  /** UTF-16 offsets in the text. */
  readonly start: number;
  readonly end: number;
}

/** A node of the trie over UTF-16 units; `id` where a token ends, -1 elsewhere. */
interface TrieNode {
  id: number;
  readonly children: Map<number, TrieNode>;
}

/** Finds added tokens in text. */
export class AddedTokenMatcher {
  /** Every character (code point) that occurs in a token. */
  readonly characters: ReadonlySet<string>;
  readonly #root: TrieNode = { id: -1, children: new Map() };
  /** 1 for each UTF-16 unit that starts a token. This rules out nearly every place in a text. */
  readonly #starts: Uint8Array = new Uint8Array(0x10000);

  /** The contents must be well-formed, distinct and not empty. */
  constructor(tokens: readonly AddedToken[]) {
    this.characters = new Set(tokens.flatMap(token => [...token.content]));
    for (const { content, id } of tokens) {
      this.#starts[content.charCodeAt(0)] = 1;
      let node = this.#root;
      for (let i = 0; i < content.length; i++) {
        const unit = content.charCodeAt(i);
        let child = node.children.get(unit);
        if (child === undefined) {
          child = { id: -1, children: new Map() };
          node.children.set(unit, child);
        }
        node = child;
      }
      node.id = id;
    }
  }

  /**
   * All matches in a well-formed text, in order and without overlap. O(length of the text * length of the longest
   * token).
   */
  findAll(text: string): AddedTokenMatch[] {
    const matches: AddedTokenMatch[] = [];
    for (let start = 0; start < text.length; ) {
      const match = this.#starts[text.charCodeAt(start)] === 1 ? this.#longestAt(text, start) : undefined;
      if (match !== undefined) matches.push(match);
      start = match?.end ?? start + 1;
    }
    return matches;
  }

  #longestAt(text: string, start: number): AddedTokenMatch | undefined {
    let longest: AddedTokenMatch | undefined;
    let node = this.#root.children.get(text.charCodeAt(start));
    for (let end = start + 1; node !== undefined; end++) {
      if (node.id >= 0) longest = { id: node.id, start, end };
      node = node.children.get(text.charCodeAt(end)); // NaN at the end of the text, which has no child
    }
    return longest;
  }
}
