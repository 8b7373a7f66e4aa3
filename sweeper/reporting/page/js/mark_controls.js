// @ts-check
// The controls for the mark of the open trial: keep, reject, a rating, a comment. They are never rebuilt, because a run
// that is still going updates the dialog often, and a half-written comment must not get lost.

import * as Cell from "./cell.js";
import { el, makeField, makeMenu } from "./dom.js";
import { Marks } from "./marks.js";

/**
 * @param {Marks} marks
 * @returns {{node: HTMLElement, show: (row: number) => void}} `show` shows the mark of a row
 */
export function create(marks) {
  let current = -1; // row
  /** @param {"keep" | "reject"} name */
  const toggle = (name) => marks.set(current, { verdict: marks.get(current).verdict === name ? "" : name });
  /** @param {string} text @param {string} key @param {"keep" | "reject"} name */
  const makeButton = (text, key, name) =>
    el("button", { type: "button", "data-keep": key, title: `key ${key}`, onclick: () => toggle(name) }, text);
  const [keep, reject] = [makeButton("✓ Keep", "k", "keep"), makeButton("✕ Reject", "r", "reject")];
  const ratings = [["0", "not rated"], ...[1, 2, 3, 4, 5].map((n) => [String(n), Cell.STARS[n]])];
  const stars = makeMenu(ratings, "0", (value) => marks.set(current, { stars: Number(value) }));
  stars.dataset.keep = "stars";
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
    stars.value = String(mark.stars);
    if (!isSame || document.activeElement !== comment) comment.value = mark.comment;
  }

  return { node: el("section", { class: "opinion" }, keep, reject, makeField("Rating", stars), comment), show };
}
