// The data of the page, decoded: columns, outcomes and files of all trials. A row is the index of a trial. No DOM.

import * as Columns from "./columns.js";
import * as ValueText from "./value_text.js";

/**
 * @typedef {object} PageFile  one file of the report
 * @property {"image" | "video" | "audio" | "other" | "missing" | "outside"} kind
 * @property {string} was its path on record
 * @property {string} path relative to the page; absent if the file is missing
 * @property {string} sha256 of its content
 * @property {number} [bytes]
 * @property {string} [thumb] path of its largest thumbnail
 * @property {number} width in pixels, like `height`; absent without a thumbnail
 * @property {number} height
 * @property {string} [colour] the mean colour as `#rrggbb`
 * @property {number} [frames]
 * @property {"nearly black" | "flat"} [look] of a picture that shows nothing
 * @property {boolean} [workflow] whether it is a PNG that holds its workflow
 * @property {number} [sprite] its index on the sprite sheets
 */
/** @typedef {[node: string, value: number, maximum: number, preview: number]} Progress what a server reports of a running job */
/** @typedef {[node: string, position: number]} Origin the node that made a file, and which of the node's files it is */
/**
 * @typedef {object} CheckFinding  what a check found of a trial
 * @property {string} state
 * @property {string} reason
 * @property {string} verdict whose change it is; "" if nobody asked
 * @property {string} text the lines in which two texts differ; "" for other files
 * @property {PageFile[]} accepted
 * @property {Origin[]} origins of the accepted files
 */

/** A list of the data, which may store equal values or consecutive numbers in short. @param {any} list @returns {any[]} */
function toList(list) {
  if (Array.isArray(list)) return list;
  return "each" in list ? new Array(list.count).fill(list.each) : Array.from({ length: list.count }, (_, index) => list.from + index);
}

/** One of many values, which the data may store as hashes joined to one text. @param {any[] | {joined: string}} values @param {number} index */
const getHash = (values, index) => (Array.isArray(values) ? values[index] : values.joined.slice(index * 64, (index + 1) * 64));

/** The files of the page. The data stores them in columns; each file is decoded when it is first used. */
class PageFiles {
  /** @param {{count: number, columns: Record<string, any>} | PageFile[]} raw a list as data.json has it */
  constructor(raw) {
    /** @type {(PageFile | undefined)[]} */
    this.decoded = Array.isArray(raw) ? raw : new Array(raw.count);
    this.columns = Array.isArray(raw) ? {} : raw.columns;
  }

  /** @param {number} index @returns {PageFile} */
  get(index) {
    return (this.decoded[index] ??= this.decode(index));
  }

  /** @param {number} index @returns {PageFile} */
  decode(index) {
    const entries = Object.entries(this.columns).map(([name, column]) => [name, this.valueAt(column, index)]);
    return Object.fromEntries(entries.filter(([, value]) => value !== null));
  }

  /**
   * @param {any} column a list of values, or one of the shorter forms that `_compress_column` of `dataset.py` describes
   * @param {number} index @returns {any}
   */
  valueAt(column, index) {
    if (column.made !== undefined) return column.made.replaceAll("*", this.valueAt(this.columns.sha256, index));
    if (column.below !== undefined) return column.below + this.valueAt(this.columns.was, index).split("/").at(-1);
    if (column.from !== undefined) return column.from + index;
    return "each" in column ? column.each : getHash(column, index);
  }

  /** Add a file and return its index. @param {PageFile} file */
  add(file) {
    return this.decoded.push(file) - 1;
  }

  /** One fact of a file, without decoding the others. @param {number} index @param {keyof PageFile} name @returns {any} */
  read(index, name) {
    const file = this.decoded[index];
    if (file !== undefined) return file[name];
    return this.columns[name] && this.valueAt(this.columns[name], index);
  }

  /** The first file of known size in pixels. */
  findSized() {
    for (let index = 0; index < this.decoded.length; index++) if (this.get(index).width > 0) return this.get(index);
    return undefined;
  }
}

export class Dataset {
  /** The format of the data that this page can read; `dataset.py` has the same number. */
  static FORMAT = 1;

  /** @param {any} raw the data as `data.js` has it */
  constructor(raw) {
    if (raw === undefined || raw.format !== Dataset.FORMAT) {
      throw new Error("data.js beside this page is missing or was written by another version of sweeper; write the report again");
    }
    this.raw = raw;
    for (const column of [...raw.columns, ...raw.outcome, ...raw.metrics, raw.places]) column.of = toList(column.of);
    for (const name of ["trials", "status"]) raw[name] = toList(raw[name]);
    for (const [name, numbers] of Object.entries(raw.job_numbers)) raw.job_numbers[name] = toList(numbers);
    /** @type {number} */
    this.size = raw.trials.length;
    const columns = /** @type {Columns.CodedColumn[]} */ (raw.columns.map(Columns.decode));
    for (const [index, column] of columns.entries()) Object.assign(column, { none: raw.columns[index].none, names: raw.columns[index].names });
    this.axes = columns.filter((column) => column.role === "axis").map(Columns.makeAxis);
    for (const words of columns.filter((column) => column.role === "label")) {
      const labelled = columns.find((column) => column.name === words.name.slice(0, -".label".length));
      if (labelled) Columns.applyLabels(labelled, words);
    }
    this.outcome = /** @type {Columns.CodedColumn[]} */ (raw.outcome.map(Columns.decode));
    const makeNumbers = (/** @type {string} */ role) => (/** @type {{name: string, of: (number | null)[]}} */ { name, of }) => Columns.makeNumbers(name, role, of);
    this.metrics = /** @type {Columns.NumberColumn[]} */ (raw.metrics.map(makeNumbers("metric")));
    this.check = /** @type {Columns.CodedColumn[]} */ ((raw.check?.columns ?? []).map(Columns.decode)); // [state, reason], or empty
    this.statusColumn = Columns.makeCoded("status", "outcome", raw.statuses, Int32Array.from(raw.status));
    this.trialColumn = Columns.makeNumbers("trial", "trial", raw.trials);
    this.jobNumbers = Object.entries(raw.job_numbers).map(([name, numbers]) => Columns.makeNumbers(name, "outcome", numbers));
    /** @type {Columns.Column[]} */
    this.columns = [this.trialColumn, ...columns, this.statusColumn, ...this.outcome, ...this.jobNumbers, ...this.metrics, ...this.check];
    this.columns.push(...(raw.check?.measures ?? []).map(makeNumbers("check")));
    this.byName = new Map(this.columns.map((column) => [column.name, column]));
    const look = (/** @type {number} */ row) => this.look(row);
    this.addColumn({ name: "picture", role: "outcome", codes: null, numbers: [], numeric: false, value: look, label: look });
    /** @type {Map<number, number> | null} made when a row is first looked for */
    this.rowByTrial = null;
    this.fileList = new PageFiles(raw.files);
    /** @type {Map<number, Progress | null>} row -> progress of the job that a server has; null before it reports any */
    this.running = new Map();
    /** @type {((wanted: Map<string, number>) => string) | null} */
    this.explainer = null;
    if (raw.live) this.updateRunning(raw.live.flight);
  }

  /**
   * Take over data of the same columns with more rows; false if the columns differ. Codes may change their meaning.
   * @param {any} raw the data as data.json has it
   */
  replace(raw) {
    const next = new Dataset(raw);
    const listNames = (/** @type {Dataset} */ { columns }) => JSON.stringify(columns.filter(({ role }) => role !== "mark").map(({ name, role }) => [name, role]));
    const isSame = listNames(next) === listNames(this);
    if (isSame) Object.assign(this, next);
    return isSame;
  }

  // --- columns

  /** @param {string} name @returns {Columns.Column | undefined} */
  column(name) {
    return this.byName.get(name);
  }

  /** A column that every dataset has. @param {string} name @returns {Columns.Column} */
  outcomeColumn(name) {
    return /** @type {Columns.Column} */ (this.byName.get(name));
  }

  /** Add a column unless there is one of that name. @param {Columns.Column} column */
  addColumn(column) {
    if (this.byName.has(column.name)) return;
    this.byName.set(column.name, column);
    this.columns.push(column);
  }

  // --- one trial

  /** The number of a row's trial. @param {number} row @returns {number} */
  trial(row) {
    return this.raw.trials[row];
  }

  /** The row of a trial number. @param {number} trial @returns {number | undefined} */
  row(trial) {
    if (this.raw.trials[trial] === trial) return trial;
    this.rowByTrial ??= new Map(this.raw.trials.map((/** @type {number} */ other, /** @type {number} */ row) => [other, row]));
    return this.rowByTrial.get(trial);
  }

  /** @param {number} row @returns {string} */
  digest(row) {
    return getHash(this.raw.digest, row);
  }

  /** The status in the table, or "running" while a server has the trial's job. @param {number} row @returns {string} */
  status(row) {
    return this.running.has(row) ? "running" : this.raw.statuses[this.raw.status[row]];
  }

  /** @param {number} row */
  progress(row) {
    return this.running.get(row);
  }

  /** @param {number} row @returns {PageFile[]} */
  files(row) {
    return this.raw.outputs[row].map((/** @type {number} */ index) => this.fileList.get(index));
  }

  /** The height by the width of each row's first file; NaN where it is unknown. */
  listRatios() {
    const { fileList } = this;
    return Float64Array.from(this.raw.outputs, ([index]) => (index === undefined ? NaN : fileList.read(index, "height") / fileList.read(index, "width")));
  }

  /** What is wrong with the files of a row: "missing", "nearly black" or "flat"; else "". @param {number} row @returns {string} */
  look(row) {
    for (const index of this.raw.outputs[row]) {
      const look = this.fileList.read(index, "kind") === "missing" ? "missing" : this.fileList.read(index, "look");
      if (look) return look;
    }
    return "";
  }

  /** Whether another row failed with the same words, which need not be said in each cell. @param {number} row */
  isCommon(row) {
    const { codes } = /** @type {Columns.CodedColumn} */ (this.outcomeColumn("error"));
    return codes.indexOf(codes[row]) !== codes.lastIndexOf(codes[row]);
  }

  /** Why a row failed in a few words, such as `OOMError in KSampler`. @param {number} row */
  cause(row) {
    const [type, error] = ["error_type", "error"].map((name) => this.outcomeColumn(name).label(row));
    const node = /^node \S+ \(([^)]+)\)/.exec(error)?.[1];
    return `${type.split(".").at(-1) || error.slice(0, 40) || "no reason"}${node ? ` in ${node}` : ""}`;
  }

  /** The origin of each file of a row, in the order of `files`. @param {number} row @returns {Origin[]} */
  origins(row) {
    return this.raw.places.values[this.raw.places.of[row]] ?? [];
  }

  /** What a check found of a row; undefined if there was no check. @param {number} row @returns {CheckFinding | undefined} */
  finding(row) {
    if (!this.raw.check) return undefined;
    /** @type {{file: number, at: Origin}[]} */
    const accepted = this.raw.check.accepted[row];
    return {
      state: this.check[0].label(row),
      reason: this.check[1].label(row),
      verdict: this.check[2]?.label(row) ?? "",
      text: this.raw.check.texts?.[row] ?? "",
      accepted: accepted.map(({ file }) => this.fileList.get(file)),
      origins: accepted.map(({ at }) => at),
    };
  }

  /** Its values on all axes that vary, in full. @param {number} row */
  title(row) {
    const varying = this.axes.filter((axis) => axis.codes[row] >= 0 && axis.order.length > 1);
    return varying.map((axis) => `${axis.name}: ${axis.fullOf(axis.codes[row])}`).join(" · ") || `trial ${this.trial(row)}`;
  }

  /** Why a trial shows no picture, or what its job does now; "" if it succeeded and made a file. @param {number} row @returns {string} */
  reason(row) {
    const progress = this.running.get(row);
    if (progress !== undefined) return describeProgress(progress);
    switch (this.raw.statuses[this.raw.status[row]]) {
      case "failed":
        return ["error_type", "error"].map((name) => this.outcomeColumn(name).label(row)).filter(Boolean).join(": ") || "failed";
      case "cancelled":
        return "cancelled before it finished";
      case "pending":
        return "not submitted yet";
      default:
        return this.raw.outputs[row].length ? "" : "succeeded but made no file";
    }
  }

  /** Why the plan has no trial with these codes, by axis name. @param {Map<string, number>} wanted */
  explainExclusion(wanted) {
    this.explainer ??= this.raw.search ? () => NOT_CHOSEN : createExplainer(this.raw.left_out);
    return this.explainer(wanted);
  }

  // --- all trials

  /** How many rows have which status, in the order of their first row. */
  countStatuses() {
    return ValueText.countEach(this.listRows().map((row) => this.status(row)));
  }

  /** All rows, in the order of the data. */
  listRows() {
    return Array.from({ length: this.size }, (_, row) => row);
  }

  /** The rows that pass a test. @param {(row: number) => boolean} test */
  filterRows(test) {
    return this.listRows().filter(test);
  }

  // --- changes of a run that is still going

  /** Apply an update of one row. @param {any} update as `/events` sends it */
  updateRow(update) {
    const { row } = update;
    this.raw.status[row] = this.statusColumn.codes[row] = update.status;
    this.raw.outputs[row] = update.files.map((/** @type {PageFile} */ file) => this.fileList.add(file));
    this.raw.places.of[row] = this.raw.places.values.push(update.places) - 1;
    for (const column of this.outcome) Columns.setValue(column, row, update[column.name]);
    for (const column of this.jobNumbers) column.numbers[row] = update[column.name];
    this.metrics.forEach((metric, index) => (metric.numbers[row] = update.metrics[index]));
    if (update.check) this.updateCheck(row, update.check);
  }

  /**
   * @param {number} row
   * @param {{state: string, reason: string, measures: Record<string, number>, accepted: {file: PageFile, at: Origin}[], cases: string[]}} finding
   */
  updateCheck(row, { state, reason, measures, accepted, cases }) {
    Columns.setValue(this.check[0], row, state);
    Columns.setValue(this.check[1], row, reason);
    this.raw.check.accepted[row] = accepted.map(({ file, at }) => ({ file: this.fileList.add(file), at }));
    this.raw.check.cases[row] = cases;
    for (const name of Object.keys(measures)) this.addColumn(Columns.makeNumbers(name, "check", new Array(this.size).fill(null)));
    for (const column of this.columns) {
      if (column.role === "check" && column.codes === null) column.numbers[row] = measures[column.name] ?? null;
    }
  }

  /** Apply which trials are running now; returns the rows that changed. @param {Record<string, Progress | null>} progressByTrial @returns {number[]} */
  updateRunning(progressByTrial) {
    const changed = [...this.running.keys()].filter((row) => progressByTrial[this.trial(row)] === undefined);
    for (const row of changed) this.running.delete(row);
    for (const [trial, progress] of Object.entries(progressByTrial)) {
      const row = this.row(Number(trial));
      if (row === undefined || JSON.stringify(this.running.get(row)) === JSON.stringify(progress)) continue;
      this.running.set(row, progress);
      changed.push(row);
    }
    return changed;
  }
}

/** @param {Progress | null} progress */
function describeProgress(progress) {
  if (progress === null) return "queued on a server or running";
  const [node, value, maximum] = progress;
  if (maximum > 0) return `step ${value} of ${maximum}${node && ` in node ${node}`}`;
  return node ? `running node ${node}` : "queued on a server or running";
}

// --- why a combination of values is not a trial

/**
 * @typedef {object} AxisOfBlock  the values of an axis in a block of the sweep
 * @property {string} name
 * @property {number[]} over the dimensions of the block that the value depends on
 * @property {number[]} of the code of the value for each combination of these dimensions
 */
/**
 * @typedef {object} Block
 * @property {number[]} sizes
 * @property {Map<string, AxisOfBlock>} axes by name
 * @property {Int16Array} rules for each point the index of the rule that excluded it, or -1 for a trial
 */

const UNKNOWN = "Not in the plan: `exclude`, `where` or `sample` of the experiment leaves it out";
const NOT_CHOSEN = "Not tried: the search has not chosen these values";
const NEVER_COMBINED = "Not in the plan: the sweep never combines these values";

/**
 * Make a function that explains a missing combination, given as the wanted code of each axis by name.
 * @param {{rules: string[], blocks: any[]} | null | undefined} excluded `left_out` of the data
 * @returns {(wanted: Map<string, number>) => string}
 */
function createExplainer(excluded) {
  if (!excluded) return () => UNKNOWN;
  const blocks = excluded.blocks.map(decodeBlock);
  return (wanted) => {
    /** @type {Set<number>} */
    const rules = new Set();
    for (const block of blocks) collectRules(block, wanted, rules);
    rules.delete(-1); // a trial, which another cell or page shows
    if (rules.size === 0) return NEVER_COMBINED;
    const texts = [...rules].sort((a, b) => a - b).map((rule) => excluded.rules[rule]);
    return `Not in the plan: left out by ${texts.join("; by ")}`;
  };
}

/** @param {{sizes: number[], axes: AxisOfBlock[], by: [number, number][]}} block `by`: run-length coded rules @returns {Block} */
function decodeBlock({ sizes, axes, by }) {
  const rules = new Int16Array(sizes.reduce((product, size) => product * size, 1));
  let from = 0;
  for (const [count, rule] of by) rules.fill(rule, from, (from += count));
  return { sizes, rules, axes: new Map(axes.map((axis) => [axis.name, axis])) };
}

/**
 * Add to `found` the rules of all points of a block that have the wanted values.
 * @param {Block} block @param {Map<string, number>} wanted @param {Set<number>} found
 */
function collectRules({ sizes, rules, axes }, wanted, found) {
  // Test an axis as soon as the last of its dimensions is fixed, so that most of the product is never visited.
  /** @type {{over: number[], of: number[], code: number}[][]} */
  const tests = Array.from({ length: sizes.length + 1 }, () => []);
  for (const [name, code] of wanted) {
    const axis = axes.get(name);
    if (axis) tests[Math.max(-1, ...axis.over) + 1].push({ over: axis.over, of: axis.of, code });
  }
  const point = new Array(sizes.length).fill(0);
  /** @param {{over: number[], of: number[], code: number}} test */
  const holds = ({ over, of, code }) => of[over.reduce((sum, dimension) => sum * sizes[dimension] + point[dimension], 0)] === code;
  /** @param {number} depth @param {number} position of the point, as far as it is fixed, among the rules */
  const visit = (depth, position) => {
    if (!tests[depth].every(holds)) return;
    if (depth === sizes.length) {
      found.add(rules[position]);
      return;
    }
    for (point[depth] = 0; point[depth] < sizes[depth]; point[depth]++) visit(depth + 1, position * sizes[depth] + point[depth]);
  };
  visit(0, 0);
}
