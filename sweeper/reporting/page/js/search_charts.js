// The charts of a search: its history, the Pareto front, a slice along each axis, parallel coordinates. Each mark is a point.

import * as Keys from "../../../serving/page/js/keys.js";
import * as Chart from "./chart.js";
import { makeText } from "./chart.js";
import * as Colours from "./colours.js";
import { el, svg } from "../../../serving/page/js/dom.js";
import * as SearchPoints from "./search_points.js";
/** @import { Dimension, StopRange } from "./search_dimensions.js" */

/** @typedef {{width: number, height: number}} ChartSize pixels */
/** @typedef {{point: SearchPoints.SearchPoint, x: number, y: number}} PlacedPoint pixels */
/**
 * @typedef {object} PointChart
 * @property {SVGSVGElement} node
 * @property {PlacedPoint[]} order what the arrow keys step through
 * @property {(x: number, y: number) => PlacedPoint | undefined} find what the pointer means
 */

/**
 * @typedef {object} Brushes
 * @property {Map<string, StopRange>} ranges by dimension
 * @property {(dimension: Dimension, range: StopRange | null, replace?: boolean) => void} setRange null: no range
 */

const [TOP, BOTTOM] = [26, 34]; // pixels around the frame
const REACH = 14; // pixels from a mark within which a pointer means it
const MIN_LABEL = 22; // pixels between the labels of two rounds
const [ABOVE, BELOW, SIDE] = [40, 22, 56]; // pixels around parallel coordinates
const MIN_GAP = 92; // pixels between two axes
const TRACK = 30; // pixels of width in which one can drag a range
const MIN_DRAG = 4; // pixels; less is a press, which removes the range
const MANY = 150; // lines; more are drawn thinner
const MAX_LABELS = 12; // of an axis
/** @type {Record<SearchPoints.PointKind, string>} the outline of a mark; a kind differs by its shape, not by its colour alone */
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
 * @param {SearchPoints.Search} search @param {number} index of the objective @param {Dimension} up @param {ChartSize} size @returns {PointChart}
 */
export function createHistory({ points, objectives }, index, up, size) {
  const { toX, toY } = makeScale(size);
  const step = 1 / points.length;
  const xOf = (/** @type {SearchPoints.SearchPoint} */ { number }) => toX((number - 0.5) * step);
  const placed = points
    .filter(({ kind }) => kind !== "pending")
    .map((point) => ({ point, x: xOf(point), y: toY(up.toShare(point) ?? 0) }));
  const isBetter = SearchPoints.makeComparison(objectives[index], index);
  /** @type {SearchPoints.SearchPoint | undefined} */
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
 * @param {SearchPoints.SearchPoint[]} points @param {(number: number) => number} toX @param {ChartSize} size
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
 * @param {SearchPoints.Search} search @param {string} name @param {[Dimension, Dimension]} dimensions across and up
 * @param {ChartSize} size @param {(placed: PlacedPoint[]) => any} paint @returns {PointChart}
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
 * @param {SearchPoints.Search} search @param {[number, number]} indices of the objectives across and up
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
 * @param {SearchPoints.Search} search @param {Dimension} across @param {Dimension} up @param {ChartSize} size
 */
export function createSlice(search, across, up, size) {
  const move = (/** @type {number} */ share) => share * 0.92 + 0.04; // no mark lies on an edge
  const toShare = (/** @type {SearchPoints.SearchPoint} */ point) => [across.toShare(point)].map((share) => (share === null ? null : move(share)))[0];
  const inset = { ...across, ticks: across.ticks.map((tick) => ({ ...tick, share: move(tick.share) })), toShare };
  const last = Math.max(1, search.points.length - 1);
  return createPlane(search, `${up.name} along ${across.title}`, [inset, up], size, (placed) => placed.map((one) => makeMark(one, search.points.length > 1 ? (one.point.number - 1) / last : 1)));
}

/** What the shapes mean, of the kinds that there are. @param {SearchPoints.SearchPoint[]} points */
export function makeLegend(points) {
  const kinds = /** @type {SearchPoints.PointKind[]} */ (Object.keys(SearchPoints.KIND_WORDS)).filter((kind) => points.some((point) => point.kind === kind));
  const items = kinds.map((kind) => {
    const count = points.filter((point) => point.kind === kind).length;
    const shape = SHAPES[kind] && svg("svg", { viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" }, svg("path", { d: SHAPES[kind], class: `mark ${kind}` }));
    return el("li", {}, shape, `${count} ${SearchPoints.KIND_WORDS[kind]}`);
  });
  return el("ul", { class: "key" }, items);
}

/**
 * Parallel coordinates: a vertical line for each axis of a search, and across them a line for each point. A range that one
 * drags on an axis becomes a part of the page's filter.
 * @param {SearchPoints.Search} search
 * @param {Dimension[]} dimensions from left to right
 * @param {Dimension} objective what colours the lines
 * @param {boolean} isHigherBetter
 * @param {Brushes} brushes
 * @param {ChartSize} room
 * @returns {PointChart & {group: Element}}
 */
export function createParallel({ points }, dimensions, objective, isHigherBetter, brushes, room) {
  const size = { ...room, width: Math.max(room.width, 2 * SIDE + MIN_GAP * (dimensions.length - 1)) };
  const xOf = (/** @type {number} */ index) => SIDE + (index * (size.width - 2 * SIDE)) / Math.max(1, dimensions.length - 1);
  const toY = (/** @type {number} */ share) => size.height - BELOW - share * (size.height - ABOVE - BELOW);
  const vividness = (/** @type {SearchPoints.SearchPoint} */ point) => {
    const share = objective.toShare(point);
    return share === null ? null : isHigherBetter ? share : 1 - share;
  };
  // The best come last, so that they lie above the others.
  const sorted = [...points].sort((a, b) => (vividness(a) ?? -1) - (vividness(b) ?? -1));
  const placed = sorted.map((point) => {
    const ys = dimensions.map((dimension) => dimension.toShare(point)).map((share) => (share === null ? null : toY(share)));
    return { point, ys, x: xOf(0), y: ys.find((y) => y !== null) ?? 0 };
  });
  const lines = placed.map(({ point, ys }) => {
    const path = ys.map((y, index) => (y === null ? "" : `${ys[index - 1] === null || index === 0 ? "M" : "L"}${xOf(index).toFixed(1)} ${y.toFixed(1)}`)).join("");
    const node = svg("path", { d: path, class: `line ${point.kind}${point.shown.length === 0 ? " out" : ""}` });
    node.dataset.point = String(point.number);
    const share = vividness(point);
    if (share !== null) node.style.color = Colours.pickVivid(share);
    return node;
  });
  const name = `Parallel coordinates of ${dimensions.map((dimension) => dimension.name).join(", ")}`;
  const node = makeSvg(name, size, lines);
  node.style.minWidth = `${size.width}px`;
  const axes = dimensions.map((dimension, index) => makeAxis(dimension, xOf(index), toY, size, brushes));
  // The handles are not inside of the image: a screen reader takes that for one thing.
  const overlay = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, class: "chart overlay", role: "group", "aria-label": "Ranges of the axes" }, axes);
  overlay.style.minWidth = `${size.width}px`;
  overlay.style.maxWidth = node.style.maxWidth;

  /** @param {number} x @param {number} y */
  function find(x, y) {
    const left = Math.min(dimensions.length - 2, Math.max(0, Math.floor(((x - SIDE) / (size.width - 2 * SIDE)) * (dimensions.length - 1))));
    const share = Math.min(1, Math.max(0, (x - xOf(left)) / (xOf(left + 1) - xOf(left))));
    /** @type {[PlacedPoint | undefined, number]} */
    let [best, least] = [undefined, REACH];
    for (const one of placed) {
      const [from, to] = [one.ys[left], one.ys[left + 1]];
      if (from === null || to === null || one.point.shown.length === 0) continue;
      const distance = Math.abs(from + (to - from) * share - y);
      if (distance <= least) [best, least] = [{ point: one.point, x, y }, distance];
    }
    return best;
  }

  return { node, order: [...placed].reverse(), find, group: el("div", { class: points.length > MANY ? "parallel many" : "parallel" }, node, overlay) };
}

/**
 * One vertical axis with its values, its range and the handles of the range.
 * @param {Dimension} dimension @param {number} x @param {(share: number) => number} toY @param {ChartSize} size @param {Brushes} brushes
 */
function makeAxis(dimension, x, toY, size, brushes) {
  const { ticks, title, stops, name } = dimension;
  const range = brushes.ranges.get(name);
  const every = Math.ceil(ticks.length / MAX_LABELS);
  const labels = ticks.filter((_, index) => index % every === 0).map(({ share, label }) => Chart.makeText(x - 7, toY(share) + 4, Chart.fit(label, MIN_GAP - 12), "end"));
  const track = svg("rect", { x: x - TRACK / 2, width: TRACK, y: ABOVE - 8, height: size.height - ABOVE - BELOW + 16, class: "track" }, svg("title", {}, `Drag a range of ${name}; a press removes it`));
  const marked = range && svg("rect", { x: x - 5, width: 10, y: toY(stops[range.high].share) - 2, height: toY(stops[range.low].share) - toY(stops[range.high].share) + 4, class: "range" });
  const current = range ?? { low: 0, high: stops.length - 1 };
  const heads = dimension.heads.map((text, index) => Chart.makeText(x, 14 + 14 * index, Chart.fit(text, MIN_GAP * 1.2), "middle"));
  const group = svg("g", {}, svg("title", {}, title), svg("line", { x1: x, x2: x, y1: toY(0), y2: toY(1), class: "axis" }), heads, labels, track, marked);
  if (stops.length > 1) {
    group.append(...(/** @type {const} */ (["low", "high"])).map((end) => makeHandle(dimension, end, current, x, toY, brushes)));
    listenToDrag(track, dimension, toY, x, brushes);
  }
  return group;
}

/**
 * One end of a range, which the arrow keys move.
 * @param {Dimension} dimension @param {"low" | "high"} end @param {StopRange} range @param {number} x
 * @param {(share: number) => number} toY @param {Brushes} brushes
 */
function makeHandle(dimension, end, range, x, toY, brushes) {
  const { stops, name } = dimension;
  const [least, most] = end === "low" ? [0, range.high] : [range.low, stops.length - 1];
  const y = toY(stops[range[end]].share) + (end === "low" ? 3 : -3);
  const node = svg("path", {
    d: end === "low" ? "M-7 7h14l-7-7z" : "M-7-7h14l-7 7z",
    transform: `translate(${x} ${y.toFixed(1)})`,
    class: "handle",
    role: "slider",
    tabindex: 0,
    "aria-orientation": "vertical",
    "aria-label": `${end === "low" ? "Lowest" : "Highest"} ${name} shown`,
    "aria-valuemin": least,
    "aria-valuemax": most,
    "aria-valuenow": range[end],
    "aria-valuetext": stops[range[end]].label,
    "data-keep": `${end} ${name}`,
  });
  /** @type {Record<string, number>} */
  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5, Home: -stops.length, End: stops.length };
  Keys.bind(node, "On an end of an axis", [
    [Object.keys(steps).join(" "), "choose a range", (key) => brushes.setRange(dimension, { ...range, [end]: Math.min(most, Math.max(least, range[end] + steps[key])) }, true)],
    ["Delete", "remove the range", () => brushes.setRange(dimension, null, true)],
  ]);
  listenToDrag(node, dimension, toY, x, brushes, toY(stops[range[end === "low" ? "high" : "low"]].share));
  return node;
}

/**
 * Let a drag choose a range.
 * @param {SVGElement} element @param {Dimension} dimension @param {(share: number) => number} toY @param {number} x
 * @param {Brushes} brushes @param {number} [fixed] the other end of the range; without it the drag begins there
 */
function listenToDrag(element, dimension, toY, x, { setRange }, fixed) {
  const toUnits = (/** @type {PointerEvent} */ event) => Chart.toUnits(/** @type {SVGSVGElement} */ (element.ownerSVGElement), event).y;
  element.addEventListener("pointerdown", (event) => {
    const pressed = toUnits(event);
    const start = fixed ?? pressed;
    const drawn = svg("rect", { x: x - 5, width: 10, y: start, height: 0, class: "range" });
    element.after(drawn);
    element.setPointerCapture(event.pointerId);
    const move = (/** @type {PointerEvent} */ next) => {
      drawn.setAttribute("y", String(Math.min(start, toUnits(next))));
      drawn.setAttribute("height", String(Math.abs(toUnits(next) - start)));
    };
    const end = (/** @type {PointerEvent} */ next) => {
      element.removeEventListener("pointermove", move);
      drawn.remove();
      const isShort = Math.abs(toUnits(next) - pressed) < MIN_DRAG;
      if (next.type === "pointercancel" || (isShort && fixed !== undefined)) return;
      const [top, bottom] = [start, toUnits(next)].sort((a, b) => a - b);
      const inside = dimension.stops.flatMap(({ share }, index) => (toY(share) >= top - 3 && toY(share) <= bottom + 3 ? [index] : []));
      setRange(dimension, isShort || inside.length === 0 ? null : { low: inside[0], high: inside[inside.length - 1] });
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", end, { once: true });
    element.addEventListener("pointercancel", end, { once: true });
  });
}
