// One trial close up: its pictures, beside another's if wanted, its params, its workflow, and what a person thinks of it.
"use strict";

(function (sweeper) {
  const { el, say } = sweeper.dom;
  const KEYS = { s: "side", b: "blink", l: "slider", d: "difference", g: "single" };
  const NAMES = {
    single: "One picture",
    side: "Side by side",
    blink: "Blink",
    slider: "Slider",
    difference: "Difference",
  };
  const ACCEPTED = "accepted"; // in place of a trial's number
  const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const PARTS = ["head", "modes", "stage", "outputs", "found", "params", "facts", "actions"];

  const nothing = () => el("div", { hidden: true });

  /** Zoom in the page's dialog; `page` gives update(change), arranged(), marks, markByKey, dataset. */
  function create(dialog, page) {
    const { dataset, marks } = page;
    // What is looked at: rows, and the one before; `accepted`: B is to be what was accepted, and no other trial.
    const drawn = { row: -1, previous: -1, other: -1, accepted: false, mode: "", output: 0 };
    const opinion = sweeper.opinion.create(marks);
    const { put, picture, left } = furnish(dialog, opinion.node);
    const acts = actsOn(page, drawn);
    const rowOf = (text) => (text === "" || text === ACCEPTED ? -1 : (dataset.row(Number(text)) ?? -1));

    function show(state) {
      const row = rowOf(state.trial);
      if (row < 0) {
        if (dialog.open) dialog.close();
        return picture("", nothing); // no film plays on behind the page
      }
      if (row !== drawn.row) drawn.previous = drawn.row;
      const output = Math.min(Number(state.file), Math.max(0, dataset.files(row).length - 1));
      Object.assign(drawn, { row, other: rowOf(state.with), accepted: state.with === ACCEPTED, mode: state.mode, output });
      render(true);
      if (!dialog.open) dialog.showModal();
    }

    /** A run that goes on tells of every step: what is played, typed or chosen from here meanwhile is left alone. */
    function render(anew) {
      for (const [name, node] of Object.entries(told(page, drawn, acts))) put(name, node ?? nothing(), anew);
      const shown = compared(dataset, drawn);
      picture(JSON.stringify(shown), () => sweeper.pictures.compare(...shown));
      opinion.show(drawn.row);
      if (!dialog.contains(document.activeElement)) dialog.focus();
    }

    sweeper.steps.swipes(left, acts.go);
    carry(dialog, dataset, drawn);
    leave(dialog, acts.close);
    keys(dialog, page, drawn, acts);
    return { show, remark: (row) => dialog.open && row === drawn.row && render(false) };
  }

  /** What stands in the dialog, by what it is of: each is replaced when it has changed, and only then. */
  function furnish(dialog, opinion) {
    const parts = Object.fromEntries(PARTS.map((name) => [name, nothing()]));
    let pictured = "";
    const left = el("div", { class: "zoom-left" }, parts.modes, parts.stage, parts.outputs);
    const panel = el("aside", { class: "panel" }, parts.found, opinion, parts.params, parts.facts, parts.actions);
    dialog.tabIndex = -1; // it takes the focus of what is gone
    dialog.replaceChildren(parts.head, el("div", { class: "zoom-body" }, left, panel));

    /** `anew`: of another trial, whose buttons do something else though they look alike. */
    function put(name, node, anew) {
      const before = parts[name];
      if (!anew && before.isEqualNode(node)) return;
      const kept = before.contains(document.activeElement) ? document.activeElement.dataset.keep : undefined;
      before.replaceWith(node);
      parts[name] = node;
      if (kept) node.querySelector(`[data-keep="${CSS.escape(kept)}"]`)?.focus();
    }

    function picture(key, make) {
      if (key === pictured) return;
      pictured = key;
      parts.stage.dispatchEvent(new Event("sweeper-gone"));
      put("stage", make(), true);
    }

    return { put, picture, left };
  }

  // --- what is looked at

  /** Whether B is what was accepted for the very trial, and not another trial. */
  const against = (dataset, { row, accepted }) => accepted && dataset.check(row)?.accepted.length > 0;

  /** What `pictures.compare` takes: the mode, A, B, and what they are called. */
  function compared(dataset, drawn) {
    const { row, other, mode, output } = drawn;
    const [held, alone] = [against(dataset, drawn), other < 0];
    const b = held ? acceptedFile(dataset, drawn) : alone ? undefined : counterpart(dataset, drawn);
    const theirs = alone ? "" : sweeper.params.title(dataset, other, row);
    const names = { a: sweeper.params.title(dataset, row, other), b: held ? "accepted" : theirs, none: dataset.reason(row) };
    return [mode, dataset.files(row)[output], b, names];
  }

  /** The other trial's file of the same node, the same place in it and the same kind: what stands beside it is another. */
  function counterpart(dataset, { row, other, output }) {
    const [files, places] = [dataset.files(other), dataset.places(other)];
    const [file, place] = [dataset.files(row)[output], dataset.places(row)[output]];
    if (file === undefined) return files[0];
    const alike = ({ kind }) => kind === file.kind || kind === "missing" || file.kind === "missing";
    return files.find((one, at) => alike(one) && String(places[at]) === String(place));
  }

  function acceptedFile(dataset, { row, output }) {
    const { accepted: files, at } = dataset.check(row);
    const place = dataset.places(row)[output];
    return place === undefined ? files[0] : files[at.findIndex((one) => String(one) === String(place))];
  }

  // --- what a person does there

  /** What buttons, keys and fingers do with what is `drawn`. */
  function actsOn(page, drawn) {
    const { dataset } = page;
    const next = (down, across) => sweeper.steps.neighbour(page, drawn.row, down, across);
    const replace = (change) => page.update(change, { replace: true });
    const trial = (row) => String(dataset.trial(row));
    return {
      next,
      close: () => page.update({ trial: "" }),
      turn: (place) => replace({ file: String(place) }),
      go(down, across) {
        const row = next(down, across);
        if (row !== undefined) replace({ trial: trial(row) });
      },
      hold() {
        replace({ with: trial(drawn.row) });
        say(`trial ${trial(drawn.row)} is held as B; move to another one`);
      },
      holdAccepted() {
        const mode = drawn.mode === "single" ? "side" : drawn.mode;
        replace(against(dataset, drawn) ? { with: "" } : { with: ACCEPTED, mode });
      },
      /** Comparing needs a second trial: the one held, else the one seen before, else a neighbour. */
      setMode(mode) {
        const change = { mode };
        if (mode !== "single" && drawn.other < 0 && !against(dataset, drawn)) {
          const beside = () => next(0, -1) ?? next(0, 1) ?? next(-1, 0) ?? next(1, 0);
          const second = drawn.previous >= 0 ? drawn.previous : beside();
          if (second === undefined) return say("there is no second trial in view to compare with");
          change.with = trial(second);
        }
        replace(change);
      },
    };
  }

  /** The picture, and the link to its file, leave the page as the file itself. */
  function carry(dialog, dataset, drawn) {
    dialog.addEventListener("dragstart", (event) => {
      const { row, other, output } = drawn;
      if (event.target.closest?.(".actions a"))
        return sweeper.drag.carry(event, dataset.files(row)[output], ...sweeper.workflow.named(dataset, row));
      const src = event.target.closest?.(".stage img")?.getAttribute("src");
      const seen = [...dataset.files(row), ...(other < 0 ? [] : dataset.files(other)), ...(dataset.check(row)?.accepted ?? [])];
      sweeper.drag.carry(event, seen.find((file) => file.path && sweeper.cell.address(file.path) === src));
    });
  }

  /** Escape, and a click beside the dialog. */
  function leave(dialog, close) {
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      close();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && close());
  }

  function keys(dialog, page, drawn, acts) {
    dialog.addEventListener("keydown", (event) => {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        /^(INPUT|TEXTAREA|SELECT|AUDIO|VIDEO)$/.test(event.target.tagName)
      )
        return;
      const key = event.key.toLowerCase();
      if (ARROWS[event.key]) acts.go(...ARROWS[event.key]);
      else if (KEYS[key]) acts.setMode(KEYS[key]);
      else if (key === "h") acts.hold();
      else if (key === "c") dialog.querySelector("textarea").focus();
      else if (!page.markByKey(event.key, drawn.row)) return;
      event.preventDefault();
    });
  }

  // --- what is told of it

  /** Every part but the pictures, by its name; null where there is nothing to tell. */
  function told(page, drawn, acts) {
    const { dataset } = page;
    const { row, other, output } = drawn;
    const file = dataset.files(row)[output];
    return {
      head: head(page, drawn, acts),
      modes: modes(dataset, drawn, acts),
      outputs: outputs(dataset.files(row), output, acts.turn),
      found: sweeper.panel.found(dataset, row),
      params: sweeper.params.table(dataset, row, other),
      facts: sweeper.panel.facts(dataset, row, file),
      actions: sweeper.panel.actions(dataset, row, file),
    };
  }

  const button = (keep, attributes, words) => el("button", { type: "button", "data-keep": keep, ...attributes }, words);

  function head(page, { row, other }, acts) {
    const { dataset } = page;
    return el(
      "header",
      { class: "zoom-head" },
      el("h2", { title: dataset.title(row) }, sweeper.params.title(dataset, row, other)),
      el("span", { class: "dim" }, `trial ${dataset.trial(row)}`),
      sweeper.steps.buttons(acts.next, acts.go, page.listed() !== null),
      button("close", { "aria-label": "Close", autofocus: true, onclick: acts.close }, "✕"),
    );
  }

  function modes(dataset, drawn, acts) {
    const { row, other, mode } = drawn;
    const choose = (name) =>
      button(name, { "aria-pressed": String(mode === name), onclick: () => acts.setMode(name) }, NAMES[name]);
    const held = { "aria-pressed": String(Boolean(against(dataset, drawn))), onclick: acts.holdAccepted };
    return el(
      "div",
      { class: "strip", role: "group", "aria-label": "How to compare" },
      Object.keys(NAMES).map(choose),
      button("hold", { onclick: acts.hold }, "Hold as B"),
      dataset.check(row)?.accepted.length > 0 && button("accepted", held, "Accepted as B"),
      other >= 0 && el("span", { class: "dim" }, `B: trial ${dataset.trial(other)}`),
    );
  }

  function outputs(files, output, turn) {
    if (files.length < 2) return null;
    const one = (_, place) =>
      button(`output-${place}`, { "aria-pressed": String(place === output), onclick: () => turn(place) }, `${place + 1}`);
    return el("div", { class: "strip", role: "group", "aria-label": "Files of this trial" }, files.map(one));
  }

  sweeper.zoom = { create };
})((globalThis.sweeper ??= {}));
