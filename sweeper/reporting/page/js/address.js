// Values and trials as words of the page's address: `steps:4`, `seed:5,"a fox, far away"`. They are written by value and
// not by index, so that an address keeps its meaning when the sweep grows. No DOM.

import * as ValueText from "./value_text.js";
/** @import { Axis } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */

const WORD = /"(?:[^"\\]|\\.)*"|[^,:"]+/g; // `:` and `,` are there for readers
const MAX_LETTERS = 48; // of a value that is written in full

/**
 * A value as one word. A short identifier stands as it is; a long text is cut and ends with a checksum of all of it.
 * @param {ValueText.Value} value @returns {string}
 */
function toWord(value) {
  if (typeof value === "string" && /^[A-Za-z_][\w.-]*$/.test(value) && !/^(true|false|null)$/.test(value) && value.length <= MAX_LETTERS)
    {return value;}
  const letters = [...(typeof value === "string" ? value : ValueText.toJson(value))];
  if (letters.length > MAX_LETTERS) return JSON.stringify(`${letters.slice(0, MAX_LETTERS / 2).join("")}…${checksum(letters)}`);
  return typeof value === "string" || (typeof value === "object" && value !== null) ? JSON.stringify(letters.join("")) : ValueText.toJson(value);
}

/** @param {string[]} letters */
function checksum(letters) {
  const sum = letters.reduce((total, letter) => (Math.imul(total, 31) + /** @type {number} */ (letter.codePointAt(0))) >>> 0, 7);
  return sum.toString(36);
}

/** The words of a text, each as `toWord` writes it. @param {string} text */
const splitWords = (text) => (text.match(WORD) ?? []).map(normalizeWord);

/** A word as `toWord` writes it; a person may have written it differently. @param {string} word */
function normalizeWord(word) {
  if (/^(true|false|null|-?\d[\w.+-]*)$/.test(word)) return word;
  try {
    return toWord(word.startsWith('"') ? JSON.parse(word) : word);
  } catch {
    return word; // not a text, so it matches no value
  }
}

/** @param {Dataset} dataset @param {string} word */
const findAxis = (dataset, word) => dataset.axes.find((axis) => toWord(axis.name) === word);

/** A trial without a value has the word `null`, which no value has. @param {Axis} axis @param {number} code */
const codeWord = (axis, code) => toWord(code < 0 ? null : axis.values[code]);

/** @param {Axis} axis */
const codesByWord = (axis) => new Map(axis.order.map((code) => [codeWord(axis, code), code]));

/** Write an axis and some of its values, given by their codes. @param {Axis} axis @param {number[]} codes */
export const writeValues = (axis, codes) => `${toWord(axis.name)}:${codes.map((code) => codeWord(axis, code)).join()}`;

/**
 * Read [axis, codes] from what `writeValues` wrote. Values that are gone are left out; null if the axis is gone.
 * @param {Dataset} dataset @param {string} text @returns {[Axis, number[]] | null}
 */
export function readValues(dataset, text) {
  const [name, ...words] = splitWords(text);
  const axis = findAxis(dataset, name);
  if (axis === undefined) return null;
  const codes = codesByWord(axis);
  return [axis, words.flatMap((word) => codes.get(word) ?? [])];
}

/**
 * Write a trial number as the trial's values on all axes. If earlier trials have the same values, its number among
 * them follows.
 * @param {Dataset} dataset
 * @param {string} text a trial number; any other text is returned as it is
 */
export function writeTrial(dataset, text) {
  const row = /^\d+$/.test(text) ? dataset.row(Number(text)) : undefined;
  if (row === undefined || dataset.axes.length === 0) return text;
  const values = dataset.axes.map((axis) => writeValues(axis, [axis.codes[row]])).join();
  let rank = 1;
  for (let other = 0; other < row; other++) if (dataset.axes.every((axis) => axis.codes[other] === axis.codes[row])) rank += 1;
  return rank > 1 ? `${values},${rank}` : values;
}

/**
 * Read the number of the trial with these values; "" if there is none. A trial number is returned as it is.
 * @param {Dataset} dataset @param {string} text
 */
export function readTrial(dataset, text) {
  if (!text.includes(":")) return text;
  const words = splitWords(text);
  const rank = words.length % 2 ? Number(words.pop()) : 1;
  /** @type {[Axis, number | undefined][]} */
  const wanted = [];
  for (let index = 0; index < words.length; index += 2) {
    const axis = findAxis(dataset, words[index]);
    if (axis !== undefined) wanted.push([axis, codesByWord(axis).get(words[index + 1])]); // an axis that is gone cannot select
  }
  let count = 0;
  for (let row = 0; wanted.length > 0 && row < dataset.size; row++) {
    if (wanted.every(([axis, code]) => axis.codes[row] === code) && ++count === rank) return String(dataset.trial(row));
  }
  return "";
}
