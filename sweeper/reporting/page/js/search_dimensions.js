// The axes of the charts of a search: where a point lies on each, and the filter of a range that one drags there. No DOM.

import * as Colours from "./colours.js";
import * as Expression from "./expression.js";
import * as PlotData from "./plot_data.js";
import * as ValueText from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Objective, SearchPoint } from "./search_points.js" */

/** @typedef {{share: number, label: string}} ShareTick share: 0 at the low end of the axis, 1 at the high end */
/**
 * @typedef {object} Dimension
 * @property {string} name the column
 * @property {string} title
 * @property {string[]} heads the lines above the axis, where there is little room
 * @property {(point: SearchPoint) => number | null} toShare null if the point has no value
 * @property {(point: SearchPoint) => string} format
 * @property {ShareTick[]} ticks
 * @property {(from: ShareTick, to: ShareTick) => string} makeCondition of a range between two stops
 * @property {(where: string) => FoundRange | null} findRange the range with which a filter ends
 * @property {ShareTick[]} stops the values of all points, from low to high
 */
/** @typedef {{low: number, high: number}} StopRange of a dimension, by the indices of its stops */
/** @typedef {{range: StopRange, text: string}} FoundRange text: the part of the filter that says it */

const LOG_RATIO = 100; // from this ratio of the largest to the smallest value on, the scale is logarithmic

/** @param {Axis} axis @param {SearchPoint[]} points @returns {Dimension} */
export function makeOfAxis(axis, points) {
  if (axis.numeric) {
    const toText = (/** @type {number} */ row) => (axis.texts ? axis.label(row) : ValueText.toRounded(axis.value(row)));
    const getNumber = (/** @type {SearchPoint} */ { rows }) => (ValueText.isNumber(axis.value(rows[0])) ? Number(axis.value(rows[0])) : null);
    return makeNumeric(axis, axis.name, getNumber, points, ({ rows }) => toText(rows[0]), true);
  }
  const present = new Set(points.map((point) => axis.codes[point.rows[0]]));
  const codes = axis.order.filter((code) => present.has(code));
  const ticks = codes.map((code, index) => ({ share: codes.length > 1 ? index / (codes.length - 1) : 0.5, label: axis.labelOf(code), code }));
  /** @type {Dimension["makeCondition"]} */
  const makeCondition = (from, to) => {
    const chosen = ticks.filter(({ share }) => share >= from.share && share <= to.share);
    return `${Expression.quoteName(axis.name)} in [${chosen.map(({ code }) => Expression.toLiteral(code < 0 ? null : axis.values[code])).join(", ")}]`;
  };
  return {
    name: axis.name,
    title: axis.name,
    heads: [axis.name],
    toShare: (point) => ticks.find(({ code }) => code === axis.codes[point.rows[0]])?.share ?? null,
    format: (point) => axis.labelOf(axis.codes[point.rows[0]]),
    ticks,
    stops: ticks,
    makeCondition,
    findRange: (where) => findCategoryRange(where, ticks, makeCondition),
  };
}

/** @param {Objective} objective @param {number} index @param {SearchPoint[]} points @returns {Dimension} */
export function makeOfObjective({ column, title, short, direction }, index, points) {
  const getNumber = (/** @type {SearchPoint} */ point) => point.objectives[index];
  return { ...makeNumeric(column, title, getNumber, points, (point) => column.label(point.rows.find((row) => typeof column.value(row) === "number") ?? point.rows[0])), heads: [short, direction] };
}

/**
 * @param {Column} column @param {string} title @param {(point: SearchPoint) => number | null} getNumber
 * @param {SearchPoint[]} points @param {(point: SearchPoint) => string} format @param {boolean} [isSpace] whether the scale ends
 * where the points do, because there is nothing to find beyond @returns {Dimension}
 */
function makeNumeric({ name }, title, getNumber, points, format, isSpace = false) {
  const numbers = [...new Set(points.map(getNumber).filter((value) => value !== null))].sort((a, b) => a - b);
  const [low, high] = Colours.findExtent(numbers) ?? [0, 0];
  const isLog = low > 0 && high / low > LOG_RATIO;
  const wide = isLog ? makeLogTicks([low, high]) : PlotData.makeTicks([low, high]);
  const inside = wide.filter((tick) => tick >= low && tick <= high);
  const ticks = isSpace && !isLog && inside.length > 1 ? inside : wide;
  const scale = isLog ? Math.log10 : (/** @type {number} */ value) => value;
  /** @type {[number, number]} */
  const extent = [scale(Math.min(low, ticks[0])), scale(Math.max(high, ticks[ticks.length - 1]))];
  const shareOf = (/** @type {number} */ value) => Colours.toShare(scale(value), extent);
  const formatTick = isLog ? ValueText.toRounded : ValueText.makeFormat(ticks);
  const formatStop = isLog ? ValueText.toRounded : ValueText.makeFormat(numbers);
  const stops = numbers.map((value) => ({ share: shareOf(value), label: formatStop(value), value }));
  const valueAt = (/** @type {ShareTick} */ { share }) => stops.find((stop) => stop.share === share)?.value;
  return {
    name,
    title: isLog ? `${title} (log)` : title,
    heads: [title, ...(isLog ? ["(log)"] : [])],
    toShare: (point) => {
      const value = getNumber(point);
      return value === null ? null : shareOf(value);
    },
    format: (point) => (getNumber(point) === null ? "(none)" : format(point)),
    ticks: ticks.map((value) => ({ share: shareOf(value), label: formatTick(value) })),
    stops,
    makeCondition: (from, to) => `${Expression.quoteName(name)} >= ${valueAt(from)} and ${Expression.quoteName(name)} <= ${valueAt(to)}`,
    findRange: (where) => findNumberRange(where, name, numbers),
  };
}

/** Powers of ten from below the lowest to above the highest number, as few as six. @param {[number, number]} extent */
function makeLogTicks([low, high]) {
  const [first, last] = [Math.floor(Math.log10(low) + 1e-9), Math.ceil(Math.log10(high) - 1e-9)];
  const step = Math.ceil((last - first) / 5);
  return Array.from({ length: Math.ceil((last - first) / step) + 1 }, (_, index) => Number((10 ** (first + index * step)).toPrecision(12)));
}

// --- ranges in the filter

/**
 * Divide a filter into the ranges of dimensions at its end, as `writeRanges` writes them, and the rest.
 * @param {string} where @param {Dimension[]} dimensions @param {Dataset} dataset
 * @returns {{rest: string, ranges: Map<string, StopRange>}}
 */
export function readRanges(where, dimensions, dataset) {
  let rest = where.trim();
  /** @type {Map<string, StopRange>} */
  const ranges = new Map();
  for (let left = dimensions; left.length > 0; ) {
    const [dimension, found] = left.map((one) => /** @type {const} */ ([one, one.findRange(rest)])).find(([, one]) => one !== null) ?? [];
    if (dimension === undefined || !found) break;
    ranges.set(dimension.name, found.range);
    rest = rest.slice(0, -found.text.length).replace(/ and $/, "");
    left = left.filter((one) => one !== dimension);
  }
  const inner = /^\((.*)\)$/s.exec(rest)?.[1];
  if (inner !== undefined && Expression.compile(inner, dataset).error === "") return { rest: inner, ranges };
  // `a or b and steps >= 4` would change its meaning
  return / or /i.test(rest) && ranges.size > 0 ? { rest: where, ranges: new Map() } : { rest, ranges };
}

/**
 * The range of numbers with which a filter ends; a person may have written other numbers than those of the stops.
 * @param {string} where @param {string} name @param {number[]} numbers from low to high @returns {FoundRange | null}
 */
function findNumberRange(where, name, numbers) {
  const quoted = Expression.quoteName(name).replace(/[$()*+.?[\\\]^{|}]/g, "\\$&");
  const match = new RegExp(`(?:^| and )(${quoted} >= (\\S+) and ${quoted} <= (\\S+))$`).exec(where);
  if (match === null) return null;
  const [low, high] = [numbers.findIndex((value) => value >= Number(match[2])), numbers.findLastIndex((value) => value <= Number(match[3]))];
  return low >= 0 && low <= high ? { range: { low, high }, text: match[1] } : null;
}

/**
 * The range of categories with which a filter ends.
 * @param {string} where @param {ShareTick[]} stops @param {Dimension["makeCondition"]} makeCondition @returns {FoundRange | null}
 */
function findCategoryRange(where, stops, makeCondition) {
  for (let low = 0; low < stops.length; low++) {
    for (let high = low; high < stops.length; high++) {
      const text = makeCondition(stops[low], stops[high]);
      if (where === text || where.endsWith(` and ${text}`)) return { range: { low, high }, text };
    }
  }
  return null;
}

/**
 * The filter with other ranges. A range of all values is left out.
 * @param {string} rest @param {Map<string, StopRange>} ranges @param {Dimension[]} dimensions @param {Dataset} dataset
 */
export function writeRanges(rest, ranges, dimensions, dataset) {
  const conditions = dimensions.flatMap((one) => {
    const range = ranges.get(one.name);
    return range === undefined || (range.low === 0 && range.high === one.stops.length - 1) ? [] : [one.makeCondition(one.stops[range.low], one.stops[range.high])];
  });
  return conditions.length === 0 ? rest : Expression.narrow(Expression.compile(rest, dataset), conditions);
}
