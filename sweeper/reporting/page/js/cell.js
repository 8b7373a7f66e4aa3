// One cell of the grid: its pictures, or the reason why there are none, and the texts about it.

import { el, toUrl } from "../../../serving/page/js/dom.js";
import * as GridGeometry from "./grid_geometry.js";
import * as Layout from "./layout.js";
import * as Media from "./media.js";
import * as Params from "./params.js";
import * as PlotData from "./plot_data.js";
import * as Sprites from "./sprites.js";
import * as TextWidth from "./text_width.js";
import * as ValueText from "./value_text.js";
/** @import { Axis, Column } from "./columns.js" */
/** @import { CheckFinding, Dataset, PageFile } from "./dataset.js" */
/** @import { Context } from "./main.js" */
/** @import { Marks } from "./marks.js" */

/**
 * @typedef {Context & CellOptions} CellContext
 * @typedef {object} CellOptions
 * @property {(image: HTMLImageElement, url: string) => void} load decides when a picture is loaded
 * @property {Sprites.Box} box pixels of the picture
 * @property {Axis[][]} groups the axes of each line of a caption
 * @property {boolean} hasCaptions
 * @property {boolean} skipsCaptions whether the grid scrolls too fast for captions to be read
 */

const LARGE = 96; // pixels from which on a cell has room for words and several files
const NAMED = 120; // pixels from which on a caption has room for names
const RANKS = ["①", "②", "③"];
const MAX_SPARE = 600;
/** @type {Record<string, string>} */
const STATUS_WORDS = {
  failed: "failed",
  cancelled: "cancelled",
  pending: "", // an empty cell says it: a hundred words in a hundred cells would not
  running: "running",
  succeeded: "no file",
};
/** @type {Record<string, string>} */
const SIGNS = { same: "=", changed: "≠", new: "+", missing: "−", failed: "!", "not compared": "?", gone: "∅", cancelled: "×", pending: "…", running: "…" };

/** @typedef {{sprite: HTMLElement, caption: HTMLElement, image: HTMLImageElement | null}} SimpleParts */
/** @type {WeakMap<HTMLElement, SimpleParts>} cell -> what it shows a simple trial with */
const simpleParts = new WeakMap();
/** @type {HTMLElement[]} cells of a grid that was closed, for the next one */
const spare = [];

export const create = () => spare.pop() ?? el("div", { class: "cell", role: "gridcell" });

/** Remove a cell and keep it for the next grid. @param {HTMLElement} node */
export function release(node) {
  node.remove();
  for (const name of ["aria-label", "title"]) node.removeAttribute(name); // they describe a trial that the next grid may not show
  if (spare.length < MAX_SPARE) spare.push(node);
}

/**
 * Show a trial in a cell. If `brief`, texts that are not visible may wait for `completeTexts`, and the caption too if
 * the context `skipsCaptions`; returns whether they do.
 * @param {HTMLElement} node
 * @param {number} row negative for a combination that is not in the plan
 * @param {number[] | null} stack all trials of the cell, if there are several
 * @param {CellContext} context @param {boolean} brief
 */
export function showTrial(node, row, stack, context, brief = false) {
  if (row < 0) {
    showEmpty(node, row);
    return false;
  }
  if (!stack && isSimple(row, context.dataset)) {
    showSimple(node, row, context);
    if (!brief) describe(node, row, context);
    return brief;
  }
  const { dataset, marks, box } = context;
  const preview = node.dataset.row === String(row) ? node.querySelector("img") : null;
  const status = dataset.status(row);
  const files = dataset.files(row);
  node.className = `cell ${status}`;
  node.dataset.row = String(row);
  node.dataset.trial = String(dataset.trial(row));
  node.draggable = files.length > 0;
  const parts = [makeFrame(row, context, preview?.classList.contains("preview") ? preview : null)];
  const summary = stack && summarize(dataset, stack);
  const most = countShown(box);
  if (summary) parts.push(makeStackBadge(summary, box[0]));
  else if (files.length > most) parts.push(el("span", { class: "badge" }, Media.describeCount(files, Media.choose(files, most))));
  const finding = dataset.finding(row);
  if (finding) parts.push(makeCheckLabel(finding, node, box[0]));
  if (context.hasCaptions) {
    const caption = el("span");
    fillCaption(caption, makeCaption(row, stack, context), box[0], context.tint(stack ?? [row]));
    parts.push(caption);
  }
  node.replaceChildren(...parts);
  showMark(node, row, marks);
  describe(node, row, context, summary);
  return false;
}

/** @param {HTMLElement} node @param {number} row */
function showEmpty(node, row) {
  node.className = "cell none";
  node.dataset.row = String(row);
  for (const name of ["title", "aria-label", "data-trial"]) node.removeAttribute(name);
  node.draggable = false;
  node.replaceChildren();
}

/**
 * Whether a trial succeeded with one picture that has a sprite: nearly all cells of a large grid are like that.
 * @param {number} row @param {Dataset} dataset
 */
function isSimple(row, dataset) {
  const files = dataset.files(row);
  if (files.length !== 1 || files[0].kind !== "image" || Media.getSign(files[0]) || !files[0].thumb || !Sprites.has(files[0])) return false;
  return dataset.status(row) === "succeeded" && !dataset.raw.check;
}

/**
 * Show a simple trial. The cell keeps its elements, so scrolling neither makes elements nor throws any away.
 * @param {HTMLElement} node @param {number} row @param {CellContext} context
 */
function showSimple(node, row, context) {
  const { dataset, marks, box } = context;
  const [file] = dataset.files(row);
  const parts = simpleParts.get(node) ?? { sprite: el("span"), image: null, caption: el("span") };
  simpleParts.set(node, parts);
  if (node.className !== "cell succeeded plain") node.className = "cell succeeded plain";
  node.dataset.row = String(row);
  node.dataset.trial = String(dataset.trial(row));
  node.draggable = true;
  const style = Sprites.centreStyle(file, box);
  Sprites.show(parts.sprite, file, style, () => {
    parts.image ??= Media.reportLoss(el("img", { alt: "", decoding: "sync", draggable: "false" }));
    parts.image.style.cssText = style;
    parts.image.src = toUrl(pickPicture(file, context));
    return parts.image;
  });
  // A text costs a layout of its cell, and memory until the browser collects the old one.
  if (context.hasCaptions) fillCaption(parts.caption, context.skipsCaptions ? [] : makeCaption(row, null, context), box[0], context.tint([row]));
  const wanted = context.hasCaptions ? [parts.sprite, parts.caption] : [parts.sprite];
  const { childNodes } = node;
  if (childNodes.length !== wanted.length || wanted.some((part, index) => part !== childNodes[index])) node.replaceChildren(...wanted);
  if (marks.has(row)) showMark(node, row, marks);
}

/** Load the pictures of a cell that still shows sprites. Returns how many. @param {HTMLElement} node */
export const sharpen = (node) => [...node.getElementsByClassName("sprite")].filter(Sprites.sharpen).length;

/**
 * Write a caption, shortened here. CSS could cut it off too, but the browser visits every clip in every frame.
 * @param {HTMLElement} node @param {string[]} lines
 * @param {number} width pixels
 * @param {string} tint the colour of the line below it
 */
function fillCaption(node, lines, width, tint) {
  const shortened = lines.map((line) => TextWidth.shorten(line, width - 10));
  const text = lines.map((line, index) => shortened[index] ?? line).join("\n");
  const classes = shortened.includes(undefined) ? "caption cut" : "caption";
  if (node.className !== classes) node.className = classes;
  const old = /** @type {Text | null} */ (node.firstChild);
  if (old && text) {
    if (old.data !== text) old.data = text;
  } else if ((old?.data ?? "") !== text) node.textContent = text;
  const colour = tint === "transparent" ? "" : tint;
  if (node.style.getPropertyValue("--tint") !== colour) node.style.setProperty("--tint", colour);
}

/** Mark an empty cell whose trials are in the plan, but not in this view. @param {HTMLElement} node */
export function markFiltered(node) {
  node.classList.add("filtered");
  node.setAttribute("aria-label", "left out by the filter");
  node.title = "Left out by the filter, or by the values chosen for the other axes";
}

/**
 * Explain in an empty cell which rule excludes its combination from the plan.
 * @param {HTMLElement} node @param {Layout.AxisValue[]} values @param {Dataset} dataset
 */
export function markExcluded(node, values, dataset) {
  node.title = dataset.explainExclusion(new Map(values.map(([axis, code]) => [axis.name, code])));
  node.setAttribute("aria-label", node.title);
}

// --- several trials in one cell

/**
 * @typedef {object} StackSummary
 * @property {string} words how many of the trials have which state
 * @property {number} more how many trials are hidden below the first
 * @property {string} kind the most urgent state among those, unless the first trial has it too; else ""
 * @property {number} count how many trials have that state
 */

// From the most urgent on. A trial that was checked has a status and a state of the check; the more urgent one counts.
const URGENCY = ["failed", "changed", "missing", "cancelled", "pending", "running", "not compared", "new", "gone"];

/** @param {string} kind */
export const describeKind = (kind) => (kind === "pending" ? "not run yet" : kind);

/**
 * The more urgent of a trial's status and its state of the check; `same` or `succeeded` if neither is urgent.
 * @param {Dataset} dataset @param {number} row @returns {string}
 */
function findKind(dataset, row) {
  const [status, state] = [dataset.status(row), dataset.finding(row)?.state];
  return URGENCY.find((kind) => kind === status || kind === state) ?? state ?? status;
}

/** @param {Dataset} dataset @param {number[]} rows of one cell, the first on top @returns {StackSummary} */
export function summarize(dataset, rows) {
  const kinds = rows.map((row) => findKind(dataset, row));
  const counts = ValueText.countEach(kinds);
  const parts = [...counts].map(([kind, count]) => `${count} ${describeKind(kind)}`).join(", ");
  const below = new Set(kinds.slice(1));
  const urgent = URGENCY.find((kind) => below.has(kind)) ?? "";
  const kind = urgent === kinds[0] ? "" : urgent;
  return { words: `${rows.length} trials share this cell: ${parts}`, more: rows.length - 1, kind, count: counts.get(kind) ?? 0 };
}

/** How many trials lie below the one that is shown, and the most urgent state among them. @param {StackSummary} summary @param {number} size */
function makeStackBadge({ more, kind, count }, size) {
  const title = `${more + 1} trials share this cell: show them all`;
  if (!kind) return el("span", { class: "badge stacked", title }, `+${more}`);
  const words = `+${more} · ${count} ${describeKind(kind)}`;
  const fits = TextWidth.shorten(words, size - 20) === words;
  return el("span", { class: `badge stacked below-${kind.replace(" ", "-")}`, title }, fits ? words : `+${more} ${SIGNS[kind]}`);
}

/**
 * The state of the check, as a sign and a word, so that it does not depend on colour alone.
 * @param {CheckFinding} finding @param {HTMLElement} node @param {number} size
 */
function makeCheckLabel({ state }, node, size) {
  node.classList.add(`check-${state.replace(" ", "-")}`);
  const sign = SIGNS[state] ?? "?";
  return el("span", { class: "verdict" }, size >= LARGE ? `${sign} ${state}` : sign);
}

/** How many files of a trial its cell shows. @param {Sprites.Box} box */
const countShown = ([width]) => (width >= LARGE ? 4 : 1);

/** The path of the picture that a cell shows: the file itself if each pixel shall be seen. @param {PageFile} file @param {CellContext} context */
const pickPicture = (file, { state, box, dataset }) =>
  state.fit === "pixels" && Media.canShow(file) ? file.path : Media.pickThumbnail(file, Math.max(...box), dataset.raw.sides);

/**
 * The files of a trial; without files its status and the reason.
 * @param {number} row @param {CellContext} context
 * @param {HTMLImageElement | null} preview the cell's last preview of this trial
 */
function makeFrame(row, context, preview) {
  const { dataset, load, box } = context;
  const files = dataset.files(row);
  if (files.length === 0) return makeStatusFrame(row, context, preview);
  /** @param {PageFile} file */
  const toSource = (file) => (file.thumb ? toUrl(pickPicture(file, context)) : undefined);
  const [first] = files;
  if (files.length === 1 && first.kind === "image" && first.thumb && !Media.getSign(first)) {
    return Media.create(first, { src: toSource(first), load, box, isFrame: true });
  }
  const shown = Media.choose(files, countShown(box));
  /** @type {Sprites.Box} */
  const part = shown.length > 1 ? [(box[0] - 2) / 2, shown.length > 2 ? (box[1] - 2) / 2 : box[1]] : box;
  const nodes = shown.map((file) => Media.addSign(file, Media.create(file, { src: toSource(file), load, box: part })));
  return el("span", { class: shown.length > 1 ? "frame several" : "frame" }, nodes);
}

/** @param {number} row @param {CellContext} context @param {HTMLImageElement | null} preview */
function makeStatusFrame(row, { dataset, box }, preview) {
  const frame = el("span", { class: "frame" });
  const status = dataset.status(row);
  const [, value, maximum, previewNumber] = dataset.progress(row) ?? ["", 0, 0, 0];
  if (previewNumber) {
    // Keep the element: it shows the last preview until the next one is loaded.
    const image = preview ?? el("img", { alt: "", class: "preview", draggable: "false" });
    image.src = `preview/${dataset.trial(row)}?${previewNumber}`;
    frame.append(image);
  } else frame.append(el("span", { class: "word" }, STATUS_WORDS[status]));
  if (status === "running") frame.append(el("progress", { max: maximum || null, value: maximum ? value : null }));
  else if (box[0] >= LARGE && status === "failed") frame.append(el("span", { class: "why" }, dataset.isCommon(row) ? dataset.cause(row) : dataset.reason(row)));
  return frame;
}

/**
 * The lines of a caption: the number that colours the cell, and the settings that neither row nor column says. Without
 * either it is the trial's number.
 * @param {number} row @param {number[] | null} stack all trials of the cell, if there are several
 * @param {CellContext} context
 */
function makeCaption(row, stack, context) {
  const { dataset, colour, groups, box } = context;
  const isNamed = box[0] >= NAMED;
  const lines = groups.map((axes) => describeValues(row, axes, box[0]));
  if (colour) lines.unshift(describeNumber(row, stack, colour, isNamed ? `${colour.name} ` : "", context));
  return lines.length > 0 ? lines : [isNamed ? `trial ${dataset.trial(row)}` : String(dataset.trial(row))];
}

/** The values of a row on some axes, with as many names as fit into some pixels. @param {number} row @param {Axis[]} axes @param {number} width */
export function describeValues(row, axes, width) {
  const getLabel = (/** @type {Axis} */ axis) => axis.labelOf(axis.codes[row]);
  // A value in brackets, such as "(none)", always needs the name of its axis.
  const needsName = (/** @type {string} */ label) => label.startsWith("(") || (width >= NAMED && label.length <= GridGeometry.LONG);
  const describe = (/** @type {Axis} */ axis) => (needsName(getLabel(axis)) ? `${axis.name} ${getLabel(axis)}` : getLabel(axis));
  // Rather all values than all names. A word such as "a fox", and the letter of a seed, say more without one than a number does.
  const ways = [describe, (/** @type {Axis} */ axis) => (/^\p{L}/u.test(getLabel(axis)) ? getLabel(axis) : describe(axis)), getLabel];
  const texts = ways.map((write) => Layout.joinWords(axes, write, getLabel));
  return texts.find((text) => TextWidth.shorten(text, width - 10) === text) ?? texts[2];
}

/**
 * The number that colours a cell; of several trials their mean, or that of the one on top.
 * @param {number} row @param {number[] | null} stack @param {Column} colour @param {string} name
 * @param {CellContext} context
 */
function describeNumber(row, stack, colour, name, { state, ranks }) {
  const mean = stack && state.stack === "first" ? PlotData.computeMean(stack.map((each) => colour.value(each))) : colour.value(row);
  const number = typeof mean === "number" ? (colour.format ?? ValueText.toRounded)(mean) : colour.label(row) || "no value";
  if (stack) return `${state.stack === "first" ? "mean" : state.stack} ${name}${number} of ${stack.length}`;
  const rank = ranks.get(row);
  return `${rank === undefined ? "" : `${RANKS[rank]} `}${name}${number}`;
}

/** Show keep or reject, stars and whether there is a comment. @param {HTMLElement} node @param {number} row @param {Marks} marks */
export function showMark(node, row, marks) {
  const { verdict, stars, comment } = marks.get(row);
  node.classList.toggle("keep", verdict === "keep");
  node.classList.toggle("reject", verdict === "reject");
  node.querySelector(".stars")?.remove();
  const text = (marks.picked.has(row) ? "☑ " : "") + "★".repeat(stars) + (comment ? " ✎" : "");
  if (text) node.append(el("span", { class: "stars" }, text));
}

/** Write the texts that a brief `showTrial` left out. @param {HTMLElement} node @param {number} row @param {CellContext} context */
export function completeTexts(node, row, context) {
  const parts = simpleParts.get(node);
  if (context.hasCaptions && parts) fillCaption(parts.caption, makeCaption(row, null, context), context.box[0], context.tint([row]));
  describe(node, row, context);
}

/**
 * Write the tooltip and the text for screen readers.
 * @param {HTMLElement} node @param {number} row @param {Context} context
 * @param {StackSummary | null} [summary] of the trials that share the cell
 */
export function describe(node, row, { dataset, marks, free }, summary = null) {
  const missing = free.filter((axis) => axis.codes[row] < 0).map((axis) => `${axis.name}: ${axis.labelOf(-1)}`); // the caption has them too
  const [title, short] = [dataset.title(row), Params.makeTitle(dataset, row)].map((text) => [text, ...missing].join(" · "));
  const reason = dataset.reason(row);
  const finding = dataset.finding(row);
  const check = finding ? [`check: ${finding.state}`, finding.reason].filter(Boolean).join(", ") : "";
  const { verdict, stars, comment } = marks.get(row);
  node.title = [title, reason, check, summary?.words].filter(Boolean).join("\n");
  const words = [
    `trial ${dataset.trial(row)}`,
    short,
    dataset.status(row),
    Media.describeKinds(dataset.files(row)),
    reason,
    check,
    verdict,
    stars ? `${stars} stars` : "",
    comment,
    marks.picked.has(row) ? "in the tray" : "",
    summary?.words,
  ];
  node.setAttribute("aria-label", words.filter(Boolean).join(", "));
}
