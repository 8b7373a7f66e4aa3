// The labels of the grid, which stay in view: column labels, row labels, titles of the outer axes.

import { el } from "../../../serving/page/js/dom.js";
import * as Layout from "./layout.js";
import * as Recycle from "./recycle.js";
/** @import { Geometry, LineRange } from "./grid_geometry.js" */

/**
 * Make the labels of a grid. All row labels share one sticky element, and so do all column labels: a browser keeps a
 * layer for each sticky element and splits what is between them into more layers.
 * @param {Layout.Arrangement} arrangement @param {Geometry} geometry
 * @param {() => void} openAxes what a press on the corner does
 * @param {(direction: 0 | 1, line: number) => string} [summarize] a line below the label of a row (0) or column (1)
 */
export function create(arrangement, geometry, openAxes, summarize = () => "") {
  const { axis, heads: names, rows, columns } = arrangement;
  const { side, band, rows: down, columns: across } = geometry;
  const heads = el("div", { class: "heads", role: names.x || names.xx || names.y || names.yy ? "row" : "presentation", "aria-rowindex": names.x ? 1 : null });
  const sides = el("div", { class: "sides", "aria-hidden": "true" }); // each row has its label as a name
  heads.style.height = `${geometry.head}px`;
  sides.style.cssText = `width:${geometry.side}px;height:${geometry.height}px`;
  heads.append(makeCorner(arrangement, geometry.side, openAxes), ...makeOuterHeads(arrangement, geometry));
  const groups = axis.yy ? Layout.groupByOuter(rows) : [];
  /** @type {Record<"columns" | "rows" | "bands", Map<number, HTMLElement>>} */
  const shown = { columns: new Map(), rows: new Map(), bands: new Map() };
  const actions = {
    columns: makeLineActions(heads, { class: "head", role: "columnheader" }, names.x, columns, geometry.names.x, (c) => summarize(1, c), (c) => [`left:${side + across.starts[c]}px;width:${across.lengths[c]}px;height:${geometry.head - geometry.outer}px`, across.lengths[c]]),
    rows: makeLineActions(sides, { class: "side" }, names.y, rows, geometry.names.y, (r) => summarize(0, r), (r) => [`top:${down.starts[r]}px;left:${band}px;width:${side - band}px;height:${down.lengths[r]}px`, side - band]),
    bands: makeBandActions(groups, names.yy, geometry, sides),
  };

  /** Show the labels of these lines. @param {LineRange} rowRange @param {LineRange} columnRange */
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

  const describeRow = (/** @type {number} */ r) =>
    [Layout.nameValue(names.yy, rows[r].outer), Layout.nameValue(names.y, rows[r].inner), summarize(0, r)].filter(Boolean).join(", ") || null;
  return { nodes: [heads, sides], draw, write, describeRow };
}

const drop = (/** @type {HTMLElement} */ node) => node.remove();

/**
 * The labels of columns or rows.
 * @param {HTMLElement} host @param {Record<string, string>} attributes @param {Layout.Head | undefined} head @param {Layout.Line[]} lines
 * @param {string} name before each value @param {(line: number) => string} summarize
 * @param {(line: number) => [style: string, room: number]} place
 */
function makeLineActions(host, attributes, head, lines, name, summarize, place) {
  return {
    make: () => host.appendChild(el("div", attributes, makeLabel(name), el("small", {}))),
    put(/** @type {HTMLElement} */ node, /** @type {number} */ line) {
      const [style, room] = place(line);
      writeLabel(node, head, lines[line].inner, name ? Infinity : room, summarize(line));
      node.ariaColIndex = String(line + 2);
      node.style.cssText = style;
    },
    drop,
  };
}

/**
 * @param {ReturnType<typeof Layout.groupByOuter>} groups of rows
 * @param {Layout.Head | undefined} names @param {Geometry} geometry @param {HTMLElement} host
 */
function makeBandActions(groups, names, { head, band, side, rows: { starts, lengths } }, host) {
  return {
    make: () => host.appendChild(el("div", { class: band === side ? "band alone" : "band" }, el("div", { class: "band-title" }))),
    put(/** @type {HTMLElement} */ node, /** @type {number} */ index) {
      const { from, to, outer } = groups[index];
      const title = /** @type {HTMLElement} */ (node.firstElementChild);
      const height = starts[to - 1] + lengths[to - 1] - starts[from];
      writeTitle(title, names, outer, band === side ? Infinity : height);
      title.style.top = `${head}px`;
      node.style.cssText = `top:${starts[from]}px;height:${height}px;width:${band}px`;
    },
    drop,
  };
}

/** Write the title of outer lines, with the name of the axis if it fits. @param {HTMLElement} node @param {Layout.Head | undefined} head @param {number} code @param {number} room pixels */
function writeTitle(node, head, code, room) {
  const hasName = Layout.nameValue(head, code).length * 7.5 + 16 < room;
  node.replaceChildren(hasName ? el("b", {}, head?.name, " ") : "", head?.labelOf(code) ?? "");
  node.title = `${head?.name} ${head?.fullOf(code)}`;
}

/** The element of a label: the name of its axis, if there is room for it, and a value. @param {string} name */
const makeLabel = (name) => el("span", {}, name && el("b", {}, name), document.createTextNode(""));

/**
 * Write a label. Only a text that may not fit on one line is clipped, because a clip costs several layouts.
 * @param {HTMLElement} node @param {Layout.Head | undefined} head @param {number} code
 * @param {number} width pixels; Infinity if there is room for the text
 * @param {string} summary what stands below it
 */
function writeLabel(node, head, code, width, summary) {
  const [text, full] = head === undefined ? ["", ""] : [head.labelOf(code), head.fullOf(code)];
  const span = /** @type {HTMLElement} */ (node.firstElementChild);
  const below = /** @type {HTMLElement} */ (node.lastElementChild);
  if (below.textContent !== summary) below.textContent = summary;
  const value = /** @type {Text} */ (span.lastChild);
  if (value.data === text && node.title === full) return;
  node.title = full;
  const classes = text.length * 9 > width - 12 ? "long" : "";
  if (span.className !== classes) span.className = classes;
  value.data = text;
}

/** @param {Layout.Arrangement} arrangement @param {number} width @param {() => void} openAxes */
function makeCorner({ heads }, width, openAxes) {
  /** @param {"x" | "y"} direction @param {string} arrow */
  const makeName = (direction, arrow) => heads[direction] && el("span", {}, `${heads[direction].name} ${arrow}`);
  const title = "Choose the axes; hide, sort and move their values";
  const button = el("button", { "aria-label": "Axes", title, "data-keep": "axes" }, "▾");
  const node = el("div", { class: "corner", role: "columnheader", title, onclick: openAxes }, makeName("x", "→"), makeName("y", "↓"), button);
  node.style.width = `${width}px`;
  return node;
}

/** @param {Layout.Arrangement} arrangement @param {Geometry} geometry */
function makeOuterHeads({ heads: { xx }, columns }, { side, columns: { starts, lengths } }) {
  if (!xx) return [];
  return Layout.groupByOuter(columns).map(({ from, to, outer }) => {
    const [title, width] = [el("span"), starts[to - 1] + lengths[to - 1] - starts[from]];
    const node = el("div", { class: "outer-head" }, title);
    writeTitle(title, xx, outer, width);
    title.style.left = `${side + 4}px`;
    node.style.cssText = `left:${side + starts[from]}px;width:${width}px`;
    return node;
  });
}
