// The controls for the mark of a trial: keep, reject, a rating, a comment. They are never rebuilt, because a run
// that is still going updates the dialog often, and a half-written comment must not get lost.

import { el } from "./dom.js";
import { Marks } from "./marks.js";
/** @import { Page } from "./main.js" */

/**
 * @param {Page} page
 * @param {boolean} isShort without words and without a comment, for the room under a picture
 * @returns {{node: HTMLElement, show: (row: number) => void}} `show` shows the mark of a row
 */
export function create({ marks, markByKey }, isShort) {
  let current = -1; // row
  /** @param {string} key @param {string} text @param {string} name */
  const makeButton = (key, text, name) => {
    // A press of the rating that a trial has removes it.
    const onclick = () => markByKey(String(marks.get(current).stars) === key ? "0" : key, current);
    return el("button", { "data-keep": key, title: `${name}: key ${key.toUpperCase()}`, "aria-label": name, onclick }, text);
  };
  const [keep, reject] = [makeButton("k", isShort ? "✓" : "✓ Keep", "Keep"), makeButton("r", isShort ? "✕" : "✕ Reject", "Reject")];
  const stars = [1, 2, 3, 4, 5].map((count) => makeButton(String(count), "★", `${count} of 5`));
  const comment = el("textarea", {
    rows: 2,
    maxlength: Marks.MAX_COMMENT,
    "data-keep": "comment",
    placeholder: "comment",
    "aria-label": "Comment",
    // Save every letter, so that nothing is lost when the page reloads or the dialog closes.
    oninput: () => marks.set(current, { comment: comment.value }),
  });

  /** @param {number} row */
  function show(row) {
    const isSame = row === current;
    current = row;
    const mark = marks.get(row);
    keep.setAttribute("aria-pressed", String(mark.verdict === "keep"));
    reject.setAttribute("aria-pressed", String(mark.verdict === "reject"));
    stars.forEach((star, index) => {
      star.setAttribute("aria-pressed", String(mark.stars === index + 1));
      star.classList.toggle("lit", index < mark.stars);
    });
    if (!isSame || document.activeElement !== comment) comment.value = mark.comment;
  }

  const rating = el("span", { class: "rating", role: "group", "aria-label": "Rating" }, stars);
  return { node: el("section", { class: "opinion" }, keep, reject, rating, !isShort && comment), show };
}
