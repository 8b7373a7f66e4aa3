// Why a combination of values is no trial: which rule of the sweep dropped it, looked up where a cell asks. No DOM.
"use strict";

(function (sweeper) {
  const UNKNOWN = "Not in the plan: `exclude`, `where` or `sample` of the experiment leaves it out";
  const NOWHERE = "Not in the plan: the sweep never combines these values";

  /** What `left_out` of the data tells: a function from wanted places of values, by axis, to a sentence. */
  function create(told) {
    if (!told) return () => UNKNOWN;
    const blocks = told.blocks.map(decoded);
    return (wanted) => {
      const found = new Set();
      for (const block of blocks) collect(block, wanted, found);
      found.delete(-1); // a trial, which other pages of this cell show
      if (found.size === 0) return NOWHERE;
      return `Not in the plan: left out by ${[...found].sort((a, b) => a - b).map((rule) => told.rules[rule]).join("; by ")}`;
    };
  }

  function decoded({ sizes, axes, by }) {
    const rules = new Int16Array(sizes.reduce((product, size) => product * size, 1));
    let from = 0;
    for (const [count, rule] of by) rules.fill(rule, from, (from += count));
    return { sizes, rules, axes: new Map(axes.map((axis) => [axis.name, axis])) };
  }

  /** The rules of all points of a block that have the wanted values. */
  function collect({ sizes, rules, axes }, wanted, found) {
    const asked = [...wanted].map(([name, place]) => [axes.get(name), place]).filter(([axis]) => axis);
    // An axis is looked at as soon as the last of its dimensions is fixed: most of a product is never walked.
    const ripe = Array.from({ length: sizes.length + 1 }, () => []);
    for (const one of asked) ripe[Math.max(-1, ...one[0].over) + 1].push(one);
    const at = new Array(sizes.length).fill(0);
    const holds = ([{ over, of }, place]) => of[over.reduce((sum, way) => sum * sizes[way] + at[way], 0)] === place;
    const walk = (depth, position) => {
      if (!ripe[depth].every(holds)) return;
      if (depth === sizes.length) found.add(rules[position]);
      else for (at[depth] = 0; at[depth] < sizes[depth]; at[depth]++) walk(depth + 1, position * sizes[depth] + at[depth]);
    };
    walk(0, 0);
  }

  sweeper.absent = { create };
})((globalThis.sweeper ??= {}));
