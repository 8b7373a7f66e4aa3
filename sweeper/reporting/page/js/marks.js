// @ts-check
// Marks: what a user thinks of the trials (keep, reject, stars, a comment). They are kept in this browser.
"use strict";

/** @typedef {{verdict: "" | "keep" | "reject", stars: number, comment: string}} Mark stars: 1 to 5, or 0 */

class Marks {
  /** @type {Mark} */
  static NONE = { verdict: "", stars: 0, comment: "" };

  /**
   * @param {Dataset} dataset
   * @param {(rows: number[]) => void} onChange called after each change, also one that another tab of this report made
   */
  constructor(dataset, onChange) {
    this.dataset = dataset;
    this.onChange = onChange;
    this.prefix = `sweeper:${dataset.raw.experiment}:`;
    // The start of the folder's first run identifies the folder: it stays when the sweep grows or the folder moves.
    // The marks of a check are about that check alone, because the same trial may change in another one.
    const review = dataset.raw.check?.is_review ? ` check ${dataset.raw.run}` : "";
    this.key = `${this.prefix}began ${dataset.raw.began ?? ""}${review}`;
    /** @type {Map<string, number[]>} */
    this.rowsByDigest = new Map();
    for (let row = 0; row < dataset.size; row++) {
      const digest = dataset.digest(row);
      const rows = this.rowsByDigest.get(digest);
      if (rows) rows.push(row);
      else this.rowsByDigest.set(digest, [row]);
    }
    /** @type {Map<string, Mark>} by digest, also of trials that are not in the sweep now but may return */
    this.byDigest = new Map();
    try {
      const saved = localStorage.getItem(this.key);
      const entries = saved === null ? this.readOldKeys() : parseMarks(saved);
      for (const [digest, mark] of entries) this.byDigest.set(digest, cleanMark(mark));
    } catch {
      // Some browsers store nothing for pages from a disk: marks then last as long as the page.
    }
    addEventListener("storage", (event) => {
      const changed = event.key === this.key ? this.mergeSaved() : [];
      if (changed.length > 0) this.report(changed);
    });
    this.addColumns();
  }

  /**
   * Marks of reports that used other keys: the digest of the first trial, or no start because no run had begun.
   * @returns {[string, any][]}
   */
  readOldKeys() {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(this.prefix) && /^([0-9a-f]{64}|began )?$/.test(key.slice(this.prefix.length)))
      .flatMap((key) => parseMarks(localStorage.getItem(key)))
      .filter(([digest]) => this.rowsByDigest.has(digest));
  }

  /**
   * Take over what another tab of this report has saved; returns the digests whose marks changed.
   * @returns {string[]}
   */
  mergeSaved() {
    /** @type {Map<string, Mark>} */
    let saved;
    try {
      const text = localStorage.getItem(this.key);
      if (text === null) return []; // nothing saved yet, or somebody deleted it all: keep what is shown
      saved = new Map(parseMarks(text).map(([digest, mark]) => [digest, cleanMark(mark)]));
    } catch {
      return []; // as in the constructor
    }
    const isChanged = (/** @type {string} */ digest) => JSON.stringify(saved.get(digest)) !== JSON.stringify(this.byDigest.get(digest));
    const changed = [...new Set([...saved.keys(), ...this.byDigest.keys()])].filter(isChanged);
    for (const digest of changed) {
      const mark = saved.get(digest);
      if (mark) this.byDigest.set(digest, mark);
      else this.byDigest.delete(digest);
    }
    return changed;
  }

  /** @param {string[]} digests */
  report(digests) {
    this.onChange(digests.flatMap((digest) => this.rowsByDigest.get(digest) ?? []));
  }

  /**
   * Change the mark of a trial and save it.
   * @param {number} row @param {Partial<Mark>} change
   */
  set(row, change) {
    const digest = this.dataset.digest(row);
    const changed = this.mergeSaved(); // the other marks may be another tab's, so only this one is overwritten
    const mark = cleanMark({ ...this.byDigest.get(digest), ...change });
    if (mark.verdict || mark.stars || mark.comment) this.byDigest.set(digest, mark);
    else this.byDigest.delete(digest);
    try {
      localStorage.setItem(this.key, JSON.stringify(Object.fromEntries(this.byDigest)));
    } catch {
      Dom.announce("this browser does not save marks; export them before you close the page");
    }
    this.report([...new Set([...changed, digest])]);
  }

  /** Marks are also columns, to filter by, to sort by, and to show in the table. An axis of the same name comes first. */
  addColumns() {
    /** @type {Record<string, (row: number) => string | number>} */
    const columns = {
      mark: (row) => this.get(row).verdict,
      stars: (row) => this.get(row).stars,
      comment: (row) => this.get(row).comment,
    };
    for (const [name, value] of Object.entries(columns)) {
      const label = (/** @type {number} */ row) => String(value(row) || "");
      this.dataset.addColumn({ name, role: "mark", codes: null, numbers: [], numeric: name === "stars", value, label });
    }
  }

  /** @param {number} row @returns {Mark} */
  get(row) {
    return this.byDigest.get(this.dataset.digest(row)) ?? Marks.NONE;
  }

  /** @param {number} row */
  has(row) {
    return this.byDigest.size > 0 && this.byDigest.has(this.dataset.digest(row));
  }

  /**
   * The rows whose marks pass a test, which an empty mark must not.
   * @param {(mark: Mark) => boolean} test
   */
  findRows(test) {
    return this.byDigest.size === 0 ? [] : this.dataset.filterRows((row) => test(this.get(row)));
  }

  /** How many trials of the sweep have a mark. */
  count() {
    return [...this.byDigest.keys()].filter((digest) => this.rowsByDigest.has(digest)).length;
  }
}

/** @param {string | null} text @returns {[string, any][]} */
function parseMarks(text) {
  return Object.entries(JSON.parse(text ?? "{}"));
}

/**
 * A mark that has been stored, with everything unusable left out.
 * @param {any} mark @returns {Mark}
 */
function cleanMark(mark) {
  return {
    verdict: ["keep", "reject"].includes(mark?.verdict) ? mark.verdict : "",
    stars: Number.isInteger(mark?.stars) && mark.stars > 0 && mark.stars <= 5 ? mark.stars : 0,
    comment: typeof mark?.comment === "string" ? mark.comment : "",
  };
}
