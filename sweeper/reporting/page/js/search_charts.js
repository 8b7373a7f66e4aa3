// @ts-check
// The charts of a search: its history, the Pareto front, a slice along each axis. Each mark is a point of the search.

import * as Chart from "./chart.js";
import { makeText } from "./chart.js";
import * as Colours from "./colours.js";
import * as Dom from "./dom.js";
import { svg } from "./dom.js";
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

const [TOP, BOTTOM] = [26, 34]; // pixels around the frame
const REACH = 14; // pixels from a mark within which a pointer means it
const MIN_LABEL = 22; // pixels between the labels of two rounds
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
 * @param {PlacedPoint} placed @param {number} [share] @param {string} [more] classes
 */
function makeMark({ point, x, y }, share, more = "") {
  const isOut = point.shown.length === 0;
  const node = svg("path", { d: SHAPES[point.kind], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, class: `mark ${point.kind}${isOut ? " out" : ""}${more}` });
  node.dataset.point = String(point.number);
  if (share !== undefined) node.style.color = Colours.pickVivid(share);
  return node;
}

/** @param {string} name @param {ChartSize} size @param {any[]} content */
export function makeSvg(name, size, ...content) {
  const label = `${name}; use the arrow keys to read the points in order, Enter to show the pictures of one`;
  const node = Chart.makeSvg(toFrame(size), { class: "chart", role: "img", tabindex: 0, "aria-label": label, "data-keep": name }, ...content);
  node.style.maxWidth = `${size.width * 1.25}px`;
  return node;
}

/** @param {ChartSize} size */
const toFrame = (size) => ({ ...size, left: 52, right: 12, top: TOP, bottom: BOTTOM });
const makeScale = (/** @type {ChartSize} */ size) => Chart.makeScale(toFrame(size));
const makeFrame = (/** @type {ChartSize} */ size, /** @type {Dimension} */ { ticks, title }) => Chart.makeRules(toFrame(size), ticks, title);
const makeFoot = (/** @type {ChartSize} */ size, /** @type {Dimension} */ { ticks, title }) => Chart.makeFoot(toFrame(size), ticks, title);
const makeFind = (/** @type {PlacedPoint[]} */ placed) => Chart.makeFind(placed, REACH);

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
 * The points by two dimensions.
 * @param {Search} search @param {string} name @param {[Dimension, Dimension]} dimensions across and up
 * @param {ChartSize} size @param {(placed: PlacedPoint[]) => any} paint @returns {Chart}
 */
function createPlane({ points }, name, [across, up], size, paint) {
  const { toX, toY } = makeScale(size);
  const placed = points.flatMap((point) => {
    const [x, y] = [across.toShare(point), up.toShare(point)];
    return x === null || y === null ? [] : [{ point, x: toX(x), y: toY(y) }];
  });
  const node = makeSvg(name, size, makeFrame(size, up), makeFoot(size, across), paint(placed));
  return { node, order: placed.toSorted((a, b) => a.x - b.x), find: makeFind(placed) };
}

/**
 * Two objectives against each other, with the Pareto front as a line. Points that another one dominates are pale.
 * @param {Search} search @param {[number, number]} indices of the objectives across and up
 * @param {[Dimension, Dimension]} dimensions @param {ChartSize} size
 */
export function createFront(search, indices, [across, up], size) {
  const { points, objectives } = search;
  const best = new Set(SearchPoints.findFront(points, objectives));
  const front = SearchPoints.findFront(points, objectives, indices);
  // What a point of the front dominates lies on its worse side in both directions: the line turns there.
  const isLevelFirst = !objectives[indices[0]].maximize;
  return createPlane(search, `Pareto front of ${across.title} and ${up.title}`, [{ ...across, title: `${across.title} →` }, up], size, (placed) => {
    const corners = placed.filter(({ point }) => front.includes(point)).sort((a, b) => a.x - b.x);
    const line = corners.map(({ x, y }, i) => (i === 0 ? `M${x.toFixed(1)} ${y.toFixed(1)}` : isLevelFirst ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `V${y.toFixed(1)}H${x.toFixed(1)}`)).join("");
    const marks = placed.map((one) => makeMark(one, undefined, best.has(one.point) ? "" : " dominated"));
    return [svg("path", { d: line, class: "best-line" }), marks];
  });
}

/**
 * An objective along one axis of the space; later points are more vivid.
 * @param {Search} search @param {Dimension} across @param {Dimension} up @param {ChartSize} size
 */
export function createSlice(search, across, up, size) {
  const move = (/** @type {number} */ share) => share * 0.92 + 0.04; // no mark lies on an edge
  const toShare = (/** @type {SearchPoint} */ point) => [across.toShare(point)].map((share) => (share === null ? null : move(share)))[0];
  const inset = { ...across, ticks: across.ticks.map((tick) => ({ ...tick, share: move(tick.share) })), toShare };
  const last = Math.max(1, search.points.length - 1);
  return createPlane(search, `${up.name} along ${across.title}`, [inset, up], size, (placed) => placed.map((one) => makeMark(one, search.points.length > 1 ? (one.point.number - 1) / last : 1)));
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
