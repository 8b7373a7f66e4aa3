// The bar above the views: what is shown, along which axes, and the filter.
"use strict";

(function (sweeper) {
  const { el, menu, field, keepingFocus, save, copy, say } = sweeper.dom;
  const VIEWS = [
    ["grid", "Grid"],
    ["table", "Table"],
    ["plots", "Plots"],
  ];
  const AXES = [
    ["x", "X axis"],
    ["y", "Y axis"],
    ["xx", "Outer columns"],
    ["yy", "Outer rows"],
  ];
  const MOST_CHIPS = 12;
  const PAUSE = 1500; // milliseconds without a key after which what is typed is another step of Back
  const THEMES = ["auto", "light", "dark"];

  function create(host, page) {
    const { dataset } = page;
    const typed = typing(page);
    const counts = sweeper.counts.create(page);
    const tabs = viewTabs((view) => page.update({ view }));
    const placing = gridControls(page, typed);
    const filtering = filterControls(page, typed);
    const colouring = colourMenu(page);
    const opinions = markButtons(page);
    const title = el("h1", { title: dataset.about.description || null }, dataset.about.experiment);
    host.append(
      el("div", { class: "top" }, title, counts.node, tabs.node),
      placing.node,
      el("div", { class: "tools" }, filtering.nodes, colouring.node, opinions.nodes, themeButton()),
      filtering.said,
    );
    counts.recount();

    function show(state, arranged) {
      for (const part of [tabs, placing, filtering, colouring, opinions]) part.show(state);
      counts.show(state, arranged ? arranged.shown : page.rows().length);
    }

    return { show, recount: counts.recount, focusFilter: filtering.focus };
  }

  /**
   * What is typed, or drawn, without a pause is one step of Back: its first change is a step, the others replace it. A
   * change of something else in between, or Back itself, ends it: the page then has another state than it left.
   */
  function typing(page) {
    const flow = { change: null, timer: 0, last: 0, name: "", state: null };

    function later(change) {
      const [name] = Object.keys(change);
      const now = performance.now();
      if (flow.name !== name || now - flow.last > PAUSE) flow.state = null;
      clearTimeout(flow.timer);
      Object.assign(flow, { change, name, last: now, timer: setTimeout(settle, 120) });
    }

    /** Bring a change that waits to the page: its own time has come, or its control is left for another. */
    function settle() {
      clearTimeout(flow.timer);
      const { change } = flow;
      if (change === null) return;
      flow.change = null;
      page.update(change, { replace: flow.state === page.state() });
      flow.state = page.state();
    }

    /** Whether a control holds what the page is yet to have. */
    const waits = (name) => flow.change?.[name] !== undefined;
    return { later, settle, waits };
  }

  /** What a grid is asked for: its axes, the size of its cells, captions, values of the axes in no place. */
  function gridControls(page, typed) {
    const { dataset, update } = page;
    const axes = axisMenus(page);
    const size = el("input", {
      type: "range",
      min: 48,
      max: 512,
      step: 16,
      oninput: () => typed.later({ size: Number(size.value) }),
      onchange: typed.settle,
    });
    const captions = el(
      "button",
      { type: "button", onclick: () => update({ captions: !page.state().captions }) },
      "Captions",
    );
    const pins = el("div", { class: "tools pins" });
    const chips = el(
      "div",
      { class: "chips", "aria-label": "Axes to drag" },
      dataset.axes.length > 1 && ["Drag:", ...dataset.axes.slice(0, MOST_CHIPS).map(sweeper.drag.chip)],
    );
    const node = el(
      "details",
      { class: "more", open: !sweeper.measures.small() },
      el("summary", {}, "Axes, size, marks"),
      el(
        "div",
        { class: "tools" },
        axes.nodes,
        field("Size", size),
        captions,
        dataset.axes.length > 0 && el("button", { type: "button", onclick: () => sweeper.values.open(page) }, "Values…"),
        pins,
        chips,
      ),
    );

    function show(state) {
      node.hidden = state.view !== "grid";
      axes.show(state);
      if (!typed.waits("size")) size.value = state.size;
      captions.setAttribute("aria-pressed", String(state.captions));
      keepingFocus(pins, () => pins.replaceChildren(...pinMenus(page, state)));
    }

    return { node, show };
  }

  /** A menu for each place that an axis may have; an axis that is dragged onto one goes there, too. */
  function axisMenus(page) {
    const options = [
      ["", "(none)"],
      ...page.dataset.axes.map((axis) => [axis.name, `${axis.name} (${axis.places.length})`]),
    ];
    const menus = {};
    const nodes = AXES.map(([place, label]) => {
      const take = (name) => page.update(sweeper.state.place(page.state(), place, name));
      menus[place] = menu(options, "", take);
      const node = field(label, menus[place]);
      sweeper.drag.target(node, take);
      return node;
    });
    const show = (state) => AXES.forEach(([place]) => (menus[place].value = state[place]));
    return { nodes, show };
  }

  /** Menus for axes in no place: all their trials share a cell until one value is chosen. */
  function pinMenus(page, state) {
    const choose = (axis) => (value) =>
      page.update({
        pins: sweeper.state.altered(page.state().pins, axis.name, value === "" ? undefined : Number(value)),
      });
    return sweeper.layout.choices(page.dataset, state).map(([axis, values]) => {
      const options = [["", "all"], ...values.map((place) => [String(place), axis.word(place)])];
      return field(axis.name, menu(options, String(state.pins[axis.name] ?? ""), choose(axis)));
    });
  }

  function colourMenu(page) {
    const options = [["", "(nothing)"], ...page.numbers().map((column) => [column.name, column.name])];
    const colour = menu(options, "", (name) => page.update({ colour: name }));
    const node = field("Colour by", colour);
    function show(state) {
      node.hidden = state.view === "plots";
      colour.value = state.colour;
    }
    return { node, show };
  }

  /** The filter as it is written, the ones that everybody wants, and what became of it. */
  function filterControls(page, typed) {
    const { dataset } = page;
    const filter = el("input", {
      type: "search",
      placeholder: `${sweeper.expression.example(dataset)}, or a word`,
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => typed.later({ where: filter.value }),
      onchange: typed.settle,
    });
    const only = menu([], "", (where) => page.update({ where }));
    const said = el("span", { role: "status" });

    function show({ where }) {
      quickFilters(only, where, dataset);
      if (!typed.waits("where") && filter.value !== where) filter.value = where;
      said.textContent = told(where, page.filter(), page.rows().length, dataset.size);
      said.className = page.rows().length ? "said" : "said error";
    }

    return { nodes: [field("Filter", filter, "wide"), field("Show", only)], said, show, focus: () => filter.focus() };
  }

  /** Filters that everybody wants, and the one that is written; marks are columns as any other. */
  function quickFilters(only, where, dataset) {
    if (only.value === where && only.options.length > 0) return; // nobody's open menu is closed for nothing
    const usual = [
      ["", "everything"],
      ["mark == 'keep'", "kept"],
      ["stars > 0 or mark == 'keep'", "favourites"],
      ["mark != 'reject'", "not rejected"],
      ["mark == '' and stars == 0", "not judged yet"],
      ["status == 'failed'", "failed"],
      ...(dataset.about.check ? [["check != 'same'", "changed, new or not compared"]] : []),
    ];
    const written = usual.some(([text]) => text === where) ? [] : [[where, "as written"]];
    only.replaceChildren(...[...usual, ...written].map(([value, text]) => el("option", { value }, text)));
    only.value = where;
  }

  /** What leaves the page of the marks: the experiment of the kept trials, the command that accepts them, their cases. */
  function markButtons({ dataset, marks }) {
    const button = (text, act) => el("button", { type: "button", onclick: act }, text);
    const marked = button("Export marks", () => {
      if (marks.count() === 0) return say("nothing is marked yet: K keeps, R rejects, 1 to 5 rate the current cell");
      return save(`${fileName(dataset)}-kept.yaml`, "application/yaml", marks.yaml());
    });
    const accept = button("Copy accept command", () => copy(marks.accept(), "command"));
    const listed = button("Export kept cases", () => {
      save(`${fileName(dataset)}-kept-cases.txt`, "text/plain", marks.cases());
      say("for sweeper accept --cases FILE");
    });

    function show() {
      marked.textContent = marks.count() ? `Export marks (${marks.count()})` : "Export marks";
      listed.hidden = marks.cases() === "";
      accept.hidden = marks.rows((mark) => mark.verdict === "keep").length === 0;
    }

    return { nodes: [marked, accept, listed], show };
  }

  function themeButton() {
    const root = document.documentElement.dataset;
    const theme = el("button", { type: "button", onclick: next });

    function set(name) {
      root.theme = name;
      theme.textContent = `Theme: ${name}`;
    }

    function next() {
      set(THEMES[(THEMES.indexOf(root.theme) + 1) % THEMES.length]);
      try {
        localStorage.setItem("sweeper:theme", root.theme);
      } catch {
        /* it then lasts as long as the page */
      }
    }

    set("auto");
    try {
      const kept = localStorage.getItem("sweeper:theme");
      if (THEMES.includes(kept)) set(kept);
    } catch {
      /* as the system has it */
    }
    return theme;
  }

  /** The views as tabs: one of them is met by Tab, the arrows go from it to the others and choose them. */
  function viewTabs(choose) {
    const tabs = VIEWS.map(([name, text]) =>
      el("button", { type: "button", role: "tab", "aria-controls": "view", onclick: () => choose(name) }, text),
    );
    function walk(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const at = tabs.indexOf(event.target);
      const last = tabs.length - 1;
      const steps = { ArrowLeft: at === 0 ? last : at - 1, ArrowRight: at === last ? 0 : at + 1, Home: 0, End: last };
      const next = steps[event.key];
      if (at < 0 || next === undefined) return;
      event.preventDefault();
      tabs[next].focus();
      choose(VIEWS[next][0]);
    }
    const node = el("div", { class: "tabs", role: "tablist", "aria-label": "View", onkeydown: walk }, tabs);
    function show({ view }) {
      tabs.forEach((tab, place) => {
        const chosen = VIEWS[place][0] === view;
        tab.setAttribute("aria-selected", String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
      });
    }
    return { node, show };
  }

  const fileName = (dataset) => dataset.about.experiment.replace(/[^\w-]+/g, "-");

  /** What became of the filter: whether it was taken for an expression or for words, and how many trials it leaves. */
  function told(source, { search, error }, found, size) {
    const count = `${found.toLocaleString("en")} of ${size.toLocaleString("en")} trials`;
    if (source.trim() === "") return "";
    if (!search) return `Filter: an expression, true of ${count}`;
    const meant = /[=<>]/.test(source) ? `. It is no expression: ${error}` : "";
    return `Filter: searched for ${source.trim()} among the values, found in ${count}${meant}`;
  }

  sweeper.bar = { create };
})((globalThis.sweeper ??= {}));
