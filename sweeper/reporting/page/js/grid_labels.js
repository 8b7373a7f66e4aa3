// @ts-check
// The labels of the grid, which stay in view: column labels, row labels, titles of the outer axes.

import { el } from "./dom.js";
import * as Drag from "./drag.js";
import * as Layout from "./layout.js";
import * as Recycle from "./recycle.js";
/** @import { Geometry, LineRange } from "./grid_geometry.js" */
/** @import { Arrangement, Direction, Head } from "./layout.js" */

/**
 * Make the labels of a grid. All row labels share one sticky element, and so do all column labels: a browser keeps a
 * layer for each sticky element and splits what is between them into more layers.
 * @param {Arrangement} arrangement @param {Geometry} geometry
 * @param {(direction: Direction) => (name: string) => void} takeAxis what happens when an axis is dropped there
 * @param {(direction: 0 | 1, line: number) => string} [summarize] a line below the label of a row (0) or column (1)
 */
export function create(arrangement, geometry, takeAxis, summarize = () => "") {
  const { axis, heads: names, rows } = arrangement;
  const heads = el("div", { class: "heads", role: names.x || names.xx ? "row" : "presentation", "aria-rowindex": names.x ? 1 : null });
  const sides = el("div", { class: "sides", role: "presentation" });
  const bands = el("div", { class: "bands", role: "presentation" });
  heads.style.height = `${geometry.head}px`;
  sides.style.cssText = `width:${geometry.side}px;height:${geometry.height}px`;
  Drag.acceptAxis(heads, takeAxis("x"));
  Drag.acceptAxis(sides, takeAxis("y"));
  heads.append(makeCorner(arrangement, geometry.side), ...makeOuterHeads(arrangement, geometry));
  const groups = axis.yy ? Layout.groupByOuter(rows) : [];
  /** @type {Record<"columns" | "rows" | "bands", Map<number, HTMLElement>>} */
  const shown = { columns: new Map(), rows: new Map(), bands: new Map() };
  const actions = {
    columns: makeColumnActions(arrangement, geometry, heads, (c) => summarize(1, c)),
    rows: makeRowActions(arrangement, geometry, sides, (r) => summarize(0, r)),
    bands: makeBandActions(groups, names.yy, geometry, bands),
  };

  /**
   * Show the labels of these lines.
   * @param {LineRange} rowRange @param {LineRange} columnRange
   */
  function draw(rowRange, columnRange) {
    if (names.x) Recycle.cover(shown.columns, columnRange, actions.columns);
    if (names.y) Recycle.cover(shown.rows, rowRange, actions.rows);
    const first = groups.findIndex((group) => group.to > rowRange[0]);
    const end = groups.findIndex((group) => group.from >= rowRange[1]);
    Recycle.cover(shown.bands, first < 0 ? [0, 0] : [first, end < 0 ? groups.length : end], actions.bands);
  }

  /** Write the labels in view again, after a change of what `summarize` says. */
  function write() {
    for (const part of /** @type {const} */ (["rows", "columns"])) for (const [line, node] of shown[part]) actions[part].put(node, line);
  }

  return { nodes: [heads, sides, bands], draw, write };
}

const drop = (/** @type {HTMLElement} */ node) => node.remove();

/** @param {Arrangement} arrangement @param {Geometry} geometry @param {HTMLElement} host @param {(c: number) => string} summarize */
function makeColumnActions({ heads, columns }, { side, lefts, cellWidth, head, outer }, host, summarize) {
  return {
    make: () => host.appendChild(el("div", { class: "head", role: "columnheader" }, el("span", {}, ""), el("small", {}))),
    put(/** @type {HTMLElement} */ node, /** @type {number} */ c) {
      writeLabel(node, heads.x, columns[c].inner, cellWidth, summarize(c));
      node.ariaColIndex = String(c + 2);
      node.style.cssText = `left:${side + lefts[c]}px;width:${cellWidth}px;height:${head - outer}px`;
    },
    drop,
  };
}

/** @param {Arrangement} arrangement @param {Geometry} geometry @param {HTMLElement} host @param {(r: number) => string} summarize */
function makeRowActions({ heads, rows }, { side, tops, cellHeight }, host, summarize) {
  return {
    make: () => host.appendChild(el("div", { class: "side", role: "rowheader" }, el("span", {}, ""), el("small", {}))),
    put(/** @type {HTMLElement} */ node, /** @type {number} */ r) {
      writeLabel(node, heads.y, rows[r].inner, side, summarize(r));
      node.id = `side-${r}`;
      node.style.cssText = `top:${tops[r]}px;height:${cellHeight}px`;
    },
    drop,
  };
}

/**
 * @param {ReturnType<typeof Layout.groupByOuter>} groups of rows
 * @param {Head | undefined} names @param {Geometry} geometry @param {HTMLElement} host
 */
function makeBandActions(groups, names, { head, band, tops, cellHeight }, host) {
  return {
    make: () => host.appendChild(el("div", { class: "band" }, el("div", { class: "band-title" }))),
    put(/** @type {HTMLElement} */ node, /** @type {number} */ index) {
      const { from, to, outer } = groups[index];
      const title = /** @type {HTMLElement} */ (node.firstElementChild);
      title.replaceChildren(el("b", {}, names?.name), ` ${names?.labelOf(outer)}`);
      title.title = names?.fullOf(outer) ?? "";
      title.style.top = `${head}px`;
      const [top, end] = [tops[from] - band, tops[to - 1] + cellHeight];
      node.style.cssText = `top:${head + top}px;height:${end - top}px`;
    },
    drop,
  };
}

/**
 * Write a label. Only a text that may not fit on one line is clipped, because a clip costs several layouts.
 * @param {HTMLElement} node @param {Head | undefined} head @param {number} code
 * @param {number} width pixels
 * @param {string} summary what stands below it
 */
function writeLabel(node, head, code, width, summary) {
  const [text, full] = head === undefined ? ["", ""] : [head.labelOf(code), head.fullOf(code)];
  const span = /** @type {HTMLElement} */ (node.firstElementChild);
  const below = /** @type {HTMLElement} */ (node.lastElementChild);
  if (below.textContent !== summary) below.textContent = summary;
  if (span.textContent === text && node.title === full) return;
  node.title = full;
  const classes = text.length * 9 > width - 12 ? "long" : "";
  if (span.className !== classes) span.className = classes;
  /** @type {Text} */ (span.firstChild).data = text;
}

/** @param {Arrangement} arrangement @param {number} width */
function makeCorner({ axis, heads }, width) {
  /** @param {"x" | "y"} direction @param {string} arrow */
  const makeName = (direction, arrow) => {
    const [one, head] = [axis[direction], heads[direction]];
    return one && el("span", {}, Drag.makeChip(one), head?.name.slice(one.name.length), ` ${arrow}`);
  };
  const node = el("div", { class: "corner" }, makeName("x", "→"), makeName("y", "↓"));
  node.style.width = `${width}px`;
  return node;
}

/** @param {Arrangement} arrangement @param {Geometry} geometry */
function makeOuterHeads({ heads: { xx }, columns }, { side, lefts, cellWidth }) {
  if (!xx) return [];
  return Layout.groupByOuter(columns).map(({ from, to, outer }) => {
    const title = el("span", { title: xx.fullOf(outer) }, el("b", {}, xx.name), ` ${xx.labelOf(outer)}`);
    const node = el("div", { class: "outer-head" }, title);
    title.style.left = `${side + 4}px`;
    node.style.left = `${side + lefts[from]}px`;
    node.style.width = `${lefts[to - 1] + cellWidth - lefts[from]}px`;
    return node;
  });
}
