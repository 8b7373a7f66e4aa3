// What happened: how many trials have which status, and which state of the check, as buttons that filter by it. A button names
// the kinds of accidents and opens a panel, which shows each of them and has the command that runs them again.

import { copyText, el, makePanel, redrawKeepingFocus } from "../../../serving/page/js/dom.js";
import * as Cell from "./cell.js";
import * as Live from "./live.js";
import * as Review from "./review.js";
import * as ValueText from "./value_text.js";
import * as Workflow from "./workflow.js";
/** @import { Dataset } from "./dataset.js" */
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

/** @typedef {{words: string, short?: string, alone?: string, where?: string, command?: string | null, names?: string[]}} Notice `short`, `alone`: on the button, among others and without */

const CHECK_STATES = ["same", "changed", "failed", "new", "not compared", "gone"]; // in the order of showing
const MAX_NAMES = 300; // of missing cases
const MAX_CAUSES = 3; // of failures that are named

/** @param {Page} page */
export function create(page) {
  const { dataset, update: updatePage } = page;
  const live = el("span", { class: "alive", role: "status" });
  const statuses = el("span", { class: "numbers", role: "group", "aria-label": "Status of the trials" });
  const states = el("span", { class: "numbers states", role: "group", "aria-label": "Result of the check" });
  const rehearsal = el("span", { class: "rehearsal", title: "sweeper's own server made these results, without a model" });
  const spending = el("span", { title: "The cost of the results here, of what all runs of the folder cost" });
  const [accidents, causes] = [el("div", { class: "accidents" }), el("div", { class: "causes" })];
  const panel = makePanel("Accidents", accidents, causes);
  const button = /** @type {HTMLElement} */ (panel.firstElementChild);
  button.addEventListener("click", () => causes.replaceChildren(...Review.listCauses(dataset, show)));
  let shown = ""; // notices; a press would be lost if its button were replaced
  const progress = el("progress", { "aria-label": "Trials done" });
  const filters = makeFilters(updatePage);

  function update() {
    const { raw } = dataset;
    const isRunning = raw.live?.running === true && !raw.live.hasEnded;
    // While it runs, the line about the run has the other numbers. `running` is not a value of the column `status`.
    const isSaid = (/** @type {string} */ word) => word === "running" || (isRunning && word !== "failed") || (raw.check && word === "succeeded");
    const counts = [...dataset.countStatuses()].filter(([word]) => !isSaid(word));
    replaceIfChanged(statuses, counts.map(([word, count]) => (word === "succeeded" ? el("span", {}, `${count.toLocaleString("en")} done`) : filters.makeCount("status", word, count))));
    const notices = listNotices(dataset);
    const names = notices.map(({ words, short = words }) => short);
    states.hidden = !raw.check;
    if (raw.check) {
      const byState = ValueText.countEach(dataset.listRows().map((row) => dataset.check[0].label(row)));
      const words = [...new Set([...CHECK_STATES, ...byState.keys()])].filter((word) => byState.has(word));
      replaceIfChanged(states, words.map((word) => filters.makeCount("check", word, byState.get(word) ?? 0)));
      names.push(words.some((word) => word !== "same") ? "causes" : "notes");
    }
    const text = names.length === 1 && notices.length === 1 ? (notices[0].alone ?? notices[0].words) : [...new Set(names)].join(" · ");
    button.textContent = `${text} ▾`;
    button.title = notices.map(({ words }) => words).join("\n");
    button.classList.toggle("failed", notices.some(({ where, names: cases }) => where !== undefined || cases));
    panel.hidden = names.length === 0;
    if (JSON.stringify(notices) !== shown) accidents.replaceChildren(...notices.map((notice) => makeNotice(notice, show)));
    shown = JSON.stringify(notices);
    spending.textContent = raw.spending;
    const targets = dataset.outcome.find(({ name }) => name === "target")?.values ?? [];
    rehearsal.textContent = [...raw.targets, ...targets].includes("embedded") ? "rehearsal" : "";
    live.textContent = Live.describe(dataset);
    progress.hidden = !isRunning;
    Object.assign(progress, { max: dataset.size, value: isRunning ? raw.live.done : 0 });
    filters.show();
  }

  /** Close the panel, and show some trials. @param {Partial<State>} change */
  function show(change) {
    button.click();
    updatePage(change);
  }

  return { node: el("div", { class: "counts" }, live, statuses, states, panel, rehearsal, spending), progress, update, show: filters.show };
}

/** Buttons that filter by a value, each with its count. They are kept: a press would be lost if its button were replaced. @param {Page["update"]} update */
function makeFilters(update) {
  /** @type {Map<string, HTMLButtonElement>} */
  const buttons = new Map(); // by filter
  let current = "";

  /** @param {string} column @param {string} word @param {number} count */
  function makeCount(column, word, count) {
    const text = `${count.toLocaleString("en")} ${Cell.describeKind(word)}`;
    const filter = `${column} == '${word}'`;
    const onclick = () => update({ where: current === filter ? "" : filter });
    const button = buttons.get(filter) ?? el("button", { class: word.replace(" ", "-"), "data-keep": filter, title: "show only these, or all again", onclick });
    buttons.set(filter, button);
    if (button.textContent !== text) button.textContent = text;
    return button;
  }

  /** @param {string} [where] the filter of the page */
  function show(where = current) {
    current = where;
    for (const [filter, button] of buttons) button.setAttribute("aria-pressed", String(filter === where));
  }

  return { makeCount, show };
}

/**
 * The accidents among the trials: failures by their cause, missing files, pictures that show nothing or are equal.
 * @param {Dataset} dataset @returns {Notice[]}
 */
function listNotices(dataset) {
  const rowsByLook = Map.groupBy(dataset.filterRows((row) => dataset.look(row) !== ""), (row) => dataset.look(row));
  const failed = dataset.filterRows((row) => dataset.status(row) === "failed");
  const causes = ValueText.countEach(failed.map((row) => dataset.cause(row)));
  const named = [...causes].sort((a, b) => b[1] - a[1]).slice(0, MAX_CAUSES).map(([cause, count]) => `${cause} (${count.toLocaleString("en")})`);
  const alone = named.join(", ") + (causes.size > MAX_CAUSES ? ", and other causes" : "");
  /** @type {Notice[]} */
  const notices = [...rowsByLook].map(([look, rows]) => ({
    words: `${rows.length.toLocaleString("en")} ${look === "missing" ? "with a missing file" : look}`,
    where: dataset.column("picture")?.role === "outcome" ? `picture == '${look}'` : "", // an axis may have that name
    command: look === "missing" ? Workflow.makeRunCommand(dataset, ["--remake"]) : Workflow.makeFreshCommand(dataset, rows),
  }));
  const failures = { words: `${failed.length.toLocaleString("en")} failed: ${alone}`, alone, short: "causes", where: "status == 'failed'" };
  if (failed.length > 0) notices.unshift({ ...failures, command: Workflow.makeRunCommand(dataset, ["--retry-failed"]) });
  const names = dataset.raw.check?.gone ?? []; // accepted cases that no trial makes any more; they have no cell in the grid
  if (names.length > 0) notices.push({ words: `${names.length.toLocaleString("en")} missing: accepted, but no trial of this run makes them`, short: `${names.length.toLocaleString("en")} missing`, names });
  return [...notices, ...dataset.raw.equal.map((/** @type {string} */ words) => ({ words, short: "equal pictures" }))];
}

/** @param {Notice} notice @param {(change: Partial<State>) => void} show */
function makeNotice({ words, where, command, names = [] }, show) {
  /** @param {string} text @param {string} label @param {() => void} onclick */
  const makeButton = (text, label, onclick) => el("button", { "aria-label": `${text}: ${label}`, onclick }, text);
  const copy = command && makeButton("Copy command", `runs them again: ${words}`, () => copyText(command, "command"));
  const items = names.slice(0, MAX_NAMES).map((name) => el("li", {}, name));
  return el("div", {}, el("p", {}, words), where && makeButton("Show", words, () => show({ where })), copy, items.length > 0 && el("ul", { class: "missing" }, items));
}

/** @param {HTMLElement} host @param {Node[]} parts */
function replaceIfChanged(host, parts) {
  const isSame = host.childNodes.length === parts.length && parts.every((part, index) => part === host.childNodes[index]);
  if (!isSame) redrawKeepingFocus(host, () => host.replaceChildren(...parts));
}
