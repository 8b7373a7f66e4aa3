// @ts-check
// Two numbers of each trial against each other. There may be ten thousand trials, so all dots are one path.

import * as Chart from "./chart.js";
import { el, svg } from "./dom.js";
import * as Params from "./params.js";
import * as PlotData from "./plot_data.js";
/** @import { Column } from "./columns.js" */
/** @import { Context } from "./main.js" */

const FRAME = { ...Chart.PLOT, height: 400 };
const REACH = 12; // units from a dot within which a pointer means it

/** @typedef {{row: number, x: number, y: number}} Dot units */

/**
 * @param {number[]} allRows @param {Column} across @param {Column} up @param {Context} context
 * @returns {Element[]}
 */
export function create(allRows, across, up, { dataset, open }) {
  const rows = allRows.filter((row) => typeof across.value(row) === "number");
  if (rows.length === 0) return [el("p", { class: "empty" }, `No trial in view has a value of ${across.name}.`)];
  const [toX, toY] = [across, up].map((column) => PlotData.makeAxis(rows.map((row) => column.value(row))));
  const scale = Chart.makeScale(FRAME);
  const order = rows.map((row) => ({ row, x: scale.toX(toX.toShare(across.value(row))), y: scale.toY(toY.toShare(up.value(row))) })).sort((a, b) => a.x - b.x);
  const label = `${up.name} against ${across.name}, ${rows.length} trials; use the arrow keys to read them in order, Enter to open one`;
  const chosen = svg("rect", { width: 12, height: 12, class: "chosen", visibility: "hidden" });
  const node = Chart.makeSvg(
    FRAME,
    { class: `plot scatter${rows.length > 400 ? " many" : ""}`, role: "img", tabindex: 0, "aria-label": label },
    Chart.makeRules(FRAME, toY.ticks, up.name),
    Chart.makeFoot(FRAME, toX.ticks, across.name),
    svg("path", { d: order.map(({ x, y }) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join(""), class: "dots" }),
    chosen,
  );
  const status = el("p", { class: "dim", role: "status" }, "Point at a dot to read it; press it to open its trial.");
  /** @type {Dot | undefined} */
  let current;
  const show = (/** @type {Dot} */ dot) => {
    current = dot;
    for (const [name, value] of Object.entries({ x: dot.x - 6, y: dot.y - 6, visibility: "visible" })) chosen.setAttribute(name, String(value));
    status.textContent = `trial ${dataset.trial(dot.row)}: ${across.name} ${across.label(dot.row)}, ${up.name} ${up.label(dot.row)} · ${Params.makeTitle(dataset, dot.row)}`;
  };
  const find = Chart.makeFind(order, REACH);
  Chart.listenToPointer(node, find, (dot) => dot && dot !== current && show(dot), (dot) => open(dot.row));
  Chart.listenToKeys(node, order, () => (current === undefined ? -1 : order.indexOf(current)), show, (dot) => open(dot.row));
  return [node, status];
}
