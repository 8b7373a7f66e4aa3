// @ts-check
// The filter: tests rows by an expression over the columns, or searches for words. No code of the user is ever run.
//
// A label may be written in place of its value. A text that compares nothing is searched for in the values of each row. One
// that compares but cannot be read changes nothing.
"use strict";

/**
 * @typedef {object} Filter
 * @property {(row: number) => boolean} holds whether a row passes
 * @property {boolean} search whether the text is searched for, because it is not an expression
 * @property {string} error why it is not an expression; "" if it is one
 * @property {boolean} broken whether it compares something but cannot be read, as while one is still typing it
 */

const Expression = (() => {
  const { isNumber, toText, toRounded } = ValueText;

  /** @param {Value} a @param {Value} b */
  const isComparable = (a, b) => (isNumber(a) && isNumber(b)) || (typeof a === "string" && typeof b === "string");
  /** @param {Value} a @param {Value} b */
  const isEqual = (a, b) => (isNumber(a) && isNumber(b) ? a == b : a === b); // eslint-disable-line eqeqeq -- 5n == 5 but not 5n === 5
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

  /** @param {Tree} tree @param {(name: string) => Value} get @returns {Value} */
  function evaluate(tree, get) {
    const [operator, left, right] = tree;
    switch (operator) {
      case "value":
        return left;
      case "name":
        return get(left);
      case "list":
        return tree.slice(1).map((item) => evaluate(item, get));
      case "not":
        return !evaluate(left, get);
      case "negative": {
        const value = evaluate(left, get);
        return typeof value === "bigint" ? -value : -Number(value);
      }
      case "and":
        return evaluate(left, get) && evaluate(right, get);
      case "or":
        return evaluate(left, get) || evaluate(right, get);
      default:
        return BINARY[operator](evaluate(left, get), evaluate(right, get));
    }
  }

  /** @type {Record<string, string>} how the test of a value and the test of its label are joined */
  const JOINS = { "==": "or", in: "or", "!=": "and", "not in": "and" };

  /**
   * A tree in which a label also matches its value, as in `exclude` of an experiment.
   * @param {Tree} tree @param {Dataset} dataset @returns {Tree}
   */
  function acceptLabels(tree, dataset) {
    const [operator, ...operands] = tree;
    if (operator === "value" || operator === "name") return tree;
    const names = operands.filter((operand) => operand[0] === "name");
    const label = JOINS[operator] && names.length === 1 ? `${names[0][1]}.label` : "";
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
   * Compile a filter; a text that is not a condition is searched for.
   * @param {string} source @param {Dataset} dataset @returns {Filter}
   */
  function compile(source, dataset) {
    const trimmed = source.trim();
    if (trimmed === "") return { holds: () => true, search: false, error: "", broken: false };
    let [words, reason] = [trimmed, "it compares nothing"];
    try {
      const tree = ExpressionParser.parse(trimmed, new Set(dataset.columns.map((column) => column.name)));
      if (isCondition(tree, dataset)) {
        const test = acceptLabels(tree, dataset);
        const holds = (/** @type {number} */ row) => Boolean(evaluate(test, (name) => dataset.column(name)?.value(row)));
        return { holds, search: false, error: "", broken: false };
      }
      if (tree[0] === "value" && typeof tree[1] === "string") words = tree[1]; // quoted, for example to keep spaces at its ends
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error;
      reason = error.message;
      if (/[=<>]/.test(trimmed)) return { holds: () => true, search: false, error: reason, broken: true };
    }
    return { holds: makeSearch(words, dataset), search: true, error: reason, broken: false };
  }

  /**
   * Make a test for the rows in which a value contains these words. A number must match a whole value: 1 would otherwise
   * be found in every seed.
   * @param {string} words @param {Dataset} dataset @returns {(row: number) => boolean}
   */
  function makeSearch(words, dataset) {
    const wanted = words.toLowerCase();
    const number = /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(words) ? ExpressionParser.toNumber(words) : null;
    /**
     * @param {Value} value @param {string} label
     * @param {string} [text] the value behind the label
     */
    const matches = (value, label, text = label) => {
      if (isNumber(value) && number !== null && isEqual(value, number)) return true;
      const isPlain = isNumber(value) && [toText(value), toRounded(value)].includes(label);
      return isPlain ? label === words : [label, text].some((one) => one.toLowerCase().includes(wanted));
    };
    const coded = dataset.columns.filter((column) => column.codes !== null);
    const hits = coded.map((column) => column.values.map((value, code) => matches(value, column.labels[code], column.texts?.[code])));
    return (row) =>
      coded.some((column, index) => column.codes[row] >= 0 && hits[index][column.codes[row]]) ||
      dataset.metrics.some((column) => matches(column.value(row), column.label(row)));
  }

  const FALLBACK = "status == 'failed'";
  const MAX_QUOTED = 24; // letters

  /**
   * An example for the empty filter field: an expression over this sweep's own axes that finds at least one trial.
   * @param {Dataset} dataset @returns {string}
   */
  function makeExample(dataset) {
    const usable = dataset.axes.filter(({ name, values }) => values.length > 1 && /^[A-Za-z_]\w*$/.test(name));
    const number = usable.find((axis) => axis.numeric && !Layout.isSeed(axis)) ?? usable.find((axis) => axis.numeric);
    const word = usable.find((axis) => axis.values.every((value) => typeof value === "string"));
    const least = number?.values.reduce((a, b) => (b < a ? b : a));
    const rows = dataset.filterRows((row) => [number, word].every((axis) => axis === undefined || axis.codes[row] >= 0));
    const row = rows.find((candidate) => number === undefined || number.value(candidate) > least) ?? rows[0];
    if (row === undefined) return FALLBACK;
    const conditions = [number && `${number.name} >= ${number.value(row)}`, word && quoteCondition(word.name, word.value(row))];
    const text = conditions.filter(Boolean).join(" and ");
    // Check it: an axis may be called `in`, or a text contain what quotes cannot hold.
    const { holds, error } = compile(text, dataset);
    return text !== "" && error === "" && holds(row) ? text : FALLBACK;
  }

  /**
   * The condition that a column has a text, or if the text is long, that it contains the text's beginning.
   * @param {string} name @param {string} text
   */
  function quoteCondition(name, text) {
    const letters = [...text.split("\n")[0]];
    const quoted = `'${letters.slice(0, MAX_QUOTED).join("").replace(/[\\']/g, "\\$&")}'`;
    return letters.length <= MAX_QUOTED && !text.includes("\n") ? `${name} == ${quoted}` : `${quoted} in ${name}`;
  }

  /**
   * A name as a filter takes it: in backticks unless it is a plain word.
   * @param {string} name
   */
  const quoteName = (name) => (/^[A-Za-z_][\w.]*$/.test(name) && !ExpressionParser.KEYWORD.test(name) ? name : `\`${name}\``);

  /**
   * The condition that a column has the value of a code.
   * @param {CodedColumn} column @param {number} code
   */
  function makeCondition({ name, values }, code) {
    const value = code < 0 ? null : values[code];
    const literal = typeof value === "string" ? `'${value.replace(/[\\']/g, "\\$&")}'` : value === null ? "none" : toText(value);
    return `${quoteName(name)} == ${literal}`;
  }

  /**
   * A filter and more conditions.
   * @param {State} state @param {Filter} filter @param {string[]} conditions
   */
  function narrow({ where }, { broken, search }, conditions) {
    return [...(where === "" || broken || search ? [] : [`(${where})`]), ...conditions].join(" and ");
  }

  return { compile, makeCondition, makeExample, narrow, quoteName };
})();
