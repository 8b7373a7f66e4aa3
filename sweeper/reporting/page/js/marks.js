// What a person thinks of the trials: keep, reject, stars, a comment. Kept in this browser, exported as YAML.
"use strict";

(function (sweeper) {
  const { json } = sweeper.dataset;

  /** Marks by row; `changed(rows)` is called after each change, one that another tab of this report made too. */
  function open(dataset, changed) {
    const prefix = `sweeper:${dataset.about.experiment}:`;
    // What stays when the sweep grows or its folder moves, and is another one in another results folder.
    const key = `${prefix}began ${dataset.about.began ?? ""}`;
    const trials = new Map(); // digest -> the rows that have it
    for (let row = 0; row < dataset.size; row++) {
      const digest = dataset.digest(row);
      trials.has(digest) ? trials.get(digest).push(row) : trials.set(digest, [row]);
    }
    const marks = new Map(); // of trials that the sweep had once, too: it may have them again
    try {
      const kept = localStorage.getItem(key);
      for (const [digest, mark] of kept === null ? earlier(prefix, trials) : read(kept)) marks.set(digest, clean(mark));
    } catch {
      // A browser that keeps nothing for pages from a disk: marks then last as long as the page.
    }

    /** What another tab of this report has kept since: the digests of which it thinks something else than this one. */
    function takeIn() {
      let there = null;
      try {
        const kept = localStorage.getItem(key);
        if (kept === null) return []; // nobody has written yet, or somebody threw all of it away: what is seen here stays
        there = new Map(read(kept).map(([digest, mark]) => [digest, clean(mark)]));
      } catch {
        return []; // as above
      }
      const other = (digest) => JSON.stringify(there.get(digest)) !== JSON.stringify(marks.get(digest));
      const moved = [...new Set([...there.keys(), ...marks.keys()])].filter(other);
      for (const digest of moved) there.has(digest) ? marks.set(digest, there.get(digest)) : marks.delete(digest);
      return moved;
    }

    const told = (digests) => changed(digests.flatMap((digest) => trials.get(digest) ?? []));

    function set(row, change) {
      const digest = dataset.digest(row);
      const moved = takeIn(); // only this trial's mark is written anew: the others may be another tab's
      const mark = clean({ ...marks.get(digest), ...change });
      if (mark.verdict || mark.stars || mark.comment) marks.set(digest, mark);
      else marks.delete(digest);
      try {
        localStorage.setItem(key, JSON.stringify(Object.fromEntries(marks)));
      } catch {
        sweeper.dom.say("this browser does not keep marks; export them before you close the page");
      }
      told([...new Set([...moved, digest])]);
    }

    addEventListener("storage", (event) => {
      const moved = event.key === key ? takeIn() : [];
      if (moved.length > 0) told(moved);
    });

    // Marks are columns too: to filter by, to sort by, to see in the table. An axis of that name goes before.
    for (const [name, value] of Object.entries({
      mark: (row) => get(row).verdict ?? "",
      stars: (row) => get(row).stars ?? 0,
      comment: (row) => get(row).comment ?? "",
    })) {
      dataset.add({ name, role: "mark", of: null, numbers: [], numeric: name === "stars", value, label: (row) => String(value(row) || "") });
    }

    const get = (row) => marks.get(dataset.digest(row)) ?? {};
    /** The rows whose marks pass a test; without a mark none does, and nobody looks through ten thousand rows for it. */
    const rows = (test) =>
      marks.size === 0 ? [] : Array.from({ length: dataset.size }, (_, row) => row).filter((row) => test(get(row)));
    return {
      get,
      set,
      rows,
      any: (row) => marks.size > 0 && marks.has(dataset.digest(row)),
      count: () => [...marks.keys()].filter((digest) => trials.has(digest)).length,
      yaml: () => escaped(yaml(dataset, get, rows)),
      accept: () => acceptCommand(dataset, rows),
      cases: () => cases(dataset, rows),
    };
  }

  const read = (text) => Object.entries(JSON.parse(text ?? "{}"));

  /** Marks of before this folder had a key: it was made of the first trial's digest, or its first run was yet to begin. */
  function earlier(prefix, trials) {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(prefix) && /^([0-9a-f]{64}|began )?$/.test(key.slice(prefix.length)))
      .flatMap((key) => read(localStorage.getItem(key)))
      .filter(([digest]) => trials.has(digest));
  }

  function clean(mark) {
    return {
      verdict: ["keep", "reject"].includes(mark?.verdict) ? mark.verdict : "",
      stars: Number.isInteger(mark?.stars) && mark.stars > 0 && mark.stars <= 5 ? mark.stars : 0,
      comment: typeof mark?.comment === "string" ? mark.comment : "",
    };
  }

  /** What no YAML may hold as it is, or takes for the end of a line: all of it stands within quotes, where an escape is as good. */
  const UNSAFE = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;
  const escaped = (text) => text.replace(UNSAFE, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

  /** An experiment that makes the kept trials again: every slot is named, so it needs nothing of the first sweep. */
  function yaml(dataset, get, rows) {
    const marked = rows((mark) => mark.verdict || mark.stars || mark.comment);
    const kept = marked.filter((row) => get(row).verdict === "keep");
    const lines = [
      `# Marks on ${json(dataset.about.experiment)}, run ${dataset.about.run}. Save this beside the experiment.`,
    ];
    for (const row of marked) {
      const { verdict, stars, comment } = get(row);
      const words = [verdict, stars ? `${stars} of 5` : "", comment ? json(comment) : ""].filter(Boolean);
      lines.push(`# trial ${dataset.trial(row)}: ${words.join(", ")}`);
    }
    if (kept.length === 0) return [...lines, "# No trial is marked `keep`.", ""].join("\n");
    const slots = slotColumns(dataset).filter((column) => kept.every((row) => column.of[row] >= 0));
    const constant = (column) => kept.every((row) => column.of[row] === column.of[kept[0]]);
    lines.push(
      `name: ${json(`${dataset.about.experiment}-kept`)}`,
      `template: ${json(dataset.about.template ?? "TEMPLATE.json")}`,
    );
    for (const [name, value] of Object.entries(dataset.about.asked.kept)) lines.push(`${name}: ${json(value)}`);
    const fixed = slots.filter(constant).map((column) => `  ${json(column.name)}: ${json(column.value(kept[0]))}`);
    if (fixed.length) lines.push("params:", ...fixed);
    const varying = slots.filter((column) => !constant(column));
    if (varying.length) {
      lines.push("sweep:", "  zip:", "    -");
      for (const column of varying)
        lines.push(`      ${json(column.name)}: ${json(kept.map((row) => wrapped(column.value(row))))}`);
    }
    return [...lines, ""].join("\n");
  }

  /** A list or mapping as an axis value needs its labelled form. */
  const wrapped = (value) =>
    value !== null && typeof value === "object" ? { label: json(value).slice(0, 40), value } : value;

  /** Columns that are slots of the template, swept ones too. */
  function slotColumns(dataset) {
    const names = new Set(dataset.about.slots);
    return dataset.columns.filter((column) => names.has(column.name) && column.of !== null);
  }

  /** The command that accepts the kept trials, named by their values. */
  function acceptCommand(dataset, rows) {
    const kept = rows((mark) => mark.verdict === "keep").map((row) => sweeper.workflow.condition(dataset, row));
    const where = kept.every((one) => one !== "") ? ` --where ${sweeper.workflow.quoted(kept.join(" or "))}` : "";
    return `sweeper accept ${sweeper.workflow.quoted(dataset.about.results)}${where}`;
  }

  /** The names of the kept cases, one a line, as `sweeper accept --cases` reads them; "" where no check named them. */
  function cases(dataset, rows) {
    const names = rows((mark) => mark.verdict === "keep").flatMap((row) => dataset.about.check?.cases[row] ?? []);
    return names.map((name) => `${name}\n`).join("");
  }

  sweeper.marks = { open, slotColumns };
})((globalThis.sweeper ??= {}));
