// The dialog that chooses the axes of the grid, and shows, hides and reorders their values.

import { byId, el, makeField, makeMenu, redrawKeepingFocus } from "../../../serving/page/js/dom.js";
import * as Layout from "./layout.js";
import * as PlotData from "./plot_data.js";
import * as ViewState from "./state.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { Page } from "./main.js" */

/** @type {[Layout.Direction, string][]} */
const LABELS = [["x", "X axis"], ["y", "Y axis"], ["xx", "Outer columns"], ["yy", "Outer rows"]];
const MAX_VALUES = 300; // nobody ticks more by hand: the filter is better for those

/** Open the dialog on the X axis, or else the first one. The view behind it shows every change at once. @param {Page} page */
export function open(page) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("values"));
  const { axes } = page.dataset;
  let axis = axes.find(({ name }) => name === page.getState().x) ?? axes[0];
  let drawn = page.getState();

  function draw() {
    drawn = page.getState();
    const chooser = makeMenu(axes.map(({ name }) => [name, name]), axis.name, (name) => {
      axis = axes.find((other) => other.name === name) ?? axis;
      draw();
    });
    const parts = [
      ...(drawn.view === "grid" ? makeAxisMenus(page, draw) : []),
      el("h2", {}, "Values shown, in this order"),
      makeField("Axis", chooser),
      makeField("Sort by", makeSortMenu(page, axis, draw)),
      ...makeValues(page, axis, draw),
      el(
        "div",
        { class: "strip" },
        el("button", { "data-keep": "all", onclick: () => hideCodes(page, axis, [], draw) }, "Show all"),
        el("button", { onclick: () => dialog.close() }, "Done"),
      ),
    ];
    redrawKeepingFocus(dialog, () => dialog.replaceChildren(...parts));
  }

  /** Follow Back and Forward. After a change of its own the dialog is drawn already, and a key may be down on it. */
  function onHashChange() {
    if (page.getState() !== drawn) draw();
  }

  draw();
  addEventListener("hashchange", onHashChange);
  dialog.addEventListener("close", () => removeEventListener("hashchange", onHashChange), { once: true });
  dialog.showModal();
}

/** A menu of the axes for each direction, and a button that swaps rows and columns. @param {Page} page @param {() => void} redraw */
function makeAxisMenus({ dataset, getState, update }, redraw) {
  const options = [["", "(none)"], ...dataset.axes.map(({ name, order }) => [name, `${name} (${order.length})`])];
  const state = getState();
  /** @param {Partial<ViewState.State>} change */
  const change = (change) => {
    update(change);
    redraw();
  };
  const { x, y, xx, yy } = state;
  return [
    el("h2", {}, "Axes"),
    el("div", { class: "axes" }, LABELS.map(([direction, label]) =>
      makeField(label, makeMenu(options, state[direction], (name) => change(ViewState.withAxis(getState(), direction, name)))),
    )),
    el("button", { "data-keep": "swap", onclick: () => change({ x: y, y: x, xx: yy, yy: xx }) }, "Swap rows and columns"),
  ];
}

/** @param {Page} page @param {Axis} axis @param {number[]} codes @param {() => void} redraw */
function hideCodes({ getState, update }, axis, codes, redraw) {
  update({ hidden: ViewState.withEntry(getState().hidden, axis.name, codes) });
  redraw();
}

/** A menu that sorts the values of an axis by the mean of a number, the highest first. @param {Page} page @param {Axis} axis @param {() => void} redraw */
function makeSortMenu(page, axis, redraw) {
  const options = [["", "choose…"], ["written", "as written"], ...page.getNumberColumns().map(({ name }) => [`=${name}`, `the mean ${name}`])];
  return makeMenu(options, "", (choice) => {
    const column = choice.startsWith("=") ? page.dataset.column(choice.slice(1)) : undefined;
    const order = column && sortCodes(page.getRows(), axis, column);
    page.update({ order: ViewState.withEntry(page.getState().order, axis.name, order) });
    redraw();
  });
}

/** @param {number[]} rows @param {Axis} axis @param {Column} column */
function sortCodes(rows, axis, column) {
  const numbered = rows.filter((row) => typeof column.value(row) === "number");
  const groups = PlotData.groupRows(numbered, column, (row) => String(axis.codes[row]));
  const getMean = (/** @type {number} */ code) => groups.get(String(code))?.mean ?? -Infinity;
  return [...axis.order].sort((a, b) => getMean(b) - getMean(a));
}

/** The values of an axis, each with a check box and two arrows. @param {Page} page @param {Axis} axis @param {() => void} redraw */
function makeValues(page, axis, redraw) {
  const state = page.getState();
  const hidden = new Set(state.hidden[axis.name] ?? []);
  const order = Layout.orderCodes(axis, state);
  /** @param {number} index @param {number} by */
  const move = (index, by) => {
    const next = [...order];
    [next[index], next[index + by]] = [next[index + by], next[index]];
    page.update({ order: ViewState.withEntry(page.getState().order, axis.name, next) });
    redraw();
  };
  /** @param {number} code @param {number} index */
  const makeItem = (code, index) => {
    const onchange = () => hideCodes(page, axis, box.checked ? [...hidden].filter((other) => other !== code) : [...hidden, code], redraw);
    const box = el("input", { type: "checkbox", "data-keep": `show ${code}`, onchange });
    box.checked = !hidden.has(code);
    /** @param {string} sign @param {number} by @param {string} name */
    const makeArrow = (sign, by, name) => {
      const canMove = index + by in order;
      return el("button", {
        "aria-label": `Move ${axis.labelOf(code)} ${name}`,
        "data-keep": `${name} ${code}`,
        "aria-disabled": canMove ? null : "true", // not `disabled`, because that would lose the focus
        onclick: () => canMove && move(index, by),
      }, sign);
    };
    return el("li", {}, el("label", { title: axis.fullOf(code) }, box, axis.labelOf(code)), makeArrow("↑", -1, "up"), makeArrow("↓", 1, "down"));
  };
  const more = order.length - MAX_VALUES;
  return [
    el("ul", {}, order.slice(0, MAX_VALUES).map(makeItem)),
    more > 0 ? el("p", {}, `and ${more} more; use the filter to leave them out`) : "",
  ];
}
