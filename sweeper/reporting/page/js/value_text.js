// Values of the data and the texts that show them. No DOM.

/** @typedef {any} Value a JSON value in which a large integer is a BigInt */

/**
 * Undo Python's encoding of integers beyond 2^53: {"$int": "..."} is a BigInt. {"$map": ...} is a mapping that itself
 * has one of these keys.
 * @param {Value} value @returns {Value}
 */
export function decodeValue(value) {
  if (Array.isArray(value)) return value.map(decodeValue);
  if (value !== null && typeof value === "object") {
    if (typeof value.$int === "string") return BigInt(value.$int);
    const inner = value.$map !== null && typeof value.$map === "object" ? value.$map : value;
    return Object.fromEntries(Object.entries(inner).map(([key, item]) => [key, decodeValue(item)]));
  }
  return value;
}

/** JSON text of a value that may hold BigInts. @param {Value} value @param {string} [step] the indent of one level; without it the text is one line */
export function toJson(value, step = "") {
  const write = (/** @type {(item: bigint) => string} */ toItem) => JSON.stringify(value, (_, item) => (typeof item === "bigint" ? toItem(item) : item), step);
  let mark = "#"; // with which no text of the value begins
  for (const text = write(String); text?.includes(`"${mark}`); ) mark += "#";
  return write((item) => `${mark}${item}`).replaceAll(new RegExp(`"${mark}(-?\\d+)"`, "g"), "$1");
}

/** The exact text of a value: two values that differ have two texts. @param {Value} value @returns {string} */
export function toText(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value;
  return typeof value === "number" ? String(value) : toJson(value);
}

/** A measured number with six significant digits; a larger number keeps its whole part. @param {Value} value @returns {string} */
export function toRounded(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return toText(value);
  return String(Math.abs(value) < 1e6 ? Number(value.toPrecision(6)) : Math.round(value));
}

const SAMPLED = 2000; // numbers that decide how many decimals a column needs

/**
 * Make the one format of some measured numbers: with the decimals of three significant digits of their extent, or fewer
 * if none of them needs as many.
 * @param {Iterable<Value>} numbers @returns {(value: Value) => string}
 */
export function makeFormat(numbers) {
  const known = [...numbers].filter((value) => typeof value === "number");
  const [low, high] = known.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  if (!(high > low) || high - low > 1e15) return toRounded;
  const most = Math.min(12, Math.max(0, 2 - Math.floor(Math.log10(high - low))));
  const sample = known.slice(0, SAMPLED).map((value) => Number(value.toFixed(most)));
  let decimals = 0;
  while (decimals < most && sample.some((value) => Number(value.toFixed(decimals)) !== value)) decimals += 1;
  return (value) => (typeof value === "number" ? value.toFixed(decimals) : toText(value));
}

/** A label that can be seen even if the text is empty or blank. @param {string} label */
export const toVisible = (label) => (/\S/.test(label) ? label : label === "" ? "(empty)" : JSON.stringify(label));

/** @param {Value} value @returns {boolean} */
export const isNumber = (value) => typeof value === "number" || typeof value === "bigint";

/** How often each word is there, in the order of their first. @param {string[]} words */
export function countEach(words) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}
