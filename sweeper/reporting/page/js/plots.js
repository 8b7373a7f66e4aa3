// Numbers over axes: a heat map over X and Y, lines along a numeric axis, and the distribution of one number.
"use strict";

(function (sweeper) {
  const { el, svg, menu, field } = sweeper.dom;
  const { at, ink, extent, share, LINES } = sweeper.colours;
  const MOST_CELLS = 1500; // of a heat map; what is larger is drawn, not built
  const MOST_LINES = LINES.length; // a colour each; more of them tell nothing
  const MOST_DOTS = 300;
  const [WIDE, HIGH, LEFT, FOOT] = [640, 320, 64, 40];

  function create(host, context) {
    const { dataset, state } = context;
    const numbers = context.numbers();
    const metric = numbers.find((column) => column.name === state.metric) ?? numbers[0];
    const axisNames = [["", "(none)"], ...dataset.axes.map((axis) => [axis.name, axis.name])];
    const axis = (name) => dataset.axes.find((one) => one.name === name);
    const rows = context.rows().filter((row) => typeof metric.value(row) === "number");
    const along = [axis(state.x), axis(state.y), ...dataset.axes].find((one) => one?.numeric && one.values.length > 1);
    const per =
      state.lines === "" ? [axis(state.y), axis(state.x)].find((one) => one && one !== along) : axis(state.lines);
    const place = (name) => (value) => context.update(sweeper.state.place(state, name, value));
    const tools = el(
      "div",
      { class: "tools plots-bar" },
      field(
        "Metric",
        menu(
          numbers.map((column) => [column.name, column.name]),
          metric.name,
          (name) => context.update({ metric: name }),
        ),
      ),
      field("X axis", menu(axisNames, state.x, place("x"))),
      field("Y axis", menu(axisNames, state.y, place("y"))),
      field(
        "One line per",
        menu(axisNames, per?.name ?? "", (name) => context.update({ lines: name })),
      ),
    );
    const parts =
      rows.length === 0
        ? [el("p", { class: "empty" }, `No trial in view has a value of ${metric.name}.`)]
        : [
            section(
              `${metric.name} over ${state.x || "all"} and ${state.y || "all"} (means)`,
              heatMap(rows, metric, axis(state.x), axis(state.y), state),
            ),
            along &&
              section(
                `${metric.name} along ${along.name}`,
                lines(rows, metric, along, per === along ? undefined : per),
              ),
            section(`${metric.name} of ${rows.length.toLocaleString("en")} trials`, histogram(rows, metric)),
          ];
    const scroller = el("div", { class: "plots", tabindex: 0, "aria-label": "Plots" }, ...parts.filter(Boolean));
    host.replaceChildren(tools, scroller);
    return { focus: () => scroller.focus() };
  }

  const section = (title, ...content) => el("section", {}, el("h2", {}, title), ...content);
  const short = (value) => sweeper.dataset.text(Number(value.toPrecision(4)));

  /** Mean, least and most of a number for each key. */
  function grouped(rows, metric, key) {
    const groups = new Map();
    for (const row of rows) {
      const value = metric.value(row);
      const group = groups.get(key(row)) ?? { sum: 0, count: 0, low: Infinity, high: -Infinity };
      group.sum += value;
      group.count += 1;
      group.low = Math.min(group.low, value);
      group.high = Math.max(group.high, value);
      groups.set(key(row), group);
    }
    for (const group of groups.values()) group.mean = group.sum / group.count;
    return groups;
  }

  function heatMap(rows, metric, x, y, state) {
    const across = sweeper.layout.shownValues(x, state);
    const down = sweeper.layout.shownValues(y, state);
    const place = (axis, row) => (axis === undefined ? -1 : axis.of[row]);
    const groups = grouped(rows, metric, (row) => `${place(y, row)},${place(x, row)}`);
    const range = extent([...groups.values()].map((group) => group.mean));
    const scale = el("p", { class: "dim scale" }, short(range[0]), el("span", { class: "ramp" }), short(range[1]));
    if (across.length * down.length > MOST_CELLS) return [drawnMap(groups, range, across, down, metric), scale];
    const label = (axis, value) => (axis === undefined ? "all" : value < 0 ? "(none)" : axis.labels[value]);
    const cell = (r, c) => {
      const group = groups.get(`${r},${c}`);
      if (group === undefined) return el("td", { class: "nothing", "aria-label": "no value" });
      const node = el(
        "td",
        { title: `${group.count} trials, ${short(group.low)} to ${short(group.high)}` },
        short(group.mean),
      );
      node.style.background = at(share(group.mean, range));
      node.style.color = ink(share(group.mean, range));
      return node;
    };
    const head = el(
      "tr",
      {},
      el("th", {}, `${y?.name ?? ""} ↓ ${x?.name ?? ""} →`),
      across.map((c) => el("th", { scope: "col" }, label(x, c))),
    );
    const body = down.map((r) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, label(y, r)),
        across.map((c) => cell(r, c)),
      ),
    );
    return [
      el("div", { class: "wide" }, el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, body))),
      scale,
    ];
  }

  function drawnMap(groups, range, across, down, metric) {
    const side = Math.max(2, Math.min(12, Math.floor(900 / Math.max(across.length, down.length))));
    const canvas = el("canvas", {
      width: across.length * side,
      height: down.length * side,
      role: "img",
      "aria-label": `Heat map of ${metric.name}, ${across.length} by ${down.length}`,
    });
    const pen = canvas.getContext("2d");
    down.forEach((r, row) =>
      across.forEach((c, column) => {
        const group = groups.get(`${r},${c}`);
        if (group === undefined) return;
        pen.fillStyle = at(share(group.mean, range));
        pen.fillRect(column * side, row * side, side, side);
      }),
    );
    return el("div", { class: "wide" }, canvas);
  }

  /** A line per value of another axis; where several trials share a point, their mean with a bar from least to most. */
  function lines(rows, metric, along, per) {
    const groups = grouped(rows, metric, (row) => `${per === undefined ? 0 : per.of[row]},${along.of[row]}`);
    const values = along.values.map((value, place) => ({ x: Number(value), place })).sort((a, b) => a.x - b.x);
    const xs = [values[0].x, values[values.length - 1].x];
    const every = [...groups.values()];
    const ys = extent(every.flatMap((group) => [group.low, group.high]));
    const toX = (value) => LEFT + share(value, xs) * (WIDE - LEFT - 16);
    const toY = (value) => HIGH - FOOT - share(value, ys) * (HIGH - FOOT - 16);
    const series = per === undefined ? [0] : per.values.map((_, place) => place).slice(0, MOST_LINES);
    const dots = groups.size <= MOST_DOTS;
    const drawn = series.map((line, number) => {
      const colour = LINES[number % LINES.length];
      const points = values
        .map(({ x, place }) => ({ x, group: groups.get(`${line},${place}`) }))
        .filter((point) => point.group !== undefined);
      const path = points
        .map((point, i) => `${i ? "L" : "M"}${toX(point.x).toFixed(1)} ${toY(point.group.mean).toFixed(1)}`)
        .join("");
      const name = per === undefined ? metric.name : per.labels[line];
      return svg(
        "g",
        { stroke: colour, fill: colour },
        svg("title", {}, name),
        svg("path", { d: path, fill: "none", "stroke-width": 2 }),
        svg("path", {
          d: points
            .map(({ x, group }) => `M${toX(x).toFixed(1)} ${toY(group.low).toFixed(1)}V${toY(group.high).toFixed(1)}`)
            .join(""),
          "stroke-opacity": 0.4,
        }),
        dots
          ? points.map(({ x, group }) =>
              svg(
                "circle",
                { cx: toX(x), cy: toY(group.mean), r: 3 },
                svg("title", {}, `${name}, ${along.name} ${x}: ${short(group.mean)}`),
              ),
            )
          : null,
      );
    });
    const step = Math.ceil(values.length / 10);
    const ticks = values
      .filter((_, i) => i % step === 0)
      .map(({ x }) => word(toX(x), HIGH - FOOT + 16, short(x), "middle"));
    const key =
      series.length > 1
        ? el(
            "ul",
            { class: "key" },
            series.map((line, number) => {
              const box = el("i", {});
              box.style.background = LINES[number % LINES.length];
              return el("li", {}, box, per.labels[line]);
            }),
            per.values.length > series.length
              ? el(
                  "li",
                  {},
                  `the first ${series.length} of ${per.values.length}; hide values, or filter, to see others`,
                )
              : null,
          )
        : null;
    return [
      plot(
        `${metric.name} along ${along.name}`,
        axes(ys, toY),
        ticks,
        word((WIDE + LEFT) / 2, HIGH - 4, along.name, "middle"),
        drawn,
      ),
      key,
    ];
  }

  function histogram(rows, metric) {
    const values = rows.map((row) => metric.value(row));
    const range = extent(values);
    const bins = new Array(
      range[0] === range[1] ? 1 : Math.min(40, Math.max(5, Math.ceil(Math.sqrt(values.length)))),
    ).fill(0);
    for (const value of values) bins[Math.min(bins.length - 1, Math.floor(share(value, range) * bins.length))] += 1;
    const most = Math.max(...bins);
    const toY = (count) => HIGH - FOOT - (count / most) * (HIGH - FOOT - 16);
    const width = (WIDE - LEFT - 16) / bins.length;
    const bars = bins.map((count, i) =>
      svg(
        "rect",
        {
          x: LEFT + i * width,
          y: toY(count),
          width: Math.max(1, width - 1),
          height: HIGH - FOOT - toY(count),
          class: "bar",
        },
        svg("title", {}, String(count)),
      ),
    );
    return plot(
      `Distribution of ${metric.name}`,
      axes([0, most], toY),
      bars,
      word(LEFT, HIGH - FOOT + 16, short(range[0]), "start"),
      word(WIDE - 16, HIGH - FOOT + 16, short(range[1]), "end"),
    );
  }

  const word = (x, y, text, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);
  const plot = (name, ...content) =>
    svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "plot", role: "img", "aria-label": name }, ...content);

  function axes([low, high], toY) {
    const ticks = low === high ? [low] : [0, 0.25, 0.5, 0.75, 1].map((part) => low + part * (high - low));
    return ticks.map((value) => [
      svg("line", { x1: LEFT, x2: WIDE - 16, y1: toY(value), y2: toY(value), class: "rule" }),
      word(LEFT - 6, toY(value) + 4, short(value), "end"),
    ]);
  }

  sweeper.plots = { create };
})((globalThis.sweeper ??= {}));
