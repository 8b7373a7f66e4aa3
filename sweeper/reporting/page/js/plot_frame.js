// @ts-check
// The frame that plots share: a viewBox in SVG units, rules with values at the left, texts.

import { svg } from "./dom.js";
import * as PlotData from "./plot_data.js";

export const WIDTH = 640;
export const HEIGHT = 320;
export const LEFT = 64;
export const BOTTOM = 40;
export const MARGIN = 16;

/** @param {string} name @param {(Element | (Element | null)[])[]} content */
export const create = (name, ...content) =>
  svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "group", "aria-label": name }, ...content);

/** @param {number} x @param {number} y @param {string} text @param {"start" | "middle" | "end"} anchor */
export const makeText = (x, y, text, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);

/** @param {number} share from 0 to 1 */
export const shareToX = (share) => LEFT + share * (WIDTH - LEFT - MARGIN);
/** @param {number} share from 0 to 1 */
export const shareToY = (share) => HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - MARGIN);

/**
 * Horizontal rules with their values.
 * @param {number[]} values @param {(value: number) => number} toY
 */
export const makeRules = (values, toY) =>
  values.flatMap((value) => [
    svg("line", { x1: LEFT, x2: WIDTH - MARGIN, y1: toY(value), y2: toY(value), class: "rule" }),
    makeText(LEFT - 6, toY(value) + 4, PlotData.formatShort(value), "end"),
  ]);

/**
 * A part of a plot that can be pressed, by keyboard too.
 * @param {"circle" | "rect"} tag @param {Record<string, any>} attributes @param {string} words @param {() => void} onPress
 */
export function makeButton(tag, attributes, words, onPress) {
  /** @param {KeyboardEvent} event */
  function onkeydown(event) {
    if (event.key !== "Enter") return;
    event.preventDefault();
    onPress();
  }
  const listeners = { onclick: onPress, onkeydown };
  return svg(tag, { ...attributes, ...listeners, role: "button", tabindex: 0, "aria-label": words }, svg("title", {}, words));
}
