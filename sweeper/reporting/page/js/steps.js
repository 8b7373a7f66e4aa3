// From one trial close up to the next: by buttons, and by a finger; keys are the dialog's own.
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

  sweeper.steps = { buttons, swipes };
})((globalThis.sweeper ??= {}));
