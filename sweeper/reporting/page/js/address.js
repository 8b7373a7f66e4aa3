// What of the view is a value of an axis, or a trial, as words of the address: `steps:4`, `seed:5,"a fox, far away"`. It
// is told by value and not by place, so that it means the same when the sweep has grown. No DOM.
"use strict";

(function (sweeper) {
  const { json } = sweeper.dataset;
  const PIECE = /"(?:[^"\\]|\\.)*"|[^,:"]+/g; // `:` and `,` are there to be read by people
  const LONGEST = 48; // letters of a value that is written out

  /** A value as one word: what is short and plain stands as it is, what is long is cut, with a sum of all its letters. */
  function word(value) {
    if (typeof value === "string" && /^[A-Za-z_][\w.-]*$/.test(value) && !/^(true|false|null)$/.test(value) && value.length <= LONGEST)
      return value;
    const letters = [...(typeof value === "string" ? value : json(value))];
    if (letters.length > LONGEST) return JSON.stringify(`${letters.slice(0, LONGEST / 2).join("")}…${sum(letters)}`);
    return typeof value === "string" || (typeof value === "object" && value !== null) ? JSON.stringify(letters.join("")) : json(value);
  }

  const sum = (letters) => letters.reduce((total, letter) => (Math.imul(total, 31) + letter.codePointAt(0)) >>> 0, 7).toString(36);

  const pieces = (text) => (text.match(PIECE) ?? []).map(usual);

  /** A word as `word` writes it, where somebody wrote it otherwise. */
  function usual(piece) {
    if (/^(true|false|null|-?\d[\w.+-]*)$/.test(piece)) return piece;
    try {
      return word(piece.startsWith('"') ? JSON.parse(piece) : piece);
    } catch {
      return piece; // no text: no value is called so
    }
  }

  const axisOf = (dataset, name) => dataset.axes.find((axis) => word(axis.name) === name);
  // A trial that has no value has the word `null`, as no value has.
  const placeWord = (axis, place) => word(place < 0 ? null : axis.values[place]);
  const byWord = (axis) => new Map(axis.places.map((place) => [placeWord(axis, place), place]));

  /** An axis and places on it. */
  const writePlaces = (axis, places) => `${word(axis.name)}:${places.map((place) => placeWord(axis, place)).join()}`;

  /** [axis, places] of what `writePlaces` wrote, as far as there are such values still; null without such an axis. */
  function readPlaces(dataset, text) {
    const [name, ...words] = pieces(text);
    const axis = axisOf(dataset, name);
    if (axis === undefined) return null;
    const places = byWord(axis);
    return [axis, words.filter((one) => places.has(one)).map((one) => places.get(one))];
  }

  /** A trial by its values on all axes; where several have them, with which of these it is. */
  function writeTrial(dataset, text) {
    const row = numbered(text) ? dataset.row(Number(text)) : undefined;
    if (row === undefined || dataset.axes.length === 0) return text;
    const values = dataset.axes.map((axis) => writePlaces(axis, [axis.of[row]])).join();
    let before = 1;
    for (let other = 0; other < row; other++) if (dataset.axes.every((axis) => axis.of[other] === axis.of[row])) before += 1;
    return before > 1 ? `${values},${before}` : values;
  }

  /** The number of the trial that has these values; "" where none has. A number, as somebody may write it, is one already. */
  function readTrial(dataset, text) {
    if (!text.includes(":")) return text;
    const words = pieces(text);
    const nth = words.length % 2 ? Number(words.pop()) : 1;
    const wanted = [];
    for (let at = 0; at < words.length; at += 2) {
      const axis = axisOf(dataset, words[at]);
      if (axis !== undefined) wanted.push([axis, byWord(axis).get(words[at + 1])]); // an axis that is gone tells no trial from others
    }
    let found = 0;
    for (let row = 0; wanted.length > 0 && row < dataset.size; row++) {
      if (wanted.every(([axis, place]) => axis.of[row] === place) && ++found === nth) return String(dataset.trial(row));
    }
    return "";
  }

  const numbered = (text) => /^\d+$/.test(text);

  sweeper.address = { writePlaces, readPlaces, writeTrial, readTrial };
})((globalThis.sweeper ??= {}));
