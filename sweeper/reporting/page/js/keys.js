// @ts-check
// The dialog that lists all keys.

import { byId, el } from "./dom.js";

/** @type {[string, [string, string][]][]} */
const GROUPS = [
  ["Everywhere", [["/", "filter"], ["?", "these keys"]]],
  [
    "In the grid, the gallery and the table",
    [["arrows", "move"], ["Enter", "open the trial"], ["K R", "keep, reject"], ["1 to 5, 0", "rate, not rated"], ["F", "fit: all in view, as wide as the window, 1:1"], ["E", "open a cell that several trials share; Esc closes it"]],
  ],
  [
    "In a chart of a search",
    [["← →", "the next point"], ["Enter", "show its pictures"], ["↑ ↓", "on an end of an axis: choose a range"], ["Delete", "there: remove the range"]],
  ],
  [
    "In an open trial",
    [
      ["arrows", "the next trial"],
      ["H", "compare other trials with this one, or stop that"],
      ["S B L D G", "side by side, blink, slider, difference, one picture"],
      ["Z, + −", "one pixel on one of the screen; larger, smaller (the wheel does it too, and a drag moves)"],
      ["K R 1 to 5", "keep, reject, rate"],
      ["C", "write a comment"],
      ["Esc", "close"],
    ],
  ],
];

export function open() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("keys"));
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Done");
  dialog.replaceChildren(
    ...GROUPS.map(([title, keys]) =>
      el("section", {}, el("h2", {}, title), el("dl", {}, keys.map(([key, words]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, words)]))),
    ),
    close,
  );
  dialog.showModal();
}
