// @ts-check
// How many trials have which status, and which state of the check. Each count is a button that filters by it. The
// buttons are kept while a run goes on: a press would be lost if its button were replaced.

import { el } from "./dom.js";
import * as Live from "./live.js";
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

const CHECK_STATES = ["same", "changed", "failed", "new", "not compared", "gone"]; // in the order of showing
const MAX_NAMES = 300; // of missing cases

/** @param {Page} page */
export function create({ dataset, update: updatePage }) {
  const statuses = el("span", { class: "numbers", role: "group", "aria-label": "Status of the trials" });
  const states = el("span", { class: "numbers", role: "group", "aria-label": "Result of the check" });
  const missing = makeMissingList();
  const shown = el("span", { class: "dim" });
  const spending = el("span", { class: "dim", title: "The cost of the results here, of what all runs of the folder cost" });
  const rehearsal = el("span", { class: "dim", title: "sweeper's own server made these results, without a model" });
  const notes = el("span", { class: "dim" }, (dataset.raw.check?.notes ?? []).join(" "));
  const equal = el("span", { class: "equal", title: "Trials that differ in one axis alone, compared by the pixels of their pictures" });
  const live = el("span", { class: "alive", role: "status" });
  /** @type {Map<string, HTMLButtonElement>} */
  const buttons = new Map(); // by filter
  let where = "";

  /** @param {string} filter @param {string} word */
  function makeButton(filter, word) {
    const onclick = () => updatePage({ where: where === filter ? "" : filter });
    const title = "show only these, or all again";
    const button = el("button", { type: "button", class: word.replace(" ", "-"), title, onclick });
    buttons.set(filter, button);
    return button;
  }

  /**
   * A number and its word, as a button if the word is a value of a column.
   * @param {string | null} column @param {string} word @param {number} count
   */
  function makeCount(column, word, count) {
    const text = `${count.toLocaleString("en")} ${word}`;
    if (column === null) return el("span", { class: word }, text);
    const filter = `${column} == '${word}'`;
    const button = buttons.get(filter) ?? makeButton(filter, word);
    if (button.textContent !== text) button.textContent = text;
    return button;
  }

  function update() {
    // `running` comes from the run and is not a value of the column `status`.
    const counts = [...dataset.countStatuses()].map(([word, count]) => makeCount(word === "running" ? null : "status", word, count));
    replaceIfChanged(statuses, counts);
    states.hidden = !dataset.raw.check;
    if (dataset.raw.check) {
      const byState = dataset.countCheckStates();
      const words = [...new Set([...CHECK_STATES, ...byState.keys()])].filter((word) => byState.has(word));
      replaceIfChanged(states, ["check:", ...words.map((word) => makeCount("check", word, byState.get(word) ?? 0))]);
    }
    missing.show(dataset.raw.check?.gone ?? []);
    spending.textContent = dataset.raw.spending;
    equal.textContent = dataset.raw.equal.join("; ");
    const targets = dataset.outcome.find(({ name }) => name === "target")?.values ?? [];
    rehearsal.textContent = [...dataset.raw.targets, ...targets].includes("embedded") ? "embedded (rehearsal)" : "";
    live.textContent = Live.describe(dataset);
    showPressed();
  }

  function showPressed() {
    for (const [filter, button] of buttons) button.setAttribute("aria-pressed", String(filter === where));
  }

  /**
   * @param {State} state
   * @param {number} count of the trials shown
   */
  function show(state, count) {
    where = state.where;
    shown.textContent = count === dataset.size ? "" : `${count.toLocaleString("en")} shown`;
    showPressed();
  }

  return { node: el("div", { class: "counts" }, statuses, states, missing.node, shown, spending, rehearsal, notes, equal, live), update, show };
}

/** @param {HTMLElement} host @param {(Node | string)[]} parts */
function replaceIfChanged(host, parts) {
  const { childNodes } = host;
  if (childNodes.length === parts.length && parts.every((part, index) => part === childNodes[index])) return;
  const focused = document.activeElement;
  const hadFocus = host.contains(focused);
  host.replaceChildren(...parts);
  if (hadFocus && focused instanceof HTMLElement) focused.focus();
}

/** The names of accepted cases that no trial makes any more; they have no cell in the grid. */
function makeMissingList() {
  const title = "Accepted, but no trial of this run makes them:";
  const summary = el("summary", {});
  const list = el("div", {});
  const node = el("details", { class: "missing" }, summary, list);
  /** @type {string[] | null} */
  let current = null;

  /** @param {string[]} names */
  function show(names) {
    node.hidden = names.length === 0;
    if (names === current) return;
    current = names;
    summary.textContent = `${names.length.toLocaleString("en")} missing`;
    summary.title = [title, ...names.slice(0, 12), names.length > 12 ? "…" : ""].join("\n");
    const more = names.length - MAX_NAMES;
    list.replaceChildren(
      el("p", {}, title),
      el("ul", {}, names.slice(0, MAX_NAMES).map((name) => el("li", {}, name))),
      more > 0 ? el("p", {}, `and ${more.toLocaleString("en")} more`) : "",
    );
  }

  return { node, show };
}
