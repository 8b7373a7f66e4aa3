// Where each trial stands: axes chosen for X, Y and the two outer places make rows, columns and cells. Pure, no DOM.
"use strict";

(function (sweeper) {
  const PLACES = ["x", "y", "xx", "yy"]; // across, down, outer columns, outer rows
  const WIDEST = 8; // columns of a first view that repeats its X axis

  /** The axes that a first look wants: the two with most values, long texts down the side; then up to two outer ones. */
  function firstView(dataset) {
    const chosen = [];
    const several = dataset.axes.filter((axis) => axis.places.length > 1);
    // Reading order breaks ties, so that a page opened twice is the same page.
    for (const axis of several.sort((a, b) => b.places.length - a.places.length)) {
      if (chosen.length < 4 && !determined(dataset, axis, chosen)) chosen.push(axis);
    }
    const [first, second, third, fourth] = chosen;
    const view = { x: first?.name ?? "", y: second?.name ?? "", xx: fourth?.name ?? "", yy: third?.name ?? "" };
    if (second && width(first) > width(second)) [view.x, view.y] = [second.name, first.name];
    // A few columns more still fit a screen; beyond that, what is outer goes down the side.
    const across = (view.x === first?.name ? first : second)?.places.length ?? 1;
    if (third && across * third.places.length <= WIDEST) [view.xx, view.yy] = [view.yy, view.xx];
    if (!second && first && width(first) > 24) [view.x, view.y] = ["", first.name];
    return view;
  }

  const width = (axis) => Math.max(...axis.places.map((place) => axis.word(place).length));

  /** Whether the values of `others` fix the value of `axis`: a partner in a zip, a part of a choice. */
  function determined(dataset, axis, others) {
    if (others.length === 0) return false;
    const seen = new Map();
    for (let row = 0; row < dataset.size; row++) {
      const key = others.reduce((sum, other) => sum * (other.values.length + 1) + other.of[row] + 1, 0);
      const before = seen.get(key);
      if (before === undefined) seen.set(key, axis.of[row]);
      else if (before !== axis.of[row]) return false;
    }
    return true;
  }

  /** The places of an axis in the order of showing, hidden ones too; -1 stands for "has none". */
  function ordered(axis, view) {
    const there = new Set(axis.places);
    const wished = (view.order[axis.name] ?? []).filter((place) => there.has(place));
    return [...new Set([...wished, ...axis.places])];
  }

  /** Those that are not hidden. */
  function shownValues(axis, view) {
    if (axis === undefined) return [-1];
    const hidden = new Set(view.hidden[axis.name] ?? []);
    return ordered(axis, view).filter((place) => !hidden.has(place));
  }

  /** [axis, place] of the values that are chosen for axes in no place. */
  function pinned(dataset, view) {
    return Object.entries(view.pins)
      .map(([name, place]) => [dataset.axes.find((one) => one.name === name), place])
      .filter(([axis]) => axis !== undefined && !PLACES.some((place) => view[place] === axis.name));
  }

  function arrange(dataset, view, holds = () => true) {
    const axis = Object.fromEntries(
      PLACES.map((place) => [place, dataset.axes.find((one) => one.name === view[place])]),
    );
    const across = line(axis.x, axis.xx, view);
    const down = line(axis.y, axis.yy, view);
    const pins = pinned(dataset, view);
    const cells = new Map();
    const filtered = new Set(); // cells whose trials the filter, or a choice among the other axes, leaves out
    const next = new Int32Array(dataset.size).fill(-1);
    const [usedAcross, usedDown] = [new Uint8Array(across.length), new Uint8Array(down.length)];
    let shown = 0;
    for (let row = dataset.size - 1; row >= 0; row--) {
      const c = across.at(row);
      const r = down.at(row);
      if (c < 0 || r < 0) continue;
      const key = r * across.length + c;
      if (pins.some(([one, place]) => one.of[row] !== place) || !holds(row)) {
        filtered.add(key);
        continue;
      }
      const before = cells.get(key);
      if (before !== undefined) next[row] = before;
      cells.set(key, row);
      usedAcross[c] = usedDown[r] = 1;
      shown += 1;
    }
    return compact(axis, across, down, usedAcross, usedDown, { cells, filtered, next, shown, pins });
  }

  /** All (outer, inner) pairs of values along one direction; `at(row)` is the place of a trial among them. */
  function line(inner, outer, view) {
    const inners = shownValues(inner, view);
    const outers = shownValues(outer, view);
    const innerPlace = new Map(inners.map((value, place) => [value, place]));
    const outerPlace = new Map(outers.map((value, place) => [value, place]));
    const entries = outers.flatMap((out) => inners.map((value) => ({ inner: value, outer: out })));
    const at = (row) => {
      const i = innerPlace.get(inner === undefined ? -1 : inner.of[row]);
      const o = outerPlace.get(outer === undefined ? -1 : outer.of[row]);
      return i === undefined || o === undefined ? -1 : o * inners.length + i;
    };
    return { entries, at, length: entries.length };
  }

  /** Lines without a single trial are left out: the halves of a zip would else fill the page with nothing. */
  function compact(axis, across, down, usedAcross, usedDown, { cells, filtered, next, shown, pins }) {
    const kept = (entries, used) =>
      entries.map((entry, place) => ({ ...entry, place })).filter((entry) => used[entry.place]);
    const columns = kept(across.entries, usedAcross);
    const rows = kept(down.entries, usedDown);
    const find = (r, c) => cells.get(rows[r].place * across.length + columns[c].place) ?? -1;
    const columnOf = new Map(columns.map((entry, place) => [entry.place, place]));
    const rowOf = new Map(rows.map((entry, place) => [entry.place, place]));
    return {
      axis,
      columns,
      rows,
      shown,
      find,
      /** The trials of a cell, in written order; none for a combination that is not in the plan. */
      trials(r, c) {
        const found = [];
        for (let row = find(r, c); row >= 0; row = next[row]) found.push(row);
        return found;
      },
      more: (row) => next[row] >= 0,
      /** Whether a cell is empty only because its trials are left out of this view. */
      filtered(r, c) {
        const key = rows[r].place * across.length + columns[c].place;
        return filtered.has(key) && !cells.has(key);
      },
      /** The values that the trials of a cell would have: [axis, place of its value] of each axis that is fixed there. */
      values: (r, c) => [
        [axis.x, columns[c].inner],
        [axis.xx, columns[c].outer],
        [axis.y, rows[r].inner],
        [axis.yy, rows[r].outer],
        ...pins,
      ].filter(([one]) => one !== undefined),
      /** [row, column] of a trial, or null where it is not shown. */
      where(row) {
        const [r, c] = [rowOf.get(down.at(row)), columnOf.get(across.at(row))];
        return r === undefined || c === undefined ? null : [r, c];
      },
    };
  }

  /** One long row as lines of `perLine` cells, as a text is set; its labels then belong to the cells. */
  function flow(arranged, perLine) {
    const count = arranged.columns.length;
    const place = (r, c) => (c < perLine && r * perLine + c < count ? r * perLine + c : -1);
    const lines = (length) => Array.from({ length }, () => ({ inner: -1, outer: -1 }));
    return {
      ...arranged,
      axis: {},
      rows: lines(Math.ceil(count / perLine)),
      columns: lines(Math.min(perLine, count)),
      filtered: (r, c) => place(r, c) >= 0 && arranged.filtered(0, place(r, c)),
      find: (r, c) => (place(r, c) < 0 ? -1 : arranged.find(0, place(r, c))),
      trials: (r, c) => (place(r, c) < 0 ? [] : arranged.trials(0, place(r, c))),
      /** Whether a cell is there at all: the last line may be shorter. */
      exists: (r, c) => place(r, c) >= 0,
      where(row) {
        const at = arranged.where(row);
        return at && [Math.floor(at[1] / perLine), at[1] % perLine];
      },
    };
  }

  /** Runs of lines with one outer value: [{outer, from, to}], `to` exclusive. */
  function bands(lines) {
    const found = [];
    lines.forEach((entry, place) => {
      const last = found[found.length - 1];
      if (last !== undefined && last.outer === entry.outer) last.to = place + 1;
      else found.push({ outer: entry.outer, from: place, to: place + 1 });
    });
    return found;
  }

  /** Axes in no place: whoever looks at a cell with several trials may want one of them fixed. */
  function free(dataset, view) {
    const placed = PLACES.map((place) => dataset.axes.find((one) => one.name === view[place])).filter(Boolean);
    return dataset.axes.filter(
      (axis) => axis.places.length > 1 && !placed.includes(axis) && !determined(dataset, axis, placed),
    );
  }

  const twins = new WeakMap(); // axis -> axis -> whether each fixes the other

  /** Whether each value of an axis goes with one of the other, both ways: partners of a zip. */
  function paired(dataset, axis, other) {
    if (!twins.has(axis)) twins.set(axis, new Map());
    const known = twins.get(axis);
    if (!known.has(other)) known.set(other, determined(dataset, axis, [other]) && determined(dataset, other, [axis]));
    return known.get(other);
  }

  /**
   * What may be chosen among the axes in no place: [axis, places]. Of axes that are paired one is enough, and of each those
   * values that go with what is chosen for the others.
   */
  function choices(dataset, view) {
    const pins = pinned(dataset, view);
    const isPinned = (axis) => pins.some(([one]) => one === axis);
    const found = [];
    const all = free(dataset, view);
    for (const axis of [...all.filter(isPinned), ...all.filter((one) => !isPinned(one))])
      if (isPinned(axis) || !found.some((one) => paired(dataset, axis, one))) found.push(axis);
    return all.filter((axis) => found.includes(axis)).map((axis) => [axis, possible(dataset, axis, pins)]);
  }

  function possible(dataset, axis, pins) {
    const others = pins.filter(([one]) => one !== axis);
    if (others.length === 0) return axis.places;
    const met = new Set(pins.filter(([one]) => one === axis).map(([, place]) => place)); // what is chosen is told in any case
    for (let row = 0; row < dataset.size; row++) if (others.every(([one, place]) => one.of[row] === place)) met.add(axis.of[row]);
    return axis.places.filter((place) => met.has(place));
  }

  /** Why a view shows no trial: the fewest of its filter, its choices and its hidden values that leave none, in words. */
  function nothing(dataset, view, holds) {
    const pins = pinned(dataset, view);
    const hiding = PLACES.map((place) => dataset.axes.find((one) => one.name === view[place]))
      .filter((axis) => axis !== undefined && view.hidden[axis.name]?.length > 0)
      .map((axis) => [axis, new Set(view.hidden[axis.name])]);
    const named = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");
    const reasons = [
      ["the filter", holds],
      [`choosing ${named(pins.map(([axis, place]) => `${axis.name} ${axis.word(place)}`))}`, (row) => pins.every(([axis, place]) => axis.of[row] === place)],
      [`hiding values of ${named(hiding.map(([axis]) => axis.name))}`, (row) => !hiding.some(([axis, hidden]) => hidden.has(axis.of[row]))],
    ];
    const rows = Array.from({ length: dataset.size }, (_, row) => row);
    for (const some of [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]) {
      if (rows.some((row) => some.every((one) => reasons[one][1](row)))) continue;
      const words = named(some.map((one) => reasons[one][0]));
      return some.length === 1 ? `${words} leaves none` : `${words} leave none together`;
    }
    return "there is none";
  }

  sweeper.layout = { PLACES, arrange, bands, choices, firstView, flow, free, nothing, ordered, shownValues };
})((globalThis.sweeper ??= {}));
