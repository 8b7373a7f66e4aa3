// Plots of one number: a heat map over X and Y, lines along a numeric axis, its distribution, and another number against
// it. What one presses opens its trials in the gallery. Four small kinds of plots need no library of 490 kB.

import * as Keys from "../../../serving/page/js/keys.js";
import * as Columns from "./columns.js";
import * as Chart from "./chart.js";
import * as Colours from "./colours.js";
import * as Decide from "./decide.js";
import * as DecideData from "./decide_data.js";
import { el, makeField, makeMenu, svg } from "../../../serving/page/js/dom.js";
import * as Expression from "./expression.js";
import * as Layout from "./layout.js";
import * as Params from "./params.js";
import * as PlotData from "./plot_data.js";
import * as ViewState from "./state.js";
import * as ValueText from "./value_text.js";
/** @import { Dataset } from "./dataset.js" */
/** @import { Context } from "./main.js" */

/** @typedef {{key: string, controls: Controls, scroller: HTMLElement, top: number}} PlotsScroll what the next plots take over */
/** @typedef {{row: number, x: number, y: number}} Dot units */
/** @typedef {{x: number, low: number, mean: number, high: number, open: () => void, words: string}} Point units; low and high: the ends of its band */
/** @typedef {{points: Point[], colour: string, full: string, label: string}} Line */
/** @typedef {{state: ViewState.State, node: HTMLElement}} Controls the menus, and the state of the page when they are used */

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

const MAX_LINES = Colours.LINES.length; // of categories: each needs a colour of its own
const MAX_ORDERED_LINES = 12; // of numbers, which have the colours of a ramp
const MAX_DOTS = 300;
const END_ROOM = 90; // units for numbers at the ends of the lines
const LINE_HEIGHT = 15; // units between two of them
const SCATTER = { ...Chart.PLOT, height: 400 };
const REACH = 12; // units from a dot within which a pointer means it
const MAX_TABLE_CELLS = 1500; // a larger heat map is drawn

/** @param {HTMLElement} host @param {Context} context @param {PlotsScroll} [last] of the plots that these replace */
export function create(host, context, last) {
  const { dataset, state } = context;
  const numbers = context.getNumberColumns();
  const metric = numbers.find((column) => column.name === state.metric) ?? numbers[0];
  const findAxis = (/** @type {string} */ name) => dataset.axes.find((axis) => axis.name === name);
  const [x, y] = [findAxis(state.x), findAxis(state.y)];
  const isShown = Layout.makeVisibleTest(dataset.axes, state);
  const rows = context.getRows().filter((row) => typeof metric.value(row) === "number" && isShown(row));
  const numeric = [x, y, ...dataset.axes].filter((axis) => axis?.numeric && axis.values.length > 1);
  const along = numeric.find((axis) => axis && !Columns.isSeed(axis)) ?? numeric[0];
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
          Chart.makeSection(`${metric.name} over ${state.x || "all"} and ${state.y || "all"} (means)`, "", ...makeHeatMap(rows, metric, x, y, context)),
          along &&
            Chart.makeSection(`${metric.name} along ${along.name}${per && per !== along ? `, one line per ${per.name}` : ""}`, "", ...makeLines(rows, metric, along, per === along ? undefined : per, context)),
          Chart.makeSection(`${metric.name} of ${PlotData.countTrials(rows.length)}`, "", makeHistogram(rows, metric, context)),
          against && Chart.makeSection(`${metric.name} against ${against.name}`, "", ...makeScatter(rows, against, metric, context)),
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

/** @param {Context} context @param {{numbers: Columns.Column[], metric: Columns.Column, against: Columns.Column | undefined, per: Columns.Axis | undefined}} shown @returns {Controls} */
function makeControls({ dataset, state, update }, { numbers, metric, against, per }) {
  const controls = { state, node: el("div", { class: "tools plots-bar" }) };
  const axes = [["", "(none)"], ...dataset.axes.map((axis) => [axis.name, axis.name])];
  /** @param {Layout.Direction} direction */
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

/** @param {number[]} rows @param {Columns.Column} metric @param {Columns.Axis | undefined} x @param {Columns.Axis | undefined} y @param {Context} context */
function makeHeatMap(rows, metric, x, y, context) {
  const { dataset, state } = context;
  const { findPresentCodes, groupRows } = PlotData;
  const [across, down] = [findPresentCodes(rows, x, state), findPresentCodes(rows, y, state)];
  const groups = groupRows(rows, metric, (row) => `${y ? y.codes[row] : -1},${x ? x.codes[row] : -1}`);
  const extent = Colours.findExtent([...groups.values()].map((group) => group.mean)) ?? [0, 0];
  const format = ValueText.makeFormat([...groups.values()].map(({ mean }) => mean));
  const scale = el("p", { class: "dim scale" }, format(extent[0]), el("span", { class: "ramp" }), format(extent[1]));
  /** @param {Columns.Axis | undefined} axis @param {number[]} codes */
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
      const lines = /** @type {[Columns.Axis | undefined, number][]} */ ([[x, across[c]], [y, down[r]]]);
      PlotData.openTrials(context, metric, lines.flatMap(([axis, code]) => (axis ? [Expression.makeCondition(axis, code)] : [])));
    },
  };
  if (across.length * down.length > MAX_TABLE_CELLS) return [...drawHeatMap(map), scale];
  const counts = [...new Set([...groups.values()].map((group) => group.count))];
  const words = counts.length > 1 ? "In brackets: of how many trials." : counts[0] > 1 && `Each number is the mean of ${counts[0]} trials.`;
  return [el("div", { class: "wide" }, makeHeatTable(map, counts.length > 1)), scale, words && el("p", { class: "dim" }, words)];
}

/**
 * What `sweeper effects` or `sweeper votes` say of a metric: its shares of the variance, what is known of each value, and the
 * sentences; null if they say nothing.
 * @param {Dataset} dataset @param {Columns.Column} metric
 */
function makeAnswer(dataset, { name }) {
  const answer = DecideData.listAnswers(dataset).find(([metric]) => metric === name)?.[1];
  const { left_out: missing } = dataset.raw.answers ?? {};
  if (answer === undefined) return missing ? Chart.makeSection(`What changes ${name}`, "", el("p", { class: "dim" }, missing)) : null;
  return Chart.makeSection(name === "votes" ? "Ranking by votes" : `What changes ${name}`, "full", makeShares(answer.shares), Decide.makeRanking(dataset, answer.choices), el("ul", { class: "answer" }, answer.lines.map((line) => el("li", {}, line))));
}

/** A bar whose parts are as long as the shares of axes and of what they do together, and a legend. @param {[string, number][]} shares from 0 to 1 */
function makeShares(shares) {
  const parts = shares.filter(([, share]) => share >= 0.005).map(([name, share], index) => {
    const colour = name === "rest" ? "var(--line)" : Colours.LINES[index % Colours.LINES.length];
    const part = el("i");
    part.style.cssText = `flex-grow:${share};background:${colour}`;
    return { part, colour, full: name, label: `${name} ${Decide.toPercent(share)}` };
  });
  return parts.length > 0 && [el("div", { class: "shares" }, parts.map(({ part }) => part)), el("ul", { class: "key", "aria-label": "Shares of the variance" }, parts.map(makeLegendItem))];
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
    const cell = el("td", { title }, el("button", { onclick: () => open(r, c) }, text));
    cell.style.background = Colours.pick(Colours.toShare(group.mean, extent));
    cell.style.color = Colours.pickText(Colours.toShare(group.mean, extent));
    return cell;
  };
  const corner = el("th", {}, [rows.name && `${rows.name} ↓ `, columns.name && `${columns.name} →`]);
  const head = el("tr", {}, corner, columns.labels.map((_, c) => el("th", { scope: "col" }, makeLabel(columns, c))));
  const body = rows.labels.map((_, r) =>
    el("tr", {}, el("th", { scope: "row" }, makeLabel(rows, r)), columns.labels.map((_, c) => makeCell(r, c))),
  );
  return el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, body));
}

// --- a heat map that has too many cells for a table

const [WIDTH, HEIGHT] = [Chart.PLOT.width, 480]; // units of a map with that many cells
const [MAX_CELL, MIN_CELL] = [24, 2]; // units
const LEVELS = 64; // colours, each of which is one path

/** @param {HeatMapData} map */
function drawHeatMap(map) {
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
    paintCells(map, place, width, height),
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
    show(current ? [current[0] + Keys.ARROWS[key][0], current[1] + Keys.ARROWS[key][1]] : [0, 0]);
    marker.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  Keys.bind(node, "In a heat map", [
    [Object.keys(Keys.ARROWS).join(" "), "the next cell", move],
    ["Enter", "show its trials", () => current && open(current)],
  ]);
  return [el("div", { class: "wide" }, node), status];
}

/** @param {HeatMapData} map @param {(r: number, c: number) => {x: number, y: number}} place @param {number} width @param {number} height */
function paintCells({ rows, columns, getGroup, extent }, place, width, height) {
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

// --- the other plots

/** The distribution of a number. @param {number[]} rows @param {Columns.Column} metric @param {Context} context */
function makeHistogram(rows, metric, context) {
  const values = rows.map((row) => metric.value(row));
  const [low, high] = Colours.findExtent(values) ?? [0, 0];
  const { bounds, format, ticks } = PlotData.makeAxis([low, high], Math.min(40, Math.max(5, Math.ceil(Math.sqrt(values.length)))));
  const binCount = Math.max(1, bounds.length - 1);
  const counts = bounds.slice(0, binCount).map(() => 0);
  // Compare with the bounds themselves, as the filter does that a press on the bar sets.
  for (const value of values) counts[bounds.filter((bound, i) => i > 0 && i < binCount && bound <= value).length] += 1;
  const rules = PlotData.makeTicks([0, Math.max(1, ...counts)]).filter(Number.isInteger);
  const { toX, toY } = Chart.makeScale(Chart.PLOT);
  const width = (toX(1) - toX(0)) / binCount;
  const bars = counts.map((count, i) => {
    if (count === 0) return null;
    const isLast = i === counts.length - 1;
    const from = i === 0 ? Math.min(bounds[0], low) : bounds[i]; // rounded bounds may just miss the lowest and the highest number
    const to = isLast ? Math.max(bounds[bounds.length - 1], high) : bounds[i + 1];
    const name = Expression.quoteName(metric.name);
    const y = toY(count / rules[rules.length - 1]);
    const box = { x: toX(0) + i * width, y, width: Math.max(1, width - 1), height: toY(0) - y, class: "bar" };
    const words = `${metric.name} ${format(from)} to ${format(to)}: ${PlotData.countTrials(count)}`;
    const open = () => PlotData.openTrials(context, metric, [`${name} >= ${from}`, `${name} ${isLast ? "<=" : "<"} ${to}`]);
    return Chart.makeButton("rect", box, words, open);
  });
  return Chart.makeSvg(
    Chart.PLOT,
    { class: "plot", role: "group", "aria-label": `Distribution of ${metric.name}` },
    Chart.makeRules(Chart.PLOT, rules.map((count) => ({ share: count / rules[rules.length - 1], label: String(count) })), "trials"),
    bars,
    Chart.makeFoot(Chart.PLOT, ticks, metric.name, Chart.getLetterWidth()),
  );
}

/**
 * Two numbers of each trial against each other. There may be ten thousand trials, so all dots are one path.
 * @param {number[]} allRows @param {Columns.Column} across @param {Columns.Column} up @param {Context} context
 * @returns {Element[]}
 */
function makeScatter(allRows, across, up, { dataset, open }) {
  const rows = allRows.filter((row) => typeof across.value(row) === "number");
  if (rows.length === 0) return [el("p", { class: "empty" }, `No trial in view has a value of ${across.name}.`)];
  const [toX, toY] = [across, up].map((column) => PlotData.makeAxis(rows.map((row) => column.value(row))));
  const scale = Chart.makeScale(SCATTER);
  const order = rows.map((row) => ({ row, x: scale.toX(toX.toShare(across.value(row))), y: scale.toY(toY.toShare(up.value(row))) })).sort((a, b) => a.x - b.x);
  const label = `${up.name} against ${across.name}, ${rows.length} trials; use the arrow keys to read them in order, Enter to open one`;
  const chosen = svg("rect", { width: 12, height: 12, class: "chosen", visibility: "hidden" });
  const node = Chart.makeSvg(
    SCATTER,
    { class: `plot scatter${rows.length > 400 ? " many" : ""}`, role: "img", tabindex: 0, "aria-label": label },
    Chart.makeRules(SCATTER, toY.ticks, up.name),
    Chart.makeFoot(SCATTER, toX.ticks, across.name),
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

/**
 * Draw the means along an axis, each with its 95 % interval as a band.
 * @param {number[]} allRows @param {Columns.Column} metric @param {Columns.Axis} along
 * @param {Columns.Axis | undefined} per the axis with one line for each value
 * @param {Context} context @returns {(Element | null)[]}
 */
function makeLines(allRows, metric, along, per, context) {
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

/** @param {{colour: string, label: string, full: string}} line */
function makeLegendItem({ colour, label, full }) {
  const box = el("i", {});
  box.style.background = colour;
  return el("li", { title: full }, box, label);
}

/** The values of the lines at their right ends, apart from each other. @param {Line[]} lines @param {Chart.Frame} frame */
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
