// The numbers behind the plots: which values are present, and the mean and range of each group of trials. No DOM.

import * as Colours from "./colours.js";
import * as Expression from "./expression.js";
import * as Layout from "./layout.js";
import { makeFormat, toRounded } from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Group } from "./plots.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Context } from "./main.js" */
/** @import { State } from "./state.js" */
/** @import { Value } from "./value_text.js" */

/**
 * The codes of an axis that these rows have, in the order of the view; [-1] without an axis.
 * @param {number[]} rows @param {Axis | undefined} axis @param {State} state
 */
export function findPresentCodes(rows, axis, state) {
  const present = new Set(axis === undefined ? [-1] : rows.map((row) => axis.codes[row]));
  return Layout.shownCodes(axis, state).filter((code) => present.has(code));
}

/**
 * The mean, lowest and highest number of the rows that share a key.
 * @param {number[]} rows @param {Column} metric @param {(row: number) => string} getKey @returns {Map<string, Group>}
 */
export function groupRows(rows, metric, getKey) {
  const groups = new Map();
  for (const row of rows) {
    const value = metric.value(row);
    const group = groups.get(getKey(row)) ?? { sum: 0, count: 0, low: Infinity, high: -Infinity };
    group.sum += value;
    group.count += 1;
    group.low = Math.min(group.low, value);
    group.high = Math.max(group.high, value);
    groups.set(getKey(row), group);
  }
  for (const group of groups.values()) group.mean = group.sum / group.count;
  return groups;
}

/**
 * Make a function that says of a row (0) or a column (1) of the grid what its trials have: the mean of the number that colours
 * them, and how many are kept. Null if there is nothing to say.
 * @param {Layout.Arrangement} arrangement @param {Context} context
 */
export function makeLineSummary({ locate }, { colour, marks, getRows }) {
  if (colour === undefined && marks.count() === 0) return null;
  /** @type {Map<number, {sum: number, count: number, kept: number}>[] | null} */
  let lines = null;
  const count = () => {
    const found = [new Map(), new Map()];
    for (const row of getRows()) {
      const value = colour?.value(row);
      (locate(row) ?? []).forEach((line, direction) => {
        const entry = found[direction].get(line) ?? { sum: 0, count: 0, kept: 0 };
        if (typeof value === "number") Object.assign(entry, { sum: entry.sum + value, count: entry.count + 1 });
        if (marks.get(row).verdict === "keep") entry.kept += 1;
        found[direction].set(line, entry);
      });
    }
    return found;
  };
  const describe = (/** @type {0 | 1} */ direction, /** @type {number} */ line) => {
    const entry = (lines ??= count())[direction].get(line);
    const mean = entry && entry.count > 0 && `mean ${(colour?.format ?? toRounded)(entry.sum / entry.count)}`;
    return [mean, entry && entry.kept > 0 && `${entry.kept} kept`].filter(Boolean).join(" · ");
  };
  return { describe, reset: () => (lines = null) };
}

// Student's t, two-sided 95 %, for 1 to 10 degrees of freedom (Fisher and Yates 1963); beyond, its expansion.
const T_VALUES = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
const getT = (/** @type {number} */ df) => T_VALUES[df - 1] ?? 1.96 + 2.37 / df + 2.82 / df ** 2;

/**
 * Half of the 95 % interval of each mean that `groupRows` makes of the rows of a line at a value of `along`. Trials that
 * differ in `along` alone are a block, and what blocks have in common is left out (Morey, Tutorials in Quantitative Methods
 * for Psychology 4, 2008, 61-64). A mean of one trial has none.
 * @param {number[]} rows @param {Column} metric @param {Axis} along @param {Axis | undefined} per @param {Dataset} dataset
 */
export function computeMargins(rows, metric, along, per, dataset) {
  const others = dataset.axes.filter((axis) => axis !== along && axis.order.length > 1);
  const keys = new Map(rows.map((row) => [row, others.map(({ codes }) => codes[row]).join()]));
  const blocks = groupRows(rows, metric, (row) => keys.get(row) ?? "");
  const size = [...blocks.values()].reduce((most, { count }) => Math.max(most, count), 0);
  /** @type {Map<string, number[]>} */
  const groups = new Map();
  for (const row of rows) {
    const key = `${per === undefined ? 0 : per.codes[row]},${along.codes[row]}`;
    const value = metric.value(row) - (size > 1 ? /** @type {Group} */ (blocks.get(keys.get(row) ?? "")).mean : 0);
    if (!groups.get(key)?.push(value)) groups.set(key, [value]);
  }
  return new Map([...groups].flatMap(([key, values]) => {
    const [count, mean] = [values.length, values.reduce((sum, value) => sum + value, 0) / values.length];
    if (count < 2) return [];
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
    return [[key, getT(count - 1) * Math.sqrt(((size > 1 ? size / (size - 1) : 1) * variance) / count)]];
  }));
}

/** @param {number} count */
export const countTrials = (count) => `${count.toLocaleString("en")} trial${count === 1 ? "" : "s"}`;

/** The mean of the numbers among some values; undefined if there is none. @param {Value[]} values */
export function computeMean(values) {
  const numbers = values.filter((value) => typeof value === "number");
  return numbers.length === 0 ? undefined : numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}

/** Round numbers that divide an extent into about `count` steps. @param {[number, number]} extent @param {number} [count] */
export function makeTicks([low, high], count = 5) {
  if (low === high) return [low];
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = [1, 2, 5, 10].map((part) => part * power).find((size) => (high - low) / size <= count) ?? 10 * power;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/**
 * An edge of a plot for some numbers: its ticks, and where a number lies between the first and the last of them.
 * @param {Iterable<Value>} values @param {number} [count]
 */
export function makeAxis(values, count) {
  const bounds = makeTicks(Colours.findExtent(values) ?? [0, 0], count);
  const format = makeFormat(bounds);
  const toShare = (/** @type {number} */ value) => Colours.toShare(value, [bounds[0], bounds[bounds.length - 1]]);
  return { bounds, format, toShare, ticks: bounds.map((value) => ({ share: toShare(value), label: format(value) })) };
}

/**
 * Show the trials of a part of a plot in the gallery: no hidden value, and none without the number that is plotted.
 * @param {Context} context @param {Column} metric @param {string[]} conditions
 */
export function openTrials({ dataset, state, getFilter, getRows, update }, metric, conditions) {
  const isComplete = getRows().every((row) => typeof metric.value(row) === "number");
  const known = isComplete ? [] : [`${Expression.quoteName(metric.name)} != none`];
  update({ view: "gallery", where: Expression.narrow(getFilter(), [...conditions, ...known, ...Expression.excludeHidden(dataset.axes, state)]) });
}

/**
 * How many of the values fall into each of `binCount` equal parts of their extent.
 * @param {number[]} values @param {[number, number]} extent @param {number} binCount @returns {number[]}
 */
export function countBins(values, extent, binCount) {
  const counts = new Array(binCount).fill(0);
  for (const value of values) counts[Math.min(binCount - 1, Math.floor(Colours.toShare(value, extent) * binCount))] += 1;
  return counts;
}
