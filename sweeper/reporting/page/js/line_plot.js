// @ts-check
// A number along a numeric axis, with a line for each value of another axis.

import * as Chart from "./chart.js";
import * as Colours from "./colours.js";
import { el, svg } from "./dom.js";
import * as Expression from "./expression.js";
import * as Layout from "./layout.js";
import * as PlotData from "./plot_data.js";
import * as ValueText from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Frame } from "./chart.js" */
/** @import { Context } from "./main.js" */

const MAX_LINES = Colours.LINES.length; // of categories: each needs a colour of its own
const MAX_ORDERED_LINES = 12; // of numbers, which have the colours of a ramp
const MAX_DOTS = 300;
const END_ROOM = 90; // units for numbers at the ends of the lines
const LINE_HEIGHT = 15; // units between two of them

/** @typedef {{x: number, low: number, mean: number, high: number, open: () => void, words: string}} Point units; low and high: the ends of its band */
/** @typedef {{points: Point[], colour: string, full: string, label: string}} Line */

/**
 * Draw the means along an axis, each with its 95 % interval as a band.
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
  const margins = PlotData.computeMargins(rows, metric, along, per, dataset);
  const marginOf = (/** @type {string} */ key) => margins.get(key) ?? 0;
  const values = PlotData.findPresentCodes(rows, along, state)
    .map((code) => ({ value: Number(along.values[code]), code, label: alongHead.labelOf(code) }))
    .sort((a, b) => a.value - b.value);
  const frame = { ...Chart.PLOT, right: per?.numeric ? END_ROOM : Chart.PLOT.right };
  const { toX, toY } = Chart.makeScale(frame);
  const up = PlotData.makeAxis([...groups].flatMap(([key, { mean }]) => [mean - marginOf(key), mean + marginOf(key)]));
  const toShare = (/** @type {number} */ value) => Colours.toShare(value, [values[0].value, values[values.length - 1].value]);
  const format = ValueText.makeFormat([...groups.values()].map(({ mean }) => mean));
  const codes = per === undefined ? [0] : PlotData.findPresentCodes(rows, per, state);
  const shown = codes.slice(0, per?.numeric ? MAX_ORDERED_LINES : MAX_LINES);
  const lines = shown.map((code, index) => {
    const full = perHead?.fullOf(code) ?? metric.name;
    const points = values.flatMap(({ value, code: at, label }) => {
      const [group, margin] = [groups.get(`${code},${at}`), marginOf(`${code},${at}`)];
      if (group === undefined) return [];
      const [low, mean, high] = [-margin, 0, margin].map((distance) => toY(up.toShare(group.mean + distance)));
      const open = () => PlotData.openTrials(context, metric, [Expression.makeCondition(along, at), ...(per === undefined ? [] : [Expression.makeCondition(per, code)])]);
      return [{ x: toX(toShare(value)), low, mean, high, open, words: `${perHead ? `${perHead.name} ` : ""}${full}, ${along.name} ${label}: ${format(group.mean)}, ${PlotData.countTrials(group.count)}` }];
    });
    const colour = per?.numeric ? Colours.pickVivid(index / Math.max(1, shown.length - 1)) : Colours.LINES[index];
    return { points, colour, full, label: perHead?.labelOf(code) ?? "" };
  });
  const plot = Chart.makeSvg(
    frame,
    { class: "plot", role: "group", "aria-label": `${metric.name} along ${along.name}` },
    Chart.makeRules(frame, up.ticks, metric.name),
    Chart.makeFoot(frame, values.map(({ value, label }) => ({ share: toShare(value), label })), alongHead.name, Chart.getLetterWidth()),
    lines.map((line) => drawLine(line, groups.size <= MAX_DOTS)),
    per?.numeric && perHead && [Chart.makeText(frame.width - frame.right + 8, 14, Chart.fit(perHead.name, END_ROOM - 14), "start"), nameLines(lines, frame)],
  );
  const words = [
    margins.size > 0 && `Dots are means, bands their 95 % intervals among trials that differ in ${along.name} alone.`,
    shown.length < codes.length && `These are the first ${shown.length} of ${codes.length} values of ${per?.name} in view; hide values or filter to see others.`,
  ].filter(Boolean);
  const legend = perHead && !per?.numeric && el("ul", { class: "key" }, el("li", {}, `${perHead.name}:`), lines.map(makeLegendItem));
  return [plot, legend || null, words.length > 0 ? el("p", { class: "dim" }, words.join(" ")) : null];
}

/** @param {Line} line @param {boolean} hasDots */
function drawLine({ points, colour, full }, hasDots) {
  const join = (/** @type {Point[]} */ ordered, /** @type {"low" | "mean" | "high"} */ part) => ordered.map((point) => `${point.x.toFixed(1)} ${point[part].toFixed(1)}`).join("L");
  const band = points.length > 0 && svg("path", { d: `M${join(points, "low")}L${join(points.toReversed(), "high")}Z`, class: "spread-band" });
  const path = points.length > 0 && svg("path", { d: `M${join(points, "mean")}`, fill: "none", "stroke-width": 2 });
  const dots = hasDots && points.map(({ x, mean, open, words }) => Chart.makeButton("circle", { cx: x, cy: mean, r: 4 }, words, open));
  const node = svg("g", { class: "series" }, svg("title", {}, full), band, path, dots);
  node.style.color = colour;
  return node;
}

/** @param {Line} line */
function makeLegendItem({ colour, label, full }) {
  const box = el("i", {});
  box.style.background = colour;
  return el("li", { title: full }, box, label);
}

/**
 * The values of the lines at their right ends, apart from each other.
 * @param {Line[]} lines @param {Frame} frame
 */
function nameLines(lines, { width, height, right, top, bottom }) {
  const ends = lines.flatMap((line) => line.points.slice(-1).map(({ mean }) => ({ ...line, y: mean }))).sort((a, b) => a.y - b.y);
  for (let i = ends.length - 1; i >= 0; i--) ends[i].y = Math.min(ends[i].y, (ends[i + 1]?.y ?? height - bottom + LINE_HEIGHT) - LINE_HEIGHT);
  ends.forEach((end, i) => (end.y = Math.max(end.y, (ends[i - 1]?.y ?? top - LINE_HEIGHT) + LINE_HEIGHT)));
  return ends.map(({ y, colour, label, full }) => {
    const x = width - right + 8;
    const node = svg("g", { class: "series" }, svg("title", {}, full), svg("path", { d: `M${x} ${y}h8`, "stroke-width": 3 }), Chart.makeText(x + 12, y + 4, Chart.fit(label, END_ROOM - 26), "start"));
    node.style.color = colour;
    return node;
  });
}
