// @ts-check
// Plots of one number: a heat map over X and Y, lines along a numeric axis, its distribution, and another number against
// it. What one presses opens its trials in the gallery. Four small kinds of plots need no library of 490 kB.

import * as Colours from "./colours.js";
import * as Decide from "./decide.js";
import * as DecideData from "./decide_data.js";
import { el, makeField, makeMenu } from "./dom.js";
import * as Expression from "./expression.js";
import * as HeatMap from "./heat_map.js";
import * as Histogram from "./histogram.js";
import * as Layout from "./layout.js";
import * as LinePlot from "./line_plot.js";
import * as PlotData from "./plot_data.js";
import * as ScatterPlot from "./scatter_plot.js";
import * as ViewState from "./state.js";
import * as ValueText from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { HeatLines, HeatMapData } from "./heat_map.js" */
/** @import { Direction } from "./layout.js" */
/** @import { Context } from "./main.js" */
/** @import { State } from "./state.js" */

/** @typedef {{key: string, controls: Controls, scroller: HTMLElement, top: number}} PlotsScroll what the next plots take over */
/** @typedef {{state: State, node: HTMLElement}} Controls the menus, and the state of the page when they are used */

const MAX_TABLE_CELLS = 1500; // a larger heat map is drawn

/**
 * @param {HTMLElement} host @param {Context} context
 * @param {PlotsScroll} [last] of the plots that these replace
 */
export function create(host, context, last) {
  const { dataset, state } = context;
  const numbers = context.getNumberColumns();
  const metric = numbers.find((column) => column.name === state.metric) ?? numbers[0];
  const findAxis = (/** @type {string} */ name) => dataset.axes.find((axis) => axis.name === name);
  const [x, y] = [findAxis(state.x), findAxis(state.y)];
  const isShown = Layout.makeVisibleTest(dataset.axes, state);
  const rows = context.getRows().filter((row) => typeof metric.value(row) === "number" && isShown(row));
  const numeric = [x, y, ...dataset.axes].filter((axis) => axis?.numeric && axis.values.length > 1);
  const along = numeric.find((axis) => axis && !Layout.isSeed(axis)) ?? numeric[0];
  const per = state.lines === "" ? [y, x].find((axis) => axis && axis !== along) : findAxis(state.lines);
  // Keep menus that have not changed: a run that is still going must not close an open one.
  const against = numbers.find((column) => column.name === state.against) ?? numbers.find((column) => column !== metric && column.role === "metric");
  const key = JSON.stringify([metric.name, against?.name, per?.name, state.x, state.y]);
  const controls = last?.key === key ? last.controls : makeControls(context, { numbers, metric, against, per });
  controls.state = state;
  const sections =
    rows.length === 0
      ? [el("p", { class: "empty" }, `No trial in view has a value of ${metric.name}.`)]
      : [
          makeAnswer(dataset, metric),
          makeSection(
            `${metric.name} over ${state.x || "all"} and ${state.y || "all"} (means)`,
            ...makeHeatMap(rows, metric, x, y, context),
          ),
          along &&
            makeSection(`${metric.name} along ${along.name}${per && per !== along ? `, one line per ${per.name}` : ""}`, ...LinePlot.create(rows, metric, along, per === along ? undefined : per, context)),
          makeSection(`${metric.name} of ${rows.length.toLocaleString("en")} trials`, Histogram.create(rows, metric, context)),
          against && makeSection(`${metric.name} against ${against.name}`, ...ScatterPlot.create(rows, against, metric, context)),
        ];
  const scroller = el("div", { class: "plots", tabindex: 0, "aria-label": "Plots" }, sections);
  if (last?.controls === controls) last.scroller.replaceWith(scroller);
  else host.replaceChildren(controls.node, scroller);
  scroller.scrollTop = last?.top ?? 0;
  return {
    focus: () => scroller.focus(),
    /** @returns {PlotsScroll} */
    getScroll: () => ({ key, controls, scroller, top: scroller.scrollTop }),
  };
}

/**
 * @param {Context} context
 * @param {{numbers: Column[], metric: Column, against: Column | undefined, per: Axis | undefined}} shown
 * @returns {Controls}
 */
function makeControls({ dataset, state, update }, { numbers, metric, against, per }) {
  const controls = { state, node: el("div", { class: "tools plots-bar" }) };
  const axes = [["", "(none)"], ...dataset.axes.map((axis) => [axis.name, axis.name])];
  /** @param {Direction} direction */
  const setAxis = (direction) => (/** @type {string} */ name) => update(ViewState.withAxis(controls.state, direction, name));
  const metrics = numbers.map((column) => [column.name, column.name]);
  controls.node.append(
    makeField("Metric", makeMenu(metrics, metric.name, (name) => update({ metric: name }))),
    makeField("X axis", makeMenu(axes, state.x, setAxis("x"))),
    makeField("Y axis", makeMenu(axes, state.y, setAxis("y"))),
    makeField("One line per", makeMenu(axes, per?.name ?? "", (name) => update({ lines: name }))),
    numbers.length > 1 ? makeField("Against", makeMenu([["", "(none)"], ...metrics], against?.name ?? "", (name) => update({ against: name }))) : "",
  );
  return controls;
}

/** @param {string} title @param {import("./dom.js").Children[]} content */
const makeSection = (title, ...content) => el("section", {}, el("h2", {}, title), ...content);

/**
 * @param {number[]} rows @param {Column} metric @param {Axis | undefined} x @param {Axis | undefined} y @param {Context} context
 */
function makeHeatMap(rows, metric, x, y, context) {
  const { dataset, state } = context;
  const { findPresentCodes, groupRows } = PlotData;
  const [across, down] = [findPresentCodes(rows, x, state), findPresentCodes(rows, y, state)];
  const groups = groupRows(rows, metric, (row) => `${y ? y.codes[row] : -1},${x ? x.codes[row] : -1}`);
  const extent = Colours.findExtent([...groups.values()].map((group) => group.mean)) ?? [0, 0];
  const format = ValueText.makeFormat([...groups.values()].map(({ mean }) => mean));
  const scale = el("p", { class: "dim scale" }, format(extent[0]), el("span", { class: "ramp" }), format(extent[1]));
  /** @param {Axis | undefined} axis @param {number[]} codes */
  const toLines = (axis, codes) => {
    const head = axis && Layout.makeHead(dataset, axis);
    return { name: head?.name ?? "", labels: codes.map((code) => head?.labelOf(code) ?? "all"), full: codes.map((code) => head?.fullOf(code) ?? "all") };
  };
  /** @type {HeatMapData} */
  const map = {
    rows: toLines(y, down),
    columns: toLines(x, across),
    getGroup: (r, c) => groups.get(`${down[r]},${across[c]}`),
    extent,
    metric: metric.name,
    format,
    open(r, c) {
      const lines = /** @type {[Axis | undefined, number][]} */ ([[x, across[c]], [y, down[r]]]);
      PlotData.openTrials(context, metric, lines.flatMap(([axis, code]) => (axis ? [Expression.makeCondition(axis, code)] : [])));
    },
  };
  if (across.length * down.length > MAX_TABLE_CELLS) return [...HeatMap.create(map), scale];
  const counts = [...new Set([...groups.values()].map((group) => group.count))];
  const words = counts.length > 1 ? "In brackets: of how many trials." : counts[0] > 1 && `Each number is the mean of ${counts[0]} trials.`;
  return [el("div", { class: "wide" }, makeHeatTable(map, counts.length > 1)), scale, words && el("p", { class: "dim" }, words)];
}

/**
 * What `sweeper effects` or `sweeper votes` say of a metric: its shares of the variance, what is known of each value, and the
 * sentences; null if they say nothing.
 * @param {Dataset} dataset @param {Column} metric
 */
function makeAnswer(dataset, { name }) {
  const answer = DecideData.listAnswers(dataset).find(([metric]) => metric === name)?.[1];
  const { left_out: missing } = dataset.raw.answers ?? {};
  if (answer === undefined) return missing ? makeSection(`What changes ${name}`, el("p", { class: "dim" }, missing)) : null;
  const section = makeSection(`What changes ${name}`, makeShares(answer.shares), Decide.makeRanking(dataset, answer.choices), el("ul", { class: "answer" }, answer.lines.map((line) => el("li", {}, line))));
  section.classList.add("full");
  return section;
}

/** @param {[string, number][]} shares of axes and of what they do together, from 0 to 1 */
function makeShares(shares) {
  const items = shares.filter(([, share]) => share >= 0.005).map(([name, share], index) => {
    const part = el("li", {}, `${name} ${Decide.toPercent(share)}`);
    part.style.flexGrow = String(share);
    part.style.borderColor = name === "rest" ? "var(--line)" : Colours.LINES[index % Colours.LINES.length];
    return part;
  });
  return items.length > 0 && el("ul", { class: "shares", "aria-label": "Shares of the variance" }, items);
}

/** @param {HeatMapData} map @param {boolean} hasCounts whether each cell says how many trials it has */
function makeHeatTable({ rows, columns, getGroup, extent, format, open }, hasCounts) {
  const makeLabel = (/** @type {HeatLines} */ { labels, full }, /** @type {number} */ at) => el("span", { title: full[at] }, labels[at]);
  /** @param {number} r @param {number} c */
  const makeCell = (r, c) => {
    const group = getGroup(r, c);
    if (group === undefined) return el("td", { class: "nothing", "aria-label": "no value" });
    const title = `${PlotData.countTrials(group.count)}, ${format(group.low)} to ${format(group.high)}: show them`;
    const text = hasCounts ? `${format(group.mean)} (${group.count})` : format(group.mean);
    const cell = el("td", { title }, el("button", { type: "button", onclick: () => open(r, c) }, text));
    cell.style.background = Colours.pick(Colours.toShare(group.mean, extent));
    cell.style.color = Colours.pickText(Colours.toShare(group.mean, extent));
    return cell;
  };
  const corner = el("th", {}, `${rows.name} ↓ ${columns.name} →`);
  const head = el("tr", {}, corner, columns.labels.map((_, c) => el("th", { scope: "col" }, makeLabel(columns, c))));
  const body = rows.labels.map((_, r) =>
    el("tr", {}, el("th", { scope: "row" }, makeLabel(rows, r)), columns.labels.map((_, c) => makeCell(r, c))),
  );
  return el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, body));
}
