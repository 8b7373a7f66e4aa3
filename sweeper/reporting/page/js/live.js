// Follows a run on a page that `sweeper view` serves: server-sent events bring the changes.

import * as Dom from "../../../serving/page/js/dom.js";
/** @import { Dataset } from "./dataset.js" */

const MAX_PAUSE = 5000; // milliseconds between two rounds of a search, in which it chooses points

/**
 * @typedef {object} Listeners
 * @property {(rows: Set<number>, hasOutcomes: boolean) => void} onChange gets the rows to be shown again, and whether a
 *   trial has a new outcome
 * @property {(marks: Record<string, any>) => void} onMarks gets all marks when one has changed
 * @property {(raw: any) => boolean} onAnew gets the data of a search with other trials; false: the page must load again
 */

/** Follow the run. @param {Dataset} dataset @param {Listeners} listeners */
export function follow(dataset, listeners) {
  const { live } = dataset.raw;
  if (live === undefined) return;
  const { onChange, onMarks, onAnew } = listeners;
  let pauseTimer = 0;
  function end() {
    live.running = false;
    Dom.announce(`the ${dataset.raw.search ? "search" : "run"} has ended`);
    onChange(new Set(), false);
  }
  const source = new EventSource(`events?since=${live.generation}.${live.number}`);
  source.addEventListener("change", (event) => {
    const update = JSON.parse(event.data);
    const wasRunning = live.running;
    const changed = dataset.updateRunning(update.flight);
    for (const row of update.rows) dataset.updateRow(row);
    if (update.gone) dataset.raw.check.gone = update.gone;
    Object.assign(dataset.raw, update.about); // another run of the same plan may have begun, with other options
    for (const name of ["running", "ended", "problem", "stopped_by", "done", "left_s", "sizes_differ"]) live[name] = update[name];
    if (update.answers) dataset.raw.answers = update.answers;
    if (update.marks) onMarks(update.marks);
    clearTimeout(pauseTimer);
    if (wasRunning && !update.running && dataset.raw.search) {
      live.running = true;
      pauseTimer = setTimeout(end, MAX_PAUSE);
    } else if (wasRunning && !update.running) end();
    onChange(new Set([...changed, ...update.rows.map((/** @type {{row: number}} */ { row }) => row)]), update.rows.length > 0);
  });
  source.addEventListener("anew", async () => {
    source.close();
    clearTimeout(pauseTimer);
    const raw = dataset.raw.search ? await fetch("data.json").then((response) => response.json()).catch(() => null) : null;
    if (raw?.search && onAnew(raw)) return follow(dataset, listeners);
    // A run with another plan began. The address names values, so the reloaded page shows the same ones.
    whenNotTyping(() => location.reload());
  });
  source.addEventListener("over", () => {
    live.hasEnded = true; // the browser keeps trying to reconnect; if the view starts again, it sends `anew`
    onChange(new Set(), false);
  });
  source.addEventListener("error", () => {
    live.isAway = source.readyState !== EventSource.OPEN; // the browser reconnects by itself
    onChange(new Set(), false);
  });
  source.addEventListener("open", () => {
    live.isAway = live.hasEnded = false;
    onChange(new Set(), false);
  });
}

/** Call `act` as soon as the user is not writing in a field. @param {() => void} act */
function whenNotTyping(act) {
  const field = document.activeElement;
  if (!field?.matches("textarea, input:not([type=range], [type=checkbox])")) return act();
  Dom.announce("another run has begun; the page shows it when you leave this field");
  field.addEventListener("blur", () => whenNotTyping(act), { once: true });
}

/** The state of the run in one line. @param {Dataset} dataset @returns {string} */
export function describe(dataset) {
  const { live } = dataset.raw;
  if (live === undefined) return "";
  if (live.hasEnded) return "sweeper view has ended";
  if (live.isAway) return "sweeper view does not respond; reconnecting";
  if (live.problem) return live.problem;
  if (live.running && dataset.raw.search) return `searching: ${live.done} done, ${dataset.size - live.done} asked for`;
  if (live.running) return [`running: ${live.done} of ${dataset.size} done`, describeLeft(live)].filter(Boolean).join(", ");
  const time = live.ended ? `finished ${new Date(live.ended * 1000).toLocaleTimeString("en-GB", { timeStyle: "short" })}` : "not running";
  return live.stopped_by ? `stopped: ${live.stopped_by}` : time;
}

/**
 * How long a run still takes, roughly, because the next trials may take longer than those before.
 * @param {{left_s: number | null, sizes_differ: boolean}} live
 */
function describeLeft({ left_s: seconds, sizes_differ: differ }) {
  if (seconds === null) return differ ? "time left unknown (jobs differ in size)" : "";
  if (seconds < 90) return `about ${Math.max(5, Math.ceil(seconds / 5) * 5)} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `about ${minutes} min left` : `about ${Math.round(minutes / 60)} h left`;
}
