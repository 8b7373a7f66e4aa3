// The dialog that shows, hides and reorders the values of the axes.
"use strict";

(function (sweeper) {
  const { el, menu, field, keepingFocus } = sweeper.dom;
  const MOST = 300; // more than anybody would tick by hand: the filter is for those

  /** Open it on the axis across, or the first one; every change is shown behind it at once. */
  function open(page) {
    const dialog = document.getElementById("values");
    const { dataset, update } = page;
    let axis = dataset.axes.find((one) => one.name === page.state().x) ?? dataset.axes[0];

    function draw() {
      const state = page.state();
      const hidden = new Set(state.hidden[axis.name] ?? []);
      const order = sweeper.layout.ordered(axis, state);
      const hide = (places) => {
        update({ hidden: sweeper.state.altered(page.state().hidden, axis.name, places) });
        draw();
      };
      const move = (at, by) => {
        const next = [...order];
        [next[at], next[at + by]] = [next[at + by], next[at]];
        update({ order: sweeper.state.altered(page.state().order, axis.name, next) });
        draw();
      };
      const item = (place, at) => {
        const box = el("input", {
          type: "checkbox",
          "data-keep": `show ${place}`,
          onchange: () => hide(box.checked ? [...hidden].filter((one) => one !== place) : [...hidden, place]),
        });
        box.checked = !hidden.has(place);
        const arrow = (text, by, name) =>
          el(
            "button",
            {
              type: "button",
              "aria-label": `Move ${axis.word(place)} ${name}`,
              "data-keep": `${name} ${place}`,
              "aria-disabled": at + by in order ? null : "true", // one that is disabled would lose the focus
              onclick: () => at + by in order && move(at, by),
            },
            text,
          );
        return el(
          "li",
          {},
          el("label", {}, box, axis.word(place)),
          arrow("↑", -1, "up"),
          arrow("↓", 1, "down"),
        );
      };
      const chooser = menu(
        dataset.axes.map((one) => [one.name, one.name]),
        axis.name,
        (name) => {
          axis = dataset.axes.find((one) => one.name === name);
          draw();
        },
      );
      const shown = order.slice(0, MOST);
      const parts = [
        el("h2", {}, "Values shown, in this order"),
        field("Axis", chooser),
        el("ul", {}, shown.map(item)),
        order.length > shown.length ? el("p", {}, `and ${order.length - shown.length} more; use the filter`) : "",
        el(
          "div",
          { class: "strip" },
          el("button", { type: "button", "data-keep": "all", onclick: () => hide([]) }, "Show all"),
          el("button", { type: "button", onclick: () => dialog.close() }, "Done"),
        ),
      ];
      keepingFocus(dialog, () => dialog.replaceChildren(...parts));
    }

    draw();
    addEventListener("hashchange", draw); // Back works here too
    dialog.addEventListener("close", () => removeEventListener("hashchange", draw), { once: true });
    dialog.showModal();
  }

  sweeper.values = { open };
})((globalThis.sweeper ??= {}));
