// One trial close up: its pictures, beside another's if wanted, its params, its workflow, and what a person thinks of it.
"use strict";

(function (sweeper) {
  const { el, say, copy, save } = sweeper.dom;
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

  /** Zoom in the page's dialog; `page` gives update(change), arranged(), marks, markByKey, dataset. */
  function create(dialog, page) {
    const { dataset, marks } = page;
    const drawn = { row: -1, other: -1, mode: "", output: 0 };
    let previous = -1;
    let state = null;
    const opinion = sweeper.opinion.create(marks);
    const nothing = () => el("div", { hidden: true });
    // What stands in the dialog, by what it is of: each is replaced when it has changed, and only then.
    const parts = Object.fromEntries(["head", "modes", "stage", "outputs", "found", "params", "facts", "actions"].map((name) => [name, nothing()]));
    let pictured = "";
    const left = el("div", { class: "zoom-left" }, parts.modes, parts.stage, parts.outputs);
    dialog.tabIndex = -1; // it takes the focus of what is gone
    dialog.replaceChildren(
      parts.head,
      el(
        "div",
        { class: "zoom-body" },
        left,
        el("aside", { class: "panel" }, parts.found, opinion.node, parts.params, parts.facts, parts.actions),
      ),
    );
    const rowOf = (text) => (text === "" || text === ACCEPTED ? -1 : (dataset.row(Number(text)) ?? -1));

    function show(next) {
      state = next;
      const row = rowOf(state.trial);
      if (row < 0) {
        if (dialog.open) dialog.close();
        return picture("", nothing); // no film plays on behind the page
      }
      if (row !== drawn.row) previous = drawn.row;
      const output = Math.min(Number(state.file), Math.max(0, dataset.files(row).length - 1));
      Object.assign(drawn, { row, other: rowOf(state.with), mode: state.mode, output });
      render(true);
      if (!dialog.open) dialog.showModal();
    }

    /** A run that goes on tells of every step: what is played, typed or chosen from here meanwhile is left alone. */
    function render(anew) {
      const { row, other, mode } = drawn;
      const files = dataset.files(row);
      const b = against() ? accepted() : other < 0 ? undefined : counterpart();
      const [a, theirs] = [sweeper.params.title(dataset, row, other), other < 0 ? "" : sweeper.params.title(dataset, other, row)];
      const names = { a, b: against() ? "accepted" : theirs, none: dataset.reason(row) };
      const told = { head: head(row, a), modes: modes(other, mode), outputs: outputs(files), found: found(row) };
      const below = { params: sweeper.params.table(dataset, row, other), facts: facts(row, files[drawn.output]), actions: actions(row, files[drawn.output]) };
      for (const [name, node] of Object.entries({ ...told, ...below })) put(name, node ?? nothing(), anew);
      const shown = [mode, files[drawn.output], b, names];
      picture(JSON.stringify(shown), () => sweeper.pictures.compare(...shown));
      opinion.show(row);
      if (!dialog.contains(document.activeElement)) dialog.focus();
    }

    function picture(key, make) {
      if (key === pictured) return;
      pictured = key;
      parts.stage.dispatchEvent(new Event("sweeper-gone"));
      put("stage", make(), true);
    }

    /** `anew`: of another trial, whose buttons do something else though they look alike. */
    function put(name, node, anew) {
      const before = parts[name];
      if (!anew && before.isEqualNode(node)) return;
      const kept = before.contains(document.activeElement) ? document.activeElement.dataset.keep : undefined;
      before.replaceWith(node);
      parts[name] = node;
      if (kept) node.querySelector(`[data-keep="${CSS.escape(kept)}"]`)?.focus();
    }

    /** The other trial's file of the same node, the same place in it and the same kind: what stands beside it is another. */
    function counterpart() {
      const { row, other, output } = drawn;
      const [files, places] = [dataset.files(other), dataset.places(other)];
      const [file, place] = [dataset.files(row)[output], dataset.places(row)[output]];
      if (file === undefined) return files[0];
      const alike = ({ kind }) => kind === file.kind || kind === "missing" || file.kind === "missing";
      return files.find((one, at) => alike(one) && String(places[at]) === String(place));
    }

    function accepted() {
      const { accepted: files, at } = dataset.check(drawn.row);
      const place = dataset.places(drawn.row)[drawn.output];
      return place === undefined ? files[0] : files[at.findIndex((one) => String(one) === String(place))];
    }

    /** Whether B is what was accepted for the very trial, and not another trial. */
    const against = () => state.with === ACCEPTED && dataset.check(drawn.row)?.accepted.length > 0;

    function head(row, words) {
      const close = el(
        "button",
        { type: "button", "aria-label": "Close", "data-keep": "close", autofocus: true, onclick: () => page.update({ trial: "" }) },
        "✕",
      );
      return el(
        "header",
        { class: "zoom-head" },
        el("h2", { title: dataset.title(row) }, words),
        el("span", { class: "dim" }, `trial ${dataset.trial(row)}`),
        sweeper.steps.buttons(neighbour, go, page.listed() !== null),
        close,
      );
    }

    function modes(other, mode) {
      const choose = (name) =>
        el(
          "button",
          { type: "button", "aria-pressed": String(mode === name), "data-keep": name, onclick: () => setMode(name) },
          NAMES[name],
        );
      const hold = el("button", { type: "button", "data-keep": "hold", onclick: holdThis }, "Hold as B");
      return el(
        "div",
        { class: "strip", role: "group", "aria-label": "How to compare" },
        Object.keys(NAMES).map(choose),
        hold,
        dataset.check(drawn.row)?.accepted.length > 0 &&
          el(
            "button",
            { type: "button", "data-keep": "accepted", "aria-pressed": String(against()), onclick: holdAccepted },
            "Accepted as B",
          ),
        other >= 0 && el("span", { class: "dim" }, `B: trial ${dataset.trial(other)}`),
      );
    }

    const holdThis = () => {
      page.update({ with: String(dataset.trial(drawn.row)) }, { replace: true });
      say(`trial ${dataset.trial(drawn.row)} is held as B; move to another one`);
    };

    const holdAccepted = () =>
      page.update(
        against() ? { with: "" } : { with: ACCEPTED, mode: state.mode === "single" ? "side" : state.mode },
        { replace: true },
      );

    /** Comparing needs a second trial: the one held, else the one seen before, else a neighbour. */
    function setMode(mode) {
      const change = { mode };
      if (mode !== "single" && drawn.other < 0 && !against()) {
        const second =
          previous >= 0 ? previous : (neighbour(0, -1) ?? neighbour(0, 1) ?? neighbour(-1, 0) ?? neighbour(1, 0));
        if (second === undefined) return say("there is no second trial in view to compare with");
        change.with = String(dataset.trial(second));
      }
      page.update(change, { replace: true });
    }

    /** The next trial in a direction; combinations that are not in the plan are stepped over. A table has one direction. */
    function neighbour(down, across) {
      const listed = page.listed();
      if (listed !== null) return listed[listed.indexOf(drawn.row) + down + across];
      const arranged = page.arranged();
      const at = arranged.where(drawn.row);
      if (at === null) return undefined;
      const inCell = arranged.trials(...at);
      if (inCell.length > 1 && across !== 0) {
        const beside = inCell[inCell.indexOf(drawn.row) + across];
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

    function go(down, across) {
      const next = neighbour(down, across);
      if (next !== undefined) page.update({ trial: String(dataset.trial(next)) }, { replace: true });
    }

    function outputs(files) {
      if (files.length < 2) return null;
      return el(
        "div",
        { class: "strip", role: "group", "aria-label": "Files of this trial" },
        files.map((file, place) =>
          el(
            "button",
            {
              type: "button",
              "aria-pressed": String(place === drawn.output),
              "data-keep": `output-${place}`,
              onclick: () => page.update({ file: String(place) }, { replace: true }),
            },
            `${place + 1}`,
          ),
        ),
      );
    }

    function found(row) {
      const reason = dataset.reason(row);
      const check = dataset.check(row);
      if (!reason && !check) return null;
      return el(
        "div",
        { class: "found" },
        reason && el("p", { class: `reason ${dataset.status(row)}` }, reason),
        check &&
          el("p", { class: `reason ${check.state === "changed" ? "failed" : ""}` }, `check: ${check.state}`, check.reason && `, ${check.reason}`),
      );
    }

    function facts(row, file) {
      const words = [
        file?.width && `${file.width} × ${file.height}`,
        file?.bytes && `${Math.ceil(file.bytes / 1024)} kB`,
        dataset.column("target").label(row),
        `digest ${dataset.digest(row).slice(0, 12)}…`,
      ];
      return el("p", { class: "dim" }, words.filter(Boolean).join(" · "));
    }

    function actions(row, file) {
      const [workflow, name] = sweeper.workflow.named(dataset, row);
      const button = (text, act) => el("button", { type: "button", "data-keep": text, onclick: act }, text);
      const needs =
        workflow === null
          ? [el("p", { class: "dim" }, `No workflow and no rerun command: ${sweeper.workflow.missing(dataset)}.`)]
          : [
              button("Copy workflow", () => copy(workflow, "workflow")),
              button("Save workflow", () => save(name, "application/json", workflow)),
            ];
      return el(
        "section",
        { class: "actions" },
        needs,
        rerun(row, button),
        file?.path &&
          ["image", "video", "audio"].includes(file.kind) &&
          !/\.svg$/.test(file.path) &&
          el("a", { href: sweeper.cell.address(file.path), target: "_blank", rel: "noopener" }, "Open the file"),
        file?.workflow &&
          el("p", { class: "dim" }, "Drag the picture into ComfyUI: it carries its workflow. A saved workflow can be dragged there too."),
        el(
          "p",
          { class: "dim keys" },
          "Arrows move · H holds B · S side · B blink · L slider · D difference · G one · K keep · R reject · 1-5 rate · C comment · Esc close",
        ),
      );
    }

    function rerun(row, button) {
      const reason = sweeper.workflow.unasked(dataset, row);
      // Only what is in the plan as it stands has a workflow, so it would be told twice.
      if (reason) return sweeper.workflow.text(dataset, row) !== null && el("p", { class: "dim" }, `No rerun command: ${reason}.`);
      return button("Copy rerun command", () => copy(sweeper.workflow.command(dataset, row), "command"));
    }

    sweeper.steps.swipes(left, go);
    dialog.addEventListener("dragstart", (event) => {
      const { row, other } = drawn;
      if (event.target.closest?.(".actions a"))
        return sweeper.drag.carry(event, dataset.files(row)[drawn.output], ...sweeper.workflow.named(dataset, row));
      const src = event.target.closest?.(".stage img")?.getAttribute("src");
      const seen = [...dataset.files(row), ...(other < 0 ? [] : dataset.files(other)), ...(dataset.check(row)?.accepted ?? [])];
      sweeper.drag.carry(event, seen.find((file) => file.path && sweeper.cell.address(file.path) === src));
    });
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      page.update({ trial: "" });
    });
    dialog.addEventListener("click", (event) => event.target === dialog && page.update({ trial: "" }));
    dialog.addEventListener("keydown", (event) => {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        /^(INPUT|TEXTAREA|SELECT|AUDIO|VIDEO)$/.test(event.target.tagName)
      )
        return;
      const key = event.key.toLowerCase();
      if (ARROWS[event.key]) go(...ARROWS[event.key]);
      else if (KEYS[key]) setMode(KEYS[key]);
      else if (key === "h") holdThis();
      else if (key === "c") dialog.querySelector("textarea").focus();
      else if (!page.markByKey(event.key, drawn.row)) return;
      event.preventDefault();
    });
    return { show, remark: (row) => dialog.open && row === drawn.row && render(false) };
  }

  sweeper.zoom = { create };
})((globalThis.sweeper ??= {}));
