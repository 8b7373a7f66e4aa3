// @ts-check
// A number along a numeric axis, with a line for each value of another axis; and the distribution of a number.
"use strict";

/** The frame that both plots share: a viewBox in SVG units, rules with values at the left, texts. */
const PlotFrame = (() => {
  const { svg } = Dom;
  const [WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN] = [640, 320, 64, 40, 16];

  /** @param {string} name @param {(Element | (Element | null)[])[]} content */
  const create = (name, ...content) =>
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "group", "aria-label": name }, ...content);

  /** @param {number} x @param {number} y @param {string} text @param {"start" | "middle" | "end"} anchor */
  const makeText = (x, y, text, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);

  /** @param {number} share from 0 to 1 */
  const shareToX = (share) => LEFT + share * (WIDTH - LEFT - MARGIN);
  /** @param {number} share from 0 to 1 */
  const shareToY = (share) => HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - MARGIN);

  /**
   * Horizontal rules with their values.
   * @param {number[]} values @param {(value: number) => number} toY
   */
  const makeRules = (values, toY) =>
    values.flatMap((value) => [
      svg("line", { x1: LEFT, x2: WIDTH - MARGIN, y1: toY(value), y2: toY(value), class: "rule" }),
      makeText(LEFT - 6, toY(value) + 4, PlotData.formatShort(value), "end"),
    ]);

  /**
   * A part of a plot that can be pressed, by keyboard too.
   * @param {"circle" | "rect"} tag @param {Record<string, any>} attributes @param {string} words @param {() => void} onPress
   */
  function makeButton(tag, attributes, words, onPress) {
    /** @param {KeyboardEvent} event */
    function onkeydown(event) {
      if (event.key !== "Enter") return;
      event.preventDefault();
      onPress();
    }
    const listeners = { onclick: onPress, onkeydown };
    return svg(tag, { ...attributes, ...listeners, role: "button", tabindex: 0, "aria-label": words }, svg("title", {}, words));
  }

  return { WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN, create, makeButton, makeRules, makeText, shareToX, shareToY };
})();

const LinePlot = (() => {
  const { el, svg } = Dom;
  const { WIDTH, HEIGHT, LEFT, BOTTOM } = PlotFrame;
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
  function create(allRows, metric, along, per, context) {
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
        Plots.openTrials(context, metric, [Expression.makeCondition(along, at), ...(per === undefined ? [] : [Expression.makeCondition(per, code)])]);
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

  return { create };
})();

const Histogram = (() => {
  const { WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN } = PlotFrame;

  /** @param {number[]} rows @param {Column} metric @param {Context} context */
  function create(rows, metric, context) {
    const values = rows.map((row) => metric.value(row));
    const [low, high] = Colours.findExtent(values) ?? [0, 0];
    const bounds = PlotData.makeTicks([low, high], Math.min(40, Math.max(5, Math.ceil(Math.sqrt(values.length)))));
    const binCount = Math.max(1, bounds.length - 1);
    /** @type {[number, number]} */
    const extent = [bounds[0], bounds[bounds.length - 1]];
    const counts = bounds.slice(0, binCount).map(() => 0);
    // Compare with the bounds themselves, as the filter does that a press on the bar sets.
    for (const value of values) counts[bounds.filter((bound, i) => i > 0 && i < binCount && bound <= value).length] += 1;
    const rules = PlotData.makeTicks([0, Math.max(1, ...counts)]).filter(Number.isInteger);
    const toY = (/** @type {number} */ count) => PlotFrame.shareToY(count / rules[rules.length - 1]);
    const width = (WIDTH - LEFT - MARGIN) / binCount;
    const bars = counts.map((count, i) => {
      if (count === 0) return null;
      const isLast = i === counts.length - 1;
      const from = i === 0 ? Math.min(bounds[0], low) : bounds[i]; // rounded bounds may just miss the lowest and the highest number
      const to = isLast ? Math.max(bounds[bounds.length - 1], high) : bounds[i + 1];
      const name = Expression.quoteName(metric.name);
      const box = { x: LEFT + i * width, y: toY(count), width: Math.max(1, width - 1), height: HEIGHT - BOTTOM - toY(count), class: "bar" };
      const words = `${metric.name} ${PlotData.formatShort(from)} to ${PlotData.formatShort(to)}: ${count} trial${count === 1 ? "" : "s"}`;
      const open = () => Plots.openTrials(context, metric, [`${name} >= ${from}`, `${name} ${isLast ? "<=" : "<"} ${to}`]);
      return PlotFrame.makeButton("rect", box, words, open);
    });
    return PlotFrame.create(
      `Distribution of ${metric.name}`,
      PlotFrame.makeRules(rules, toY),
      bars,
      PlotFrame.makeText(LEFT, HEIGHT - BOTTOM + 16, PlotData.formatShort(extent[0]), "start"),
      PlotFrame.makeText(WIDTH - MARGIN, HEIGHT - BOTTOM + 16, PlotData.formatShort(extent[1]), "end"),
    );
  }

  /**
   * How many of the values fall into each of `binCount` equal parts of their extent.
   * @param {number[]} values @param {[number, number]} extent @param {number} binCount @returns {number[]}
   */
  function countBins(values, extent, binCount) {
    const counts = new Array(binCount).fill(0);
    for (const value of values) counts[Math.min(binCount - 1, Math.floor(Colours.toShare(value, extent) * binCount))] += 1;
    return counts;
  }

  return { countBins, create };
})();
