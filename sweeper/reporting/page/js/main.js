// Starts the page: one state, the view and the dialog that show it, and the address that stores it.

import * as Keys from "../../../serving/page/js/keys.js";
import * as Bar from "./bar.js";
import * as Colours from "./colours.js";
import * as Columns from "./columns.js";
import { Dataset } from "./dataset.js";
import * as Decide from "./decide.js";
import * as DecideData from "./decide_data.js";
import * as Dom from "../../../serving/page/js/dom.js";
import * as Expression from "./expression.js";
import { GridView } from "./grid.js";
import * as Layout from "./layout.js";
import * as Live from "./live.js";
import { Marks } from "./marks.js";
import * as NextTrial from "./next_trial.js";
import * as PlotData from "./plot_data.js";
import * as Plots from "./plots.js";
import * as Share from "./share.js";
import { SearchView } from "./search_view.js";
import * as Sprites from "./sprites.js";
import * as Tray from "./tray.js";
import * as ViewState from "./state.js";
import * as ValuesDialog from "./values_dialog.js";
import { TableView } from "./table.js";
import { Zoom } from "./zoom.js";

/**
 * @typedef {object} Page  what the parts of the page use
 * @property {Dataset} dataset
 * @property {Marks} marks
 * @property {(change: Partial<ViewState.State>, options?: {replace?: boolean}) => void} update changes the state; each change is a
 *   step of Back, unless it replaces the last one
 * @property {() => ViewState.State} getState
 * @property {() => Expression.Filter} getFilter
 * @property {() => Columns.Column[]} getNumberColumns the columns that can colour cells and be plotted
 * @property {() => number[]} getRows the rows that pass the filter
 * @property {() => number[]} getSortedRows the same in the order of the table and the gallery
 * @property {() => {column: Columns.Column, extent: [number, number], range: [number, number]} | null} getScale what colours the
 *   cells: the column, the numbers at the ends of the scale, and its lowest and highest number
 * @property {() => Layout.Arrangement} getArrangement
 * @property {() => boolean} isBusy whether the view is still being filled
 * @property {(row: number) => void} open opens a trial in the dialog
 * @property {() => void} focusView
 * @property {() => void} openAxes opens the dialog of the axes and their values
 * @property {() => void} fit chooses the next way in which the grid fits into the window
 * @property {(key: string, row: number) => boolean} markByKey marks a row by a key of `Marks.KEYS`; false if there is no row
 */
/**
 * @typedef {object} ViewContext  what a view needs besides
 * @property {ViewState.State} state
 * @property {{width: number, height: number, scrollbar: number}} room pixels
 * @property {Columns.Column | undefined} colour the column that colours the cells
 * @property {(rows: number[]) => string} tint the colour of the mean of some rows
 * @property {Map<number, number>} ranks of the three best rows by what colours the cells, from 0 on
 * @property {(row: number) => boolean} holds whether a row passes the filter
 * @property {Columns.Axis[]} free the axes whose values a cell's caption has to name
 */
/** @typedef {Page & ViewContext} Context */
/**
 * @typedef {object} View
 * @property {() => void} focus
 * @property {() => any} getScroll
 * @property {(row: number, stay?: boolean) => void} [show]
 * @property {() => number} [getCurrentRow]
 * @property {(rows: Iterable<number>) => void} [refresh]
 * @property {(row: number) => boolean | void} [refreshMark] returns whether the view has to be built again
 * @property {() => boolean} [isBusy]
 * @property {() => void} [close]
 * @property {Layout.Arrangement} [arrangement]
 * @property {number} [size] pixels of its cells' width
 */

const RANKED = 3; // of the rows, which get a number in the grid

class App {
  static MARK_DELAY = 400; // milliseconds after which marks are applied to a filter by marks
  static RESIZE_DELAY = 150;
  static OUTCOME_DELAY = 1000; // the same for outcomes of a run that is still going
  /** @type {string[]} settings that no view depends on, but the dialog or a bar */
  static OTHER_KEYS = ["trial", "with", "file", "mode", "picks", "time", "play"];
  /** @type {(keyof ViewState.State)[]} settings that change the layout, so that the scroll position loses its meaning */
  static LAYOUT_KEYS = ["x", "y", "xx", "yy", "view", "size", "fit"];

  /** @param {any} raw the data as `data.js` has it */
  constructor(raw) {
    this.dataset = new Dataset(raw);
    document.title = `${raw.experiment} · sweeper`;
    Sprites.install(raw.sprites);
    this.initial = ViewState.makeInitial(this.dataset);
    this.host = Dom.byId("view");
    this.address = location.hash || (raw.first?.address ?? ""); // a page that was shared opens with its view
    this.state = ViewState.read(this.address, this.initial, this.dataset);
    this.filter = Expression.compile(this.state.where, this.dataset);
    /** @type {number[] | null} */
    this.rows = null;
    /** @type {{rows: number[], sort: string, sorted: number[]} | null} */
    this.tableRows = null;
    /** @type {View | null} */
    this.view = null;
    /** @type {ReturnType<Page["getScale"]>} */
    this.scale = null;
    this.rebuildTimer = 0;
    this.room = { width: 0, height: 0, scrollbar: 0 }; // that the view was built for
    this.hasShapes = false; // whether it knew the shape of a picture
    this.marks = new Marks(this.dataset, (rows) => this.showMarks(rows));
    this.page = this.makePage();
    this.bar = Bar.create(Dom.byId("bar"), this.page);
    this.tray = Tray.create(this.page);
    this.host.after(this.tray.node);
    this.zoom = new Zoom(/** @type {HTMLDialogElement} */ (Dom.byId("zoom")), this.page);
    this.listen();
    Share.listenToPrint(this.page);
    this.build(false);
    this.showState();
    Live.follow(this.dataset, {
      onChange: (rows, hasOutcomes) => this.showChanges(rows, hasOutcomes),
      onMarks: (marks) => this.marks.takeOver(marks),
      onAnew: (next) => this.showMoreRows(next),
    });
    requestAnimationFrame(() => setTimeout(Sprites.loadAll)); // after the first frame, which needs few of them
  }

  /** @returns {Page} */
  makePage() {
    const { dataset, marks } = this;
    return {
      dataset,
      marks,
      update: (change, options) => this.update(change, options),
      getState: () => this.state,
      getFilter: () => this.filter,
      getNumberColumns: () => [...dataset.metrics, ...["ran_s", "queued_s", "attempts", "cost"].map((name) => dataset.outcomeColumn(name))],
      getRows: () => this.getRows(),
      getSortedRows: () => this.getSortedRows(),
      getScale: () => this.scale,
      getArrangement: () => this.view?.arrangement ?? Layout.arrange(dataset, this.state, this.filter.holds),
      isBusy: () => this.view?.isBusy?.() ?? false,
      fit: () => this.fit(),
      focusView: () => this.view?.focus(),
      openAxes: () => ValuesDialog.open(this.page),
      open: (row) => this.update({ trial: String(dataset.trial(row)) }),
      markByKey: (key, row) => markByKey(this.page, key, row),
    };
  }

  getRows() {
    return (this.rows ??= this.dataset.filterRows(this.filter.holds));
  }

  getSortedRows() {
    const { sort } = this.state;
    const rows = this.getRows();
    if (this.tableRows?.rows !== rows || this.tableRows.sort !== sort)
      {this.tableRows = { rows, sort, sorted: Columns.sortRows(this.dataset, rows, sort) };}
    return this.tableRows.sorted;
  }

  // --- changes of the state

  /** @param {Partial<ViewState.State>} change @param {{replace?: boolean}} [options] */
  update(change, { replace = false } = {}) {
    const next = { ...this.state, ...change };
    const address = `#${ViewState.write(next, this.initial, this.dataset)}`;
    // Without the rest of the address, it would be relative to the notebook that contains this page.
    if (replace) location.replace(location.href.replace(/#.*/, "") + address);
    else location.hash = address;
    this.address = location.hash;
    this.apply(next);
  }

  fit() {
    const [names, words] = [Object.keys(ViewState.FITS), Object.values(ViewState.FITS)];
    const next = (names.indexOf(this.state.fit) + 1) % names.length;
    this.update({ fit: names[next] });
    Dom.announce(`size: ${words[next]}`);
  }

  /** @param {ViewState.State} next */
  apply(next) {
    const before = this.state;
    this.state = next;
    if (next.fit !== "" && next.fit === before.fit) next.size = before.size; // chosen by the grid
    const changed = /** @type {(keyof ViewState.State)[]} */ (Object.keys(next)).filter((key) => before[key] !== next[key] && !App.OTHER_KEYS.includes(key));
    if (changed.includes("where")) this.compileFilter();
    if (changed.length > 0) this.build(!changed.some((key) => App.LAYOUT_KEYS.includes(key)));
    this.showState();
    if (before.trial !== "" && next.trial === "") {
      const row = this.dataset.row(Number(before.trial));
      if (row !== undefined) this.view?.show?.(row);
      this.view?.focus();
    }
  }

  /** Show the state in the bar and in the dialog. */
  showState() {
    const before = this.marks.picked;
    this.marks.picked = new Set(this.state.picks.flatMap((trial) => this.dataset.row(trial) ?? []));
    const { picked } = this.marks;
    for (const row of [...before, ...picked]) if (before.has(row) !== picked.has(row)) this.view?.refreshMark?.(row);
    this.tray.show(this.state);
    this.bar.show(this.state, this.view?.arrangement);
    this.zoom.show(this.state);
  }

  compileFilter() {
    const filter = Expression.compile(this.state.where, this.dataset);
    this.filter = filter.broken ? { ...filter, holds: this.filter.holds, condition: this.filter.condition } : filter;
    this.rows = null;
  }

  /** Build the view. @param {boolean} stay whether it keeps its scroll position and its current trial */
  build(stay) {
    const scroll = stay ? this.view?.getScroll() : undefined;
    const row = stay ? (this.view?.getCurrentRow?.() ?? -1) : -1;
    this.bar.show(this.state, this.view?.arrangement); // the bars may get another height
    this.tray.show(this.state);
    // Read the size before the view changes: afterwards the browser would have to lay out the page for it.
    const room = { height: this.host.clientHeight, width: this.host.clientWidth, scrollbar: Dom.measureScrollbar() };
    Dom.redrawKeepingFocus(this.host, () => {
      this.view?.close?.();
      this.view = this.createView({ ...this.page, ...this.makeViewContext(room) }, scroll);
      if (row >= 0) this.view.show?.(row, true);
    });
    if (this.state.fit !== "") this.state.size = this.view?.size ?? this.state.size;
    this.room = room;
    this.hasShapes = this.dataset.fileList.findSized() !== undefined;
  }

  /** @param {Context} context @param {any} scroll @returns {View} */
  createView(context, scroll) {
    if (this.state.view === "decide") return Decide.create(this.host, context, scroll);
    if (this.state.view === "table") return new TableView(this.host, context, scroll);
    if (this.state.view === "plots") return Plots.create(this.host, context, scroll);
    if (this.state.view === "search") return new SearchView(this.host, context, scroll);
    return new GridView(this.host, context, scroll);
  }

  /** @param {ViewContext["room"]} room @returns {ViewContext} */
  makeViewContext(room) {
    const { dataset, state } = this;
    const sorted = state.view === "gallery" ? dataset.column(state.sort.replace(/^-/, "")) : undefined;
    const column = dataset.column(state.colour) ?? (["metric", "outcome"].includes(sorted?.role ?? "") ? sorted : undefined);
    const colour = column?.numeric ? column : undefined;
    const values = colour ? this.getRows().map((row) => colour.value(row)) : [];
    const [extent, range] = [Colours.findRobustExtent(values), Colours.findExtent(values)];
    this.scale = colour && extent && range ? { column: colour, extent, range } : null;
    return {
      state,
      room,
      colour,
      tint(rows) {
        const value = colour && PlotData.computeMean(rows.map((row) => colour.value(row)));
        return extent && typeof value === "number" ? Colours.pick(Colours.toShare(value, extent)) : "transparent";
      },
      ranks: colour ? rankRows(this.getRows(), colour, DecideData.isHigherBetter(dataset, colour, state)) : new Map(),
      holds: this.filter.holds,
      free: this.listCaptionAxes(),
    };
  }

  /** The axes whose values a cell's caption has to name: those in which the trials in view differ and neither a line nor a menu says it. */
  listCaptionAxes() {
    const { dataset, state } = this;
    const isGallery = state.view === "gallery";
    const rows = this.getRows();
    const isNamed = (/** @type {Columns.Axis} */ { name, codes }) =>
      rows.length < 2 ? isGallery : (isGallery || state.pins[name] === undefined) && rows.some((row) => codes[row] !== codes[rows[0]]);
    return Layout.listFreeAxes(dataset, isGallery ? { ...state, ...Layout.NO_DIRECTIONS } : state).filter(isNamed);
  }

  // --- changes of the data

  /** @param {number[]} rows */
  showMarks(rows) {
    const isOutdated = rows.map((row) => this.view?.refreshMark?.(row)).includes(true);
    if (isOutdated) this.build(true);
    for (const row of rows) this.zoom.refresh(row);
    this.bar.show(this.state, this.view?.arrangement);
    if (/\b(mark|stars|comment)\b/.test(this.state.where)) this.rebuildSoon(App.MARK_DELAY);
  }

  /**
   * Show what a run changed: in its cells at once, in everything that depends on many rows a little later.
   * @param {Set<number>} rows @param {boolean} hasOutcomes
   */
  showChanges(rows, hasOutcomes) {
    for (const row of rows) this.zoom.refresh(row);
    this.view?.refresh?.(rows);
    this.bar.updateCounts();
    const { where, colour, view } = this.state;
    const hasFirst = !this.hasShapes && this.dataset.fileList.findSized() !== undefined;
    if (hasOutcomes && (where !== "" || colour !== "" || view !== "grid" || hasFirst)) this.rebuildSoon(App.OUTCOME_DELAY);
  }

  /** Show the data of a search that has asked for more trials; false if the page has to load again. @param {any} raw */
  showMoreRows(raw) {
    const { sprites } = this.dataset.raw;
    if (!this.dataset.replace(raw)) return false;
    if (JSON.stringify(sprites) !== JSON.stringify(raw.sprites)) Sprites.install(raw.sprites);
    this.marks.readRows();
    this.state = ViewState.read(this.address, this.initial, this.dataset); // a value may have another code
    this.compileFilter();
    this.build(true);
    this.bar.show(this.state, this.view?.arrangement);
    this.bar.updateCounts();
    return true;
  }

  /** @param {number} delay milliseconds */
  rebuildSoon(delay) {
    this.rebuildTimer ||= setTimeout(() => {
      this.rebuildTimer = 0;
      this.compileFilter();
      this.build(true);
      this.bar.show(this.state, this.view?.arrangement);
    }, delay);
  }

  listen() {
    addEventListener("hashchange", () => {
      if (location.hash === this.address) return;
      this.address = location.hash;
      this.apply(ViewState.read(this.address, this.initial, this.dataset));
    });
    addEventListener("resize", () => {
      const isFitted = this.state.fit !== "" && ["grid", "gallery"].includes(this.state.view);
      const { clientWidth: width, clientHeight: height } = this.host;
      // The bars of a phone's browser come and go while one scrolls.
      if (isFitted && (width !== this.room.width || Math.abs(height - this.room.height) > 120)) this.rebuildSoon(App.RESIZE_DELAY);
    });
    /** @type {Keys.Binding[]} */
    const bindings = [
      ["/", "filter", () => this.bar.focusFilter()],
      ["?", "these keys", () => Keys.open()],
      ["f", "fit: all in view, as wide as the window, 1:1", () => ["grid", "gallery"].includes(this.state.view) && this.fit()],
      ["Space , . m", "play the films, the sounds or the axis below the grid; one step back, one on; which one is heard", (key) => Keys.press(this.tray.node, key)],
      ["Escape", "empty the tray", () => this.state.picks.length > 0 && this.update({ picks: [] })],
    ];
    Keys.bind(globalThis, "Everywhere", bindings, () => document.querySelector("dialog[open]") === null);
  }
}

/**
 * The ranks of the three best rows by a number, if somebody knows what is better. None has the rank that it would share
 * with others.
 * @param {number[]} rows @param {Columns.Column} column @param {boolean | undefined} isHigherBetter
 */
function rankRows(rows, column, isHigherBetter) {
  if (isHigherBetter === undefined) return new Map();
  const sign = isHigherBetter ? -1 : 1;
  const sorted = rows.filter((row) => typeof column.value(row) === "number").sort((a, b) => sign * (column.value(a) - column.value(b)));
  const isAlone = (/** @type {number} */ rank) => column.value(sorted[rank]) !== column.value(sorted[rank + 1]);
  const count = sorted.slice(0, RANKED).findIndex((_, rank) => !isAlone(rank));
  return new Map(sorted.slice(0, count < 0 ? RANKED : count).map((row, rank) => [row, rank]));
}

/** Change the mark of a row by a key of `Marks.KEYS`; false if there is no row. @param {Page} page @param {string} key @param {number} row */
function markByKey(page, key, row) {
  const { marks } = page;
  if (row < 0) return false;
  const verdict = { k: /** @type {const} */ ("keep"), r: /** @type {const} */ ("reject") }[key];
  if (key === "x") Tray.toggle(page, row);
  else marks.set(row, verdict ? { verdict: marks.get(row).verdict === verdict ? "" : verdict } : { stars: Number(key) });
  return true;
}

/** @type {{raw?: any, page?: Page}} `raw` comes from data.js; `page` is for tests, and for the browser's console */
const sweeperGlobal = /** @type {any} */ (globalThis).sweeper ?? {};

try {
  NextTrial.takeToken();
  sweeperGlobal.page = new App(sweeperGlobal.raw).page;
} catch (error) {
  const text = document.createElement("p");
  text.className = "empty";
  text.textContent = `The report cannot be shown: ${error instanceof Error ? error.message : error}`;
  Dom.byId("view").append(text);
  throw error;
}
