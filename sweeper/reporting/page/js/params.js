// What a trial was made with and what was measured of it, as a person reads it; and in what two trials differ.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;

  const isParam = ({ role }) => role === "axis" || role === "slot";
  const isMeasure = ({ role, of }) => role === "metric" || (role === "check" && of === null);

  /** Whether two trials differ there: by their values, as two that are near each other may be rounded to one text. */
  function differs(column, row, other) {
    if (other < 0) return false;
    return column.of === null ? (column.value(row) ?? null) !== (column.value(other) ?? null) : column.of[row] !== column.of[other];
  }

  /** The word for a row's value and, where that is a label, what it stands for. */
  function whole(column, row) {
    const [word, meant] = [column.label(row), column.texts?.[column.of[row]]];
    return meant === undefined || meant === word ? word : `${word}: ${meant}`;
  }

  /** The texts of a column for the trials `rows`: what was rounded is told in full where two would be read as one. */
  function read(column, rows) {
    const texts = rows.map((row) => whole(column, row));
    const alike = rows.length === 2 && texts[0] === texts[1] && differs(column, ...rows);
    return alike ? rows.map((row) => sweeper.dataset.text(column.value(row))) : texts;
  }

  /** The table of a trial, and of `other` beside it where that is none below 0: what differs stands on top. */
  function table(dataset, row, other) {
    const rows = other < 0 ? [row] : [row, other];
    const apart = (column) => differs(column, row, other);
    const line = (column) => {
      const texts = read(column, rows);
      if (texts.every((text) => text === "")) return null;
      return el(
        "tr",
        { class: apart(column) ? "differs" : "" },
        el("th", { scope: "row" }, column.name),
        texts.map((text) => el("td", {}, text)),
      );
    };
    const columns = dataset.columns.filter((column) => isParam(column) || isMeasure(column) || column.name === "ran_s");
    const sorted = [...columns.filter(apart), ...columns.filter((column) => !apart(column))];
    const heads = ["A", "B"].map((name) => el("th", { scope: "col" }, name));
    const title = other >= 0 && el("thead", {}, el("tr", {}, el("th", {}, ""), heads));
    return el("table", { class: "params" }, title, el("tbody", {}, sorted.map(line)));
  }

  sweeper.params = { table };
})((globalThis.sweeper ??= {}));
