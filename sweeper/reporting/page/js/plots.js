// Numbers over axes: a heat map over X and Y, lines along a numeric axis, and the distribution of one number.
"use strict";

(function (sweeper) {
  const { el, svg, menu, field } = sweeper.dom;
  const { at, ink, extent, share, LINES } = sweeper.colours;
  const MOST_CELLS = 1500; // of a heat map; what is larger is drawn, not built
  const MOST_LINES = LINES.length; // a colour each; more of them tell nothing
  const MOST_DOTS = 300;
  const [WIDE, HIGH, LEFT, FOOT] = [640, 320, 64, 40];

  function create(host, context, held) {
    const { dataset, state } = context;
    const numbers = context.numbers();
    const metric = numbers.find((column) => column.name === state.metric) ?? numbers[0];
    const axisNames = [["", "(none)"], ...dataset.axes.map((axis) => [axis.name, axis.name])];
    const axis = (name) => dataset.axes.find((one) => one.name === name);
    const shown = visible(dataset, state);
    const rows = context.rows().filter((row) => typeof metric.value(row) === "number" && shown(row));
    const along = [axis(state.x), axis(state.y), ...dataset.axes].find((one) => one?.numeric && one.values.length > 1);
    const per =
      state.lines === "" ? [axis(state.y), axis(state.x)].find((one) => one && one !== along) : axis(state.lines);
    // The menus of before, where they say the same: a run that goes on closes none that is open.
    const key = JSON.stringify([metric.name, per?.name, state.x, state.y]);
    const now = held?.key === key ? held.now : {};
    now.state = state;
    const place = (name) => (value) => context.update(sweeper.state.place(now.state, name, value));
    now.tools ??= el(
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
              heatMap(rows, metric, axis(state.x), axis(state.y), state, beside(context.room.width)),
            ),
            along &&
              section(
                `${metric.name} along ${along.name}`,
                lines(rows, metric, along, per === along ? undefined : per, state),
              ),
            section(`${metric.name} of ${rows.length.toLocaleString("en")} trials`, histogram(rows, metric)),
          ];
    const scroller = el("div", { class: "plots", tabindex: 0, "aria-label": "Plots" }, ...parts.filter(Boolean));
    if (held?.now === now) held.scroller.replaceWith(scroller);
    else host.replaceChildren(now.tools, scroller);
    scroller.scrollTop = held?.scroller.top ?? 0;
    return { focus: () => scroller.focus(), scroll: () => ({ key, now, scroller, top: scroller.scrollTop }) };
  }

  /** How wide a section is in a view of so many pixels: the style sets as many beside each other as have room. */
  function beside(width) {
    const count = Math.max(1, Math.floor((width - 4) / 588));
    return (width - 48 - 28 * (count - 1)) / count;
  }

  /** Whether none of a row's values is hidden: what is not shown in the grid is in no plot. */
  function visible(dataset, state) {
    const hidden = dataset.axes
      .map((axis) => [axis, new Set(state.hidden[axis.name] ?? [])])
      .filter(([, places]) => places.size > 0);
    return (row) => hidden.every(([axis, places]) => !places.has(axis.of[row]));
  }

  const section = (title, ...content) => el("section", {}, el("h2", {}, title), ...content);
  const short = (value) => sweeper.dataset.rounded(Number(value.toPrecision(4)));

  /** The places of an axis' values that these rows have, in the order of showing; -1 stands for "has none". */
  function present(rows, axis, state) {
    const there = new Set(axis === undefined ? [-1] : rows.map((row) => axis.of[row]));
    return sweeper.layout.shownValues(axis, state).filter((place) => there.has(place));
  }

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

  function heatMap(rows, metric, x, y, state, room) {
    const [across, down] = [present(rows, x, state), present(rows, y, state)];
    const place = (axis, row) => (axis === undefined ? -1 : axis.of[row]);
    const groups = grouped(rows, metric, (row) => `${place(y, row)},${place(x, row)}`);
    const range = extent([...groups.values()].map((group) => group.mean));
    const scale = el("p", { class: "dim scale" }, short(range[0]), el("span", { class: "ramp" }), short(range[1]));
    if (across.length * down.length > MOST_CELLS) return [...drawnMap(groups, range, [across, down], [x, y], metric, room), scale];
    const label = (axis, value) => {
      const text = axis === undefined ? "all" : axis.word(value);
      return el("span", { title: text }, text);
    };
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

  /** The map as `heat` draws it. */
  function drawnMap(groups, range, [across, down], [x, y], metric, room) {
    const line = (axis, places) => ({ name: axis?.name ?? "", words: places.map((place) => axis?.word(place) ?? "all") });
    const group = (r, c) => groups.get(`${down[r]},${across[c]}`);
    const map = { rows: line(y, down), columns: line(x, across), group, range, metric: metric.name, short };
    return sweeper.heat.create(map, room);
  }

  /** A line per value of another axis; where several trials share a point, their mean with a bar from least to most. */
  function lines(every, metric, along, per, state) {
    const rows = every.filter((row) => along.of[row] >= 0);
    if (rows.length === 0) return el("p", { class: "empty" }, `No trial in view has a value of ${along.name}.`);
    const groups = grouped(rows, metric, (row) => `${per === undefined ? 0 : per.of[row]},${along.of[row]}`);
    const values = present(rows, along, state)
      .map((place) => ({ x: Number(along.values[place]), place, label: along.word(place) }))
      .sort((a, b) => a.x - b.x);
    const xs = [values[0].x, values[values.length - 1].x];
    const ys = extent([...groups.values()].flatMap((group) => [group.low, group.high]));
    const toX = (value) => LEFT + share(value, xs) * (WIDE - LEFT - 16);
    const toY = (value) => HIGH - FOOT - share(value, ys) * (HIGH - FOOT - 16);
    const there = per === undefined ? [0] : present(rows, per, state);
    const name = (line) => (per === undefined ? metric.name : per.word(line));
    const dots = groups.size <= MOST_DOTS;
    const drawn = there.slice(0, MOST_LINES).map((line, number) => {
      const points = values
        .map((value) => ({ ...value, group: groups.get(`${line},${value.place}`) }))
        .filter((point) => point.group !== undefined);
      return drawnLine(points, LINES[number], name(line), along.name, dots, toX, toY);
    });
    return [
      plot(
        `${metric.name} along ${along.name}`,
        axes(ys, toY),
        ticks(values, toX),
        word((WIDE + LEFT) / 2, HIGH - 4, along.name, "middle"),
        drawn,
      ),
      per !== undefined && per.places.length > 1 ? key(there, name) : null,
    ];
  }

  function drawnLine(points, colour, name, along, dots, toX, toY) {
    const path = points
      .map((point, i) => `${i ? "L" : "M"}${toX(point.x).toFixed(1)} ${toY(point.group.mean).toFixed(1)}`)
      .join("");
    const bars = points
      .map(({ x, group }) => `M${toX(x).toFixed(1)} ${toY(group.low).toFixed(1)}V${toY(group.high).toFixed(1)}`)
      .join("");
    const dot = ({ x, label, group }) =>
      svg(
        "circle",
        { cx: toX(x), cy: toY(group.mean), r: 3 },
        svg("title", {}, `${name}, ${along} ${label}: ${short(group.mean)}`),
      );
    return svg(
      "g",
      { stroke: colour, fill: colour },
      svg("title", {}, name),
      svg("path", { d: path, fill: "none", "stroke-width": 2 }),
      svg("path", { d: bars, "stroke-opacity": 0.4 }),
      dots ? points.map(dot) : null,
    );
  }

  /** Values below the plot, as they are (a seed is no round number), as many as stand beside each other. */
  function ticks(values, toX) {
    const letter = globalThis.innerWidth < 600 ? 12.5 : 8; // as wide as the style sets a digit there
    let free = -Infinity;
    return values.map(({ x, label }) => {
      const half = (label.length * letter) / 2;
      const middle = Math.min(Math.max(toX(x), half), WIDE - half);
      if (middle - half < free) return null;
      free = middle + half + letter;
      return word(middle, HIGH - FOOT + 16, label, "middle");
    });
  }

  function key(there, name) {
    const items = there.slice(0, MOST_LINES).map((line, number) => {
      const box = el("i", {});
      box.style.background = LINES[number];
      return el("li", {}, box, name(line));
    });
    const more =
      there.length > items.length &&
      el("li", {}, `the first ${items.length} of ${there.length} in view; hide values, or filter, to see others`);
    return el("ul", { class: "key" }, items, more);
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
      rules(whole(most), toY),
      bars,
      word(LEFT, HIGH - FOOT + 16, short(range[0]), "start"),
      word(WIDE - 16, HIGH - FOOT + 16, short(range[1]), "end"),
    );
  }

  const word = (x, y, text, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);
  const plot = (name, ...content) =>
    svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "plot", role: "img", "aria-label": name }, ...content);

  /** Counts from none to `most`, a handful of them, in round steps: there is no half a trial. */
  function whole(most) {
    const tens = 10 ** Math.max(0, Math.floor(Math.log10(most / 4)));
    const step = [1, 2, 5, 10].map((part) => part * tens).find((one) => one * 5 >= most);
    return Array.from({ length: Math.floor(most / step) + 1 }, (_, place) => place * step);
  }

  function axes([low, high], toY) {
    return rules(low === high ? [low] : [0, 0.25, 0.5, 0.75, 1].map((part) => low + part * (high - low)), toY);
  }

  function rules(values, toY) {
    return values.map((value) => [
      svg("line", { x1: LEFT, x2: WIDE - 16, y1: toY(value), y2: toY(value), class: "rule" }),
      word(LEFT - 6, toY(value) + 4, short(value), "end"),
    ]);
  }

  sweeper.plots = { create };
})((globalThis.sweeper ??= {}));
