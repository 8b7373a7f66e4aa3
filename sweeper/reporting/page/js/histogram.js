// @ts-check
// The distribution of a number.

import * as Chart from "./chart.js";
import * as Colours from "./colours.js";
import * as Expression from "./expression.js";
import * as PlotData from "./plot_data.js";
/** @import { Column } from "./columns.js" */
/** @import { Context } from "./main.js" */

/** @param {number[]} rows @param {Column} metric @param {Context} context */
export function create(rows, metric, context) {
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
