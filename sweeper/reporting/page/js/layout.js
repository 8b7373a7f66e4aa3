// Arranges the trials in rows, columns and cells along the axes that the view chooses. No DOM.

import { placeAxes } from "../../../serving/page/js/first_view.js";
import * as Columns from "./columns.js";
/** @import { Dataset } from "./dataset.js" */
/** @import { State } from "./state.js" */

/** @typedef {"x" | "y" | "xx" | "yy"} Direction across, down, outer columns, outer rows */
/** @typedef {{inner: number, outer: number}} Line a row or column of the grid, by the codes of its values; -1: no value */
/** @typedef {[axis: Columns.Axis, code: number]} AxisValue */
/** @typedef {{name: string, labelOf: (code: number) => string, fullOf: (code: number) => string}} Head names an axis and its values at the head of lines */
/**
 * @typedef {object} Arrangement
 * @property {Record<Direction, Columns.Axis | undefined>} axis
 * @property {Record<Direction, Head | undefined>} heads what stands at the head of its rows and columns
 * @property {Line[]} columns
 * @property {Line[]} rows
 * @property {number} shown how many trials it shows
 * @property {(r: number, c: number) => number} find the first trial's row of the data, or -1 for an empty cell
 * @property {(r: number, c: number) => number[]} trials all rows of the data that share a cell, in written order
 * @property {(row: number) => boolean} hasMore whether another trial follows this one in its cell
 * @property {(r: number, c: number) => boolean} isFiltered whether a cell is empty only because this view leaves its trials out
 * @property {(r: number, c: number) => AxisValue[]} values what the trials of a cell have in common
 * @property {(row: number) => [number, number] | null} locate [r, c] of a trial; null if it is not shown
 * @property {(r: number, c: number) => boolean} [exists] only of a wrapped row: whether the last line has this cell
 */

/** @type {Direction[]} */
export const DIRECTIONS = ["x", "y", "xx", "yy"];
export const NO_DIRECTIONS = { x: "", y: "", xx: "", yy: "" }; // of the axes in a state
const MAX_FIRST_VALUES = 12; // of an axis in the first view of a search

/** Choose the axes of the first view. @param {Dataset} dataset @returns {Record<Direction, string>} */
export function chooseFirstView(dataset) {
  const axes = listFirstAxes(dataset).map((axis) => ({ name: axis.name, size: axis.order.length, longest: () => longestLabel(axis), axis }));
  return placeAxes(axes, ({ axis }, others) => isDetermined(dataset, axis, others.map((other) => other.axis)), ({ axis }, other) => isTogether(dataset, axis, other.axis));
}

/**
 * The axes that vary. An axis of a search may have another value in each point: then a grid along it would be a mere
 * diagonal, so only those with few values are among them, if there are any.
 * @param {Dataset} dataset
 */
function listFirstAxes(dataset) {
  const varying = dataset.axes.filter((axis) => axis.order.length > 1);
  const few = dataset.raw.search ? varying.filter((axis) => axis.order.length <= MAX_FIRST_VALUES) : [];
  return few.length > 0 ? few : varying;
}

/** @param {Columns.Axis} axis */
const longestLabel = (axis) => Math.max(...axis.order.map((code) => axis.labelOf(code).length));

/**
 * Whether the values of `others` fix the value of `axis`, as a partner in a zip does, or a part of a choice.
 * @param {Dataset} dataset @param {Columns.Axis} axis @param {Columns.Axis[]} others
 */
function isDetermined(dataset, axis, others) {
  if (others.length === 0) return false;
  const codes = new Map();
  for (let row = 0; row < dataset.size; row++) {
    const key = others.reduce((sum, other) => sum * (other.values.length + 1) + other.codes[row] + 1, 0);
    const before = codes.get(key);
    if (before === undefined) codes.set(key, axis.codes[row]);
    else if (before !== axis.codes[row]) return false;
  }
  return true;
}

/** The codes of an axis in the order of the view, hidden ones included. @param {Columns.Axis} axis @param {State} view */
export function orderCodes(axis, view) {
  const known = new Set(axis.order);
  const wanted = (view.order[axis.name] ?? []).filter((code) => known.has(code));
  return [...new Set([...wanted, ...axis.order])];
}

/** The codes of an axis that are not hidden, in the order of the view; [-1] without an axis. @param {Columns.Axis | undefined} axis @param {State} view */
export function shownCodes(axis, view) {
  if (axis === undefined) return [-1];
  const hidden = new Set(view.hidden[axis.name] ?? []);
  return orderCodes(axis, view).filter((code) => !hidden.has(code));
}

/** @param {Dataset} dataset @param {State} view @param {Direction} direction */
const axisAlong = (dataset, view, direction) => dataset.axes.find((axis) => axis.name === view[direction]);

/** The values that are pinned for axes without a direction. @param {Dataset} dataset @param {State} view @returns {AxisValue[]} */
function listPins(dataset, view) {
  return dataset.axes
    .filter((axis) => view.pins[axis.name] !== undefined && !DIRECTIONS.some((direction) => view[direction] === axis.name))
    .map((axis) => [axis, view.pins[axis.name]]);
}

/** Make a test whether no value of a row is hidden. @param {Columns.Axis[]} axes @param {State} view @returns {(row: number) => boolean} */
export function makeVisibleTest(axes, view) {
  const hiding = axes.filter((axis) => view.hidden[axis.name]?.length > 0).map((axis) => ({ axis, codes: new Set(view.hidden[axis.name]) }));
  return (row) => hiding.every(({ axis, codes }) => !codes.has(axis.codes[row]));
}

/**
 * Arrange the rows of the data that pass `holds` as a grid. Trials that share a cell are sorted as the view says, by
 * the column that colours the cells.
 * @param {Dataset} dataset @param {State} view @param {(row: number) => boolean} [holds] @returns {Arrangement}
 */
export function arrange(dataset, view, holds = () => true) {
  const [x, y, xx, yy] = DIRECTIONS.map((direction) => axisAlong(dataset, view, direction));
  const across = makeLines(x, xx, view);
  const down = makeLines(y, yy, view);
  const pins = listPins(dataset, view);
  const isPinned = (/** @type {Columns.Axis} */ axis) => pins.some(([pinned]) => pinned === axis);
  const isVisible = makeVisibleTest(dataset.axes.filter((axis) => !isPinned(axis)), view); // a chosen value is shown even if it is hidden
  /** @type {Map<number, number>} cell -> its first row of the data */
  const cells = new Map();
  /** @type {Set<number>} cells with trials that the filter, a pin or a hidden value leaves out */
  const filtered = new Set();
  const next = new Int32Array(dataset.size).fill(-1); // the next row in the same cell
  const used = { across: new Uint8Array(across.lines.length), down: new Uint8Array(down.lines.length) };
  let shown = 0;
  const order = orderStacks(dataset, view);
  for (let index = dataset.size - 1; index >= 0; index--) {
    const row = order === null ? index : order[index];
    const [c, r] = [across.indexOf(row), down.indexOf(row)];
    if (c < 0 || r < 0) continue;
    const key = r * across.lines.length + c;
    if (pins.some(([axis, code]) => axis.codes[row] !== code) || !isVisible(row) || !holds(row)) {
      filtered.add(key);
      continue;
    }
    next[row] = cells.get(key) ?? -1;
    cells.set(key, row);
    used.across[c] = used.down[r] = 1;
    shown += 1;
  }
  const axis = { x, y, xx, yy };
  const placed = Object.values(axis).flatMap((one) => one ?? []);
  const heads = Object.fromEntries(DIRECTIONS.map((direction) => [direction, axis[direction] && makeHead(dataset, axis[direction], placed)]));
  return compact(axis, /** @type {Arrangement["heads"]} */ (heads), across, down, used, { cells, filtered, next, shown, pins });
}

/**
 * The head of an axis. Beside each value it shows those of the axes that vary together with it, as in a zip: a reader
 * would otherwise think that `cfg` makes the difference that its partner `sampler` makes.
 * @param {Dataset} dataset @param {Columns.Axis} axis
 * @param {Columns.Axis[]} [placed] axes with a head of their own @returns {Head}
 */
export function makeHead(dataset, axis, placed = []) {
  const partners = dataset.axes.filter((one) => one !== axis && !placed.includes(one) && isPartner(dataset, axis, one));
  if (partners.length === 0) return axis;
  const axes = [axis, ...partners];
  /** @type {Map<number, number>} */
  const rowOf = new Map();
  for (let row = 0; row < dataset.size; row++) if (!rowOf.has(axis.codes[row])) rowOf.set(axis.codes[row], row);
  /** @param {"labelOf" | "fullOf"} kind @returns {(code: number) => string} */
  const makeJoin = (kind) => (code) => {
    const row = rowOf.get(code) ?? -1;
    const present = axes.filter((other) => other.codes[row] >= 0);
    return joinWords(present, (other) => other[kind](other.codes[row])) || axis[kind](code);
  };
  return { name: joinWords(axes, ({ name }) => name), labelOf: makeJoin("labelOf"), fullOf: makeJoin("fullOf") };
}

/**
 * What is said of several axes as one text. A width and the height that follows it are one size: `192 x 192`.
 * @param {Columns.Axis[]} axes @param {(axis: Columns.Axis) => string} write
 * @param {(axis: Columns.Axis) => string} [writePart] the same for a width or a height
 */
export function joinWords(axes, write, writePart = write) {
  const width = axes.findIndex(({ name }, index) => /width$/i.test(name) && /height$/i.test(axes[index + 1]?.name ?? ""));
  const words = axes.map(width < 0 ? write : (axis, index) => (index === width || index === width + 1 ? writePart(axis) : write(axis)));
  if (width >= 0) words.splice(width, 2, words.slice(width, width + 2).join(" x "));
  return words.join(" · ");
}

/** Whether two axes vary together, one value of each with one of the other. @param {Dataset} dataset @param {Columns.Axis} axis @param {Columns.Axis} other */
function isPartner(dataset, axis, other) {
  return axis.order.length > 1 && other.order.length > 1 && isPaired(dataset, axis, other) && isTogether(dataset, axis, other);
}

/** Whether a `zip` of the sweep has two axes. @param {Dataset} dataset @param {Columns.Axis} axis @param {Columns.Axis} other @returns {boolean} */
const isTogether = ({ raw }, axis, other) => raw.together.some((/** @type {string[]} */ pair) => pair.includes(axis.name) && pair.includes(other.name));

/** All rows in the order in which trials lie in a cell, the one on top first; null for the written order. @param {Dataset} dataset @param {State} view */
function orderStacks(dataset, view) {
  const column = dataset.column(view.colour);
  if (view.stack === "first" || !column?.numeric) return null;
  const sort = view.stack === "highest" ? `-${column.name}` : column.name;
  return Columns.sortRows(dataset, dataset.listRows(), sort);
}

/**
 * All (outer, inner) pairs of values in one direction; `indexOf(row)` is the index of a trial's line, or -1.
 * @param {Columns.Axis | undefined} inner @param {Columns.Axis | undefined} outer @param {State} view
 */
function makeLines(inner, outer, view) {
  const inners = shownCodes(inner, view);
  const outers = shownCodes(outer, view);
  const innerIndex = new Map(inners.map((code, index) => [code, index]));
  const outerIndex = new Map(outers.map((code, index) => [code, index]));
  /** @type {Line[]} */
  const lines = outers.flatMap((outerCode) => inners.map((code) => ({ inner: code, outer: outerCode })));
  /** @param {number} row */
  const indexOf = (row) => {
    const i = innerIndex.get(inner === undefined ? -1 : inner.codes[row]);
    const o = outerIndex.get(outer === undefined ? -1 : outer.codes[row]);
    return i === undefined || o === undefined ? -1 : o * inners.length + i;
  };
  return { lines, indexOf };
}

/** @typedef {ReturnType<typeof makeLines>} Lines */

/**
 * Leave out the lines without a trial: the halves of a zip would otherwise fill the page with empty cells.
 * @param {Record<Direction, Columns.Axis | undefined>} axis @param {Record<Direction, Head | undefined>} heads
 * @param {Lines} across @param {Lines} down
 * @param {{across: Uint8Array, down: Uint8Array}} used
 * @param {{cells: Map<number, number>, filtered: Set<number>, next: Int32Array, shown: number, pins: AxisValue[]}} content
 * @returns {Arrangement}
 */
function compact(axis, heads, across, down, used, { cells, filtered, next, shown, pins }) {
  /** @param {Lines} lines @param {Uint8Array} isUsed */
  const keepUsed = ({ lines }, isUsed) => lines.map((line, index) => ({ ...line, index })).filter((line) => isUsed[line.index]);
  const columns = keepUsed(across, used.across);
  const rows = keepUsed(down, used.down);
  const columnByIndex = new Map(columns.map((line, c) => [line.index, c]));
  const rowByIndex = new Map(rows.map((line, r) => [line.index, r]));
  /** @param {number} r @param {number} c */
  const keyOf = (r, c) => rows[r].index * across.lines.length + columns[c].index;
  return {
    axis,
    heads,
    columns,
    rows,
    shown,
    find: (r, c) => cells.get(keyOf(r, c)) ?? -1,
    trials(r, c) {
      const trials = [];
      for (let row = cells.get(keyOf(r, c)) ?? -1; row >= 0; row = next[row]) trials.push(row);
      return trials;
    },
    hasMore: (row) => next[row] >= 0,
    isFiltered: (r, c) => filtered.has(keyOf(r, c)) && !cells.has(keyOf(r, c)),
    values(r, c) {
      const { inner, outer } = columns[c];
      /** @type {[Columns.Axis | undefined, number][]} */
      const values = [[axis.x, inner], [axis.xx, outer], [axis.y, rows[r].inner], [axis.yy, rows[r].outer], ...pins];
      return /** @type {AxisValue[]} */ (values.filter(([one]) => one !== undefined));
    },
    locate(row) {
      const [r, c] = [rowByIndex.get(down.indexOf(row)), columnByIndex.get(across.indexOf(row))];
      return r === undefined || c === undefined ? null : [r, c];
    },
  };
}

/**
 * Wrap one long row into lines, as words in a paragraph; its labels then belong to the cells.
 * @param {Arrangement} arrangement @param {number[]} starts the first cell of each line @returns {Arrangement}
 */
export function wrap(arrangement, starts) {
  const ends = [...starts.slice(1), arrangement.columns.length];
  /** @param {number} r @param {number} c */
  const columnOf = (r, c) => (starts[r] + c < ends[r] ? starts[r] + c : -1);
  return {
    ...arrangement,
    axis: NO_AXES,
    heads: NO_AXES,
    rows: makeBlank(starts.length),
    columns: makeBlank(starts.reduce((most, start, r) => Math.max(most, ends[r] - start), 0)),
    isFiltered: (r, c) => columnOf(r, c) >= 0 && arrangement.isFiltered(0, columnOf(r, c)),
    find: (r, c) => (columnOf(r, c) < 0 ? -1 : arrangement.find(0, columnOf(r, c))),
    trials: (r, c) => (columnOf(r, c) < 0 ? [] : arrangement.trials(0, columnOf(r, c))),
    exists: (r, c) => columnOf(r, c) >= 0,
    locate(row) {
      const index = arrangement.locate(row)?.[1];
      const r = index === undefined ? -1 : starts.findLastIndex((start) => start <= index);
      return index === undefined ? null : [r, index - starts[r]];
    },
  };
}

const NO_AXES = { x: undefined, y: undefined, xx: undefined, yy: undefined };
/** @param {number} length @returns {Line[]} */
const makeBlank = (length) => Array.from({ length }, () => ({ inner: -1, outer: -1 }));

/** Arrange rows of the data one after the other, as the gallery shows them. @param {number[]} list @returns {Arrangement} */
export function arrangeList(list) {
  const indices = new Map(list.map((row, index) => [row, index]));
  return {
    axis: NO_AXES,
    heads: NO_AXES,
    rows: makeBlank(1),
    columns: makeBlank(list.length),
    shown: list.length,
    find: (_, c) => list[c],
    trials: (_, c) => [list[c]],
    hasMore: () => false,
    isFiltered: () => false,
    values: () => [],
    locate(row) {
      const index = indices.get(row);
      return index === undefined ? null : [0, index];
    },
  };
}

/** @param {Head | undefined} head @param {number} code */
export const nameValue = (head, code) => (head ? `${head.name} ${head.labelOf(code)}` : "");

/** Group consecutive lines with one outer value; `to` is exclusive. @param {Line[]} lines @returns {{outer: number, from: number, to: number}[]} */
export function groupByOuter(lines) {
  /** @type {{outer: number, from: number, to: number}[]} */
  const groups = [];
  lines.forEach(({ outer }, index) => {
    const last = groups.at(-1);
    if (last?.outer === outer) last.to = index + 1;
    else groups.push({ outer, from: index, to: index + 1 });
  });
  return groups;
}

/** Axes without a direction whose value the other axes do not fix: a cell may hold several of their values. @param {Dataset} dataset @param {State} view */
export function listFreeAxes(dataset, view) {
  const placed = DIRECTIONS.flatMap((direction) => axisAlong(dataset, view, direction) ?? []);
  return dataset.axes.filter((axis) => axis.order.length > 1 && !placed.includes(axis) && !isDetermined(dataset, axis, placed));
}

/** @type {WeakMap<Columns.Axis, Map<Columns.Axis, boolean>>} */
const pairs = new WeakMap();

/** Whether each value of an axis goes with exactly one of the other, as in a zip. @param {Dataset} dataset @param {Columns.Axis} axis @param {Columns.Axis} other */
function isPaired(dataset, axis, other) {
  const known = pairs.get(axis) ?? new Map();
  pairs.set(axis, known);
  if (!known.has(other)) known.set(other, isDetermined(dataset, axis, [other]) && isDetermined(dataset, other, [axis]));
  return known.get(other);
}

/**
 * The free axes that the user can pin, each with the codes that go with the other pins. Only one of paired axes is
 * listed.
 * @param {Dataset} dataset @param {State} view @returns {[Columns.Axis, number[]][]}
 */
export function listPinChoices(dataset, view) {
  const pins = listPins(dataset, view);
  const isPinned = (/** @type {Columns.Axis} */ axis) => pins.some(([pinned]) => pinned === axis);
  /** @type {Columns.Axis[]} */
  const offered = [];
  const free = listFreeAxes(dataset, view);
  for (const axis of [...free.filter(isPinned), ...free.filter((one) => !isPinned(one))])
    {if (isPinned(axis) || !offered.some((one) => isPaired(dataset, axis, one))) offered.push(axis);}
  return free.filter((axis) => offered.includes(axis) && axis.name !== view.time).map((axis) => [axis, findPossibleCodes(dataset, axis, pins)]);
}

/** @param {Dataset} dataset @param {Columns.Axis} axis @param {AxisValue[]} pins */
function findPossibleCodes(dataset, axis, pins) {
  const others = pins.filter(([pinned]) => pinned !== axis);
  if (others.length === 0) return axis.order;
  const possible = new Set(pins.filter(([pinned]) => pinned === axis).map(([, code]) => code)); // the pin itself stays listed
  for (let row = 0; row < dataset.size; row++)
    {if (others.every(([other, code]) => other.codes[row] === code)) possible.add(axis.codes[row]);}
  return axis.order.filter((code) => possible.has(code));
}
