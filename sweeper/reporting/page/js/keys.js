// The dialog that lists all keys.

import { byId, el } from "./dom.js";

/** @type {[string, [string, string][]][]} */
const GROUPS = [
  ["Everywhere", [["/", "filter"], ["?", "these keys"]]],
  [
    "In the grid, the gallery and the table",
    [["arrows", "move"], ["Enter", "open the trial"], ["K R", "keep, reject"], ["1 to 5, 0", "rate, not rated"], ["X, Shift-click", "collect in the tray, to compare up to nine; Esc empties it"], ["F", "fit: all in view, as wide as the window, 1:1"], ["E", "open a cell that several trials share; Esc closes it"], ["Space , .", "play the films or the axis below the grid; one step back, one on"]],
  ],
  [
    "In a chart of a search",
    [["← →", "the next point"], ["Enter", "show its pictures"], ["↑ ↓", "on an end of an axis: choose a range"], ["Delete", "there: remove the range"]],
  ],
  [
    "In an open trial",
    [
      ["arrows", "the next trial"],
      ["H", "pin as reference for other trials, or stop that"],
      ["X", "collect in the tray"],
      ["S B L D G", "side by side, blink, slider, difference, one picture"],
      ["Z, + −", "one pixel on one of the screen; larger, smaller (the wheel does it too, and a drag moves)"],
      ["P F", "while it blinks: pause, flip"],
      ["Space , . M", "play a film or a sound, one frame back, one on; which one is heard"],
      ["K R 1 to 5", "keep, reject, rate"],
      ["C", "write a comment"],
      ["Esc", "close"],
    ],
  ],
];

export function open() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("keys"));
  const close = el("button", { "aria-label": "Close", class: "close", onclick: () => dialog.close() }, "✕");
  dialog.tabIndex = -1;
  dialog.replaceChildren(
    el("header", {}, el("h1", {}, "Keys"), close),
    ...GROUPS.map(([title, keys]) =>
      el("section", {}, el("h2", {}, title), el("dl", {}, keys.map(([key, words]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, words)]))),
    ),
  );
  dialog.showModal();
  dialog.focus(); // not the button, whose ring would be the first thing to see
}
