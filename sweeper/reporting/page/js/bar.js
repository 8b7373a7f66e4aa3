// @ts-check
// The bar above the views: counts, views, axes, filter, colour, marks, theme.
"use strict";

/** @typedef {{nodes: Node[], show: (state: State) => void}} BarPart */

const Bar = (() => {
  const { el, makeField, makeMenu, saveFile, copyText, announce } = Dom;
  const THEME_KEY = "sweeper:theme";
  const THEMES = ["auto", "light", "dark"];
  const VIEWS = [
    ["grid", "Grid"],
    ["table", "Table"],
    ["plots", "Plots"],
  ];

  /** @param {HTMLElement} host @param {Page} page */
  function create(host, page) {
    const { dataset } = page;
    const input = new PendingInput(page);
    const counts = Counts.create(page);
    const tabs = makeTabs((view) => page.update({ view }));
    const grid = GridControls.create(page, input);
    const filter = makeFilter(page, input);
    const colour = makeColourMenu(page);
    const marks = makeMarkButtons(page);
    const title = el("h1", { title: dataset.raw.description || null }, dataset.raw.experiment);
    host.append(
      el("div", { class: "top" }, title, counts.node, tabs.nodes),
      ...grid.nodes,
      el("div", { class: "tools" }, filter.nodes, colour.nodes, marks.nodes, makeThemeButton()),
      filter.status,
    );
    counts.update();

    /**
     * @param {State} state
     * @param {Arrangement | undefined} arrangement of the grid, if that is the view
     */
    function show(state, arrangement) {
      for (const part of [tabs, grid, filter, colour, marks]) part.show(state);
      counts.show(state, arrangement ? arrangement.shown : page.getRows().length);
    }

    return { show, updateCounts: counts.update, focusFilter: filter.focus };
  }

  /** @param {Page} page @returns {BarPart} */
  function makeColourMenu(page) {
    const options = [["", "(nothing)"], ...page.getNumberColumns().map((column) => [column.name, column.name])];
    const menu = makeMenu(options, "", (name) => page.update({ colour: name }));
    const node = makeField("Colour by", menu);
    return {
      nodes: [node],
      show({ view, colour }) {
        node.hidden = view === "plots";
        menu.value = colour;
      },
    };
  }

  /**
   * The filter as text, a menu of common filters, and a line about the result.
   * @param {Page} page @param {PendingInput} input
   */
  function makeFilter(page, input) {
    const { dataset } = page;
    const text = el("input", {
      type: "search",
      placeholder: `${Expression.makeExample(dataset)}, or a word`,
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => input.schedule({ where: text.value }),
      onchange: () => input.apply(),
    });
    const menu = makeMenu([], "", (where) => page.update({ where }));
    const status = el("span", { role: "status" });

    /** @param {State} state */
    function show({ where }) {
      fillFilterMenu(menu, where, dataset);
      if (!input.isPending("where") && text.value !== where) text.value = where;
      const count = page.getRows().length;
      status.textContent = describeFilter(where, page.getFilter(), count, dataset.size);
      status.className = count > 0 ? "filter-status" : "filter-status error";
    }

    return { nodes: [makeField("Filter", text, "wide"), makeField("Show", menu)], status, show, focus: () => text.focus() };
  }

  /** @param {HTMLSelectElement} menu @param {string} where @param {Dataset} dataset */
  function fillFilterMenu(menu, where, dataset) {
    if (menu.value === where && menu.options.length > 0) return; // a change would close an open menu
    const options = [
      ["", "everything"],
      ["mark == 'keep'", "kept"],
      ["stars > 0 or mark == 'keep'", "favourites"],
      ["mark != 'reject'", "not rejected"],
      ["mark == '' and stars == 0", "not judged yet"],
      ["status == 'failed'", "failed"],
      ...(dataset.raw.check ? [["check != 'same'", "changed, new or not compared"]] : []),
    ];
    if (!options.some(([value]) => value === where)) options.push([where, "as written"]);
    menu.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    menu.value = where;
  }

  /**
   * Whether the filter is an expression or a search, and how many trials it leaves.
   * @param {string} source @param {Filter} filter @param {number} found @param {number} size
   */
  function describeFilter(source, { search, error }, found, size) {
    const count = `${found.toLocaleString("en")} of ${size.toLocaleString("en")} trials`;
    if (source.trim() === "") return "";
    if (!search) return `Filter: an expression, true for ${count}`;
    const reason = /[=<>]/.test(source) ? `. It is not an expression: ${error}` : "";
    return `Filter: searched the values for ${source.trim()}, found in ${count}${reason}`;
  }

  /**
   * Buttons that export the marks: as an experiment of the kept trials, as a command that accepts them, as case names.
   * @param {Page} page @returns {BarPart}
   */
  function makeMarkButtons({ dataset, marks }) {
    const fileName = dataset.raw.experiment.replace(/[^\w-]+/g, "-");
    /** @param {string} text @param {() => void} onclick */
    const makeButton = (text, onclick) => el("button", { type: "button", onclick }, text);
    const exportMarks = makeButton("Export marks", () => {
      if (marks.count() === 0) return announce("nothing is marked yet; for the current cell, K keeps, R rejects, 1 to 5 rate");
      saveFile(`${fileName}-kept.yaml`, "application/yaml", MarkExport.toYaml(dataset, marks));
    });
    const copyAccept = makeButton("Copy accept command", () => copyText(MarkExport.makeAcceptCommand(dataset, marks), "command"));
    const exportCases = makeButton("Export kept cases", () => {
      saveFile(`${fileName}-kept-cases.txt`, "text/plain", MarkExport.listCases(dataset, marks));
      announce("use this file with: sweeper accept --cases FILE");
    });
    return {
      nodes: [exportMarks, copyAccept, exportCases],
      show() {
        exportMarks.textContent = marks.count() ? `Export marks (${marks.count()})` : "Export marks";
        exportCases.hidden = MarkExport.listCases(dataset, marks) === "";
        copyAccept.hidden = marks.findRows((mark) => mark.verdict === "keep").length === 0;
      },
    };
  }

  function makeThemeButton() {
    const root = document.documentElement.dataset;
    const button = el("button", { type: "button", onclick: switchTheme });

    /** @param {string} name */
    function setTheme(name) {
      root.theme = name;
      button.textContent = `Theme: ${name}`;
    }

    function switchTheme() {
      const name = THEMES[(THEMES.indexOf(root.theme ?? "auto") + 1) % THEMES.length];
      setTheme(name);
      try {
        localStorage.setItem(THEME_KEY, name);
      } catch {
        /* then it lasts as long as the page */
      }
    }

    setTheme("auto");
    try {
      const saved = localStorage.getItem(THEME_KEY);
      if (saved !== null && THEMES.includes(saved)) setTheme(saved);
    } catch {
      /* then it follows the system */
    }
    return button;
  }

  /**
   * The views as tabs. Tab reaches the chosen one; the arrow keys choose another.
   * @param {(view: string) => void} choose @returns {BarPart}
   */
  function makeTabs(choose) {
    const tabs = VIEWS.map(([name, text]) =>
      el("button", { type: "button", role: "tab", "aria-controls": "view", onclick: () => choose(name) }, text),
    );
    /** @param {KeyboardEvent} event */
    function onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const index = tabs.findIndex((tab) => tab === event.target);
      const last = tabs.length - 1;
      /** @type {Record<string, number>} */
      const steps = { ArrowLeft: index === 0 ? last : index - 1, ArrowRight: index === last ? 0 : index + 1, Home: 0, End: last };
      const next = steps[event.key];
      if (index < 0 || next === undefined) return;
      event.preventDefault();
      tabs[next].focus();
      choose(VIEWS[next][0]);
    }
    return {
      nodes: [el("div", { class: "tabs", role: "tablist", "aria-label": "View", onkeydown: onKey }, tabs)],
      show({ view }) {
        tabs.forEach((tab, index) => {
          const isChosen = VIEWS[index][0] === view;
          tab.setAttribute("aria-selected", String(isChosen));
          tab.tabIndex = isChosen ? 0 : -1;
        });
      },
    };
  }

  return { create };
})();
