// @ts-check
// A number along a numeric axis, with a line for each value of another axis; and the distribution of a number.
"use strict";

/** The frame that both plots share: a viewBox in SVG units, rules with values at the left, texts. */
const PlotFrame = (() => {
  const { svg } = Dom;
  const [WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN] = [640, 320, 64, 40, 16];

  /** @param {string} name @param {(Element | (Element | null)[])[]} content */
  const create = (name, ...content) =>
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img", "aria-label": name }, ...content);

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

  return { WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN, create, makeRules, makeText, shareToX, shareToY };
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
   * @param {State} state @returns {(Element | null)[]}
   */
  function create(allRows, metric, along, per, state) {
    const rows = allRows.filter((row) => along.codes[row] >= 0);
    if (rows.length === 0) return [el("p", { class: "empty" }, `No trial in view has a value of ${along.name}.`)];
    const groups = PlotData.groupRows(rows, metric, (row) => `${per === undefined ? 0 : per.codes[row]},${along.codes[row]}`);
    const ticks = PlotData.findPresentCodes(rows, along, state)
      .map((code) => ({ x: Number(along.values[code]), code, label: along.labelOf(code) }))
      .sort((a, b) => a.x - b.x);
    const yExtent = Colours.findExtent([...groups.values()].flatMap((group) => [group.low, group.high])) ?? [0, 0];
    /** @type {[number, number]} */
    const xExtent = [ticks[0].x, ticks[ticks.length - 1].x];
    const scale = {
      toX: (/** @type {number} */ value) => PlotFrame.shareToX(Colours.toShare(value, xExtent)),
      toY: (/** @type {number} */ value) => PlotFrame.shareToY(Colours.toShare(value, yExtent)),
    };
    const codes = per === undefined ? [0] : PlotData.findPresentCodes(rows, per, state);
    const nameOf = (/** @type {number} */ code) => (per === undefined ? metric.name : per.labelOf(code));
    const lines = codes.slice(0, MAX_LINES).map((code, index) => {
      const points = ticks.flatMap((tick) => {
        const group = groups.get(`${code},${tick.code}`);
        return group === undefined ? [] : [{ ...tick, group }];
      });
      return drawLine(points, Colours.LINES[index], `${nameOf(code)}`, along.name, groups.size <= MAX_DOTS, scale);
    });
    const [low, high] = yExtent;
    const rules = low === high ? [low] : [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low));
    const plot = PlotFrame.create(
      `${metric.name} along ${along.name}`,
      PlotFrame.makeRules(rules, scale.toY),
      makeTicks(ticks, scale.toX),
      PlotFrame.makeText((WIDTH + LEFT) / 2, HEIGHT - 4, along.name, "middle"),
      lines,
    );
    return [plot, per !== undefined && per.order.length > 1 ? makeLegend(codes, nameOf) : null];
  }

  /**
   * @param {Point[]} points @param {string} colour @param {string} name @param {string} along @param {boolean} hasDots
   * @param {Scale} scale
   */
  function drawLine(points, colour, name, along, hasDots, { toX, toY }) {
    const path = points.map(({ x, group }, i) => `${i ? "L" : "M"}${toX(x).toFixed(1)} ${toY(group.mean).toFixed(1)}`).join("");
    const bars = points.map(({ x, group }) => `M${toX(x).toFixed(1)} ${toY(group.low).toFixed(1)}V${toY(group.high).toFixed(1)}`).join("");
    const makeDot = (/** @type {Point} */ { x, label, group }) =>
      svg(
        "circle",
        { cx: toX(x), cy: toY(group.mean), r: 3 },
        svg("title", {}, `${name}, ${along} ${label}: ${PlotData.formatShort(group.mean)}`),
      );
    return svg(
      "g",
      { stroke: colour, fill: colour },
      svg("title", {}, name),
      svg("path", { d: path, fill: "none", "stroke-width": 2 }),
      svg("path", { d: bars, "stroke-opacity": 0.4 }),
      hasDots ? points.map(makeDot) : null,
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

  /** @param {number[]} codes @param {(code: number) => string} nameOf */
  function makeLegend(codes, nameOf) {
    const items = codes.slice(0, MAX_LINES).map((code, index) => {
      const box = el("i", {});
      box.style.background = Colours.LINES[index];
      return el("li", {}, box, nameOf(code));
    });
    const isCut = codes.length > items.length;
    const more = isCut && el("li", {}, `the first ${items.length} of ${codes.length} in view; hide values or filter to see others`);
    return el("ul", { class: "key" }, items, more);
  }

  return { create };
})();

const Histogram = (() => {
  const { svg } = Dom;
  const { WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN } = PlotFrame;

  /** @param {number[]} rows @param {Column} metric */
  function create(rows, metric) {
    const values = rows.map((row) => metric.value(row));
    const extent = Colours.findExtent(values) ?? [0, 0];
    const binCount = extent[0] === extent[1] ? 1 : Math.min(40, Math.max(5, Math.ceil(Math.sqrt(values.length))));
    const counts = countBins(values, extent, binCount);
    const most = Math.max(...counts);
    const toY = (/** @type {number} */ count) => PlotFrame.shareToY(count / most);
    const width = (WIDTH - LEFT - MARGIN) / binCount;
    const bars = counts.map((count, i) =>
      svg(
        "rect",
        { x: LEFT + i * width, y: toY(count), width: Math.max(1, width - 1), height: HEIGHT - BOTTOM - toY(count), class: "bar" },
        svg("title", {}, String(count)),
      ),
    );
    return PlotFrame.create(
      `Distribution of ${metric.name}`,
      PlotFrame.makeRules(makeCountRules(most), toY),
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

  /**
   * Whole numbers from 0 to `most` in round steps, about five of them.
   * @param {number} most
   */
  function makeCountRules(most) {
    const power = 10 ** Math.max(0, Math.floor(Math.log10(most / 4)));
    const step = [1, 2, 5, 10].map((part) => part * power).find((one) => one * 5 >= most) ?? 10 * power;
    return Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => index * step);
  }

  return { countBins, create };
})();
