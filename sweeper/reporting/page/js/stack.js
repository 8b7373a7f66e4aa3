// Summarises a cell that several trials share, because its picture shows only the first of them. No DOM.

import { countEach } from "./value_text.js";
/** @import { Dataset } from "./dataset.js" */

/**
 * @typedef {object} StackSummary
 * @property {string} words how many of the trials have which state
 * @property {number} more how many trials are hidden below the first
 * @property {string} kind the most urgent state among those, unless the first trial has it too; else ""
 * @property {number} count how many trials have that state
 */

// From the most urgent on. A trial that was checked has a status and a state of the check; the more urgent one counts.
const URGENCY = ["failed", "changed", "missing", "cancelled", "pending", "running", "not compared", "new", "gone"];

/** @param {string} kind */
export const describeKind = (kind) => (kind === "pending" ? "not run yet" : kind);

/**
 * The more urgent of a trial's status and its state of the check; `same` or `succeeded` if neither is urgent.
 * @param {Dataset} dataset @param {number} row @returns {string}
 */
function findKind(dataset, row) {
  const [status, state] = [dataset.status(row), dataset.finding(row)?.state];
  return URGENCY.find((kind) => kind === status || kind === state) ?? state ?? status;
}

/** @param {Dataset} dataset @param {number[]} rows of one cell, the first on top @returns {StackSummary} */
export function summarize(dataset, rows) {
  const kinds = rows.map((row) => findKind(dataset, row));
  const counts = countEach(kinds);
  const parts = [...counts].map(([kind, count]) => `${count} ${describeKind(kind)}`).join(", ");
  const below = new Set(kinds.slice(1));
  const urgent = URGENCY.find((kind) => below.has(kind)) ?? "";
  const kind = urgent === kinds[0] ? "" : urgent;
  return { words: `${rows.length} trials share this cell: ${parts}`, more: rows.length - 1, kind, count: counts.get(kind) ?? 0 };
}
