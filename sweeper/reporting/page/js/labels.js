// What stands around the cells of the grid and stays in view: column heads, row labels, titles of the outer axes.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;

  const label = (axis, place) => (axis === undefined ? "" : axis.word(place));

  /**
   * The labels of a grid. `take(place)` gives what happens to an axis that is dropped there. All row labels share one
   * sticky element, as all heads do: a browser keeps a layer of its own for each, and cuts what lies between into layers.
   */
  function create(arranged, size, take) {
    const { axis } = arranged;
    const heads = el("div", { class: "heads", role: "row", "aria-rowindex": 1 });
    const sides = el("div", { class: "sides", role: "presentation" });
    const bands = el("div", { class: "bands", role: "presentation" });
    heads.style.height = `${size.head}px`;
    sides.style.cssText = `width:${size.side}px;height:${size.height}px`;
    sweeper.drag.target(heads, take("x"));
    sweeper.drag.target(sides, take("y"));
    heads.append(corner(axis, size.side), ...outerHeads(arranged, size));
    const standing = { columns: new Map(), rows: new Map(), bands: new Map() };
    const rowBands = axis.yy ? sweeper.layout.bands(arranged.rows) : [];

    const column = {
      make: () => heads.appendChild(el("div", { class: "head", role: "columnheader" }, el("span", {}, ""))),
      put(node, c) {
        say(node, label(axis.x, arranged.columns[c].inner), size.cellWidth);
        node.ariaColIndex = c + 2;
        node.style.cssText = `left:${size.side + size.lefts[c]}px;width:${size.cellWidth}px;height:${size.head - size.outer}px`;
      },
    };
    const row = {
      make: () => sides.appendChild(el("div", { class: "side", role: "rowheader" }, el("span", {}, ""))),
      put(node, r) {
        say(node, label(axis.y, arranged.rows[r].inner), size.side);
        node.id = `side-${r}`;
        node.style.cssText = `top:${size.tops[r]}px;height:${size.cellHeight}px`;
      },
    };
    const band = {
      make: () => bands.appendChild(el("div", { class: "band" }, el("div", { class: "band-title" }))),
      put(node, place) {
        const { from, to, outer } = rowBands[place];
        node.firstChild.replaceChildren(el("b", {}, axis.yy.name), ` ${label(axis.yy, outer)}`);
        node.firstChild.style.top = `${size.head}px`;
        const [top, end] = [size.tops[from] - size.band, size.tops[to - 1] + size.cellHeight];
        node.style.cssText = `top:${size.head + top}px;height:${end - top}px`;
      },
    };

    return {
      nodes: [heads, sides, bands],
      /** Show the labels of these lines. */
      draw(rows, columns) {
        sweeper.recycle(standing.columns, columns, column);
        sweeper.recycle(standing.rows, rows, row);
        const first = rowBands.findIndex((one) => one.to > rows[0]);
        const after = rowBands.findIndex((one) => one.from >= rows[1]);
        sweeper.recycle(standing.bands, first < 0 ? [0, 0] : [first, after < 0 ? rowBands.length : after], band);
      },
    };
  }

  /** Only a text that may not fit on one line is cut off: that takes a browser several layouts. */
  function say(node, text, width) {
    if (node.title === text) return;
    node.title = text;
    const classes = text.length * 9 > width - 12 ? "long" : "";
    if (node.firstChild.className !== classes) node.firstChild.className = classes;
    node.firstChild.firstChild.data = text;
  }

  function corner(axis, width) {
    const name = (one, arrow) => one && el("span", {}, sweeper.drag.chip(one), ` ${arrow}`);
    const node = el("div", { class: "corner" }, name(axis.x, "→"), name(axis.y, "↓"));
    node.style.width = `${width}px`;
    return node;
  }

  function outerHeads({ axis, columns }, size) {
    return (axis.xx ? sweeper.layout.bands(columns) : []).map(({ from, to, outer }) => {
      const text = label(axis.xx, outer);
      const title = el("span", { title: text }, el("b", {}, axis.xx.name), ` ${text}`);
      const node = el("div", { class: "outer-head" }, title);
      title.style.left = `${size.side + 4}px`;
      node.style.left = `${size.side + size.lefts[from]}px`;
      node.style.width = `${size.lefts[to - 1] + size.cellWidth - size.lefts[from]}px`;
      return node;
    });
  }

  sweeper.labels = { create };
})((globalThis.sweeper ??= {}));
