// The filter: tests rows by an expression over the columns, or searches for words. No code of the user is ever run.
//
// A label may be written in place of its value, unless it is itself a value of the column. A text that compares nothing is
// searched for in the values of each row, also as a part: `'fox' and steps == 4`. One that compares but cannot be read changes
// nothing.

import * as Columns from "./columns.js";
import { ExpressionError, ExpressionParser } from "./expression_parser.js";
import { isNumber, toRounded, toText } from "./value_text.js";
/** @import { Dataset } from "./dataset.js" */
/** @import { Tree } from "./expression_parser.js" */
/** @import { State } from "./state.js" */
/** @import { Value } from "./value_text.js" */

/**
 * @typedef {object} Filter
 * @property {(row: number) => boolean} holds whether a row passes
 * @property {boolean} search whether the text is searched for, because it is not an expression
 * @property {string} error why it is not an expression; "" if it is one
 * @property {boolean} broken whether it compares something but cannot be read, as while one is still typing it
 * @property {string} condition the same as a part of a longer filter; "" if every row passes
 */

/** @param {Value} a @param {Value} b */
const isComparable = (a, b) => (isNumber(a) && isNumber(b)) || (typeof a === "string" && typeof b === "string");
/** @param {Value} a @param {Value} b */
function isEqual(a, b) {
  if (isNumber(a) && isNumber(b)) return a == b; // eslint-disable-line eqeqeq -- 5n == 5 but not 5n === 5
  return typeof a === "object" && a !== null && b !== null ? toText(a) === toText(b) : a === b; // a list or mapping equals its JSON text
}
/** @param {Value} a @param {Value} b */
const isIn = (a, b) =>
  Array.isArray(b) ? b.some((item) => isEqual(a, item)) : typeof b === "string" && typeof a === "string" && b.includes(a);

/** @type {Record<string, (a: Value, b: Value) => Value>} */
const BINARY = {
  "==": isEqual,
  "!=": (a, b) => !isEqual(a, b),
  in: isIn,
  "not in": (a, b) => !isIn(a, b),
  "<": (a, b) => isComparable(a, b) && a < b,
  "<=": (a, b) => isComparable(a, b) && a <= b,
  ">": (a, b) => isComparable(a, b) && a > b,
  ">=": (a, b) => isComparable(a, b) && a >= b,
  "+": (a, b) => (typeof a === "string" ? a + toText(b) : Number(a) + Number(b)),
  "-": (a, b) => Number(a) - Number(b),
  "*": (a, b) => Number(a) * Number(b),
  "/": (a, b) => Number(a) / Number(b),
  "%": (a, b) => Number(a) % Number(b),
};

/** @param {Tree} tree @param {Dataset} dataset @param {number} row @returns {Value} */
function evaluate(tree, dataset, row) {
  const [operator, left, right] = tree;
  switch (operator) {
    case "value":
      return left;
    case "name":
      return dataset.column(left)?.value(row);
    case "search":
      return left(row);
    case "list":
      return tree.slice(1).map((item) => evaluate(item, dataset, row));
    case "not":
      return !evaluate(left, dataset, row);
    case "negative": {
      const value = evaluate(left, dataset, row);
      return typeof value === "bigint" ? -value : -Number(value);
    }
    case "and":
      return evaluate(left, dataset, row) && evaluate(right, dataset, row);
    case "or":
      return evaluate(left, dataset, row) || evaluate(right, dataset, row);
    default:
      return BINARY[operator](evaluate(left, dataset, row), evaluate(right, dataset, row));
  }
}

/** @type {Record<string, string>} how the test of a value and the test of its label are joined */
const JOINS = { "==": "or", in: "or", "!=": "and", "not in": "and" };

/** A tree in which a label also matches its value, as in `exclude` of an experiment. @param {Tree} tree @param {Dataset} dataset @returns {Tree} */
function acceptLabels(tree, dataset) {
  const [operator, ...operands] = tree;
  if (["value", "name", "search"].includes(operator)) return tree;
  const names = operands.filter((operand) => operand[0] === "name");
  const column = names.length === 1 && JOINS[operator] ? dataset.column(names[0][1]) : undefined;
  const isValue = operands.some(([kind, value]) => kind === "value" && column?.codes && column.values.includes(value));
  const label = column && !isValue ? `${column.name}.label` : "";
  if (dataset.column(label)?.role !== "label") return [operator, ...operands.map((operand) => acceptLabels(operand, dataset))];
  return [JOINS[operator], tree, [operator, ...operands.map((operand) => (operand === names[0] ? ["name", label] : operand))]];
}

/**
 * Whether a tree is a condition. A number or a text alone is not: the user is searching for it.
 * @param {Tree} tree @param {Dataset} dataset @returns {boolean}
 */
function isCondition(tree, dataset) {
  const [operator, ...operands] = tree;
  if (ExpressionParser.COMPARISONS.includes(operator)) return true;
  if (operator === "value") return false;
  if (operator !== "name") return operands.some((operand) => isCondition(operand, dataset));
  const column = dataset.column(operands[0]);
  if (column === undefined || column.codes === null) return false;
  return column.values.length > 0 && column.values.every((value) => typeof value === "boolean");
}

/**
 * A tree in which a text that stands where a condition belongs has become a search for its words.
 * @param {Tree} tree @param {Dataset} dataset @returns {Tree}
 */
function acceptWords(tree, dataset) {
  const [operator, ...operands] = tree;
  if (operator === "value" && typeof operands[0] === "string") return ["search", makeSearch(operands[0], dataset)];
  return ["and", "or", "not"].includes(operator) ? [operator, ...operands.map((operand) => acceptWords(operand, dataset))] : tree;
}

/** Compile a filter; a text that is not a condition is searched for. @param {string} source @param {Dataset} dataset @returns {Filter} */
export function compile(source, dataset) {
  const trimmed = source.trim();
  if (trimmed === "") return { holds: () => true, search: false, error: "", broken: false, condition: "" };
  let [words, reason] = [trimmed, "it compares nothing"];
  try {
    const tree = ExpressionParser.parse(trimmed, new Set(dataset.columns.map((column) => column.name)));
    if (isCondition(tree, dataset)) {
      const test = acceptLabels(acceptWords(tree, dataset), dataset);
      const holds = (/** @type {number} */ row) => Boolean(evaluate(test, dataset, row));
      return { holds, search: false, error: "", broken: false, condition: `(${trimmed})` };
    }
    if (tree[0] === "value" && typeof tree[1] === "string") words = tree[1]; // quoted, for example to keep spaces at its ends
  } catch (error) {
    if (!(error instanceof ExpressionError)) throw error;
    reason = error.message;
    if (/[=<>]/.test(trimmed)) return { holds: () => true, search: false, error: reason, broken: true, condition: "" };
  }
  return { holds: makeSearch(words, dataset), search: true, error: reason, broken: false, condition: quoteText(words) };
}

/**
 * Make a test for the rows in which a value contains these words. A number must match a whole value: 1 would otherwise
 * be found in every seed.
 * @param {string} words @param {Dataset} dataset @returns {(row: number) => boolean}
 */
function makeSearch(words, dataset) {
  const wanted = words.toLowerCase();
  const number = /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(words) ? ExpressionParser.toNumber(words) : null;
  /** @param {Value} value @param {string} label @param {string} [text] the value behind the label */
  const matches = (value, label, text = label) => {
    if (isNumber(value) && number !== null && isEqual(value, number)) return true;
    const isPlain = isNumber(value) && [toText(value), toRounded(value)].includes(label);
    return isPlain ? label === words : [label, text].some((one) => one.toLowerCase().includes(wanted));
  };
  const coded = dataset.columns.filter((column) => column.codes !== null);
  const hits = coded.map((column) => column.values.map((value, code) => matches(value, column.labels[code], column.texts?.[code])));
  return (row) =>
    coded.some((column, index) => column.codes[row] >= 0 && hits[index][column.codes[row]]) ||
    dataset.metrics.some((column) => column.label(row) === words || matches(column.value(row), toRounded(column.value(row))));
}

/** An example for the empty filter field: an expression over an axis of this sweep that finds at least one trial. @param {Dataset} dataset @returns {string} */
export function makeExample(dataset) {
  const axis = dataset.axes.find((each) => each.numeric && each.values.length > 1 && !Columns.isSeed(each));
  return axis ? `${quoteName(axis.name)} >= ${toText(axis.values.at(-1))}` : "status == 'failed'";
}

/** A name as a filter takes it: in backticks, each in the name written twice, unless it is a plain word. @param {string} name */
export const quoteName = (name) =>
  /^[A-Za-z_][\w.]*$/.test(name) && !ExpressionParser.KEYWORD.test(name) ? name : `\`${name.replaceAll("`", "``")}\``;

/** @param {string} text */
const quoteText = (text) => `'${text.replace(/[\\']/g, "\\$&")}'`;

/** @param {Value} value */
export function toLiteral(value) {
  if (value === null) return "none";
  if (typeof value === "string" || typeof value === "object") return quoteText(toText(value));
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential() : toText(value); // digits alone are a BigInt
}

/** The condition that a column has the value of a code. @param {Columns.CodedColumn} column @param {number} code */
export const makeCondition = ({ name, values }, code) => `${quoteName(name)} == ${toLiteral(code < 0 ? null : values[code])}`;

/** The conditions that axes have none of their hidden values. @param {Columns.Axis[]} axes @param {State} state */
export const excludeHidden = (axes, { hidden }) =>
  axes.flatMap((axis) => (hidden[axis.name] ?? []).map((code) => `not ${makeCondition(axis, code)}`));

/** The conditions that `and` joins in a filter; the whole if it is not made of such parts. @param {string} source @param {Dataset} dataset */
export function splitParts(source, dataset) {
  const parts = source.split(/\s+and\s+/i);
  const isPart = (/** @type {string} */ part) => /^'[^']*'$/.test(part) || (!/\sor\s/i.test(part) && compile(part, dataset).error === "");
  return (parts.every(isPart) ? parts : [source]).map((part) => part.trim()).filter(Boolean);
}

/** A filter and more conditions. @param {Filter} filter @param {string[]} conditions */
export const narrow = ({ condition }, conditions) => [condition, ...conditions].filter(Boolean).join(" and ");
