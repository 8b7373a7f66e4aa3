// @ts-check
// The numbers behind the plots: which values are present, and the mean and range of each group of trials. No DOM.
"use strict";

const PlotData = (() => {
  /** @param {number} value */
  const formatShort = (value) => ValueText.toRounded(Number(value.toPrecision(4)));

  /**
   * The codes of an axis that these rows have, in the order of the view; [-1] without an axis.
   * @param {number[]} rows @param {Axis | undefined} axis @param {State} state
   */
  function findPresentCodes(rows, axis, state) {
    const present = new Set(axis === undefined ? [-1] : rows.map((row) => axis.codes[row]));
    return Layout.shownCodes(axis, state).filter((code) => present.has(code));
  }

  /**
   * The mean, lowest and highest number of the rows that share a key.
   * @param {number[]} rows @param {Column} metric @param {(row: number) => string} getKey @returns {Map<string, Group>}
   */
  function groupRows(rows, metric, getKey) {
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

  return { findPresentCodes, formatShort, groupRows };
})();
