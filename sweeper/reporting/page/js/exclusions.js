// Explains why a combination of values is not a trial: finds the rules of the sweep that excluded it. No DOM.

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
export const NOT_CHOSEN = "Not tried: the search has not chosen these values";
const NEVER_COMBINED = "Not in the plan: the sweep never combines these values";

/**
 * Make a function that explains a missing combination, given as the wanted code of each axis by name.
 * @param {{rules: string[], blocks: any[]} | null | undefined} excluded `left_out` of the data
 * @returns {(wanted: Map<string, number>) => string}
 */
export function createExplainer(excluded) {
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
