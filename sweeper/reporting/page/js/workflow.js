// The concrete workflow of a trial, put together again, and the command that runs it once more. No DOM.
"use strict";

(function (sweeper) {
  const { exact, json, isNumber } = sweeper.dataset;
  const WORDS = /^(and|else|false|if|in|is|none|not|or|true)$/i; // names that no expression can mean

  /** The API-format graph of a row as JSON text, or null with the reason in `missing`. */
  function text(dataset, row) {
    if (!known(dataset, row)) return null;
    const packed = dataset.about.workflow;
    const graph = exact(packed.base);
    for (const change of packed.changes) {
      if (change.of[row] >= 0) graph[change.node].inputs[change.input] = exact(change.values[change.of[row]]);
    }
    return json(graph, "", "  ") + "\n";
  }

  /** [text, file name] of a row's workflow; the text is null where it is not known. */
  const named = (dataset, row) => [text(dataset, row), `trial-${dataset.trial(row)}.json`];

  const missing = (dataset) => dataset.about.workflow_missing ?? "the experiment has changed since this run";
  const known = (dataset, row) => Boolean(dataset.about.workflow?.known[row]);

  /** A word for a POSIX shell. */
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${String(word).replaceAll("'", "'\\''")}'`);

  /** A value as Jinja2, which `--where` is written in, reads it. */
  function literal(value) {
    if (typeof value === "string") return json(value);
    if (value === true || value === false) return String(value);
    return isNumber(value) ? String(value) : null;
  }

  /** The slots that vary, and that an expression can name with this trial's value. */
  function telling(dataset, row) {
    return sweeper.marks
      .slotColumns(dataset)
      .filter((column) => column.of[row] >= 0 && column.values.length > 1)
      .filter(({ name }) => /^[A-Za-z_]\w*$/.test(name) && !WORDS.test(name))
      .filter((column) => literal(column.value(row)) !== null);
  }

  /** What is true of this trial: every slot that varies, by its value. Empty where nothing varies. */
  function condition(dataset, row) {
    return telling(dataset, row)
      .map((column) => `${column.name} == ${literal(column.value(row))}`)
      .join(" and ");
  }

  /** As Jinja2 holds values against each other: true is 1 there, and 7 is 7.0. */
  const comparable = (value) => (typeof value === "boolean" ? Number(value) : value);

  /** Why no command runs this trial again, and nothing else; "" where one does. */
  function unasked(dataset, row) {
    if (!known(dataset, row)) return missing(dataset);
    if (dataset.about.asked.options === null) return "what --set gave this run cannot be written as a word";
    const columns = telling(dataset, row);
    const alike = (other) =>
      columns.every((column) => comparable(column.value(other)) == comparable(column.value(row))); // eslint-disable-line eqeqeq -- 5n == 5
    for (let other = 0; other < dataset.size; other++) {
      if (dataset.digest(other) !== dataset.digest(row) && alike(other))
        return `no --where tells it from trial ${dataset.trial(other)}`;
    }
    return "";
  }

  /** The command that runs this trial again, as the run was asked for; null where there is none, see `unasked`. */
  function command(dataset, row) {
    if (unasked(dataset, row) !== "") return null;
    const where = condition(dataset, row);
    const { file, results, asked } = dataset.about;
    const words = [file, ...asked.options, "--out", results, "--fresh", ...(where ? ["--where", where] : [])];
    return `sweeper run ${words.map(quoted).join(" ")}`;
  }

  sweeper.workflow = { text, named, missing, unasked, command, condition, quoted };
})((globalThis.sweeper ??= {}));
