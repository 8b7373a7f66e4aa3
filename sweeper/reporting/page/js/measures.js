// Where the grid's lines stand, in pixels, and which of them are in view. Pure: the document is asked for nothing here.
"use strict";

(function (sweeper) {
  const GAP = 4;
  const BAND = 30; // height of an outer row's title

  /** Whether the window is a phone's, upright or on its side: as css/page.css has it. */
  const small = () => innerWidth <= 600 || innerHeight <= 520;

  /** Everything that has a place in a grid that shows these rows and columns, for a window of `width` pixels. */
  function measure(arranged, state, dataset, width) {
    const size = { gap: GAP, band: BAND, ...cells(arranged, state, dataset), ...labels(arranged, state, width < 600) };
    const rows = offsets(arranged.rows, size.cellHeight + GAP, arranged.axis.yy ? BAND : 0, arranged.axis.yy ? 10 : 0);
    const columns = offsets(arranged.columns, size.cellWidth + GAP, 0, arranged.axis.xx ? 14 : 0);
    return { ...size, tops: rows.starts, lefts: columns.starts, height: rows.end, width: columns.end };
  }

  /** Cells are as wide as asked for and as high as most pictures are. */
  function cells(arranged, state, dataset) {
    const seen = dataset.sized();
    const ratio = seen ? Math.min(2, Math.max(0.5, seen.height / seen.width)) : 1;
    const caption = state.captions ? 20 : 0;
    const height = Math.round(state.size * ratio);
    // Whole lines of a reason, of 15 pixels each as css/grid.css has them, below the word that is said first.
    const reason = Math.max(1, Math.floor((height * 0.6) / 15));
    return { cellWidth: state.size, cellHeight: height + caption, caption, reason };
  }

  /** Labels are as large as their words need. */
  function labels({ axis }, state, narrow) {
    const longest = (one) => (one ? one.places.reduce((most, place) => Math.max(most, one.word(place).length), 0) : 0);
    const wished = Math.max(
      narrow ? 64 : 84,
      longest(axis.y) * 9.3 + 20, // bold digits; a seed is one line
      narrow ? 0 : (axis.y?.name.length ?? 0) * 7.5 + 30,
    );
    const lines = Math.min(3, Math.max(1, Math.ceil((longest(axis.x) * 6.8) / (state.size - 8))));
    const outer = axis.xx ? 28 : 0;
    if (!axis.x && !axis.y) return { side: 8, outer, head: 8 };
    return {
      side: Math.round(Math.min(narrow ? 114 : 220, wished)),
      outer,
      head: Math.max(axis.x && axis.y ? 44 : 28, lines * 17 + 10) + outer,
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

  /** The lines of `length` pixels that reach into [from, to], and `more` on each side: [first, after the last]. */
  function range(starts, from, to, length, more) {
    let low = 0;
    let high = starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (starts[middle] + length < from) low = middle + 1;
      else high = middle;
    }
    let last = low;
    while (last < starts.length && starts[last] <= to) last += 1;
    return [Math.max(0, low - more), Math.min(starts.length, last + more)];
  }

  /** A range made as long as `most` where there are as many: lines that scrolling takes out are those it brings in. */
  function stretched([from, to], most, count) {
    const after = Math.min(count, Math.max(to, from + most));
    return [Math.max(0, Math.min(from, after - most)), after];
  }

  sweeper.measures = { measure, range, small, stretched };
})((globalThis.sweeper ??= {}));
