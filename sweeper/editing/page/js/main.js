// The page of `sweeper open`: shows the state of the server, and turns presses into changes of the experiment's file.

import { byId, copyText } from "../../../serving/page/js/dom.js";
import { createSwitch } from "../../../serving/page/js/segment.js";
import { LONGEST, redraw, server, setDraw, TYPING, ui } from "./app.js";
import { makeAxes } from "./axes.js";
import { makeInputs } from "./inputs.js";
import { countThings, findInput } from "./model.js";
import { describePlan, makeOutcome, turnIfStarted } from "./outcome.js";
import { h, show } from "./render.js";
import { makeStartScreen, openFiles } from "./start.js";
/** @import { State } from "./model.js" */

const CONTEXT = 2; // equal lines that are shown around a change
let timer = 0;
let since = 0; // when the first change of the text was made that is not sent yet
let found = ""; // the address whose input was shown last

function draw() {
  const state = server.shown;
  show(byId("notices"), makeNotices(state));
  if (state === null) return;
  document.title = state.mode === "edit" ? `${state.name ?? state.file} - sweeper` : "sweeper";
  document.body.dataset.mode = state.mode;
  show(byId("bar"), state.mode === "edit" ? makeTitle(state) : [h("h1", {}, "sweeper")]);
  show(byId("main"), state.mode === "edit" ? makeEditor(state) : makeStartScreen(state));
  if (state.mode !== "edit") return;
  announcePlan(state);
  showAddress(state);
  turnIfStarted(state);
}

/** @param {State | null} state */
function makeNotices(state) {
  const restart = state?.mode === "edit" ? `sweeper open ${state.file}` : "sweeper open";
  return [
    server.isAway && h("p", { role: "alert", class: "notice bad" }, "sweeper has stopped; start it again with ", h("code", {}, restart), ". What you change until then is not saved."),
    server.isLocked && h("p", { role: "alert", class: "notice bad" }, "sweeper was started again. Open the address that it has printed."),
    server.problem !== "" && h("p", { role: "alert", class: "notice bad" }, server.problem),
    state?.problem && h("p", { role: "alert", class: "notice bad" }, state.problem),
    state?.mode === "edit" && state.notice && server.lost.length === 0 && h("p", { role: "status", class: "notice" }, state.notice),
    server.lost.length > 0 && h("p", { role: "alert", class: "notice" }, "Another program has changed the file, so your last change was not made. ", h("button", { onclick: () => server.settleLost(true) }, "Make it now"), h("button", { onclick: () => server.settleLost(false) }, "Forget it")),
  ].map((item) => item || h("span", { hidden: true }));
}

/** @param {State} state */
function makeTitle(state) {
  const toggleDrawer = () => (isDrawerOpen() ? closeDrawer() : (location.hash = "yaml"));
  return [
    h("h1", { title: state.file }, state.name ?? state.file),
    h("span", { class: "dim path" }, `${state.file} · ${state.template ?? ""}`),
    h("button", { class: "end", disabled: !state.can_undo, "aria-keyshortcuts": "Control+Z", onclick: () => server.act("edit", { step: "undo" }) }, "Undo"),
    h("button", { disabled: !state.can_redo, "aria-keyshortcuts": "Control+Shift+Z", onclick: () => server.act("edit", { step: "redo" }) }, "Redo"),
    h("button", { id: "file-button", "aria-expanded": String(isDrawerOpen()), onclick: toggleDrawer }, "File"),
  ];
}

const isDrawerOpen = () => location.hash === "#yaml";

/** @param {State} state */
function makeEditor(state) {
  const others = state.other.length > 0 && h("section", { class: "others", "aria-labelledby": "others-title" }, h("h2", { id: "others-title" }, "Also in the file"), h("p", { class: "dim" }, "The page leaves this as it is. ", h("a", { href: "#yaml" }, "Edit it as text")), state.other.map(({ key, yaml }) => h("div", { key }, h("h3", {}, key), h("pre", { tabindex: 0, "aria-label": key }, yaml))));
  return [h("div", { class: "side" }, makeOutcome(state)), h("div", { class: "work" }, makeAxes(state), makeInputs(state), others || ""), isDrawerOpen() ? makeDrawer(state) : h("aside", { hidden: true })];
}

/** The file itself: its text, which can be edited, the command for it, and what has changed since it was opened. @param {State} state */
function makeDrawer(state) {
  const oninput = (/** @type {any} */ event) => {
    const text = event.target.value;
    if (timer === 0) since = performance.now();
    clearTimeout(timer);
    timer = 0;
    const send = () => {
      timer = 0;
      server.act("edit", { text });
    };
    if (server.lost.length) server.lost = [{ text }]; // until one has chosen
    else timer = setTimeout(send, Math.min(TYPING, since + LONGEST - performance.now()));
  };
  const field = h("textarea", { id: "yaml", "data-key": "yaml", class: "yaml", spellcheck: "false", wrap: "off", "aria-label": `The text of ${state.file}`, value: state.text, oninput, onblur: redraw });
  const problems = state.problems.map(({ text }) => h("li", {}, text));
  const changed = state.diff.filter(([sign]) => sign !== " ").length;
  const near = state.diff.filter((_line, index) => state.diff.slice(Math.max(0, index - CONTEXT), index + CONTEXT + 1).some(([sign]) => sign !== " "));
  const diff = near.map(([sign, line]) => h("span", { class: { "+": "good", "-": "error" }[sign] ?? "" }, `${sign} ${line}\n`));
  return h("aside", { id: "drawer", "aria-labelledby": "drawer-title" },
    h("header", {}, h("h2", { id: "drawer-title" }, state.file), h("button", { class: "end", onclick: closeDrawer }, "Close")),
    h("p", { class: "dim" }, "The page writes this file after each change; comments stay. You can edit it here too."),
    field, problems.length > 0 && h("ul", { class: "error" }, problems),
    h("div", { class: "command" }, h("code", {}, state.command), h("button", { onclick: () => copyText(state.command, "the command") }, "Copy")),
    h("h3", {}, changed === 0 ? "Nothing has changed since it was opened" : `${countThings(changed, "changed line")} since it was opened`),
    changed > 0 && h("pre", { class: "diff", tabindex: 0, "aria-label": "Changes" }, diff));
}

function closeDrawer() {
  location.hash = "";
  byId("file-button").focus();
}

/** Say the new count and mistakes to a screen reader. @param {State} state */
function announcePlan(state) {
  if (state.checking) return;
  const text = [...describePlan(state), ...state.problems.map(({ message }) => message)].join("; ");
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

/** Go to the input that the address names, once. @param {State} state */
function showAddress(state) {
  const name = new URLSearchParams(location.hash.slice(1)).get("input") ?? "";
  const input = findInput(state, name);
  if (name === found || input === undefined) return;
  found = name;
  ui.open.add(`node ${input.node}`);
  ui.focus = state.axes.some((axis) => findInput(state, axis.name) === input) ? `add ${input.address}` : `input ${input.address}`;
  redraw();
}

/** @param {any} event */
function handleKey(event) {
  if (event.key === "Escape" && isDrawerOpen() && !event.defaultPrevented) return closeDrawer();
  const isTyping = event.target.matches("textarea, input:not([type=checkbox], [type=radio])") && event.target.value !== "";
  const step = { z: "undo", Z: "redo", y: "redo" }[/** @type {"z"} */ (event.key)];
  if (!step || !(event.ctrlKey || event.metaKey) || event.altKey || isTyping || server.state?.mode !== "edit") return;
  event.preventDefault();
  server.act("edit", { step });
}

// A browser that has been here gets no login page, which would remove the token from its history.
if (location.hash.startsWith("#token=")) history.replaceState(null, "", location.pathname);
setDraw(draw);
byId("theme").append(createSwitch());
document.addEventListener("keydown", handleKey);
addEventListener("focusin", () => (ui.focus = "")); // the user goes elsewhere
addEventListener("hashchange", () => {
  found = "";
  if (isDrawerOpen()) ui.focus = "yaml";
  redraw();
});
addEventListener("dragover", (event) => event.preventDefault()); // a file that misses its field must not replace the page
addEventListener("drop", (event) => {
  if (event.defaultPrevented) return;
  event.preventDefault();
  if (server.state?.mode === "start") openFiles(event.dataTransfer?.files ?? []);
});
addEventListener("beforeunload", (event) => {
  server.flush();
  if (server.waiting.length || server.sent.length) event.preventDefault(); // the browser asks whether to leave
});
server.follow();
