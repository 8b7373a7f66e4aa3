// Draws a heat map that has too many cells for a table. Some of its values are written at the edges; the pointer and the
// arrow keys read out single cells.

import * as Keys from "../../../serving/page/js/keys.js";
import * as Chart from "./chart.js";
import * as Colours from "./colours.js";
import { el, svg } from "../../../serving/page/js/dom.js";

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

const [WIDTH, HEIGHT] = [Chart.PLOT.width, 480]; // units of a map with that many cells
const [MAX_CELL, MIN_CELL] = [24, 2]; // units
const LEVELS = 64; // colours, each of which is one path
/** @type {Record<string, [number, number]>} */
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** @param {HeatMapData} map */
export function create(map) {
  const { rows, columns, metric } = map;
  const [rowCount, columnCount] = [rows.labels.length, columns.labels.length];
  const letter = Chart.getLetterWidth();
  const left = Math.min(WIDTH / 3, 16 + letter * rows.labels.reduce((most, label) => Math.max(most, label.length), 0));
  const width = Math.min(MAX_CELL, (WIDTH - left - 16) / columnCount);
  const height = Math.max(MIN_CELL, Math.min(MAX_CELL, HEIGHT / rowCount));
  const frame = { ...Chart.PLOT, left, height: Chart.PLOT.top + height * rowCount + Chart.PLOT.bottom, right: WIDTH - left - width * columnCount };
  const { toX, toY } = Chart.makeScale(frame);
  const place = (/** @type {number} */ r, /** @type {number} */ c) => ({ x: toX(0) + c * width, y: toY(1) + r * height });
  const step = Math.ceil((2.2 * letter) / height);
  const sides = rows.labels.map((label, r) => r % step === 0 && svg("text", { x: left - 6, y: place(r, 0).y + height / 2 + 4, "text-anchor": "end", class: "side-label" }, svg("title", {}, rows.full[r]), label));
  const ticks = columns.labels.map((label, c) => ({ share: (c + 0.5) / columnCount, label }));
  const marker = svg("rect", { width, height, class: "here", visibility: "hidden" });
  const label = `Heat map of ${metric}, ${columnCount} by ${rowCount}; use the arrow keys to read its cells, Enter to show their trials`;
  const node = Chart.makeSvg(
    frame,
    { class: "plot drawn", role: "img", tabindex: 0, "aria-label": label },
    Chart.makeText(4, 14, `${rows.name} ↓`, "start"),
    svg("rect", { ...place(0, 0), width: width * columnCount, height: height * rowCount, class: "plane" }),
    paint(map, place, width, height),
    sides,
    Chart.makeFoot(frame, ticks, columns.name, letter),
    marker,
  );
  const status = el("p", { class: "dim heat-status", role: "status" }, "Point at a cell to read it.");
  /** @type {[number, number] | undefined} */
  let current;
  const show = (/** @type {[number, number] | undefined} */ cell) => {
    if (cell === undefined) return;
    current = [Math.min(Math.max(cell[0], 0), rowCount - 1), Math.min(Math.max(cell[1], 0), columnCount - 1)];
    status.textContent = describeCell(map, ...current);
    for (const [name, value] of Object.entries({ ...place(...current), visibility: "visible" })) marker.setAttribute(name, String(value));
  };
  const open = (/** @type {[number, number]} */ cell) => map.getGroup(...cell) !== undefined && map.open(...cell);
  const find = (/** @type {number} */ x, /** @type {number} */ y) => /** @type {[number, number]} */ ([Math.floor((y - toY(1)) / height), Math.floor((x - toX(0)) / width)]);
  Chart.listenToPointer(node, find, show, open);
  const move = (/** @type {string} */ key) => {
    show(current ? [current[0] + STEPS[key][0], current[1] + STEPS[key][1]] : [0, 0]);
    marker.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  Keys.bind(node, "In a heat map", [
    [Object.keys(STEPS).join(" "), "the next cell", move],
    ["Enter", "show its trials", () => current && open(current)],
  ]);
  return [el("div", { class: "wide" }, node), status];
}

/** @param {HeatMapData} map @param {(r: number, c: number) => {x: number, y: number}} place @param {number} width @param {number} height */
function paint({ rows, columns, getGroup, extent }, place, width, height) {
  /** @type {Map<number, string>} */
  const paths = new Map();
  for (let r = 0; r < rows.labels.length; r++) {
    for (let c = 0; c < columns.labels.length; c++) {
      const group = getGroup(r, c);
      if (group === undefined) continue;
      const [level, { x, y }] = [Math.round(Colours.toShare(group.mean, extent) * LEVELS), place(r, c)];
      paths.set(level, `${paths.get(level) ?? ""}M${x.toFixed(2)} ${y.toFixed(2)}h${width.toFixed(2)}v${height.toFixed(2)}h-${width.toFixed(2)}z`);
    }
  }
  return [...paths].map(([level, d]) => svg("path", { d, fill: Colours.pick(level / LEVELS), "shape-rendering": "crispEdges" }));
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
