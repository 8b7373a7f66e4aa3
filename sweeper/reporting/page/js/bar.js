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
    const { dataset, marks, update } = page;
    const axisOptions = [
      ["", "(none)"],
      ...dataset.axes.map((axis) => [axis.name, `${axis.name} (${axis.places.length})`]),
    ];
    const axes = Object.fromEntries(
      AXES.map(([place]) => [
        place,
        menu(axisOptions, "", (name) => update(sweeper.state.place(page.state(), place, name))),
      ]),
    );
    const colour = menu(
      [["", "(nothing)"], ...page.numbers().map((column) => [column.name, column.name])],
      "",
      (name) => update({ colour: name }),
    );
    const size = el("input", {
      type: "range",
      min: 48,
      max: 512,
      step: 16,
      oninput: () => later({ size: Number(size.value) }),
      onchange: settle,
    });
    const captions = el(
      "button",
      { type: "button", onclick: () => update({ captions: !page.state().captions }) },
      "Captions",
    );
    const filter = el("input", {
      type: "search",
      placeholder: `${sweeper.expression.example(dataset)}, or a word`,
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => later({ where: filter.value }),
      onchange: settle,
    });
    const only = menu([], "", (where) => update({ where }));
    const said = el("span", { role: "status" });
    const pins = el("div", { class: "tools pins" });
    const tabs = viewTabs((name) => update({ view: name }));
    const places = AXES.map(([place, label]) => {
      const node = field(label, axes[place]);
      sweeper.drag.target(node, (name) => update(sweeper.state.place(page.state(), place, name)));
      return node;
    });
    const chips = el(
      "div",
      { class: "chips", "aria-label": "Axes to drag" },
      dataset.axes.length > 1 && ["Drag:", ...dataset.axes.slice(0, MOST_CHIPS).map(sweeper.drag.chip)],
    );
    const colouring = field("Colour by", colour);
    const gridOnly = el(
      "div",
      { class: "tools" },
      places,
      field("Size", size),
      captions,
      dataset.axes.length > 0 && el("button", { type: "button", onclick: () => valuesDialog(page) }, "Values…"),
      pins,
      chips,
    );
    const marked = el("button", { type: "button", onclick: exportMarks }, "Export marks");
    const accept = el(
      "button",
      { type: "button", onclick: () => copy(marks.accept(), "command") },
      "Copy accept command",
    );
    const listed = el("button", { type: "button", onclick: exportCases }, "Export kept cases");
    const theme = el("button", { type: "button", onclick: nextTheme });
    const more = el(
      "details",
      { class: "more", open: !sweeper.measures.small() },
      el("summary", {}, "Axes, size, marks"),
      gridOnly,
    );

    // What is typed, or drawn, without a pause is one step of Back: its first change is a step, the others replace it. A
    // change of something else in between, or Back itself, ends it: the page then has another state than it left.
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
      update(change, { replace: flow.state === page.state() });
      flow.state = page.state();
    }

    function exportMarks() {
      if (marks.count() === 0) return say("nothing is marked yet: K keeps, R rejects, 1 to 5 rate the current cell");
      return save(`${fileName(dataset)}-kept.yaml`, "application/yaml", marks.yaml());
    }

    function exportCases() {
      save(`${fileName(dataset)}-kept-cases.txt`, "text/plain", marks.cases());
      say("for sweeper accept --cases FILE");
    }

    function setTheme(name) {
      document.documentElement.dataset.theme = name;
      theme.textContent = `Theme: ${name}`;
    }

    function nextTheme() {
      setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
      try {
        localStorage.setItem("sweeper:theme", document.documentElement.dataset.theme);
      } catch {
        /* it then lasts as long as the page */
      }
    }

    const counts = sweeper.counts.create(page);
    const title = el("h1", { title: dataset.about.description || null }, dataset.about.experiment);
    host.append(
      el(
        "div",
        { class: "top" },
        title,
        counts.node,
        tabs.node,
      ),
      more,
      el("div", { class: "tools" }, field("Filter", filter, "wide"), field("Show", only), colouring, marked, accept, listed, theme),
      said,
    );

    /** Filters that everybody wants, and the one that is written; marks are columns as any other. */
    function quickFilters(where) {
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

    counts.recount();

    function show(state, arranged) {
      quickFilters(state.where);
      colouring.hidden = state.view === "plots";
      for (const [place] of AXES) axes[place].value = state[place];
      colour.value = state.colour;
      if (flow.change?.size === undefined) size.value = state.size;
      captions.setAttribute("aria-pressed", String(state.captions));
      if (flow.change?.where === undefined && filter.value !== state.where) filter.value = state.where;
      said.textContent = told(state.where, page.filter(), page.rows().length, dataset.size);
      said.className = page.rows().length ? "said" : "said error";
      tabs.show(state.view);
      more.hidden = state.view !== "grid";
      counts.show(state, arranged ? arranged.shown : page.rows().length);
      marked.textContent = marks.count() ? `Export marks (${marks.count()})` : "Export marks";
      listed.hidden = marks.cases() === "";
      accept.hidden = marks.rows((mark) => mark.verdict === "keep").length === 0;
      keepingFocus(pins, () => showPins(state));
    }

    /** Menus for axes in no place: all their trials share a cell until one value is chosen. */
    function showPins(state) {
      pins.replaceChildren(
        ...sweeper.layout.choices(dataset, state).map(([axis, values]) => {
          const options = [["", "all"], ...values.map((place) => [String(place), axis.word(place)])];
          return field(
            axis.name,
            menu(options, String(state.pins[axis.name] ?? ""), (value) => {
              update({
                pins: sweeper.state.altered(page.state().pins, axis.name, value === "" ? undefined : Number(value)),
              });
            }),
          );
        }),
      );
    }

    setTheme("auto");
    try {
      const kept = localStorage.getItem("sweeper:theme");
      if (THEMES.includes(kept)) setTheme(kept);
    } catch {
      /* as the system has it */
    }
    return { show, recount: counts.recount, focusFilter: () => filter.focus() };
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
    function show(view) {
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

  /** Show, hide and reorder the values of the axes. */
  function valuesDialog(page) {
    const dialog = document.getElementById("values");
    const { dataset, update } = page;
    let axis = dataset.axes.find((one) => one.name === page.state().x) ?? dataset.axes[0];

    function draw() {
      const state = page.state();
      const hidden = new Set(state.hidden[axis.name] ?? []);
      const order = sweeper.layout.ordered(axis, state);
      const hide = (places) => {
        update({ hidden: sweeper.state.altered(page.state().hidden, axis.name, places) });
        draw();
      };
      const move = (at, by) => {
        const next = [...order];
        [next[at], next[at + by]] = [next[at + by], next[at]];
        update({ order: sweeper.state.altered(page.state().order, axis.name, next) });
        draw();
      };
      const item = (place, at) => {
        const box = el("input", {
          type: "checkbox",
          "data-keep": `show ${place}`,
          onchange: () => hide(box.checked ? [...hidden].filter((one) => one !== place) : [...hidden, place]),
        });
        box.checked = !hidden.has(place);
        const arrow = (text, by, name) =>
          el(
            "button",
            {
              type: "button",
              "aria-label": `Move ${axis.word(place)} ${name}`,
              "data-keep": `${name} ${place}`,
              "aria-disabled": at + by in order ? null : "true", // one that is disabled would lose the focus
              onclick: () => at + by in order && move(at, by),
            },
            text,
          );
        return el(
          "li",
          {},
          el("label", {}, box, axis.word(place)),
          arrow("↑", -1, "up"),
          arrow("↓", 1, "down"),
        );
      };
      const chooser = menu(
        dataset.axes.map((one) => [one.name, one.name]),
        axis.name,
        (name) => {
          axis = dataset.axes.find((one) => one.name === name);
          draw();
        },
      );
      const shown = order.slice(0, 300); // more than anybody would tick by hand: the filter is for those
      const parts = [
        el("h2", {}, "Values shown, in this order"),
        field("Axis", chooser),
        el("ul", {}, shown.map(item)),
        order.length > shown.length ? el("p", {}, `and ${order.length - shown.length} more; use the filter`) : "",
        el(
          "div",
          { class: "strip" },
          el("button", { type: "button", "data-keep": "all", onclick: () => hide([]) }, "Show all"),
          el("button", { type: "button", onclick: () => dialog.close() }, "Done"),
        ),
      ];
      keepingFocus(dialog, () => dialog.replaceChildren(...parts));
    }

    draw();
    addEventListener("hashchange", draw); // Back works here too
    dialog.addEventListener("close", () => removeEventListener("hashchange", draw), { once: true });
    dialog.showModal();
  }

  sweeper.bar = { create };
})((globalThis.sweeper ??= {}));
