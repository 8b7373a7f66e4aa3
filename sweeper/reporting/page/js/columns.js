// The columns of the table: values with one code per trial, or plain numbers. No DOM.

import * as FirstView from "../../../serving/page/js/first_view.js";
import * as ValueText from "./value_text.js";
/** @import { Dataset } from "./dataset.js" */

/**
 * @typedef {object} CodedColumn  a column that stores each distinct value once
 * @property {string} name
 * @property {string} role "axis", "label", "slot", "outcome", "metric" or "check"
 * @property {ValueText.Value[]} values
 * @property {Int32Array} codes for each row the index of its value, or -1 where it has none
 * @property {string[]} labels the text that shows each value
 * @property {string[]} [texts] the value itself as text, where `labels` has another word for it
 * @property {(string | null)[]} [names] short labels that tell long values apart; null: the value's own label is short
 * @property {boolean} numeric
 * @property {undefined} [format]
 * @property {number} [none] the code before which "no value" comes in the order of the axis; by default it comes last
 * @property {(row: number) => ValueText.Value} value null where the row has none
 * @property {(row: number) => string} label
 */
/** @typedef {CodedColumn & {order: number[], labelOf: (code: number) => string, fullOf: (code: number) => string}} Axis `order`: its codes as they are shown; `labelOf` is short */
/**
 * @typedef {object} NumberColumn  a column that stores one value per row: numbers, or what a person noted
 * @property {string} name
 * @property {string} role "trial", "outcome", "metric", "check" or "mark"
 * @property {null} codes
 * @property {boolean} numeric
 * @property {(number | null)[]} numbers
 * @property {(value: ValueText.Value) => string} [format] writes a number with the decimals of the column
 * @property {(row: number) => ValueText.Value} value
 * @property {(row: number) => string} label
 */
/** @typedef {CodedColumn | NumberColumn} Column */

const NO_VALUE = -1; // the code of a row without a value

/** @param {string} name @param {string} role @param {ValueText.Value[]} values @param {Int32Array} codes @returns {CodedColumn} */
export function makeCoded(name, role, values, codes) {
  const labels = values.map(ValueText.toText);
  return {
    name,
    role,
    values,
    codes,
    labels,
    numeric: values.length > 0 && values.every(ValueText.isNumber),
    value: (row) => (codes[row] < 0 ? null : values[codes[row]]),
    label: (row) => (codes[row] < 0 ? "" : labels[codes[row]]),
  };
}

/** Decode a column of the data. @param {{name: string, role: string, values: any[], of: number[]}} raw */
export const decode = (raw) => makeCoded(raw.name, raw.role, raw.values.map(ValueText.decodeValue), Int32Array.from(raw.of));

/** A code as letters, as spreadsheets name their columns: A to Z, AA, AB. @param {number} code @returns {string} */
const toLetters = (code) => (code < 26 ? "" : toLetters(Math.floor(code / 26) - 1)) + String.fromCharCode(65 + (code % 26));

export const isSeed = FirstView.isSeed;

/**
 * Add to a column what an axis has besides: the order of its codes, and the label of each. The code -1 is among them
 * if a trial has no value there, because it is null or belongs to another block of the sweep. Nobody can tell seeds of
 * eight or more digits apart, so letters stand for them.
 * @param {CodedColumn} column @returns {Axis}
 */
export function makeAxis(column) {
  const order = [...column.values.keys()];
  if (column.codes.includes(NO_VALUE)) order.splice(column.none ?? order.length, 0, NO_VALUE);
  /** @param {number} code */
  const fullOf = (code) => (code === NO_VALUE ? "(none)" : ValueText.toVisible(column.labels[code]));
  /** @param {number} code */
  const isLong = (code) => code >= 0 && column.texts === undefined && /^\d{8,}$/.test(column.labels[code]);
  const hasLetters = isSeed(column);
  /** @param {number} code */
  const labelOf = (code) => column.names?.[code] ?? (hasLetters && isLong(code) ? toLetters(code) : fullOf(code));
  return Object.assign(column, { order, labelOf, fullOf });
}

/** @param {string} name @param {string} role @param {(number | null)[]} numbers @returns {NumberColumn} */
export function makeNumbers(name, role, numbers) {
  /** @type {((value: ValueText.Value) => string) | undefined} */
  let format;
  return {
    name,
    role,
    codes: null,
    numeric: true,
    numbers,
    value: (row) => numbers[row],
    format: (value) => (format ??= ValueText.makeFormat(numbers))(value),
    label: (row) => (format ??= ValueText.makeFormat(numbers))(numbers[row]),
  };
}

/**
 * Set a row of a coded column; a value that is new to the column gets the next code.
 * @param {CodedColumn} column @param {number} row @param {ValueText.Value} value
 */
export function setValue(column, row, value) {
  let code = value === null ? NO_VALUE : column.values.indexOf(value);
  if (value !== null && code < 0) {
    code = column.values.push(value) - 1;
    column.labels.push(ValueText.toText(value));
  }
  column.codes[row] = code;
}

/** Show the values of `style` by the words of the column `style.label`, where it has any. @param {CodedColumn} column @param {CodedColumn} words */
export function applyLabels(column, words) {
  column.texts = [...column.labels];
  words.codes.forEach((code, row) => {
    if (code >= 0 && column.codes[row] >= 0) column.labels[column.codes[row]] = words.labels[code];
  });
}

/**
 * Sort rows by a column: numbers before texts, and missing values last in either direction.
 * @param {Dataset} dataset @param {number[]} rows
 * @param {string} sort the column; `-` before it sorts descending
 */
export function sortRows(dataset, rows, sort) {
  const column = dataset.column(sort.replace(/^-/, ""));
  if (column === undefined) return rows;
  const sign = sort.startsWith("-") ? -1 : 1;
  const [NUMBER, TEXT, MISSING] = [0, 1, 2];
  /** @param {ValueText.Value} value */
  const getRank = (value) => (value === null || value === undefined ? MISSING : ValueText.isNumber(value) ? NUMBER : TEXT);
  return [...rows].sort((left, right) => {
    const [a, b] = [column.value(left), column.value(right)];
    const [rankA, rankB] = [getRank(a), getRank(b)];
    if (rankA !== rankB) return rankA === MISSING || rankB === MISSING ? rankA - rankB : sign * (rankA - rankB);
    if (rankA === MISSING) return left - right;
    const [x, y] = rankA === NUMBER ? [a, b] : [column.label(left), column.label(right)];
    return x < y ? -sign : x > y ? sign : left - right;
  });
}
