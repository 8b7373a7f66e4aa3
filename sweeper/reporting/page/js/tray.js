// The bars below the view: an axis that plays, films that play together, and the tray with collected trials.

import { announce, el, makeButton, redrawKeepingFocus } from "../../../serving/page/js/dom.js";
import * as Cell from "./cell.js";
import * as GridGeometry from "./grid_geometry.js";
import * as Layout from "./layout.js";
import * as Media from "./media.js";
import * as Params from "./params.js";
import { MAX_PICKS } from "./state.js";
import * as TextWidth from "./text_width.js";
import * as Transport from "./transport.js";
/** @import { Axis } from "./columns.js" */
/** @import { Page } from "./main.js" */
/** @import { State } from "./state.js" */

const [THUMB_WIDTH, TEXT_WIDTH] = [48, 200]; // pixels

/** Collect a trial, or take it out again. @param {Page} page @param {number} row */
export function toggle({ dataset, getState, update }, row) {
  const { picks } = getState();
  const trial = dataset.trial(row);
  const isIn = picks.includes(trial);
  if (!isIn && picks.length >= MAX_PICKS) return announce(`at most ${MAX_PICKS} trials can be collected; X on one of them takes it out`);
  update({ picks: isIn ? picks.filter((other) => other !== trial) : [...picks, trial] }, { replace: true });
  announce(`trial ${trial} ${isIn ? "taken out" : `collected, ${picks.length + 1} in the tray`}`);
}

/** The state that compares the collected trials: two of them as a pair, more of them side by side. @param {number[]} picks @returns {Partial<State>} */
const comparePicks = (picks) =>
  picks.length === 2 ? { with: String(picks[0]), trial: String(picks[1]), mode: "side" } : { trial: String(picks[0]), mode: "picked" };

/** @param {Page} page */
export function create(page) {
  const { dataset, update } = page;
  const [scrubber, films] = [Transport.createScrubber(page), Transport.createGridClock(page)];
  const picked = el("div", { class: "tray", role: "group", "aria-label": "Collected trials" });
  const isSent = dataset.raw.first?.address !== undefined; // a file for others
  const node = el("footer", { class: "below" }, scrubber.node, films.node, picked, isSent && el("p", { class: "made" }, "made with sweeper"));

  /** @param {number} trial @param {string} word @param {Axis[]} axes @param {() => void} remove */
  function makeItem(trial, word, axes, remove) {
    const row = dataset.row(trial) ?? -1;
    const values = Cell.describeValues(row, axes, TEXT_WIDTH) || `trial ${trial}`;
    const text = el("span", {}, word === "trial" ? "" : `${word}: `, TextWidth.shorten(values, TEXT_WIDTH) ?? values);
    const title = Params.makeTitle(dataset, row);
    return el("span", { class: "item" }, el("button", { title, "aria-label": `${word} ${trial}: ${title}`, onclick: () => page.open(row) }, Media.createThumb(dataset, row, THUMB_WIDTH), text), el("button", { "aria-label": `Take out ${word} ${trial}`, "data-keep": `out ${trial}`, onclick: remove }, "✕"));
  }

  /** @param {State} state */
  function show(state) {
    scrubber.show(state);
    films.show(state);
    const { picks } = state;
    const pinned = dataset.row(Number(state.with || NaN));
    picked.hidden = picks.length === 0 && pinned === undefined;
    if (picked.hidden) return picked.replaceChildren();
    const rows = [pinned, ...picks.map((trial) => dataset.row(trial))].filter((row) => row !== undefined);
    const free = Layout.listFreeAxes(dataset, { ...state, ...Layout.NO_DIRECTIONS });
    const differing = rows.length < 2 ? free : free.filter(({ codes }) => rows.some((row) => codes[row] !== codes[rows[0]]));
    const axes = GridGeometry.groupForCaption(differing).flat(); // long texts at the end, which may be cut off
    redrawKeepingFocus(picked, () =>
      picked.replaceChildren(
        ...(pinned === undefined ? [] : [makeItem(Number(state.with), "reference", axes, () => update({ with: "" }))]),
        ...picks.map((trial) => makeItem(trial, "trial", axes, () => toggle(page, dataset.row(trial) ?? -1))),
        picks.length > 1 ? makeButton(`Compare ${picks.length}`, () => update(comparePicks(picks)), { class: "primary", "data-keep": "compare" }) : el("span", { class: "dim" }, "X or shift-click collects more to compare"),
        makeButton("Empty", () => update({ picks: [], with: "" }), { title: "Key Esc", "data-keep": "empty" }),
      ),
    );
  }

  return { node, show };
}
