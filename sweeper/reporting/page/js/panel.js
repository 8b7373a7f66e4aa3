// What is told of the trial close up beside its pictures: what became of it, the facts of its file, what it leaves as.
"use strict";

(function (sweeper) {
  const { el, copy, save } = sweeper.dom;

  /** Why there is no picture, and what a check says; null where there is nothing to tell. */
  function found(dataset, row) {
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

  function facts(dataset, row, file) {
    const words = [
      file?.width && `${file.width} × ${file.height}`,
      file?.bytes && `${Math.ceil(file.bytes / 1024)} kB`,
      dataset.column("target").label(row),
      `digest ${dataset.digest(row).slice(0, 12)}…`,
    ];
    return el("p", { class: "dim" }, words.filter(Boolean).join(" · "));
  }

  function actions(dataset, row, file) {
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
      rerun(dataset, row, button),
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

  function rerun(dataset, row, button) {
    const reason = sweeper.workflow.unasked(dataset, row);
    // Only what is in the plan as it stands has a workflow, so it would be told twice.
    if (reason) return sweeper.workflow.text(dataset, row) !== null && el("p", { class: "dim" }, `No rerun command: ${reason}.`);
    return button("Copy rerun command", () => copy(sweeper.workflow.command(dataset, row), "command"));
  }

  sweeper.panel = { actions, facts, found };
})((globalThis.sweeper ??= {}));
