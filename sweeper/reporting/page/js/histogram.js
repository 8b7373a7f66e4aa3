// @ts-check
// The distribution of a number.

import * as Colours from "./colours.js";
import * as Expression from "./expression.js";
import * as PlotData from "./plot_data.js";
import * as PlotFrame from "./plot_frame.js";
import { BOTTOM, HEIGHT, LEFT, MARGIN, WIDTH } from "./plot_frame.js";
/** @import { Column } from "./columns.js" */
/** @import { Context } from "./main.js" */

/** @param {number[]} rows @param {Column} metric @param {Context} context */
export function create(rows, metric, context) {
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
    const open = () => PlotData.openTrials(context, metric, [`${name} >= ${from}`, `${name} ${isLast ? "<=" : "<"} ${to}`]);
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
