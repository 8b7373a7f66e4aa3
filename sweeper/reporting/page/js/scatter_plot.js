// @ts-check
// Two numbers of each trial against each other, on a canvas because there may be ten thousand trials.

import * as Colours from "./colours.js";
import { el } from "./dom.js";
import * as Params from "./params.js";
import * as PlotData from "./plot_data.js";
/** @import { Column } from "./columns.js" */
/** @import { Context } from "./main.js" */

const [WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN] = [640, 400, 64, 36, 12]; // pixels of the canvas
const REACH = 12; // pixels from a dot within which a pointer means it

/** @typedef {{row: number, x: number, y: number}} Dot x, y: pixels */

/**
 * @param {number[]} allRows @param {Column} across @param {Column} up @param {Context} context
 * @returns {Element[]}
 */
export function create(allRows, across, up, context) {
  const rows = allRows.filter((row) => typeof across.value(row) === "number");
  if (rows.length === 0) return [el("p", { class: "empty" }, `No trial in view has a value of ${across.name}.`)];
  const [xTicks, yTicks] = [across, up].map((column) => PlotData.makeTicks(Colours.findExtent(rows.map((row) => column.value(row))) ?? [0, 0]));
  const toX = (/** @type {number} */ value) => LEFT + share(value, xTicks) * (WIDTH - LEFT - MARGIN);
  const toY = (/** @type {number} */ value) => HEIGHT - BOTTOM - share(value, yTicks) * (HEIGHT - BOTTOM - MARGIN);
  const dots = rows.map((row) => ({ row, x: toX(across.value(row)), y: toY(up.value(row)) }));
  const label = `${up.name} against ${across.name}, ${rows.length} trials; use the arrow keys to read them in order, Enter to open one`;
  const canvas = el("canvas", { width: WIDTH, height: HEIGHT, class: "scatter", tabindex: 0, role: "img", "aria-label": label });
  const status = el("p", { class: "dim", role: "status" }, "Point at a dot to read it; press it to open its trial.");
  draw();
  listen(canvas, [...dots].sort((a, b) => a.x - b.x), (dot) => {
    draw(dot);
    const { dataset } = context;
    const values = `${across.name} ${across.label(dot.row)}, ${up.name} ${up.label(dot.row)}`;
    status.textContent = `trial ${dataset.trial(dot.row)}: ${values} · ${Params.makeTitle(dataset, dot.row)}`;
  }, (dot) => context.open(dot.row));
  return [canvas, status];

  /** @param {Dot} [chosen] */
  function draw(chosen) {
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const style = getComputedStyle(document.documentElement);
    pen.clearRect(0, 0, WIDTH, HEIGHT);
    pen.font = "13px system-ui, sans-serif";
    pen.fillStyle = pen.strokeStyle = style.getPropertyValue("--spread");
    drawFrame(pen, { xTicks, yTicks, toX, toY }, [across.name, up.name]);
    pen.globalAlpha = rows.length > 400 ? 0.45 : 0.8;
    pen.fillStyle = Colours.LINES[0];
    for (const { x, y } of dots) pen.fillRect(x - 2.5, y - 2.5, 5, 5);
    pen.globalAlpha = 1;
    if (chosen) pen.strokeRect(chosen.x - 6, chosen.y - 6, 12, 12);
  }
}

/** @param {number} value @param {number[]} ticks */
const share = (value, ticks) => Colours.toShare(value, [ticks[0], ticks[ticks.length - 1]]);

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {{xTicks: number[], yTicks: number[], toX: (value: number) => number, toY: (value: number) => number}} scale
 * @param {string[]} names
 */
function drawFrame(pen, { xTicks, yTicks, toX, toY }, [across, up]) {
  const { formatShort } = PlotData;
  pen.globalAlpha = 0.3;
  for (const tick of yTicks) pen.fillRect(LEFT, toY(tick), WIDTH - LEFT - MARGIN, 1);
  for (const tick of xTicks) pen.fillRect(toX(tick), MARGIN, 1, HEIGHT - BOTTOM - MARGIN);
  pen.globalAlpha = 1;
  pen.textAlign = "right";
  for (const tick of yTicks) pen.fillText(formatShort(tick), LEFT - 6, toY(tick) + 4);
  pen.fillText(`${across} →`, WIDTH - MARGIN, HEIGHT - 4);
  pen.textAlign = "center";
  for (const tick of xTicks) pen.fillText(formatShort(tick), toX(tick), HEIGHT - BOTTOM + 16);
  pen.textAlign = "left";
  pen.fillText(`↑ ${up}`, LEFT + 4, MARGIN + 8);
}

/**
 * Let a pointer and the arrow keys choose a dot.
 * @param {HTMLCanvasElement} canvas
 * @param {Dot[]} dots from left to right
 * @param {(dot: Dot) => void} choose @param {(dot: Dot) => void} open
 */
function listen(canvas, dots, choose, open) {
  let current = -1;
  /** @param {number} index */
  function show(index) {
    current = Math.min(Math.max(index, 0), dots.length - 1);
    choose(dots[current]);
  }
  /** @param {MouseEvent} event */
  function findIndex(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) / box.width) * WIDTH, ((event.clientY - box.top) / box.height) * HEIGHT];
    let [best, least] = [-1, REACH];
    dots.forEach((dot, index) => {
      const distance = Math.hypot(dot.x - x, dot.y - y);
      if (distance < least) [best, least] = [index, distance];
    });
    return best;
  }
  canvas.addEventListener("pointermove", (event) => {
    const index = findIndex(event);
    if (index >= 0 && index !== current) show(index);
  });
  canvas.addEventListener("click", (event) => {
    const index = findIndex(event);
    if (index >= 0) open(dots[index]);
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && current >= 0) {
      event.preventDefault(); // otherwise the key would press the button of the dialog that has the focus then
      return open(dots[current]);
    }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    show(current + step);
    event.preventDefault();
  });
}
