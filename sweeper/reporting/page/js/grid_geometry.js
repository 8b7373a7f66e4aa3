// Positions and sizes of the grid's lines in pixels, and which lines are in view. Nothing here reads the document.

import * as Layout from "./layout.js";
/** @import { Axis } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Context } from "./main.js" */
/** @import { State } from "./state.js" */

/** @typedef {[from: number, to: number]} LineRange indices of lines; `to` is exclusive */
/** @typedef {{starts: Float64Array, lengths: Float64Array}} Lines where each row or column starts, and its height or width */
/**
 * @typedef {object} Geometry  all in pixels
 * @property {number} gap between cells
 * @property {number} band width of the titles of outer rows, which are a part of `side`
 * @property {number} caption height of a cell's caption
 * @property {number} side width of the row labels
 * @property {number} outer height of the titles of outer columns
 * @property {number} head height of all column labels, `outer` included
 * @property {{x: string, y: string}} names what stands before the values of an axis at its lines
 * @property {Lines} rows captions included
 * @property {Lines} columns
 * @property {number} height of all rows
 * @property {number} width of all columns
 * @property {(r: number, c: number) => Span} findSpan
 */
/** @typedef {[left: number, width: number]} Span of a cell in its line, in pixels */
/** @typedef {{widths: Float64Array, heights: Float64Array, spans?: Span[][]}} Shapes of the columns and rows, the widest column being 1; of a list also its cells */
/** @typedef {{width: number, height: number, scrollbar: number}} Room pixels */
/** @typedef {{lineCount: number, hasSummary: boolean}} Texts the lines of a caption, and whether labels have a line below them */

const GAP = 4;
const OUTER = 18; // of the titles of outer rows and columns, as in css/grid.css
const OUTER_GAP = 14; // between groups of rows or columns
const MARGIN = 8; // around a list
const LINE = 17; // of a caption, as in css/grid.css
const TINT = 3; // below it
const SUMMARY = 14; // of the line below a label, as in css/grid.css
export const LONG = 16; // letters of a value from which on it is a text
const MAX_IN_LINE = 3; // short values in a line of a caption
const [MIN_SIZE, MAX_SIZE] = [48, 512]; // of a cell that fits a width
const [LEAST, USUAL, MOST] = [112, 160, 320]; // of a cell when the whole grid shall be in view
const MAX_PIXELS = 2048; // of a cell that shows each pixel
const [MIN_WIDTH, MIN_HEIGHT] = [48, 32]; // of a line among others with larger pictures
const MAX_RATIO = 4; // of a picture's sides, beyond which it does not fill its cell

/** @param {number} lineCount of a caption */
const computeCaption = (lineCount) => (lineCount === 0 ? 0 : lineCount * LINE + TINT);

/**
 * Arrange the trials, and choose the size of their cells and their texts. `wrapped`: an axis whose
 * only row of values is wrapped to several lines, because it is wider than the view.
 * @param {Room} room @param {Context} context
 */
export function arrange(room, context) {
  const { dataset, state, holds, getSortedRows, colour, free, marks } = context;
  const isGallery = state.view === "gallery";
  const arrangement = isGallery ? Layout.arrangeList(getSortedRows()) : Layout.arrange(dataset, state, holds);
  const { x, y, xx, yy } = arrangement.axis;
  const shapes = measureShapes(arrangement, dataset);
  /** @param {boolean} isWrapped */
  const countLines = (isWrapped) => {
    const axes = groupForCaption(isWrapped && x ? [x, ...free] : free).length;
    return state.captions ? Number(colour !== undefined) + (isGallery && !colour ? Math.max(1, axes) : axes) : 0;
  };
  const texts = { lineCount: countLines(false), hasSummary: !isGallery && (colour !== undefined || marks.count() > 0) };
  const size = chooseSize(arrangement, shapes, context, room, texts);
  const isAlone = x !== undefined && !y && !xx && !yy;
  if (!isGallery && !(isAlone && arrangement.columns.length * (size + GAP) > room.width)) return { arrangement, shapes, size, texts, wrapped: undefined };
  const lines = chooseLines(listAspects(arrangement, dataset), state, room, countLines(true));
  const list = Layout.wrap(arrangement, lines.starts);
  return { arrangement: list, shapes: lines, size: lines.size, texts: { lineCount: countLines(true), hasSummary: false }, wrapped: x };
}

/** The axes of each line of a caption: short values share one, or two lines if there are many, so that they keep their names. A long text has its own. @param {Axis[]} axes */
export function groupForCaption(axes) {
  const isLong = (/** @type {Axis} */ axis) => axis.order.some((code) => axis.labelOf(code).length > LONG);
  const short = axes.filter((axis) => !isLong(axis));
  const end = short.length > MAX_IN_LINE ? Math.ceil(short.length / 2) : short.length;
  return [short.slice(0, end), short.slice(end), ...axes.filter(isLong).map((axis) => [axis])].filter((group) => group.length > 0);
}

/** The width by the height of each cell of a row. @param {Layout.Arrangement} arrangement @param {Dataset} dataset */
function listAspects({ columns, find }, dataset) {
  const ratios = dataset.listRatios();
  const usual = ratios.find((ratio) => ratio > 0) ?? 1;
  return columns.map((_, c) => 1 / Math.min(MAX_RATIO, Math.max(1 / MAX_RATIO, ratios[find(0, c)] || usual)));
}

/**
 * Break the cells of a list into lines that fill the width, and choose their size.
 * @param {number[]} aspects @param {State} state @param {Room} room @param {number} lineCount of a caption
 */
function chooseLines(aspects, state, room, lineCount) {
  const width = Math.max(LEAST, room.width - 2 * MARGIN - room.scrollbar + GAP); // a hidden page has no room
  const mean = aspects.reduce((sum, aspect) => sum + aspect, 0) / aspects.length;
  const breakAt = (/** @type {number} */ size) => breakLines(aspects, width, size / mean);
  const isInView = (/** @type {number} */ size) => breakAt(size).reduce((sum, { height }) => sum + height + computeCaption(lineCount) + GAP, MARGIN) <= room.height;
  const wanted = state.fit === "" ? state.size : room.width < 600 ? LEAST : USUAL;
  const size = state.fit === "all" && isInView(LEAST) ? findLargest(LEAST, MOST, isInView) : wanted;
  const lines = breakAt(size);
  const most = lines.reduce((count, { spans }) => Math.max(count, spans.length), 0);
  return {
    size,
    starts: lines.map(({ start }) => start),
    spans: lines.map(({ spans }) => spans),
    widths: new Float64Array(most).fill((width / most - GAP) / size),
    heights: Float64Array.from(lines, ({ height }) => height / size),
  };
}

/** Break cells into lines of one width, each no higher than `most`; the last one as high as that before it. @param {number[]} aspects @param {number} width @param {number} most pixels */
function breakLines(aspects, width, most) {
  /** @type {{start: number, height: number, spans: Span[]}[]} */
  const lines = [];
  for (let start = 0, end = 0, height = Infinity; end < aspects.length; start = end, height = Infinity) {
    let sum = 0;
    while (end < aspects.length && height > most) {
      sum += Math.max(aspects[end++], MIN_WIDTH / most);
      height = (width - (end - start) * GAP) / sum;
    }
    height = Math.min(height, end < aspects.length ? height : (lines.at(-1)?.height ?? most));
    let left = 0;
    const spans = aspects.slice(start, end).map((aspect) => {
      const from = left;
      left += Math.max(aspect, MIN_WIDTH / most) * height + GAP;
      return /** @type {Span} */ ([Math.round(from), Math.round(left) - Math.round(from) - GAP]);
    });
    lines.push({ start, height, spans });
  }
  return lines;
}

/**
 * The shapes of the lines: the pictures of one area each, in rows and columns that are as large as the largest in them.
 * @param {Layout.Arrangement} arrangement @param {Dataset} dataset @returns {Shapes}
 */
function measureShapes({ rows, columns, find }, dataset) {
  const ratios = dataset.listRatios().map((ratio) => Math.min(MAX_RATIO, Math.max(1 / MAX_RATIO, ratio)));
  const known = new Set(ratios.filter((ratio) => ratio > 0));
  const [usual = 1] = known;
  const side = Math.sqrt(usual);
  const [widths, heights] = [new Float64Array(columns.length), new Float64Array(rows.length)];
  for (let r = 0; known.size > 1 && r < rows.length; r++) {
    for (let c = 0; c < columns.length; c++) {
      const ratio = ratios[find(r, c)];
      if (!(ratio > 0)) continue;
      widths[c] = Math.max(widths[c], 1 / Math.sqrt(ratio));
      heights[r] = Math.max(heights[r], Math.sqrt(ratio));
    }
  }
  const widest = widths.reduce((most, width) => Math.max(most, width), 0) || 1 / side;
  return { widths: widths.map((width) => (width || 1 / side) / widest), heights: heights.map((height) => (height || side) / widest) };
}

/**
 * Compute the geometry of a grid whose widest column has `size` pixels.
 * @param {Layout.Arrangement} arrangement @param {Shapes} shapes @param {number} size
 * @param {Texts} texts @param {Room} room @returns {Geometry}
 */
export function compute(arrangement, { widths, heights, spans }, size, texts, room) {
  const caption = computeCaption(texts.lineCount);
  const columnWidths = widths.map((width) => Math.max(Math.min(MIN_WIDTH, size), Math.round(width * size)));
  const rowHeights = heights.map((height) => Math.max(Math.min(MIN_HEIGHT, size), Math.round(height * size)) + caption);
  const { xx, yy } = arrangement.axis;
  const rows = computeOffsets(arrangement.rows, rowHeights, yy ? OUTER_GAP : 0);
  const columns = computeOffsets(arrangement.columns, columnWidths, xx ? OUTER_GAP : 0);
  const labels = computeLabels(arrangement, columnWidths, room.width < 600, texts.hasSummary);
  const findSpan = (/** @type {number} */ r, /** @type {number} */ c) => /** @type {Span} */ (spans ? (spans[r][c] ?? [0, 0]) : [columns.starts[c], columns.lengths[c]]);
  return { gap: GAP, caption, ...labels, rows, columns, findSpan, height: rows.end, width: columns.end };
}

/**
 * The size of cells that the state asks for, in pixels.
 * @param {Layout.Arrangement} arrangement @param {Shapes} shapes @param {Context} context @param {Room} room @param {Texts} texts
 */
function chooseSize(arrangement, shapes, { state, dataset }, room, texts) {
  if (state.fit === "") return state.size;
  const width = dataset.fileList.findSized()?.width ?? USUAL;
  if (state.fit === "pixels") return Math.min(MAX_PIXELS, Math.max(MIN_SIZE, Math.round(width / devicePixelRatio)));
  /** @param {number} size @param {boolean} isWhole whether the rows must fit, too */
  const fits = (size, isWhole) => {
    const geometry = compute(arrangement, shapes, size, texts, room);
    const isHigh = geometry.head + geometry.height > room.height;
    return geometry.side + geometry.width + (isHigh ? room.scrollbar : 0) <= room.width && !(isWhole && isHigh);
  };
  if (state.fit === "all" && fits(LEAST, true)) return findLargest(LEAST, MOST, (size) => fits(size, true));
  const [low, high] = state.fit === "all" ? [LEAST, USUAL] : [MIN_SIZE, MAX_SIZE];
  return findLargest(low, high, (size) => fits(size, false));
}

/**
 * The largest integer of a range that passes a test, which all smaller ones pass too; `low` if none does.
 * @param {number} low @param {number} high @param {(value: number) => boolean} test
 */
function findLargest(low, high, test) {
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (test(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * Labels are as large as their words need, within limits.
 * @param {Layout.Arrangement} arrangement @param {Float64Array} widths of the columns @param {boolean} isNarrow @param {boolean} hasSummary
 */
function computeLabels({ axis, heads }, widths, isNarrow, hasSummary) {
  if (!axis.x && !axis.y && !axis.xx && !axis.yy) return { side: MARGIN, band: 0, outer: 0, head: MARGIN, names: { x: "", y: "" } };
  /** @param {Layout.Direction} direction */
  const longest = (direction) => axis[direction]?.order.reduce((most, code) => Math.max(most, heads[direction]?.labelOf(code).length ?? 0), 0) ?? 0;
  /** @param {"x" | "y"} direction @param {number} room pixels */
  const chooseName = (direction, room) => {
    const name = heads[direction]?.name ?? "";
    const isOne = name !== "" && name === axis[direction]?.name; // the names of several would not stand before their values
    return isOne && name.length * 7 + 8 + longest(direction) * 9.3 <= room ? `${name} ` : "";
  };
  const [mostSide, column] = [isNarrow ? 114 : 220, widths.reduce((least, width) => Math.min(least, width), MAX_PIXELS)];
  const names = { x: chooseName("x", column - 8), y: chooseName("y", mostSide - 20) };
  const down = axis.y ? "y" : "yy"; // outer rows without others inside are titled like these
  const wanted = Math.max(
    isNarrow ? 64 : hasSummary && axis.y ? 120 : 84,
    names.y.length * 7 + longest(down) * 9.3 + 20, // bold digits, so that a seed fits on one line
    isNarrow ? 0 : (heads[down]?.name.length ?? 0) * 7.5 + 50,
  );
  const side = Math.round(Math.min(mostSide, wanted));
  const isShort = names.x !== "" || longest("x") * 10.5 <= column - 8; // bold letters, and lines break before they are full
  const label = isShort ? 17 : 15 * Math.min(3, Math.max(1, Math.ceil((longest("x") * 9) / (column - 8)))); // long ones have smaller letters
  const [outer, band] = [axis.xx ? OUTER : 0, axis.yy ? (axis.y ? OUTER : side) : 0];
  return { names, side: axis.y ? side + band : side, band, outer, head: Math.max(axis.x && axis.y ? 34 : 26, label + 5 + (hasSummary && axis.x ? SUMMARY : 0)) + outer };
}

/**
 * Where each line starts, in pixels.
 * @param {Layout.Line[]} lines
 * @param {Float64Array} lengths of the lines
 * @param {number} groupGap between groups with one outer value
 */
function computeOffsets(lines, lengths, groupGap) {
  const starts = new Float64Array(lines.length);
  let offset = 0;
  lines.forEach((line, index) => {
    if (index > 0 && line.outer !== lines[index - 1].outer) offset += groupGap;
    starts[index] = offset;
    offset += lengths[index] + GAP;
  });
  return { starts, lengths, end: offset };
}

/**
 * The lines that reach into [from, to], and `extra` more on each side.
 * @param {Lines} lines @param {number} from @param {number} to @param {number} extra
 * @returns {LineRange}
 */
export function findRange({ starts, lengths }, from, to, extra) {
  let low = 0;
  let high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] + lengths[middle] < from) low = middle + 1;
    else high = middle;
  }
  let last = low;
  while (last < starts.length && starts[last] <= to) last += 1;
  return [Math.max(0, low - extra), Math.min(starts.length, last + extra)];
}

/**
 * Where to scroll so that a cell is in view.
 * @param {Geometry} geometry @param {{top: number, left: number, height: number, width: number}} viewport pixels
 * @param {number} r @param {number} c
 */
export function findScroll({ rows, columns, head, side, gap }, { top, left, height, width }, r, c) {
  const [y, x] = [rows.starts[r], columns.starts[c]];
  const [roomY, roomX] = [height - head - rows.lengths[r], width - side - columns.lengths[c]];
  return {
    top: y < top ? y : y > top + roomY ? y - roomY + gap : top,
    left: x < left ? x : x > left + roomX ? x - roomX + gap : left,
  };
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
