// The trials as a table: sorted, filtered, with chosen columns. Only the rows in view are in the document.

import * as Keys from "../../../serving/page/js/keys.js";
import * as Colours from "./colours.js";
import * as Columns from "./columns.js";
import * as DecideData from "./decide_data.js";
import { announce, el, redrawKeepingFocus } from "../../../serving/page/js/dom.js";
import { createEmptyNote } from "./grid.js";
import { Marks } from "./marks.js";
import * as Media from "./media.js";
import * as Params from "./params.js";
import * as PlotData from "./plot_data.js";
import * as Recycle from "./recycle.js";
import * as ValueText from "./value_text.js";
import { createMarkControls } from "./zoom.js";
/** @import { Dataset } from "./dataset.js" */
/** @import { Context, Page } from "./main.js" */
/** @import { State } from "./state.js" */

export class TableView {
  static PICTURE_WIDTH = 84; // pixels
  static ROW_HEIGHTS = [44, 100]; // of rows, at least and at most
  static PLAIN_HEIGHT = 36; // without pictures
  static MARKING_WIDTH = 210; // of the buttons that mark a row, which stand at its end
  static OVERSCAN = 6; // rows that are kept on each side of the view
  static MAX_STICKY = 0.4; // share of the view that the first column may take and still stay in view
  /** @type {Record<string, number>} rows that a key moves */
  static STEPS = { ArrowUp: -1, ArrowDown: 1, PageUp: -15, PageDown: 15, Home: -1e9, End: 1e9 };

  /** @param {HTMLElement} host @param {Context} context @param {[top: number, left: number]} [offset] pixels that it is scrolled to */
  constructor(host, context, [top, left] = [0, 0]) {
    const { dataset, state } = context;
    this.context = context;
    this.columns = chooseColumns(dataset, state);
    this.rows = Columns.sortRows(dataset, context.getRows(), state.sort);
    this.formatters = this.columns.map(Params.makeFormatter);
    this.heats = this.columns.map((column) => makeHeat(column, context));
    const widths = this.columns.map(computeColumnWidth);
    this.hasPictures = this.rows.some((row) => dataset.files(row)[0]?.thumb);
    this.rowHeight = this.hasPictures ? computeRowHeight(dataset, this.rows) : TableView.PLAIN_HEIGHT;
    this.marking = createMarkControls(context, true);
    this.marker = el("div", { class: "marking", role: "gridcell" }, this.marking.node);
    const picture = this.hasPictures ? TableView.PICTURE_WIDTH : 0;
    this.template = [...(picture ? [picture] : []), ...widths].map((width) => `${width}px`).join(" ");
    /** @type {Map<number, HTMLElement>} */
    this.nodes = new Map(); // by index in `rows`
    this.current = -1; // index in `rows`
    this.frame = 0;

    this.head = this.makeHead();
    this.body = el("div", { class: "tbody", role: "rowgroup" });
    this.body.style.height = `${this.rows.length * this.rowHeight}px`;
    this.body.style.setProperty("--row", `${this.rowHeight}px`);
    this.body.style.width = this.head.style.width = `${widths.reduce((sum, width) => sum + width, picture + TableView.MARKING_WIDTH)}px`;
    this.scroller = el(
      "div",
      {
        class: (picture || widths[0]) <= context.room.width * TableView.MAX_STICKY ? "scroller table first-stays" : "scroller table",
        role: "grid",
        tabindex: 0,
        "aria-label": "Trials",
        "data-keep": "trials",
        "aria-rowcount": this.rows.length + 1,
        "aria-colcount": this.columns.length + Number(this.hasPictures),
      },
      this.head,
      this.body,
    );
    this.listen();
    host.replaceChildren(this.scroller);
    if (this.rows.length === 0) this.scroller.before(createEmptyNote(context));
    this.scroller.scrollTo(left, top);
    this.draw();
    this.resizeObserver = new ResizeObserver(() => this.schedule());
    this.resizeObserver.observe(this.scroller);
  }

  makeHead() {
    const { sort } = this.context.state;
    const [sortName, isDescending] = [sort.replace(/^-/, ""), sort.startsWith("-")];
    const cells = this.columns.map((column, index) => {
      const { name } = column;
      const isSorted = name === sortName;
      const onclick = () => this.context.update({ sort: isSorted && !isDescending ? `-${name}` : name });
      const words = [name, isSorted && (isDescending ? "▼" : "▲")].filter(Boolean);
      const hint = this.heats[index] ? "; the stronger its colour, the better or the higher a number is" : "";
      // The arrow stands away from the edge at which the column is aligned.
      const button = el("button", { onclick, title: `Sort by ${name}${hint}`, "data-keep": `sort ${name}` }, (column.numeric ? words.toReversed() : words).join(" "));
      const direction = isSorted ? (isDescending ? "descending" : "ascending") : "none";
      const spread = column.numeric && column.role !== "trial" && makeDistribution(column, this.rows);
      return el("span", { role: "columnheader", class: column.numeric ? "number" : "", "aria-sort": direction }, button, spread);
    });
    const picture = this.hasPictures && el("span", { role: "columnheader", class: "picture" }, "picture");
    const head = el("div", { class: "trow thead", role: "row", "aria-rowindex": 1 }, picture, cells);
    head.style.gridTemplateColumns = this.template;
    return head;
  }

  /** @param {HTMLElement} node @param {number} index */
  putRow(node, index) {
    const { dataset } = this.context;
    const row = this.rows[index];
    const cells = this.columns.map((column, i) => {
      const text = this.formatters[i](row);
      const attributes = { role: "gridcell", class: column.numeric ? "number" : "", title: text.length > 24 ? Params.formatFull(column, row) : null };
      const cell = el("span", attributes, text);
      const heat = this.heats[i]?.(column.value(row));
      if (heat !== undefined) cell.style.setProperty("--heat", `${Math.round(heat * MAX_HEAT)}%`);
      return cell;
    });
    const picture = this.hasPictures && el("span", { role: "gridcell", class: "picture" }, Media.createThumb(dataset, row, TableView.PICTURE_WIDTH));
    node.replaceChildren(...(picture ? [picture] : []), ...cells);
    node.className = `trow ${dataset.status(row)}`;
    node.ariaRowIndex = String(index + 2);
    node.dataset.trial = String(dataset.trial(row));
    node.dataset.row = String(row);
    node.id = `row-${index}`;
    node.style.top = `${index * this.rowHeight}px`;
    node.style.gridTemplateColumns = this.template;
    node.classList.toggle("current", index === this.current);
  }

  draw() {
    this.frame = 0;
    const { scrollTop, clientHeight } = this.scroller;
    const from = Math.max(0, Math.floor(scrollTop / this.rowHeight) - TableView.OVERSCAN);
    const to = Math.min(this.rows.length, Math.ceil((scrollTop + clientHeight) / this.rowHeight) + TableView.OVERSCAN);
    Recycle.cover(this.nodes, [from, to], {
      make: () => this.body.appendChild(el("div", { role: "row" })),
      put: (node, index) => this.putRow(node, index),
      drop: (node) => node.remove(),
    });
  }

  schedule() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  /** The first row that is fully in view. */
  findFirstVisible = () => Math.ceil(this.scroller.scrollTop / this.rowHeight);

  /** Make a row the current one. @param {number} index @param {boolean} [stay] whether the view stays even if the row is outside of it */
  setCurrent(index, stay = false) {
    if (this.rows.length === 0) return;
    const { scroller, rowHeight } = this;
    this.nodes.get(this.current)?.classList.remove("current");
    this.current = Math.min(Math.max(index, 0), this.rows.length - 1);
    const [top, room] = [this.current * rowHeight, scroller.clientHeight - this.head.offsetHeight - rowHeight];
    if (!stay && top < scroller.scrollTop) scroller.scrollTop = top;
    if (!stay && top > scroller.scrollTop + room) scroller.scrollTop = top - room;
    this.draw();
    this.nodes.get(this.current)?.classList.add("current");
    scroller.setAttribute("aria-activedescendant", `row-${this.current}`);
  }

  listen() {
    const { scroller, context } = this;
    scroller.addEventListener("scroll", () => this.schedule(), { passive: true });
    // A pointer press gives focus before its click; the click then opens the row.
    scroller.addEventListener("focus", () => {
      if (this.current < 0 && scroller.matches(":focus-visible")) this.setCurrent(this.findFirstVisible(), true);
    });
    const mark = (/** @type {string} */ key) => {
      const row = this.getCurrentRow();
      if (!context.markByKey(key, row)) return false;
      return key === "x" || announce(`trial ${context.dataset.trial(row)} marked`);
    };
    /** @type {Keys.Binding[]} */
    const bindings = [
      [Object.keys(TableView.STEPS).join(" "), "move", (key) => this.setCurrent((this.current < 0 ? this.findFirstVisible() : this.current) + TableView.STEPS[key])],
      ["Enter", "open the trial", () => this.getCurrentRow() >= 0 && context.open(this.getCurrentRow())],
      ...Marks.KEYS.map(([keys, words]) => /** @type {Keys.Binding} */ ([keys, words, mark])),
    ];
    Keys.bind(scroller, "In the table", bindings, ({ target }) => target === scroller);
    this.body.addEventListener("pointerover", ({ target, pointerType }) => {
      const node = target instanceof Element ? target.closest(".trow") : null;
      if (!(node instanceof HTMLElement) || pointerType === "touch" || node.contains(this.marker)) return;
      this.marking.show(Number(node.dataset.row));
      node.append(this.marker);
    });
    this.body.addEventListener("click", (event) => {
      const node = event.target instanceof Element && !event.target.closest(".opinion") ? event.target.closest(".trow") : null;
      if (!(node instanceof HTMLElement)) return;
      if (event.shiftKey) context.markByKey("x", Number(node.dataset.row));
      else if (String(getSelection()) === "") context.open(Number(node.dataset.row));
    });
  }

  // --- for the page

  /** @param {number} row of the data @param {boolean} [stay] */
  show(row, stay = false) {
    const index = this.rows.indexOf(row);
    if (index >= 0) this.setCurrent(index, stay);
  }

  /** The row of the data, or -1. */
  getCurrentRow = () => this.rows[this.current] ?? -1;
  focus = () => this.scroller.focus();

  /** Show a changed mark; returns whether other columns have values now. @param {number} row */
  refreshMark(row) {
    const cells = this.nodes.get(this.rows.indexOf(row))?.children ?? [];
    this.columns.forEach(({ role }, i) => {
      const cell = cells[i + Number(this.hasPictures)];
      if (role === "mark" && cell) cell.textContent = this.formatters[i](row);
    });
    if (cells[0]?.parentElement?.contains(this.marker)) this.marking.show(row);
    const next = chooseColumns(this.context.dataset, this.context.state);
    return next.length !== this.columns.length || next.some((column, index) => column !== this.columns[index]);
  }

  /** @returns {[number, number]} */
  getScroll() {
    return [this.scroller.scrollTop, this.scroller.scrollLeft];
  }

  close() {
    this.resizeObserver.disconnect();
    cancelAnimationFrame(this.frame);
  }
}

// --- its columns

const BIN_COUNT = 24; // of the distribution in a column's head
const SAMPLED = 200; // values that are looked at for the width of a column
const MAX_HEAT = 32; // percent of colour in a cell

/**
 * The columns of the address, else the usual ones: the trial, the axes, the metrics, and some of the outcome and the marks; no
 * column with one value.
 * @param {Dataset} dataset @param {State} state
 */
function chooseColumns(dataset, state) {
  const names = parseNames(state.columns);
  const wanted = dataset.columns.filter((column) => names.includes(column.name));
  if (wanted.length > 0) return wanted;
  const usual = ["trial", "status", "ran_s", "check", "error", ...(dataset.raw.spending ? ["cost"] : [])];
  const varies = (/** @type {Columns.Column} */ { codes }) => codes === null || codes.some((code) => code !== codes[0]) || (dataset.size === 1 && codes[0] >= 0);
  const isMarked = (/** @type {Columns.Column} */ { role, label }) => role === "mark" && dataset.listRows().some((row) => label(row) !== "");
  return dataset.columns.filter((column) => (["axis", "metric"].includes(column.role) || usual.includes(column.name) || isMarked(column)) && varies(column));
}

/** @param {string} text @returns {string[]} */
function parseNames(text) {
  try {
    const names = JSON.parse(text || "null");
    return Array.isArray(names) ? names : [];
  } catch {
    return []; // somebody cut the address
  }
}

/** The list of all columns, in the menu of the bar. @param {Page} page */
export function createColumnChooser({ dataset, update }) {
  const list = el("div", { class: "columns" });
  const node = el("div", { role: "group", "aria-label": "Columns" }, "Columns", list);
  /** @param {State} state */
  function show(state) {
    node.hidden = state.view !== "table";
    if (node.hidden) return;
    const chosen = chooseColumns(dataset, state);
    const boxes = dataset.columns.map((column) => Object.assign(el("input", { type: "checkbox", value: column.name, "data-keep": `column ${column.name}`, onchange }), { checked: chosen.includes(column) }));
    function onchange() {
      update({ columns: JSON.stringify(boxes.filter((box) => box.checked).map((box) => box.value)) });
    }
    const { scrollTop } = list;
    redrawKeepingFocus(list, () => list.replaceChildren(...boxes.map((box) => el("label", {}, box, box.value))));
    list.scrollTop = scrollTop;
  }
  return { nodes: [node], show };
}

/** A small picture of how the numbers of a column are distributed; null if they are all the same. @param {Columns.Column} column @param {number[]} rows */
function makeDistribution(column, rows) {
  const values = rows.map((row) => column.value(row)).filter(ValueText.isNumber).map(Number);
  const extent = Colours.findExtent(values);
  if (extent === null || extent[0] === extent[1]) return null;
  const counts = PlotData.countBins(values, extent, BIN_COUNT);
  const most = Math.max(...counts);
  const label = `Distribution of ${column.name}: ${extent.map(ValueText.makeFormat(values)).join(" to ")}`;
  const canvas = el("canvas", { class: "spread", width: BIN_COUNT * 3, height: 14, role: "img", "aria-label": label, title: label });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--spread");
  counts.forEach((count, index) => {
    const height = Math.ceil((count / most) * 14);
    pen.fillRect(index * 3, 14 - height, 2, height);
  });
  return canvas;
}

/** Rows are as high as the usual picture, within limits. @param {Dataset} dataset @param {number[]} rows */
function computeRowHeight(dataset, rows) {
  const ratios = dataset.listRatios();
  const known = rows.map((row) => ratios[row]).filter((ratio) => ratio > 0).sort((a, b) => a - b);
  const [low, high] = TableView.ROW_HEIGHTS;
  return Math.min(high, Math.max(low, Math.round((TableView.PICTURE_WIDTH - 8) * (known[known.length >> 1] ?? 1)) + 4));
}

/**
 * Make a function from a measured number to its rank among those in view, from 0 to 1 for the best, or the highest if nobody
 * knows what is better; null for other columns.
 * @param {Columns.Column} column @param {Context} context @returns {((value: ValueText.Value) => number | undefined) | null}
 */
function makeHeat(column, { dataset, state, getRows }) {
  if (!column.numeric || !["metric", "check", "outcome"].includes(column.role)) return null;
  const sign = DecideData.isHigherBetter(dataset, column, state) === false ? -1 : 1;
  const values = [...new Set(getRows().map((row) => column.value(row)).filter(ValueText.isNumber))].sort((a, b) => sign * (a - b));
  const ranks = new Map(values.map((value, index) => [value, index / (values.length - 1)]));
  return values.length > 1 ? (value) => ranks.get(value) : null;
}

/** The width of a column in pixels: that of its longest value, or its name with the arrow of a sorted column. @param {Columns.Column} column */
function computeColumnWidth(column) {
  const labels =
    column.codes === null
      ? column.numbers.slice(0, SAMPLED).map((_, row) => column.label(row))
      : [...column.labels.slice(0, SAMPLED).map((label, code) => column.names?.[code] ?? ValueText.toVisible(label)), column.codes.includes(-1) ? "(none)" : ""];
  const longest = labels.reduce((most, label) => Math.max(most, label.length), `${column.name} ▼`.length);
  return Math.ceil(Math.min(320, Math.max(64, longest * 9.2 + 28)));
}
