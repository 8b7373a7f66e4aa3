// @ts-check
// The charts of a search: its history, the Pareto front, a slice along each axis. Each mark is a point of the search.

import * as Colours from "./colours.js";
import * as Dom from "./dom.js";
import { svg } from "./dom.js";
import { makeText } from "./plot_frame.js";
import * as SearchPoints from "./search_points.js";
/** @import { Dimension } from "./search_dimensions.js" */
/** @import { PointKind, Search, SearchPoint } from "./search_points.js" */

/** @typedef {{width: number, height: number}} ChartSize pixels */
/** @typedef {{point: SearchPoint, x: number, y: number}} PlacedPoint pixels */
/**
 * @typedef {object} Chart
 * @property {SVGSVGElement} node
 * @property {PlacedPoint[]} order what the arrow keys step through
 * @property {(x: number, y: number) => PlacedPoint | undefined} find what the pointer means
 */

const [LEFT, RIGHT, TOP, BOTTOM] = [52, 12, 26, 34]; // pixels around the frame
const REACH = 14; // pixels from a mark within which a pointer means it
const MIN_LABEL = 22; // pixels between the labels of two rounds
const LETTER_WIDTH = 6.6; // pixels
/** @type {Record<PointKind, string>} the outline of a mark; a kind differs by its shape, not by its colour alone */
const SHAPES = {
  tried: "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
  earlier: "M-4-4h8v8h-8z",
  stopped: "M-5-4h10l-5 9z",
  failed: "M-4-4l8 8M4-4l-8 8",
  pending: "",
};

/**
 * A mark, coloured by a share from 0 to 1: dark on a light page and light on a dark one for 1.
 * @param {PlacedPoint} placed @param {number} [share]
 */
function makeMark({ point, x, y }, share) {
  const isOut = point.shown.length === 0;
  const node = svg("path", { d: SHAPES[point.kind], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, class: `mark ${point.kind}${isOut ? " out" : ""}` });
  node.dataset.point = String(point.number);
  if (share !== undefined) node.style.color = Colours.pickVivid(share);
  return node;
}

/** @param {string} name @param {ChartSize} size @param {any[]} content */
export function makeSvg(name, { width, height }, ...content) {
  const label = `${name}; use the arrow keys to read the points in order, Enter to show the pictures of one`;
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", tabindex: 0, "aria-label": label }, ...content);
  node.style.maxWidth = `${width * 1.25}px`;
  node.dataset.keep = name;
  return node;
}

/** @param {PlacedPoint[]} placed @returns {Chart["find"]} */
const makeFind = (placed) => (x, y) => {
  /** @type {[PlacedPoint | undefined, number]} */
  let [best, least] = [undefined, REACH];
  for (const one of placed) {
    const distance = Math.hypot(one.x - x, one.y - y);
    if (distance < least) [best, least] = [one, distance];
  }
  return best;
};

/** @param {ChartSize} size */
const makeScale = ({ width, height }) => ({
  toX: (/** @type {number} */ share) => LEFT + share * (width - LEFT - RIGHT),
  toY: (/** @type {number} */ share) => height - BOTTOM - share * (height - BOTTOM - TOP),
});

/**
 * Rules with the values at the left, and what the vertical direction means.
 * @param {ChartSize} size @param {Dimension} up
 */
function makeFrame(size, up) {
  const { toY } = makeScale(size);
  return [
    ...up.ticks.map(({ share }) => svg("line", { x1: LEFT, x2: size.width - RIGHT, y1: toY(share), y2: toY(share), class: "rule" })),
    ...up.ticks.map(({ share, label }) => makeText(LEFT - 6, toY(share) + 4, label, "end")),
    makeText(4, 12, fit(`↑ ${up.title}`, size.width - 8), "start"),
  ];
}

/**
 * The values below a chart, only as many as do not overlap, and their name.
 * @param {ChartSize} size @param {Dimension} across
 */
function makeFoot(size, { ticks, title }) {
  const { toX } = makeScale(size);
  let free = -Infinity;
  const labels = ticks.map(({ share, label }) => {
    const text = fit(label, (size.width - LEFT - RIGHT) / Math.min(ticks.length, 3));
    const half = (text.length * LETTER_WIDTH) / 2;
    const middle = Math.min(Math.max(toX(share), half), size.width - half);
    if (middle - half < free) return null;
    free = middle + half + LETTER_WIDTH;
    return makeText(middle, size.height - BOTTOM + 15, text, "middle");
  });
  return [...labels, makeText(toX(0.5), size.height - 4, fit(title, size.width - LEFT), "middle")];
}

/** @param {string} text @param {number} room pixels */
export const fit = (text, room) => (text.length * LETTER_WIDTH > room ? `${text.slice(0, Math.max(1, Math.floor(room / LETTER_WIDTH) - 1))}…` : text);

/**
 * The objective of the points in the order of the search, with the best so far and the rounds.
 * @param {Search} search @param {number} index of the objective @param {Dimension} up @param {ChartSize} size @returns {Chart}
 */
export function createHistory({ points, objectives }, index, up, size) {
  const { toX, toY } = makeScale(size);
  const step = 1 / points.length;
  const xOf = (/** @type {SearchPoint} */ { number }) => toX((number - 0.5) * step);
  const placed = points
    .filter(({ kind }) => kind !== "pending")
    .map((point) => ({ point, x: xOf(point), y: toY(up.toShare(point) ?? 0) }));
  const isBetter = SearchPoints.makeComparison(objectives[index], index);
  /** @type {SearchPoint | undefined} */
  let best;
  let line = "";
  for (const point of SearchPoints.listComparable(points, [index])) {
    if (best !== undefined && isBetter(point, best) >= 0) continue;
    line += best === undefined ? `M${xOf(point).toFixed(1)} ${toY(up.toShare(point) ?? 0).toFixed(1)}` : `H${xOf(point).toFixed(1)}V${toY(up.toShare(point) ?? 0).toFixed(1)}`;
    best = point;
  }
  if (best !== undefined) line += `H${toX(1).toFixed(1)}`;
  const node = makeSvg(
    `History of ${up.title}`,
    size,
    makeRounds(points, (share) => toX(share * step), size),
    makeFrame(size, up),
    makeText(toX(0.5), size.height - 4, "rounds; from left to right the points in their order", "middle"),
    svg("path", { d: line, class: "best-line" }),
    placed.map((one) => makeMark(one)),
  );
  return { node, order: placed, find: makeFind(placed) };
}

/**
 * Every second round as a band, with the numbers of the rounds below.
 * @param {SearchPoint[]} points @param {(number: number) => number} toX @param {ChartSize} size
 */
function makeRounds(points, toX, { height }) {
  const rounds = [...new Set(points.map(({ round }) => round))];
  let free = -Infinity;
  return rounds.map((round, index) => {
    const from = points.findIndex((point) => point.round === round);
    const count = points.filter((point) => point.round === round).length;
    const [x, end] = [toX(from), toX(from + count)];
    const band = index % 2 === 1 && svg("rect", { x, width: end - x, y: TOP, height: height - TOP - BOTTOM, class: "round-band" });
    const middle = (x + end) / 2;
    if (middle - MIN_LABEL / 2 < free) return [band];
    free = middle + (round === 0 ? 2 : 0.5) * MIN_LABEL;
    return [band, makeText(middle, height - BOTTOM + 15, round === 0 ? "before" : String(round), "middle")];
  });
}

/**
 * Two objectives against each other, with the Pareto front as a line. Points that another one dominates are pale.
 * @param {Search} search @param {[number, number]} indices of the objectives across and up
 * @param {[Dimension, Dimension]} dimensions @param {ChartSize} size @returns {Chart}
 */
export function createFront({ points, objectives }, indices, [across, up], size) {
  const { toX, toY } = makeScale(size);
  const placed = points.flatMap((point) => {
    const [x, y] = [across.toShare(point), up.toShare(point)];
    return x === null || y === null ? [] : [{ point, x: toX(x), y: toY(y) }];
  });
  const best = new Set(SearchPoints.findFront(points, objectives));
  const front = SearchPoints.findFront(points, objectives, indices);
  const corners = placed.filter(({ point }) => front.includes(point)).sort((a, b) => a.x - b.x);
  // What a point of the front dominates lies on its worse side in both directions: the line turns there.
  const isLevelFirst = !objectives[indices[0]].maximize;
  const line = corners.map(({ x, y }, i) => (i === 0 ? `M${x.toFixed(1)} ${y.toFixed(1)}` : isLevelFirst ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `V${y.toFixed(1)}H${x.toFixed(1)}`)).join("");
  const node = makeSvg(
    `Pareto front of ${across.title} and ${up.title}`,
    size,
    makeFrame(size, up),
    makeFoot(size, { ...across, title: `${across.title} →` }),
    svg("path", { d: line, class: "best-line" }),
    placed.map((one) => {
      const mark = makeMark(one);
      if (!best.has(one.point)) mark.classList.add("dominated");
      return mark;
    }),
  );
  return { node, order: [...placed].sort((a, b) => a.x - b.x), find: makeFind(placed) };
}

/**
 * An objective along one axis of the space; later points are more vivid.
 * @param {Search} search @param {Dimension} across @param {Dimension} up @param {ChartSize} size @returns {Chart}
 */
export function createSlice({ points }, across, up, size) {
  const { toX, toY } = makeScale(size);
  const placed = points.flatMap((point) => {
    const [x, y] = [across.toShare(point), up.toShare(point)];
    return x === null || y === null ? [] : [{ point, x: toX(x * 0.92 + 0.04), y: toY(y) }];
  });
  const inset = across.ticks.map((tick) => ({ ...tick, share: tick.share * 0.92 + 0.04 }));
  const node = makeSvg(
    `${up.name} along ${across.title}`,
    size,
    makeFrame(size, up),
    makeFoot(size, { ...across, ticks: inset }),
    placed.map((one) => makeMark(one, points.length > 1 ? (one.point.number - 1) / (points.length - 1) : 1)),
  );
  return { node, order: [...placed].sort((a, b) => a.x - b.x), find: makeFind(placed) };
}

/**
 * What the shapes mean, of the kinds that there are.
 * @param {SearchPoint[]} points
 */
export function makeLegend(points) {
  const kinds = /** @type {PointKind[]} */ (Object.keys(SearchPoints.KIND_WORDS)).filter((kind) => points.some((point) => point.kind === kind));
  const items = kinds.map((kind) => {
    const count = points.filter((point) => point.kind === kind).length;
    const shape = SHAPES[kind] && svg("svg", { viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" }, svg("path", { d: SHAPES[kind], class: `mark ${kind}` }));
    return Dom.el("li", {}, shape, `${count} ${SearchPoints.KIND_WORDS[kind]}`);
  });
  return Dom.el("ul", { class: "key" }, items);
}
