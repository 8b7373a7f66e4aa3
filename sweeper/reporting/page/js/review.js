// The answers to a check: a change is accepted, or it is a bug. Where a server can accept, it does so at once; otherwise
// the answers are marks, from which the page makes one command. Also the causes that changed cases have in common.

import { announce, copyText, el, postJson } from "../../../serving/page/js/dom.js";
import * as Expression from "./expression.js";
import * as MarkExport from "./mark_export.js";
/** @import { Axis } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

const OPEN_STATES = ["changed", "new"]; // what can be accepted
const MIN_GAIN = 4; // how many times less the changes must differ within the values of an axis, to be told apart by it
const NUMBER = /\d+(?:\.\d+)?/g;

/** Buttons that answer the check of a row; null if there is nothing to answer. @param {Page} page @param {number} row */
export function makeAnswers({ dataset, marks }, row) {
  if (!OPEN_STATES.includes(dataset.finding(row)?.state ?? "")) return null;
  const { verdict } = marks.get(row);
  const isLive = dataset.raw.live?.can_accept === true;
  /** @param {string} text @param {"keep" | "reject"} word @param {Record<string, any>} more */
  const makeButton = (text, word, more) => {
    const onclick = () => marks.set(row, { verdict: verdict === word ? "" : word });
    return el("button", { "data-keep": text, "aria-pressed": String(verdict === word), onclick, ...more }, text);
  };
  const accept = isLive ? { onclick: async () => announce(await sendAcceptance(dataset, row)), "aria-pressed": null } : {};
  const count = (/** @type {string} */ word) => marks.findRows((mark) => mark.verdict === word).length;
  const [kept, bugs] = [count("keep"), count("reject")];
  const copy = () => copyText(MarkExport.makeAcceptCommand(dataset, marks), "command");
  return el(
    "section",
    { class: "answers", "aria-label": "Answer" },
    makeButton("Accept change", "keep", { class: "primary", ...accept }),
    makeButton("It is a bug", "reject", {}),
    !isLive && kept > 0 && el("button", { "data-keep": "copy", onclick: copy }, `Copy the command that accepts ${kept}`),
    bugs > 0 && el("span", { class: "dim" }, `${bugs} ${bugs > 1 ? "bugs" : "bug"}`),
  );
}

/** Let the server accept what this page shows of a row; returns what happened in words. @param {Dataset} dataset @param {number} row */
async function sendAcceptance(dataset, row) {
  const trial = dataset.trial(row);
  const seen = [...(dataset.finding(row)?.accepted ?? []).map(({ path }) => path), ...dataset.files(row).map(({ sha256 }) => sha256)];
  const response = await postJson("accept", { trial, seen }).catch(() => null);
  if (response === null) return "not accepted: the server does not respond; start `sweeper view` again";
  return response.ok ? `trial ${trial} is accepted` : `not accepted: ${await response.text()}`;
}

/**
 * What the cases that are not the same have in common: reasons that differ in their numbers only, and the values that
 * all these cases share and others do not have.
 * @param {Dataset} dataset @returns {{text: string, where: string}[]} the most frequent first; `where` selects the cases
 */
function groupCauses(dataset) {
  const [state, reason, verdict] = dataset.check;
  const open = dataset.filterRows((row) => state.label(row) !== "same");
  const rows = Map.groupBy(open, (row) => `${state.label(row)}\n${verdict?.label(row) || reason.label(row).replace(NUMBER, "\n")}`);
  const groups = [...rows].flatMap(([key, group]) => splitByAxis(dataset, group).map((/** @type {number[]} */ part) => /** @type {const} */ ([key, part])));
  return groups.sort(([, a], [, b]) => b.length - a.length).map(([key, group]) => {
    const [state, ...pieces] = key.split("\n");
    const shared = dataset.axes.filter(({ codes }) => group.every((row) => codes[row] === codes[group[0]]) && codes.some((code) => code !== codes[group[0]]));
    const numbers = group.map((row) => dataset.check[1].label(row).match(NUMBER) ?? []);
    const joined = pieces.reduce((text, piece, index) => `${text}${describeRange(numbers.map((list) => Number(list[index - 1])))}${piece}`);
    const getLabel = (/** @type {Axis} */ axis) => axis.labelOf(axis.codes[group[0]]);
    const names = shared.map((axis) => (/^\p{L}/u.test(getLabel(axis)) ? getLabel(axis) : `${axis.name} ${getLabel(axis)}`));
    const words = [names.join(" · "), joined || state];
    const piece = pieces.reduce((longest, other) => (other.length > longest.length ? other : longest));
    const column = dataset.check[2]?.label(group[0]) ? "check_verdict" : "check_reason";
    const conditions = [`check == '${state}'`, ...(piece ? [`${Expression.toLiteral(piece)} in ${column}`] : []), ...shared.map((axis) => Expression.makeCondition(axis, axis.codes[group[0]]))];
    return { text: `${group.length} × ${words.filter(Boolean).join(": ")}`, where: conditions.join(" and ") };
  });
}

/** Split a group by the axis that separates small changes from large ones, if there is one. @param {Dataset} dataset @param {number[]} group */
function splitByAxis(dataset, group) {
  const severity = dataset.column("check_severity");
  const measureSpread = (/** @type {number[]} */ rows) => {
    const numbers = rows.map((row) => Number(severity?.value(row)));
    return Math.max(...numbers) - Math.min(...numbers);
  };
  const splits = dataset.axes.map(({ codes }) => [...Map.groupBy(group, (row) => codes[row]).values()]);
  const sum = (/** @type {number[][]} */ parts) => parts.reduce((total, part) => total + measureSpread(part), 0);
  const [best] = splits.filter((parts) => parts.length < group.length).sort((a, b) => sum(a) - sum(b));
  return best && sum(best) < measureSpread(group) / MIN_GAIN ? best : [group];
}

/** @param {number[]} numbers */
function describeRange(numbers) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  return low === high ? String(low) : `${low} to ${high}`;
}

/** The causes as buttons that show their cases, and the notes of the check; nothing without a check. @param {Dataset} dataset @param {(change: Partial<State>) => void} show @returns {Node[]} */
export function listCauses(dataset, show) {
  if (!dataset.raw.check) return [];
  /** @param {{text: string, where: string}} cause */
  const makeButton = ({ text, where }) => el("button", { onclick: () => show({ view: "gallery", where, sort: "-check_severity" }) }, text);
  return [...groupCauses(dataset).map(makeButton), ...(dataset.raw.check.notes ?? []).map((/** @type {string} */ note) => el("p", { class: "dim" }, note))];
}
