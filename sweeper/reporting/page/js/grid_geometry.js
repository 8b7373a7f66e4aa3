// @ts-check
// Positions of the grid's lines in pixels, and which lines are in view. Nothing here reads the document.

import * as Layout from "./layout.js";
/** @import { Dataset } from "./dataset.js" */
/** @import { Arrangement, Line } from "./layout.js" */
/** @import { Context } from "./main.js" */
/** @import { State } from "./state.js" */

/** @typedef {[from: number, to: number]} LineRange indices of lines; `to` is exclusive */
/**
 * @typedef {object} Geometry  all in pixels
 * @property {number} gap between cells
 * @property {number} band height of an outer row's title
 * @property {number} cellWidth
 * @property {number} cellHeight
 * @property {number} caption height of a cell's caption
 * @property {number} reasonLines how many lines of an error fit into a cell
 * @property {number} side width of the row labels
 * @property {number} outer height of the titles of outer columns
 * @property {number} head height of all column labels, `outer` included
 * @property {Float64Array} tops of the rows
 * @property {Float64Array} lefts of the columns
 * @property {number} height of all rows
 * @property {number} width of all columns
 */

const GAP = 4;
const BAND = 30;
const OUTER_GAP = 14; // between groups of columns
const SCROLLBAR = 18;
const [MIN_SIZE, MAX_SIZE] = [48, 512]; // of a cell

/** Whether the window is as small as a phone's; css/page.css has the same limits. */
export const isSmallWindow = () => innerWidth <= 600 || innerHeight <= 520;

/**
 * Arrange the trials. `perLine` is the number of cells in a line if a single row is wider than the view and is to be
 * wrapped, else 0.
 * @param {number} width pixels
 * @param {Context} context
 */
export function arrange(width, { dataset, state, holds, getSortedRows }) {
  const perLine = Math.max(1, Math.floor((width - 24) / (state.size + 4)));
  if (state.view === "gallery") return { arrangement: Layout.arrangeList(getSortedRows(), perLine), perLine: 0 };
  const arrangement = Layout.arrange(dataset, state, holds);
  const { x, y, xx, yy } = arrangement.axis;
  const isLong = x !== undefined && !y && !xx && !yy && arrangement.columns.length > perLine;
  return { arrangement, perLine: isLong ? perLine : 0 };
}

/**
 * Compute the geometry of a grid.
 * @param {Arrangement} arrangement @param {State} state @param {Dataset} dataset
 * @param {number} windowWidth pixels
 * @returns {Geometry}
 */
export function compute(arrangement, state, dataset, windowWidth) {
  const cells = computeCells(state, dataset);
  const labels = computeLabels(arrangement, state, windowWidth < 600);
  const { xx, yy } = arrangement.axis;
  const rows = computeOffsets(arrangement.rows, cells.cellHeight + GAP, yy ? BAND : 0, yy ? 10 : 0);
  const columns = computeOffsets(arrangement.columns, cells.cellWidth + GAP, 0, xx ? OUTER_GAP : 0);
  return { gap: GAP, band: BAND, ...cells, ...labels, tops: rows.starts, lefts: columns.starts, height: rows.end, width: columns.end };
}

/**
 * The size of cells with which all columns fit into a width, within what the size may be.
 * @param {Dataset} dataset @param {State} state
 * @param {number} width pixels
 * @param {(row: number) => boolean} [holds]
 */
export function fitSize(dataset, state, width, holds) {
  const arrangement = Layout.arrange(dataset, state, holds);
  const { side } = computeLabels(arrangement, state, width < 600);
  const gaps = arrangement.axis.xx ? Layout.groupByOuter(arrangement.columns).length * OUTER_GAP : 0;
  const room = width - side - gaps - SCROLLBAR;
  return Math.min(MAX_SIZE, Math.max(MIN_SIZE, Math.floor(room / Math.max(1, arrangement.columns.length)) - GAP));
}

/**
 * Cells are as wide as the state says, and their height follows the shape of the first picture.
 * @param {State} state @param {Dataset} dataset
 */
function computeCells(state, dataset) {
  const sample = dataset.fileList.findSized();
  const ratio = sample ? Math.min(2, Math.max(0.5, sample.height / sample.width)) : 1;
  const caption = state.captions ? 20 : 0;
  const height = Math.round(state.size * ratio);
  // A line has 15 pixels, as in css/grid.css; the rest of the cell shows the status.
  const reasonLines = Math.max(1, Math.floor((height * 0.6) / 15));
  return { cellWidth: state.size, cellHeight: height + caption, caption, reasonLines };
}

/**
 * Labels are as large as their words need, within limits.
 * @param {Arrangement} arrangement @param {State} state @param {boolean} isNarrow
 */
function computeLabels({ axis, heads }, state, isNarrow) {
  /** @param {"x" | "y"} direction */
  const longest = (direction) => axis[direction]?.order.reduce((most, code) => Math.max(most, heads[direction]?.labelOf(code).length ?? 0), 0) ?? 0;
  const wanted = Math.max(
    isNarrow ? 64 : 84,
    longest("y") * 9.3 + 20, // bold digits, so that a seed fits on one line
    isNarrow ? 0 : (heads.y?.name.length ?? 0) * 7.5 + 30,
  );
  const lineCount = Math.min(3, Math.max(1, Math.ceil((longest("x") * 10.5) / (state.size - 8)))); // bold letters, and lines break before they are full
  const outer = axis.xx ? 28 : 0;
  if (!axis.x && !axis.y) return { side: 8, outer, head: 8 };
  return {
    side: Math.round(Math.min(isNarrow ? 114 : 220, wanted)),
    outer,
    head: Math.max(axis.x && axis.y ? 44 : 28, lineCount * 17 + 10) + outer,
  };
}

/**
 * Where each line starts, in pixels.
 * @param {Line[]} lines
 * @param {number} step from one line to the next
 * @param {number} titleHeight kept free before each group with one outer value
 * @param {number} groupGap between these groups
 */
function computeOffsets(lines, step, titleHeight, groupGap) {
  const starts = new Float64Array(lines.length);
  let offset = 0;
  lines.forEach((line, index) => {
    if (index === 0 || line.outer !== lines[index - 1].outer) offset += titleHeight + (index === 0 ? 0 : groupGap);
    starts[index] = offset;
    offset += step;
  });
  return { starts, end: offset + GAP };
}

/**
 * The lines of `length` pixels that reach into [from, to], and `extra` more on each side.
 * @param {Float64Array} starts @param {number} from @param {number} to @param {number} length @param {number} extra
 * @returns {LineRange}
 */
export function findRange(starts, from, to, length, extra) {
  let low = 0;
  let high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] + length < from) low = middle + 1;
    else high = middle;
  }
  let last = low;
  while (last < starts.length && starts[last] <= to) last += 1;
  return [Math.max(0, low - extra), Math.min(starts.length, last + extra)];
}

/**
 * Make a range `length` lines long where there are as many. While the range keeps its length, scrolling reuses the
 * elements that leave the view for those that come into it.
 * @param {LineRange} range @param {number} length
 * @param {number} count of all lines
 * @returns {LineRange}
 */
export function extendRange([from, to], length, count) {
  const end = Math.min(count, Math.max(to, from + length));
  return [Math.max(0, Math.min(from, end - length)), end];
}
