// What a cell holds that several trials share: the picture on top tells of one of them only. Pure, no DOM.
"use strict";

(function (sweeper) {
  // What somebody wants to know of first. A trial that a check was made of has two words, and counts as the first here.
  const ORDER = ["failed", "changed", "missing", "cancelled", "pending", "running", "not compared", "new"];
  const WORDS = { pending: "not run yet" };

  const word = (kind) => WORDS[kind] ?? kind;

  /** The word for a trial: of what a check found, or became of it, what comes first; a plain one is `same` or `succeeded`. */
  function kind(dataset, row) {
    const [status, check] = [dataset.status(row), dataset.check(row)?.state];
    return ORDER.find((one) => one === status || one === check) ?? check ?? status;
  }

  /**
   * The trials `rows` of one cell, the first on top: {words, more, kind, count}. `words`: how many of them are what; `more`:
   * how many lie below; `kind`, `count`: what is to be known first of those, where the one on top does not show it; else "".
   */
  function summary(dataset, rows) {
    const kinds = rows.map((row) => kind(dataset, row));
    const counts = new Map();
    for (const one of kinds) counts.set(one, (counts.get(one) ?? 0) + 1);
    const each = [...counts].map(([one, count]) => `${count} ${word(one)}`).join(", ");
    const below = new Set(kinds.slice(1));
    const first = ORDER.find((one) => below.has(one)) ?? "";
    const told = first === kinds[0] ? "" : first;
    return { words: `${rows.length} trials share this cell: ${each}`, more: rows.length - 1, kind: told, count: counts.get(told) ?? 0 };
  }

  sweeper.stack = { summary, word };
})((globalThis.sweeper ??= {}));
