// From a trial to the next one: *More like this* makes an experiment around it, *Revise* runs it with another value.
// The server does both, if it runs on this machine and the page has its token; else the page gives the command.

import { announce, copyText, el, makeButton, makeField, makeMenu, postJson } from "../../../serving/page/js/dom.js";
import { isNumber, toJson, toText } from "./value_text.js";
import * as Workflow from "./workflow.js";
/** @import { CodedColumn } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Page } from "./main.js" */
/** @import { Value } from "./value_text.js" */

const LONG = 40; // characters of a text that gets a field of several lines
/** What `POST /cell` answers. @typedef {{url: string | null, file: string, command: string, trial?: number | null, question?: string}} Answer */

/** Exchange the token in the address for a session, and remove it from the address. Call it before anything reads that. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null || !location.protocol.startsWith("http")) return;
  history.replaceState(null, "", location.pathname + location.search); // the browser's history must not keep it
  post("session", { token }).then(({ ok }) => (hasEntered = ok), () => {});
}

let hasEntered = false;

/** Whether the server of this page acts on trials for it. @param {Dataset} dataset */
const canAct = ({ raw }) => Boolean(raw.live?.has_cells && (raw.live.can_act || hasEntered));

/** @param {string} path @param {Value} body */
const post = (path, body) => postJson(path, null, { body: toJson(body) }); // whole numbers of any size

/**
 * Ask the server to act on a trial. Null if this page may not; rejects with what is wrong.
 * @param {Dataset} dataset @param {number} row @param {Record<string, Value>} wish @returns {Promise<Answer | null>}
 */
async function act(dataset, row, wish) {
  if (!canAct(dataset)) return null;
  const response = await post("cell", { trial: dataset.trial(row), digest: dataset.digest(row), ...wish });
  if (response.status === 401) return null;
  if (!response.ok && response.status !== 428) throw new Error(await response.text());
  return response.json();
}

/** @param {...string} words */
const copyCommand = (...words) => copyText(["sweeper", ...words].map(Workflow.quoteWord).join(" "), "command");

/** @param {Page} page @param {number} row */
export function makeButtons(page, row) {
  /** @param {string} text @param {() => void} onclick */
  const make = (text, onclick) => makeButton(canAct(page.dataset) ? text : `Copy command: ${text.toLowerCase()}`, onclick, { class: "quiet", "data-keep": text });
  const more = make("More like this", () => openSimilar(page.dataset, row));
  return page.dataset.raw.search ? [more] : [more, make("Revise this cell", () => openRevision(page, row))];
}

/** Make an experiment around a trial and open its page in a new tab. @param {Dataset} dataset @param {number} row */
export async function openSimilar(dataset, row) {
  try {
    const answer = await act(dataset, row, { kind: "more" });
    if (answer === null) return void copyCommand("open", dataset.raw.results, "--like", String(dataset.trial(row)));
    announce(`wrote ${answer.file}`);
    if (answer.url === null) copyText(answer.command, "too many pages are open; command");
    else if (!window.open(answer.url)) location.assign(answer.url); // the browser opens no tab
  } catch (error) {
    announce(error instanceof Error ? error.message : String(error));
  }
}

/** The way back to the page that edits this experiment, by the name under which the browser knows this machine here. @param {Dataset} dataset */
export const makeEditButton = ({ raw }) =>
  raw.live?.editor && makeButton("Edit", () => location.assign(Object.assign(new URL(raw.live.editor), { hostname: location.hostname })), { title: "Change the experiment" });

/** Open the dialog that gives a trial another value. @param {Page} page @param {number} row */
export function openRevision(page, row) {
  const { dataset } = page;
  const columns = listInputs(dataset, row);
  if (!canAct(dataset)) return void copyCommand("view", dataset.raw.results, "--open");
  if (columns.length === 0) return announce("this trial has no input that can be revised");
  let column = columns[0];
  let control = makeControl(column, row);
  let confirmed = ""; // the question that was answered
  const place = el("div");
  const problem = el("p", { role: "alert" });
  const run = el("button", { class: "primary", type: "submit" });
  const menu = makeMenu(columns.map(({ name }) => [name, name]), column.name, (name) => {
    column = columns.find((other) => other.name === name) ?? column;
    control = makeControl(column, row);
    show();
  });
  const form = el(
    "form",
    { method: "dialog", onsubmit: send },
    el("h2", {}, `Revise trial ${dataset.trial(row)}`),
    makeField("Input", menu),
    place,
    el("p", { class: "dim" }, `Adds the trial to ${dataset.raw.file}, as a row of include, and runs it.`),
    problem,
    el("div", { class: "strip" }, run, el("button", { onclick: () => dialog.close() }, "Cancel")),
  );
  const dialog = el("dialog", { class: "revision", "aria-label": "Revise this cell", onclose: () => dialog.remove() }, form);
  show();
  document.body.append(dialog);
  dialog.showModal();
  control.focus();

  function show(text = "", yes = "Run this trial") {
    place.replaceChildren(makeField("Value", control));
    problem.textContent = text;
    run.textContent = yes;
    if (text === "") confirmed = "";
  }

  /** @param {Event} event */
  async function send(event) {
    event.preventDefault();
    run.disabled = true;
    try {
      const value = parse(control.value, column.value(row));
      const answer = await act(dataset, row, { kind: "revise", set: { [column.name]: value }, confirmed: confirmed || null });
      if (answer?.question) {
        confirmed = answer.question;
        show(answer.question, "Yes, run it");
      } else {
        dialog.close();
        showRevised(page, row, answer);
      }
    } catch (error) {
      show(error instanceof Error ? error.message : String(error));
    }
    run.disabled = false;
  }
}

/**
 * Show the new trial beside the old one. The run has more trials than before, so the page loads again by itself.
 * @param {Page} page @param {number} row @param {Answer | null} answer
 */
function showRevised({ dataset, update }, row, answer) {
  if (answer === null) return void copyCommand("view", dataset.raw.results, "--open");
  if (typeof answer.trial === "number") update({ trial: String(answer.trial), with: String(dataset.trial(row)), mode: "side" });
  announce(`running: ${answer.command}`);
}

/** The inputs of a trial with a value that one can type, what varies first. @param {Dataset} dataset @param {number} row @returns {CodedColumn[]} */
function listInputs(dataset, row) {
  const columns = Workflow.listSlotColumns(dataset).filter((column) => ["string", "boolean", "number", "bigint"].includes(typeof column.value(row)));
  return [...columns.filter(({ values }) => values.length > 1), ...columns.filter(({ values }) => values.length <= 1)];
}

/** A control with a trial's value. @param {CodedColumn} column @param {number} row @returns {HTMLInputElement | HTMLSelectElement} */
function makeControl(column, row) {
  const value = column.value(row);
  const text = toText(value);
  if (typeof value === "boolean") return makeMenu([["true", "true"], ["false", "false"]], text, () => {});
  /** @type {any} */
  const control = text.length > LONG || text.includes("\n") ? el("textarea", { rows: 6 }) : el("input", { inputmode: isNumber(value) ? "decimal" : null });
  control.value = text;
  return control;
}

/** Read a text as a value of the same kind as another. Throws an Error if it is none. @param {string} text @param {Value} other @returns {Value} */
function parse(text, other) {
  if (typeof other === "boolean") return text === "true";
  if (!isNumber(other)) return text;
  const number = Number(text);
  if (text.trim() === "" || !Number.isFinite(number)) throw new Error(`a number is needed, not ${text || "nothing"}`);
  return /^-?\d+$/.test(text.trim()) && !Number.isSafeInteger(number) ? BigInt(text.trim()) : number;
}
