// @ts-check
// The controls of the grid: its axes, values for the other axes, and how its cells look.

import { el, makeField, makeMenu, redrawKeepingFocus } from "./dom.js";
import * as Drag from "./drag.js";
import * as GridGeometry from "./grid_geometry.js";
import * as Layout from "./layout.js";
import * as ViewState from "./state.js";
import * as ValuesDialog from "./values_dialog.js";
/** @import { BarPart } from "./bar.js" */
/** @import { Direction } from "./layout.js" */
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

/**
 * Applies what a user types or drags in a control, shortly after the last change.
 *
 * Changes without a pause are one step of Back: the first is a step, the others replace it. Another change in between,
 * or Back itself, begins a new step.
 */
export class PendingInput {
  static STEP_PAUSE = 1500; // milliseconds without a change after which the next one is another step of Back
  static DELAY = 120; // milliseconds

  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @type {Partial<State> | null} */
    this.change = null;
    this.name = "";
    this.timer = 0;
    this.lastTime = 0;
    /** @type {State | null} */
    this.lastState = null; // that the last change led to; null when the next change is a new step
  }

  /**
   * Apply a change of one setting soon.
   * @param {Partial<State>} change
   */
  schedule(change) {
    const [name] = Object.keys(change);
    const now = performance.now();
    if (this.name !== name || now - this.lastTime > PendingInput.STEP_PAUSE) this.lastState = null;
    clearTimeout(this.timer);
    this.change = change;
    this.name = name;
    this.lastTime = now;
    this.timer = setTimeout(() => this.apply(), PendingInput.DELAY);
  }

  /** Apply a waiting change now, because its time has come or its control loses the focus. */
  apply() {
    clearTimeout(this.timer);
    const { change } = this;
    if (change === null) return;
    this.change = null;
    this.page.update(change, { replace: this.lastState === this.page.getState() });
    this.lastState = this.page.getState();
  }

  /**
   * Whether a control has a value that the page does not have yet.
   * @param {keyof State} name
   */
  isPending(name) {
    return this.change?.[name] !== undefined;
  }
}

const MAX_CHIPS = 6;
/** @type {[Direction, string][]} */
const LABELS = [
  ["x", "X axis"],
  ["y", "Y axis"],
  ["xx", "Outer columns"],
  ["yy", "Outer rows"],
];

/**
 * The axes, and values for those without a direction. In a small window they fold up.
 * @param {Page} page @returns {BarPart}
 */
export function createAxes(page) {
  const { dataset } = page;
  const axes = makeAxisMenus(page);
  const pins = el("div", { class: "pins" });
  const chips = el("div", { class: "chips", "aria-label": "Axes to drag" });
  const node = el("details", { class: "more", open: !GridGeometry.isSmallWindow() }, el("summary", {}, "Axes"), axes.nodes, pins, chips);
  return {
    nodes: [node],
    show(state) {
      node.hidden = state.view !== "grid";
      axes.show(state);
      redrawKeepingFocus(pins, () => pins.replaceChildren(...makePinMenus(page, state)));
      chips.replaceChildren(...Layout.listFreeAxes(dataset, state).slice(0, MAX_CHIPS).map(Drag.makeChip));
    },
  };
}

/**
 * How the cells look: their size, their captions, and which values they show in which order.
 * @param {Page} page @param {PendingInput} input @returns {BarPart}
 */
export function createLooks(page, input) {
  const { dataset, update } = page;
  const size = el("input", {
    type: "range",
    min: 48,
    max: 512,
    step: 16,
    oninput: () => input.schedule({ size: Number(size.value) }),
    onchange: () => input.apply(),
  });
  const fit = el("button", { type: "button", title: "Make all columns fit into the window: key F", onclick: page.fit }, "Fit");
  const captions = el("button", { type: "button", onclick: () => update({ captions: !page.getState().captions }) }, "Captions");
  const values = dataset.axes.length > 0 && el("button", { type: "button", onclick: () => ValuesDialog.open(page) }, "Values…");
  const node = el("div", { class: "tools" }, makeField("Size", size), fit, captions, values);
  return {
    nodes: [node],
    show(state) {
      node.hidden = !["grid", "gallery"].includes(state.view);
      fit.hidden = state.view !== "grid";
      if (!input.isPending("size")) size.value = String(state.size);
      captions.setAttribute("aria-pressed", String(state.captions));
    },
  };
}

/**
 * A menu of the axes for each direction; an axis can be dropped on it too.
 * @param {Page} page @returns {BarPart}
 */
function makeAxisMenus({ dataset, getState, update }) {
  const options = [["", "(none)"], ...dataset.axes.map(({ name }) => [name, name])];
  const menus = LABELS.map(([direction, label]) => {
    const setAxis = (/** @type {string} */ name) => update(ViewState.withAxis(getState(), direction, name));
    const menu = makeMenu(options, "", setAxis);
    const node = makeField(label, menu);
    Drag.acceptAxis(node, setAxis);
    return { direction, menu, node };
  });
  return {
    nodes: menus.map(({ node }) => node),
    show(state) {
      for (const { direction, menu } of menus) {
        menu.value = state[direction];
        // A search finds more values while it runs.
        dataset.axes.forEach((axis, index) => (menu.options[index + 1].text = `${axis.name} (${axis.order.length})`));
      }
    },
  };
}

/**
 * Menus for axes without a direction: all their trials share a cell until a value is chosen.
 * @param {Page} page @param {State} state
 */
function makePinMenus({ dataset, getState, update }, state) {
  return Layout.listPinChoices(dataset, state).map(([axis, codes]) => {
    const setPin = (/** @type {string} */ value) =>
      update({ pins: ViewState.withEntry(getState().pins, axis.name, value === "" ? undefined : Number(value)) });
    const options = [["", "all"], ...codes.map((code) => [String(code), axis.labelOf(code)])];
    return makeField(axis.name, makeMenu(options, String(state.pins[axis.name] ?? ""), setPin));
  });
}
