// Exports the kept trials: as an experiment, as a command that accepts them, and as names of cases. No DOM.

import { toJson } from "./value_text.js";
import * as Workflow from "./workflow.js";
/** @import { CodedColumn } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Marks } from "./marks.js" */
/** @import { Value } from "./value_text.js" */

/** Characters that YAML forbids or takes for a line break. All of them are inside quotes, where an escape is the same. */
const UNSAFE = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;
/** @param {string} text */
const escapeUnsafe = (text) => text.replace(UNSAFE, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** @param {Marks} marks */
const findKept = (marks) => marks.findRows((mark) => mark.verdict === "keep");

/**
 * An experiment that makes the kept trials again, with all marks as comments. It sets every slot, so it does not
 * depend on the first sweep.
 * @param {Dataset} dataset @param {Marks} marks @returns {string} YAML
 */
export function toYaml(dataset, marks) {
  const { experiment, run, template, asked } = dataset.raw;
  const lines = [`# Marks on ${toJson(experiment)}, run ${run}. Save this beside the experiment.`];
  for (const row of marks.findRows((mark) => Boolean(mark.verdict || mark.stars || mark.comment))) {
    const { verdict, stars, comment } = marks.get(row);
    const words = [verdict, stars ? `${stars} of 5` : "", comment ? toJson(comment) : ""].filter(Boolean);
    lines.push(`# trial ${dataset.trial(row)}: ${words.join(", ")}`);
  }
  const kept = findKept(marks);
  if (kept.length === 0) return escapeUnsafe([...lines, "# No trial is marked `keep`.", ""].join("\n"));
  lines.push(`name: ${toJson(`${experiment}-kept`)}`, `template: ${toJson(template ?? "TEMPLATE.json")}`);
  for (const [name, value] of Object.entries(asked.kept)) lines.push(`${name}: ${toJson(value)}`);
  const slots = Workflow.listSlotColumns(dataset).filter((column) => kept.every((row) => column.codes[row] >= 0));
  const isConstant = (/** @type {CodedColumn} */ column) => kept.every((row) => column.codes[row] === column.codes[kept[0]]);
  const constant = slots.filter(isConstant);
  const varying = slots.filter((column) => !isConstant(column));
  if (constant.length > 0) lines.push("params:", ...constant.map(({ name, value }) => `  ${toJson(name)}: ${toJson(value(kept[0]))}`));
  if (varying.length > 0) {
    lines.push("sweep:", "  zip:", "    -");
    for (const { name, value } of varying) lines.push(`      ${toJson(name)}: ${toJson(kept.map((row) => toAxisValue(value(row))))}`);
  }
  return escapeUnsafe([...lines, ""].join("\n"));
}

/** A list or a mapping needs the form with a label to be the value of an axis. @param {Value} value */
const toAxisValue = (value) => (value !== null && typeof value === "object" ? { label: toJson(value).slice(0, 40), value } : value);

/** The command that accepts all trials. @param {Dataset} dataset */
export const getAcceptCommand = ({ raw }) => raw.check?.accept_command || `sweeper accept ${Workflow.quoteWord(raw.results)}`;

/** The command that accepts the kept trials, selected by their values. @param {Dataset} dataset @param {Marks} marks */
export function makeAcceptCommand(dataset, marks) {
  const conditions = findKept(marks).map((row) => Workflow.makeCondition(dataset, row));
  const where = conditions.every((one) => one !== "") ? ` --where ${Workflow.quoteWord(conditions.join(" or "))}` : "";
  return `${getAcceptCommand(dataset)}${where}`;
}

/**
 * The names of the kept cases, one on a line, as `sweeper accept --cases` reads them; "" if no check named them.
 * @param {Dataset} dataset @param {Marks} marks
 */
export function listCases(dataset, marks) {
  const names = findKept(marks).flatMap((row) => dataset.raw.check?.cases[row] ?? []);
  return names.map((name) => `${name}\n`).join("");
}
