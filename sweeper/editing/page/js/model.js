// The state of `sweeper open`, what a change does to it until the server's answer says it exactly, and values as texts. No DOM.

/**
 * @typedef {{address: string, others: string[], slot: string | null, node: string, title: string, class: string, role: string, group: "app" | "often" | "other",
 *   type: string, schema: Record<string, any> | null, step: number | null, value: any, multiline: boolean, choices: number | null, model: boolean}} Input
 * @typedef {{name: string, value: any, yaml: string, zip: number | null, line: number}} Axis
 * @typedef {{name: string, value: any, yaml: string, line: number}} Fixed
 * @typedef {{key: string | null, message: string, text: string, slot: string | null}} Problem
 * @typedef {{trials: number, jobs: number, done: number, axes: Record<string, number>, seconds: string | null, cost: string | null}} Plan
 * @typedef {{state: "running" | "stopping" | "ended", kind: "run" | "rehearse", exit_code: number | null, messages: string[], command: string, has_begun: boolean, question: string | null}} Run
 * @typedef {{target: string | null, targets: string[], experiments: any[], workflows: any[], jobs: any[], problem: string | null}} Sources
 * @typedef {{number: number, mode: "start" | "edit", problem: string | null, sources: Sources, version: string, file: string, folder: string,
 *   text: string, slots_file: string | null, command: string, can_undo: boolean, can_redo: boolean, diff: [string, string][],
 *   notice: string | null, name: string, template: string, target: any, targets: string[], budget: string | null, inputs: Input[],
 *   axes: Axis[], fixed: Fixed[], where: string | null, other: {key: string, yaml: string, line: number}[], blocks: number,
 *   checking: boolean, problems: Problem[], notes: string[], plan: Plan | null, run: Run | null, report: string | null}} State
 * @typedef {Record<string, any>} Change see the routes of the server
 */

/** @param {State} state @param {Change[]} changes @returns {State} */
export const applyChanges = (state, changes) => changes.reduce(applyChange, state);

/** @param {State} state @param {Change} change @returns {State} */
function applyChange(state, change) {
  const { value, name = change.address } = change;
  const old = state.axes.find((axis) => axis.name === name);
  const next = { ...state, checking: true };
  if (change.set === "axis") {
    next.axes = replaceNamed(state.axes, name, { zip: null, line: 0, ...old, name, value, yaml: "" });
    next.fixed = replaceNamed(state.fixed, name);
  } else if (change.set === "fixed" || change.set === "none") {
    next.axes = replaceNamed(state.axes, name);
    next.fixed = replaceNamed(state.fixed, name, change.set === "fixed" ? { name, value, yaml: "", line: 0 } : undefined);
  } else if (change.set === "where") next.where = value;
  else if (change.set === "key" && change.path[0] === "target") next.target = value;
  else if (change.set === "key" && change.path[1] === "budget") next.budget = value;
  return next; // the answer will show the others
}

/** @template {{name: string}} T @param {T[]} items @param {string} name @param {T} [item] undefined: it goes @returns {T[]} */
function replaceNamed(items, name, item) {
  const at = items.findIndex((other) => other.name === name);
  const rest = items.filter((other) => other.name !== name);
  return item === undefined ? rest : rest.toSpliced(at < 0 ? rest.length : at, 0, item);
}

const FORMS = [["from", "range"], ...["seeds", "lines", "csv", "jsonl", "files", "models", "choices", "replace"].map((name) => [name, name])];
/** The name of the form of an axis. @param {any} value */
export const findForm = (value) => (Array.isArray(value) ? "values" : (FORMS.find(([key]) => key in Object(value))?.[1] ?? "other"));

/** The input that a name sets, if it is one. @param {State} state @param {string} name */
export const findInput = (state, name) => state.inputs.find(({ slot, address }) => slot === name || address === name);

/** What `params` gives an input. @param {State} state @param {Input} input */
export const findFixed = (state, { slot, address }) => state.fixed.find(({ name }) => name === slot || name === address);

/** What a change says to name an input. @param {Input} input */
export const nameInput = (input) => (input.slot === null ? { address: input.address } : { name: input.slot });

/** The same for an axis. @param {Axis} axis @param {Input | undefined} input */
export const nameAxis = ({ name }, input) => (input ? nameInput(input) : { name });

/** The short name of an input. @param {Input} input */
export const toLabel = (input) => input.slot ?? input.address.slice(input.address.indexOf(".") + 1);

/** Where an input is, or the inputs that are one slot because their nodes have the same value. @param {Input} input */
export const toSource = ({ title, address, others }) => `${title} · ${[address, ...others].join(", ")}`;

/** Problems that a field shows; all others stand on top. @param {State} state @param {string} name @returns {Problem[]} */
export const findProblems = (state, name) => state.problems.filter(({ slot }) => slot !== null && slot === name);

/** @param {State} state @returns {Problem[]} */
export function findOtherProblems(state) {
  const shown = new Set([...state.axes, ...state.fixed].map(({ name }) => name));
  return state.problems.filter((problem) => !isOfFilter(problem) && (problem.slot === null || !shown.has(problem.slot)));
}

/** Whether a problem is one of `where`. @param {Problem} problem */
export const isOfFilter = ({ key }) => /(^|[.\]])where$/.test(key ?? "");

/** @typedef {{value: any, error?: undefined} | {value?: undefined, error: string}} Parsed */

const LONG = 60; // characters of a text that is shortened to what tells it from the others
const SHOWN = 6; // values of a range that are listed, of at most
const MOST = 10_000; // that are computed here

/** @param {any} value @returns {string} */
export function toText(value) {
  if (typeof value === "string") return value;
  if (typeof value === "bigint") return String(value);
  return value === null || value === undefined ? "" : JSON.stringify(value, (_key, item) => (typeof item === "bigint" ? String(item) : item));
}

/** Read a typed text as a value of an input. @param {string} text @param {Input | undefined} input @returns {Parsed} */
export function parseText(text, input) {
  const value = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i.test(text) ? toNumber(text) : undefined;
  if (input === undefined) return { value: value ?? text };
  if (!isNumeric(input)) return { value: text };
  const { type } = input;
  const isWrong = value === undefined || (type === "integer" && typeof value === "number" && !Number.isInteger(value));
  if (isWrong) return { error: `found '${text}', but ${type === "integer" ? "an integer" : "a number"} is needed` };
  const { minimum, maximum } = input.schema ?? {};
  if (minimum !== undefined && value < minimum) return { error: `found ${format(value, type)}, but at least ${format(minimum, type)} is needed` };
  return maximum !== undefined && value > maximum ? { error: `found ${format(value, type)}, but at most ${format(maximum, type)} is needed` } : { value };
}

/** A number as the command line writes it: 7 of an input for numbers is 7.0. @param {any} value @param {string} type */
const format = (value, type) => (type === "number" && Number.isInteger(value) ? `${value}.0` : String(value));

/** @param {string} text of a number */
function toNumber(text) {
  const number = Number(text);
  return /^\s*[+-]?\d+\s*$/.test(text) && !Number.isSafeInteger(number) ? BigInt(text.trim()) : number;
}

/** @param {{type: string} | undefined} input */
export const isNumeric = (input) => input?.type === "integer" || input?.type === "number";

/** Several values of one text: numbers stand between commas, spaces or lines. @param {string} text @param {Input | undefined} input @returns {string[]} */
export const splitTyped = (text, input) => (isNumeric(input) ? text.split(/[\s,;]+/) : [text.trim()]).filter((part) => part !== "");

/** @param {string} text @returns {string[]} */
export const splitLines = (text) => text.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== "");

/** The value of an item of an axis, which may have a label. @param {any} item */
export const toPlain = (item) => (isLabelled(item) ? item.value : item);

/** @param {any} item @returns {boolean} */
export const isLabelled = (item) => item !== null && typeof item === "object" && "label" in item;

/** An item as one text: its label, or its value. @param {any} item */
export const toName = (item) => toText(isLabelled(item) ? item.label : item);

/** Long texts from where they differ from the most similar of the others. @param {string[]} texts @returns {string[]} */
export function shortenTexts(texts) {
  const sorted = texts.toSorted();
  return texts.map((text) => {
    if (text.length <= LONG) return text;
    const at = sorted.indexOf(text);
    const start = Math.max(countEqual(text, sorted[at - 1] ?? ""), countEqual(text, sorted[at + 1] ?? ""));
    return start < LONG ? text : `${text.slice(0, LONG / 3)}…${text.slice(text.lastIndexOf(" ", start - LONG / 6))}`;
  });
}

/** With how many equal characters two texts begin. @param {string} text @param {string} other */
function countEqual(text, other) {
  let count = 0;
  while (count < text.length && text[count] === other[count]) count += 1;
  return count;
}

/** @typedef {{from: any, to: any, step?: any, count?: any, scale?: string}} Range */

/** The numbers that a range gives; the server computes them exactly. @param {Range} range @returns {number[]} at most MOST */
export function listRange({ from, to, step, count, scale }) {
  const [first, last] = [Number(from), Number(to)];
  if (step !== undefined) {
    const digits = Math.max(...[from, to, step].map((number) => (/\.(\d+)/.exec(String(number))?.[1] ?? "").length));
    const size = (last - first) / Number(step);
    if (!(size >= 0)) return first === last ? [first] : [];
    return Array.from({ length: Math.min(MOST, Math.floor(size + 1e-9) + 1) }, (_, index) => Number((first + index * Number(step)).toFixed(digits)));
  }
  const length = first === last ? 1 : Math.min(MOST, Number(count));
  return Array.from({ length }, (_, index) => {
    const share = length > 1 ? index / (length - 1) : 0;
    return Number((scale === "log" ? first * (last / first) ** share : first + (last - first) * share).toPrecision(12));
  });
}

/** @param {any[]} values */
export const describeValues = (values) => (values.length > SHOWN ? [...values.slice(0, SHOWN - 2), "…", ...(values.length < MOST ? values.slice(-1) : [])] : values).map(toText).join(", ");

/** The range around some numbers. @param {number[]} numbers @param {number} step the usual step of the input @returns {Range} */
export function makeRange(numbers, step) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  if (low === high) return { from: low, to: Number((low + 2 * step).toPrecision(12)), step };
  return numbers.length > 2 ? { from: low, to: high, count: numbers.length } : { from: low, to: high, step: Number((high - low).toPrecision(12)) };
}

/** @param {number} count @param {string} thing */
export const countThings = (count, thing) => `${count.toLocaleString("en-US")} ${thing}${count === 1 ? "" : "s"}`;
