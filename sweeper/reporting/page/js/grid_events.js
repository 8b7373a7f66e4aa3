// Keys, clicks, drags, and pointers over a film in the grid.

import * as Dom from "./dom.js";
import * as Drag from "./drag.js";
import * as Workflow from "./workflow.js";
/** @import { GridView } from "./grid.js" */

/** @type {Record<string, [number, number]>} rows and columns that a key moves */
const STEPS = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  PageUp: [-5, 0],
  PageDown: [5, 0],
  Home: [0, -1e9],
  End: [0, 1e9],
};

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
  scroller.addEventListener("keydown", (event) => {
    const cell = findCell(event); // only cells of a strip have the focus themselves
    if ((event.target !== scroller && cell === null) || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key];
    const row = cell ? findRow(event) : grid.getCurrentRow();
    if (event.key === "Escape" && context.state.open !== "") context.update({ open: "" });
    else if (event.key === "e" && row >= 0) toggleStrip(grid, row);
    else if (step !== undefined && cell) {
      const next = step[0] + step[1] > 0 ? cell.nextElementSibling : cell.previousElementSibling;
      if (next instanceof HTMLElement) next.focus();
    } else if (step !== undefined) {
      const [r, c] = grid.current ?? grid.findFirstVisible();
      grid.setCurrent(r + step[0], c + step[1]);
    } else if (event.key === "Enter") {
      if (row >= 0) context.open(row);
      else explainEmpty(grid);
    } else if (row < 0 || !context.markByKey(event.key, row)) return;
    event.preventDefault();
  });
  scroller.addEventListener("click", (event) => {
    const cell = findCell(event);
    const row = findRow(event);
    if (event.target instanceof Element && event.target.closest(".stacked")) return toggleStrip(grid, row);
    if (cell instanceof HTMLElement && cell.matches(".none") && cell.title !== "") return Dom.announce(cell.title);
    if (row < 0 || (event.target instanceof Element && event.target.closest("audio"))) return;
    grid.show(row);
    if (event.shiftKey) context.markByKey("x", row);
    else context.open(row);
  });
  // A drag takes the trial's file and its workflow. The browser's own drag of a picture would take the thumbnail.
  scroller.addEventListener("dragstart", (event) => {
    const row = findRow(event);
    if (row >= 0) Drag.fillWithFile(event, context.dataset.files(row)[0], ...Workflow.getFile(context.dataset, row));
  });
  scroller.addEventListener("pointerover", (event) => {
    if (event.target instanceof HTMLVideoElement) event.target.play().catch(() => {});
  });
  scroller.addEventListener("pointerout", (event) => {
    if (event.target instanceof HTMLVideoElement) event.target.pause();
  });
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
