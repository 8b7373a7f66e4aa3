// @ts-check
// The vote page: shows a pair, takes the answer by key, mouse or touch, and asks for the next pair.

import { PanZoom } from "../../../serving/page/js/pan_zoom.js";
import * as VoteRequest from "./vote_request.js";
/** @import { VotePair, VoteStart, VoteState } from "./vote_request.js" */

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const pictures = byId("pictures");
const frames = [...pictures.querySelectorAll("button")];
const undoButton = /** @type {HTMLButtonElement} */ (byId("undo"));
const nameField = /** @type {HTMLInputElement} */ (byId("name"));
const SWIPE = 60; // pixels that a finger moves, at least
const DRAG = 6; // pixels after which a press is not a click any more
/** @type {Record<string, string>} */
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", " ": "tie", ArrowDown: "bad" };
const THEMES = ["auto", "light", "dark"];

const panZoom = new PanZoom(pictures, () => byId("zoom").setAttribute("aria-pressed", String(pictures.classList.contains("magnified"))));
let voter = "";
let busy = true;
let again = false;
/** @type {VoteState | null} */
let state = null;

/** @param {string} text empty: no problem */
function report(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = text === "";
}

/** @param {string} id of a view */
function show(id) {
  for (const view of ["name-form", "voting", "done"]) byId(view).hidden = view !== id;
}

/**
 * Send a request and show the answer. One at a time.
 * @param {string} path @param {object} body
 */
async function request(path, body) {
  busy = true;
  pictures.setAttribute("aria-busy", "true");
  undoButton.disabled = true;
  try {
    state = await VoteRequest.send(path, { voter, again, ...body }, report);
    VoteRequest.forget();
  } catch (refusal) {
    VoteRequest.forget(); // sent again, it would be refused again
    state = await VoteRequest.send("next", { voter, again }, report);
    report(/** @type {Error} */ (refusal).message);
  }
  await showState();
}

async function showState() {
  if (state === null) return;
  const { pair } = state;
  byId("progress").textContent = describeProgress(state);
  if (pair === null) show("done");
  else if (!(await showPair(pair))) {
    request("next", { broken: pair.id });
    return;
  }
  undoButton.disabled = state.last === null;
  pictures.removeAttribute("aria-busy");
  busy = false;
}

/** @param {VoteState} now */
function describeProgress(now) {
  const of = now.votes === 1 ? "1 vote" : `${now.votes} votes`;
  const settled = now.settled === 0 ? "not enough to tell any two values apart" : `enough to tell ${now.settled} of ${now.comparisons} pairs of values apart`;
  if (now.needed !== null) return `${of}: ${describeNeeded(now.needed)}. You answered ${now.own} of ${now.pairs} pairs of pictures.`;
  return `${of}: ${settled}. You answered ${now.own} of ${now.pairs} pairs of pictures.`;
}

/** @param {number} votes */
function describeNeeded(votes) {
  if (votes === 0) return "enough for the search to go on";
  return votes === 1 ? "the search needs one more" : `the search needs about ${votes} more`;
}

/**
 * Show both pictures at the same moment, when both are decoded. False if the browser cannot decode one.
 * @param {VotePair} pair @param {number} [attempts] how often a running server may fail to send one
 * @returns {Promise<boolean>}
 */
async function showPair(pair, attempts = 2) {
  const images = ["left", "right"].map((side, index) => {
    const image = new Image();
    image.src = `picture/${pair.id}/${side}`;
    image.alt = index === 0 ? "first picture" : "second picture";
    image.draggable = false;
    return image;
  });
  try {
    await Promise.all(images.map((image) => image.decode()));
  } catch {
    if (!(await isServing())) return showPair(pair);
    return attempts > 1 && showPair(pair, attempts - 1);
  }
  show("voting");
  byId("name").blur(); // a browser that is busy takes the focus from a hidden field late, and keys would still go there
  frames.forEach((frame, index) => {
    frame.replaceChildren(images[index]);
    frame.classList.remove("chosen");
  });
  panZoom.reset();
  byId("prompts").textContent = pair.prompts.map(([name, text]) => `${name}: ${text}`).join("  ·  ");
  document.body.dataset.pair = pair.id;
  return true;
}

/** Whether the server responds; waits until it does. */
async function isServing() {
  let waited = false;
  await VoteRequest.send("start", null, (text) => {
    waited ||= text !== "";
    report(text);
  });
  return !waited;
}

/** @param {string} answer */
function vote(answer) {
  if (busy || !state?.pair) return;
  const given = { voter, vote: state.pair.id, answer };
  VoteRequest.keep(given);
  for (const frame of frames) frame.classList.toggle("chosen", frame.dataset.answer === answer);
  request("next", given);
}

function undo() {
  if (!busy && state?.last) request("undo", { vote: state.last });
}

/** @param {KeyboardEvent} event */
function handleKey(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.altKey || event.metaKey || target.matches("input")) return;
  const answer = KEYS[event.key];
  if (answer !== undefined) {
    if (event.key === " " && target.matches("button, summary")) return; // the focused element takes it
    event.preventDefault();
    if (!event.repeat) vote(answer);
  } else if (event.key === "u" || event.key === "Backspace") undo();
  else panZoom.onKey(event.key);
}

/** Clicks and swipes vote; `panZoom` follows drags and two fingers. */
function followPointers() {
  /** @type {Set<number>} the fingers or the mouse button that are down, on either picture */
  const pointers = new Set();
  let first = { x: 0, y: 0 }; // where the press began
  let moved = false; // whether the press is a drag or a pinch, so that its click does not vote
  let pinched = false;
  for (const frame of frames) {
    frame.addEventListener("pointerdown", (event) => {
      const point = { x: event.clientX, y: event.clientY };
      pinched = moved = pointers.size > 0;
      if (!pinched) first = point;
      pointers.add(event.pointerId);
      frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => {
      if (pointers.has(event.pointerId)) moved ||= Math.hypot(event.clientX - first.x, event.clientY - first.y) > DRAG;
    });
    frame.addEventListener("pointerup", (event) => {
      if (!pointers.delete(event.pointerId) || pinched || event.pointerType !== "touch" || panZoom.isMagnified()) return;
      const [dx, dy] = [event.clientX - first.x, event.clientY - first.y];
      if (Math.max(Math.abs(dx), Math.abs(dy)) < SWIPE) return;
      if (Math.abs(dx) > Math.abs(dy)) vote(dx < 0 ? "left" : "right");
      else vote(dy < 0 ? "tie" : "bad");
    });
    for (const name of /** @type {const} */ (["pointercancel", "lostpointercapture"])) {
      frame.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    frame.addEventListener("dblclick", (event) => event.stopPropagation()); // two votes
    frame.addEventListener("click", (event) => {
      if (event.detail === 0 || !moved) vote(frame.dataset.answer ?? "");
      moved = false;
    });
  }
}

/** @param {string} name */
async function begin(name) {
  voter = name;
  const unsent = VoteRequest.readUnsent(voter);
  await request("next", unsent ?? {});
  if (!byId("voting").hidden) byId("main").focus();
}

/** @param {string} name */
function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme").textContent = `Theme: ${name}`;
  localStorage.setItem("sweeper:theme", name);
}

function listen() {
  followPointers();
  for (const button of byId("answers").querySelectorAll("button")) button.addEventListener("click", () => vote(button.dataset.answer ?? ""));
  document.addEventListener("keydown", handleKey);
  undoButton.addEventListener("click", undo);
  byId("zoom").addEventListener("click", () => panZoom.toggleActualSize());
  byId("again").addEventListener("click", () => {
    again = true;
    request("next", {});
  });
  byId("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(localStorage.getItem("sweeper:theme") ?? "auto") + 1) % 3]));
  byId("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = nameField.value.trim();
    if (name === "") return;
    VoteRequest.keepName(name);
    begin(name);
  });
}

async function start() {
  setTheme(localStorage.getItem("sweeper:theme") ?? "auto");
  listen();
  /** @type {VoteStart} */
  const about = await VoteRequest.send("start", null, report);
  document.title = `${about.experiment}: sweeper vote`;
  if (about.voter !== null) begin(about.voter);
  else {
    show("name-form");
    nameField.value = VoteRequest.readName();
    nameField.focus();
  }
}

start();
