// Two long texts as one, with the words that only one of them has marked.

import { el } from "../../../serving/page/js/dom.js";

/** @typedef {"same" | "del" | "ins"} PartKind whether both texts have a part, only the first, or only the second */

const MAX_STEPS = 1_000_000; // words of one text times words of the other; above that, all between their ends differs
const WORD = /\s*(?:[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}]|[\p{L}\p{M}\p{N}_]+|\S)|\s+/gu; // with the space before it

/** Compare two texts word by word. @param {string} first @param {string} second @returns {{kind: PartKind, text: string}[]} */
function compare(first, second) {
  const [a, b] = [first, second].map((text) => /** @type {string[]} */ (text.match(WORD) ?? []));
  const least = Math.min(a.length, b.length);
  let start = 0;
  while (start < least && a[start] === b[start]) start += 1;
  let tail = 0;
  while (tail < least - start && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  /** @type {{kind: PartKind, text: string}[]} */
  const parts = [];
  /** @param {PartKind} kind @param {string[]} words */
  const add = (kind, words) => {
    if (words.length === 0) return;
    if (parts.at(-1)?.kind === kind) parts[parts.length - 1].text += words.join("");
    else parts.push({ kind, text: words.join("") });
  };
  add("same", a.slice(0, start));
  compareMiddle(a.slice(start, a.length - tail), b.slice(start, b.length - tail), add);
  add("same", a.slice(a.length - tail));
  return parts;
}

/**
 * Add the parts of a longest common sequence of words, and those beside it.
 * @param {string[]} a @param {string[]} b @param {(kind: PartKind, words: string[]) => void} add
 */
function compareMiddle(a, b, add) {
  let [i, j] = [0, 0];
  if (a.length * b.length <= MAX_STEPS) {
    const width = b.length + 1;
    const lengths = new Uint16Array((a.length + 1) * width); // of what the texts share from these words on
    for (let p = a.length - 1; p >= 0; p--)
      {for (let q = b.length - 1; q >= 0; q--) {
        const here = p * width + q;
        lengths[here] = a[p] === b[q] ? lengths[here + width + 1] + 1 : Math.max(lengths[here + width], lengths[here + 1]);
      }}
    while (i < a.length && j < b.length) {
      const here = i * width + j;
      if (a[i] === b[j]) {
        add("same", [a[i]]);
        [i, j] = [i + 1, j + 1];
      } else if (lengths[here + width] >= lengths[here + 1]) add("del", [a[i++]]);
      else add("ins", [b[j++]]);
    }
  }
  add("del", a.slice(i));
  add("ins", b.slice(j));
}

/** Show both texts as one. @param {string} first @param {string} second */
export const create = (first, second) => compare(first, second).map(({ kind, text }) => (kind === "same" ? text : el(kind, {}, text)));
