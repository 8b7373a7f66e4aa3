// @ts-check
// Draws a heat map that has too many cells for a table. Some of its values are written at the edges; the pointer and the
// arrow keys read out single cells.

import * as Colours from "./colours.js";
import { LETTER_WIDTH } from "./chart.js";
import { el } from "./dom.js";

/** @typedef {{mean: number, low: number, high: number, count: number}} Group a number of the trials that share a point */
/** @typedef {{name: string, labels: string[], full: string[]}} HeatLines the rows or columns of a map, with labels short and in full */
/**
 * @typedef {object} HeatMapData
 * @property {HeatLines} rows
 * @property {HeatLines} columns
 * @property {(r: number, c: number) => Group | undefined} getGroup
 * @property {[number, number]} extent of the means
 * @property {string} metric
 * @property {(value: number) => string} format
 * @property {(r: number, c: number) => void} open shows the trials of a cell
 */

const [MAX_WIDTH, MAX_HEIGHT] = [640, 560]; // pixels of a map with that many cells
const [MAX_CELL, MIN_CELL_HEIGHT] = [24, 2]; // pixels
const MAX_TALL_ROWS = 8000; // more rows get one pixel each, because a canvas has a largest size
const LABEL_HEIGHT = 18; // pixels
/** @type {Record<string, [number, number]>} */
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * @param {HeatMapData} map
 * @param {number} room pixels of width
 */
export function create(map, room) {
  const { rows, columns, metric } = map;
  const [rowCount, columnCount] = [rows.labels.length, columns.labels.length];
  const cell = {
    width: Math.max(1, Math.min(MAX_CELL, Math.floor(MAX_WIDTH / columnCount))),
    height: Math.max(rowCount > MAX_TALL_ROWS ? 1 : MIN_CELL_HEIGHT, Math.min(MAX_CELL, Math.floor(MAX_HEIGHT / rowCount))),
  };
  const [width, height] = [cell.width * columnCount, cell.height * rowCount];
  const side = Math.min(140, 16 + LETTER_WIDTH * findLongest(rows.labels), room / 3);
  const label = `Heat map of ${metric}, ${columnCount} by ${rowCount}; use the arrow keys to read its cells, Enter to show their trials`;
  const canvas = el("canvas", { width, height, tabindex: 0, role: "img", "aria-label": label });
  paint(canvas, cell, map);
  const marker = el("div", { class: "here", hidden: true });
  const status = el("p", { class: "dim heat-status", role: "status" }, "Point at a cell to read it.");
  const plane = el("div", { class: "plane" }, canvas, marker);
  const shownWidth = Math.min(width, room - side);
  const columnStep = (Math.min(12, findLongest(columns.labels)) * LETTER_WIDTH + 12) / (cell.width * (shownWidth / width));
  const sides = el("div", { class: "drawn-sides" }, makeEdge(rows, LABEL_HEIGHT / cell.height, "top"));
  const heads = el("div", { class: "drawn-heads" }, makeEdge(columns, columnStep, "left"));
  plane.style.cssText = `height:${height}px`;
  sides.style.cssText = `width:${side}px;height:${height}px`;
  const corner = el("p", { class: "dim corner" }, `${rows.name} ↓ ${columns.name} →`);
  const body = el("div", { class: "drawn" }, corner, heads, sides, plane);
  body.style.cssText = `grid-template-columns:${side}px minmax(0,${width}px)`;
  readCells(canvas, marker, status, map);
  return [el("div", { class: "wide" }, body), status];
}

/** @param {string[]} labels */
const findLongest = (labels) => labels.reduce((most, label) => Math.max(most, label.length), 0);

/**
 * One label for every `every` lines.
 * @param {HeatLines} lines @param {number} every @param {"top" | "left"} side
 */
function makeEdge({ labels, full }, every, side) {
  const step = Math.max(1, Math.ceil(every));
  return labels.map((label, index) => {
    if (index % step !== 0) return null;
    const node = el("span", { title: full[index] }, label);
    node.style[side] = `${((index + 0.5) / labels.length) * 100}%`;
    if (side === "left") node.style.maxWidth = `${(step / labels.length) * 100}%`;
    return node;
  });
}

/** @param {HTMLCanvasElement} canvas @param {{width: number, height: number}} cell @param {HeatMapData} map */
function paint(canvas, cell, { rows, columns, getGroup, extent }) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  for (let r = 0; r < rows.labels.length; r++) {
    for (let c = 0; c < columns.labels.length; c++) {
      const group = getGroup(r, c);
      if (group === undefined) continue;
      pen.fillStyle = Colours.pick(Colours.toShare(group.mean, extent));
      pen.fillRect(c * cell.width, r * cell.height, cell.width, cell.height);
    }
  }
}

/**
 * Show the values of the cell that the user points at, or moves to by keyboard.
 * @param {HTMLCanvasElement} canvas @param {HTMLElement} marker @param {HTMLElement} status @param {HeatMapData} map
 */
function readCells(canvas, marker, status, map) {
  const [rowCount, columnCount] = [map.rows.labels.length, map.columns.labels.length];
  /** @type {[number, number] | null} */
  let current = null;
  /** @param {number} r @param {number} c */
  function show(r, c) {
    current = [Math.min(Math.max(r, 0), rowCount - 1), Math.min(Math.max(c, 0), columnCount - 1)];
    status.textContent = describeCell(map, ...current);
    marker.hidden = false;
    const toPercent = (/** @type {number} */ index, /** @type {number} */ count) => `${(index / count) * 100}%`;
    marker.style.cssText =
      `left:${toPercent(current[1], columnCount)};top:${toPercent(current[0], rowCount)};` +
      `width:${toPercent(1, columnCount)};height:${toPercent(1, rowCount)}`;
  }
  /** @param {PointerEvent} event */
  const onPointer = (event) => {
    const box = canvas.getBoundingClientRect();
    show(
      Math.floor(((event.clientY - box.top) / box.height) * rowCount),
      Math.floor(((event.clientX - box.left) / box.width) * columnCount),
    );
  };
  canvas.addEventListener("pointermove", onPointer);
  canvas.addEventListener("pointerdown", onPointer);
  const openCurrent = () => current !== null && map.getGroup(...current) !== undefined && map.open(...current);
  canvas.addEventListener("click", openCurrent);
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (event.key === "Enter") openCurrent();
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    if (current === null) show(0, 0);
    else show(current[0] + step[0], current[1] + step[1]);
    marker.scrollIntoView({ block: "nearest", inline: "nearest" });
    event.preventDefault();
  });
}

/** @param {HeatMapData} map @param {number} r @param {number} c */
function describeCell({ rows, columns, getGroup, metric, format }, r, c) {
  const group = getGroup(r, c);
  /** @type {[HeatLines, number][]} */
  const lines = [[columns, c], [rows, r]];
  const where = lines.filter(([line]) => line.name !== "").map(([line, index]) => `${line.name}: ${line.labels[index]}`);
  const value = group === undefined ? "no value" : format(group.mean);
  const spread = group && group.count > 1 ? ` (${group.count} trials, ${format(group.low)} to ${format(group.high)})` : "";
  return `${where.join(" · ")} · ${metric}: ${value}${spread}`;
}
