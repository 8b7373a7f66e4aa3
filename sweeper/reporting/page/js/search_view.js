// The view of a search: its best points, its history or Pareto front, parallel coordinates, slices. All of them lead to
// the pictures: pointing at a point shows a card, a press opens its trials in the gallery.

import * as ChartFrame from "./chart.js";
import * as Dom from "../../../serving/page/js/dom.js";
import * as Expression from "./expression.js";
import * as Media from "./media.js";
import * as SearchCharts from "./search_charts.js";
import * as SearchDimensions from "./search_dimensions.js";
import * as SearchPoints from "./search_points.js";
/** @import { Context } from "./main.js" */

/** @typedef {{top: number, current: number}} SearchScroll what the next view takes over; current: the number of a point, or 0 */

export class SearchView {
  static BEST_COUNT = 5; // points in the list
  static FRONT_COUNT = 10; // the same of a Pareto front
  static THUMB_WIDTH = 96; // pixels
  static MAX_THUMBS = 4; // of a point in the list
  static CARD_WIDTH = 232; // pixels, as css/search.css sets it
  static SLICE_WIDTH = 300; // pixels, at least, if there is room
  static GAP = 20; // pixels

  /** @param {HTMLElement} host @param {Context} context @param {SearchScroll} [last] */
  constructor(host, context, last) {
    this.context = context;
    const { dataset, state, holds } = context;
    this.search = SearchPoints.collect(dataset, holds);
    const { objectives, space, points } = this.search;
    this.space = space.map((axis) => SearchDimensions.makeOfAxis(axis, points));
    this.goals = objectives.map((objective, index) => SearchDimensions.makeOfObjective(objective, index, points));
    const indexOf = (/** @type {string} */ name, /** @type {number} */ other) => {
      const index = objectives.findIndex(({ column }) => column.name === name);
      return index >= 0 ? index : other;
    };
    this.index = indexOf(state.metric, 0); // of the objective that is shown
    this.against = indexOf(state.against, this.index === 0 ? Math.min(1, objectives.length - 1) : 0);
    this.current = last?.current ?? 0;
    this.card = Dom.el("div", { class: "card", role: "status", hidden: true });
    this.isPointed = false; // whether the pointer shows the card, and not the keyboard
    /** @type {SearchCharts.PointChart[]} */
    this.charts = [];
    this.scroller = Dom.el("div", { class: "plots search", tabindex: 0, "aria-label": "Search", "data-keep": "search" }, this.makeSections(context.room.width), this.card);
    host.replaceChildren(this.scroller);
    this.scroller.scrollTop = last?.top ?? 0;
    this.highlight();
  }

  /** @param {number} room pixels of width */
  makeSections(room) {
    const { points } = this.search;
    if (points.every(({ objectives }) => objectives.every((value) => value === null))) {
      return [Dom.el("p", { class: "empty" }, "No point has an objective yet."), SearchCharts.makeLegend(points)];
    }
    const full = Math.max(280, room - 48);
    const half = full >= 2 * 480 ? (full - 28) / 2 : full;
    const goal = this.goals[this.index];
    const size = { width: Math.min(half, 760), height: room < 600 ? 260 : 320 };
    return [
      this.makeControls(),
      this.goals.length > 1
        ? ChartFrame.makeSection("Pareto front", "", this.add(SearchCharts.createFront(this.search, [this.against, this.index], [this.goals[this.against], goal], size)), this.describeFront())
        : this.makeHistory(0, size),
      this.makeBest(),
      ...(this.goals.length > 1 ? this.goals.map((_, index) => this.makeHistory(index, size)) : []),
      this.makeParallel(full, room),
      this.makeSlices(full, goal),
    ];
  }

  /** With several objectives: which of them the charts show. */
  makeControls() {
    const { objectives } = this.search;
    if (objectives.length < 2) return null;
    const options = objectives.map(({ column }) => [column.name, column.name]);
    const { update } = this.context;
    const shown = Dom.makeField("Objective", Dom.makeMenu(options, options[this.index][0], (metric) => update({ metric })));
    const others = options.filter(([name]) => name !== options[this.index][0]);
    const across = objectives.length > 2 && Dom.makeField("Against", Dom.makeMenu(others, options[this.against][0], (against) => update({ against })));
    return Dom.el("div", { class: "tools full" }, shown, across);
  }

  /** @param {number} index of the objective @param {SearchCharts.ChartSize} size */
  makeHistory(index, size) {
    const chart = SearchCharts.createHistory(this.search, index, this.goals[index], size);
    return ChartFrame.makeSection(this.goals.length > 1 ? `History of ${this.search.objectives[index].short}` : "History", "", this.add(chart), index === 0 && SearchCharts.makeLegend(this.search.points), Dom.el("p", { class: "dim" }, "The line is the best so far, of the points with all their trials."));
  }

  describeFront() {
    const { points, objectives } = this.search;
    const count = SearchPoints.findFront(points, objectives).length;
    const isMore = objectives.length > 2 ? " In all objectives together, no other point is better than these, so some lie off the line." : "";
    return Dom.el("p", { class: "dim" }, `The line joins the points that no other point beats: ${count} of ${points.length}. The others are pale.${isMore}`);
  }

  // --- the best points

  makeBest() {
    const { points, objectives } = this.search;
    const inView = points.filter(({ shown }) => shown.length > 0);
    const isFront = objectives.length > 1;
    const known = SearchPoints.listComparable(inView, [this.index]).sort(SearchPoints.makeComparison(objectives[this.index], this.index));
    const front = isFront ? SearchPoints.findFront(inView, objectives).sort(SearchPoints.makeComparison(objectives[this.index], this.index)) : known;
    const best = front.slice(0, isFront ? SearchView.FRONT_COUNT : SearchView.BEST_COUNT);
    const words = best.length < front.length && isFront ? `The first ${best.length} of ${front.length} on the front` : isFront ? "On the front" : "Best points";
    const items = best.map((point) => Dom.el("li", {}, this.makeBestButton(point)));
    const isChosen = "These numbers are too good, because their points were chosen for them; `sweeper search EXPERIMENT --confirm` measures them on fresh seeds.";
    const note = items.length === 0 ? "The filter leaves no point with an objective." : objectives.some(({ title }) => !/\bvotes,/.test(title)) && isChosen;
    return ChartFrame.makeSection(words, "", Dom.el("ol", { class: "best" }, items), note && Dom.el("p", { class: "dim" }, note));
  }

  /** @param {SearchPoints.SearchPoint} point */
  makeBestButton(point) {
    const thumbs = point.shown.flatMap((row) => Media.createThumb(this.context.dataset, row, SearchView.THUMB_WIDTH) ?? []).slice(0, SearchView.MAX_THUMBS);
    const button = Dom.el(
      "button",
      { onclick: () => this.open(point), title: "Show all pictures of this point", "data-keep": `best ${point.number}` },
      Dom.el("span", { class: "thumbs" }, thumbs),
      Dom.el("span", { class: "words" }, Dom.el("b", {}, this.describeGoals(point)), Dom.el("span", {}, this.space.map(({ name, format }) => `${name} ${format(point)}`).join(" · ")), Dom.el("span", { class: "dim" }, `point ${point.number} · ${SearchPoints.describeKind(point)}`)),
    );
    button.dataset.point = String(point.number);
    return button;
  }

  /** @param {SearchPoints.SearchPoint} point */
  describeGoals(point) {
    const known = this.goals.flatMap((goal, index) => (point.objectives[index] === null ? [] : [`${this.search.objectives[index].short} ${goal.format(point)}`]));
    return known.join(" · ") || "no objective";
  }

  // --- parallel coordinates and slices

  /** @param {number} full pixels of width @param {number} room */
  makeParallel(full, room) {
    const { context, space, goals } = this;
    const { dataset, state } = context;
    const dimensions = [...space, ...goals];
    if (dimensions.length < 2) return null;
    const { rest, ranges } = SearchDimensions.readRanges(state.where, dimensions, dataset);
    /** @type {SearchCharts.Brushes} */
    const brushes = {
      ranges,
      setRange(dimension, range, replace = false) {
        const next = new Map(ranges);
        if (range === null) next.delete(dimension.name);
        else next.set(dimension.name, range);
        context.update({ where: SearchDimensions.writeRanges(rest, next, dimensions, dataset) }, { replace });
      },
    };
    const isHigherBetter = this.search.objectives[this.index].maximize;
    const chart = SearchCharts.createParallel(this.search, dimensions, goals[this.index], isHigherBetter, brushes, { width: Math.min(full, 1400), height: room < 600 ? 300 : 360 });
    this.add(chart);
    const clear = ranges.size > 0 && Dom.el("button", { "data-keep": "clear", onclick: () => context.update({ where: rest }) }, "Remove the ranges");
    const words = "Each line is a point. Drag along an axis, or move its ends with the arrow keys, to choose a range: it becomes a part of the filter.";
    const legend = Dom.el("p", { class: "dim scale" }, goals[this.index].name, ": worst", Dom.el("span", { class: "ramp vivid" }), "best");
    return ChartFrame.makeSection("Parallel coordinates", "full", Dom.el("div", { class: "wide", tabindex: 0, role: "group", "aria-label": "Parallel coordinates" }, chart.group), legend, Dom.el("p", { class: "dim" }, words, " ", clear));
  }

  /** @param {number} full pixels of width @param {SearchDimensions.Dimension} goal */
  makeSlices(full, goal) {
    const count = Math.max(1, Math.floor((full + SearchView.GAP) / (SearchView.SLICE_WIDTH + SearchView.GAP)));
    const width = (full - SearchView.GAP * (count - 1)) / count;
    const slices = this.space.map((dimension) => this.add(SearchCharts.createSlice(this.search, dimension, goal, { width, height: 220 })));
    const legend = Dom.el("p", { class: "dim scale" }, "first point", Dom.el("span", { class: "ramp vivid" }), "last point");
    return ChartFrame.makeSection(`Slices: ${goal.title}`, "full", Dom.el("div", { class: "slices" }, slices), legend);
  }

  // --- one point

  /** Let the pointer and the arrow keys choose a point of a chart. @param {SearchCharts.PointChart} chart */
  add({ node, order, find }) {
    const target = /** @type {SVGSVGElement} */ (node.closest(".parallel")?.querySelector(".overlay") ?? node); // it lies above the lines
    for (const element of new Set([node, target])) {
      const show = (/** @type {SearchCharts.PlacedPoint | undefined} */ found, /** @type {PointerEvent} */ event) => {
        element.classList.toggle("pointing", found !== undefined);
        if (found !== undefined) this.showPoint(found.point, event.clientX, event.clientY);
        if (found !== undefined || this.isPointed) this.card.hidden = found === undefined;
        this.isPointed = found !== undefined;
      };
      ChartFrame.listenToPointer(element, find, show, ({ point }) => this.open(point));
      element.addEventListener("pointerleave", () => {
        if (this.isPointed) this.hideCard();
      });
    }
    node.addEventListener("blur", () => this.hideCard());
    node.addEventListener("keydown", (event) => event.key === "Escape" && this.hideCard());
    const show = (/** @type {SearchCharts.PlacedPoint} */ { point, x, y }) => {
      const box = node.getBoundingClientRect();
      const scale = box.width / node.viewBox.baseVal.width;
      this.isPointed = false;
      this.showPoint(point, box.left + x * scale, box.top + y * scale);
    };
    ChartFrame.listenToKeys(node, order, () => order.findIndex(({ point }) => point.number === this.current), show, ({ point }) => this.open(point));
    this.charts.push({ node, order, find });
    return node;
  }

  /**
   * Show the card of a point beside a place in the window, and the point in all charts.
   * @param {SearchPoints.SearchPoint} point @param {number} x @param {number} y
   */
  showPoint(point, x, y) {
    const { card } = this;
    if (this.current !== point.number || card.hidden) {
      this.current = point.number;
      this.highlight();
      const row = point.shown[0] ?? point.rows[0];
      card.replaceChildren(
        Media.createThumb(this.context.dataset, point.rows.find((one) => this.context.dataset.files(one)[0]?.thumb) ?? row, SearchView.THUMB_WIDTH) ?? "",
        Dom.el("b", {}, this.describeGoals(point)),
        ...this.space.map((dimension) => Dom.el("span", {}, `${dimension.name}: ${dimension.format(point)}`)),
        Dom.el("span", { class: "dim" }, `point ${point.number} · ${SearchPoints.describeKind(point)}`),
        point.kind === "failed" ? Dom.el("span", { class: "error" }, this.describeFailure(point)) : "",
      );
    }
    card.hidden = false;
    const beside = x + 16 + SearchView.CARD_WIDTH > innerWidth - 16 ? Math.max(4, x - 16 - SearchView.CARD_WIDTH) : x + 16;
    const below = Math.max(4, Math.min(y + 12, innerHeight - card.offsetHeight - 8));
    const box = this.scroller.getBoundingClientRect(); // the card scrolls with the charts
    card.style.left = `${beside - box.left}px`;
    card.style.top = `${below - box.top + this.scroller.scrollTop}px`;
  }

  /** @param {SearchPoints.SearchPoint} point */
  describeFailure({ rows }) {
    const { dataset } = this.context;
    const failed = rows.find((row) => dataset.status(row) === "failed");
    return failed === undefined ? "" : dataset.reason(failed).slice(0, 160);
  }

  hideCard = () => (this.card.hidden = true);

  highlight() {
    for (const node of this.scroller.querySelectorAll(".chosen")) {
      if (node instanceof SVGElement) node.remove();
      else node.classList.remove("chosen");
    }
    for (const node of this.scroller.querySelectorAll(`[data-point="${this.current}"]`)) {
      if (!(node instanceof SVGElement)) node.classList.add("chosen");
      else {
        // A copy above the others: to move the line itself would paint a thousand lines again.
        const copy = /** @type {SVGElement} */ (node.cloneNode());
        delete copy.dataset.point;
        copy.classList.add("chosen");
        const overlay = node.closest(".parallel")?.querySelector(".overlay");
        if (overlay) overlay.prepend(copy); // below the labels
        else node.ownerSVGElement?.append(copy);
      }
    }
  }

  /** Show all trials of a point in the gallery, also those that the filter leaves out. @param {SearchPoints.SearchPoint} point */
  open({ rows }) {
    const { update } = this.context;
    update({ view: "gallery", where: this.search.space.map((axis) => Expression.makeCondition(axis, axis.codes[rows[0]])).join(" and ") });
  }

  // --- for the page

  focus() {
    (this.charts[0]?.node ?? this.scroller).focus();
  }

  /** @returns {SearchScroll} */
  getScroll() {
    return { top: this.scroller.scrollTop, current: this.current };
  }
}
