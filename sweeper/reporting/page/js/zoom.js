// The dialog with one trial: its pictures, beside those of other trials if wanted, its params, its workflow, its mark.

import * as Keys from "../../../serving/page/js/keys.js";
import { PanZoom } from "../../../serving/page/js/pan_zoom.js";
import { createSegment } from "../../../serving/page/js/segment.js";
import * as Comparison from "./comparison.js";
import { announce, copyText, el, focusByKey, focusKey, saveFile, toUrl } from "../../../serving/page/js/dom.js";
import { Marks } from "./marks.js";
import * as Media from "./media.js";
import * as NextTrial from "./next_trial.js";
import * as Params from "./params.js";
import * as Review from "./review.js";
import * as Steps from "./steps.js";
import * as Tray from "./tray.js";
import * as Workflow from "./workflow.js";
/** @import { CheckFinding, Dataset, PageFile } from "./dataset.js" */
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

/**
 * @typedef {object} Shown  what the dialog shows
 * @property {number} row the open trial
 * @property {number} other the reference, which stands on the left; -1: none
 * @property {boolean} wantsAccepted whether the reference is to be the accepted file
 * @property {string} mode
 * @property {number} output index of the open trial's file
 */

/** The elements of the dialog. Each is replaced only when it changes. */
class ZoomParts {
  static NAMES = ["head", "modes", "stage", "steps", "outputs", "outcome", "answers", "params", "facts", "actions"];

  /** @param {HTMLDialogElement} dialog @param {HTMLElement} markControls */
  constructor(dialog, markControls) {
    /** @type {Record<string, HTMLElement>} */
    this.nodes = Object.fromEntries(ZoomParts.NAMES.map((name) => [name, ZoomParts.makeEmpty()]));
    this.stageKey = "";
    const { head, modes, stage, steps, outputs, outcome, answers, params, facts, actions } = this.nodes;
    this.left = el("div", { class: "zoom-left" }, modes, stage, steps, outputs);
    const panel = el("aside", { class: "panel" }, outcome, answers, markControls, params, facts, actions);
    dialog.tabIndex = -1; // it receives the focus of elements that are removed
    this.status = el("p", { class: "offscreen", role: "status" }); // read aloud when another trial is shown
    dialog.replaceChildren(head, el("div", { class: "zoom-body" }, this.left, panel), this.status);
  }

  static makeEmpty() {
    return el("div", { hidden: true });
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
    const key = focusKey(old);
    old.replaceWith(next);
    this.nodes[name] = next;
    focusByKey(next, key);
  }

  /** Replace the pictures if their key changed. @param {string} key @param {() => HTMLElement} make */
  replaceStage(key, make) {
    if (key === this.stageKey) return;
    this.stageKey = key;
    this.nodes.stage.dispatchEvent(new Event("sweeper-gone"));
    this.replace("stage", make(), true);
  }
}

export class Zoom {
  static ACCEPTED = "accepted"; // in place of the reference's trial number
  /** @type {Record<string, string>} */
  static MODE_KEYS = { s: "side", b: "blink", l: "slider", d: "difference", g: "single" };
  static MODE_LABELS = { single: "One picture", side: "Side by side", blink: "Blink", slider: "Slider", difference: "Difference" };

  /** @param {HTMLDialogElement} dialog @param {Page} page */
  constructor(dialog, page) {
    this.dialog = dialog;
    this.page = page;
    this.dataset = page.dataset;
    /** @type {Shown} */
    this.shown = { row: -1, other: -1, wantsAccepted: false, mode: "", output: 0 };
    this.markControls = createMarkControls(page, false);
    /** @type {ReturnType<typeof createMarkControls>[]} of the pictures that are compared */
    this.paneControls = [];
    this.parts = new ZoomParts(dialog, this.markControls.node);
    this.panZoom = new PanZoom(this.parts.left);
    Steps.listenForSwipes(this.parts.left, (down, across) => {
      if (!this.panZoom.isMagnified()) this.go(down, across);
    });
    dialog.addEventListener("dragstart", (event) => this.fillDrag(event));
    this.bindKeys();
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.close();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) this.close(); // beside its content
      const figure = event.target instanceof Element && this.listPicked().length > 0 ? event.target.closest("figure") : null;
      if (figure && !this.panZoom.isMagnified()) this.replaceState({ trial: String(this.dataset.trial(Number(figure.dataset.row))) });
    });
  }

  // --- what it shows

  /** @param {string} trial @returns {number} its row, or -1 */
  findRow(trial) {
    return trial === "" || trial === Zoom.ACCEPTED ? -1 : (this.dataset.row(Number(trial)) ?? -1);
  }

  /** Show the trial of a state, or close the dialog if it has none. @param {State} state */
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
      other: this.findRow(state.with),
      wantsAccepted: state.with === Zoom.ACCEPTED,
      mode: state.mode,
      output: Math.min(Number(state.file), Math.max(0, this.dataset.files(row).length - 1)),
    };
    this.render(true);
    if (this.dialog.open) return;
    this.dialog.showModal();
    this.dialog.focus(); // not a button, which would take the space bar from a film
  }

  /** Show what a run or a mark changed, if this trial is open. @param {number} row */
  refresh(row) {
    if (this.dialog.open && (row === this.shown.row || this.listPicked().includes(row) || row === this.shown.other)) this.render(false);
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
    parts.replace("outcome", makeOutcome(dataset, row), isNewTrial);
    const steps = Steps.makeButtons((...step) => this.findNeighbour(...step), (...step) => this.go(...step), this.page.getState().view === "table");
    parts.replace("steps", steps, isNewTrial);
    parts.replace("answers", Review.makeAnswers(this.page, row), isNewTrial);
    parts.replace("params", Params.makeTables(dataset, row, other), isNewTrial);
    parts.replace("facts", makeFacts(dataset, row, file), isNewTrial);
    parts.replace("actions", makeActions(this.page, row, file), isNewTrial);
    const [mode, panes] = [this.shown.mode, this.getPanes()];
    parts.replaceStage(JSON.stringify([mode, panes]), () => {
      this.paneControls = panes.map(() => createMarkControls(this.page, true));
      return Comparison.create(mode, panes, this.paneControls.map(({ node }, index) => (panes[index].row < 0 ? el("section", { class: "opinion" }) : node)));
    });
    panes.forEach((pane, index) => pane.row >= 0 && this.paneControls[index].show(pane.row));
    for (const figure of this.parts.nodes.stage.querySelectorAll("figure")) figure.classList.toggle("current", panes.length > 2 && figure.dataset.row === String(row));
    this.markControls.show(row);
    if (!this.dialog.contains(document.activeElement)) this.dialog.focus();
  }

  /** Whether the reference is the accepted file, because it was asked for and exists. */
  isAgainstAccepted() {
    return this.shown.wantsAccepted && (this.dataset.finding(this.shown.row)?.accepted.length ?? 0) > 0;
  }

  /** The rows in the tray while all of them are compared, else none. */
  listPicked() {
    const rows = [...this.page.marks.picked];
    return this.shown.mode === "picked" && rows.length > 1 ? rows : [];
  }

  /** @returns {Comparison.Pane[]} the reference first */
  getPanes() {
    const { dataset } = this;
    const { row, other, mode } = this.shown;
    const picked = this.listPicked();
    const isAccepted = this.isAgainstAccepted() && mode !== "single";
    const rows = picked.length > 0 ? picked : other < 0 || isAccepted || mode === "single" ? [row] : [other, row];
    const panes = rows.map((shown, index) => {
      const label = picked.length > 0 || index === 1 ? `trial ${dataset.trial(shown)}` : isAccepted ? "Now" : "Reference";
      return { row: shown, file: this.findCounterpart(shown), label, name: Params.makeTitle(dataset, shown, rows), none: dataset.reason(shown) };
    });
    return isAccepted ? [{ row: -1, file: this.findAcceptedFile(), label: "Accepted", name: "", none: "" }, ...panes] : panes;
  }

  /** The file of a row of the same kind, node and position as that of the open trial. @param {number} other */
  findCounterpart(other) {
    const { row, output } = this.shown;
    const [files, origins] = [this.dataset.files(other), this.dataset.origins(other)];
    const file = this.dataset.files(row)[output];
    if (file === undefined || other === row) return file ?? files[0];
    const origin = String(this.dataset.origins(row)[output]);
    const isSameKind = (/** @type {PageFile} */ { kind }) => kind === file.kind || kind === "missing" || file.kind === "missing";
    return files.find((one, index) => isSameKind(one) && String(origins[index]) === origin);
  }

  /** The accepted file of the same node and position as that of the open trial. */
  findAcceptedFile() {
    const { row, output } = this.shown;
    const { accepted, origins } = /** @type {CheckFinding} */ (this.dataset.finding(row));
    const origin = this.dataset.origins(row)[output];
    return origin === undefined ? accepted[0] : accepted[origins.findIndex((one) => String(one) === String(origin))];
  }

  // --- its parts

  makeHead() {
    const { dataset } = this;
    const { row, other } = this.shown;
    return el(
      "header",
      { class: "zoom-head" },
      el("h2", { title: dataset.title(row) }, Params.makeTitle(dataset, row, other < 0 ? [] : [other])),
      el("span", { class: "dim" }, `trial ${dataset.trial(row)}`),
      el("button", { "data-keep": "close", "aria-label": "Close", onclick: () => this.close() }, "✕"),
    );
  }

  makeModes() {
    const { dataset, page } = this;
    const { row, other, mode, output } = this.shown;
    const buttons = this.listModes().map(([name, label]) =>
      el("button", { "data-keep": name, "aria-pressed": String(mode === name), onclick: () => this.setMode(name) }, label),
    );
    const accepted = { "data-keep": "accepted", "aria-pressed": String(this.isAgainstAccepted()), onclick: () => this.toggleAccepted() };
    const hasAccepted = (dataset.finding(row)?.accepted.length ?? 0) > 0;
    const isCollected = page.marks.picked.has(row);
    return el(
      "div",
      { class: "strip", role: "group", "aria-label": "How to compare" },
      buttons,
      Comparison.isPicture(dataset.files(row)[output]) &&
        el("button", { "data-keep": "actual", onclick: () => this.panZoom.toggleActualSize(), title: "One pixel of the picture on one of the screen: key Z" }, "1:1"),
      hasAccepted && el("button", accepted, "Beside the accepted"),
      el("button", { "data-keep": "hold", onclick: () => this.hold(), "aria-pressed": String(other === row), title: "key H" }, "Pin as reference"),
      other >= 0 && el("button", { "data-keep": "release", title: "Stop comparing", class: "pinned", onclick: () => this.release() }, Media.createThumb(dataset, other, 20), `Reference: trial ${dataset.trial(other)} ✕`),
      el("button", { "data-keep": "collect", onclick: () => Tray.toggle(page, row), "aria-pressed": String(isCollected), title: "Into the tray, to compare several: key X" }, "Collect"),
    );
  }

  /** @returns {[string, string][]} the names and labels of the modes that do something for the open file */
  listModes() {
    const { size } = this.page.marks.picked;
    const isPicture = Comparison.isPicture(this.dataset.files(this.shown.row)[this.shown.output]);
    const hasSecond = this.dataset.size > 1 || this.dataset.raw.check;
    const modes = Object.entries(Zoom.MODE_LABELS).filter(([name]) => name === "single" || (hasSecond && (name === "side" || isPicture)));
    return size > 1 ? [...modes, ["picked", `All ${size} collected`]] : modes;
  }

  makeOutputs() {
    const { row, output } = this.shown;
    const files = this.dataset.files(row);
    if (files.length < 2) return null;
    const numbers = Object.fromEntries(files.map((_, index) => [index, String(index + 1)]));
    const { node, choose } = createSegment("Files of this trial", numbers, (file) => this.replaceState({ file }));
    choose(String(output));
    return node;
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
    const picked = this.listPicked();
    if (picked.length > 0) return picked[picked.indexOf(this.shown.row) + down + across];
    return Steps.findNeighbour(this.page, this.shown.row, down, across);
  }

  /** @param {number} down @param {number} across */
  go(down, across) {
    const row = this.findNeighbour(down, across);
    if (row !== undefined) this.replaceState({ trial: String(this.dataset.trial(row)) });
  }

  /** Pin this trial as the reference of others; if it is the reference, stop comparing. */
  hold() {
    if (this.shown.other === this.shown.row) return this.release();
    const trial = String(this.dataset.trial(this.shown.row));
    this.replaceState({ with: trial });
    announce(`Trial ${trial} is the reference. Move to another trial.`);
  }

  release() {
    this.replaceState({ with: "", mode: "single" });
    announce("Not comparing any more.");
  }

  toggleAccepted() {
    const mode = this.shown.mode === "single" ? "side" : this.shown.mode;
    this.replaceState(this.isAgainstAccepted() ? { with: "" } : { with: Zoom.ACCEPTED, mode });
  }

  /** Set the mode. If it needs a second trial and none is held, take a neighbour, if possible on the left. @param {string} mode */
  setMode(mode) {
    const { other } = this.shown;
    if (!this.listModes().some(([name]) => name === mode)) return announce("only pictures can be compared like that");
    if (mode === "single" || mode === "picked" || other >= 0 || this.isAgainstAccepted()) return this.replaceState({ mode });
    const second = this.findNeighbour(0, -1) ?? this.findNeighbour(0, 1) ?? this.findNeighbour(-1, 0) ?? this.findNeighbour(1, 0);
    if (second === undefined) return announce("there is no second trial in view to compare with");
    this.replaceState({ mode, with: String(this.dataset.trial(second)) });
  }

  bindKeys() {
    const press = (/** @type {string} */ key) => Keys.press(this.parts.nodes.stage, key);
    Keys.bind(this.dialog, "In an open trial", [
      [Object.keys(Keys.ARROWS).join(" "), "the next trial", (key) => this.go(...Keys.ARROWS[key])],
      ["h", "pin as reference for other trials, or stop that", () => this.hold()],
      [Object.keys(Zoom.MODE_KEYS).join(" "), "side by side, blink, slider, difference, one picture", (key) => this.setMode(Zoom.MODE_KEYS[key])],
      ["z + = -", PanZoom.HELP, (key) => this.panZoom.onKey(key)],
      ["p f", "while it blinks: pause, flip", press],
      ["Space , . m", "play a film or a sound, one frame back, one on; which one is heard", press],
      ...Marks.KEYS.map(([keys, words]) => /** @type {Keys.Binding} */ ([keys, words, (key) => this.page.markByKey(key, this.shown.row)])),
      ["n", "more like this: an experiment around the trial", () => void NextTrial.openSimilar(this.dataset, this.shown.row)],
      ["v", "revise this cell: run it with another value", () => !this.dataset.raw.search && NextTrial.openRevision(this.page, this.shown.row)],
      ["c", "write a comment", () => this.dialog.querySelector("textarea")?.focus()],
      ["?", "these keys", () => Keys.open()],
      ["Escape", "close", () => false], // the dialog does it
    ]);
  }

  /** Make a dragged picture, or the link to a file, leave the page as the file itself. @param {DragEvent} event */
  fillDrag(event) {
    const { dataset } = this;
    const { row, output } = this.shown;
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest(".actions a")) {
      Media.fillDrag(event, dataset.files(row)[output], ...Workflow.getFile(dataset, row));
      return;
    }
    const src = target?.closest(".stage img")?.getAttribute("src");
    const rows = [row, ...this.getPanes().map((pane) => pane.row)].filter((shown) => shown >= 0);
    const files = [...rows.flatMap((shown) => dataset.files(shown)), ...(dataset.finding(row)?.accepted ?? [])];
    Media.fillDrag(event, files.find((file) => file.path && toUrl(file.path) === src));
  }
}

// --- the text beside the pictures

/** Why there is no picture, and what a check found; null if there is nothing to say. @param {Dataset} dataset @param {number} row */
function makeOutcome(dataset, row) {
  const reason = dataset.reason(row);
  const finding = dataset.finding(row);
  if (!reason && !finding) return null;
  return el(
    "div",
    { class: "outcome" },
    reason && el("p", { class: `reason ${dataset.status(row)}` }, reason),
    finding &&
      el("p", { class: `reason ${finding.state === "changed" ? "failed" : ""}` }, `check: ${finding.state}`, finding.reason && `, ${finding.reason}`),
    finding?.verdict && el("p", { class: "reason" }, finding.verdict),
    finding?.text && el("pre", { class: "reason", tabindex: 0 }, finding.text),
  );
}

/** @param {Dataset} dataset @param {number} row @param {PageFile | undefined} file */
function makeFacts(dataset, row, file) {
  const facts = [
    file?.kind !== "audio" && file?.width && `${file.width} × ${file.height}`,
    file?.bytes && `${Math.ceil(file.bytes / 1024)} kB`,
    dataset.outcomeColumn("target").label(row),
  ];
  return el("p", { class: "dim", title: `digest ${dataset.digest(row)}` }, facts.filter(Boolean).join(" · "));
}

/** @param {string} text @param {() => void} onclick @param {string} [look] */
const makeButton = (text, onclick, look = "quiet") => el("button", { class: look, "data-keep": text, onclick }, text);

/** @param {Page} page @param {number} row @param {PageFile | undefined} file */
function makeActions(page, row, file) {
  const { dataset } = page;
  const [workflow, name] = Workflow.getFile(dataset, row);
  const workflowActions =
    workflow === null
      ? [el("p", { class: "dim" }, `No workflow and no rerun command: ${Workflow.explainMissing(dataset)}.`)]
      : [
          makeButton("Copy workflow", () => copyText(workflow, "workflow"), "primary"),
          makeButton("Save workflow", () => saveFile(name, "application/json", workflow)),
        ];
  const isInline = /** @type {any} */ (globalThis).sweeper?.inline !== undefined; // browsers open no data URL by a link
  const canOpen = !isInline && file?.path && ["image", "video", "audio"].includes(file.kind) && !/\.svg$/.test(file.path);
  return el(
    "section",
    { class: "actions" },
    workflowActions,
    workflow !== null && makeRerun(dataset, row),
    NextTrial.makeButtons(page, row),
    canOpen && el("a", { href: toUrl(file.path), target: "_blank", rel: "noopener" }, "Open the file"),
    file?.workflow &&
      el("p", { class: "dim" }, "Drag the picture into ComfyUI: it contains its workflow. A saved workflow can be dragged there too."),
    el("p", { class: "dim keys" }, "Key ? lists the keys."),
  );
}

/** @param {Dataset} dataset @param {number} row */
function makeRerun(dataset, row) {
  const reason = Workflow.explainNoCommand(dataset, row);
  if (reason) return el("p", { class: "dim" }, `No rerun command: ${reason}.`);
  return makeButton("Copy rerun command", () => copyText(Workflow.makeCommand(dataset, row) ?? "", "command"));
}

// --- the mark of a trial: keep, reject, a rating, a comment

/**
 * Make controls that `show` fills for a row. They are never rebuilt, because a run that is still going updates the dialog
 * often, and a half-written comment must not get lost.
 * @param {Page} page @param {boolean} isShort without words and without a comment, for the room under a picture
 */
export function createMarkControls({ marks, markByKey }, isShort) {
  let current = -1; // row
  /** @param {string} key @param {string} text @param {string} name */
  const makeButton = (key, text, name) => {
    // A press of the rating that a trial has removes it.
    const onclick = () => markByKey(String(marks.get(current).stars) === key ? "0" : key, current);
    return el("button", { "data-keep": key, title: `${name}: key ${key.toUpperCase()}`, "aria-label": name, onclick }, text);
  };
  const [keep, reject] = [makeButton("k", isShort ? "✓" : "✓ Keep", "Keep"), makeButton("r", isShort ? "✕" : "✕ Reject", "Reject")];
  const stars = [1, 2, 3, 4, 5].map((count) => makeButton(String(count), "★", `${count} of 5`));
  const comment = el("textarea", {
    rows: 2,
    maxlength: Marks.MAX_COMMENT,
    "data-keep": "comment",
    placeholder: "comment",
    "aria-label": "Comment",
    // Save every letter, so that nothing is lost when the page reloads or the dialog closes.
    oninput: () => marks.set(current, { comment: comment.value }),
  });

  /** @param {number} row */
  function show(row) {
    const isSame = row === current;
    current = row;
    const mark = marks.get(row);
    keep.setAttribute("aria-pressed", String(mark.verdict === "keep"));
    reject.setAttribute("aria-pressed", String(mark.verdict === "reject"));
    stars.forEach((star, index) => {
      star.setAttribute("aria-pressed", String(mark.stars === index + 1));
      star.classList.toggle("lit", index < mark.stars);
    });
    if (!isSame || document.activeElement !== comment) comment.value = mark.comment;
  }

  const rating = el("span", { class: "rating", role: "group", "aria-label": "Rating" }, stars);
  return { node: el("section", { class: "opinion" }, keep, reject, rating, !isShort && comment), show };
}
