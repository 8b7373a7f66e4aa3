// The grid: only what is in view, and a little around it, is in the document, whatever the number of trials. What stands
// where is told by `measures`, what surrounds the cells by `labels`, what a cell shows by `cell`.
"use strict";

(function (sweeper) {
  const { el, say } = sweeper.dom;
  const OVERSCAN = 1; // lines kept on each side of the view
  const BUDGET = 8; // milliseconds of filling cells in one frame; what is missing then comes with the next
  // Pictures asked for in one frame. Each costs a browser a third of a millisecond or more, so that
  // asking for a screen full of them at once is a frame that is missed, for cells that a fling leaves behind anyway.
  const [FEWEST, MOST] = [12, 40];
  // Pixels of scrolling in one frame from which on nobody can read a caption: it is written when it rests. Each costs a
  // layout of its cell, and some memory until the browser collects it.
  const PASSING = 16;
  const PAUSE = 100; // milliseconds without scrolling after which sprites become pictures
  const BUILT = -1; // no timer yet: it is not at rest before its first frame
  const SOON = 20; // the same after a change: the frame that shows it is not to wait for pictures

  /**
   * A grid in `host`, scrolled to `at`: [top, left]. `context` is the page's: dataset, marks, state, open(row), tint(row),
   * room: pixels of the host.
   */
  function create(host, context, at = [0, 0]) {
    const { dataset, state, room } = context;
    const shaped = new WeakSet(); // cells that have this grid's size
    const waiting = []; // [image, address], asked for when their turn comes
    const load = (image, from) => {
      waiting.push([image, from]);
      if (!live.drawing) later();
    };
    const { arranged, captions } = placed(room.width, { ...context, load });
    const size = sweeper.measures.measure(arranged, state, dataset, innerWidth);
    const passing = { ...captions, unread: true };
    captions.box = passing.box = [size.cellWidth, size.cellHeight - size.caption];
    const take = (place) => (name) => context.update(sweeper.state.place(context.state, place, name));
    const labels = sweeper.labels.create(arranged, size, take);
    const canvas = el("div", { class: "canvas", role: "presentation" }, labels.nodes);
    const scroller = el(
      "div",
      {
        class: arranged.exists ? "scroller flow" : "scroller",
        role: "grid",
        tabindex: 0,
        "aria-label": "Trials",
        "data-keep": "trials",
        "aria-rowcount": arranged.rows.length + 1,
        "aria-colcount": arranged.columns.length + 1,
      },
      canvas,
    );
    canvas.style.width = `${size.side + size.width}px`;
    canvas.style.height = `${size.head + size.height}px`;
    canvas.style.setProperty("--why-lines", size.reason); // one number for all cells, and nothing to do for each
    const live = { from: { top: at[0], left: at[1] }, rows: new Map(), brief: new Set(), blurred: new Set(), at: null, frame: 0, drawing: false, loads: 24, last: 0, rest: 0, unread: false, closed: false, most: [0, 0] };

    /** The rows and columns that stand in a view, and `more` on each side. */
    function seen({ top, left, height, width }, more) {
      const { range } = sweeper.measures;
      return [
        range(size.tops, top, top + height - size.head, size.cellHeight, more),
        range(size.lefts, left, left + width - size.side, size.cellWidth, more),
      ];
    }

    /**
     * Bring the document up to the view. While it scrolls, `until` ends the filling of cells for this frame. `brief`: what
     * is said of a cell comes when it rests.
     */
    function draw(until = Infinity, view = onScreen(), brief = until < Infinity) {
      live.frame = 0;
      live.drawing = true;
      live.unread = brief && live.rest !== 0 && Math.abs(view.top - live.from.top) + Math.abs(view.left - live.from.left) > PASSING;
      live.from = view;
      const lines = [size.tops.length, size.lefts.length];
      const [rows, columns] = seen(view, OVERSCAN).map((one, way) => {
        live.most[way] = Math.max(live.most[way], one[1] - one[0]);
        return sweeper.measures.stretched(one, live.most[way], lines[way]);
      });
      labels.draw(rows, columns);
      const go = () => until === Infinity || performance.now() < until;
      let whole = sweeper.recycle(live.rows, rows, {
        make: newRow,
        put: (row, r) => putRow(row, r, columns, brief),
        drop: dropRow,
        go,
      });
      for (const [r, row] of live.rows) {
        if (r < 0 || (row.whole && row.columns[0] === columns[0] && row.columns[1] === columns[1])) continue;
        row.whole = sweeper.recycle(row.cells, columns, { ...cellsOf(row, brief), go });
        row.columns = columns;
        whole &&= row.whole;
      }
      live.drawing = false;
      askFor();
      if (live.rest === 0) describe();
      if (!whole || waiting.length > 0 || (live.rest === 0 && sharpen(...seen(view, 0)))) later();
    }

    const onScreen = () => ({
      top: scroller.scrollTop,
      left: scroller.scrollLeft,
      height: scroller.clientHeight,
      width: scroller.clientWidth,
    });

    /** Ask for pictures that no sprite stands for, as many as this frame takes. */
    function askFor() {
      if (!scroller.isConnected) return; // a grid that is being built is not in the document yet, and neither is any picture
      for (let asked = 0; waiting.length > 0 && asked < live.loads; ) {
        const [image, from] = waiting.shift();
        if (!image.isConnected) continue; // its cell has left the view
        image.src = from;
        asked += 1;
      }
    }

    /** Ask for the pictures of cells in view that still show sprites, as many as this frame takes; are there more? */
    function sharpen([top, bottom], [left, right]) {
      let asked = 0;
      for (let r = top; r < bottom; r++) {
        for (let c = left; c < right; c++) {
          const node = cellAt([r, c]);
          if (!live.blurred.has(node)) continue;
          if (asked >= live.loads) return true;
          asked += sweeper.cell.sharpen(node);
          live.blurred.delete(node);
        }
      }
      return false;
    }

    /** Say what a passing cell left unsaid. */
    function describe() {
      for (const node of live.brief) sweeper.cell.complete(node, Number(node.dataset.row), captions);
      live.brief.clear();
    }

    /** It scrolls, or has just been built: what is passed by needs no more than its sprite. */
    function unrest(pause) {
      clearTimeout(live.rest);
      if (live.closed) return;
      live.rest = setTimeout(() => {
        live.rest = 0;
        later();
      }, pause);
    }

    function later() {
      live.frame ||= requestAnimationFrame((now) => {
        const took = now - live.last; // since the last frame: as many pictures as this machine can take in one
        live.loads = Math.min(MOST, Math.max(FEWEST, took < 20 ? live.loads + 2 : took < 40 ? live.loads : live.loads / 2));
        live.last = now;
        draw(performance.now() + BUDGET);
      });
    }

    // --- rows and cells: those that leave the view are those that come into it

    function newRow() {
      return { node: canvas.appendChild(el("div", { class: "row", role: "row" })), cells: new Map(), place: -1, columns: [0, 0], whole: false };
    }

    function dropRow(row) {
      for (const node of row.cells.values()) dropCell(node);
      row.node.remove();
    }

    function dropCell(node) {
      live.brief.delete(node);
      live.blurred.delete(node);
      sweeper.cell.drop(node);
    }

    /** Give a row another place; its cells then show what stands there. */
    function putRow(row, r, columns, brief) {
      row.place = r;
      row.node.ariaRowIndex = r + 2;
      row.node.setAttribute("aria-owns", `side-${r}`); // the label stands elsewhere in the document
      row.node.style.cssText = `top:${size.head + size.tops[r]}px;height:${size.cellHeight}px`;
      row.whole = sweeper.recycle(row.cells, columns, { ...cellsOf(row), put: putCell });
      row.columns = columns;
      for (const [c, node] of row.cells) fillCell(node, r, c, brief);
    }

    /** How the cells of a row are made, shown at another column, and given away. */
    function cellsOf(row, brief) {
      return {
        make: () => row.node.appendChild(sweeper.cell.create()),
        put: (node, c) => {
          putCell(node, c);
          fillCell(node, row.place, c, brief);
        },
        drop: dropCell,
      };
    }

    function putCell(node, c) {
      node.ariaColIndex = c + 2;
      const left = `${size.side + size.lefts[c]}px`;
      if (shaped.has(node)) return void (node.style.left = left);
      shaped.add(node);
      node.style.cssText = `left:${left};width:${size.cellWidth}px;height:${size.cellHeight}px`;
    }

    /** All trials of a cell that has `row` on top, where there are several, or null. */
    const stackOf = (row, r, c) => (row >= 0 && arranged.more(row) ? arranged.trials(r, c) : null);

    function fillCell(node, r, c, brief = false) {
      const row = arranged.find(r, c);
      if (sweeper.cell.bind(node, row, stackOf(row, r, c), live.unread ? passing : captions, brief)) live.brief.add(node);
      else live.brief.delete(node);
      live.blurred.add(node);
      if (arranged.exists?.(r, c) === false) node.className = "cell beyond";
      if (row < 0 && arranged.filtered(r, c)) sweeper.cell.leftOut(node);
      else if (row < 0 && !arranged.exists) sweeper.cell.absent(node, arranged.values(r, c), dataset);
      if (live.at !== null && live.at[0] === r && live.at[1] === c) point(node);
      else if (node.id) node.removeAttribute("id");
    }

    /** The current cell is the only one with an id, which tells a screen reader where it is. */
    function point(node) {
      node.classList.add("current");
      node.id = `cell-${live.at[0]}-${live.at[1]}`;
    }

    const cellAt = ([r, c]) => live.rows.get(r)?.cells.get(c);

    // --- the current cell, moved by the keyboard

    /** The first cell that is wholly in view, or in view at all. */
    function firstSeen() {
      const view = onScreen();
      const [[r, rows], [c, columns]] = seen(view, 0);
      return [r + (size.tops[r] < view.top && r + 1 < rows), c + (size.lefts[c] < view.left && c + 1 < columns)];
    }

    /** Make a cell the current one, and bring it into view unless the view is to stay. */
    function setCurrent(r, c, stay = false) {
      if (arranged.rows.length === 0) return;
      const last = cellAt(live.at ?? [-1, -1]);
      last?.classList.remove("current");
      last?.removeAttribute("id");
      live.at = [
        Math.min(Math.max(r, 0), arranged.rows.length - 1),
        Math.min(Math.max(c, 0), arranged.columns.length - 1),
      ];
      if (!stay) bringIntoView(...live.at);
      draw();
      describe();
      const node = cellAt(live.at);
      if (node) point(node);
      scroller.setAttribute("aria-activedescendant", node?.id ?? "");
    }

    function bringIntoView(r, c) {
      const [top, left] = [size.tops[r], size.lefts[c]];
      const [viewTop, viewLeft] = [scroller.scrollTop, scroller.scrollLeft];
      const roomY = scroller.clientHeight - size.head - size.cellHeight;
      const roomX = scroller.clientWidth - size.side - size.cellWidth;
      if (top - size.band < viewTop || top > viewTop + roomY)
        scroller.scrollTop = top < viewTop + size.band ? top - size.band : top - roomY + size.gap;
      if (left < viewLeft || left > viewLeft + roomX)
        scroller.scrollLeft = left < viewLeft ? left : left - roomX + size.gap;
    }

    const current = () => (live.at === null ? -1 : arranged.find(...live.at));
    /** The current cell has no trial: say why, to who has no pointer to rest on it. */
    function explain() {
      if (arranged.rows.length === 0) return;
      setCurrent(...(live.at ?? firstSeen())); // it may have been scrolled out of view
      const why = current() < 0 && cellAt(live.at)?.title;
      if (why) say(why);
    }

    listen(scroller, { context, current, setCurrent, firstSeen, explain, at: () => live.at, whereIs: arranged.where });
    scroller.addEventListener("scroll", () => (unrest(PAUSE), later()), { passive: true });

    live.rest = BUILT;
    requestAnimationFrame(() => live.rest === BUILT && unrest(SOON)); // counted from the frame that shows it, however long it was built
    draw(Infinity, { top: at[0], left: at[1], ...room }, true);
    host.replaceChildren(scroller);
    if (at[0] > 0 || at[1] > 0) scroller.scrollTo(at[1], at[0]);
    later();
    if (arranged.shown === 0)
      host.prepend(el("p", { class: "empty" }, `No trial is left: ${sweeper.layout.nothing(dataset, state, context.holds)}.`));
    const resized = new ResizeObserver(later);
    resized.observe(scroller);
    /** Do something with the cell that a row belongs to, on top or below, if it is in view. */
    const withCell = (row, act) => {
      const place = arranged.where(row);
      const node = place && cellAt(place);
      if (node) act(node, place);
    };
    return {
      arranged,
      /** Show these rows anew, where they are in view. */
      refresh(changed) {
        for (const row of changed) withCell(row, (node, place) => fillCell(node, ...place));
        later();
      },
      remark: (row) =>
        withCell(row, (node, place) => {
          if (Number(node.dataset.row) !== row) return; // what somebody thinks of a trial below is told of that one
          const stack = stackOf(row, ...place);
          sweeper.cell.mark(node, row, context.marks);
          sweeper.cell.describe(node, row, context, stack && sweeper.stack.summary(dataset, stack));
        }),
      /** Make a trial the current one; unless the view is to `stay`, it comes into it. */
      show(row, stay = false) {
        const place = arranged.where(row);
        if (place) setCurrent(...place, stay);
      },
      current,
      /** Whether cells in view are still to be filled. */
      busy: () => live.frame !== 0,
      focus: () => scroller.focus(),
      scroll: () => [scroller.scrollTop, scroller.scrollLeft],
      close() {
        resized.disconnect();
        cancelAnimationFrame(live.frame);
        clearTimeout(live.rest);
        live.closed = true;
        for (const row of live.rows.values()) dropRow(row);
      },
    };
  }

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

  /** Keys, clicks, drags and players. */
  function listen(scroller, { context, current, setCurrent, firstSeen, explain, at, whereIs }) {
    const rowOf = (event) => Number(event.target.closest?.(".cell")?.dataset.row ?? -1);
    // A press on a cell gives the focus too, before its click: who points at a cell has the current one by that.
    scroller.addEventListener("focus", () => at() === null && scroller.matches(":focus-visible") && setCurrent(...firstSeen(), true));
    scroller.addEventListener("keydown", (event) => {
      if (event.target !== scroller || event.ctrlKey || event.metaKey || event.altKey) return;
      const step = STEPS[event.key];
      const [r, c] = at() ?? firstSeen();
      if (step !== undefined) setCurrent(r + step[0], c + step[1]);
      else if (event.key === "Enter") current() >= 0 ? context.open(current()) : explain();
      else if (!(current() >= 0 && context.markByKey(event.key, current()))) return;
      event.preventDefault();
    });
    scroller.addEventListener("click", (event) => {
      const row = rowOf(event);
      const empty = event.target.closest(".cell.none");
      if (empty !== null && empty.title !== "") return say(empty.title);
      if (row < 0 || event.target.closest("audio")) return;
      setCurrent(...whereIs(row));
      context.open(row);
    });
    // A file leaves with its cell: onto a folder, or onto a program that reads it. (A picture that is dragged by itself
    // would be the thumbnail.) Its workflow leaves with it, for ComfyUI.
    scroller.addEventListener("dragstart", (event) => {
      const row = rowOf(event);
      if (row >= 0) sweeper.drag.carry(event, context.dataset.files(row)[0], ...sweeper.workflow.named(context.dataset, row));
    });
    for (const [kind, play] of [
      ["pointerover", true],
      ["pointerout", false],
    ]) {
      scroller.addEventListener(kind, (event) => {
        if (event.target.tagName === "VIDEO") play ? event.target.play().catch(() => {}) : event.target.pause();
      });
    }
  }

  /** Rows and columns; a single row that is wider than the view is set in lines, its values as captions. */
  function placed(width, context) {
    const arranged = sweeper.layout.arrange(context.dataset, context.state, context.holds);
    const { x, y, xx, yy } = arranged.axis;
    const perLine = Math.max(1, Math.floor((width - 24) / (context.state.size + 4)));
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

  sweeper.grid = { create };
})((globalThis.sweeper ??= {}));
