// The bar above the views, of one line: name, views, filter, and three menus. A second one has filters that can be removed.

import * as Keys from "../../../serving/page/js/keys.js";
import { createSegment, createSwitch } from "../../../serving/page/js/segment.js";
import * as Counts from "./counts.js";
import * as DecideData from "./decide_data.js";
import { announce, copyText, el, makeButton, makeField, makeMenu, makePanel, redrawKeepingFocus, saveFile } from "../../../serving/page/js/dom.js";
import * as Expression from "./expression.js";
import * as Layout from "./layout.js";
import * as NextTrial from "./next_trial.js";
import * as MarkExport from "./mark_export.js";
import * as Share from "./share.js";
import * as ViewState from "./state.js";
import * as TableView from "./table.js";
import * as Transport from "./transport.js";
import * as ValueText from "./value_text.js";
/** @import { Axis } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Page } from "./main.js" */

/** @typedef {{nodes: Node[], show: (state: ViewState.State, count: number) => void}} BarPart `count`: of the trials shown */

const VIEWS = [
  ["decide", "Decide"], // only if there is something to judge by
  ["search", "Search"], // only on the page of a search
  ["grid", "Grid"],
  ["gallery", "Gallery"],
  ["table", "Table"],
  ["plots", "Plots"],
];

const STEP_PAUSE = 1500; // milliseconds without a change after which the next one is another step of Back
const DELAY = 120; // milliseconds after which a change is applied

/** @typedef {ReturnType<typeof createInput>} PendingInput */

/**
 * Applies what a user types or drags in a control, shortly after the last change.
 *
 * Changes without a pause are one step of Back: the first is a step, the others replace it. Another change in between,
 * or Back itself, begins a new step.
 * @param {Page} page
 */
function createInput({ update, getState }) {
  let [name, timer, lastTime] = ["", 0, 0];
  /** @type {Partial<ViewState.State> | null} */
  let waiting = null;
  /** @type {ViewState.State | null} */
  let lastState = null; // that the last change led to; null when the next change is a new step

  /** Apply a waiting change now, because its time has come or its control loses the focus. */
  function apply() {
    clearTimeout(timer);
    const change = waiting;
    waiting = null;
    if (change === null) return;
    update(change, { replace: lastState === getState() });
    lastState = getState();
  }

  /** Apply a change of one setting soon. @param {Partial<ViewState.State>} change */
  function schedule(change) {
    const [next, now] = [Object.keys(change)[0], performance.now()];
    if (next !== name || now - lastTime > STEP_PAUSE) lastState = null;
    clearTimeout(timer);
    [waiting, name, lastTime, timer] = [change, next, now, setTimeout(apply, DELAY)];
  }

  /** Whether a control has a value that the page does not have yet. @param {keyof ViewState.State} setting */
  const isPending = (setting) => waiting?.[setting] !== undefined;
  return { apply, schedule, isPending };
}

/** @param {HTMLElement} host @param {Page} page */
export function create(host, page) {
  const { dataset } = page;
  const input = createInput(page);
  const counts = Counts.create(page);
  const tabs = makeTabs(page);
  const filter = makeFilter(page, input);
  const looks = createLooks(page, input);
  const sort = makeSortMenu(page);
  const pins = createPins(page);
  const colour = makeColourMenu(page);
  const time = makeTimeMenu(page);
  const columns = TableView.createColumnChooser(page);
  const legend = makeLegend(page);
  const marks = makeMarkMenu(page);
  const { experiment, description } = dataset.raw;
  const subtitle = el("p", { class: "subtitle", title: description ?? "" }, description);
  const isNarrow = innerWidth <= 600;
  const isRoomy = innerWidth >= 1400; // else the menus of further axes have a second line
  const skip = el("button", { class: "skip", onclick: page.focusView }, "Skip to the trials");
  const keys = el("button", { title: "Keys: key ?", "aria-label": "Keys", onclick: Keys.open }, "?");
  host.append(
    el(
      "div",
      { class: "top" },
      skip,
      el("div", { class: "name" }, el("h1", { title: experiment }, experiment), counts.node, subtitle),
      tabs.nodes,
      isRoomy && [...pins.nodes, ...sort.nodes],
      [...filter.nodes, ...(isRoomy ? [filter.chips, filter.status] : [])],
      legend.nodes,
      el("div", { class: "menus" }, NextTrial.makeEditButton(dataset), marks.nodes, makePanel("View", isNarrow && sort.nodes, colour.nodes, looks.nodes, columns.nodes, time.nodes, el("div", { class: "field" }, "Theme", createSwitch())), Share.create(page), keys),
    ),
    el("div", { class: "under" }, !isNarrow && !isRoomy && sort.nodes, ...(isRoomy ? [] : [...pins.nodes, filter.chips, filter.status])),
    counts.progress,
  );
  counts.update();

  /** @param {ViewState.State} state @param {Layout.Arrangement | undefined} arrangement of the grid, if that is the view */
  function show(state, arrangement) {
    const count = arrangement ? arrangement.shown : page.getRows().length;
    for (const part of [tabs, sort, pins, filter, legend, looks, columns, colour, time, marks]) part.show(state, count);
    counts.show(state.where);
    subtitle.hidden = !description || state.view === "decide"; // there it is the headline
  }

  /** Show what a run changed. */
  function updateCounts() {
    counts.update();
    tabs.show(page.getState(), 0);
  }

  return { show, updateCounts, focusFilter: filter.focus };
}

/** How the cells look: their size and their captions. @param {Page} page @param {PendingInput} input @returns {BarPart} */
function createLooks(page, input) {
  const { update } = page;
  const size = el("input", {
    type: "range",
    min: 48,
    max: 512,
    step: 16,
    oninput: () => input.schedule({ size: Number(size.value), fit: "" }),
    onchange: () => input.apply(),
  });
  const fit = createSegment("Fit", { all: "All", width: "Width", pixels: "1:1" }, (name) => update({ fit: name }));
  fit.node.title = "Make the pictures fit into the window: key F";
  const captions = el("button", { onclick: () => update({ captions: !page.getState().captions }) }, "Captions");
  const axes = page.dataset.axes.length > 0 && el("button", { onclick: page.openAxes }, "Axes and values…");
  const node = el("div", { class: "tools" }, makeField("Size", size), el("div", { class: "field" }, "Fit", fit.node), captions, axes);
  return {
    nodes: [node],
    show(state) {
      node.hidden = !["grid", "gallery"].includes(state.view);
      fit.choose(state.fit);
      if (!input.isPending("size")) size.value = String(state.size);
      captions.setAttribute("aria-pressed", String(state.captions));
    },
  };
}

/** Menus for axes without a direction: all their trials share a cell until a value is chosen. @param {Page} page @returns {BarPart} */
function createPins({ dataset, getState, update }) {
  const node = el("div", { class: "pins" });
  /** @param {[Axis, number[]]} choice @param {ViewState.State} state */
  const makePin = ([axis, codes], state) => {
    const setPin = (/** @type {string} */ value) =>
      update({ pins: ViewState.withEntry(getState().pins, axis.name, value === "" ? undefined : Number(value)) });
    const options = [["", "all"], ...codes.map((code) => [String(code), axis.labelOf(code)])];
    return makeField(axis.name, makeMenu(options, String(state.pins[axis.name] ?? ""), setPin));
  };
  return {
    nodes: [node],
    show(state) {
      node.hidden = state.view !== "grid";
      redrawKeepingFocus(node, () => node.replaceChildren(...Layout.listPinChoices(dataset, state).map((choice) => makePin(choice, state))));
    },
  };
}

/** The order of the gallery. @param {Page} page @returns {BarPart} */
function makeSortMenu({ dataset, getState, update }) {
  const columns = dataset.columns.filter(({ role }) => role !== "slot" && role !== "label");
  const menu = makeMenu(columns.map(({ name }) => [name, name]), "trial", (name) => update({ sort: name }));
  const flip = el("button", { "aria-label": "Descending", onclick: () => update({ sort: flipSort(getState().sort) }) });
  const node = el("div", { class: "strip" }, makeField("Sort by", menu), flip);
  const flipSort = (/** @type {string} */ sort) => (sort.startsWith("-") ? sort.slice(1) : `-${sort}`);
  return {
    nodes: [node],
    show({ view, sort }) {
      node.hidden = view !== "gallery";
      menu.value = sort.replace(/^-/, "");
      flip.textContent = sort.startsWith("-") ? "▼" : "▲";
      flip.setAttribute("aria-pressed", String(sort.startsWith("-")));
    },
  };
}

/** What colours the cells, and which trial is on top where several share one. @param {Page} page @returns {BarPart} */
function makeColourMenu(page) {
  const options = [["", "(nothing)"], ...page.getNumberColumns().map((column) => [column.name, column.name])];
  const menu = makeMenu(options, "", (name) => page.update({ colour: name }));
  const stacks = makeMenu([["first", "the first"]], "first", (stack) => page.update({ stack }));
  const [field, stackField] = [makeField("Colour by", menu), makeField("Of several in a cell", stacks)];
  return {
    nodes: [field, stackField],
    show({ view, colour, stack }) {
      field.hidden = !["grid", "gallery"].includes(view);
      menu.value = colour;
      stackField.hidden = view !== "grid" || colour === "";
      const choices = [["first", "the first"], ["highest", `the highest ${colour}`], ["lowest", `the lowest ${colour}`]];
      stacks.replaceChildren(...choices.map(([value, text]) => el("option", { value }, text)));
      stacks.value = stack;
    },
  };
}

/** The axis that plays. @param {Page} page @returns {BarPart} */
function makeTimeMenu({ dataset, getState, update }) {
  const axes = dataset.axes.filter((axis) => axis.order.length > 1);
  const options = [["", "(nothing)"], ...axes.map(({ name }) => [name, name])];
  const menu = makeMenu(options, "", (name) => update(Transport.setTime(getState(), axes.find((axis) => axis.name === name))));
  return { nodes: axes.length > 0 ? [makeField("Play along", menu)] : [], show: ({ time }) => (menu.value = time) };
}

/** The scale of the colours. A sign at an end says that numbers lie beyond it. @param {Page} page @returns {BarPart} */
function makeLegend(page) {
  const node = el("span", { class: "scale", role: "img" });
  return {
    nodes: [node],
    show({ view }) {
      const scale = page.getScale();
      node.hidden = scale === null || !["grid", "gallery"].includes(view);
      if (scale === null) return;
      const { column, extent, range } = scale;
      const [low, high] = extent.map(column.format ?? ValueText.toRounded);
      const ends = [`${range[0] < extent[0] ? "≤ " : ""}${low}`, `${range[1] > extent[1] ? "≥ " : ""}${high}`];
      node.replaceChildren(column.name, " ", ends[0], el("span", { class: "ramp" }), ends[1]);
      node.setAttribute("aria-label", `Colours: ${column.name} from ${ends.join(" to ")}`);
    },
  };
}

/** The filter as text, its parts as chips that a press removes, and a line about the result. @param {Page} page @param {PendingInput} input */
function makeFilter(page, input) {
  const { dataset, update } = page;
  const options = el("datalist", { id: "filter-options" });
  const text = el("input", {
    type: "search",
    "aria-label": "Filter",
    "data-keep": "Filter",
    list: options.id,
    placeholder: `${Expression.makeExample(dataset)}, or a word`,
    spellcheck: "false",
    autocomplete: "off",
    oninput() {
      options.replaceChildren(...completeFilter(text.value, dataset).map((value) => el("option", { value })));
      input.schedule({ where: text.value });
    },
    onchange: () => input.apply(),
  });
  const chips = el("div", { class: "chips" });
  const status = el("span", { role: "status" });

  /** @param {string} words @param {Partial<ViewState.State>} change */
  const makeChip = (words, change) => el("button", { class: "where" in change ? "of-filter" : "", title: `Remove: ${words}`, onclick: () => update(change) }, el("span", {}, words), " ✕");

  /** @param {ViewState.State} state @param {number} count */
  function show({ where, hidden }, count) {
    if (!input.isPending("where") && text.value !== where) text.value = where;
    const { broken } = page.getFilter();
    const parts = Expression.splitParts(where, dataset);
    chips.replaceChildren(
      ...parts.map((part) => makeChip(part, { where: parts.filter((other) => other !== part).join(" and ") })),
      ...Object.keys(hidden)
        .filter((name) => hidden[name].length > 0)
        .map((name) => makeChip(`${name}: ${hidden[name].length} hidden`, { hidden: ViewState.withEntry(hidden, name, undefined) })),
    );
    status.textContent = describeFilter(where, page.getFilter(), count, dataset.size);
    status.className = count > 0 && !broken ? "filter-status" : "filter-status error";
  }

  return { nodes: [el("div", { class: "search-field" }, text), options], chips, status, show, focus: () => text.focus() };
}

/** @param {Dataset} dataset */
const listFilters = (dataset) => [
  ["", "everything"],
  ["mark == 'keep'", "kept"],
  ["stars > 0 or mark == 'keep'", "favourites"],
  ["mark != 'reject'", "not rejected"],
  ["mark == '' and stars == 0", "not judged yet"],
  ["status == 'failed'", "failed"],
  ...(dataset.raw.check ? [["check != 'same'", "changed, new or not compared"]] : []),
];

/**
 * How many trials the filter leaves, and whether it is a search; or what is wrong with it.
 * @param {string} source @param {Expression.Filter} filter @param {number} found @param {number} size
 */
function describeFilter(source, { search, error, broken, condition }, found, size) {
  const count = `${found.toLocaleString("en")} of ${size.toLocaleString("en")} trials`;
  if (source.trim() === "") return found === size ? "" : count;
  const shown = condition === "" ? "Showing all trials." : `Still showing ${count} of the filter before.`;
  if (broken) return `The filter cannot be read: ${error}${error.endsWith("?") ? "" : "."} ${shown}`;
  return search ? `${count} contain ${source.trim()}` : count;
}

/** How many trials are judged, and what can be done with that. @param {Page} page @returns {BarPart} */
function makeMarkMenu({ dataset, marks, update }) {
  const fileName = dataset.raw.experiment.replace(/[^\w-]+/g, "-");
  const send = makeButton("Send marks (file)", () => {
    saveFile(`${fileName}-marks.json`, "application/json", marks.toFile());
    announce("others open this file by Marks > Open marks, or with: sweeper report --marks FILE");
  });
  const picker = el("input", { type: "file", accept: ".json", hidden: true, "aria-label": "A file of saved marks", onchange: openFile });
  const open = makeButton("Open marks…", () => picker.click());
  async function openFile() {
    const [file] = picker.files ?? [];
    if (file === undefined) return;
    picker.value = "";
    try {
      const [added, count] = marks.readFile(await file.text());
      announce(`${added} of ${count} marks in ${file.name} are new here`);
    } catch (error) {
      announce(`${file.name} cannot be loaded: ${error instanceof Error ? error.message : error}`);
    }
  }
  const experiment = makeButton("New experiment from the kept", () =>
    saveFile(`${fileName}-kept.yaml`, "application/yaml", MarkExport.toYaml(dataset, marks)),
  );
  const accept = makeButton("Accept the kept (copy the command)", () => copyText(MarkExport.makeAcceptCommand(dataset, marks), "command"));
  const cases = makeButton("Accept the kept (file of cases)", () => {
    saveFile(`${fileName}-kept-cases.txt`, "text/plain", MarkExport.listCases(dataset, marks));
    announce(`use this file with: ${MarkExport.getAcceptCommand(dataset)} --cases FILE`);
  });
  const menu = makeMenu(listFilters(dataset), "", (where) => update({ where }));
  const hint = el("p", { class: "dim" }, "For the current picture: key K keeps, R rejects, 1 to 5 rate.");
  const panel = makePanel("Marks", hint, makeField("Show", menu), experiment, accept, cases, send, open, picker);
  const button = /** @type {HTMLElement} */ (panel.firstElementChild);
  return {
    nodes: [panel],
    show({ where }) {
      menu.value = where; // nothing is chosen if it is another filter
      const counts = [
        ["Kept", marks.findRows(({ verdict }) => verdict === "keep").length],
        ["Rejected", marks.findRows(({ verdict }) => verdict === "reject").length],
        ["Rated", marks.findRows(({ stars }) => stars > 0).length],
      ];
      const words = counts.filter(([, count]) => count).map((pair) => pair.join(" "));
      button.textContent = `${words.join(" · ") || "Marks"} ▾`;
      const hasKept = counts[0][1] !== 0;
      experiment.hidden = !hasKept;
      accept.hidden = !hasKept || !dataset.raw.check;
      cases.hidden = MarkExport.listCases(dataset, marks) === "";
      send.hidden = marks.count() === 0;
    },
  };
}

/**
 * The views as tabs. Tab reaches the chosen one; the arrow keys choose another. *Decide* comes with the first mark, or with the
 * answers at the end of a run.
 * @param {Page} page @returns {BarPart}
 */
function makeTabs({ dataset, marks, update }) {
  const views = VIEWS.filter(([name]) => name !== "search" || dataset.raw.search);
  const { node } = createSegment("View", Object.fromEntries(views), (view) => update({ view }));
  node.setAttribute("role", "tablist");
  const tabs = [...node.querySelectorAll("button")];
  for (const tab of tabs) tab.role = "tab";
  /** @param {string} key @param {KeyboardEvent} event */
  function step(key, { target }) {
    const shown = tabs.filter(({ hidden }) => !hidden);
    const [index, count] = [shown.findIndex((tab) => tab === target), shown.length];
    const next = { ArrowLeft: index - 1 + count, ArrowRight: index + 1, Home: 0 }[key] ?? count - 1;
    shown[next % count].focus();
    shown[next % count].click();
  }
  node.classList.add("tabs");
  Keys.bind(node, "", [["ArrowLeft ArrowRight Home End", "", step]]);
  return {
    nodes: [node],
    show({ view }) {
      tabs.forEach((tab, index) => {
        const isChosen = views[index][0] === view;
        tab.hidden = views[index][0] === "decide" && !isChosen && !DecideData.canDecide(dataset, marks.count() > 0);
        tab.setAttribute("aria-selected", String(isChosen));
        tab.tabIndex = isChosen ? 0 : -1;
      });
    },
  };
}

// --- how a filter may go on

const MAX_SUGGESTIONS = 20;

/**
 * How a filter may go on: with a name of a column, or after a comparison with a value of that column.
 * @param {string} text @param {Dataset} dataset @returns {string[]} whole filters
 */
function completeFilter(text, dataset) {
  const named = /(`[^`]*`|[A-Za-z_][\w.]*)\s*(==|!=)\s*['"]?([^'"=]*)$/.exec(text);
  const name = named?.[1].replaceAll("`", "").toLowerCase();
  const column = dataset.columns.find((column) => column.name.toLowerCase() === name);
  if (named && column && column.codes !== null) {
    const start = text.slice(0, named.index + named[0].lastIndexOf(named[2]) + 2);
    const literals = column.values.map((_, code) => Expression.makeCondition(column, code).split(" == ").slice(1).join(" == "));
    const isWanted = (/** @type {string} */ literal) => literal.toLowerCase().includes(named[3].trim().toLowerCase());
    return literals.filter(isWanted).slice(0, MAX_SUGGESTIONS).map((literal) => `${start} ${literal}`);
  }
  const word = /[A-Za-z_][\w.]*$/.exec(text)?.[0] ?? "";
  const isInText = (text.replace(/\\./g, "").match(/['"]/g) ?? []).length % 2 === 1;
  if (isInText) return [];
  if (word === "" && !/(^|\(|\b(and|or|not))\s*$/.test(text)) return [];
  const names = dataset.columns.map(({ name }) => name).filter((name) => name.toLowerCase().startsWith(word.toLowerCase()) && name !== word);
  const start = text.slice(0, text.length - word.length);
  return names.slice(0, MAX_SUGGESTIONS).map((name) => start + Expression.quoteName(name));
}
