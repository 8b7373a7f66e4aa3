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
      if (used > room) return `${text.slice(0, fits).trimEnd()}…`;
    }
    return text;
  }

  sweeper.letters = { fitted };
})((globalThis.sweeper ??= {}));
