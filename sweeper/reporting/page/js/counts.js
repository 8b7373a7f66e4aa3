// How many trials became what, and what a check found of them: each count is a filter. The nodes stay while a run goes
// on, or a press on one would be lost whenever a number changes under it.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;
  const FOUND = ["same", "changed", "failed", "new", "not compared"]; // what a check says of a trial, in this order
  const MOST_NAMES = 300; // of missing cases; a page is no manifest

  /** {node, recount(), show(state)}; `page` as of the bar. */
  function create(page) {
    const { dataset, update } = page;
    const statuses = el("span", { class: "numbers", role: "group", "aria-label": "What became of the trials" });
    const found = el("span", { class: "numbers", role: "group", "aria-label": "What the check found" });
    const missing = el("details", { class: "missing" }, el("summary", {}), el("div", {}));
    const shown = el("span", { class: "dim" });
    const alive = el("span", { class: "alive", role: "status" });
    const node = el("div", { class: "counts" }, statuses, found, missing, shown, alive);
    const made = new Map(); // filter -> its button
    let where = "";
    let names = null;

    function button(filter, word) {
      const press = () => update({ where: where === filter ? "" : filter });
      const one = el("button", { type: "button", class: word.replace(" ", "-"), title: "show only these, or everything again", onclick: press });
      made.set(filter, one);
      return one;
    }

    /** A number and its word; where a word is a column's, what filters by it. */
    function counter(column, word, count) {
      const text = `${count.toLocaleString("en")} ${word}`;
      if (column === null) return el("span", { class: word }, text);
      const filter = `${column} == '${word}'`;
      const one = made.get(filter) ?? button(filter, word);
      if (one.textContent !== text) one.textContent = text;
      return one;
    }

    function put(host, parts) {
      const there = host.childNodes;
      if (there.length !== parts.length || parts.some((part, place) => part !== there[place])) {
        const focused = host.contains(document.activeElement) ? document.activeElement : null;
        host.replaceChildren(...parts);
        focused?.focus();
      }
    }

    function recount() {
      // Who has a job in hand is told by the run, and by no column.
      put(statuses, [...dataset.counts()].map(([word, count]) => counter(word === "running" ? null : "status", word, count)));
      if (dataset.about.check) {
        const counts = dataset.checkCounts();
        const words = [...new Set([...FOUND, ...counts.keys()])].filter((word) => counts.has(word));
        put(found, ["check:", ...words.map((word) => counter("check", word, counts.get(word)))]);
      }
      found.hidden = !dataset.about.check;
      tellMissing(dataset.about.check?.gone ?? []);
      alive.textContent = sweeper.live.words(dataset);
      press();
    }

    /** Accepted cases that no trial makes: they have no cell, so their names stand here. */
    function tellMissing(gone) {
      missing.hidden = gone.length === 0;
      if (gone === names) return;
      names = gone;
      const [summary, list] = missing.children;
      summary.textContent = `${gone.length.toLocaleString("en")} missing`;
      summary.title = ["Accepted, and made by no trial of this run:", ...gone.slice(0, 12), gone.length > 12 ? "…" : ""].join("\n");
      const more = gone.length - MOST_NAMES;
      list.replaceChildren(
        el("p", {}, "Accepted, and made by no trial of this run:"),
        el("ul", {}, gone.slice(0, MOST_NAMES).map((name) => el("li", {}, name))),
        more > 0 ? el("p", {}, `and ${more.toLocaleString("en")} more`) : "",
      );
    }

    function press() {
      for (const [filter, one] of made) one.setAttribute("aria-pressed", String(filter === where));
    }

    function show(state, count) {
      where = state.where;
      shown.textContent = count === dataset.size ? "" : `${count.toLocaleString("en")} shown`;
      press();
    }

    return { node, recount, show };
  }

  sweeper.counts = { create };
})((globalThis.sweeper ??= {}));
