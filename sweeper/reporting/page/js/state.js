// The view as a value, and as the part of the address behind `#`: everybody who opens the address sees the same view.

import * as DecideData from "./decide_data.js";
import * as Layout from "./layout.js";
import * as ValueText from "./value_text.js";
/** @import { Axis } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */

/**
 * @typedef {object} State
 * @property {string} view "decide", "search", "grid", "gallery", "table" or "plots"
 * @property {string} where the filter
 * @property {string} colour the column that colours the cells; "" for none
 * @property {string} metric the number that the plots show, and the objective in the charts of a search
 * @property {string} against the number across of the scatter plot
 * @property {string} lines the axis with one line for each value in the plots
 * @property {string} sort the column that sorts the table and the gallery; `-` before it sorts descending
 * @property {string} stack which trial a cell shows that several share: one of STACKS
 * @property {string} columns of the table, as JSON; "" for the usual ones
 * @property {string} open a trial whose cell is open as a strip; "" for none
 * @property {string} trial the trial that is open in the dialog; "" for none
 * @property {string} with the trial beside it, "accepted", or ""
 * @property {string} by what Decide judges by: a metric, `-` before it if less is better, or the marks; "" for the usual one
 * @property {string} choice the trial that Decide shows; "" for the best
 * @property {string} file index of the file shown
 * @property {string} mode how two files are compared: one of MODES
 * @property {string} fit how the size of cells is chosen: one of FITS, or "" for the size that follows
 * @property {number} size pixels of a cell's width
 * @property {boolean} captions
 * @property {string} x the axis in each direction; "" for none
 * @property {string} y
 * @property {string} xx
 * @property {string} yy
 * @property {string} time the axis that plays, one value of it in all cells; "" for none
 * @property {string} play "on" while it plays
 * @property {number[]} picks the trials in the tray
 * @property {Record<string, number>} pins by axis the code that is chosen
 * @property {Record<string, number[]>} hidden by axis the codes that are hidden
 * @property {Record<string, number[]>} order by axis the codes in the wanted order
 */

/** @type {Record<string, string>} what pictures fit into */
export const FITS = { all: "all in view", width: "as wide as the window", pixels: "1:1, each pixel" };
const DEFAULTS = {
  view: "grid",
  where: "",
  colour: "",
  metric: "",
  against: "",
  lines: "",
  sort: "trial",
  stack: "first",
  columns: "",
  open: "",
  trial: "",
  with: "",
  by: "",
  choice: "",
  file: "0",
  mode: "single",
  fit: "all",
  time: "",
  play: "",
};
const TEXT_KEYS = /** @type {(keyof typeof DEFAULTS)[]} */ (Object.keys(DEFAULTS));
const TRIAL_KEYS = /** @type {const} */ (["trial", "with", "choice", "open"]); // trial numbers, which change when the sweep grows
export const MAX_PICKS = 9;
const USUAL_SIZE = 160; // pixels
/** @type {[key: keyof typeof DEFAULTS, choices: string[]][]} */
const CHOICES = [
  ["view", ["decide", "grid", "gallery", "table", "plots", "search"]],
  ["stack", ["first", "highest", "lowest"]],
  ["mode", ["picked", "single", "side", "blink", "slider", "difference"]],
  ["fit", Object.keys(FITS)],
];

/** The settings by axis. They have no prototype, since an axis may be called `__proto__` or `constructor`. */
const makeAxisSettings = () => ({ pins: Object.create(null), hidden: Object.create(null), order: Object.create(null) });

/**
 * A copy with `name` set, or removed if the value is undefined.
 * @template T
 * @param {Record<string, T>} settings @param {string} name @param {T | undefined} value @returns {Record<string, T>}
 */
export function withEntry(settings, name, value) {
  const copy = Object.assign(Object.create(null), settings, Object.fromEntries([[name, value]]));
  if (value === undefined) delete copy[name];
  return copy;
}

/** The state of an address without any setting. @param {Dataset} dataset @returns {State} */
export function makeInitial(dataset) {
  const review = dataset.raw.check?.is_review ? makeReview(dataset) : {};
  const search = dataset.raw.search ? makeSearchStart(dataset.raw.search.objectives[0]) : {};
  const state = { ...DEFAULTS, ...Layout.chooseFirstView(dataset), ...search, size: USUAL_SIZE, captions: true, picks: /** @type {number[]} */ ([]), ...makeAxisSettings(), ...review };
  const { axes = {}, view } = dataset.raw.first ?? {}; // what a notebook asks for
  const directions = /** @type {[Layout.Direction, string][]} */ (Object.entries(axes));
  return { ...directions.reduce((result, [direction, name]) => withAxis(result, direction, name), state), view: view ?? (DecideData.canDecide(dataset) && !dataset.raw.live?.running ? "decide" : state.view) };
}

/**
 * What differs in the first view of a search: the best come first, and lie on top where several trials share a cell.
 * @param {{column: string, maximize: boolean}} objective
 */
const makeSearchStart = ({ column, maximize }) => ({
  view: "search",
  colour: column,
  sort: `${maximize ? "-" : ""}${column}`,
  stack: maximize ? "highest" : "lowest",
});

/** What differs in the first view of a check: what is not the same comes first, each beside the accepted file. @param {Dataset} dataset */
function makeReview(dataset) {
  const beside = { mode: "side", with: "accepted" };
  const isSame = dataset.filterRows((row) => dataset.finding(row)?.state !== "same").length === 0;
  return isSame ? beside : { ...beside, view: "gallery", where: "check != 'same'", sort: "-check_severity" };
}

/** Write the settings that differ from the initial state. @param {State} state @param {State} initial @param {Dataset} dataset */
export function write(state, initial, dataset) {
  const params = new URLSearchParams();
  const { DIRECTIONS } = Layout;
  // Write all directions or none: a larger sweep may have another first view, which must not fill in the rest.
  const hasSettings = [state.pins, state.hidden, state.order].some((settings) => Object.keys(settings).length > 0);
  if (hasSettings || DIRECTIONS.some((direction) => state[direction] !== initial[direction]))
    {for (const direction of DIRECTIONS) params.set(direction, state[direction]);}
  for (const key of TEXT_KEYS) {
    const text = TRIAL_KEYS.some((name) => name === key) ? writeTrial(dataset, state[key]) : state[key];
    // An address without a view is older than Decide: see `read`.
    const isSaid = text !== initial[key] || (key === "view" && text === "decide");
    if (isSaid && !(key === "fit" && text === "")) params.set(key, text);
  }
  for (const trial of state.picks) params.append("pick", writeTrial(dataset, String(trial)));
  if (state.fit === "") params.set("size", String(state.size));
  if (state.captions !== initial.captions) params.set("captions", String(state.captions));
  for (const axis of dataset.axes) {
    const pin = state.pins[axis.name];
    const order = state.order[axis.name] ? trimOrder(axis, state) : [];
    const hidden = state.hidden[axis.name] ?? [];
    if (pin !== undefined) params.append("pin", writeValues(axis, [pin]));
    if (hidden.length > 0) params.append("hide", writeValues(axis, hidden));
    if (order.length > 0) params.append("order", writeValues(axis, order));
  }
  return params.toString().replace(/%(3A|2C)/g, decodeURIComponent); // `:` and `,` need no escape and are easier to read
}

/** The codes of an axis in their order, without those at the end that are in the usual order anyway. @param {Axis} axis @param {State} state */
function trimOrder(axis, state) {
  const order = Layout.orderCodes(axis, state);
  const ranks = order.map((code) => axis.order.indexOf(code));
  let count = order.length - 1;
  while (count > 0 && ranks[count - 1] < ranks[count]) count -= 1;
  return order.slice(0, count);
}

/**
 * Read an address, which somebody else may have written. Settings that make no sense keep their usual value.
 * @param {string} text @param {State} initial @param {Dataset} dataset @returns {State}
 */
export function read(text, initial, dataset) {
  const params = new URLSearchParams(text.replace(/^#/, ""));
  const state = { ...initial, ...makeAxisSettings() };
  if (initial.view === "decide" && params.size > 0) state.view = dataset.raw.search ? "search" : "grid";
  const picks = params.getAll("pick").map((trial) => dataset.row(Number(readTrial(dataset, trial) || NaN)));
  state.picks = [...new Set(picks)].flatMap((row) => (row === undefined ? [] : dataset.trial(row))).slice(0, MAX_PICKS);
  for (const key of TEXT_KEYS) state[key] = params.get(key) ?? state[key];
  for (const direction of Layout.DIRECTIONS) {
    const name = params.get(direction);
    if (name === null || (name !== "" && !dataset.axes.some((axis) => axis.name === name))) continue;
    for (const other of Layout.DIRECTIONS) if (name !== "" && state[other] === name) state[other] = ""; // an axis has one
    state[direction] = name;
  }
  for (const [key, choices] of CHOICES) if (!choices.includes(state[key])) state[key] = initial[key];
  if (state.view === "search" && !dataset.raw.search) state.view = initial.view;
  if (!/^\d{1,3}$/.test(state.file)) state.file = initial.file;
  const size = Number(params.get("size"));
  if (Number.isInteger(size) && size >= 48 && size <= 512) Object.assign(state, { size, fit: "" });
  if (params.has("captions")) state.captions = params.get("captions") === "true";
  for (const key of TRIAL_KEYS) state[key] = readTrial(dataset, state[key]);
  /** @param {string} name */
  const readEach = (name) => params.getAll(name).flatMap((one) => {
    const values = readValues(dataset, one);
    return values === null ? [] : [values];
  });
  for (const [axis, codes] of readEach("hide")) state.hidden[axis.name] = codes;
  for (const [axis, codes] of readEach("order")) state.order[axis.name] = codes;
  for (const [axis, [code]] of readEach("pin")) if (code !== undefined) state.pins[axis.name] = code;
  return state;
}

/**
 * Give an axis a direction. The axis that had it takes the other's old direction, so that it stays in view.
 * @param {State} state @param {Layout.Direction} direction
 * @param {string} name the axis, or "" for none
 * @returns {State}
 */
export function withAxis(state, direction, name) {
  const next = { ...state, [direction]: name };
  const old = Layout.DIRECTIONS.find((other) => other !== direction && name !== "" && state[other] === name);
  if (old !== undefined) next[old] = state[direction];
  return next;
}

// --- values and trials as words of the address: `steps:4`, `seed:5,"a fox, far away"`. They are written by value and not by
// index, so that an address keeps its meaning when the sweep grows.

const WORD = /"(?:[^"\\]|\\.)*"|[^,:"]+/g; // `:` and `,` are there for readers
const MAX_LETTERS = 48; // of a value that is written in full

/**
 * A value as one word. A short identifier stands as it is; a long text is cut and ends with a checksum of all of it.
 * @param {ValueText.Value} value @returns {string}
 */
function toWord(value) {
  if (typeof value === "string" && /^[A-Za-z_][\w.-]*$/.test(value) && !/^(true|false|null)$/.test(value) && value.length <= MAX_LETTERS)
    {return value;}
  const letters = [...(typeof value === "string" ? value : ValueText.toJson(value))];
  if (letters.length > MAX_LETTERS) return JSON.stringify(`${letters.slice(0, MAX_LETTERS / 2).join("")}…${checksum(letters)}`);
  return typeof value === "string" || (typeof value === "object" && value !== null) ? JSON.stringify(letters.join("")) : ValueText.toJson(value);
}

/** @param {string[]} letters */
function checksum(letters) {
  const sum = letters.reduce((total, letter) => (Math.imul(total, 31) + /** @type {number} */ (letter.codePointAt(0))) >>> 0, 7);
  return sum.toString(36);
}

/** The words of a text, each as `toWord` writes it. @param {string} text */
const splitWords = (text) => (text.match(WORD) ?? []).map(normalizeWord);

/** A word as `toWord` writes it; a person may have written it differently. @param {string} word */
function normalizeWord(word) {
  if (/^(true|false|null|-?\d[\w.+-]*)$/.test(word)) return word;
  try {
    return toWord(word.startsWith('"') ? JSON.parse(word) : word);
  } catch {
    return word; // not a text, so it matches no value
  }
}

/** @param {Dataset} dataset @param {string} word */
const findAxis = (dataset, word) => dataset.axes.find((axis) => toWord(axis.name) === word);

/** A trial without a value has the word `null`, which no value has. @param {Axis} axis @param {number} code */
const codeWord = (axis, code) => toWord(code < 0 ? null : axis.values[code]);

/** @param {Axis} axis */
const codesByWord = (axis) => new Map(axis.order.map((code) => [codeWord(axis, code), code]));

/** Write an axis and some of its values, given by their codes. @param {Axis} axis @param {number[]} codes */
const writeValues = (axis, codes) => `${toWord(axis.name)}:${codes.map((code) => codeWord(axis, code)).join()}`;

/**
 * Read [axis, codes] from what `writeValues` wrote. Values that are gone are left out; null if the axis is gone.
 * @param {Dataset} dataset @param {string} text @returns {[Axis, number[]] | null}
 */
function readValues(dataset, text) {
  const [name, ...words] = splitWords(text);
  const axis = findAxis(dataset, name);
  if (axis === undefined) return null;
  const codes = codesByWord(axis);
  return [axis, words.flatMap((word) => codes.get(word) ?? [])];
}

/**
 * Write a trial number as the trial's values on all axes. If earlier trials have the same values, its number among
 * them follows.
 * @param {Dataset} dataset
 * @param {string} text a trial number; any other text is returned as it is
 */
function writeTrial(dataset, text) {
  const row = /^\d+$/.test(text) ? dataset.row(Number(text)) : undefined;
  if (row === undefined || dataset.axes.length === 0) return text;
  const values = dataset.axes.map((axis) => writeValues(axis, [axis.codes[row]])).join();
  let rank = 1;
  for (let other = 0; other < row; other++) if (dataset.axes.every((axis) => axis.codes[other] === axis.codes[row])) rank += 1;
  return rank > 1 ? `${values},${rank}` : values;
}

/** Read the number of the trial with these values; "" if there is none. A trial number is returned as it is. @param {Dataset} dataset @param {string} text */
function readTrial(dataset, text) {
  if (!text.includes(":")) return text;
  const words = splitWords(text);
  const rank = words.length % 2 ? Number(words.pop()) : 1;
  /** @type {[Axis, number | undefined][]} */
  const wanted = [];
  for (let index = 0; index < words.length; index += 2) {
    const axis = findAxis(dataset, words[index]);
    if (axis !== undefined) wanted.push([axis, codesByWord(axis).get(words[index + 1])]); // an axis that is gone cannot select
  }
  let count = 0;
  for (let row = 0; wanted.length > 0 && row < dataset.size; row++) {
    if (wanted.every(([axis, code]) => axis.codes[row] === code) && ++count === rank) return String(dataset.trial(row));
  }
  return "";
}
