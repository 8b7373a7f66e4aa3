// Shortens captions to the room they have. A canvas measures each letter once, so that no layout of the page is needed.

const FONT_SIZE = 12; // pixels, as in `.caption`
const SIMPLE = /^[ -~\u00a0-\u024f\u2013-\u2026]*$/; // letters whose width does not depend on their neighbours
/** @type {Map<string, number>} letter -> pixels */
const widths = new Map();
/** @type {CanvasRenderingContext2D | null} */
let pen = null;

/** @param {string} letter */
function measureLetter(letter) {
  let width = widths.get(letter);
  if (width === undefined) {
    if (pen === null) {
      pen = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
      pen.font = `${FONT_SIZE}px ${getComputedStyle(document.body).fontFamily}`;
    }
    width = pen.measureText(letter).width;
    widths.set(letter, width);
  }
  return width;
}

/**
 * As much of a text as fits into `room` pixels, with "…" where it was cut; undefined if only a layout can tell. Of a label
 * such as "…drawn in charcoal with soft…" the words in the middle are those that differ, so the first ones go first.
 * @param {string} text @param {number} room @param {boolean} [isLabel] @returns {string | undefined}
 */
export function shorten(text, room, isLabel = text.startsWith("…")) {
  if (!SIMPLE.test(text)) return undefined;
  let used = 0;
  let count = 0; // of the letters that leave room for the "…"
  const ellipsis = measureLetter("…");
  for (const letter of text) {
    used += measureLetter(letter);
    if (used + ellipsis <= room) count += 1;
    if (used <= room) continue;
    const words = isLabel ? text.split(" ") : [];
    return words.length > 2 ? shorten(`…${words.slice((words.length - 1) >> 1).join(" ")}`, room, false) : `${text.slice(0, count).trimEnd()}…`;
  }
  return text;
}
