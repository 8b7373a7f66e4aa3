// From one trial close up to the next: which that is, buttons that lead there, and a finger; keys are the dialog's own.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;
  const WAYS = [
    { name: "left", sign: "←", words: "to the left", step: [0, -1] },
    { name: "right", sign: "→", words: "to the right", step: [0, 1] },
    { name: "up", sign: "↑", words: "above", step: [-1, 0] },
    { name: "down", sign: "↓", words: "below", step: [1, 0] },
  ];
  const FAR = 48; // pixels that a finger goes before it means the next trial
  const HELD = "input, audio, video, .stack:has(.slider-line)"; // what a finger moves by itself

  /** The trial beside `row` in a direction; what is not in the plan is stepped over. A table has one direction. */
  function neighbour(page, row, down, across) {
    const listed = page.listed();
    if (listed !== null) return listed[listed.indexOf(row) + down + across];
    const arranged = page.arranged();
    const at = arranged.where(row);
    if (at === null) return undefined;
    const inCell = arranged.trials(...at);
    if (inCell.length > 1 && across !== 0) {
      const beside = inCell[inCell.indexOf(row) + across];
      if (beside !== undefined) return beside;
    }
    for (
      let [r, c] = [at[0] + down, at[1] + across];
      r >= 0 && c >= 0 && r < arranged.rows.length && c < arranged.columns.length;
      r += down, c += across
    ) {
      const found = arranged.find(r, c);
      if (found >= 0) return found;
    }
    return undefined;
  }

  /** Buttons to the neighbours; `next(down, across)` tells the row there, or undefined; `along`: a list has no columns. */
  function buttons(next, go, along) {
    const button = ({ name, sign, words, step }) => {
      const none = next(...step) === undefined;
      const said = `The trial ${words}`;
      // Not `disabled`, which would take the focus away from who is pressing it.
      const told = { "aria-label": said, title: `${said}: key ${sign}`, "aria-disabled": none && "true" };
      return el("button", { type: "button", ...told, "data-keep": name, onclick: () => go(...step) }, sign);
    };
    return el("div", { class: "steps", role: "group", "aria-label": "Neighbours" }, WAYS.slice(along ? 2 : 0).map(button));
  }

  /** A finger that goes across `node` leads to the next trial; what it scrolls, or a page that was made larger, stays. */
  function swipes(node, go) {
    let from = null;
    const listen = (kind, act) => node.addEventListener(kind, act, { passive: true });
    listen("touchstart", ({ touches, target }) => {
      const alone = touches.length === 1 && (globalThis.visualViewport?.scale ?? 1) < 1.01 && !target.closest(HELD);
      from = alone ? [touches[0].clientX, touches[0].clientY] : null;
    });
    listen("touchcancel", () => (from = null));
    listen("touchend", ({ changedTouches }) => {
      if (from === null) return;
      const [x, y] = [changedTouches[0].clientX - from[0], changedTouches[0].clientY - from[1]];
      from = null;
      if (Math.abs(x) >= FAR && Math.abs(x) > 2 * Math.abs(y)) go(0, x < 0 ? 1 : -1);
    });
  }

  sweeper.steps = { buttons, neighbour, swipes };
})((globalThis.sweeper ??= {}));
