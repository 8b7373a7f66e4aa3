// @ts-check
// A number along a numeric axis, with a line for each value of another axis.

import * as Colours from "./colours.js";
import { el, svg } from "./dom.js";
import * as Expression from "./expression.js";
import * as Layout from "./layout.js";
import * as PlotData from "./plot_data.js";
import * as PlotFrame from "./plot_frame.js";
import { BOTTOM, HEIGHT, LEFT, WIDTH } from "./plot_frame.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Group } from "./heat_map.js" */
/** @import { Head } from "./layout.js" */
/** @import { Context } from "./main.js" */

const MAX_LINES = Colours.LINES.length; // each needs a colour of its own
const MAX_DOTS = 300;

/** @typedef {{x: number, code: number, label: string}} Tick a value of the axis */
/** @typedef {Tick & {group: Group}} Point */
/** @typedef {{toX: (value: number) => number, toY: (value: number) => number}} Scale */

/**
 * Draw the means along an axis; where several trials share a point, a bar shows their range.
 * @param {number[]} allRows @param {Column} metric @param {Axis} along
 * @param {Axis | undefined} per the axis with one line for each value
 * @param {Context} context @returns {(Element | null)[]}
 */
export function create(allRows, metric, along, per, context) {
  const { dataset, state } = context;
  const [alongHead, perHead] = [Layout.makeHead(dataset, along), per && Layout.makeHead(dataset, per)];
  const rows = allRows.filter((row) => along.codes[row] >= 0);
  if (rows.length === 0) return [el("p", { class: "empty" }, `No trial in view has a value of ${along.name}.`)];
  const groups = PlotData.groupRows(rows, metric, (row) => `${per === undefined ? 0 : per.codes[row]},${along.codes[row]}`);
  const ticks = PlotData.findPresentCodes(rows, along, state)
    .map((code) => ({ x: Number(along.values[code]), code, label: alongHead.labelOf(code) }))
    .sort((a, b) => a.x - b.x);
  const rules = PlotData.makeTicks(Colours.findExtent([...groups.values()].flatMap((group) => [group.low, group.high])) ?? [0, 0]);
  /** @type {[number, number]} */
  const yExtent = [rules[0], rules[rules.length - 1]];
  /** @type {[number, number]} */
  const xExtent = [ticks[0].x, ticks[ticks.length - 1].x];
  const scale = {
    toX: (/** @type {number} */ value) => PlotFrame.shareToX(Colours.toShare(value, xExtent)),
    toY: (/** @type {number} */ value) => PlotFrame.shareToY(Colours.toShare(value, yExtent)),
  };
  const codes = per === undefined ? [0] : PlotData.findPresentCodes(rows, per, state);
  const nameOf = (/** @type {number} */ code) => perHead?.labelOf(code) ?? metric.name;
  const lines = codes.slice(0, MAX_LINES).map((code, index) => {
    const points = ticks.flatMap((tick) => {
      const group = groups.get(`${code},${tick.code}`);
      return group === undefined ? [] : [{ ...tick, group }];
    });
    /** @param {number} at */
    const open = (at) =>
      PlotData.openTrials(context, metric, [Expression.makeCondition(along, at), ...(per === undefined ? [] : [Expression.makeCondition(per, code)])]);
    return drawLine(points, Colours.LINES[index], `${nameOf(code)}`, along.name, groups.size <= MAX_DOTS ? open : null, scale);
  });
  const plot = PlotFrame.create(
    `${metric.name} along ${along.name}`,
    PlotFrame.makeRules(rules, scale.toY),
    makeTicks(ticks, scale.toX),
    PlotFrame.makeText((WIDTH + LEFT) / 2, HEIGHT - 4, alongHead.name, "middle"),
    lines,
  );
  const hasBars = [...groups.values()].some((group) => group.count > 1);
  const words = hasBars ? el("p", { class: "dim" }, "A dot is the mean of its trials; its bar reaches from the lowest to the highest.") : null;
  return [plot, per !== undefined && per.order.length > 1 ? makeLegend(codes, perHead) : null, words];
}

/**
 * @param {Point[]} points @param {string} colour @param {string} name @param {string} along
 * @param {((code: number) => void) | null} open shows the trials of a dot; null: no dots, because there would be too many
 * @param {Scale} scale
 */
function drawLine(points, colour, name, along, open, { toX, toY }) {
  const path = points.map(({ x, group }, i) => `${i ? "L" : "M"}${toX(x).toFixed(1)} ${toY(group.mean).toFixed(1)}`).join("");
  const bars = points.map(({ x, group }) => `M${toX(x).toFixed(1)} ${toY(group.low).toFixed(1)}V${toY(group.high).toFixed(1)}`).join("");
  const makeDot = (/** @type {Point} */ { x, code, label, group }) => {
    const words = `${name}, ${along} ${label}: ${PlotData.formatShort(group.mean)}, ${group.count} trial${group.count === 1 ? "" : "s"}`;
    return PlotFrame.makeButton("circle", { cx: toX(x), cy: toY(group.mean), r: 4 }, words, () => open?.(code));
  };
  return svg(
    "g",
    { stroke: colour, fill: colour },
    svg("title", {}, name),
    svg("path", { d: path, fill: "none", "stroke-width": 2 }),
    svg("path", { d: bars, "stroke-opacity": 0.4 }),
    open ? points.map(makeDot) : null,
  );
}

/**
 * The values below the plot, unrounded because a seed must stay readable; only as many as do not overlap.
 * @param {Tick[]} ticks @param {(value: number) => number} toX
 */
function makeTicks(ticks, toX) {
  const letterWidth = globalThis.innerWidth < 600 ? 12.5 : 8; // of a digit, as css/table.css sets it
  let free = -Infinity;
  return ticks.map(({ x, label }) => {
    const half = (label.length * letterWidth) / 2;
    const middle = Math.min(Math.max(toX(x), half), WIDTH - half);
    if (middle - half < free) return null;
    free = middle + half + letterWidth;
    return PlotFrame.makeText(middle, HEIGHT - BOTTOM + 16, label, "middle");
  });
}

/** @param {number[]} codes @param {Head | undefined} head */
function makeLegend(codes, head) {
  const items = codes.slice(0, MAX_LINES).map((code, index) => {
    const box = el("i", {});
    box.style.background = Colours.LINES[index];
    return el("li", { title: head?.fullOf(code) }, box, head?.labelOf(code));
  });
  const isCut = codes.length > items.length;
  const more = isCut && el("li", {}, `the first ${items.length} of ${codes.length} in view; hide values or filter to see others`);
  return el("ul", { class: "key" }, items, more);
}
