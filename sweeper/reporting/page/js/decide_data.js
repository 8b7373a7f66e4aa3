// What the view Decide shows: what one can judge by, the values of each axis, and the trials that show them. What is known
// of a value comes from the answers of `sweeper effects` and `sweeper votes` in the data. No DOM.

import * as Columns from "./columns.js";
import * as Layout from "./layout.js";
import * as ValueText from "./value_text.js";
import * as Workflow from "./workflow.js";
/** @import { Dataset } from "./dataset.js" */
/** @import { Marks } from "./marks.js" */
/** @import { State } from "./state.js" */

/**
 * @typedef {object} Estimate  what is known of a value; `value_choice.py` says it
 * @property {number[]} cells its code on each column
 * @property {number} mean
 * @property {number | null} low the ends of its bar; null if nothing tells them
 * @property {number | null} high
 * @property {"best" | "equal" | "worse" | "undecided"} verdict
 * @property {string} text
 * @property {string} votes such as `7 of 11`, or ""
 */
/** @typedef {{columns: string[], text: string, values: Estimate[], chosen: number}} AxisChoice */
/** @typedef {{metric: string, maximize: boolean, axes: AxisChoice[], notes: string[], more_seeds: number}} MetricChoice */
/** @typedef {{name: string, text: string, choice: MetricChoice | null}} Judge what one judges by; without a choice by the marks */
/** @typedef {{codes: number[], label: string, full: string, row: number, estimate?: Estimate}} Entry a value and the trial that shows it */
/** @typedef {{axes: Columns.Axis[], name: string, choice?: AxisChoice, entries: Entry[], total: number}} Strip total: how many values the axis has */

const MAX_VALUES = 12; // of an axis without estimates

/** @param {Dataset} dataset */
const listVarying = ({ axes }) => axes.filter((axis) => axis.order.length > 1);

/** @param {Dataset} dataset @returns {[string, {lines: string[], shares: [string, number][], choices: MetricChoice[]}][]} */
export const listAnswers = ({ raw }) => Object.entries(raw.answers?.by_metric ?? {});

/**
 * Whether more of a number is better; undefined if nobody knows.
 * @param {Dataset} dataset @param {Columns.Column} column @param {State} state in which somebody may have said it
 * @returns {boolean | undefined}
 */
export function isHigherBetter({ raw }, { name, role }, { by, stack, colour }) {
  if (stack !== "first" && colour === name) return stack === "highest";
  if (by.replace(/^-/, "") === name) return !by.startsWith("-");
  const goal = raw.search?.objectives.find((/** @type {{column: string}} */ { column }) => column === name);
  const choices = raw.answers?.by_metric?.[name]?.choices ?? []; // one for each direction that may be the better one
  if (goal || choices.length === 1) return (goal ?? choices[0]).maximize;
  return role === "outcome" ? false : undefined; // a duration or a cost
}

/** Whether there is something to choose, and something to judge it by. @param {Dataset} dataset @param {boolean} [hasMarks] */
export const canDecide = (dataset, hasMarks = Object.keys(dataset.raw.marks ?? {}).length > 0) =>
  listVarying(dataset).length > 0 &&
  (hasMarks || listAnswers(dataset).some(([, { choices }]) => choices.some(({ axes }) => axes.some(({ values }) => values.length > 0 || dataset.raw.search)))) &&
  !dataset.raw.check?.is_review;

/** What one can judge by, the usual one first; a metric of which nobody knows the better end is there twice. @param {Dataset} dataset @param {Marks} marks @returns {Judge[]} */
export function listJudges(dataset, marks) {
  const judges = listAnswers(dataset).flatMap(([metric, { choices }]) =>
    choices.map((choice) => ({
      name: `${choice.maximize ? "" : "-"}${metric}`,
      text: metric === "votes" ? "votes (share of wins)" : `${metric}, ${choice.maximize ? "higher" : "lower"} is better`,
      choice,
    })),
  );
  return marks.count() > 0 || judges.length === 0 ? [...judges, { name: "marks", text: "what is kept", choice: null }] : judges;
}

/** The column with the number of each point of a search, which have no values in common; undefined for a sweep. @param {Dataset} dataset @param {Judge} judge */
export function findPointColumn({ raw, byName }, { choice }) {
  const goal = raw.search?.objectives.find((/** @type {{metric: string}} */ { metric }) => metric === choice?.metric);
  return choice && raw.search ? byName.get(goal?.column ?? choice.metric) : undefined;
}

/**
 * How good a trial is by the answer: the sum of the means of its values. A value that is as good as the best one and costs
 * less counts as the better one.
 * @param {Dataset} dataset @param {Judge} judge @param {Marks} marks @returns {(row: number) => number} the larger, the better
 */
function makeScore(dataset, judge, marks) {
  const { choice } = judge;
  if (choice === null) return (row) => ({ keep: 10, reject: -10, "": 0 })[marks.get(row).verdict] + marks.get(row).stars;
  const sign = choice.maximize ? 1 : -1;
  const own = findPointColumn(dataset, judge);
  if (own) return (row) => sign * (own.value(row) ?? -sign * Infinity);
  const axes = choice.axes.map(({ columns, values, chosen }) => {
    const best = Math.max(...values.map(({ mean }) => sign * mean));
    const scores = new Map(values.map(({ cells, mean }, index) => [cells.join(), index === chosen ? best + 1e-9 * Math.abs(best) : sign * mean]));
    return { columns: columns.map((name) => /** @type {Columns.Axis} */ (dataset.column(name))), scores };
  });
  return (row) => axes.reduce((sum, { columns, scores }) => sum + (scores.get(makeKey(columns, row)) ?? 0), 0);
}

/** @param {Columns.Axis[]} axes @param {number} row */
const makeKey = (axes, row) => (axes.length === 1 ? String(axes[0].codes[row]) : axes.map(({ codes }) => codes[row]).join());

/** The axes whose values one chooses, and the others: prompts and seeds, over which the answer holds. @param {Dataset} dataset @param {Judge} judge */
export function splitAxes(dataset, { choice }) {
  const isSetting = (/** @type {Columns.Axis} */ axis) => (choice === null ? !Columns.isSeed(axis) : choice.axes.some(({ columns }) => columns.includes(axis.name)));
  const varying = listVarying(dataset);
  return { settings: varying.filter(isSetting), others: varying.filter((axis) => !isSetting(axis)) };
}

/**
 * The rows in view with a picture, the best first; of equal ones those whose prompt and seed have the fewest accidents, as the
 * strips hold them. With `beside`, only those of the same prompt and seed as that row.
 * @param {Dataset} dataset @param {Judge} judge @param {Marks} marks @param {(row: number) => boolean} holds @param {number} [beside]
 */
export function rank(dataset, judge, marks, holds, beside) {
  const score = makeScore(dataset, judge, marks);
  const { others } = splitAxes(dataset, judge);
  const rows = dataset.filterRows((row) => dataset.raw.outputs[row].length > 0 && (beside === undefined || others.every(({ codes }) => codes[row] === codes[beside])) && holds(row));
  const isAccident = (/** @type {number} */ row) => dataset.raw.outputs[row].length === 0 || dataset.look(row) !== "";
  const accidents = ValueText.countEach(dataset.filterRows(isAccident).map((row) => makeKey(others, row)));
  const penalties = new Map(rows.map((row) => [row, (accidents.get(makeKey(others, row)) ?? 0) + (isAccident(row) ? dataset.size : 0)]));
  const scores = new Map(rows.map((row) => [row, score(row)]));
  return rows.sort((a, b) => (scores.get(b) ?? 0) - (scores.get(a) ?? 0) || (penalties.get(a) ?? 0) - (penalties.get(b) ?? 0));
}

/**
 * The values of each axis, each with the trial that is most like the current one but for this axis; of equal ones the best.
 * @param {Dataset} dataset @param {Judge} judge @param {number} current @param {number[]} ranked rows, the best first
 * @param {State} state @returns {Strip[]}
 */
export function makeStrips(dataset, judge, current, ranked, state) {
  const varying = listVarying(dataset);
  const { others } = splitAxes(dataset, judge);
  const compared = judge.choice?.axes ?? varying.filter((axis) => !others.includes(axis)).map(({ name }) => ({ columns: [name] }));
  const groups = [...compared, ...others.map(({ name }) => ({ columns: [name] }))];
  return groups.map((group) => {
    const axes = group.columns.map((name) => /** @type {Columns.Axis} */ (dataset.column(name)));
    const choice = "values" in group ? /** @type {AxisChoice} */ (group) : undefined;
    const rest = varying.filter((axis) => !axes.includes(axis));
    /** @type {Map<string, {row: number, misses: number}>} by key, the best first */
    const nearest = new Map();
    for (const row of [current, ...ranked]) {
      const key = makeKey(axes, row);
      const misses = rest.reduce((sum, { codes }) => sum + Number(codes[row] !== codes[current]), 0);
      if (misses < (nearest.get(key)?.misses ?? Infinity)) nearest.set(key, { row, misses });
    }
    const keys = [...nearest.keys()].slice(0, choice?.values.length ? undefined : MAX_VALUES);
    const entries = keys.map((key) => {
      const codes = key.split(",").map(Number);
      return {
        codes,
        label: Layout.joinWords(axes, (axis) => axis.labelOf(codes[axes.indexOf(axis)])),
        full: codes.map((code, index) => `${axes[index].name}: ${axes[index].fullOf(code)}`).join(" · "),
        row: nearest.get(key)?.row ?? current,
        estimate: choice?.values.find(({ cells }) => cells.join() === key),
      };
    });
    return { axes, name: Layout.joinWords(axes, ({ name }) => name), choice, entries: sortEntries(entries, axes, state), total: nearest.size };
  });
}

/** @param {Entry[]} entries @param {Columns.Axis[]} axes @param {State} state */
function sortEntries(entries, axes, state) {
  // The numbers of a search are in the order in which it tried them; seeds have letters in the order of the experiment.
  const codes = axes.map((axis) => (axis.numeric && !Columns.isSeed(axis) && !state.order[axis.name] ? axis.order.toSorted((a, b) => Number(axis.values[a]) - Number(axis.values[b])) : Layout.orderCodes(axis, state)));
  const rankOf = (/** @type {Entry} */ entry) => entry.codes.reduce((sum, code, index) => sum * (axes[index].order.length + 1) + codes[index].indexOf(code), 0);
  return entries.sort((a, b) => rankOf(a) - rankOf(b));
}

/** A trial's settings as options of `sweeper run`, and as YAML. @param {Columns.Axis[]} settings @param {number} row */
export function writeSettings(settings, row) {
  const values = settings.map((axis) => [axis.name, ValueText.toJson(axis.value(row))]);
  const options = values.flatMap(([name, value]) => ["--set", `${name}=${value}`]).map(Workflow.quoteWord).join(" ");
  return { options, yaml: ["params:", ...values.map(([name, value]) => `  ${ValueText.toJson(name)}: ${value}`), ""].join("\n") };
}

/** The command that runs more seeds; "" if there is no axis or slot of seeds. @param {Dataset} dataset @param {number} count */
export function makeMoreSeeds(dataset, count) {
  const { file, results, asked, slots, search } = dataset.raw;
  const seed = dataset.columns.find((column) => column.codes !== null && (column.role === "axis" || slots.includes(column.name)) && Columns.isSeed(column) && column.numeric);
  if (seed === undefined || seed.codes === null || search || asked.options === null || count === 0) return "";
  const known = seed.values.map(BigInt);
  const last = known.reduce((most, value) => (value > most ? value : most), 0n);
  const values = [...known, ...Array.from({ length: count }, (_, index) => last + BigInt(index + 1))];
  const given = asked.options.findIndex((/** @type {string} */ word) => word.startsWith(`${seed.name}=`)); // after its --set
  const options = asked.options.filter((/** @type {string} */ _, /** @type {number} */ index) => given < 0 || (index !== given && index !== given - 1));
  return `sweeper run ${[file, ...options, "--set", `${seed.name}=[${values.join(", ")}]`, "--out", results].map(Workflow.quoteWord).join(" ")}`;
}
