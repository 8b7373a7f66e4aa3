// What a person thinks of the trial close up: keep, reject, a rating, a comment. The controls stay as long as the page:
// a run that goes on tells of every step, and nobody's half-written comment may go with one.
"use strict";

(function (sweeper) {
  const { el, menu, field } = sweeper.dom;

  /** The controls, as {node, show(row)}: `show` fits them to a trial, or to what became of its marks. */
  function create(marks) {
    let row = -1;
    const toggle = (name) => marks.set(row, { verdict: marks.get(row).verdict === name ? "" : name });
    const press = (text, key, name) =>
      el("button", { type: "button", "data-keep": key, title: `key ${key}`, onclick: () => toggle(name) }, text);
    const [keep, reject] = [press("✓ Keep", "k", "keep"), press("✕ Reject", "r", "reject")];
    const stars = menu(
      [["0", "not rated"], ...[1, 2, 3, 4, 5].map((n) => [String(n), sweeper.cell.STARS[n]])],
      "0",
      (value) => marks.set(row, { stars: Number(value) }),
    );
    stars.dataset.keep = "stars";
    const comment = el("textarea", {
      rows: 2,
      "data-keep": "comment",
      placeholder: "comment",
      "aria-label": "Comment",
      // At every letter: a page that is loaded anew, or a dialog that closes, takes nothing along that was written.
      oninput: () => marks.set(row, { comment: comment.value }),
    });
    const node = el("section", { class: "opinion" }, keep, reject, field("Rating", stars), comment);

    function show(next) {
      const same = next === row;
      row = next;
      const mark = marks.get(row);
      keep.setAttribute("aria-pressed", String(mark.verdict === "keep"));
      reject.setAttribute("aria-pressed", String(mark.verdict === "reject"));
      stars.value = String(mark.stars ?? 0);
      if (!same || document.activeElement !== comment) comment.value = mark.comment ?? "";
    }

    return { node, show };
  }

  sweeper.opinion = { create };
})((globalThis.sweeper ??= {}));
