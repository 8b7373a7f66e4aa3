// The same trials as a table: sorted, filtered, columns chosen; only the rows in view are in the document.
"use strict";

(function (sweeper) {
  const { el, say } = sweeper.dom;
  const HEIGHT = 30; // pixels of a row
  const OVERSCAN = 6;
  const MOST_FIRST = 0.4; // of the width of the view
  const BINS = 24; // of the distribution in a column's head

  function create(host, context, [top, left] = [0, 0]) {
    const { dataset, state, tint, colour } = context;
    const columns = chosen(dataset, state);
    const rows = sorted(dataset, context.rows(), state.sort);
    const tellers = columns.map(sweeper.params.teller);
    const widths = columns.map(wide);
    const template = widths.map((width) => `${width}px`).join(" ");
    const [sortName, down] = [state.sort.replace(/^-/, ""), state.sort.startsWith("-")];
    const live = new Map();
    let at = -1;
    let frame = 0;

    const heads = el(
      "div",
      { class: "trow thead", role: "row", "aria-rowindex": 1 },
      columns.map((column) => {
        const on = column.name === sortName;
        const sort = () => context.update({ sort: on && !down ? `-${column.name}` : column.name });
        return el(
          "span",
          { role: "columnheader", "aria-sort": on ? (down ? "descending" : "ascending") : "none" },
          el(
            "button",
            { type: "button", onclick: sort, title: `Sort by ${column.name}`, "data-keep": `sort ${column.name}` },
            column.name,
            on ? (down ? " ▼" : " ▲") : "",
          ),
          column.numeric && column.role !== "trial" && distribution(column, rows),
        );
      }),
    );
    const body = el("div", { class: "tbody", role: "rowgroup" });
    const scroller = el(
      "div",
      {
        // The first column stays in view, unless it would be most of it.
        class: widths[0] <= context.room.width * MOST_FIRST ? "scroller table first-stays" : "scroller table",
        role: "grid",
        tabindex: 0,
        "aria-label": "Trials",
        "data-keep": "trials",
        "aria-rowcount": rows.length + 1,
        "aria-colcount": columns.length,
      },
      heads,
      body,
    );
    body.style.height = `${rows.length * HEIGHT}px`;
    body.style.width = heads.style.width = `${widths.reduce((sum, width) => sum + width, 0)}px`;
    heads.style.gridTemplateColumns = template;

    function makeRow(place) {
      const row = rows[place];
      const cells = columns.map((column, at) => {
        const text = tellers[at](row);
        const node = el(
          "span",
          { role: "gridcell", class: column.numeric ? "number" : "", title: text.length > 24 ? text : null },
          text,
        );
        if (column === colour) node.style.boxShadow = `inset 5px 0 ${tint(row)}`;
        return node;
      });
      const node = el(
        "div",
        {
          class: `trow ${dataset.status(row)}`,
          role: "row",
          "aria-rowindex": place + 2,
          "data-trial": dataset.trial(row),
        },
        cells,
      );
      node.dataset.row = row;
      node.id = `row-${place}`;
      node.style.top = `${place * HEIGHT}px`;
      node.style.gridTemplateColumns = template;
      node.classList.toggle("current", place === at);
      return body.appendChild(node);
    }

    function draw() {
      frame = 0;
      const from = Math.max(0, Math.floor(scroller.scrollTop / HEIGHT) - OVERSCAN);
      const to = Math.min(rows.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / HEIGHT) + OVERSCAN);
      for (const [place, node] of live) {
        if (place < from || place >= to) {
          node.remove();
          live.delete(place);
        }
      }
      for (let place = from; place < to; place++) if (!live.has(place)) live.set(place, makeRow(place));
    }

    /** The first row that is wholly in view. */
    const firstSeen = () => Math.ceil(scroller.scrollTop / HEIGHT);

    /** Make a row the current one, and bring it into view unless the view is to stay. */
    function setCurrent(place, stay = false) {
      if (rows.length === 0) return;
      live.get(at)?.classList.remove("current");
      at = Math.min(Math.max(place, 0), rows.length - 1);
      const [top, room] = [at * HEIGHT, scroller.clientHeight - heads.offsetHeight - HEIGHT];
      if (!stay && top < scroller.scrollTop) scroller.scrollTop = top;
      if (!stay && top > scroller.scrollTop + room) scroller.scrollTop = top - room;
      draw();
      live.get(at)?.classList.add("current");
      scroller.setAttribute("aria-activedescendant", `row-${at}`);
    }

    scroller.addEventListener("scroll", () => (frame ||= requestAnimationFrame(draw)), { passive: true });
    // A press on a row gives the focus too, before its click: who points at a row wants that one.
    scroller.addEventListener("focus", () => at < 0 && scroller.matches(":focus-visible") && setCurrent(firstSeen(), true));
    scroller.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -15, PageDown: 15, Home: -1e9, End: 1e9 };
      if (event.target !== scroller || event.ctrlKey || event.metaKey || event.altKey) return;
      if (steps[event.key] !== undefined) setCurrent((at < 0 ? firstSeen() : at) + steps[event.key]);
      else if (event.key === "Enter" && at >= 0) context.open(rows[at]);
      else if (at < 0 || !context.markByKey(event.key, rows[at])) return;
      else say(`trial ${dataset.trial(rows[at])} marked`);
      event.preventDefault();
    });
    body.addEventListener("click", (event) => {
      const node = event.target.closest(".trow");
      if (node !== null && String(getSelection()) === "") context.open(Number(node.dataset.row));
    });

    const [before, now] = [host.querySelector("details.columns"), chooser(dataset, columns, context)];
    now.open = before?.open ?? false; // the table is made anew with each tick
    const seen = before?.lastChild.scrollTop ?? 0;
    host.replaceChildren(now, scroller);
    now.lastChild.scrollTop = seen;
    if (rows.length === 0) now.after(el("p", { class: "empty" }, "No trial is left: the filter leaves none."));
    scroller.scrollTo(left, top);
    draw();
    const resized = new ResizeObserver(() => (frame ||= requestAnimationFrame(draw)));
    resized.observe(scroller);
    return {
      focus: () => scroller.focus(),
      show(row, stay) {
        const place = rows.indexOf(row);
        if (place >= 0) setCurrent(place, stay);
      },
      current: () => rows[at] ?? -1,
      scroll: () => [scroller.scrollTop, scroller.scrollLeft],
      close() {
        resized.disconnect();
        cancelAnimationFrame(frame);
      },
    };
  }

  /** How the numbers of a column are spread, from its least to its greatest: one small picture. */
  function distribution(column, rows) {
    const values = rows.map(column.value).filter(sweeper.dataset.isNumber).map(Number);
    const range = sweeper.colours.extent(values);
    if (range === null || range[0] === range[1]) return null;
    const bins = new Array(BINS).fill(0);
    for (const value of values) bins[Math.min(BINS - 1, Math.floor(sweeper.colours.share(value, range) * BINS))] += 1;
    const most = Math.max(...bins);
    const name = `Distribution of ${column.name}: ${range.map(sweeper.dataset.rounded).join(" to ")}`;
    const canvas = el("canvas", { class: "spread", width: BINS * 3, height: 14, role: "img", "aria-label": name, title: name });
    const pen = canvas.getContext("2d");
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--spread");
    bins.forEach((count, place) => {
      const height = Math.ceil((count / most) * 14);
      pen.fillRect(place * 3, 14 - height, 2, height);
    });
    return canvas;
  }

  /** What a first look wants: the trial, what varies, what became of it, and the metrics. */
  function chosen(dataset, state) {
    let names = null;
    try {
      names = JSON.parse(state.columns || "null");
    } catch {
      /* an address somebody cut */
    }
    const wished = Array.isArray(names) ? dataset.columns.filter((column) => names.includes(column.name)) : [];
    if (wished.length) return wished;
    const failed = dataset.about.status.some((status) => dataset.about.statuses[status] === "failed");
    const usual = ["trial", "status", "ran_s", ...(failed ? ["error"] : [])];
    return dataset.columns.filter(
      (column) => ["axis", "metric", "mark"].includes(column.role) || column.name === "check" || usual.includes(column.name),
    );
  }

  function chooser(dataset, columns, context) {
    const boxes = dataset.columns.map((column) => {
      const box = el("input", { type: "checkbox", value: column.name, "data-keep": `column ${column.name}`, onchange: change });
      box.checked = columns.includes(column);
      return el("label", {}, box, column.name);
    });
    const details = el(
      "details",
      { class: "columns" },
      el("summary", {}, `Columns (${columns.length} of ${dataset.columns.length})`),
      el("div", { class: "strip" }, boxes),
    );
    function change() {
      const names = [...details.querySelectorAll("input:checked")].map((box) => box.value);
      context.update({ columns: JSON.stringify(names) });
    }
    return details;
  }

  /** Rows in the order of a column; a missing value comes last either way, numbers before texts. */
  function sorted(dataset, rows, sort) {
    const column = dataset.column(sort.replace(/^-/, ""));
    if (column === undefined) return rows;
    const sign = sort.startsWith("-") ? -1 : 1;
    const key = (row) => column.value(row);
    const rank = (value) => (value === null || value === undefined ? 2 : sweeper.dataset.isNumber(value) ? 0 : 1);
    return [...rows].sort((left, right) => {
      const [a, b] = [key(left), key(right)];
      const [one, two] = [rank(a), rank(b)];
      if (one !== two) return one === 2 || two === 2 ? one - two : sign * (one - two);
      if (one === 2) return left - right;
      const [x, y] = one === 0 ? [a, b] : [column.label(left), column.label(right)];
      return x < y ? -sign : x > y ? sign : left - right;
    });
  }

  let pen = null; // measures names as heads show them

  /** Pixels of a column: its longest values, and its name with the arrow of a sorted one. */
  function wide(column) {
    if (pen === null) {
      pen = el("canvas").getContext("2d");
      pen.font = `600 14px ${getComputedStyle(document.body).fontFamily}`;
    }
    const head = pen.measureText(`${column.name} ▼`).width + 24;
    const labels =
      column.of === null
        ? column.numbers.slice(0, 200).map((_, row) => column.label(row))
        : [...column.labels.slice(0, 200).map(sweeper.dataset.visible), column.of.includes(-1) ? "(none)" : ""];
    const longest = labels.reduce((most, label) => Math.max(most, label.length), 0);
    return Math.ceil(Math.min(320, Math.max(64, longest * 9.2 + 28, head)));
  }

  sweeper.table = { create, sorted };
})((globalThis.sweeper ??= {}));
