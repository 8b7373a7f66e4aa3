// What all charts share: a frame in SVG units with rules, values at its edges and names, and marks that a pointer and the
// arrow keys read.

import * as Keys from "../../../serving/page/js/keys.js";
import { el, svg } from "../../../serving/page/js/dom.js";
/** @import { Children } from "../../../serving/page/js/dom.js" */

/** @typedef {{width: number, height: number, left: number, right: number, top: number, bottom: number}} Frame SVG units, and what is around the plane */
/** @typedef {{share: number, label: string}} Tick a value at an edge; share: from 0 to 1 along it */

/** @type {Frame} */
export const PLOT = { width: 640, height: 320, left: 64, right: 16, top: 26, bottom: 40 };
const LETTER_WIDTH = 6.6; // SVG units of a digit

/** The same in a plot, whose texts are larger in a small window: css/table.css. */
export const getLetterWidth = () => (globalThis.innerWidth < 600 ? 12.5 : 8);

/** @param {string} text @param {number} room SVG units */
export const fit = (text, room) => (text.length * LETTER_WIDTH > room ? `${text.slice(0, Math.max(1, Math.floor(room / LETTER_WIDTH) - 1))}…` : text);

/** @param {string} title @param {string} classes @param {Children[]} content */
export const makeSection = (title, classes, ...content) => el("section", { class: classes }, el("h2", {}, title), ...content);

/** @param {number} x @param {number} y @param {string} text @param {"start" | "middle" | "end"} anchor */
export const makeText = (x, y, text, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);

/** @param {Frame} frame */
export const makeScale = ({ width, height, left, right, top, bottom }) => ({
  toX: (/** @type {number} */ share) => left + share * (width - left - right),
  toY: (/** @type {number} */ share) => height - bottom - share * (height - bottom - top),
});

/** @param {Frame} frame @param {Record<string, any>} attributes @param {any[]} content */
export const makeSvg = ({ width, height }, attributes, ...content) =>
  /** @type {SVGSVGElement} */ (svg("svg", { viewBox: `0 0 ${width} ${height}`, ...attributes }, ...content));

/** Rules with the values at the left, and what the vertical direction means. @param {Frame} frame @param {Tick[]} ticks @param {string} title */
export function makeRules(frame, ticks, title) {
  const { toX, toY } = makeScale(frame);
  return [
    ...ticks.map(({ share }) => svg("line", { x1: toX(0), x2: toX(1), y1: toY(share), y2: toY(share), class: "rule" })),
    ...ticks.map(({ share, label }) => makeText(frame.left - 6, toY(share) + 4, label, "end")),
    makeText(4, 14, fit(`↑ ${title}`, frame.width - 8), "start"),
  ];
}

/**
 * The values below a chart, only as many as do not overlap, and their name.
 * @param {Frame} frame @param {Tick[]} ticks @param {string} title @param {number} [letter] SVG units
 */
export function makeFoot(frame, ticks, title, letter = LETTER_WIDTH) {
  const { toX } = makeScale(frame);
  let free = -Infinity;
  const labels = ticks.map(({ share, label }) => {
    const text = fit(label, (toX(1) - toX(0)) / Math.min(ticks.length, 3));
    const half = (text.length * letter) / 2;
    const middle = Math.min(Math.max(toX(share), half), frame.width - half);
    if (middle - half < free) return null;
    free = middle + half + letter;
    return makeText(middle, frame.height - frame.bottom + 16, text, "middle");
  });
  return [...labels, makeText(toX(0.5), frame.height - 4, fit(title, frame.width - frame.left), "middle")];
}

/**
 * A part of a plot that can be pressed, by keyboard too.
 * @param {"circle" | "rect"} tag @param {Record<string, any>} attributes @param {string} words @param {() => void} onPress
 */
export function makeButton(tag, attributes, words, onPress) {
  const node = svg(tag, { ...attributes, onclick: onPress, role: "button", tabindex: 0, "aria-label": words }, svg("title", {}, words));
  Keys.bind(node, "", [["Enter", "", onPress]]);
  return node;
}

/**
 * Make a function that finds the mark nearest to a place, within `reach`.
 * @template {{x: number, y: number}} M
 * @param {M[]} marks @param {number} reach SVG units @returns {(x: number, y: number) => M | undefined}
 */
export const makeFind = (marks, reach) => (x, y) => {
  /** @type {[M | undefined, number]} */
  let [best, least] = [undefined, reach];
  for (const mark of marks) {
    const distance = Math.hypot(mark.x - x, mark.y - y);
    if (distance < least) [best, least] = [mark, distance];
  }
  return best;
};

/** Convert a place in the window to SVG units of a chart. @param {SVGSVGElement} node @param {MouseEvent} event */
export function toUnits(node, event) {
  const box = node.getBoundingClientRect();
  const scale = node.viewBox.baseVal.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

/**
 * Let a pointer show marks, and a press open one, unless it began on a part of its own (`.track`, `.handle`).
 * @template M
 * @param {SVGSVGElement} node @param {(x: number, y: number) => M | undefined} find
 * @param {(mark: M | undefined, event: PointerEvent) => void} show @param {(mark: M) => void} open
 */
export function listenToPointer(node, find, show, open) {
  const findAt = (/** @type {MouseEvent} */ event) => {
    const { x, y } = toUnits(node, event);
    return find(x, y);
  };
  node.addEventListener("pointermove", (event) => {
    // Without movement, the chart moved below a pointer that rests.
    if (event.pointerType !== "touch" && (event.movementX !== 0 || event.movementY !== 0)) show(event.buttons === 0 ? findAt(event) : undefined, event);
  });
  let isPressed = false; // a drag along an axis ends with a click too
  node.addEventListener("pointerdown", (event) => (isPressed = !(event.target instanceof Element && event.target.matches(".track, .handle"))));
  node.addEventListener("click", (event) => {
    const mark = isPressed ? findAt(event) : undefined;
    if (mark !== undefined) open(mark);
  });
}

/**
 * Let the arrow keys, Home and End step through marks, and Enter open the current one.
 * @template M
 * @param {SVGElement} node @param {M[]} order @param {() => number} getIndex of the current mark, or -1
 * @param {(mark: M) => void} show @param {(mark: M) => void} open
 */
export function listenToKeys(node, order, getIndex, show, open) {
  const last = order.length - 1;
  const step = (/** @type {string} */ key) => {
    const next = { ArrowLeft: Math.max(0, getIndex() - 1), ArrowRight: Math.min(last, getIndex() + 1), Home: 0 }[key] ?? last;
    return last >= 0 && show(order[next]);
  };
  Keys.bind(node, "In a chart", [
    ["ArrowLeft ArrowRight Home End", "the next point", step],
    ["Enter", "show its pictures", () => getIndex() >= 0 && open(order[getIndex()])],
  ]);
}
