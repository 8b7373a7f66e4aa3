// What a trial was made with and what was measured of it, as a person reads it; and in what two trials differ.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;
  const { json, visible } = sweeper.dataset;
  const NONE = "(none)"; // in place of a value

  const isParam = ({ role }) => role === "axis" || role === "slot";
  const isMeasure = ({ role, of }) => role === "metric" || (role === "check" && of === null);

  /** Whether two trials differ there: by their values, as two that are near each other may be rounded to one text. */
  function differs(column, row, other) {
    if (other < 0) return false;
    return column.of === null ? (column.value(row) ?? null) !== (column.value(other) ?? null) : column.of[row] !== column.of[other];
  }

  /** A trial by its values; by which it differs from `other` comes first, as there may be room for no more. */
  function title(dataset, row, other = -1) {
    const axes = dataset.axes.filter((axis) => axis.places.length > 1);
    const apart = (axis) => differs(axis, row, other);
    const named = [...axes.filter(apart), ...axes.filter((axis) => !apart(axis) && axis.of[row] >= 0)];
    return named.map((axis) => `${axis.name}: ${brief(axis.word(axis.of[row]))}`).join(" · ") || `trial ${dataset.trial(row)}`;
  }

  /** Of a long text both ends: one prompt would else leave no room for what comes after it. */
  const brief = (word) => (word.length > 48 ? `${word.slice(0, 30).trimEnd()} … ${word.slice(-12).trimStart()}` : word);

  /** The words of a column's cells, as a function of the row: what is not there is told from what is empty. */
  function teller(column) {
    if (!isParam(column)) return (row) => column.label(row);
    const words = column.labels.map(visible);
    return (row) => words[column.of[row]] ?? NONE;
  }

  /** The word for a row's value and, where that is a label, what it stands for. */
  function whole(column, row) {
    if (column.of === null) return column.label(row) || NONE;
    const place = column.of[row];
    if (place < 0) return NONE;
    const [word, meant] = [column.labels[place], column.texts?.[place]];
    return meant === undefined || meant === word ? visible(word) : `${word}: ${visible(meant)}`;
  }

  /** The texts of a column for the trials `rows`: as in JSON where two that differ would be read as one, rounded or in quotes. */
  function read(column, rows) {
    const texts = rows.map((row) => whole(column, row));
    const alike = rows.length === 2 && texts[0] === texts[1] && differs(column, ...rows);
    return alike ? rows.map((row) => json(column.value(row) ?? null)) : texts;
  }

  /** The table of a trial, and of `other` beside it where that is none below 0: what differs stands on top. */
  function table(dataset, row, other) {
    const rows = other < 0 ? [row] : [row, other];
    const apart = (column) => differs(column, row, other);
    const line = (column) => {
      const texts = read(column, rows);
      if (!isParam(column) && texts.every((text) => text === NONE)) return null;
      return el(
        "tr",
        { class: column.name !== "ran_s" && apart(column) ? "differs" : "" },
        el("th", { scope: "row" }, column.name),
        texts.map((text) => el("td", {}, text)),
      );
    };
    const columns = dataset.columns.filter((column) => isParam(column) || isMeasure(column));
    // How long it took differs every time, and tells nothing of what was asked for.
    const sorted = [...columns.filter(apart), ...columns.filter((column) => !apart(column)), dataset.column("ran_s")];
    const heads = ["A", "B"].map((name) => el("th", { scope: "col" }, name));
    const title = other >= 0 && el("thead", {}, el("tr", {}, el("th", {}, ""), heads));
    return el("table", { class: "params" }, title, el("tbody", {}, sorted.map(line)));
  }

  sweeper.params = { table, teller, title };
})((globalThis.sweeper ??= {}));
