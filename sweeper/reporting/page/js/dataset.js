// The data of the page, decoded: columns with exact values and their texts, outcomes, files. No DOM.
"use strict";

(function (sweeper) {
  const KNOWN_FORMAT = 3;
  const NOWHERE = -1; // in place of a value's place: a trial that has none

  /** Undo what Python did for integers beyond 2^53: {"$int": "..."} is a BigInt, {"$map": ...} a mapping. */
  function exact(value) {
    if (Array.isArray(value)) return value.map(exact);
    if (value !== null && typeof value === "object") {
      if (typeof value.$int === "string") return BigInt(value.$int);
      const inner = value.$map !== null && typeof value.$map === "object" ? value.$map : value;
      return Object.fromEntries(Object.entries(inner).map(([key, item]) => [key, exact(item)]));
    }
    return value;
  }

  /** JSON text of a value that may hold BigInts. */
  function json(value, indent = "", step = "") {
    const next = indent + step;
    const [open, end] = step ? ["\n" + next, "\n" + indent] : ["", ""];
    const comma = step ? ",\n" + next : ",";
    if (typeof value === "bigint") return value.toString();
    if (Array.isArray(value)) {
      if (value.length === 0) return "[]";
      return value.some((item) => item !== null && typeof item === "object")
        ? `[${open}${value.map((item) => json(item, next, step)).join(comma)}${end}]`
        : `[${value.map((item) => json(item)).join(step ? ", " : ",")}]`;
    }
    if (value !== null && typeof value === "object") {
      const items = Object.entries(value).map(
        ([key, item]) => `${JSON.stringify(key)}:${step && " "}${json(item, next, step)}`,
      );
      return items.length ? `{${open}${items.join(comma)}${end}}` : "{}";
    }
    return JSON.stringify(value);
  }

  /** A value as it is: two that differ have two texts. */
  function text(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "string") return value;
    return typeof value === "number" ? String(value) : json(value);
  }

  /** A number that was measured, to six digits, or as many as its whole part has. */
  function rounded(value) {
    if (typeof value !== "number" || Number.isInteger(value)) return text(value);
    return String(Math.abs(value) < 1e6 ? Number(value.toPrecision(6)) : Math.round(value));
  }

  const isNumber = (value) => typeof value === "number" || typeof value === "bigint";

  /** A column whose cells are places in a list of values. */
  function coded(name, role, values, of) {
    return {
      name,
      role,
      values,
      of,
      labels: values.map(text),
      numeric: values.length > 0 && values.every(isNumber),
      value: (row) => (of[row] < 0 ? null : values[of[row]]),
      label(row) {
        return of[row] < 0 ? "" : this.labels[of[row]];
      },
    };
  }

  /** A label that can be seen: a text may be empty, or blank. */
  const visible = (label) => (/\S/.test(label) ? label : label === "" ? "(empty)" : JSON.stringify(label));

  /**
   * What makes a column an axis: `places`, those of its values and, where a trial has none (a null, or another block of the
   * sweep), NOWHERE, before the value `none` or after all; `word(place)`, how a place is called on the page.
   */
  function asAxis(column) {
    column.places = [...column.values.keys()];
    if (column.of.includes(NOWHERE)) column.places.splice(column.none ?? column.places.length, 0, NOWHERE);
    column.word = (place) => (place === NOWHERE ? "(none)" : visible(column.labels[place]));
    return column;
  }

  /** A column of plain numbers: a metric, seconds. */
  function plain(name, role, of) {
    return { name, role, of: null, numeric: true, numbers: of, value: (row) => of[row], label: (row) => rounded(of[row]) };
  }

  /** The files of the page, told in columns: each is made when it is first asked for. */
  function fileList({ count, columns }) {
    const made = new Array(count);
    const value = (column, place) => {
      if (Array.isArray(column)) return column[place];
      return column.made === undefined ? column.each : column.made.replaceAll("*", value(columns.sha256, place));
    };
    const make = (place) =>
      Object.fromEntries(
        Object.entries(columns)
          .map(([name, column]) => [name, value(column, place)])
          .filter(([, item]) => item !== null),
      );
    const get = (place) => (made[place] ??= make(place));
    return {
      get,
      add: (file) => made.push(file) - 1,
      /** The first that has a size in pixels. */
      sized() {
        for (let place = 0; place < made.length; place++) if (get(place).width > 0) return get(place);
        return undefined;
      },
    };
  }

  function decode(raw) {
    if (raw === undefined || raw.format !== KNOWN_FORMAT) {
      throw new Error("data.js beside this page is missing, or of another version of sweeper: make the report again");
    }
    const read = (column) => coded(column.name, column.role, column.values.map(exact), Int32Array.from(column.of));
    const columns = raw.columns.map(read);
    for (const [place, column] of columns.entries()) column.none = raw.columns[place].none;
    const axes = columns.filter((column) => column.role === "axis").map(asAxis);
    for (const column of columns.filter((column) => column.role === "label")) relabel(columns, column);
    const outcome = raw.outcome.map(read);
    const metrics = raw.metrics.map((metric) => plain(metric.name, "metric", metric.of));
    const check = raw.check?.columns.map(read) ?? [];
    const measures = (raw.check?.measures ?? []).map((one) => plain(one.name, "check", one.of));
    const status = coded("status", "outcome", raw.statuses, Int32Array.from(raw.status));
    const all = [
      plain("trial", "trial", raw.trials),
      ...columns,
      status,
      ...outcome,
      plain("attempts", "outcome", raw.attempts),
      plain("queued_s", "outcome", raw.queued_s),
      plain("ran_s", "outcome", raw.ran_s),
      ...metrics,
      ...check,
      ...measures,
    ];
    const files = fileList(raw.files);
    const flying = new Map();
    let absent = null;
    const byName = new Map(all.map((column) => [column.name, column]));
    const rowOf = new Map(raw.trials.map((trial, row) => [trial, row]));
    return {
      about: raw,
      size: raw.trials.length,
      axes,
      columns: all,
      metrics,
      slots: columns.filter((c) => c.role === "slot"),
      column: (name) => byName.get(name),
      /** Add a column, unless there is one of that name. */
      add(column) {
        if (byName.has(column.name)) return;
        byName.set(column.name, column);
        all.push(column);
      },
      trial: (row) => raw.trials[row],
      row: (trial) => rowOf.get(trial),
      /** The word of the table for a row; while a server has its job, `running`. */
      status: (row) => (flying.has(row) ? "running" : raw.statuses[raw.status[row]]),
      /** How many rows have which status: a Map, in the order in which they are met. */
      counts() {
        const places = new Map();
        for (const place of status.of) places.set(place, (places.get(place) ?? 0) + 1);
        const found = new Map([...places].map(([place, count]) => [raw.statuses[place], count]));
        for (const row of flying.keys()) {
          const word = raw.statuses[status.of[row]];
          found.set(word, found.get(word) - 1);
          found.set("running", (found.get("running") ?? 0) + 1);
        }
        for (const [word, count] of found) if (count === 0) found.delete(word);
        return found;
      },
      /** How many rows a check found what of: a Map. */
      checkCounts() {
        const found = new Map();
        for (let row = 0; row < this.size; row++) found.set(check[0].label(row), (found.get(check[0].label(row)) ?? 0) + 1);
        return found;
      },
      reason: (row) => (flying.has(row) ? atWork(flying.get(row)) : reason(byName, raw, row)),
      sight: (row) => flying.get(row),
      files: (row) => raw.outputs[row].map(files.get),
      /** Where each file of a row comes from, in their order: [node, position]. */
      places: (row) => raw.places.values[raw.places.of[row]] ?? [],
      sized: files.sized,
      digest: (row) => raw.digest[row],
      /** What a check found of a row: {state, reason, accepted: files, at: their places}; undefined without a check. */
      check: (row) =>
        raw.check && {
          state: check[0].label(row),
          reason: check[1].label(row),
          accepted: raw.check.accepted[row].map((one) => files.get(one.file)),
          at: raw.check.accepted[row].map((one) => one.at),
        },
      /** Why the plan has no trial with these values, places by axis. */
      absent: (wanted) => (absent ??= sweeper.absent.create(raw.left_out))(wanted),
      title: (row) => title(axes, row) || `trial ${raw.trials[row]}`,
      /** Take in what became of a row of a run that goes on. */
      patch(told) {
        raw.status[told.row] = status.of[told.row] = told.status;
        raw.outputs[told.row] = told.files.map(files.add);
        raw.places.of[told.row] = raw.places.values.push(told.places) - 1;
        for (const column of outcome) put(column, told.row, told[column.name]);
        for (const name of ["attempts", "queued_s", "ran_s"]) byName.get(name).numbers[told.row] = told[name];
        metrics.forEach((metric, place) => (metric.numbers[told.row] = told.metrics[place]));
        if (told.check) held(this, told.row, { ...told.check, accepted: told.check.accepted.map((one) => ({ ...one, file: files.add(one.file) })) });
      },
      /** Take in which trials are in flight, {trial: null or [node, value, maximum, preview]}; gives the rows that moved. */
      flight(told) {
        const moved = [];
        for (const [row, sight] of flying) if (told[raw.trials[row]] === undefined) moved.push(row), flying.delete(row);
        for (const [trial, sight] of Object.entries(told)) {
          const row = rowOf.get(Number(trial));
          if (row === undefined || JSON.stringify(flying.get(row)) === JSON.stringify(sight)) continue;
          flying.set(row, sight);
          moved.push(row);
        }
        return moved;
      },
    };
  }

  /** Take in what a check found of a row meanwhile; `accepted`: as in the data. */
  function held(dataset, row, { state, reason, measures, accepted, cases }) {
    const { check } = dataset.about;
    put(dataset.column("check"), row, state);
    put(dataset.column("check_reason"), row, reason);
    check.accepted[row] = accepted;
    check.cases[row] = cases;
    for (const name of Object.keys(measures)) dataset.add(plain(name, "check", new Array(dataset.size).fill(null)));
    for (const column of dataset.columns) if (column.role === "check" && column.numbers) column.numbers[row] = measures[column.name] ?? null;
  }

  /** Set a cell of a coded column; a value that it never had gets a place of its own. */
  function put(column, row, value) {
    if (value === null) {
      column.of[row] = -1;
      return;
    }
    let place = column.values.indexOf(value);
    if (place < 0) {
      place = column.values.push(value) - 1;
      column.labels.push(text(value));
    }
    column.of[row] = place;
  }

  function atWork(sight) {
    if (sight === null) return "a server has it";
    const [node, value, maximum] = sight;
    if (maximum > 0) return `step ${value} of ${maximum}${node && ` in node ${node}`}`;
    return node ? `at work in node ${node}` : "a server has it";
  }

  /** Show `style` by the words of `style.label`, where a value has any; `texts`: what they stand for. */
  function relabel(columns, label) {
    const column = columns.find((one) => one.name === label.name.slice(0, -".label".length));
    column.texts = [...column.labels];
    label.of.forEach((place, row) => {
      if (place >= 0 && column.of[row] >= 0) column.labels[column.of[row]] = label.labels[place];
    });
  }

  function title(axes, row) {
    return axes
      .filter((axis) => axis.of[row] >= 0 && axis.places.length > 1)
      .map((axis) => `${axis.name}: ${axis.word(axis.of[row])}`)
      .join(" · ");
  }

  function reason(columns, raw, row) {
    const status = raw.statuses[raw.status[row]];
    if (status === "failed") {
      return (
        [columns.get("error_type").label(row), columns.get("error").label(row)].filter(Boolean).join(": ") || "failed"
      );
    }
    if (status === "cancelled") return "cancelled before it came to its end";
    if (status === "pending") return "not submitted yet";
    return raw.outputs[row].length ? "" : "succeeded, and made no file";
  }

  sweeper.dataset = { decode, exact, json, text, rounded, visible, isNumber };
})((globalThis.sweeper ??= {}));
