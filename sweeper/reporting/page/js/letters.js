// How much room a caption's text takes: asked of a canvas once for each letter, so that no layout has to tell.
"use strict";

(function (sweeper) {
  const FONT_SIZE = 12; // pixels, as `.caption` has it
  const SIMPLE = /^[ -~\u00a0-\u024f\u2013-\u2026]*$/; // letters that stand one after the other, whatever stands beside them
  const widths = new Map(); // letter -> pixels
  let pen = null;

  function width(letter) {
    let known = widths.get(letter);
    if (known === undefined) {
      if (pen === null) {
        pen = document.createElement("canvas").getContext("2d");
        pen.font = `${FONT_SIZE}px ${getComputedStyle(document.body).fontFamily}`;
      }
      widths.set(letter, (known = pen.measureText(letter).width));
    }
    return known;
  }

  /** As much of a text as fits into `room` pixels, with "…" where it was cut; undefined where only a layout can tell. */
  function fitted(text, room) {
    if (!SIMPLE.test(text)) return undefined;
    let used = 0;
    let fits = 0; // letters that leave room for the "…"
    const dots = width("…");
    for (const letter of text) {
      used += width(letter);
      if (used + dots <= room) fits += 1;
      if (used > room) return middled(text, room) ?? `${text.slice(0, fits).trimEnd()}…`;
    }
    return text;
  }

  const NUMBER = /\d{8,}/g;
  const FEWEST = 6; // digits that are left of a number
  const MOST = 80; // letters of a text that is searched for numbers

  /** A text that fits as its long numbers lose digits in the middle: the ends of two seeds tell them apart; else undefined. */
  function middled(text, room) {
    const numbers = text.length > MOST ? null : text.match(NUMBER);
    if (numbers === null) return undefined;
    let full = 0;
    for (const letter of text) full += width(letter);
    const over = Math.ceil((full + numbers.length * width("…") - room) / width("0")); // digits that are too many
    const each = Math.ceil(over / numbers.length);
    if (numbers.some((number) => number.length - each < FEWEST)) return undefined;
    return text.replace(NUMBER, (number) => {
      const last = Math.ceil((number.length - each) / 2);
      return `${number.slice(0, number.length - each - last)}…${number.slice(-last)}`;
    });
  }

  sweeper.letters = { fitted };
})((globalThis.sweeper ??= {}));
