// The vote page: shows a pair, takes the answer by key, mouse or touch, and asks for the next pair.

import { byId, el, postJson } from "../../../serving/page/js/dom.js";
import * as Keys from "../../../serving/page/js/keys.js";
import { PanZoom } from "../../../serving/page/js/pan_zoom.js";
import { createInterval, createSwitch } from "../../../serving/page/js/segment.js";

const pictures = byId("pictures");
const frames = [...pictures.querySelectorAll("button")];
const undoButton = /** @type {HTMLButtonElement} */ (byId("undo"));
const finishButton = /** @type {HTMLButtonElement} */ (byId("finish"));
const nameField = /** @type {HTMLInputElement} */ (byId("name"));
const SWIPE = 60; // pixels that a finger moves, at least
const DRAG = 6; // pixels after which a press is not a click any more
const GAP = 8; // pixels between the pictures; css/page.css has the same
/**
 * The answers to a pair that lies side by side, and to one of which one is above: arrows point at what they choose.
 * @type {Record<"beside" | "stacked", Record<string, [key: string, text: string]>>}
 */
const PLACES = {
  beside: { left: ["ArrowLeft", "← Left"], tie: ["ArrowUp", "↑ Equal"], bad: ["ArrowDown", "↓ Both bad"], right: ["ArrowRight", "Right →"] },
  stacked: { left: ["ArrowUp", "↑ Upper"], tie: ["ArrowLeft", "← Equal"], bad: ["ArrowRight", "Both bad →"], right: ["ArrowDown", "↓ Lower"] },
};
const SECONDS_PER_PAIR = 4; // about what people need

const panZoom = new PanZoom(pictures, () => byId("zoom").setAttribute("aria-pressed", String(pictures.classList.contains("magnified"))));
let voter = "";
let busy = true;
let again = false;
/** @type {"beside" | "stacked"} */
let place = "beside";
/** @type {VoteStart | null} */
let about = null;
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

/** Send a request and show the answer. One at a time. @param {string} path @param {object} body */
async function request(path, body) {
  busy = true;
  pictures.setAttribute("aria-busy", "true");
  undoButton.disabled = true;
  try {
    state = await sendRequest(path, { voter, again, ...body }, report);
    forgetVote();
  } catch (refusal) {
    forgetVote(); // sent again, it would be refused again
    state = await sendRequest("next", { voter, again }, report);
    report(/** @type {Error} */ (refusal).message);
  }
  await showState();
}

async function showState() {
  if (state === null) return;
  const { pair, own, pairs } = state;
  byId("progress").textContent = describeProgress(state);
  const bar = /** @type {HTMLProgressElement} */ (byId("bar"));
  bar.hidden = false;
  [bar.value, bar.max] = [own, Math.max(1, pairs)];
  if (pair === null) await finish();
  else if (!(await showPair(pair))) {
    request("next", { broken: pair.id });
    return;
  }
  undoButton.disabled = state.last === null;
  finishButton.disabled = pair === null;
  pictures.removeAttribute("aria-busy");
  busy = false;
}

/** @param {VoteState} now */
function describeProgress({ own, pairs, needed }) {
  return needed === null ? `${own} of ${pairs}` : `${own} of ${pairs}; ${describeNeeded(needed)}`;
}

/** Thank the voter, and show the ranking unless it is hidden. */
async function finish() {
  if (state === null || about === null) return;
  const { own, pairs, votes, settled, comparisons } = state;
  byId("thanks").textContent = `Thank you. You answered ${own === pairs ? `all ${pairs}` : `${own} of ${pairs}`} pairs.`;
  byId("again").textContent = own === pairs ? "Answer them again" : "Go on";
  const host = byId("ranking");
  const isRanked = !about.hides_ranking && own > 0;
  host.replaceChildren(...(isRanked ? [el("p", {}, "Ranking the values…")] : []));
  show("done");
  if (!isRanked) return;
  /** @type {{rankings: Ranking[], report: string | null}} */
  const { rankings, report: address } = await sendRequest("ranking", { voter }, report);
  const told = settled === 0 ? "too few to tell any two values apart" : `enough to tell ${settled} of ${comparisons} pairs of values apart`;
  const link = el("a", {}, "The report");
  // At the host by which this page was reached, because the server may have other names.
  if (address !== null) link.setAttribute("href", Object.assign(new URL(address), { hostname: location.hostname }).href);
  const note = el("p", {}, `All ${votes} votes so far: ${told}. `, link, ` has all pictures${address === null ? `: sweeper view ${about.results}` : "."}`);
  host.replaceChildren(...rankings.flatMap(makeRanking), note);
}

/** @param {Ranking} ranking */
function makeRanking({ axis, values, words }) {
  const rows = values.map(({ value, share, low, high, won, tied, lost, undecided }) => {
    const row = el("tr", {}, el("th", {}, value), el("td", {}, `${toPercent(share)} %`), el("td", { title: `95 % interval: ${toPercent(low)} to ${toPercent(high)} %` }, createInterval(low, share, high)));
    row.append(el("td", {}, `${won} of ${won + tied + lost} won${tied ? `, ${tied} equal` : ""}`), el("td", {}, undecided ? "undecided" : ""));
    row.classList.toggle("is-undecided", undecided);
    return row;
  });
  return [el("h2", {}, axis), el("table", {}, ...rows), ...words.map((text) => el("p", {}, text))];
}

/** @param {number} share 0 to 1 */
const toPercent = (share) => Math.round(share * 100);

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
    image.alt = index === 0 ? "one picture" : "the other picture";
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
  arrange();
  byId("prompts").textContent = pair.prompts.map(([name, text]) => `${name}: ${text}`).join("  ·  ");
  document.body.dataset.pair = pair.id;
  return true;
}

/** Lay the pictures side by side or one above the other, whichever shows more of them, and name the answers by place. */
function arrange() {
  const [first] = /** @type {HTMLImageElement[]} */ ([...pictures.querySelectorAll("img")]);
  const { clientWidth: width, clientHeight: height } = pictures;
  if (first === undefined || width === 0) return;
  /** @param {number} across @param {number} down pixels of the room for one */
  const scaleIn = (across, down) => Math.min(across / first.naturalWidth, down / first.naturalHeight);
  place = scaleIn(width, (height - GAP) / 2) > scaleIn((width - GAP) / 2, height) ? "stacked" : "beside";
  pictures.classList.toggle("stacked", place === "stacked");
  for (const button of byId("answers").querySelectorAll("button")) button.textContent = PLACES[place][button.dataset.answer ?? ""][1];
  const names = place === "stacked" ? ["upper", "lower"] : ["left", "right"];
  frames.forEach((frame, index) => frame.setAttribute("aria-label", `The ${names[index]} picture is better`));
}

/** Whether the server responds; waits until it does. */
async function isServing() {
  let waited = false;
  await sendRequest("start", null, (text) => {
    waited ||= text !== "";
    report(text);
  });
  return !waited;
}

/** @param {string} answer */
function vote(answer) {
  if (busy || !state?.pair) return;
  const given = { voter, vote: state.pair.id, answer };
  localStorage.setItem(UNSENT, JSON.stringify(given)); // until `forgetVote`
  for (const frame of frames) frame.classList.toggle("chosen", frame.dataset.answer === answer);
  request("next", given);
}

function undo() {
  if (!busy && state?.last) request("undo", { vote: state.last });
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
      const isAlong = Math.abs(dx) > Math.abs(dy) === (place === "beside");
      const isBack = (Math.abs(dx) > Math.abs(dy) ? dx : dy) < 0;
      vote(isAlong ? (isBack ? "left" : "right") : isBack ? "tie" : "bad");
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
  const unsent = readUnsent(voter);
  await request("next", unsent ?? {});
  if (!byId("voting").hidden) byId("main").focus();
}

function listen() {
  followPointers();
  for (const button of byId("answers").querySelectorAll("button")) button.addEventListener("click", () => vote(button.dataset.answer ?? ""));
  const voteByKey = (/** @type {string} */ key, /** @type {KeyboardEvent} */ { repeat }) =>
    repeat || vote(key === "Space" ? "tie" : (Object.keys(PLACES[place]).find((name) => PLACES[place][name][0] === key) ?? ""));
  Keys.bind(document, "Which picture is better?", [
    ["ArrowLeft ArrowRight ArrowUp ArrowDown", "answer as the buttons show", voteByKey],
    ["Space", "equal", voteByKey],
    ["u Backspace", "undo", undo],
    ["z + = -", PanZoom.HELP, (key) => panZoom.onKey(key)],
    ["touch", "tap the better picture or swipe towards it; two fingers zoom", () => false],
    ["?", "these keys", Keys.open],
  ]);
  byId("keys-button").addEventListener("click", Keys.open);
  undoButton.addEventListener("click", undo);
  byId("zoom").addEventListener("click", () => panZoom.toggleActualSize());
  byId("again").addEventListener("click", () => {
    again ||= state?.pair === null;
    request("next", {});
  });
  finishButton.addEventListener("click", () => {
    if (!busy) finish();
  });
  addEventListener("resize", arrange);
  byId("theme").append(createSwitch());
  byId("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = nameField.value.trim();
    if (name === "") return;
    localStorage.setItem(NAME, name);
    begin(name);
  });
}

async function start() {
  listen();
  about = /** @type {VoteStart} */ (await sendRequest("start", null, report));
  const { experiment, pairs } = about;
  document.title = `${experiment} · sweeper vote`;
  byId("experiment").textContent = experiment;
  const minutes = Math.max(1, Math.round((pairs * SECONDS_PER_PAIR) / 60));
  byId("about").textContent = `Two pictures, one difference: say which is better. ${pairs} pairs, about ${minutes} minute${minutes === 1 ? "" : "s"}. You can stop at any time.`;
  if (about.voter !== null) begin(about.voter);
  else {
    show("name-form");
    nameField.value = localStorage.getItem(NAME) ?? "";
    nameField.focus();
  }
}

// --- requests to the server. An answer stays in the browser until the server has stored it, also over a reload.

/** @typedef {{id: string, prompts: [string, string][]}} VotePair */
/** @typedef {{pair: VotePair | null, last: string | null, own: number, pairs: number, votes: number, settled: number, comparisons: number, needed: number | null}} VoteState */
/** @typedef {{voter: string | null, experiment: string, results: string, axes: string[], pairs: number, hides_ranking: boolean}} VoteStart */
/** @typedef {{value: string, share: number, low: number, high: number, won: number, tied: number, lost: number, undecided: boolean}} RankedValue */
/** @typedef {{axis: string, votes: number, words: string[], values: RankedValue[]}} Ranking */

const UNSENT = "sweeper:unsent-vote";
const NAME = "sweeper:voter";

/**
 * Send a request until the server accepts or refuses it. Throws the server's reason if it refuses.
 * @param {string} path @param {object | null} body null: a GET request
 * @param {(text: string) => void} report shows why it takes long; an empty text when it does not any more
 */
async function sendRequest(path, body, report) {
  for (let pause = 250; ; pause = Math.min(pause * 2, 4000)) {
    let response = null;
    try {
      response = await (body === null ? fetch(path) : postJson(path, body));
    } catch {
      report("The server does not respond. Your vote is kept here and will be sent again.");
    }
    if (response?.status === 401) location.reload(); // to the login page
    if (response !== null) {
      const value = await response.json().catch(() => ({ problem: `The server responds with status ${response.status}` }));
      report(response.ok || response.status === 400 ? "" : `${value.problem}. Your vote is kept here and will be sent again.`);
      if (response.status === 400) throw new Error(value.problem);
      if (response.ok) return value;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Forget the answer that was kept until the server stored it. */
const forgetVote = () => localStorage.removeItem(UNSENT);

/** The answer of this voter that the server may not have stored. @param {string} voter @returns {{voter: string, vote: string, answer: string} | null} */
function readUnsent(voter) {
  const vote = JSON.parse(localStorage.getItem(UNSENT) ?? "null");
  return vote?.voter === voter ? vote : null;
}

start();
