// @ts-check
// The numbers behind the plots: which values are present, and the mean and range of each group of trials. No DOM.

import * as Colours from "./colours.js";
import * as Expression from "./expression.js";
import * as Layout from "./layout.js";
import * as ValueText from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Group } from "./heat_map.js" */
/** @import { Context } from "./main.js" */
/** @import { State } from "./state.js" */
/** @import { Value } from "./value_text.js" */

/** @param {number} value */
export const formatShort = (value) => ValueText.toRounded(Number(value.toPrecision(4)));

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
 * The mean of the numbers among some values; undefined if there is none.
 * @param {Value[]} values
 */
export function computeMean(values) {
  const numbers = values.filter((value) => typeof value === "number");
  return numbers.length === 0 ? undefined : numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}

/**
 * Round numbers that divide an extent into about `count` steps.
 * @param {[number, number]} extent @param {number} [count]
 */
export function makeTicks([low, high], count = 5) {
  if (low === high) return [low];
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = [1, 2, 5, 10].map((part) => part * power).find((one) => (high - low) / one <= count) ?? 10 * power;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
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
