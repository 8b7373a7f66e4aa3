// All trials of a cell that several share, in its place as a small grid.

import { el } from "../../../serving/page/js/dom.js";
import * as Cell from "./cell.js";
import * as Layout from "./layout.js";
/** @import { GridView } from "./grid.js" */

const GAP = 4; // pixels between cells, as in css/grid.css
const MARGIN = 12; // around them
const MAX_SHOWN = 200;
const MAX_WIDTH = 200; // pixels of a cell

/** Make the small grid of the cell that the address names; null if none is open, or it has a single trial. @param {GridView} grid */
export function create(grid) {
  const { arrangement, context, geometry, scroller } = grid;
  const { dataset, state, room, free, update } = context;
  const opened = state.open === "" ? undefined : dataset.row(Number(state.open));
  const position = opened === undefined || arrangement.exists ? null : arrangement.locate(opened);
  const rows = position === null ? [] : arrangement.trials(...position).slice(0, MAX_SHOWN);
  if (position === null || rows.length < 2) return null;
  const { box } = grid.contextAt(...position);
  const scale = Math.min(1, MAX_WIDTH / box[0]);
  /** @type {Cell.CellContext} */
  const cellContext = { ...grid.contextAt(...position), box: [Math.round(box[0] * scale), Math.round(box[1] * scale)] };
  const [width, height] = [cellContext.box[0], cellContext.box[1] + geometry.caption];
  const cells = rows.map((row) => {
    const node = el("div", { class: "cell", role: "gridcell", tabindex: 0 });
    node.style.cssText = `width:${width}px;height:${height}px`;
    Cell.showTrial(node, row, null, cellContext);
    return node;
  });
  const codes = new Map(arrangement.values(...position));
  const common = Layout.joinWords([...codes.keys()], (axis) => `${axis.name} ${axis.labelOf(codes.get(axis) ?? -1)}`);
  const title = [`${arrangement.trials(...position).length} trials`, common, `differ in ${free.map(({ name }) => name).join(", ")}`].filter(Boolean).join(" · ");
  const close = el("button", { onclick: () => update({ open: "" }) }, "Close (Esc)");
  const line = el("div", { class: "opened-line", role: "row", "aria-label": title }, el("div", { class: "opened-title", role: "gridcell", title }, close, title), cells);
  const fitting = Math.floor((room.width - 4 * MARGIN) / (width + GAP));
  const lineWidth = Math.max(1, Math.min(Math.ceil(Math.sqrt(rows.length)), fitting)) * (width + GAP) - GAP;
  line.style.width = `${lineWidth}px`;
  const node = el("div", { class: "opened", role: "presentation" }, line);
  return {
    mount() {
      const { rows: lines, head, side, findSpan } = geometry;
      const left = Math.min(side + findSpan(...position)[0], scroller.scrollLeft + room.width - lineWidth - 3 * MARGIN);
      node.style.cssText = `left:${Math.max(0, left)}px;top:${head + lines.starts[position[0]]}px`;
      grid.canvas.append(node);
      cells.forEach(Cell.sharpen);
      node.scrollIntoView({ block: "nearest" });
    },
    /** Show a trial again, if it is in the small grid. @param {number} row */
    refresh(row) {
      const index = rows.indexOf(row);
      if (index >= 0) Cell.showTrial(cells[index], row, null, cellContext);
    },
  };
}
