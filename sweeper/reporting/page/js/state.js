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
    const narrow = globalThis.innerWidth < 600;
    return { ...PLAIN, ...sweeper.layout.firstView(dataset), size: narrow ? 112 : 160, captions: true, ...byAxis() };
  }

  function write(state, first) {
    const out = new URLSearchParams();
    const put = (name, value, usual) => value !== usual && out.set(name, String(value));
    for (const name of [...sweeper.layout.PLACES, ...Object.keys(PLAIN), "size"]) put(name, state[name], first[name]);
    put("captions", state.captions, first.captions);
    for (const [axis, place] of Object.entries(state.pins)) out.append("pin", JSON.stringify([axis, place]));
    for (const [axis, places] of Object.entries(state.hidden))
      if (places.length) out.append("hide", JSON.stringify([axis, ...places]));
    for (const [axis, places] of Object.entries(state.order))
      if (places.length) out.append("order", JSON.stringify([axis, ...places]));
    return out.toString();
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
    for (const [axis, ...places] of lists(given, "hide")) state.hidden[axis] = places.filter(Number.isInteger);
    for (const [axis, ...places] of lists(given, "order")) state.order[axis] = places.filter(Number.isInteger);
    for (const [axis, place] of lists(given, "pin")) if (Number.isInteger(place)) state.pins[axis] = place;
    return state;
  }

  function* lists(given, name) {
    for (const text of given.getAll(name)) {
      let list = null;
      try {
        list = JSON.parse(text);
      } catch {
        continue;
      }
      if (Array.isArray(list) && typeof list[0] === "string") yield list;
    }
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
