// @ts-check
// Compares two pictures: side by side, blinking, under a slider, or as their difference. A canvas subtracts them, because
// a page that is opened from a disk may not read pixels.

import * as Dom from "./dom.js";
import { el } from "./dom.js";
import * as Media from "./media.js";
/** @import { PageFile } from "./dataset.js" */

/** @typedef {{a: string, b: string, none: string}} PairNames titles of A and B ("" without B); why A has no file */

const BLINK_PERIOD = 600; // milliseconds

/**
 * Make the view of one or two files. Without two pictures it shows what there is.
 * @param {string} mode "single", "side", "blink", "slider" or "difference"
 * @param {PageFile | undefined} a @param {PageFile | undefined} b @param {PairNames} names
 */
export function create(mode, a, b, names) {
  if (mode === "single" || names.b === "")
    {return el("div", { class: "stage single" }, a ? makeLens(a) : el("p", { class: "word" }, names.none));}
  if (mode === "side" || a?.kind !== "image" || b?.kind !== "image") {
    return el("div", { class: "stage side-by-side" }, makeFigure(a, "A", names.a), makeFigure(b, "B", names.b));
  }
  if (mode === "slider") return makeSlider(a, b, names);
  return mode === "difference" ? makeDifference(a, b) : makeBlink(a, b, names);
}

/** @param {PageFile} file */
const showFull = (file) => Media.create(file, { full: true });

/**
 * A file in a box that `PanZoom` magnifies.
 * @param {PageFile} file
 */
function makeLens(file) {
  if (file.kind !== "image") return showFull(file);
  const lens = el("div", { class: "lens" }, showFull(file));
  if (file.width) lens.style.setProperty("--shape", `${file.width} / ${file.height}`);
  return lens;
}

/** @param {PageFile | undefined} file @param {string} letter @param {string} name */
const makeFigure = (file, letter, name) =>
  el(
    "figure",
    {},
    file ? makeLens(file) : el("p", { class: "word" }, "no such file"),
    el("figcaption", {}, el("b", {}, letter), ` ${name}`),
  );

/** @param {PageFile} a @param {PageFile} b @param {PairNames} names */
function makeBlink(a, b, names) {
  const top = showFull(b);
  const caption = el("figcaption", {}, `A ${names.a}`);
  let showsB = false;
  const flip = () => {
    showsB = !showsB;
    top.style.visibility = showsB ? "visible" : "hidden";
    caption.textContent = showsB ? `B ${names.b}` : `A ${names.a}`;
  };
  top.style.visibility = "hidden";
  const wantsRest = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let timer = wantsRest ? 0 : setInterval(flip, BLINK_PERIOD);
  const pause = el("button", { type: "button", "aria-pressed": String(wantsRest), onclick: togglePause }, "Pause");
  function togglePause() {
    clearInterval(timer);
    timer = timer ? 0 : setInterval(flip, BLINK_PERIOD);
    pause.setAttribute("aria-pressed", String(!timer));
  }
  const controls = el("div", { class: "strip" }, pause, el("button", { type: "button", onclick: flip }, "Flip"), caption);
  const stage = el("div", { class: "stage" }, el("div", { class: "stack lens" }, showFull(a), top), controls);
  stage.addEventListener("sweeper-gone", () => clearInterval(timer));
  return stage;
}

/** @param {PageFile} a @param {PageFile} b @param {PairNames} names */
function makeSlider(a, b, names) {
  const top = el("div", { class: "layer" }, showFull(b));
  const line = el("div", { class: "slider-line" });
  const label = "How much of A is visible";
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
  return el("div", { class: "stage" }, stack, el("div", { class: "strip" }, `A ${names.a}`, range, `B ${names.b}`));
}

/** @param {PageFile} a @param {PageFile} b */
function makeDifference(a, b) {
  const canvas = el("canvas", { role: "img", "aria-label": "Difference of the two pictures; black where they are equal" });
  const label = "How much differences are amplified";
  const gain = el("input", { type: "range", min: 0, max: 6, step: 1, value: 2, "aria-label": label, oninput: amplify });
  const status = el("span", {});
  function amplify() {
    const factor = 2 ** Number(gain.value);
    canvas.style.filter = `brightness(${factor})`;
    status.textContent = `× ${factor}`;
  }
  amplify();
  drawDifference(canvas, a, b).then((problem) => {
    if (problem) status.textContent = problem;
  });
  const controls = el("div", { class: "strip" }, "difference", gain, status);
  return el("div", { class: "stage" }, el("div", { class: "stack lens" }, canvas), controls);
}

/**
 * Draw the difference; returns the reason if that is not possible, else "".
 * @param {HTMLCanvasElement} canvas @param {PageFile} a @param {PageFile} b
 */
async function drawDifference(canvas, a, b) {
  const [one, two] = [a, b].map((file) => Object.assign(new Image(), { src: Dom.toUrl(file.path) }));
  try {
    await Promise.all([one.decode(), two.decode()]);
  } catch {
    return "one of the pictures cannot be read";
  }
  const [width, height] = [one.naturalWidth, one.naturalHeight];
  if (width !== two.naturalWidth || height !== two.naturalHeight)
    {return `${width} × ${height} against ${two.naturalWidth} × ${two.naturalHeight}: only pictures of the same size have a difference`;}
  Object.assign(canvas, { width, height });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.drawImage(one, 0, 0);
  pen.globalCompositeOperation = "difference";
  pen.drawImage(two, 0, 0);
  canvas.dataset.done = "true";
  return "";
}
