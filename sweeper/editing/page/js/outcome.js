// What a run would make: its shape, number, time and price, what is wrong, and the buttons that start and stop it.

import { isSeed, placeAxes } from "../../../serving/page/js/first_view.js";
import { edit, redraw, server, toggle, TYPING, ui } from "./app.js";
import { makeMenu } from "./fields.js";
import { countThings, findForm, findOtherProblems, listRange, shortenTexts, toName, toText } from "./model.js";
import { h } from "./render.js";
/** @import { GridAxis } from "../../../serving/page/js/first_view.js" */
/** @import { Axis, Plan, Run, State } from "./model.js" */

const MOST = 24; // cells of the drawn grid in one direction
const MOST_BLOCKS = 4; // that are drawn in one direction
/** @type {Record<number, string>} what the exit codes of `sweeper run` mean */
const ENDS = { 0: "It has finished.", 1: "It has ended; some pictures failed or a limit was reached.", 2: "It did not start; something is wrong.", 3: "It could not reach the target.", 130: "It was stopped." };

/** What the plan says, first how many pictures. @param {State} state @returns {string[]} */
export function describePlan({ plan, problems, target }) {
  if (plan === null) return [problems.length ? countThings(problems.length, "mistake") : "Counting…"];
  const cost = plan.cost ?? (target === "embedded" ? "free" : "");
  return [countThings(plan.trials, "picture"), plan.seconds ? `about ${plan.seconds}` : "", cost].filter((text) => text !== "");
}

/** @param {State} state */
export function makeOutcome(state) {
  const { plan, problems, notes, target, checking } = state;
  const others = findOtherProblems(state);
  const [count, ...rest] = describePlan(state);
  const { trials = 0, done = 0, jobs = 0 } = plan ?? {};
  if (done > 0) rest.push(done >= trials ? "all of them made already" : `${done.toLocaleString("en-US")} of them made already`);
  if (jobs && !plan?.seconds && target !== "embedded") rest.push("how long is known after the first job there");
  if (jobs !== null && jobs < trials - done) rest.push(`${countThings(jobs, "job")}, because some are equal`);
  const first = problems.find((problem) => !others.includes(problem));
  const wrong = first && h("p", { class: "error" }, `${first.slot ?? "where"}: ${first.message} `, first.slot !== null && h("a", { href: `#input=${first.slot}`, onclick: () => (location.hash = "") }, "Show it"));
  return h("section", { class: checking ? "outcome checking" : "outcome", "aria-labelledby": "outcome-title" },
    h("h2", { id: "outcome-title" }, "What it will make"),
    h("div", { class: "sum" }, plan && drawShape(plan, state.axes), h("div", {}, h("p", { class: "count" }, count), rest.map((text) => h("p", {}, text)))),
    others.map(({ text }) => h("p", { class: "error" }, text)), wrong, notes.map((text) => h("p", { class: "dim" }, text)),
    makeSettings(state), makeStart(state));
}

/** The grid that the report will show first, without pictures. @param {Plan} plan @param {Axis[]} axes */
function drawShape(plan, axes) {
  const zipOf = (/** @type {GridAxis} */ { name }) => axes.find((axis) => axis.name === name)?.zip ?? name;
  const varying = Object.entries(plan.axes).filter(([, size]) => size > 1).map(([name, size]) => ({ name, size, longest: () => findLongest(name, axes.find((axis) => axis.name === name)?.value) }));
  const view = placeAxes(varying, (axis, others) => others.some((other) => zipOf(other) === zipOf(axis)), () => false);
  const [columns, rows, outerColumns, outerRows] = [view.x, view.y, view.xx, view.yy].map((name) => plan.axes[name] ?? 1);
  const [across, down] = [Math.min(columns, MOST), Math.min(rows, MOST)];
  const [beside, below] = [Math.min(outerColumns, MOST_BLOCKS), Math.min(outerRows, MOST_BLOCKS)];
  const [width, height] = [(across + 1) * beside - 1, (down + 1) * below - 1];
  const cells = Array.from({ length: width * height }, (_, index) => [index % width, Math.floor(index / width)])
    .filter(([x, y]) => x % (across + 1) < across && y % (down + 1) < down)
    .map(([x, y]) => `M${x + 0.08} ${y + 0.08}h.84v.84h-.84z`);
  const scale = Math.min(22, 150 / width, 110 / height); // pixels of a cell
  const shown = [view.x, view.y, view.xx, view.yy].filter((name) => name !== "");
  const label = shown.map((name) => `${plan.axes[name].toLocaleString("en-US")} ${name}`).join(" × ");
  const picture = h("svg", { viewBox: `0 0 ${width} ${height}`, width: width * scale, height: height * scale, "aria-hidden": "true" }, h("path", { d: cells.join("") }));
  return h("figure", {}, picture, h("figcaption", {}, label));
}

/** How many letters the longest label of an axis has in the report, which writes long seeds as A, B. @param {string} name @param {any} value */
function findLongest(name, value) {
  const form = findForm(value);
  if (form === "seeds") return 1;
  if (form !== "values" && form !== "range") return Infinity; // texts of a file are long
  const labels = form === "range" ? listRange(value).map(toText) : shortenTexts(value.map(toName));
  return labels.reduce((longest, label) => Math.max(longest, isSeed({ name }) && /^\d{8,}$/.test(label) ? 1 : label.length), 0);
}

/** Target and budget. @param {State} state */
function makeSettings(state) {
  const current = typeof state.target === "string" ? state.target : "";
  const isOther = ui.open.has("other target");
  const choose = (/** @type {string} */ value) => {
    if ((value === "other") !== isOther) toggle("other target", "target url");
    if (value !== "other" && value !== "") edit({ set: "key", path: ["target"], value });
  };
  const names = [...new Set([...state.targets, current])].filter((name) => name !== "");
  const options = [...(current === "" ? [["", "as in the file"]] : []), ...names.map((name) => [name, name === "embedded" ? "embedded (no real model)" : name]), ["other", "another ComfyUI…"]];
  const menu = makeMenu("Made by", options, isOther ? "other" : current, choose);
  const setUrl = (/** @type {any} */ event) => {
    ui.open.delete("other target");
    edit({ set: "key", path: ["target"], value: event.target.value.trim() });
  };
  const url = isOther && h("input", { class: "text", "data-key": "target url", "aria-label": "Address of the ComfyUI", placeholder: "http://127.0.0.1:8188", onchange: setUrl });
  const limit = h("input", { class: "number", id: "budget", value: state.budget ?? "", placeholder: "no limit", oninput: (event) => edit({ set: "key", path: ["run", "budget"], value: toBudget(event.target.value) }, TYPING), onblur: redraw });
  const isPaid = current !== "embedded" || state.budget !== null;
  return h("div", { class: "settings", key: "settings" }, h("span", { "aria-hidden": "true" }, "Made by"), h("div", {}, menu, url), isPaid && h("label", { for: "budget" }, "At most"), isPaid && limit);
}

/** `5` is 5 USD. @param {string} text */
const toBudget = (text) => (text.trim() === "" ? null : /^\s*[\d.]+\s*$/.test(text) ? `${text.trim()} USD` : text.trim());

/** @param {string} kind @param {string | null} [confirmed] the question that was answered with yes */
async function start(kind, confirmed = null) {
  ui.turns = (await server.act("run", { kind, confirmed })) !== null && kind === "run";
  redraw();
}

/** @param {State} state */
function makeStart(state) {
  const { plan, problems, run, report, target } = state;
  const { trials = 0, done = 0 } = plan ?? {};
  const isDone = done > 0 && done >= trials;
  const link = report !== null && h("a", { class: isDone ? "button main" : "button", href: report }, "Show the pictures");
  if (run !== null && run.state !== "ended") return h("div", { class: "start", key: "start" }, makeProgress(run, trials, done), link);
  const isBlocked = plan === null || problems.length > 0;
  const why = problems.length > 0 && h("p", { class: "dim", id: "why" }, "Correct the mistakes first; then it can run.");
  const makeBig = (/** @type {string} */ kind, /** @type {string} */ classes, /** @type {string} */ text, title = "") =>
    h("button", { class: classes, title, "aria-disabled": isBlocked && "true", "aria-describedby": why && "why", onclick: () => isBlocked || start(kind) }, text);
  const text = isDone ? "Run again" : done > 0 ? `Continue: ${(trials - done).toLocaleString("en-US")} more` : "Run";
  const buttons = h("div", { class: "buttons" }, target !== "embedded" && makeBig("rehearse", "big", "Rehearse", "Try it on sweeper's own server first, which draws no real model and costs nothing"), makeBig("run", isDone ? "big" : "big main", text));
  return h("div", { class: "start", key: "start" }, isDone && link, run?.question ? makeQuestion(run.question, run.kind) : buttons, why, !isDone && link, run && !run.question && makeEnd(run));
}

/** @param {string} question @param {string} kind */
const makeQuestion = (question, kind) =>
  h("div", { class: "question", role: "group", "aria-label": "Question about money" }, h("p", { role: "alert" }, question), h("button", { class: "main", "data-key": "confirm", onclick: () => start(kind, question) }, "Yes, run"), h("button", { onclick: () => server.act("stop") }, "No"));

/** @param {Run} run @param {number} trials @param {number} done */
function makeProgress({ state, kind, messages }, trials, done) {
  const name = kind === "rehearse" ? "The rehearsal" : "The run";
  const [text, button] = state === "stopping" ? [`${name} waits for the jobs that are running.`, "Cancel these jobs too"] : [`${name} is going on.`, "Stop"];
  const bar = kind === "run" && h("progress", { max: trials, value: done, "aria-label": "Pictures made" });
  return h("div", {}, h("p", { role: "status" }, text), bar, h("p", { class: "dim last" }, messages.at(-1)), h("button", { class: "big", onclick: () => server.act("stop") }, button));
}

/** @param {Run} run */
function makeEnd({ kind, exit_code: code, messages, command }) {
  const isFine = code === 0 || code === 130;
  const isOpen = ui.open.has("messages") === isFine; // a failure shows its messages
  const text = `${kind === "rehearse" ? "Rehearsal: " : ""}${ENDS[code ?? 2] ?? `It ended with exit code ${code}.`}`;
  return h("div", { class: "end-of-run" }, h("p", { role: "status", class: isFine ? "good" : "error" }, text), h("button", { class: "quiet", "aria-expanded": String(isOpen), onclick: () => toggle("messages") }, "Messages"), isOpen && h("pre", { tabindex: 0, "aria-label": "Messages of the run" }, [`$ ${command}`, ...messages].join("\n")));
}

/** Turn the page into the live report when a run that was started here has begun. @param {State} state */
export function turnIfStarted({ run, report }) {
  if (!ui.turns || run === null) return;
  const hasEnded = run.state === "ended";
  const isRefused = hasEnded && run.exit_code !== 0 && run.exit_code !== 1; // its messages are here
  if (!isRefused && (report === null || !(hasEnded || run.has_begun))) return;
  ui.turns = false;
  if (!isRefused) location.assign(report ?? "");
  if (run.question) ui.focus = "confirm";
  redraw();
}
