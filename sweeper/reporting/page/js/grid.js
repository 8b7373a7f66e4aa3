// The grid. Only the cells in view, and a few around them, are in the document, however many trials there are.
// `GridGeometry` knows where each line is, `GridLabels` shows the labels, `Cell` fills a cell.

import * as Cell from "./cell.js";
import * as Dom from "../../../serving/page/js/dom.js";
import * as GridEvents from "./grid_events.js";
import * as GridGeometry from "./grid_geometry.js";
import * as GridLabels from "./grid_labels.js";
import * as Recycle from "./recycle.js";
import * as PlotData from "./plot_data.js";
import * as Strip from "./strip.js";
/** @import { Context } from "./main.js" */

/**
 * @typedef {object} GridRow  one row of cells in the document
 * @property {HTMLElement} node
 * @property {Map<number, HTMLElement>} cells by column
 * @property {number} index of the row that it shows
 * @property {GridGeometry.LineRange} columns that it covers
 * @property {boolean} complete whether all of them have a cell
 */
/** @typedef {{top: number, left: number, height: number, width: number}} Viewport pixels */

/** What stands in place of the trials if none is left. @param {Context} context */
export function createEmptyNote({ dataset, update }) {
  if (dataset.size === 0) return Dom.el("p", { class: "empty" }, "There are no trials.");
  const clear = Dom.el("button", { onclick: () => update({ where: "", pins: {}, hidden: {} }) }, "Clear filter");
  return Dom.el("p", { class: "empty" }, "No trial is left by the filter, the chosen values and the hidden ones. ", clear);
}

export class GridView {
  static OVERSCAN = 1; // lines that are kept on each side of the view
  static FRAME_BUDGET = 8; // milliseconds for filling cells in one frame; the rest is filled in the next frames
  // Pictures that are requested in one frame. Each costs a browser a third of a millisecond or more, so requesting a
  // whole screen at once would miss a frame, for cells that a fast scroll leaves behind anyway.
  static MIN_LOADS = 12;
  static MAX_LOADS = 40;
  // Pixels scrolled in one frame from which on captions cannot be read. They are then written when the scroll pauses,
  // because each costs a layout of its cell, and some memory until the browser collects it.
  static UNREADABLE_SPEED = 16;
  static PAUSE = 100; // milliseconds without scrolling after which sprites become pictures
  static PAUSE_AFTER_BUILD = 20; // the same after a change: its first frame does not wait for pictures
  static NOT_SHOWN_YET = -1; // in place of a timer, until the first frame

  /** @param {HTMLElement} host @param {Context} context @param {[top: number, left: number]} [offset] pixels that it is scrolled to */
  constructor(host, context, [top, left] = [0, 0]) {
    const { room } = context;
    this.context = context;
    /** @type {[image: HTMLImageElement, url: string][]} */
    this.waiting = []; // pictures to be requested
    /** @type {WeakMap<HTMLElement, string>} */
    this.shapes = new WeakMap(); // cell -> its size as a style
    /** @type {Map<number, GridRow>} */
    this.rows = new Map();
    /** @type {Set<HTMLElement>} */
    this.incomplete = new Set(); // cells without all of their texts
    /** @type {Set<HTMLElement>} */
    this.blurred = new Set(); // cells that may still show sprites
    /** @type {[r: number, c: number] | null} */
    this.current = null;
    this.lastOffset = { top, left };
    this.frame = 0;
    this.frameTime = 0; // milliseconds, of the last frame
    this.maxLoads = 24; // in one frame, on this machine
    this.isDrawing = false;
    this.isPassing = false; // whether it scrolls too fast for captions
    this.isClosed = false;
    this.pauseTimer = GridView.NOT_SHOWN_YET;
    /** @type {[number, number]} */
    this.mostLines = [0, 0]; // rows and columns that were in the document at once

    const { arrangement, shapes, size, texts, wrapped } = GridGeometry.arrange(room, context);
    this.arrangement = arrangement;
    this.size = size;
    /** @type {Cell.CellContext} */
    this.cellContext = {
      ...context,
      groups: GridGeometry.groupForCaption(wrapped ? [wrapped, ...context.free] : context.free),
      free: wrapped ? [wrapped, ...context.free] : context.free,
      load: (image, url) => this.queueLoad(image, url),
      box: [size, size],
      hasCaptions: texts.lineCount > 0,
      skipsCaptions: false,
    };
    /** @type {Map<string, Cell.CellContext>} */
    this.contexts = new Map(); // by the shape of cells
    this.geometry = GridGeometry.compute(arrangement, shapes, size, texts, room);
    this.isMarked = context.marks.count() > 0;
    this.summary = texts.hasSummary ? PlotData.makeLineSummary(arrangement, context) : null;
    this.labels = GridLabels.create(this.arrangement, this.geometry, context.openAxes, this.summary?.describe);
    this.canvas = this.makeCanvas();
    this.scroller = this.makeScroller();
    this.strip = Strip.create(this);
    GridEvents.listen(this);
    this.scroller.addEventListener("scroll", () => (this.waitForPause(GridView.PAUSE), this.schedule()), { passive: true });
    // Start waiting from the frame that shows the grid, however long it took to build.
    requestAnimationFrame(() => {
      if (this.pauseTimer === GridView.NOT_SHOWN_YET) this.waitForPause(GridView.PAUSE_AFTER_BUILD);
    });
    this.draw(Infinity, { top, left, ...room }, true);
    host.replaceChildren(this.scroller);
    if (top > 0 || left > 0) this.scroller.scrollTo(left, top);
    this.strip?.mount();
    this.schedule();
    if (this.arrangement.shown === 0) {
      host.prepend(createEmptyNote(context));
      this.scroller.classList.add("flow");
    }
    this.resizeObserver = new ResizeObserver(() => this.schedule());
    this.resizeObserver.observe(this.scroller);
  }

  makeCanvas() {
    const { side, head, width, height, caption, rows } = this.geometry;
    const canvas = Dom.el("div", { class: "canvas", role: "presentation" }, this.labels.nodes);
    canvas.style.width = `${side + width}px`;
    canvas.style.height = `${head + height}px`;
    // These are set here once, so that no cell has to. A line has 15 pixels; the rest of the cell shows the status.
    const least = rows.lengths.reduce((low, length) => Math.min(low, length - caption), Infinity);
    canvas.style.setProperty("--why-lines", String(Math.max(1, Math.floor((least * 0.6) / 15))));
    canvas.style.setProperty("--caption", `${caption}px`);
    return canvas;
  }

  makeScroller() {
    const attributes = {
      class: Object.values(this.arrangement.heads).some(Boolean) ? "scroller" : "scroller flow",
      role: "grid",
      tabindex: 0,
      "aria-label": "Trials",
      "data-keep": "trials",
      "aria-rowcount": this.arrangement.rows.length + 1,
      "aria-colcount": this.arrangement.columns.length + 1,
    };
    return Dom.el("div", attributes, this.canvas);
  }

  // --- drawing

  /** @returns {Viewport} */
  getViewport() {
    const { scrollTop, scrollLeft, clientHeight, clientWidth } = this.scroller;
    return { top: scrollTop, left: scrollLeft, height: clientHeight, width: clientWidth };
  }

  /**
   * The rows and columns in a viewport, and `extra` more on each side.
   * @param {Viewport} viewport @param {number} extra @returns {[GridGeometry.LineRange, GridGeometry.LineRange]}
   */
  findVisible({ top, left, height, width }, extra) {
    const { rows, columns, head, side } = this.geometry;
    return [GridGeometry.findRange(rows, top, top + height - head, extra), GridGeometry.findRange(columns, left, left + width - side, extra)];
  }

  /** Draw in the next frame. */
  schedule() {
    this.frame ||= requestAnimationFrame((now) => {
      const duration = now - this.frameTime;
      // Adjust to this machine: request more pictures as long as frames are on time.
      const loads = duration < 20 ? this.maxLoads + 2 : duration < 40 ? this.maxLoads : this.maxLoads / 2;
      this.maxLoads = Math.min(GridView.MAX_LOADS, Math.max(GridView.MIN_LOADS, loads));
      this.frameTime = now;
      this.draw(performance.now() + GridView.FRAME_BUDGET);
    });
  }

  /**
   * Bring the document up to date with the view.
   * @param {number} [deadline] when to stop filling cells in this frame
   * @param {Viewport} [viewport]
   * @param {boolean} [brief] whether texts that are not visible wait for a pause
   */
  draw(deadline = Infinity, viewport = this.getViewport(), brief = deadline < Infinity) {
    this.frame = 0;
    this.isDrawing = true;
    const distance = Math.abs(viewport.top - this.lastOffset.top) + Math.abs(viewport.left - this.lastOffset.left);
    this.isPassing = brief && this.pauseTimer !== 0 && distance > GridView.UNREADABLE_SPEED;
    this.lastOffset = viewport;
    const complete = this.drawCells(this.findKept(viewport), brief, () => deadline === Infinity || performance.now() < deadline);
    this.isDrawing = false;
    this.requestPictures();
    if (this.pauseTimer === 0) this.completeTexts();
    if (!complete || this.waiting.length > 0 || (this.pauseTimer === 0 && this.sharpen(...this.findVisible(viewport, 0)))) this.schedule();
  }

  /** The rows and columns to keep in the document. @param {Viewport} viewport */
  findKept(viewport) {
    const counts = [this.arrangement.rows.length, this.arrangement.columns.length];
    return this.findVisible(viewport, GridView.OVERSCAN).map((range, way) => {
      this.mostLines[way] = Math.max(this.mostLines[way], range[1] - range[0]);
      return GridGeometry.extendRange(range, this.mostLines[way], counts[way]);
    });
  }

  /**
   * @param {GridGeometry.LineRange[]} ranges of rows and columns
   * @param {boolean} brief @param {() => boolean} hasTime
   * @returns {boolean} whether all cells are filled
   */
  drawCells([rows, columns], brief, hasTime) {
    this.labels.draw(rows, columns);
    let complete = Recycle.cover(this.rows, rows, {
      make: () => this.makeRow(),
      put: (row, r) => this.putRow(row, r, columns, brief),
      drop: (row) => this.dropRow(row),
      hasTime,
    });
    for (const [r, row] of this.rows) {
      if (r < 0 || (row.complete && row.columns[0] === columns[0] && row.columns[1] === columns[1])) continue;
      row.complete = Recycle.cover(row.cells, columns, { ...this.cellActions(row, brief), hasTime });
      row.columns = columns;
      complete &&= row.complete;
    }
    return complete;
  }

  /** @param {HTMLImageElement} image @param {string} url */
  queueLoad(image, url) {
    this.waiting.push([image, url]);
    if (!this.isDrawing) this.schedule();
  }

  /** Request pictures that have no sprite, as many as one frame takes. */
  requestPictures() {
    if (!this.scroller.isConnected) return; // while the grid is being built, no picture is in the document yet
    for (let count = 0; this.waiting.length > 0 && count < this.maxLoads; ) {
      const [image, url] = /** @type {[HTMLImageElement, string]} */ (this.waiting.shift());
      if (!image.isConnected) continue; // its cell has left the view
      image.src = url;
      count += 1;
    }
  }

  /**
   * Load the pictures of cells in view that still show sprites, as many as one frame takes. Returns whether more are
   * left.
   * @param {GridGeometry.LineRange} rows @param {GridGeometry.LineRange} columns
   */
  sharpen([top, bottom], [left, right]) {
    let count = 0;
    for (let r = top; r < bottom; r++) {
      for (let c = left; c < right; c++) {
        const node = this.cellAt(r, c);
        if (node === undefined || !this.blurred.has(node)) continue;
        if (count >= this.maxLoads) return true;
        count += Cell.sharpen(node);
        this.blurred.delete(node);
      }
    }
    return false;
  }

  /** Write the texts that cells left out while they scrolled by. */
  completeTexts() {
    for (const node of this.incomplete) {
      const position = this.arrangement.locate(Number(node.dataset.row));
      if (position) Cell.completeTexts(node, Number(node.dataset.row), this.contextAt(...position));
    }
    this.incomplete.clear();
  }

  /** Treat the grid as moving until nothing has scrolled for a while; moving cells show only sprites. @param {number} pause milliseconds */
  waitForPause(pause) {
    clearTimeout(this.pauseTimer);
    if (this.isClosed) return;
    this.pauseTimer = setTimeout(() => {
      this.pauseTimer = 0;
      this.schedule();
    }, pause);
  }

  // --- rows and cells: those that leave the view become those that come into it

  /** @returns {GridRow} */
  makeRow() {
    const node = this.canvas.appendChild(Dom.el("div", { class: "row", role: "row" }));
    return { node, cells: new Map(), index: -1, columns: [0, 0], complete: false };
  }

  /** @param {GridRow} row */
  dropRow(row) {
    for (const node of row.cells.values()) this.dropCell(node);
    row.node.remove();
  }

  /** @param {HTMLElement} node */
  dropCell(node) {
    this.incomplete.delete(node);
    this.blurred.delete(node);
    Cell.release(node);
  }

  /**
   * Move a row to another index, and show the trials there.
   * @param {GridRow} row @param {number} r @param {GridGeometry.LineRange} columns @param {boolean} brief
   */
  putRow(row, r, columns, brief) {
    const { head, rows } = this.geometry;
    row.index = r;
    row.node.ariaRowIndex = String(r + 2);
    row.node.ariaLabel = this.labels.describeRow(r);
    row.node.style.cssText = `top:${head + rows.starts[r]}px;height:${rows.lengths[r]}px`;
    row.complete = Recycle.cover(row.cells, columns, { ...this.cellActions(row, brief), put: () => {} });
    row.columns = columns;
    for (const [c, node] of row.cells) {
      this.putCell(node, r, c);
      this.fillCell(node, r, c, brief);
    }
  }

  /** @param {GridRow} row @param {boolean} brief */
  cellActions(row, brief) {
    return {
      make: () => row.node.appendChild(Cell.create()),
      put: (/** @type {HTMLElement} */ node, /** @type {number} */ c) => {
        this.putCell(node, row.index, c);
        this.fillCell(node, row.index, c, brief);
      },
      drop: (/** @type {HTMLElement} */ node) => this.dropCell(node),
    };
  }

  /** @param {HTMLElement} node @param {number} r @param {number} c */
  putCell(node, r, c) {
    const { side, rows } = this.geometry;
    const [start, width] = this.geometry.findSpan(r, c);
    node.ariaColIndex = String(c + 2);
    const left = `${side + start}px`;
    const shape = `width:${width}px;height:${rows.lengths[r]}px`;
    if (this.shapes.get(node) === shape) {
      node.style.left = left;
      return;
    }
    this.shapes.set(node, shape);
    node.style.cssText = `left:${left};${shape}`;
  }

  /** The context of a cell; cells of one shape share it. @param {number} r @param {number} c */
  contextAt(r, c) {
    const { rows, caption } = this.geometry;
    const [width, height] = [this.geometry.findSpan(r, c)[1], rows.lengths[r] - caption];
    const key = `${width} ${height} ${this.isPassing}`;
    const context = this.contexts.get(key) ?? { ...this.cellContext, box: [width, height], skipsCaptions: this.isPassing };
    this.contexts.set(key, context);
    return context;
  }

  /** All trials of a cell if there are several, else null. @param {number} row the first of them @param {number} r @param {number} c */
  getStack(row, r, c) {
    return row >= 0 && this.arrangement.hasMore(row) ? this.arrangement.trials(r, c) : null;
  }

  /** @param {HTMLElement} node @param {number} r @param {number} c @param {boolean} [brief] */
  fillCell(node, r, c, brief = false) {
    const { arrangement } = this;
    const row = arrangement.find(r, c);
    if (Cell.showTrial(node, row, this.getStack(row, r, c), this.contextAt(r, c), brief)) this.incomplete.add(node);
    else this.incomplete.delete(node);
    this.blurred.add(node);
    if (arrangement.exists?.(r, c) === false) node.className = "cell beyond";
    if (row < 0 && arrangement.isFiltered(r, c)) Cell.markFiltered(node);
    else if (row < 0 && !arrangement.exists) Cell.markExcluded(node, arrangement.values(r, c), this.context.dataset);
    if (this.current !== null && this.current[0] === r && this.current[1] === c) this.markCurrent(node);
    else if (node.id) node.removeAttribute("id");
  }

  /** @param {number} r @param {number} c */
  cellAt(r, c) {
    return this.rows.get(r)?.cells.get(c);
  }

  // --- the current cell, which the keyboard moves

  /** Only the current cell has an id, which tells a screen reader where it is. @param {HTMLElement} node */
  markCurrent(node) {
    node.classList.add("current");
    node.id = `cell-${this.current?.join("-")}`;
  }

  /** The first cell that is fully in view, or else partly. @returns {[number, number]} */
  findFirstVisible() {
    const viewport = this.getViewport();
    const [[r, rowsEnd], [c, columnsEnd]] = this.findVisible(viewport, 0);
    const { rows, columns } = this.geometry;
    const isCut = [rows.starts[r] < viewport.top && r + 1 < rowsEnd, columns.starts[c] < viewport.left && c + 1 < columnsEnd];
    return [r + Number(isCut[0]), c + Number(isCut[1])];
  }

  /** Make a cell the current one. @param {number} r @param {number} c @param {boolean} [stay] whether the view stays even if the cell is outside of it */
  setCurrent(r, c, stay = false) {
    const { rows, columns } = this.arrangement;
    if (rows.length === 0) return;
    const last = this.current && this.cellAt(...this.current);
    last?.classList.remove("current");
    last?.removeAttribute("id");
    this.current = [Math.min(Math.max(r, 0), rows.length - 1), Math.min(Math.max(c, 0), columns.length - 1)];
    while (this.current[1] > 0 && this.arrangement.exists?.(...this.current) === false) this.current[1] -= 1; // a line of a list ended
    if (!stay) this.scroller.scrollTo(GridGeometry.findScroll(this.geometry, this.getViewport(), ...this.current));
    this.draw();
    this.completeTexts();
    const node = this.cellAt(...this.current);
    if (node) this.markCurrent(node);
    this.scroller.setAttribute("aria-activedescendant", node?.id ?? "");
  }

  /** The row of the data that the current cell shows, or -1. */
  getCurrentRow() {
    return this.current === null ? -1 : this.arrangement.find(...this.current);
  }

  // --- for the page

  /**
   * Call `act` with the cell that a row of the data belongs to, on top or below, if it is in view.
   * @param {number} row @param {(node: HTMLElement, r: number, c: number) => void} act
   */
  withCell(row, act) {
    const position = this.arrangement.locate(row);
    const node = position && this.cellAt(...position);
    if (node) act(node, ...position);
  }

  /** Show these rows of the data again, where they are in view. @param {Iterable<number>} rows */
  refresh(rows) {
    for (const row of rows) {
      this.strip?.refresh(row);
      this.withCell(row, (node, r, c) => this.fillCell(node, r, c));
    }
    this.schedule();
  }

  /** Show a changed mark. @param {number} row */
  refreshMark(row) {
    const { colour, marks, state } = this.context;
    // The first mark gives the labels a line, and the last takes it. An open cell keeps its focus.
    if (state.view === "grid" && state.open === "" && colour === undefined && this.isMarked !== marks.count() > 0) return true;
    this.summary?.reset();
    this.labels.write();
    for (const [r, { node }] of this.rows) node.ariaLabel = this.labels.describeRow(r);
    this.strip?.refresh(row);
    this.withCell(row, (node, r, c) => {
      if (Number(node.dataset.row) !== row) return; // a trial below the first shows no mark
      const stack = this.getStack(row, r, c);
      Cell.showMark(node, row, this.context.marks);
      Cell.describe(node, row, this.contextAt(r, c), stack && Cell.summarize(this.context.dataset, stack));
    });
    return false;
  }

  /** Make a trial the current one; see `setCurrent`. @param {number} row @param {boolean} [stay] */
  show(row, stay = false) {
    const position = this.arrangement.locate(row);
    if (position) this.setCurrent(...position, stay);
  }

  /** Whether cells in view are still to be filled. */
  isBusy = () => this.frame !== 0;
  focus = () => this.scroller.focus();

  /** @returns {[number, number]} */
  getScroll() {
    return [this.scroller.scrollTop, this.scroller.scrollLeft];
  }

  close() {
    this.resizeObserver.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.pauseTimer);
    this.isClosed = true;
    for (const row of this.rows.values()) this.dropRow(row);
  }
}
