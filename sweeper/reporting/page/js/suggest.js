// @ts-check
// Suggests names: the nearest one to a name that does not exist, and what may follow in a filter. No DOM.
"use strict";

const Suggest = (() => {
  const MAX_OPTIONS = 20;

  /**
   * How many letters one must insert, delete, replace or swap with the next to make one word of the other (the optimal
   * string alignment distance: Damerau 1964).
   * @param {string} a @param {string} b
   */
  function countEdits(a, b) {
    const lines = [Array.from({ length: b.length + 1 }, (_, index) => index)];
    for (let i = 1; i <= a.length; i++) {
      const [before, line] = [lines[i - 1], [i]];
      for (let j = 1; j <= b.length; j++) {
        const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
        const swapped = isSwapped ? lines[i - 2][j - 2] + 1 : Infinity;
        line.push(Math.min(before[j] + 1, line[j - 1] + 1, before[j - 1] + Number(a[i - 1] !== b[j - 1]), swapped));
      }
      lines.push(line);
    }
    return lines[a.length][b.length];
  }

  /**
   * The name most like a word; undefined if none is similar.
   * @param {string} word @param {Iterable<string>} names
   */
  function findNearest(word, names) {
    const limit = Math.max(1, Math.floor(word.length / 3));
    const ranked = [...names].map((name) => ({ name, edits: countEdits(word.toLowerCase(), name.toLowerCase()) }));
    return ranked.filter(({ edits }) => edits <= limit).sort((one, other) => one.edits - other.edits)[0]?.name;
  }

  /**
   * How a filter may go on: with a name of a column, or after a comparison with a value of that column.
   * @param {string} text @param {Dataset} dataset @returns {string[]} whole filters
   */
  function complete(text, dataset) {
    const named = /(`[^`]*`|[A-Za-z_][\w.]*)\s*(==|!=)\s*['"]?([^'"=]*)$/.exec(text);
    const name = named?.[1].replaceAll("`", "").toLowerCase();
    const column = dataset.columns.find((one) => one.name.toLowerCase() === name);
    if (named && column && column.codes !== null) {
      const start = text.slice(0, named.index + named[0].lastIndexOf(named[2]) + 2);
      const literals = column.values.map((_, code) => Expression.makeCondition(column, code).split(" == ").slice(1).join(" == "));
      const isWanted = (/** @type {string} */ literal) => literal.toLowerCase().includes(named[3].trim().toLowerCase());
      return literals.filter(isWanted).slice(0, MAX_OPTIONS).map((literal) => `${start} ${literal}`);
    }
    const word = /[A-Za-z_][\w.]*$/.exec(text)?.[0] ?? "";
    const isInText = (text.replace(/\\./g, "").match(/['"]/g) ?? []).length % 2 === 1;
    if (isInText) return [];
    if (word === "" && !/(^|\(|\b(and|or|not))\s*$/.test(text)) return [];
    const names = dataset.columns.map(({ name }) => name).filter((name) => name.toLowerCase().startsWith(word.toLowerCase()) && name !== word);
    const start = text.slice(0, text.length - word.length);
    return names.slice(0, MAX_OPTIONS).map((name) => start + Expression.quoteName(name));
  }

  return { complete, findNearest };
})();
