// @ts-check
// The params and metrics of a trial as a person reads them, and the differences between two trials.

import { el } from "./dom.js";
import * as TextDiff from "./text_diff.js";
import { toJson, toRounded, toVisible } from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */

const NONE = "(none)"; // in place of a value
const MIN_DIFF = 60; // letters of two texts that are shown as one, because side by side a reader would not find what differs

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
 * A trial by its values. Those that differ from `other` come first, because the rest may be cut off.
 * @param {Dataset} dataset @param {number} row @param {number} [other]
 */
export function makeTitle(dataset, row, other = -1) {
  const axes = dataset.axes.filter((axis) => axis.order.length > 1);
  const differs = (/** @type {Axis} */ axis) => isDifferent(axis, row, other);
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

/**
 * A row's value in full: its label, and the value itself if that is another text.
 * @param {Column} column @param {number} row
 */
export function formatFull(column, row) {
  if (column.codes === null) return toRounded(column.value(row)) || NONE;
  const code = column.codes[row];
  if (code < 0) return NONE;
  const [label, text] = [column.labels[code], column.texts?.[code]];
  return text === undefined || text === label ? toVisible(label) : `${label}: ${toVisible(text)}`;
}

/**
 * The texts of a column for some rows; as JSON if two different values would have the same text.
 * @param {Column} column @param {number[]} rows
 */
function formatRows(column, rows) {
  const texts = rows.map((row) => formatFull(column, row));
  const isAmbiguous = rows.length === 2 && texts[0] === texts[1] && isDifferent(column, rows[0], rows[1]);
  return isAmbiguous ? rows.map((row) => toJson(column.value(row) ?? null)) : texts;
}

/**
 * The table of a trial, with differences to the trial `other` on top; -1 stands for no other trial.
 * @param {Dataset} dataset @param {number} row @param {number} other
 */
export function makeTable(dataset, row, other) {
  const rows = other < 0 ? [row] : [row, other];
  const differs = (/** @type {Column} */ column) => isDifferent(column, row, other);
  /** @param {Column} column */
  const makeLine = (column) => {
    const texts = formatRows(column, rows);
    if (!isParam(column) && texts.every((text) => text === NONE)) return null;
    if (isParam(column) && differs(column) && texts.every((text) => text.length > MIN_DIFF)) {
      const title = "Struck out: only in A. Underlined: only in B.";
      return el("tr", { class: "differs whole" }, el("th", { scope: "row" }, column.name), el("td", { title, colspan: 2 }, TextDiff.create(texts[0], texts[1])));
    }
    return el(
      "tr",
      { class: column.role !== "outcome" && differs(column) ? "differs" : "" },
      el("th", { scope: "row" }, column.name),
      texts.map((text) => el("td", {}, text)),
    );
  };
  const columns = dataset.columns.filter((column) => isParam(column) || isMetric(column));
  // The duration and the cost come last: they differ every time and were not asked for.
  const last = ["models", "ran_s", "cost", "cost_kind"].flatMap((name) => dataset.column(name) ?? []);
  const sorted = [...columns.filter(differs), ...columns.filter((column) => !differs(column)), ...last.filter(({ role }) => role === "outcome")];
  const names = ["A", "B"].map((name) => el("th", { scope: "col" }, name));
  const head = other >= 0 && el("thead", {}, el("tr", {}, el("td", {}), names));
  return el("table", { class: "params" }, head, el("tbody", {}, sorted.map(makeLine)));
}
