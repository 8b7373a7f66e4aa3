// Compares pictures: side by side, or two of them blinking, under a slider, or as their difference. The style sheet subtracts
// them, because a page that is opened from a disk may not read pixels.

import { el } from "../../../serving/page/js/dom.js";
import * as Media from "./media.js";
import * as Transport from "./transport.js";
/** @import { PageFile } from "./dataset.js" */

/**
 * @typedef {object} Pane  one of the files that are compared; of two, the first is the reference
 * @property {number} row -1 for an accepted file
 * @property {PageFile | undefined} file
 * @property {string} label what it is
 * @property {string} name its values
 * @property {string} none why it has no file
 */

const BLINK_PERIOD = 600; // milliseconds

/**
 * Make the view of some files, and a bar that plays those that are films or sounds.
 * @param {string} mode "single", "picked", "side", "blink", "slider" or "difference"
 * @param {Pane[]} panes @param {(HTMLElement | undefined)[]} controls what stands under each
 */
export function create(mode, panes, controls) {
  const stage = makeStage(mode, panes, controls);
  const players = [...stage.querySelectorAll(/** @type {"video"} */ ("video, audio"))];
  if (players.length === 0) return stage;
  const clock = Transport.createClock(() => players, () => players.findLast(({ localName }) => localName === "audio"));
  const whole = el("div", { class: "stage playing" }, stage, clock.node);
  whole.addEventListener("sweeper-gone", clock.stop);
  return whole;
}

/** Whether two files can be laid over each other. @param {PageFile | undefined} file */
export const isPicture = (file) => file === undefined || file.kind === "image";

/** @param {string} mode @param {Pane[]} panes @param {(HTMLElement | undefined)[]} controls */
function makeStage(mode, panes, controls) {
  const [a, b] = panes;
  if (panes.length < 2) return el("div", { class: "stage single" }, a.file ? makeLens(a.file) : el("p", { class: "word" }, a.none));
  if (["single", "side", "picked"].includes(mode) || !a.file || !b.file || !isPicture(a.file) || !isPicture(b.file)) {
    const stage = el("div", { class: `stage side-by-side ${panes.length === 2 ? "pair" : ""}` }, panes.map((pane, index) => makeFigure(pane, controls[index])));
    stage.style.setProperty("--columns", String(panes.length < 4 ? panes.length : Math.ceil(Math.sqrt(panes.length))));
    return stage;
  }
  const [left, right] = [a, b].map(({ label, name }) => [label, name].filter(Boolean).join(" "));
  if (mode === "slider") return makeSlider(a.file, b.file, left, right);
  return mode === "difference" ? makeDifference(a.file, b.file) : makeBlink(a.file, b.file, left, right);
}

/** @param {PageFile} file */
const showFull = (file) => Media.create(file, { full: true });

/** A file in a box that `PanZoom` magnifies. @param {PageFile} file */
function makeLens(file) {
  if (file.kind !== "image") return showFull(file);
  const lens = el("div", { class: "lens" }, showFull(file));
  if (file.width) lens.style.setProperty("--shape", `${file.width} / ${file.height}`);
  return lens;
}

/** @param {Pane} pane @param {HTMLElement | undefined} control */
function makeFigure({ row, file, label, name, none }, control) {
  const figure = el("figure", {}, file ? makeLens(file) : el("p", { class: "word" }, none || "no such file"), el("figcaption", {}, el("b", {}, label), ` ${name}`), control);
  figure.dataset.row = String(row);
  return figure;
}

/** @param {PageFile} a @param {PageFile} b @param {string} left @param {string} right what they are */
function makeBlink(a, b, left, right) {
  const top = showFull(b);
  const caption = el("figcaption", {}, left);
  let showsB = false;
  const flip = () => {
    showsB = !showsB;
    top.style.visibility = showsB ? "visible" : "hidden";
    caption.textContent = showsB ? right : left;
  };
  top.style.visibility = "hidden";
  const wantsRest = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let timer = wantsRest ? 0 : setInterval(flip, BLINK_PERIOD);
  const pause = el("button", { title: "key P", "data-key": "p", "aria-pressed": String(wantsRest), onclick: togglePause }, "Pause");
  function togglePause() {
    clearInterval(timer);
    timer = timer ? 0 : setInterval(flip, BLINK_PERIOD);
    pause.setAttribute("aria-pressed", String(!timer));
  }
  const controls = el("div", { class: "strip" }, pause, el("button", { title: "key F", "data-key": "f", onclick: flip }, "Flip"), caption);
  const stage = el("div", { class: "stage" }, el("div", { class: "stack lens" }, showFull(a), top), controls);
  stage.addEventListener("sweeper-gone", () => clearInterval(timer));
  return stage;
}

/** @param {PageFile} a @param {PageFile} b @param {string} left @param {string} right */
function makeSlider(a, b, left, right) {
  const top = el("div", { class: "layer" }, showFull(b));
  const line = el("div", { class: "slider-line" });
  const label = "How much of the left picture is visible";
  const range = el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": label, oninput: update });
  function update() {
    top.style.clipPath = `inset(0 0 0 ${range.value}%)`;
    line.style.left = `${range.value}%`;
  }
  /** @param {PointerEvent} event */
  function onPointer(event) {
    if ((event.buttons !== 1 && event.pointerType === "mouse") || stack.closest(".magnified")) return; // a drag moves the pictures then
    const box = stack.getBoundingClientRect();
    range.value = String(((event.clientX - box.left) / box.width) * 100);
    update();
  }
  const stack = el("div", { class: "stack lens", onpointermove: onPointer }, showFull(a), top, line);
  stack.addEventListener("dragstart", (event) => event.preventDefault());
  update();
  return el("div", { class: "stage" }, stack, el("div", { class: "strip" }, el("span", {}, left), range, el("span", {}, right)));
}

/** @param {PageFile} a @param {PageFile} b */
function makeDifference(a, b) {
  const pictures = /** @type {HTMLImageElement[]} */ ([showFull(a), showFull(b)]);
  const label = "Difference of the two pictures; black where they are equal";
  const stack = el("div", { class: "stack lens subtracted", role: "img", "aria-label": label }, pictures);
  const gain = el("input", { type: "range", min: 0, max: 6, step: 1, value: 2, "aria-label": "How much differences are amplified", oninput: amplify });
  const status = el("span");
  function amplify() {
    const factor = 2 ** Number(gain.value);
    stack.style.filter = `brightness(${factor})`;
    status.textContent = `× ${factor}`;
  }
  amplify();
  Promise.all(pictures.map((picture) => picture.decode())).then(() => {
    const [one, two] = pictures.map(({ naturalWidth, naturalHeight }) => `${naturalWidth} × ${naturalHeight}`);
    if (one === two) return;
    stack.replaceChildren();
    status.textContent = `${one} against ${two}: only pictures of the same size have a difference`;
  }, () => {}); // a picture that is lost says so itself
  return el("div", { class: "stage" }, stack, el("div", { class: "strip" }, "difference", gain, status));
}
