// Marks: what people think of the trials (keep, reject, stars, a comment). A page that `sweeper view` serves sends them to
// the results folder; otherwise this browser keeps them. Of two marks of a trial, the newer one counts, so marks from
// files, browsers and folders can be merged in any order.

import * as Dom from "../../../serving/page/js/dom.js";
/** @import { Dataset } from "./dataset.js" */

/** @typedef {{verdict: "" | "keep" | "reject", stars: number, comment: string}} Mark stars: 1 to 5, or 0 */
/** @typedef {Mark & {changed: number}} DatedMark changed: milliseconds since 1970; one without a mark says it was removed */

export class Marks {
  static MAX_COMMENT = 1000; // letters
  static RETRY_DELAY = 3000; // milliseconds
  static KEYS = [["k", "keep"], ["r", "reject"], ["1 2 3 4 5 0", "rate, not rated"], ["x", "collect in the tray, to compare (Shift-click does it, too)"]];
  /** @type {Mark} */
  static NONE = { verdict: "", stars: 0, comment: "" };

  /** @param {Dataset} dataset @param {(rows: number[]) => void} onChange called after each change, also one that another tab or visitor made */
  constructor(dataset, onChange) {
    this.dataset = dataset;
    this.onChange = onChange;
    this.prefix = `sweeper:${dataset.raw.experiment}:`;
    // The start of the folder's first run identifies the folder: it stays when the sweep grows or the folder moves.
    // The marks of a check are about that check alone, because the same trial may change in another one.
    const review = dataset.raw.check?.is_review ? ` check ${dataset.raw.run}` : "";
    this.key = `${this.prefix}began ${dataset.raw.began ?? ""}${review}`;
    this.readRows();
    /** @type {Map<string, DatedMark>} by digest, also of trials that are not in the sweep now but may return */
    this.byDigest = new Map();
    /** @type {Set<number>} */
    this.picked = new Set(); // the rows in the tray, which cells show like a mark
    /** @type {Set<string>} digests of marks that the server does not have yet */
    this.unsent = new Set();
    this.retryTimer = 0;
    this.problem = ""; // why the server cannot store marks now
    this.merge(Object.entries(dataset.raw.marks ?? {}));
    try {
      const saved = localStorage.getItem(this.key);
      const kept = this.merge(parseMarks(saved));
      // The server refuses marks of trials that its folder does not have.
      if (dataset.raw.live) for (const digest of kept) if (this.rowsByDigest.has(digest)) this.unsent.add(digest);
    } catch {
      // Some browsers store nothing for pages from a disk: marks then last as long as the page.
    }
    addEventListener("storage", (event) => {
      if (event.key === this.key) this.report(this.mergeSaved());
    });
    addEventListener("pagehide", () => this.sendLast());
    this.send();
  }

  /** Read which trials there are, at first and when the dataset has more of them. */
  readRows() {
    /** @type {Map<string, number[]> | null} */
    this.knownRows = null;
    this.addColumns();
  }

  /** The rows of each digest. A page without marks never needs them. */
  get rowsByDigest() {
    return (this.knownRows ??= Map.groupBy(this.dataset.listRows(), (row) => this.dataset.digest(row)));
  }

  /** Take over the marks that are newer than those here; returns their digests. @param {Iterable<[digest: string, mark: any]>} entries @returns {string[]} */
  merge(entries) {
    const changed = [];
    for (const [digest, raw] of entries) {
      const mark = cleanMark(raw);
      const own = this.byDigest.get(digest);
      if (own === undefined ? isEmpty(mark) && mark.changed === 0 : mark.changed <= own.changed) continue;
      this.byDigest.set(digest, mark);
      changed.push(digest);
    }
    return changed;
  }

  /** Take over what another tab of this report has saved; returns the digests whose marks changed. */
  mergeSaved() {
    try {
      return this.merge(parseMarks(localStorage.getItem(this.key)));
    } catch {
      return []; // as in the constructor
    }
  }

  /**
   * Take over marks from a server or a file, and keep them.
   * @param {Record<string, any>} marks by digest
   * @param {{isFile?: boolean}} [options] whether the server does not know them
   * @returns {number} how many are new here
   */
  takeOver(marks, { isFile = false } = {}) {
    const changed = this.merge(Object.entries(marks));
    if (changed.length === 0) return 0;
    this.save(isFile ? changed : []);
    this.report(changed);
    return changed.length;
  }

  /** @param {string[]} digests */
  report(digests) {
    if (digests.length > 0) this.onChange(digests.flatMap((digest) => this.rowsByDigest.get(digest) ?? []));
  }

  /** Change the mark of a trial and save it. @param {number} row @param {Partial<Mark>} change */
  set(row, change) {
    const digest = this.dataset.digest(row);
    const changed = this.mergeSaved(); // the other marks may be another tab's, so only this one is overwritten
    const before = this.byDigest.get(digest);
    const now = Math.max(Date.now(), (before?.changed ?? 0) + 1); // newer than what it changes, whatever the clocks say
    this.byDigest.set(digest, cleanMark({ ...before, ...change, changed: now }));
    this.save([digest]);
    this.report([...new Set([...changed, digest])]);
  }

  /** Keep all marks in this browser, and send some to the server. @param {string[]} digests those that the server does not know */
  save(digests) {
    const isLive = this.dataset.raw.live !== undefined;
    if (isLive) for (const digest of digests) this.unsent.add(digest);
    try {
      localStorage.setItem(this.key, JSON.stringify(Object.fromEntries(this.byDigest)));
    } catch {
      if (!isLive) Dom.announce("this browser does not save marks; save them as a file before you close the page");
    }
    this.send();
  }

  /** Send the marks that the server does not have yet, one after the other; those that fail are sent again later. */
  async send() {
    if (this.retryTimer !== 0 || this.unsent.size === 0) return;
    this.retryTimer = setTimeout(() => {
      this.retryTimer = 0;
      this.send();
    }, Marks.RETRY_DELAY);
    for (const digest of [...this.unsent]) {
      const mark = this.byDigest.get(digest);
      const response = await this.post(digest).catch(() => null);
      const problem = response === null || response.ok ? "" : await response.text();
      if (problem !== "" && problem !== this.problem) Dom.announce(`the mark is kept in this browser only: ${problem}`);
      this.problem = problem;
      if (response === null || response.status >= 500) return; // the server is away, or cannot write now
      if (this.byDigest.get(digest) === mark) this.unsent.delete(digest);
    }
    clearTimeout(this.retryTimer);
    this.retryTimer = 0;
    this.send();
  }

  /**
   * Send what is not sent when the page closes or reloads: a browser cuts off other requests then, and a busy one may
   * show the next page before it has stored the last letters of a comment. The rest is sent by the next page.
   */
  sendLast() {
    for (const digest of this.unsent) this.post(digest, { keepalive: true }).catch(() => null);
  }

  /** @param {string} digest @param {RequestInit} [options] */
  post(digest, options = {}) {
    return Dom.postJson("marks", { [digest]: this.byDigest.get(digest) }, options);
  }

  /** All marks as a file that another page of this sweep reads. */
  toFile() {
    return `${JSON.stringify({ sweeper_marks: 1, experiment: this.dataset.raw.experiment, marks: Object.fromEntries(this.byDigest) }, null, 1)}\n`;
  }

  /**
   * Take over the marks of such a file; returns how many are new here and how many the file has.
   * @param {string} text @returns {[number, number]}
   * @throws {Error} with the reason in words, if it is another file
   */
  readFile(text) {
    let content;
    try {
      content = JSON.parse(text);
    } catch {
      throw new Error("it is not JSON");
    }
    if (content?.sweeper_marks !== 1 || typeof content.marks !== "object" || content.marks === null) throw new Error("it is not a file of saved marks");
    return [this.takeOver(content.marks, { isFile: true }), Object.keys(content.marks).length];
  }

  /** Marks are also columns, to filter by, to sort by, and to show in the table. An axis of the same name comes first. */
  addColumns() {
    /** @type {Record<string, (row: number) => string | number>} */
    const columns = { mark: (row) => this.get(row).verdict, stars: (row) => this.get(row).stars, comment: (row) => this.get(row).comment };
    for (const [name, value] of Object.entries(columns)) {
      const label = (/** @type {number} */ row) => String(value(row) || "");
      this.dataset.addColumn({ name, role: "mark", codes: null, numbers: [], numeric: name === "stars", value, label });
    }
  }

  /** @param {number} row @returns {Mark} */
  get(row) {
    const { verdict, stars, comment } = this.byDigest.get(this.dataset.digest(row)) ?? Marks.NONE;
    return { verdict, stars, comment };
  }

  /** @param {number} row */
  has(row) {
    return this.picked.has(row) || (this.byDigest.size > 0 && !isEmpty(this.byDigest.get(this.dataset.digest(row)) ?? Marks.NONE));
  }

  /** The rows whose marks pass a test, which an empty mark must not. @param {(mark: Mark) => boolean} test */
  findRows(test) {
    return this.byDigest.size === 0 ? [] : this.dataset.filterRows((row) => test(this.get(row)));
  }

  /** How many trials of the sweep have a mark. */
  count() {
    return [...this.byDigest].filter(([digest, mark]) => this.rowsByDigest.has(digest) && !isEmpty(mark)).length;
  }
}

/** @param {string | null} text @returns {[string, any][]} */
const parseMarks = (text) => Object.entries(JSON.parse(text ?? "{}"));

/** @param {Mark} mark */
const isEmpty = ({ verdict, stars, comment }) => !(verdict || stars || comment);

/** A mark that has been stored, with everything unusable left out. @param {any} mark @returns {DatedMark} */
function cleanMark(mark) {
  return {
    verdict: ["keep", "reject"].includes(mark?.verdict) ? mark.verdict : "",
    stars: Number.isInteger(mark?.stars) && mark.stars > 0 && mark.stars <= 5 ? mark.stars : 0,
    comment: typeof mark?.comment === "string" ? mark.comment.slice(0, Marks.MAX_COMMENT) : "",
    changed: Number.isSafeInteger(mark?.changed) && mark.changed > 0 ? mark.changed : 0,
  };
}
