// @ts-check
// Parallel coordinates: a vertical line for each axis of a search, and across them a line for each point. A range that one
// drags on an axis becomes a part of the page's filter.

import * as ChartFrame from "./chart.js";
import * as Colours from "./colours.js";
import * as Dom from "./dom.js";
import { svg } from "./dom.js";
import * as SearchCharts from "./search_charts.js";
/** @import { Chart, ChartSize, PlacedPoint } from "./search_charts.js" */
/** @import { Dimension, StopRange } from "./search_dimensions.js" */
/** @import { Search, SearchPoint } from "./search_points.js" */

/**
 * @typedef {object} Brushes
 * @property {Map<string, StopRange>} ranges by dimension
 * @property {(dimension: Dimension, range: StopRange | null, replace?: boolean) => void} setRange null: no range
 */

const [TOP, BOTTOM, SIDE] = [40, 22, 56]; // pixels
const REACH = 12; // pixels from a line within which a pointer means it
const MIN_GAP = 92; // pixels between two axes
const TRACK = 30; // pixels of width in which one can drag a range
const MIN_DRAG = 4; // pixels; less is a press, which removes the range
const MANY = 150; // lines; more are drawn thinner
const MAX_LABELS = 12; // of an axis

/**
 * @param {Search} search
 * @param {Dimension[]} dimensions from left to right
 * @param {Dimension} objective what colours the lines
 * @param {boolean} isHigherBetter
 * @param {Brushes} brushes
 * @param {ChartSize} room
 * @returns {Chart & {group: Element}}
 */
export function create({ points }, dimensions, objective, isHigherBetter, brushes, room) {
  const size = { ...room, width: Math.max(room.width, 2 * SIDE + MIN_GAP * (dimensions.length - 1)) };
  const xOf = (/** @type {number} */ index) => SIDE + (index * (size.width - 2 * SIDE)) / Math.max(1, dimensions.length - 1);
  const toY = (/** @type {number} */ share) => size.height - BOTTOM - share * (size.height - TOP - BOTTOM);
  const vividness = (/** @type {SearchPoint} */ point) => {
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
  const node = SearchCharts.makeSvg(name, size, lines);
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

  return { node, order: [...placed].reverse(), find, group: Dom.el("div", { class: points.length > MANY ? "parallel many" : "parallel" }, node, overlay) };
}

/**
 * One vertical axis with its values, its range and the handles of the range.
 * @param {Dimension} dimension @param {number} x @param {(share: number) => number} toY @param {ChartSize} size @param {Brushes} brushes
 */
function makeAxis(dimension, x, toY, size, brushes) {
  const { ticks, title, stops, name } = dimension;
  const range = brushes.ranges.get(name);
  const every = Math.ceil(ticks.length / MAX_LABELS);
  const labels = ticks.filter((_, index) => index % every === 0).map(({ share, label }) => ChartFrame.makeText(x - 7, toY(share) + 4, ChartFrame.fit(label, MIN_GAP - 12), "end"));
  const track = svg("rect", { x: x - TRACK / 2, width: TRACK, y: TOP - 8, height: size.height - TOP - BOTTOM + 16, class: "track" }, svg("title", {}, `Drag a range of ${name}; a press removes it`));
  const marked = range && svg("rect", { x: x - 5, width: 10, y: toY(stops[range.high].share) - 2, height: toY(stops[range.low].share) - toY(stops[range.high].share) + 4, class: "range" });
  const current = range ?? { low: 0, high: stops.length - 1 };
  const heads = dimension.heads.map((text, index) => ChartFrame.makeText(x, 14 + 14 * index, ChartFrame.fit(text, MIN_GAP * 1.2), "middle"));
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
  /** @param {KeyboardEvent} event */
  function onkeydown(event) {
    /** @type {Record<string, number>} */
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5, Home: -stops.length, End: stops.length };
    const step = steps[event.key];
    if (event.key === "Delete") brushes.setRange(dimension, null, true);
    else if (step !== undefined) brushes.setRange(dimension, { ...range, [end]: Math.min(most, Math.max(least, range[end] + step)) }, true);
    else return;
    event.preventDefault();
  }
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
    onkeydown,
  });
  listenToDrag(node, dimension, toY, x, brushes, toY(stops[range[end === "low" ? "high" : "low"]].share));
  return node;
}

/**
 * Let a drag choose a range.
 * @param {SVGElement} element @param {Dimension} dimension @param {(share: number) => number} toY @param {number} x
 * @param {Brushes} brushes @param {number} [fixed] the other end of the range; without it the drag begins there
 */
function listenToDrag(element, dimension, toY, x, { setRange }, fixed) {
  const toUnits = (/** @type {PointerEvent} */ event) => ChartFrame.toUnits(/** @type {SVGSVGElement} */ (element.ownerSVGElement), event).y;
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
