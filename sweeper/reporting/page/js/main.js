// Puts the page together: one state, what it shows, and the address that holds it.
"use strict";

(function (sweeper) {
  const GRID = ["x", "y", "xx", "yy", "size", "captions", "pins", "hidden", "order", "where", "colour", "view"];
  const OTHER = ["view", "where", "colour", "metric", "lines", "sort", "columns", "x", "y"];

  function start() {
    const dataset = sweeper.dataset.decode(sweeper.raw);
    document.title = `${dataset.about.experiment} · sweeper`;
    sweeper.sprites.install(dataset.about.sprites);
    const first = sweeper.state.initial(dataset);
    const host = document.getElementById("view");
    const marks = sweeper.marks.open(dataset, (changed) => {
      for (const row of changed) {
        view?.remark?.(row);
        zoom.remark(row);
      }
      bar.show(state, view?.arranged);
      if (/\b(mark|stars|comment)\b/.test(state.where)) due ||= setTimeout(rebuild, 400);
    });
    let state = null;
    let view = null;
    let address = "";
    let filter = sweeper.expression.compile("", dataset);
    let rows = null;
    let list = null;
    let due = 0;

    const page = {
      dataset,
      marks,
      update,
      state: () => state,
      filter: () => filter,
      numbers: () => [...dataset.metrics, ...["ran_s", "queued_s", "attempts"].map(dataset.column)],
      rows: () => (rows ??= Array.from({ length: dataset.size }, (_, row) => row).filter(filter.holds)),
      /** The rows in the order of the table, where that is what is looked at. */
      listed() {
        if (state.view !== "table") return null;
        if (list?.of !== page.rows() || list.sort !== state.sort)
          list = { of: page.rows(), sort: state.sort, rows: sweeper.table.sorted(dataset, page.rows(), state.sort) };
        return list.rows;
      },
      arranged: () => view?.arranged ?? sweeper.layout.arrange(dataset, state, filter.holds),
      busy: () => view?.busy?.() ?? false,
      open: (row) => update({ trial: String(dataset.trial(row)) }),
      markByKey: (key, row) => markByKey(marks, key, row),
    };
    /** What a run that goes on changed: at once in the cells; what depends on many rows is built anew now and then. */
    function refresh(changed, outcomes) {
      for (const row of changed) zoom.remark(row);
      view.refresh?.(changed);
      bar.recount();
      if (outcomes && (state.where !== "" || state.colour !== "" || state.view !== "grid")) due ||= setTimeout(rebuild, 1000);
    }
    function rebuild() {
      due = 0;
      filter = sweeper.expression.compile(state.where, dataset);
      rows = null;
      build(true);
      bar.show(state, view.arranged);
    }
    const bar = sweeper.bar.create(document.getElementById("bar"), page);
    const zoom = sweeper.zoom.create(document.getElementById("zoom"), page);

    /** Change the view; every change is a step that Back undoes, unless it replaces the last one. */
    function update(change, { replace = false } = {}) {
      const next = { ...state, ...change };
      const text = `#${sweeper.state.write(next, first, dataset)}`;
      if (replace) location.replace(text);
      else location.hash = text;
      address = location.hash;
      apply(next);
    }

    function apply(next) {
      const before = state;
      state = next;
      const changed = (names) => before === null || names.some((name) => before[name] !== state[name]);
      if (changed(["where"])) {
        filter = sweeper.expression.compile(state.where, dataset);
        rows = null;
      }
      if (changed(state.view === "grid" ? GRID : OTHER))
        build(before !== null && !changed(["x", "y", "xx", "yy", "view", "size"]));
      bar.show(state, view.arranged);
      const wasOpen = before !== null && before.trial !== "";
      zoom.show(state);
      if (wasOpen && state.trial === "") {
        const row = dataset.row(Number(before.trial));
        if (row !== undefined) view.show?.(row);
        view.focus?.();
      }
    }

    function build(stay) {
      const [held, row] = stay ? [view?.scroll?.(), view?.current?.()] : [];
      // Asked for before anything is changed: afterwards it would have the browser lay out the page for it.
      const room = { height: host.clientHeight, width: host.clientWidth };
      sweeper.dom.keepingFocus(host, () => {
        view?.close?.();
        view = sweeper[state.view].create(host, { ...page, state, room, ...shades(page) }, held);
        if (row >= 0) view.show?.(row, true);
      });
    }

    addEventListener("hashchange", () => {
      if (location.hash === address) return;
      address = location.hash;
      apply(sweeper.state.read(address, first, dataset));
    });
    addEventListener("keydown", (event) => {
      if (!asksForFilter(event)) return;
      bar.focusFilter();
      event.preventDefault();
    });
    address = location.hash;
    apply(sweeper.state.read(address, first, dataset));
    sweeper.live.follow(dataset, refresh);
    sweeper.sprites.load();
    sweeper.page = page; // for tests, and for whoever is curious
  }

  /** What a key means for the mark of a row; false where it means nothing. */
  function markByKey(marks, key, row) {
    const toggled = (verdict) => ({ verdict: marks.get(row).verdict === verdict ? "" : verdict });
    if (/^[0-5]$/.test(key)) marks.set(row, { stars: Number(key) });
    else if (key === "k") marks.set(row, toggled("keep"));
    else if (key === "r") marks.set(row, toggled("reject"));
    else return false;
    return true;
  }

  const asksForFilter = ({ key, target }) =>
    key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && !document.querySelector("dialog[open]");

  /** What cells and rows need to be coloured by a number, and to caption what no axis tells. */
  function shades(page) {
    const { dataset } = page;
    const state = page.state();
    const colour = dataset.column(state.colour);
    const usable = colour?.numeric ? colour : undefined;
    const extent = usable && sweeper.colours.extent(page.rows().map(usable.value));
    const tint = (row) => {
      const value = usable?.value(row);
      return extent && typeof value === "number"
        ? sweeper.colours.at(sweeper.colours.share(value, extent))
        : "transparent";
    };
    return {
      colour: usable,
      tint,
      holds: page.filter().holds,
      free: sweeper.layout.free(dataset, state).filter((axis) => state.pins[axis.name] === undefined),
    };
  }

  try {
    start();
  } catch (error) {
    const text = document.createElement("p");
    text.className = "empty";
    text.textContent = `The report cannot be shown: ${error.message}`;
    document.getElementById("view").append(text);
    throw error;
  }
})((globalThis.sweeper ??= {}));
