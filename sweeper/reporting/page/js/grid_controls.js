// @ts-check
// The controls of the grid in the bar: values for the axes without a direction, and how its cells look.

import { el, makeField, makeMenu, redrawKeepingFocus } from "./dom.js";
import { createSegment } from "../../../serving/page/js/segment.js";
import * as Layout from "./layout.js";
import * as ViewState from "./state.js";
/** @import { BarPart } from "./bar.js" */
/** @import { Axis } from "./columns.js" */
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

/**
 * How the cells look: their size and their captions.
 * @param {Page} page @param {PendingInput} input @returns {BarPart}
 */
export function createLooks(page, input) {
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
  const captions = el("button", { type: "button", onclick: () => update({ captions: !page.getState().captions }) }, "Captions");
  const axes = page.dataset.axes.length > 0 && el("button", { type: "button", onclick: page.openAxes }, "Axes and values…");
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

/**
 * Menus for axes without a direction: all their trials share a cell until a value is chosen.
 * @param {Page} page @returns {BarPart}
 */
export function createPins({ dataset, getState, update }) {
  const node = el("div", { class: "pins" });
  /** @param {[Axis, number[]]} choice @param {State} state */
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
