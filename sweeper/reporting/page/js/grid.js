// The grid: only what is in view, and a little around it, is in the document, whatever the number of trials.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;
  const GAP = 4;
  const BAND = 30; // height of an outer row's title
  const OVERSCAN = 1; // lines kept on each side of the view
  const BUDGET = 8; // milliseconds of making cells in one frame; what is missing then comes with the next
  // Pictures asked for in one frame. Each costs a browser a third of a millisecond or more, so that
  // asking for a screen full of them at once is a frame that is missed, for cells that a fling leaves behind anyway.
  const [FEWEST, MOST] = [12, 40];
  const PAUSE = 100; // milliseconds without scrolling after which sprites become pictures

  /** A grid in `host`. `context` is the page's: dataset, marks, state, open(row), tint(row), remember(row). */
  function create(host, context) {
    const { dataset, state, marks } = context;
    const waiting = []; // [image, address], asked for when their turn comes
    const load = (image, from) => {
      waiting.push([image, from]);
      if (!live.drawing) later();
    };
    const { arranged, captions } = placed(host, { ...context, load });
    const size = measures(arranged, state, dataset);
    captions.box = [size.cellWidth, size.cellHeight - size.caption];
    const tops = offsets(arranged.rows, size.cellHeight + GAP, arranged.axis.yy ? BAND : 0, arranged.axis.yy ? 10 : 0);
    const lefts = offsets(arranged.columns, size.cellWidth + GAP, 0, arranged.axis.xx ? 14 : 0);
    const heads = el("div", { class: "heads", role: "row", "aria-rowindex": 1 });
    const canvas = el("div", { class: "canvas", role: "presentation" }, heads);
    const scroller = el(
      "div",
      {
        class: arranged.exists ? "scroller flow" : "scroller",
        role: "grid",
        tabindex: 0,
        "aria-label": "Trials",
        "aria-rowcount": arranged.rows.length + 1,
        "aria-colcount": arranged.columns.length + 1,
      },
      canvas,
    );
    canvas.style.width = `${size.side + lefts.end}px`;
    canvas.style.height = `${size.head + tops.end}px`;
    heads.style.height = `${size.head}px`;
    const live = { rows: new Map(), heads: new Map(), bands: new Map(), at: null, frame: 0, drawing: false, loads: 24, last: 0, rest: 0 };

    function range({ starts, end }, from, to, length, more = OVERSCAN) {
      let low = 0;
      let high = starts.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (starts[middle] + length < from) low = middle + 1;
        else high = middle;
      }
      let last = low;
      while (last < starts.length && starts[last] <= to) last += 1;
      return end === 0 ? [0, 0] : [Math.max(0, low - more), Math.min(starts.length, last + more)];
    }

    /** Bring the document up to the view. While it scrolls, `until` ends the making of cells for this frame. */
    function draw(until = Infinity) {
      live.frame = 0;
      live.drawing = true;
      const [top, left] = [scroller.scrollTop, scroller.scrollLeft];
      const [height, width] = [scroller.clientHeight, scroller.clientWidth];
      const seen = (more) => [
        range(tops, top, top + height - size.head, size.cellHeight, more),
        range(lefts, left, left + width - size.side, size.cellWidth, more),
      ];
      const [rows, columns] = seen(OVERSCAN);
      const remove = (node) => node.remove();
      sync(live.heads, columns, (c) => heads.appendChild(columnHead(c)), remove);
      sync(live.rows, rows, newRow, (row) => row.node.remove());
      let whole = true;
      for (const [r, row] of live.rows) {
        const more = performance.now() < until;
        const make = more ? (c) => row.node.appendChild(newCell(r, c)) : undefined;
        whole = sync(row.cells, columns, make, remove) && whole;
      }
      drawBands(rows);
      live.drawing = false;
      for (let asked = 0; waiting.length > 0 && asked < live.loads; ) {
        const [image, from] = waiting.shift();
        if (!image.isConnected) continue; // its cell has left the view
        image.src = from;
        asked += 1;
      }
      if (!whole || waiting.length > 0 || (live.rest === 0 && sharpen(...seen(0)))) later();
    }

    /** Ask for the pictures of cells in view that still show a sprite; are there more of them? */
    function sharpen(rows, columns) {
      const within = (place, [from, to]) => place >= from && place < to;
      return sweeper.sprites.sharpen(canvas, live.loads, (sprite) => {
        const cell = sprite.closest(".cell");
        return within(cell.ariaColIndex - 2, columns) && within(cell.parentNode.ariaRowIndex - 2, rows);
      });
    }

    /** It scrolls: what is passed by needs no more than its sprite. */
    function scrolled() {
      clearTimeout(live.rest);
      live.rest = setTimeout(() => {
        live.rest = 0;
        later();
      }, PAUSE);
      later();
    }

    function later() {
      live.frame ||= requestAnimationFrame((now) => {
        const took = now - live.last; // since the last frame: as many pictures as this machine can take in one
        live.loads = Math.min(MOST, Math.max(FEWEST, took < 20 ? live.loads + 2 : took < 40 ? live.loads : live.loads / 2));
        live.last = now;
        draw(performance.now() + BUDGET);
      });
    }

    /** Drop what is there and outside of [from, to), make what is missing (unless there is no `make`); is it all there? */
    function sync(map, [from, to], make, drop) {
      for (const [place, thing] of map) {
        if (place < from || place >= to) {
          drop(thing);
          map.delete(place);
        }
      }
      if (make === undefined) return map.size === Math.max(0, to - from);
      for (let place = from; place < to; place++) if (!map.has(place)) map.set(place, make(place));
      return true;
    }

    function columnHead(c) {
      const text = label(arranged.axis.x, arranged.columns[c].inner);
      const node = el(
        "div",
        { class: "head", role: "columnheader", "aria-colindex": c + 2, title: text },
        el("span", {}, text),
      );
      node.style.left = `${size.side + lefts.starts[c]}px`;
      node.style.width = `${size.cellWidth}px`;
      node.style.height = `${size.head - size.outer}px`;
      return node;
    }

    function newRow(r) {
      const text = label(arranged.axis.y, arranged.rows[r].inner);
      const header = el("div", { class: "side", role: "rowheader", title: text }, el("span", {}, text));
      header.style.width = `${size.side}px`;
      sweeper.drag.target(header, take("y"));
      const node = el("div", { class: "row", role: "row", "aria-rowindex": r + 2 }, header);
      node.style.top = `${size.head + tops.starts[r]}px`;
      node.style.height = `${size.cellHeight}px`;
      canvas.append(node);
      return { node, cells: new Map() };
    }

    function newCell(r, c) {
      const node = sweeper.cell.create();
      fillCell(node, r, c);
      if (arranged.exists?.(r, c) === false) node.className = "cell beyond";
      if (arranged.filtered(r, c)) sweeper.cell.leftOut(node);
      node.id = `cell-${r}-${c}`;
      node.setAttribute("aria-colindex", c + 2);
      node.style.left = `${size.side + lefts.starts[c]}px`;
      node.style.width = `${size.cellWidth}px`;
      node.style.height = `${size.cellHeight}px`;
      if (live.at !== null && live.at[0] === r && live.at[1] === c) node.classList.add("current");
      return node;
    }

    function fillCell(node, r, c) {
      const row = arranged.find(r, c);
      const more = row >= 0 && arranged.more(row) ? arranged.trials(r, c).length - 1 : 0;
      sweeper.cell.bind(node, row, more, captions);
    }

    function rebind(node) {
      const current = node.classList.contains("current");
      fillCell(node, ...arranged.where(Number(node.dataset.row)));
      node.classList.toggle("current", current);
    }

    const label = (axis, place) => (axis === undefined ? "" : place < 0 ? "(none)" : axis.labels[place]);

    const rowBands = arranged.axis.yy ? sweeper.layout.bands(arranged.rows) : [];
    function drawBands([from, to]) {
      const first = rowBands.findIndex((band) => band.to > from);
      const after = rowBands.findIndex((band) => band.from >= to);
      sync(
        live.bands,
        first < 0 ? [0, 0] : [first, after < 0 ? rowBands.length : after],
        (place) => {
          const band = rowBands[place];
          const title = el(
            "div",
            { class: "band-title" },
            el("b", {}, arranged.axis.yy.name),
            ` ${label(arranged.axis.yy, band.outer)}`,
          );
          const node = el("div", { class: "band" }, title);
          title.style.top = `${size.head}px`;
          node.style.top = `${size.head + tops.starts[band.from] - BAND}px`;
          node.style.height = `${tops.starts[band.to - 1] + size.cellHeight - tops.starts[band.from] + BAND}px`;
          return canvas.appendChild(node);
        },
        (node) => node.remove(),
      );
    }

    function outerHeads() {
      for (const band of arranged.axis.xx ? sweeper.layout.bands(arranged.columns) : []) {
        const text = label(arranged.axis.xx, band.outer);
        const title = el("span", { title: text }, el("b", {}, arranged.axis.xx.name), ` ${text}`);
        const node = el("div", { class: "outer-head" }, title);
        title.style.left = `${size.side + 4}px`;
        node.style.left = `${size.side + lefts.starts[band.from]}px`;
        node.style.width = `${lefts.starts[band.to - 1] + size.cellWidth - lefts.starts[band.from]}px`;
        heads.append(node);
      }
    }

    function corner() {
      const name = (axis, arrow) => axis && el("span", {}, sweeper.drag.chip(axis), ` ${arrow}`);
      const node = el("div", { class: "corner" }, name(arranged.axis.x, "→"), name(arranged.axis.y, "↓"));
      node.style.width = `${size.side}px`;
      heads.append(node);
    }

    // --- the current cell, moved by the keyboard

    function setCurrent(r, c) {
      if (arranged.rows.length === 0) return;
      live.at = [
        Math.min(Math.max(r, 0), arranged.rows.length - 1),
        Math.min(Math.max(c, 0), arranged.columns.length - 1),
      ];
      [r, c] = live.at;
      const [top, left] = [tops.starts[r], lefts.starts[c]];
      const [viewTop, viewLeft] = [scroller.scrollTop, scroller.scrollLeft];
      const roomY = scroller.clientHeight - size.head - size.cellHeight;
      const roomX = scroller.clientWidth - size.side - size.cellWidth;
      if (top - BAND < viewTop || top > viewTop + roomY)
        scroller.scrollTop = top < viewTop + BAND ? top - BAND : top - roomY + GAP;
      if (left < viewLeft || left > viewLeft + roomX) scroller.scrollLeft = left < viewLeft ? left : left - roomX + GAP;
      draw();
      canvas.querySelector(".current")?.classList.remove("current");
      const node = live.rows.get(r)?.cells.get(c);
      node?.classList.add("current");
      scroller.setAttribute("aria-activedescendant", node?.id ?? "");
    }

    const current = () => (live.at === null ? -1 : arranged.find(...live.at));
    scroller.addEventListener("scroll", scrolled, { passive: true });
    scroller.addEventListener("focus", () => live.at === null && setCurrent(0, 0));
    scroller.addEventListener("keydown", (event) => {
      const steps = {
        ArrowLeft: [0, -1],
        ArrowRight: [0, 1],
        ArrowUp: [-1, 0],
        ArrowDown: [1, 0],
        PageUp: [-5, 0],
        PageDown: [5, 0],
        Home: [0, -1e9],
        End: [0, 1e9],
      };
      if (event.target !== scroller || event.ctrlKey || event.metaKey || event.altKey) return;
      const step = steps[event.key];
      if (step !== undefined) setCurrent((live.at?.[0] ?? 0) + step[0], (live.at?.[1] ?? 0) + step[1]);
      else if (event.key === "Enter" && current() >= 0) context.open(current());
      else if (!(current() >= 0 && context.markByKey(event.key, current()))) return;
      event.preventDefault();
    });
    scroller.addEventListener("click", (event) => {
      const cell = event.target.closest(".cell");
      if (cell === null || event.target.closest("audio") || Number(cell.dataset.row) < 0) return;
      setCurrent(...arranged.where(Number(cell.dataset.row)));
      context.open(Number(cell.dataset.row));
    });
    // A file leaves with its cell: onto a folder, or onto a program that reads it. (A picture that is dragged by itself
    // would be the thumbnail.)
    scroller.addEventListener("dragstart", (event) => {
      const row = Number(event.target.closest?.(".cell")?.dataset.row ?? -1);
      if (row >= 0) sweeper.drag.carry(event, dataset.files(row)[0]);
    });
    for (const [kind, play] of [
      ["pointerover", true],
      ["pointerout", false],
    ]) {
      scroller.addEventListener(kind, (event) => {
        if (event.target.tagName === "VIDEO") play ? event.target.play().catch(() => {}) : event.target.pause();
      });
    }

    const take = (place) => (name) => context.update(sweeper.state.place(context.state, place, name));
    sweeper.drag.target(heads, take("x"));
    corner();
    outerHeads();
    host.replaceChildren(scroller);
    draw();
    if (arranged.shown === 0)
      host.append(el("p", { class: "empty" }, "No trial is left: the filter, or what is hidden, leaves none."));
    const resized = new ResizeObserver(later);
    resized.observe(scroller);
    return {
      arranged,
      /** Show these rows anew, where they are in view. */
      refresh(changed) {
        for (const row of live.rows.values()) {
          for (const node of row.cells.values()) {
            if (changed.has(Number(node.dataset.row))) rebind(node);
          }
        }
      },
      remark(row) {
        const at = arranged.where(row);
        const node = at && live.rows.get(at[0])?.cells.get(at[1]);
        if (node && Number(node.dataset.row) === row) sweeper.cell.mark(node, row, marks, context);
      },
      show(row) {
        const at = arranged.where(row);
        if (at) setCurrent(...at);
      },
      /** Whether cells in view are still to be made. */
      busy: () => live.frame !== 0,
      focus: () => scroller.focus(),
      scroll: () => [scroller.scrollTop, scroller.scrollLeft],
      scrollTo: ([top, left]) => scroller.scrollTo(left, top),
      close() {
        resized.disconnect();
        cancelAnimationFrame(live.frame);
        clearTimeout(live.rest);
      },
    };
  }

  /** Rows and columns; a single row that is wider than the view is set in lines, its values as captions. */
  function placed(host, context) {
    const arranged = sweeper.layout.arrange(context.dataset, context.state, context.holds);
    const { x, y, xx, yy } = arranged.axis;
    const perLine = Math.max(1, Math.floor((host.clientWidth - 24) / (context.state.size + GAP)));
    if (
      x === undefined ||
      y !== undefined ||
      xx !== undefined ||
      yy !== undefined ||
      arranged.columns.length <= perLine
    ) {
      return { arranged, captions: context };
    }
    return { arranged: sweeper.layout.flow(arranged, perLine), captions: { ...context, free: [x, ...context.free] } };
  }

  /** Pixels: cells as wide as asked for and as high as most pictures are, headers as large as their words need. */
  function measures(arranged, state, dataset) {
    const seen = dataset.about.files.find((file) => file.width > 0);
    const ratio = seen ? Math.min(2, Math.max(0.5, seen.height / seen.width)) : 1;
    const longest = (axis) => (axis ? Math.max(0, ...axis.labels.map((text) => text.length)) : 0);
    const narrow = innerWidth < 600;
    const side =
      !arranged.axis.y && !arranged.axis.x
        ? 8
        : Math.round(
            Math.min(
              narrow ? 114 : 220,
              Math.max(
                narrow ? 64 : 84,
                longest(arranged.axis.y) * 9.3 + 20, // bold digits; a seed is one line
                narrow ? 0 : (arranged.axis.y?.name.length ?? 0) * 7.5 + 30,
              ),
            ),
          );
    const lines = Math.min(3, Math.max(1, Math.ceil((longest(arranged.axis.x) * 6.8) / (state.size - 8))));
    const [outer, caption] = [arranged.axis.xx ? 28 : 0, state.captions ? 20 : 0];
    return {
      cellWidth: state.size,
      cellHeight: Math.round(state.size * ratio) + caption,
      caption,
      side,
      outer,
      head:
        !arranged.axis.x && !arranged.axis.y
          ? 8
          : Math.max(arranged.axis.x && arranged.axis.y ? 44 : 28, lines * 17 + 10) + outer,
    };
  }

  /** Where each line starts, in pixels; `before` is kept free for a band's title, `gap` between bands. */
  function offsets(lines, step, before, gap) {
    const starts = new Float64Array(lines.length);
    let at = 0;
    lines.forEach((line, place) => {
      if (place === 0 || line.outer !== lines[place - 1].outer) at += before + (place === 0 ? 0 : gap);
      starts[place] = at;
      at += step;
    });
    return { starts, end: at + GAP };
  }

  sweeper.grid = { create };
})((globalThis.sweeper ??= {}));
