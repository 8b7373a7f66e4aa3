// Numbers as colours: one scale for cells, heat maps and lines.

/** @import { Value } from "./value_text.js" */

// Five stops of viridis (Smith and van der Walt 2015), which is perceptually uniform and readable with colour blindness.
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
export const LINES = ["#3b78c4", "#d9822b", "#3f9b57", "#b5459e", "#8a6d3b", "#2aa3a3", "#c4453b", "#7a7f87"];

/** Red, green and blue of a share from 0 to 1, each from 0 to 255. @param {number} share */
function mix(share) {
  const position = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(position));
  return STOPS[low].map((part, i) => Math.round(part + (STOPS[low + 1][i] - part) * (position - low)));
}

/** The colour of a share from 0 to 1. @param {number} share */
export const pick = (share) => `rgb(${mix(share).join(", ")})`;

/** The colour of a share as a thin line or a small mark: the larger the share, the more it stands out from the page. @param {number} share */
export const pickVivid = (share) => `light-dark(${pick(0.85 * (1 - share))}, ${pick(0.12 + 0.88 * share)})`;

/** A text colour that is readable on `pick(share)`: black, unless white has more contrast (WCAG 2.2, contrast ratio). @param {number} share */
export function pickText(share) {
  const [red, green, blue] = mix(share).map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 ? "#fff" : "#000";
}

/**
 * The lowest and the highest of some numbers, without missing ones; null if there is no number.
 * @param {Iterable<Value>} numbers @returns {[number, number] | null}
 */
export function findExtent(numbers) {
  const known = [...numbers].filter((value) => typeof value === "number");
  return known.length > 0 ? [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))] : null;
}

const OUTER_SHARE = 0.02; // of the numbers on each side
const MIN_NUMBERS = 20;

/**
 * The extent of most of the numbers: beyond it lie 2 % on each side, so that one outlier does not make all others look
 * alike. With few numbers it is the whole extent.
 * @param {Iterable<Value>} numbers @returns {[number, number] | null}
 */
export function findRobustExtent(numbers) {
  const sorted = Float64Array.from([...numbers].filter((value) => typeof value === "number")).sort();
  if (sorted.length < MIN_NUMBERS) return findExtent(sorted);
  const skipped = Math.floor(sorted.length * OUTER_SHARE);
  const [low, high] = [sorted[skipped], sorted[sorted.length - 1 - skipped]];
  return low < high ? [low, high] : findExtent(sorted);
}

/** Where a number lies in its extent, from 0 to 1; 0.5 if the extent is one number. @param {number} value @param {[number, number]} extent */
export const toShare = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);
