// A page that `sweeper view` serves: what the run does arrives as server-sent events and goes into the cells.
"use strict";

(function (sweeper) {
  const { say } = sweeper.dom;

  /** Follow the run; `changed(rows, everything)` is told the rows whose cells are to be shown anew. */
  function follow(dataset, changed) {
    const live = dataset.about.live;
    if (live === undefined) return;
    dataset.flight(live.flight);
    const source = new EventSource(`events?since=${live.generation}.${live.number}`);
    source.addEventListener("change", (event) => {
      const told = JSON.parse(event.data);
      const before = { ...dataset.about.live };
      const moved = dataset.flight(told.flight);
      for (const patch of told.rows) dataset.patch(patch);
      if (told.gone) dataset.about.check.gone = told.gone;
      Object.assign(dataset.about, told.about); // a run of the plan that is shown may begin meanwhile, asked for otherwise
      Object.assign(live, { running: told.running, problem: told.problem, stopped_by: told.stopped_by });
      if (before.running && !told.running) say("the run is over");
      changed(new Set([...moved, ...told.rows.map((patch) => patch.row)]), told.rows.length > 0);
    });
    source.addEventListener("anew", () => {
      source.close();
      // Another run, with another plan: the address tells by values what is looked at, wherever that stands now.
      afterTyping(() => location.reload());
    });
    source.addEventListener("over", () => {
      source.close();
      live.gone = true;
      changed(new Set(), false);
    });
    source.addEventListener("error", () => {
      live.away = source.readyState !== EventSource.OPEN; // it comes back by itself
      changed(new Set(), false);
    });
    source.addEventListener("open", () => {
      live.away = false;
      changed(new Set(), false);
    });
  }

  /** What takes the whole page away waits for whoever is writing in it. */
  function afterTyping(act) {
    const field = document.activeElement;
    if (!field?.matches("textarea, input:not([type=range], [type=checkbox])")) return act();
    say("another run has begun: the page shows it when you have left this field");
    field.addEventListener("blur", () => afterTyping(act), { once: true });
  }

  /** One line on the state of the run. */
  function words(dataset) {
    const live = dataset.about.live;
    if (live === undefined) return "";
    if (live.gone) return "sweeper view has ended";
    if (live.away) return "sweeper view does not answer; waiting for it";
    if (live.problem) return live.problem;
    if (live.running) return "● running";
    return live.stopped_by ? `stopped: ${live.stopped_by}` : "not running";
  }

  sweeper.live = { follow, words };
})((globalThis.sweeper ??= {}));
