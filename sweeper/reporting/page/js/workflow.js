// The workflow of a trial, and the command that runs the trial again. No DOM.

import { decodeValue, isNumber, toJson } from "./value_text.js";
/** @import { CodedColumn } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Value } from "./value_text.js" */

const RESERVED = /^(and|else|false|if|in|is|none|not|or|true)$/i; // names that an expression cannot use

/**
 * The workflow of a row in ComfyUI's API format, as JSON text; null if it is unknown (`explainMissing` says why).
 * @param {Dataset} dataset @param {number} row
 */
export function toText(dataset, row) {
  if (!isKnown(dataset, row)) return null;
  const { base, changes } = dataset.raw.workflow;
  const graph = decodeValue(base);
  for (const { node, input, values, of } of changes) {
    if (of[row] >= 0) graph[node].inputs[input] = decodeValue(values[of[row]]);
  }
  return toJson(graph, "  ") + "\n";
}

/** The workflow of a row and a name for its file. @param {Dataset} dataset @param {number} row @returns {[text: string | null, name: string]} */
export const getFile = (dataset, row) => [toText(dataset, row), `trial-${dataset.trial(row)}.json`];

/** @param {Dataset} dataset @returns {string} */
export const explainMissing = (dataset) => dataset.raw.workflow_missing ?? "the experiment has changed since this run";

/** @param {Dataset} dataset @param {number} row */
const isKnown = (dataset, row) => Boolean(dataset.raw.workflow?.known[row]);

/** Quote a word for a POSIX shell. @param {string} word */
export const quoteWord = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${String(word).replaceAll("'", "'\\''")}'`);

/** A value in the language of `--where`, which is Jinja2; null if it cannot be written. @param {Value} value */
function toLiteral(value) {
  if (typeof value === "string") return toJson(value);
  if (value === true || value === false) return String(value);
  return isNumber(value) ? String(value) : null;
}

/** The columns that are slots of the template, also if they are axes. @param {Dataset} dataset @returns {CodedColumn[]} */
export function listSlotColumns(dataset) {
  const names = new Set(dataset.raw.slots);
  return dataset.columns.filter((column) => column.codes !== null).filter((column) => names.has(column.name));
}

/** The slots that vary and that an expression can compare with this trial's value. @param {Dataset} dataset @param {number} row */
function listUsableSlots(dataset, row) {
  return listSlotColumns(dataset)
    .filter(({ codes, values }) => codes[row] >= 0 && values.length > 1)
    .filter(({ name }) => /^[A-Za-z_]\w*$/.test(name) && !RESERVED.test(name))
    .filter((column) => toLiteral(column.value(row)) !== null);
}

/** The condition that every slot that varies has this trial's value; "" if none varies. @param {Dataset} dataset @param {number} row */
export const makeCondition = (dataset, row) =>
  listUsableSlots(dataset, row).map(({ name, value }) => `${name} == ${toLiteral(value(row))}`).join(" and ");

/** Whether Jinja2 takes two values for equal: true is 1 there, and 7 is 7.0. @param {Value} a @param {Value} b */
function isEqualInJinja(a, b) {
  const [x, y] = [a, b].map((value) => (typeof value === "boolean" ? Number(value) : value));
  return x == y; // eslint-disable-line eqeqeq -- 5n == 5 but not 5n === 5
}

/** Why there is no command that runs this trial and only this one; "" if there is one. @param {Dataset} dataset @param {number} row */
export function explainNoCommand(dataset, row) {
  if (!isKnown(dataset, row)) return explainMissing(dataset);
  if (dataset.raw.search) return "a search chooses its trials itself; mark this one `keep`, and Marks > New experiment from the kept makes one of it";
  if (dataset.raw.asked.options === null) return "a value that --set gave this run cannot be written in a command";
  const columns = listUsableSlots(dataset, row);
  for (let other = 0; other < dataset.size; other++) {
    if (dataset.digest(other) === dataset.digest(row)) continue;
    if (columns.every((column) => isEqualInJinja(column.value(other), column.value(row))))
      {return `no --where condition separates it from trial ${dataset.trial(other)}`;}
  }
  return "";
}

/** The command that runs this trial again with the run's own options; null if there is none. @param {Dataset} dataset @param {number} row */
export const makeCommand = (dataset, row) => (explainNoCommand(dataset, row) === "" ? makeFreshCommand(dataset, [row]) : null);

const MAX_FRESH = 40; // trials that a condition names

/** The command that runs some trials again; null if no condition selects them. @param {Dataset} dataset @param {number[]} rows */
export function makeFreshCommand(dataset, rows) {
  if (rows.length > MAX_FRESH || dataset.raw.search) return null;
  const conditions = rows.map((row) => makeCondition(dataset, row));
  if (rows.length > 1 && conditions.includes("")) return null;
  return makeRunCommand(dataset, ["--fresh", ...(conditions[0] ? ["--where", conditions.join(" or ")] : [])]);
}

/**
 * The command that goes on with this run, with its own options and some more; null if a command cannot express them.
 * @param {Dataset} dataset @param {string[]} options
 */
export function makeRunCommand({ raw: { file, results, asked, search } }, options) {
  if (asked.options === null || (search && options.includes("--remake"))) return null;
  return `sweeper ${search ? "search" : "run"} ${[file, ...asked.options, "--out", results, ...options].map(quoteWord).join(" ")}`;
}
