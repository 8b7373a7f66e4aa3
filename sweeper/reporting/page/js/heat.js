// A heat map that has more cells than a document should: drawn, with some of its values at the edges; each cell is told where
// the pointer is, or where the arrow keys lead.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;
  const { at, share } = sweeper.colours;
  const [WIDE, HIGH] = [640, 560]; // pixels of a map that has as many cells as that
  const [WIDEST, LOWEST] = [24, 2]; // pixels of a cell, at most and at least
  const MOST = 8000; // rows that a canvas has room for at that height
  const LINE = 18; // pixels of a label
  const LETTER = 6.6;
  const KEYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  /** `map`: {rows, columns}, each {name, words}; `group(r, c)`: {mean, low, high, count} or undefined; range; metric; short. */
  function create(map, room) {
    const { rows, columns, metric } = map;
    const cell = {
      width: Math.max(1, Math.min(WIDEST, Math.floor(WIDE / columns.words.length))),
      height: Math.max(rows.words.length > MOST ? 1 : LOWEST, Math.min(WIDEST, Math.floor(HIGH / rows.words.length))),
    };
    const [width, height] = [cell.width * columns.words.length, cell.height * rows.words.length];
    const side = Math.min(140, 16 + LETTER * longest(rows.words), room / 3);
    const name = `Heat map of ${metric}, ${columns.words.length} by ${rows.words.length}`;
    const canvas = el("canvas", { width, height, tabindex: 0, role: "img", "aria-label": `${name}; arrow keys tell its cells` });
    paint(canvas, cell, map);
    const here = el("div", { class: "here", hidden: true });
    const said = el("p", { class: "dim told", role: "status" }, "Point at a cell to read it.");
    const plane = el("div", { class: "plane" }, canvas, here);
    const sides = el("div", { class: "drawn-sides" }, edge(rows.words, LINE / cell.height, "top"));
    const heads = el("div", { class: "drawn-heads" }, edge(columns.words, apart(columns.words, Math.min(width, room - side), cell.width, width), "left"));
    plane.style.cssText = `height:${height}px`;
    sides.style.cssText = `width:${side}px;height:${height}px`;
    const body = el("div", { class: "drawn" }, el("p", { class: "dim corner" }, `${rows.name} ↓ ${columns.name} →`), heads, sides, plane);
    body.style.cssText = `grid-template-columns:${side}px minmax(0,${width}px)`;
    tell(canvas, here, said, map);
    return [el("div", { class: "wide" }, body), said];
  }

  const brief = (word) => (word.length > 80 ? `${word.slice(0, 79)}…` : word);
  const longest = (words) => words.reduce((most, word) => Math.max(most, word.length), 0);

  /** From how many columns to how many a label has room. */
  function apart(words, seen, step, width) {
    const wanted = Math.min(12, longest(words)) * LETTER + 12;
    return wanted / (step * (seen / width));
  }

  /** As many labels as have room, `every` so many lines. */
  function edge(words, every, way) {
    const step = Math.max(1, Math.ceil(every));
    return words.map((word, place) => {
      if (place % step !== 0) return null;
      const label = el("span", { title: word }, word);
      label.style[way] = `${((place + 0.5) / words.length) * 100}%`;
      if (way === "left") label.style.maxWidth = `${(step / words.length) * 100}%`;
      return label;
    });
  }

  function paint(canvas, cell, { rows, columns, group, range }) {
    const pen = canvas.getContext("2d");
    for (let r = 0; r < rows.words.length; r++) {
      for (let c = 0; c < columns.words.length; c++) {
        const found = group(r, c);
        if (found === undefined) continue;
        pen.fillStyle = at(share(found.mean, range));
        pen.fillRect(c * cell.width, r * cell.height, cell.width, cell.height);
      }
    }
  }

  /** Tell of the cell that is pointed at, and mark it. */
  function tell(canvas, here, said, { rows, columns, group, metric, short }) {
    const [down, across] = [rows.words.length, columns.words.length];
    let spot = null;
    function show(r, c) {
      spot = [Math.min(Math.max(r, 0), down - 1), Math.min(Math.max(c, 0), across - 1)];
      const found = group(...spot);
      const where = [[columns, spot[1]], [rows, spot[0]]].filter(([line]) => line.name !== "").map(([line, place]) => `${line.name}: ${brief(line.words[place])}`);
      const what = found === undefined ? "no value" : short(found.mean);
      const spread = found?.count > 1 ? ` (${found.count} trials, ${short(found.low)} to ${short(found.high)})` : "";
      said.textContent = `${where.join(" · ")} · ${metric}: ${what}${spread}`;
      here.hidden = false;
      const part = (place, count) => `${(place / count) * 100}%`;
      here.style.cssText = `left:${part(spot[1], across)};top:${part(spot[0], down)};width:${part(1, across)};height:${part(1, down)}`;
    }
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      show(Math.floor(((event.clientY - box.top) / box.height) * down), Math.floor(((event.clientX - box.left) / box.width) * across));
    };
    for (const kind of ["pointermove", "pointerdown"]) canvas.addEventListener(kind, point);
    canvas.addEventListener("keydown", (event) => {
      const step = KEYS[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      if (spot === null) show(0, 0);
      else show(spot[0] + step[0], spot[1] + step[1]);
      here.scrollIntoView({ block: "nearest", inline: "nearest" });
      event.preventDefault();
    });
  }

  sweeper.heat = { create };
})((globalThis.sweeper ??= {}));
