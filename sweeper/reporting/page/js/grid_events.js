// Keys, clicks, drags, and pointers over a film in the grid.

import * as Dom from "../../../serving/page/js/dom.js";
import * as Keys from "../../../serving/page/js/keys.js";
import { Marks } from "./marks.js";
import * as Media from "./media.js";
import * as Workflow from "./workflow.js";
/** @import { GridView } from "./grid.js" */

/** @type {Record<string, [number, number]>} rows and columns that a key moves */
const STEPS = { ...Keys.ARROWS, PageUp: [-5, 0], PageDown: [5, 0], Home: [0, -1e9], End: [0, 1e9] };

/** React to keys, clicks, drags, and pointers over a film. @param {GridView} grid */
export function listen(grid) {
  const { scroller, context } = grid;
  /** @param {Event} event */
  const findCell = (event) => (event.target instanceof Element ? event.target.closest(".cell") : null);
  /** @param {Event} event */
  const findRow = (event) => {
    const cell = findCell(event);
    return cell instanceof HTMLElement ? Number(cell.dataset.row) : -1;
  };
  // A pointer press gives focus before its click; the click then sets the current cell.
  scroller.addEventListener("focus", () => {
    if (grid.current === null && scroller.matches(":focus-visible")) grid.setCurrent(...grid.findFirstVisible(), true);
  });
  const getRow = (/** @type {Event} */ event) => (findCell(event) ? findRow(event) : grid.getCurrentRow());
  /** @type {Keys.Binding[]} */
  const bindings = [
    [Object.keys(STEPS).join(" "), "move", (key, event) => step(grid, STEPS[key], findCell(event))],
    ["Enter", "open the trial", (_, event) => (getRow(event) >= 0 ? context.open(getRow(event)) : explainEmpty(grid))],
    ["e", "open a cell that several trials share", (_, event) => getRow(event) >= 0 && toggleStrip(grid, getRow(event))],
    ["Escape", "close it", () => context.state.open !== "" && context.update({ open: "" })],
    ...Marks.KEYS.map(([keys, words]) => /** @type {Keys.Binding} */ ([keys, words, (key, event) => context.markByKey(key, getRow(event))])),
  ];
  // Only cells of a strip have the focus themselves.
  Keys.bind(scroller, "In the grid and the gallery", bindings, (event) => event.target === scroller || findCell(event) !== null);
  scroller.addEventListener("click", (event) => {
    const cell = findCell(event);
    const row = findRow(event);
    if (event.target instanceof Element && event.target.closest(".stacked")) return toggleStrip(grid, row);
    if (cell instanceof HTMLElement && cell.matches(".none") && cell.title !== "") return Dom.announce(cell.title);
    if (row < 0) return;
    grid.show(row);
    if (event.shiftKey) context.markByKey("x", row);
    else context.open(row);
  });
  // A drag takes the trial's file and its workflow. The browser's own drag of a picture would take the thumbnail.
  scroller.addEventListener("dragstart", (event) => {
    const row = findRow(event);
    if (row >= 0) Media.fillDrag(event, context.dataset.files(row)[0], ...Workflow.getFile(context.dataset, row));
  });
  scroller.addEventListener("pointerover", (event) => {
    if (event.target instanceof HTMLVideoElement) event.target.play().catch(() => {});
  });
  scroller.addEventListener("pointerout", (event) => {
    if (event.target instanceof HTMLVideoElement) event.target.pause();
  });
}

/** @param {GridView} grid @param {[number, number]} by rows and columns @param {Element | null} cell of a strip, if the focus is in one */
function step(grid, [down, across], cell) {
  const next = down + across > 0 ? cell?.nextElementSibling : cell?.previousElementSibling;
  const [r, c] = grid.current ?? grid.findFirstVisible();
  if (cell === null) grid.setCurrent(r + down, c + across);
  else if (next instanceof HTMLElement) next.focus();
}

/** Say why the current cell has no trial, for users without a pointer. @param {GridView} grid */
function explainEmpty(grid) {
  if (grid.arrangement.rows.length === 0) return;
  const [r, c] = grid.current ?? grid.findFirstVisible();
  grid.setCurrent(r, c); // it may have been scrolled out of view
  const reason = grid.getCurrentRow() < 0 && grid.cellAt(r, c)?.title;
  if (reason) Dom.announce(reason);
}

/** Open a cell that several trials share as a strip, or close it. @param {GridView} grid @param {number} row of one of them */
function toggleStrip({ arrangement, context }, row) {
  const isOpen = arrangement.locate(context.dataset.row(Number(context.state.open)) ?? -1)?.join() === arrangement.locate(row)?.join();
  context.update({ open: context.state.open !== "" && isOpen ? "" : String(context.dataset.trial(row)) });
}
