// The columns of the table: which are shown, how wide they are, and how they sort the rows.

import * as Colours from "./colours.js";
import { el } from "./dom.js";
import * as PlotData from "./plot_data.js";
import * as TextWidth from "./text_width.js";
import * as ValueText from "./value_text.js";
/** @import { Column } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

const BIN_COUNT = 24; // of the distribution in a column's head
const SAMPLED = 200; // values that are looked at for the width of a column

/**
 * The columns of the address, else the usual ones: the trial, what varies, the outcome, and the metrics.
 * @param {Dataset} dataset @param {State} state
 */
export function choose(dataset, state) {
  const names = parseNames(state.columns);
  const wanted = dataset.columns.filter((column) => names.includes(column.name));
  if (wanted.length > 0) return wanted;
  const hasFailed = dataset.countStatuses().has("failed");
  const usual = ["trial", "status", "ran_s", ...(dataset.raw.spending ? ["cost"] : []), ...(hasFailed ? ["error"] : [])];
  return dataset.columns.filter(({ name, role }) => ["axis", "metric", "mark"].includes(role) || name === "check" || usual.includes(name));
}

/** @param {string} text @returns {string[]} */
function parseNames(text) {
  try {
    const names = JSON.parse(text || "null");
    return Array.isArray(names) ? names : [];
  } catch {
    return []; // somebody cut the address
  }
}

/** A list of all columns with check boxes. @param {Dataset} dataset @param {Column[]} columns those that are shown @param {Page["update"]} update */
export function makeChooser(dataset, columns, update) {
  const boxes = dataset.columns.map((column) => {
    const { name } = column;
    const box = el("input", { type: "checkbox", value: name, "data-keep": `column ${name}`, onchange: onChange });
    box.checked = columns.includes(column);
    return box;
  });
  function onChange() {
    update({ columns: JSON.stringify(boxes.filter((box) => box.checked).map((box) => box.value)) });
  }
  return el(
    "details",
    { class: "columns" },
    el("summary", {}, `Columns (${columns.length} of ${dataset.columns.length})`),
    el("div", { class: "strip" }, boxes.map((box) => el("label", {}, box, box.value))),
  );
}

/** A small picture of how the numbers of a column are distributed; null if they are all the same. @param {Column} column @param {number[]} rows */
export function makeDistribution(column, rows) {
  const values = rows.map((row) => column.value(row)).filter(ValueText.isNumber).map(Number);
  const extent = Colours.findExtent(values);
  if (extent === null || extent[0] === extent[1]) return null;
  const counts = PlotData.countBins(values, extent, BIN_COUNT);
  const most = Math.max(...counts);
  const label = `Distribution of ${column.name}: ${extent.map(ValueText.makeFormat(values)).join(" to ")}`;
  const canvas = el("canvas", { class: "spread", width: BIN_COUNT * 3, height: 14, role: "img", "aria-label": label, title: label });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--spread");
  counts.forEach((count, index) => {
    const height = Math.ceil((count / most) * 14);
    pen.fillRect(index * 3, 14 - height, 2, height);
  });
  return canvas;
}

/** @type {CanvasRenderingContext2D | null} */
let pen = null;

/** The width of a column in pixels: that of its longest value, or its name with the arrow of a sorted column. @param {Column} column */
export function computeWidth(column) {
  pen ??= TextWidth.makePen("600 14px"); // as the head is set
  const head = pen.measureText(`${column.name} ▼`).width + 24;
  const labels =
    column.codes === null
      ? column.numbers.slice(0, SAMPLED).map((_, row) => column.label(row))
      : [...column.labels.slice(0, SAMPLED).map((label, code) => column.names?.[code] ?? ValueText.toVisible(label)), column.codes.includes(-1) ? "(none)" : ""];
  const longest = labels.reduce((most, label) => Math.max(most, label.length), 0);
  return Math.ceil(Math.min(320, Math.max(64, longest * 9.2 + 28, head)));
}
