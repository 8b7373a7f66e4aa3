// The text beside the pictures of the open trial: its outcome, the facts of its file, its workflow and command.

import { copyText, el, saveFile, toUrl } from "./dom.js";
import * as Workflow from "./workflow.js";
/** @import { Dataset, PageFile } from "./dataset.js" */

/** Why there is no picture, and what a check found; null if there is nothing to say. @param {Dataset} dataset @param {number} row */
export function makeOutcome(dataset, row) {
  const reason = dataset.reason(row);
  const finding = dataset.finding(row);
  if (!reason && !finding) return null;
  return el(
    "div",
    { class: "outcome" },
    reason && el("p", { class: `reason ${dataset.status(row)}` }, reason),
    finding &&
      el("p", { class: `reason ${finding.state === "changed" ? "failed" : ""}` }, `check: ${finding.state}`, finding.reason && `, ${finding.reason}`),
    finding?.verdict && el("p", { class: "reason" }, finding.verdict),
    finding?.text && el("pre", { class: "reason", tabindex: 0 }, finding.text),
  );
}

/** @param {Dataset} dataset @param {number} row @param {PageFile | undefined} file */
export function makeFacts(dataset, row, file) {
  const facts = [
    file?.kind !== "audio" && file?.width && `${file.width} × ${file.height}`,
    file?.bytes && `${Math.ceil(file.bytes / 1024)} kB`,
    dataset.outcomeColumn("target").label(row),
  ];
  return el("p", { class: "dim", title: `digest ${dataset.digest(row)}` }, facts.filter(Boolean).join(" · "));
}

/** @param {string} text @param {() => void} onclick @param {string} [look] */
const makeButton = (text, onclick, look = "quiet") => el("button", { class: look, "data-keep": text, onclick }, text);

/** @param {Dataset} dataset @param {number} row @param {PageFile | undefined} file */
export function makeActions(dataset, row, file) {
  const [workflow, name] = Workflow.getFile(dataset, row);
  const workflowActions =
    workflow === null
      ? [el("p", { class: "dim" }, `No workflow and no rerun command: ${Workflow.explainMissing(dataset)}.`)]
      : [
          makeButton("Copy workflow", () => copyText(workflow, "workflow"), "primary"),
          makeButton("Save workflow", () => saveFile(name, "application/json", workflow)),
        ];
  const isInline = /** @type {any} */ (globalThis).sweeper?.inline !== undefined; // browsers open no data URL by a link
  const canOpen = !isInline && file?.path && ["image", "video", "audio"].includes(file.kind) && !/\.svg$/.test(file.path);
  return el(
    "section",
    { class: "actions" },
    workflowActions,
    workflow !== null && makeRerun(dataset, row),
    canOpen && el("a", { href: toUrl(file.path), target: "_blank", rel: "noopener" }, "Open the file"),
    file?.workflow &&
      el("p", { class: "dim" }, "Drag the picture into ComfyUI: it contains its workflow. A saved workflow can be dragged there too."),
    el("p", { class: "dim keys" }, "Key ? lists the keys."),
  );
}

/** @param {Dataset} dataset @param {number} row */
function makeRerun(dataset, row) {
  const reason = Workflow.explainNoCommand(dataset, row);
  if (reason) return el("p", { class: "dim" }, `No rerun command: ${reason}.`);
  return makeButton("Copy rerun command", () => copyText(Workflow.makeCommand(dataset, row) ?? "", "command"));
}
