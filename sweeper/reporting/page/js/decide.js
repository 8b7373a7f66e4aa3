// The view Decide: the values of each axis as pictures with everything else held, and what the current choice is worth.

import { createInterval } from "../../../serving/page/js/segment.js";
import * as Colours from "./colours.js";
import * as DecideData from "./decide_data.js";
import { copyText, el, makeField, makeMenu, makePanel, redrawKeepingFocus, toUrl } from "../../../serving/page/js/dom.js";
import * as Layout from "./layout.js";
import * as Media from "./media.js";
import * as ValueText from "./value_text.js";
import * as Workflow from "./workflow.js";
/** @import { Axis } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */
/** @import { Context } from "./main.js" */

/** @typedef {{judge: DecideData.Judge, current: number, ranked: number[], strips: DecideData.Strip[]}} Choice */

const RUNNERS_UP = 4;
const THUMB_WIDTH = 150; // pixels
/** @type {Record<DecideData.Estimate["verdict"] | "note", string>} */
const SIGNS = { best: "✓", equal: "=", worse: "−", undecided: "?", note: "↔" };

/** @param {HTMLElement} host @param {Context} context @param {{top: number}} [last] */
export function create(host, context, last) {
  const scroller = el("div", { class: "decide", tabindex: 0, "aria-label": "Decide", "data-keep": "decide" });
  const draw = () => redrawKeepingFocus(scroller, () => scroller.replaceChildren(...makeContent(context)));
  draw();
  host.replaceChildren(scroller);
  // In a narrow window a strip begins at the value that is chosen.
  for (const node of scroller.querySelectorAll("li:has([aria-pressed=true])")) if (node instanceof HTMLElement && node.parentElement) node.parentElement.scrollLeft = node.offsetLeft - node.parentElement.offsetLeft - THUMB_WIDTH / 2;
  scroller.scrollTop = last?.top ?? 0;
  return { focus: () => scroller.focus(), getScroll: () => ({ top: scroller.scrollTop }), refreshMark: draw, refresh: draw };
}

/** @param {Context} context */
function makeContent({ dataset, marks, state, holds, update, ...rest }) {
  const context = { dataset, marks, state, holds, update, ...rest };
  const judges = DecideData.listJudges(dataset, marks);
  const judge = judges.find(({ name }) => name === state.by) ?? judges[0];
  const ranked = DecideData.rank(dataset, judge, marks, holds);
  const wanted = dataset.row(Number(state.choice || NaN));
  const current = wanted !== undefined && dataset.files(wanted).length > 0 ? wanted : ranked[0];
  const menu = makeMenu(judges.map(({ name, text }) => [name, text]), judge.name, (by) => update({ by, choice: "" }));
  const words = judge.choice === null
    ? "The numbers say what you kept, of what you kept, rejected or rated in the grid: keys K, R and 1 to 5."
    : `Press a value to see it. ${judge.choice.metric === "votes" ? "Dots are shares of wins, bars their 95 % intervals." : "Dots are means over trials that differ in nothing else. Where two bars do not overlap, the values differ, with 95 % confidence."}`;
  const isFiltered = judge.choice !== null && state.where.trim() !== "";
  const { answers, description, experiment } = dataset.raw;
  const notes = [isFiltered ? `${words} The filter chooses pictures; the means are those of all trials.` : words, answers?.left_out];
  const head = el("header", {}, el("h2", {}, description || experiment), makeField("Judged by", menu), notes.map((note) => note && el("p", { class: "dim" }, note)));
  if (current === undefined) return [head, el("p", { class: "empty" }, "No trial in view has a picture.")];
  const strips = DecideData.makeStrips(dataset, judge, current, ranked, state);
  const choice = { judge, current, ranked, strips };
  return [el("div", { class: "strips" }, head, strips.map((strip) => makeStrip(context, choice, strip))), makeSide(context, choice)];
}

/** @param {number} share */
export const toPercent = (share) => (share > 0 && share < 0.01 ? "under 1 %" : `${Math.round(share * 100)} %`);

/** @param {Axis[]} axes @param {number} row */
const isAt = (axes, row) => (/** @type {DecideData.Entry} */ { codes }) => axes.every((axis, index) => axis.codes[row] === codes[index]);

/** The verdict on a value of an axis: the best is undecided, too, while another is not told apart from it. @param {(DecideData.Estimate | undefined)[]} all @param {DecideData.Estimate} estimate */
const getVerdict = (all, { verdict }) => (verdict === "best" && all.some((other) => other?.verdict === "undecided") ? "undecided" : verdict);

/** @param {Context} context @param {Choice} all @param {DecideData.Strip} strip */
function makeStrip({ dataset, marks, update }, { judge, current }, { axes, name, choice, entries, total }) {
  const draw = makePainter(judge.choice);
  const all = entries.map(({ estimate }) => estimate);
  const share = DecideData.listAnswers(dataset).find(([metric]) => metric === judge.choice?.metric)?.[1].shares.find(([axis]) => axis === axes.map((each) => each.name).join(" + "))?.[1];
  const words = [share !== undefined && `${toPercent(share)} of the differences`, choice?.text, entries.length < total && `the ${entries.length} best of ${total} values`];
  const countKept = (/** @type {DecideData.Entry} */ entry) => {
    const judged = dataset.filterRows((row) => isAt(axes, row)(entry)).map((row) => marks.get(row)).filter(({ verdict, stars }) => verdict !== "" || stars > 0);
    return judged.length > 0 && `kept ${judged.filter(({ verdict }) => verdict === "keep").length} of ${judged.length}`;
  };
  const items = entries.map((entry) => {
    const { label, full, row, estimate } = entry;
    const { number, bar } = estimate ? draw(estimate) : { number: judge.choice === null && countKept(entry), bar: null };
    const attributes = { class: estimate ? `value is-${getVerdict(all, estimate)}` : "value", title: [full, estimate?.text].filter(Boolean).join("\n"), "aria-pressed": String(isAt(axes, current)(entry)), "data-keep": `${name} ${label}`, onclick: () => update({ choice: String(dataset.trial(row)) }) };
    return el("li", {}, el("button", attributes, makeThumb(dataset, row), el("span", { class: "words" }, el("b", {}, label), el("span", { class: "dim" }, number, estimate && ` ${SIGNS[getVerdict(all, estimate)]}`)), bar));
  });
  return el("section", {}, el("h3", {}, name, el("span", { class: "dim" }, words.filter(Boolean).map((word) => ` · ${word}`).join(""))), el("ol", { class: "values" }, items));
}

/** Make a function that draws an estimate between the ends of all bars, and writes its number. @param {DecideData.MetricChoice | null} choice */
function makePainter(choice) {
  const values = (choice?.axes ?? []).flatMap((axis) => axis.values);
  const extent = Colours.findExtent(values.flatMap(({ mean, low, high }) => [mean, low ?? mean, high ?? mean])) ?? [0, 1];
  const format = choice?.metric === "votes" ? toPercent : ValueText.makeFormat(values.map(({ mean }) => mean));
  const toShare = (/** @type {number} */ value) => Colours.toShare(value, extent);
  return (/** @type {DecideData.Estimate} */ { mean, low, high, votes }) => {
    return { number: [format(mean), votes].filter(Boolean).join(" · "), bar: createInterval(toShare(low ?? mean), toShare(mean), toShare(high ?? mean)) };
  };
}

/** What is known of the values of each axis, without pictures. @param {Dataset} dataset @param {DecideData.MetricChoice[]} choices */
export function makeRanking(dataset, [choice, opposite]) {
  const draw = makePainter(choice ?? null);
  const words = opposite ? { best: "highest", equal: "as high", worse: "lower", undecided: "undecided" } : null; // nobody knows what is better
  const tables = (choice?.axes ?? []).map(({ columns, values }) => {
    const rows = values.map((estimate) => {
      const axes = columns.map((name) => /** @type {Axis} */ (dataset.column(name)));
      const label = Layout.joinWords(axes, (axis) => axis.labelOf(estimate.cells[axes.indexOf(axis)]));
      const { number, bar } = draw(estimate);
      const verdict = getVerdict(values, estimate);
      return el("tr", { class: `is-${verdict}`, title: estimate.text }, el("th", { scope: "row" }, label), [bar, number, words?.[verdict] ?? verdict].map((cell) => el("td", {}, cell)));
    });
    return rows.length > 0 && el("table", { class: "ranking" }, el("caption", {}, columns.join(" + ")), rows);
  });
  return el("div", { class: "rankings" }, tables);
}

/** @param {Dataset} dataset @param {number} row */
function makeThumb(dataset, row) {
  const [file] = dataset.files(row);
  const node = Media.create(file, { src: file.thumb && toUrl(Media.pickThumbnail(file, THUMB_WIDTH, dataset.raw.sides)) });
  if (node instanceof HTMLImageElement) node.loading = "lazy";
  return el("span", { class: "thumb" }, Media.addSign(file, node));
}

// --- the current choice

/** @param {Context} context @param {Choice} choice */
function makeSide(context, { judge, current, ranked, strips }) {
  const { dataset, marks, holds, update, open } = context;
  const [file] = dataset.files(current);
  const picture = Media.create(file, { full: true });
  const join = (/** @type {Axis[]} */ axes) => Layout.joinWords(axes, (axis) => axis.labelOf(axis.codes[current]));
  const chips = strips.map(({ axes, name }) => el("span", { class: "chip", title: axes.map((axis) => axis.fullOf(axis.codes[current])).join(" · ") }, `${name} `, el("b", {}, join(axes))));
  const facts = strips.map(({ axes, entries, name }) => {
    const estimate = entries.find(isAt(axes, current))?.estimate;
    return estimate && makeFact(getVerdict(entries.map((entry) => entry.estimate), estimate), `${name}: ${estimate.text}`);
  });
  const column = DecideData.findPointColumn(dataset, judge);
  const own = column && makeFact("best", `${judge.choice?.metric} ${column.label(current)}, number ${ranked.indexOf(current) + 1} of ${ranked.length} trials`);
  const kept = marks.get(current).verdict === "keep" && makeFact("best", "kept");
  const others = DecideData.rank(dataset, judge, marks, holds, current).filter((row) => row !== current).slice(0, RUNNERS_UP);
  const describe = (/** @type {number} */ row) => {
    const getLabel = (/** @type {Axis} */ axis) => axis.labelOf(axis.codes[row]);
    return Layout.joinWords(dataset.axes.filter(({ codes }) => codes[row] !== codes[current]), (axis) => `${axis.name} ${getLabel(axis)}`, getLabel) || `trial ${dataset.trial(row)}`;
  };
  const runners = others.map((row) => {
    const attributes = { class: "value", "data-keep": `runner ${row}`, title: dataset.title(row), onclick: () => update({ choice: String(dataset.trial(row)) }) };
    return el("li", {}, el("button", attributes, makeThumb(dataset, row), el("span", { class: "dim" }, describe(row))));
  });
  const other = current === ranked[0] ? others[0] : ranked[0]; // none if one trial is all there is
  const compare = () => update({ trial: String(dataset.trial(current)), with: String(dataset.trial(other)), mode: "side" });
  return el(
    "aside",
    {},
    file.kind === "image" ? el("button", { class: "large", "aria-label": `Open ${dataset.title(current)}`, "data-keep": "large", onclick: () => open(current) }, picture) : el("div", { class: "large" }, picture),
    el("p", { class: "chips" }, chips),
    el("ul", { class: "facts", role: "list" }, own, facts, kept, judge.choice?.notes.map((note) => makeFact("note", note))),
    runners.length > 0 && el("h3", {}, "Runners-up"),
    el("ol", { class: "values" }, runners),
    el(
      "div",
      { class: "tools" },
      makeUsePanel(dataset, judge, current),
      other !== undefined && el("button", { "data-keep": "compare", onclick: compare }, `Compare with ${other === ranked[0] ? "the best" : describe(other).length < 24 ? describe(other) : "the next best"}`),
      makeMoreButton(dataset, judge),
    ),
  );
}

/** @param {DecideData.Estimate["verdict"] | "note"} verdict @param {string} text */
const makeFact = (verdict, text) => el("li", { class: `is-${verdict}` }, el("b", { "aria-hidden": "true" }, SIGNS[verdict]), el("span", {}, text));

/** @param {Dataset} dataset @param {DecideData.Judge} judge @param {number} current */
function makeUsePanel(dataset, judge, current) {
  const { options, yaml } = DecideData.writeSettings(DecideData.splitAxes(dataset, judge).settings, current);
  const workflow = Workflow.toText(dataset, current);
  /** @param {string} text @param {string} content @param {string} what */
  const makeCopy = (text, content, what) => el("button", { onclick: () => copyText(content, what) }, text);
  const last = workflow === null ? el("p", { class: "dim" }, `No workflow: ${Workflow.explainMissing(dataset)}.`) : makeCopy("Copy the workflow", workflow, "workflow");
  const panel = makePanel("Use these settings", makeCopy("Copy as options (--set)", options, "options"), makeCopy("Copy as params (YAML)", yaml, "params"), last);
  panel.classList.add("primary");
  return panel;
}

/** @param {Dataset} dataset @param {DecideData.Judge} judge */
function makeMoreButton(dataset, { choice }) {
  const count = choice?.more_seeds ?? 0;
  const command = dataset.raw.search ? `sweeper search ${Workflow.quoteWord(dataset.raw.file)} --confirm` : DecideData.makeMoreSeeds(dataset, count);
  const text = dataset.raw.search ? "Measure the best again" : `Run ${count} more seed${count === 1 ? "" : "s"}`;
  return command !== "" && el("button", { title: `Copy: ${command}`, onclick: () => copyText(command, "command") }, text);
}
