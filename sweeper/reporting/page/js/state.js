// The view as a value, and as the part of the URL behind `#`: whoever gets the address sees the same view.
"use strict";

(function (sweeper) {
  const PLAIN = {
    view: "grid",
    where: "",
    colour: "",
    metric: "",
    lines: "",
    sort: "trial",
    columns: "",
    trial: "",
    with: "",
    file: "0",
    mode: "single",
  };
  const TRIALS = ["trial", "with"]; // numbers here, which another run of the sweep may give to other trials
  const VIEWS = ["grid", "table", "plots"];
  const MODES = ["single", "side", "blink", "slider", "difference"];

  /** What is kept by axis. Without a prototype: an axis may be called `__proto__` or `constructor`. */
  const byAxis = () => ({ pins: Object.create(null), hidden: Object.create(null), order: Object.create(null) });

  /** A copy with `name` set, or without it where the value is undefined. */
  function altered(map, name, value) {
    const copy = Object.assign(Object.create(null), map, Object.fromEntries([[name, value]]));
    if (value === undefined) delete copy[name];
    return copy;
  }

  function initial(dataset) {
    return { ...PLAIN, ...sweeper.layout.firstView(dataset), size: sweeper.measures.small() ? 112 : 160, captions: true, ...byAxis() };
  }

  function write(state, first, dataset) {
    const out = new URLSearchParams();
    const put = (name, value, usual) => value !== usual && out.set(name, String(value));
    const { PLACES } = sweeper.layout;
    // All of them or none: what the first view of a larger sweep has in the other places is not what was looked at.
    const chosen = PLACES.some((name) => state[name] !== first[name]) || [state.pins, state.hidden, state.order].some((one) => Object.keys(one).length);
    if (chosen) for (const name of PLACES) out.set(name, state[name]);
    for (const name of [...Object.keys(PLAIN), "size"]) put(name, TRIALS.includes(name) ? sweeper.address.writeTrial(dataset, state[name]) : state[name], first[name]);
    put("captions", state.captions, first.captions);
    for (const axis of dataset.axes) {
      const told = { pin: [state.pins[axis.name]], hide: state.hidden[axis.name] ?? [], order: state.order[axis.name] ? moved(axis, state) : [] };
      for (const [name, places] of Object.entries(told))
        if (places.length > 0 && places[0] !== undefined) out.append(name, sweeper.address.writePlaces(axis, places));
    }
    return out.toString().replace(/%(3A|2C)/g, decodeURIComponent); // `:` and `,` need no escape, and are easier to read
  }

  /** The places of an axis as they are ordered, as far as they are not in the order that the rest has anyway. */
  function moved(axis, state) {
    const order = sweeper.layout.ordered(axis, state);
    const ranks = new Map(axis.places.map((place, rank) => [place, rank]));
    const usual = (place) => ranks.get(place);
    let count = order.length - 1;
    while (count > 0 && usual(order[count - 1]) < usual(order[count])) count -= 1;
    return order.slice(0, count); // the rest follows in its usual order
  }

  /** Read an address somebody else may have written: what makes no sense is left as it usually is. */
  function read(text, first, dataset) {
    const given = new URLSearchParams(text.replace(/^#/, ""));
    const state = { ...first, ...byAxis() };
    for (const name of Object.keys(PLAIN)) if (given.has(name)) state[name] = given.get(name);
    for (const place of sweeper.layout.PLACES) {
      const name = given.get(place);
      if (name === "" || dataset.axes.some((axis) => axis.name === name)) state[place] = name;
    }
    if (!VIEWS.includes(state.view)) state.view = first.view;
    if (!MODES.includes(state.mode)) state.mode = first.mode;
    if (!/^\d{1,3}$/.test(state.file)) state.file = first.file;
    const size = Number(given.get("size"));
    if (Number.isInteger(size) && size >= 48 && size <= 512) state.size = size;
    if (given.has("captions")) state.captions = given.get("captions") === "true";
    for (const name of TRIALS) state[name] = sweeper.address.readTrial(dataset, state[name]);
    const each = (name) => given.getAll(name).map((one) => sweeper.address.readPlaces(dataset, one)).filter((one) => one !== null);
    for (const [axis, places] of each("hide")) state.hidden[axis.name] = places;
    for (const [axis, places] of each("order")) state.order[axis.name] = places;
    for (const [axis, [place]] of each("pin")) if (place !== undefined) state.pins[axis.name] = place;
    return state;
  }

  /** Give `place` to an axis; the axis that had it takes the other's old place, so that nothing is lost from view. */
  function place(state, where, name) {
    const next = { ...state, [where]: name };
    const old = sweeper.layout.PLACES.find((other) => other !== where && name !== "" && state[other] === name);
    if (old !== undefined) next[old] = state[where];
    return next;
  }

  sweeper.state = { altered, initial, write, read, place, MODES };
})((globalThis.sweeper ??= {}));
