// The params and metrics of a trial as a person reads them, and the differences between two trials.

import { el } from "../../../serving/page/js/dom.js";
import { toJson, toRounded, toVisible } from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @typedef {"same" | "del" | "ins"} PartKind whether both texts have a part, only the first, or only the second */

const NONE = "(none)"; // in place of a value
/** @type {Record<string, string>} columns that sweeper adds, with their units */
const WORDS = {
  ran_s: "run time (s)", cost_kind: "the cost is", check_severity: "size of the change", check_mae: "mean change (of 255)",
  check_max_abs: "most change (of 255)", check_differing: "changed pixels (share)", check_windowed: "the same, worst 16 x 16",
  check_psnr: "PSNR (dB)", check_ssim: "SSIM", check_phash: "changed bits (of 64)", check_text_ratio: "common text (share)",
};
const MIN_DIFF = 60; // letters of two texts that are shown as one, because side by side a reader would not find what differs
const MAX_STEPS = 1_000_000; // words of one text times words of the other; above that, all between their ends differs
const WORD = /\s*(?:[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}]|[\p{L}\p{M}\p{N}_]+|\S)|\s+/gu; // with the space before it

/** @param {Column} column */
const isParam = ({ role }) => role === "axis" || role === "slot";
/** @param {Column} column */
const isMetric = ({ role, codes }) => role === "metric" || (role === "check" && codes === null);

/**
 * Whether two trials have different values; close values may be rounded to the same text.
 * @param {Column} column @param {number} row
 * @param {number} other -1: none
 */
function isDifferent(column, row, other) {
  if (other < 0) return false;
  if (column.codes !== null) return column.codes[row] !== column.codes[other];
  return (column.value(row) ?? null) !== (column.value(other) ?? null);
}

/**
 * A trial by its values. Those that differ from `others` come first, because the rest may be cut off.
 * @param {Dataset} dataset @param {number} row @param {number[]} [others]
 */
export function makeTitle(dataset, row, others = []) {
  const axes = dataset.axes.filter((axis) => axis.order.length > 1);
  const differs = (/** @type {Axis} */ axis) => others.some((other) => isDifferent(axis, row, other));
  const ordered = [...axes.filter(differs), ...axes.filter((axis) => !differs(axis) && axis.codes[row] >= 0)];
  return ordered.map((axis) => `${axis.name}: ${axis.labelOf(axis.codes[row])}`).join(" · ") || `trial ${dataset.trial(row)}`;
}

/**
 * Make a function that formats a column's value in a row, with its short label; a missing value and an empty text look
 * different.
 * @param {Column} column @returns {(row: number) => string}
 */
export function makeFormatter(column) {
  if (column.codes === null || !isParam(column)) return (row) => column.label(row);
  const labels = column.labels.map((label, code) => column.names?.[code] ?? toVisible(label));
  return (row) => labels[column.codes[row]] ?? NONE;
}

/** A row's value in full: its label, and the value itself if that is another text. @param {Column} column @param {number} row */
export function formatFull(column, row) {
  if (column.codes === null) return (column.format ?? toRounded)(column.value(row)) || NONE;
  const code = column.codes[row];
  if (code < 0) return NONE;
  const [label, text] = [column.labels[code], column.texts?.[code]];
  return text === undefined || text === label ? toVisible(label) : `${label}: ${toVisible(text)}`;
}

/** The texts of a column for some rows, with more digits if two different values would have the same text. @param {Column} column @param {number[]} rows */
function formatRows(column, rows) {
  const isClear = (/** @type {string[]} */ [one, two]) => rows.length < 2 || one !== two || !isDifferent(column, rows[0], rows[1]);
  const texts = rows.map((row) => formatFull(column, row));
  const rounded = rows.map((row) => toRounded(column.value(row)) || NONE);
  return [texts, rounded].find(isClear) ?? rows.map((row) => toJson(column.value(row) ?? null));
}

let showsFixed = false; // whether a reader unfolded what is the same in all trials

/**
 * The tables of a trial: what the sweep varies, what was measured, and folded what is the same in all trials. In each,
 * differences to the reference `other` stand on top; -1 stands for none.
 * @param {Dataset} dataset @param {number} row @param {number} other
 */
export function makeTables(dataset, row, other) {
  const rows = other < 0 ? [row] : [other, row];
  const differs = (/** @type {Column} */ column) => isDifferent(column, row, other);
  /** @param {Column} column */
  const makeLine = (column) => {
    const texts = formatRows(column, rows);
    if (!isParam(column) && texts.every((text) => text === NONE)) return null;
    if (isParam(column) && differs(column) && texts.every((text) => text.length > MIN_DIFF)) {
      const title = "Struck out: only in the reference. Underlined: only in this trial.";
      return el("tr", { class: "differs whole" }, el("th", { scope: "row" }, column.name), el("td", { title, colspan: 2 }, joinTexts(texts[0], texts[1])));
    }
    return el(
      "tr",
      { class: column.role !== "outcome" && differs(column) ? "differs" : "" },
      el("th", { scope: "row", title: column.name }, isParam(column) ? column.name : (WORDS[column.name] ?? column.name.replace(/^check_/, ""))),
      texts.map((text) => el("td", {}, text)),
    );
  };
  const isVaried = (/** @type {Column} */ column) => isParam(column) && (dataset.size === 1 || differs(column) || (column.codes?.some((code, _, codes) => code !== codes[0]) ?? false));
  // The duration and the cost come last: they differ every time and were not asked for.
  const last = ["models", "ran_s", "cost", "cost_kind"].flatMap((name) => dataset.column(name) ?? []);
  const makeHead = () => other >= 0 && el("thead", {}, el("tr", {}, el("td", {}), ["Reference", "This"].map((name) => el("th", { scope: "col" }, name))));
  /** @param {Column[]} columns */
  const makeTable = (columns) => columns.length > 0 && el("table", { class: "params" }, makeHead(), el("tbody", {}, [...columns.filter(differs), ...columns.filter((column) => !differs(column))].map(makeLine)));
  const fixed = dataset.columns.filter((column) => isParam(column) && !isVaried(column));
  const ontoggle = (/** @type {Event} */ { target }) => (showsFixed = target instanceof HTMLDetailsElement && target.open);
  return el(
    "section",
    { class: "tables" },
    makeTable(dataset.columns.filter(isVaried)),
    makeTable([...dataset.columns.filter(isMetric), ...last.filter(({ role }) => role === "outcome")]),
    fixed.length > 0 && el("details", { open: showsFixed, ontoggle }, el("summary", {}, `${fixed.length} the same in all trials`), makeTable(fixed)),
  );
}

// --- two long texts as one, with the words that only one of them has marked

/** Compare two texts word by word. @param {string} first @param {string} second @returns {{kind: PartKind, text: string}[]} */
function compareTexts(first, second) {
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

/** Show two texts as one. @param {string} first @param {string} second */
export const joinTexts = (first, second) => compareTexts(first, second).map(({ kind, text }) => (kind === "same" ? text : el(kind, {}, text)));
