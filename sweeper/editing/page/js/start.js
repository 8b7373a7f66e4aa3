// The first screen, without a file: what could be opened.

import { readFile, redraw, server } from "./app.js";
import { makeFileButton, makeMenu } from "./fields.js";
import { h } from "./render.js";
/** @import { Sources, State } from "./model.js" */
/** @import { Child, Item } from "./render.js" */

const LOCAL = "http://127.0.0.1:8188"; // where a ComfyUI listens that somebody started here
/** @type {Sources | null} */
let sources = null; // with what a target has
let busy = ""; // what the page waits for

/** @param {string} text what the page waits for @param {() => Promise<void>} task */
async function wait(text, task) {
  busy = text;
  redraw();
  await task();
  busy = "";
  redraw();
}

/** @param {Record<string, any>} body */
const open = (body) => wait("Opening it…", () => server.act("open", body));

/** @param {Iterable<File>} files */
export async function openFiles(files) {
  const [file] = files;
  if (file) await open({ upload: await readFile(file) });
}

/** @param {string} target */
const chooseTarget = (target) =>
  wait(`Asking ${target}…`, async () => {
    const { status, body } = await server.ask("GET", `sources?${new URLSearchParams({ target })}`);
    sources = status === 200 ? body : { ...sources, ...server.state?.sources, target, problem: body.problem };
  });

/** @param {State} state @returns {Item[]} */
export function makeStartScreen(state) {
  if (sources === null) {
    sources = state.sources;
    chooseTarget(sources.target ?? LOCAL);
  }
  const { target, targets, experiments, workflows, jobs, problem } = sources;
  const lists = [
    h("h4", {}, "Saved workflows"), makeList(workflows.map(({ name, modified }) => [name, formatTime(modified), { workflow: name, target }])),
    h("h4", {}, "Last pictures"), makeList(jobs.map(({ id, title, when }) => [title, formatTime(when), { job: id, target }])),
  ];
  const menu = makeMenu("Server", targets.map((name) => [name, name]), target ?? "", chooseTarget);
  return [
    h("section", { class: "hello" },
      h("h2", {}, "Make a picture for each combination of settings, and compare them"),
      h("p", {}, "Begin with a workflow. Then choose what varies, such as the prompt, the steps or the seed."),
      h("p", { class: "dim", role: "status" }, busy || "\u00a0")),
    h("div", { class: "sources" },
      h("div", { class: "source-column" },
        makeCard("A file", h("p", {}, "Drop a picture that ComfyUI made, or a workflow (JSON)."), makeFileButton("Choose a file…", "file", "A file", openFiles)),
        makeCard("The example", h("p", {}, "It needs no ComfyUI and no model: sweeper's own server draws the pictures."), h("button", { onclick: () => open({ example: true }) }, "Open the example"))),
      makeCard("Experiments of this folder", makeList(experiments.map(({ path, name, modified }) => [name, `${path} · ${formatTime(modified)}`, { experiment: path }]))),
      makeCard("From ComfyUI", menu, problem ? h("p", { class: "dim" }, problem) : lists)),
  ];
}

/** @param {string} title @param {Child[]} content */
const makeCard = (title, ...content) => h("section", { class: "source-card", "aria-label": title }, h("h3", {}, title), content);

/** @param {[string, string, Record<string, any>][]} rows name, more about it, what opens it */
function makeList(rows) {
  if (rows.length === 0) return h("p", { class: "dim" }, "none");
  const items = rows.map(([name, more, body], index) => h("li", { key: index }, h("button", { class: "source-item", onclick: () => open(body) }, h("b", {}, name), h("span", { class: "dim" }, more))));
  return h("ul", {}, items);
}

/** @param {number | null} time seconds since 1970 */
const formatTime = (time) => (time ? new Date(time * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "");
