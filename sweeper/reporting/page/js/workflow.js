// The concrete workflow of a trial, put together again, and the command that runs it once more. No DOM.
"use strict";

(function (sweeper) {
  const { exact, json, isNumber } = sweeper.dataset;

  /** The API-format graph of a row as JSON text, or null with the reason in `missing`. */
  function text(dataset, row) {
    const packed = dataset.about.workflow;
    if (packed === null || !packed.known[row]) return null;
    const graph = exact(packed.base);
    for (const change of packed.changes) {
      if (change.of[row] >= 0) graph[change.node].inputs[change.input] = exact(change.values[change.of[row]]);
    }
    return json(graph, "", "  ") + "\n";
  }

  /** [text, file name] of a row's workflow; the text is null where it is not known. */
  const named = (dataset, row) => [text(dataset, row), `trial-${dataset.trial(row)}.json`];

  const missing = (dataset) => dataset.about.workflow_missing ?? "the experiment has changed since this run";

  /** A word for a POSIX shell. */
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${String(word).replaceAll("'", "'\\''")}'`);

  /** A value as Jinja2, which `--where` is written in, reads it. */
  function literal(value) {
    if (typeof value === "string") return json(value);
    if (value === true || value === false) return String(value);
    return isNumber(value) ? String(value) : null;
  }

  /** What is true of this trial: every slot that varies, by its value. Empty where nothing varies. */
  function condition(dataset, row) {
    const parts = sweeper.marks
      .slotColumns(dataset)
      .filter((column) => column.of[row] >= 0 && column.values.length > 1)
      .map((column) => [column.name, literal(column.value(row))])
      .filter(([name, value]) => value !== null && /^[A-Za-z_]\w*$/.test(name))
      .map(([name, value]) => `${name} == ${value}`);
    return parts.join(" and ");
  }

  /** The command that runs this trial again. */
  function command(dataset, row) {
    const where = condition(dataset, row);
    const chosen = where ? ` --where ${quoted(where)}` : "";
    return `sweeper run ${quoted(dataset.about.file)} --out ${quoted(dataset.about.results)} --fresh${chosen}`;
  }

  sweeper.workflow = { text, named, missing, command, condition, quoted };
})((globalThis.sweeper ??= {}));
