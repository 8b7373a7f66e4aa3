// @ts-check
// The dialog with one trial: its pictures, beside another trial's if wanted, its params, its workflow and its mark.

import { PanZoom } from "../../../serving/page/js/pan_zoom.js";
import * as Comparison from "./comparison.js";
import * as Details from "./details.js";
import * as Dom from "./dom.js";
import * as Drag from "./drag.js";
import * as Keys from "./keys.js";
import * as MarkControls from "./mark_controls.js";
import * as Params from "./params.js";
import * as Steps from "./steps.js";
import * as Workflow from "./workflow.js";
/** @import { CheckFinding, PageFile } from "./dataset.js" */
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

/**
 * @typedef {object} Shown  what the dialog shows
 * @property {number} row A
 * @property {number} previous the row that was A before; -1: none
 * @property {number} other B; -1: none
 * @property {boolean} wantsAccepted whether B is to be the accepted file
 * @property {string} mode
 * @property {number} output index of A's file
 */

/** The elements of the dialog. Each is replaced only when it changes. */
class ZoomParts {
  static NAMES = ["head", "modes", "stage", "outputs", "outcome", "params", "facts", "actions"];

  /** @param {HTMLDialogElement} dialog @param {HTMLElement} markControls */
  constructor(dialog, markControls) {
    /** @type {Record<string, HTMLElement>} */
    this.nodes = Object.fromEntries(ZoomParts.NAMES.map((name) => [name, ZoomParts.makeEmpty()]));
    this.stageKey = "";
    const { head, modes, stage, outputs, outcome, params, facts, actions } = this.nodes;
    this.left = Dom.el("div", { class: "zoom-left" }, modes, stage, outputs);
    const panel = Dom.el("aside", { class: "panel" }, outcome, markControls, params, facts, actions);
    dialog.tabIndex = -1; // it receives the focus of elements that are removed
    this.status = Dom.el("p", { class: "offscreen", role: "status" }); // read aloud when another trial is shown
    dialog.replaceChildren(head, Dom.el("div", { class: "zoom-body" }, this.left, panel), this.status);
  }

  static makeEmpty() {
    return Dom.el("div", { hidden: true });
  }

  /**
   * Replace a part if it changed.
   * @param {string} name
   * @param {HTMLElement | null} node null hides the part
   * @param {boolean} always for another trial, whose buttons may look the same but act differently
   */
  replace(name, node, always) {
    const old = this.nodes[name];
    const next = node ?? ZoomParts.makeEmpty();
    if (!always && old.isEqualNode(next)) return;
    const focusKey = Dom.focusKey(old);
    old.replaceWith(next);
    this.nodes[name] = next;
    Dom.focusByKey(next, focusKey);
  }

  /**
   * Replace the pictures if their key changed.
   * @param {string} key @param {() => HTMLElement} make
   */
  replaceStage(key, make) {
    if (key === this.stageKey) return;
    this.stageKey = key;
    this.nodes.stage.dispatchEvent(new Event("sweeper-gone"));
    this.replace("stage", make(), true);
  }
}

export class Zoom {
  static ACCEPTED = "accepted"; // in place of B's trial number
  /** @type {Record<string, string>} */
  static MODE_KEYS = { s: "side", b: "blink", l: "slider", d: "difference", g: "single" };
  static MODE_LABELS = { single: "One picture", side: "Side by side", blink: "Blink", slider: "Slider", difference: "Difference" };
  /** @type {Record<string, [down: number, across: number]>} */
  static ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  /** @param {HTMLDialogElement} dialog @param {Page} page */
  constructor(dialog, page) {
    this.dialog = dialog;
    this.page = page;
    this.dataset = page.dataset;
    /** @type {Shown} */
    this.shown = { row: -1, previous: -1, other: -1, wantsAccepted: false, mode: "", output: 0 };
    this.markControls = MarkControls.create(page.marks);
    this.parts = new ZoomParts(dialog, this.markControls.node);
    this.panZoom = new PanZoom(this.parts.left);
    Steps.listenForSwipes(this.parts.left, (down, across) => {
      if (!this.panZoom.isMagnified()) this.go(down, across);
    });
    dialog.addEventListener("dragstart", (event) => this.fillDrag(event));
    dialog.addEventListener("keydown", (event) => this.onKey(event));
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.close();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) this.close(); // beside its content
    });
  }

  // --- what it shows

  /**
   * @param {string} trial
   * @returns {number} its row, or -1
   */
  findRow(trial) {
    return trial === "" || trial === Zoom.ACCEPTED ? -1 : (this.dataset.row(Number(trial)) ?? -1);
  }

  /**
   * Show the trial of a state, or close the dialog if it has none.
   * @param {State} state
   */
  show(state) {
    const row = this.findRow(state.trial);
    if (row < 0) {
      if (this.dialog.open) this.dialog.close();
      this.panZoom.reset();
      this.parts.replaceStage("", ZoomParts.makeEmpty); // otherwise a film would keep playing
      return;
    }
    this.shown = {
      row,
      previous: row === this.shown.row ? this.shown.previous : this.shown.row,
      other: this.findRow(state.with),
      wantsAccepted: state.with === Zoom.ACCEPTED,
      mode: state.mode,
      output: Math.min(Number(state.file), Math.max(0, this.dataset.files(row).length - 1)),
    };
    this.render(true);
    if (!this.dialog.open) this.dialog.showModal();
  }

  /**
   * Show what a run or a mark changed, if this trial is open.
   * @param {number} row
   */
  refresh(row) {
    if (this.dialog.open && row === this.shown.row) this.render(false);
  }

  /**
   * @param {boolean} isNewTrial whether to replace everything; a running job only replaces what it changes, so that a
   *   film keeps playing and a text keeps its cursor
   */
  render(isNewTrial) {
    const { row, other, output } = this.shown;
    const { dataset, parts } = this;
    const file = dataset.files(row)[output];
    parts.replace("head", this.makeHead(), isNewTrial);
    if (isNewTrial) parts.status.textContent = `trial ${dataset.trial(row)}: ${Params.makeTitle(dataset, row)}`;
    parts.replace("modes", this.makeModes(), isNewTrial);
    parts.replace("outputs", this.makeOutputs(), isNewTrial);
    parts.replace("outcome", Details.makeOutcome(dataset, row), isNewTrial);
    parts.replace("params", Params.makeTable(dataset, row, other), isNewTrial);
    parts.replace("facts", Details.makeFacts(dataset, row, file), isNewTrial);
    parts.replace("actions", Details.makeActions(dataset, row, file), isNewTrial);
    const comparison = this.getComparison();
    parts.replaceStage(JSON.stringify(comparison), () => Comparison.create(...comparison));
    this.markControls.show(row);
    if (!this.dialog.contains(document.activeElement)) this.dialog.focus();
  }

  /** Whether B is the accepted file, because it was asked for and exists. */
  isAgainstAccepted() {
    return this.shown.wantsAccepted && (this.dataset.finding(this.shown.row)?.accepted.length ?? 0) > 0;
  }

  /** @returns {Parameters<typeof Comparison.create>} */
  getComparison() {
    const { dataset } = this;
    const { row, other, mode, output } = this.shown;
    const isAccepted = this.isAgainstAccepted();
    const b = isAccepted ? this.findAcceptedFile() : other < 0 ? undefined : this.findCounterpart();
    const names = {
      a: Params.makeTitle(dataset, row, other),
      b: isAccepted ? "accepted" : other < 0 ? "" : Params.makeTitle(dataset, other, row),
      none: dataset.reason(row),
    };
    return [mode, dataset.files(row)[output], b, names];
  }

  /** B's file of the same kind, node and position as A's. */
  findCounterpart() {
    const { row, other, output } = this.shown;
    const [files, origins] = [this.dataset.files(other), this.dataset.origins(other)];
    const file = this.dataset.files(row)[output];
    if (file === undefined) return files[0];
    const origin = String(this.dataset.origins(row)[output]);
    const isSameKind = (/** @type {PageFile} */ { kind }) => kind === file.kind || kind === "missing" || file.kind === "missing";
    return files.find((one, index) => isSameKind(one) && String(origins[index]) === origin);
  }

  /** The accepted file of the same node and position as A's. */
  findAcceptedFile() {
    const { row, output } = this.shown;
    const { accepted, origins } = /** @type {CheckFinding} */ (this.dataset.finding(row));
    const origin = this.dataset.origins(row)[output];
    return origin === undefined ? accepted[0] : accepted[origins.findIndex((one) => String(one) === String(origin))];
  }

  // --- its parts

  /**
   * @param {string} key finds the button again when it is replaced
   * @param {Record<string, any>} attributes @param {string} text
   */
  static makeButton(key, attributes, text) {
    return Dom.el("button", { type: "button", "data-keep": key, ...attributes }, text);
  }

  makeHead() {
    const { dataset, page } = this;
    const { row, other } = this.shown;
    return Dom.el(
      "header",
      { class: "zoom-head" },
      Dom.el("h2", { title: dataset.title(row) }, Params.makeTitle(dataset, row, other)),
      Dom.el("span", { class: "dim" }, `trial ${dataset.trial(row)}`),
      Steps.makeButtons(
        (down, across) => this.findNeighbour(down, across),
        (down, across) => this.go(down, across),
        page.getTableRows() !== null,
      ),
      Zoom.makeButton("close", { "aria-label": "Close", autofocus: true, onclick: () => this.close() }, "✕"),
    );
  }

  makeModes() {
    const { row, other, mode } = this.shown;
    const buttons = Object.entries(Zoom.MODE_LABELS).map(([name, label]) =>
      Zoom.makeButton(name, { "aria-pressed": String(mode === name), onclick: () => this.setMode(name) }, label),
    );
    const accepted = { "aria-pressed": String(this.isAgainstAccepted()), onclick: () => this.toggleAccepted() };
    const hasAccepted = (this.dataset.finding(row)?.accepted.length ?? 0) > 0;
    return Dom.el(
      "div",
      { class: "strip", role: "group", "aria-label": "How to compare" },
      buttons,
      Zoom.makeButton("actual", { onclick: () => this.panZoom.toggleActualSize(), title: "One pixel of the picture on one of the screen: key Z" }, "1:1"),
      Zoom.makeButton("hold", { onclick: () => this.hold(), "aria-pressed": String(other === row), title: "key H" }, "Compare with this"),
      hasAccepted && Zoom.makeButton("accepted", accepted, "Accepted as B"),
      other >= 0 && Zoom.makeButton("release", { onclick: () => this.release(), title: "Stop comparing" }, `B: trial ${this.dataset.trial(other)} ✕`),
    );
  }

  makeOutputs() {
    const { row, output } = this.shown;
    const files = this.dataset.files(row);
    if (files.length < 2) return null;
    const buttons = files.map((_, index) => {
      const onclick = () => this.replaceState({ file: String(index) });
      return Zoom.makeButton(`output-${index}`, { "aria-pressed": String(index === output), onclick }, `${index + 1}`);
    });
    return Dom.el("div", { class: "strip", role: "group", "aria-label": "Files of this trial" }, buttons);
  }

  // --- what the user does

  /** @param {Partial<State>} change */
  replaceState(change) {
    this.page.update(change, { replace: true });
  }

  close() {
    this.page.update({ trial: "" });
  }

  /** @param {number} down @param {number} across */
  findNeighbour(down, across) {
    return Steps.findNeighbour(this.page, this.shown.row, down, across);
  }

  /** @param {number} down @param {number} across */
  go(down, across) {
    const row = this.findNeighbour(down, across);
    if (row !== undefined) this.replaceState({ trial: String(this.dataset.trial(row)) });
  }

  /** Make this trial B, for comparison with others; if it is B, stop comparing. */
  hold() {
    if (this.shown.other === this.shown.row) return this.release();
    const trial = String(this.dataset.trial(this.shown.row));
    this.replaceState({ with: trial });
    Dom.announce(`Comparing with trial ${trial}. Move to another trial.`);
  }

  release() {
    this.replaceState({ with: "", mode: "single" });
    Dom.announce("Not comparing any more.");
  }

  toggleAccepted() {
    const mode = this.shown.mode === "single" ? "side" : this.shown.mode;
    this.replaceState(this.isAgainstAccepted() ? { with: "" } : { with: Zoom.ACCEPTED, mode });
  }

  /**
   * Set the mode. If it needs a second trial and none is held, take the one shown before, or a neighbour.
   * @param {string} mode
   */
  setMode(mode) {
    const { previous, other } = this.shown;
    if (mode === "single" || other >= 0 || this.isAgainstAccepted()) return this.replaceState({ mode });
    const findBeside = () =>
      this.findNeighbour(0, -1) ?? this.findNeighbour(0, 1) ?? this.findNeighbour(-1, 0) ?? this.findNeighbour(1, 0);
    const second = previous >= 0 ? previous : findBeside();
    if (second === undefined) return Dom.announce("there is no second trial in view to compare with");
    this.replaceState({ mode, with: String(this.dataset.trial(second)) });
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const isTyping = event.target instanceof Element && event.target.matches("input, textarea, select, audio, video");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    const key = event.key.toLowerCase();
    const arrow = Zoom.ARROWS[event.key];
    if (arrow) this.go(...arrow);
    else if (Zoom.MODE_KEYS[key]) this.setMode(Zoom.MODE_KEYS[key]);
    else if (key === "h") this.hold();
    else if (key === "c") this.dialog.querySelector("textarea")?.focus();
    else if (key === "?") Keys.open();
    else if (!this.panZoom.onKey(key) && !this.page.markByKey(event.key, this.shown.row)) return;
    event.preventDefault();
  }

  /**
   * Make a dragged picture, or the link to a file, leave the page as the file itself.
   * @param {DragEvent} event
   */
  fillDrag(event) {
    const { dataset } = this;
    const { row, other, output } = this.shown;
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest(".actions a")) {
      Drag.fillWithFile(event, dataset.files(row)[output], ...Workflow.getFile(dataset, row));
      return;
    }
    const src = target?.closest(".stage img")?.getAttribute("src");
    const files = [...dataset.files(row), ...(other < 0 ? [] : dataset.files(other)), ...(dataset.finding(row)?.accepted ?? [])];
    Drag.fillWithFile(event, files.find((file) => file.path && Dom.toUrl(file.path) === src));
  }
}
