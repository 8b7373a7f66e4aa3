// Suggests what may follow in a filter. No DOM.

import * as Expression from "./expression.js";
/** @import { Dataset } from "./dataset.js" */

const MAX_OPTIONS = 20;

/**
 * How a filter may go on: with a name of a column, or after a comparison with a value of that column.
 * @param {string} text @param {Dataset} dataset @returns {string[]} whole filters
 */
export function complete(text, dataset) {
  const named = /(`[^`]*`|[A-Za-z_][\w.]*)\s*(==|!=)\s*['"]?([^'"=]*)$/.exec(text);
  const name = named?.[1].replaceAll("`", "").toLowerCase();
  const column = dataset.columns.find((column) => column.name.toLowerCase() === name);
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
