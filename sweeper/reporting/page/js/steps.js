// Moves from the open trial to its neighbours: finds them, and provides buttons and swipes. `Zoom` handles the keys.

import * as Columns from "./columns.js";
import { el } from "../../../serving/page/js/dom.js";
/** @import { Page } from "./main.js" */

/** @typedef {(down: number, across: number) => number | undefined} FindNeighbour */
/** @typedef {(down: number, across: number) => void} Go */
const BUTTONS = [
  { name: "left", sign: "←", words: "to the left", step: [0, -1] },
  { name: "right", sign: "→", words: "to the right", step: [0, 1] },
  { name: "up", sign: "↑", words: "above", step: [-1, 0] },
  { name: "down", sign: "↓", words: "below", step: [1, 0] },
];
const MIN_SWIPE = 48; // pixels
const OWN_SWIPE = "input, audio, video, .stack:has(.slider-line)"; // controls that use a finger themselves

/**
 * The trial beside `row` in a direction; cells without a trial are skipped. A table has one direction only.
 * @param {Page} page @param {number} row @param {number} down @param {number} across
 * @returns {number | undefined} a row of the data
 */
export function findNeighbour(page, row, down, across) {
  const { view } = page.getState();
  const step = () => stepInList(page, page.getSortedRows(), row, down + across);
  if (view === "table" || (view === "gallery" && across !== 0)) return step(); // the next one may begin a line
  const arrangement = page.getArrangement();
  const position = arrangement.locate(row);
  if (position === null) return view === "gallery" ? step() : undefined;
  const stack = arrangement.trials(...position);
  if (stack.length > 1 && across !== 0) {
    const next = stack[stack.indexOf(row) + across];
    if (next !== undefined) return next;
  }
  let [r, c] = [position[0] + down, position[1] + across];
  while (r >= 0 && c >= 0 && r < arrangement.rows.length && c < arrangement.columns.length) {
    const neighbour = arrangement.find(r, c);
    if (neighbour >= 0) return neighbour;
    r += down;
    c += across;
  }
  return undefined;
}

/**
 * The row some steps further in a list. A row that its new mark took out of the filter still has its place in the order.
 * @param {Page} page @param {number[]} rows @param {number} row @param {number} step @returns {number | undefined}
 */
function stepInList(page, rows, row, step) {
  if (rows.includes(row)) return rows[rows.indexOf(row) + step];
  const index = Columns.sortRows(page.dataset, [...rows, row].sort((a, b) => a - b), page.getState().sort).indexOf(row);
  return rows[step > 0 ? index + step - 1 : index + step];
}

/** Buttons to the neighbours. @param {FindNeighbour} find @param {Go} go @param {boolean} isList whether there are only rows, as in the table */
export function makeButtons(find, go, isList) {
  const buttons = BUTTONS.slice(isList ? 2 : 0).map(({ name, sign, words, step: [down, across] }) => {
    const label = `The trial ${words}`;
    return el("button", {
      "aria-label": label,
      title: `${label}: key ${sign}`,
      // Not `disabled`, because that would take the focus from a button that is being pressed.
      "aria-disabled": find(down, across) === undefined && "true",
      "data-keep": name,
      class: name,
      onclick: () => go(down, across),
    }, sign);
  });
  return el("div", { class: "steps", role: "group", "aria-label": "Neighbours" }, buttons);
}

/**
 * Let a horizontal swipe over an element lead to the next trial, unless it scrolls a control or a page that is
 * zoomed in.
 * @param {HTMLElement} node @param {Go} go
 */
export function listenForSwipes(node, go) {
  /** @type {Touch | null} */
  let start = null;
  const options = { passive: true };
  node.addEventListener("touchstart", ({ touches, target }) => {
    const isOwn = target instanceof Element && target.closest(OWN_SWIPE) !== null;
    const isZoomed = (globalThis.visualViewport?.scale ?? 1) >= 1.01;
    start = touches.length === 1 && !isZoomed && !isOwn ? touches[0] : null;
  }, options);
  node.addEventListener("touchcancel", () => (start = null), options);
  node.addEventListener("touchend", ({ changedTouches: [end] }) => {
    if (start === null) return;
    const [x, y] = [end.clientX - start.clientX, end.clientY - start.clientY];
    start = null;
    if (Math.abs(x) >= MIN_SWIPE && Math.abs(x) > 2 * Math.abs(y)) go(0, x < 0 ? 1 : -1);
  }, options);
}
