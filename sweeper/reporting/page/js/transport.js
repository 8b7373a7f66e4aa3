// Bars that play: films and sounds by one clock for all of them, and the values of an axis in all cells.

import { el } from "../../../serving/page/js/dom.js";
import * as Layout from "./layout.js";
import * as ViewState from "./state.js";
/** @import { Axis } from "./columns.js" */
/** @import { Page } from "./main.js" */

/** @typedef {HTMLVideoElement | HTMLAudioElement} Player */

const FRAME = 1 / 24; // seconds of a step, until the film has shown how long its frames are
const MAX_DRIFT = 0.08; // seconds that a film may be away from the clock while it plays
const VALUE_PERIOD = 700; // milliseconds that each value of an axis is shown

/** @param {string} label @param {number} step @param {() => void} toggle @param {(value: number) => void} seek @param {(Node | string)[]} more controls */
function createBar(label, step, toggle, seek, ...more) {
  const range = el("input", { type: "range", min: 0, step, "aria-label": label, oninput: () => seek(Number(range.value)) });
  /** @param {string} text @param {string} name @param {string} key @param {() => void} onclick */
  const makeButton = (text, name, key, onclick) => el("button", { "aria-label": name, title: `${name}: key ${key}`, "data-key": key, onclick }, text);
  const move = (/** @type {number} */ sign) => seek(Number(range.value) + sign * Number(range.step));
  const play = makeButton("▶", "Play", "Space", toggle);
  const words = el("output");
  const node = el("div", { class: "transport", role: "group", "aria-label": label }, play, makeButton("‹", "One step back", ",", () => move(-1)), makeButton("›", "One step on", ".", () => move(1)), range, words, more);
  /** @param {number} value @param {number} max @param {string} text @param {boolean} isPlaying @param {number} [newStep] */
  function show(value, max, text, isPlaying, newStep = step) {
    range.step = String(newStep);
    range.max = String(max);
    range.value = String(value);
    words.textContent = text;
    play.textContent = isPlaying ? "❚❚" : "▶";
    play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  }
  return { node, move, show };
}

/** @param {Player} player */
const isSound = (player) => player instanceof HTMLAudioElement;

/** @type {WeakMap<Player, number>} seconds between two frames, as far as the film has shown them */
const frameTimes = new WeakMap();

/** Find out how long the frames of a film are: browsers tell only when one is shown. @param {Player} player */
function watchFrames(player) {
  if (frameTimes.has(player) || !(player instanceof HTMLVideoElement) || !("requestVideoFrameCallback" in player)) return;
  frameTimes.set(player, FRAME);
  let [last, least] = [NaN, Infinity];
  const see = (/** @type {number} */ _, /** @type {{mediaTime: number}} */ { mediaTime }) => {
    const time = Math.abs(mediaTime - last); // of several frames, if some were not shown
    if (time > 0.001 && time < least) frameTimes.set(player, (least = time));
    last = mediaTime;
    player.requestVideoFrameCallback(see);
  };
  player.requestVideoFrameCallback(see);
}

/**
 * One clock for all players: the longest one sets the time, and the others follow it.
 * One of them can be heard: at first the sound that `pick` chooses, and no film.
 * @param {() => Player[]} listPlayers those in view now
 * @param {(players: Player[]) => Player | undefined} pick
 */
export function createClock(listPlayers, pick) {
  let [time, isPlaying, frame, leader] = [0, false, 0, /** @type {Player | undefined} */ (undefined)];
  let heard = pick(listPlayers());
  const loop = el("button", { "aria-pressed": "true", onclick: () => loop.setAttribute("aria-pressed", String(loop.ariaPressed === "false")) }, "Loop");
  const sound = el("button", { title: "Which one is heard: key M", "data-key": "m", onclick: switchSound });
  const bar = createBar("Time of all films and sounds", FRAME, toggle, seek, loop, sound);

  function toggle() {
    isPlaying = !isPlaying;
    heard ??= pick(listPlayers());
    if (isPlaying && leader?.ended) leader.currentTime = time = 0;
    sync();
  }

  /** @param {number} seconds */
  function seek(seconds) {
    time = Math.min(Math.max(0, seconds), leader?.duration || 0);
    if (leader) leader.currentTime = time;
    sync();
  }

  function switchSound() {
    const players = listPlayers();
    hear(players[players.findIndex((player) => player === heard) + 1] ?? players.find(isSound));
  }

  /** @param {Player | undefined} player */
  function hear(player) {
    heard = player;
    sync();
  }

  /** Bring all players to the time of the clock; while they play, again with each frame of the screen. */
  function sync() {
    cancelAnimationFrame(frame);
    const loops = loop.ariaPressed === "true";
    const players = listPlayers().filter((player) => player.error === null);
    const longest = players.reduce((/** @type {Player | undefined} */ best, player) => ((player.duration || 0) > (best?.duration || 0) ? player : (best ?? player)), undefined);
    if (longest !== leader && longest) longest.currentTime = time; // a view was scrolled, or its length became known
    leader = longest;
    if (leader && isPlaying) time = leader.currentTime;
    if (!loops && leader?.ended) isPlaying = false;
    for (const player of players) follow(player, time, leader, { isPlaying, loops, isHeard: player === heard });
    const length = leader?.duration || 0;
    const index = players.findIndex((player) => player === heard);
    sound.textContent = index < 0 ? "Sound: off" : players.length > 1 ? `Sound: ${index + 1} of ${players.length}` : "Sound: on";
    bar.show(time, length, length ? `${time.toFixed(2)} of ${length.toFixed(2)} s` : "", isPlaying, leader && frameTimes.get(leader));
    if (isPlaying) frame = requestAnimationFrame(sync);
  }

  for (const player of listPlayers()) player.addEventListener("loadedmetadata", sync);
  sync();
  return { node: bar.node, sound, hear, stop: () => isPlaying && toggle() };
}

/**
 * Bring a player to the time of the clock.
 * @param {Player} player @param {number} time seconds @param {Player | undefined} leader that sets the time
 * @param {{isPlaying: boolean, loops: boolean, isHeard: boolean}} state
 */
function follow(player, time, leader, { isPlaying, loops, isHeard }) {
  watchFrames(player);
  player.loop = loops && player === leader;
  player.muted = !isHeard;
  player.parentElement?.style.setProperty("--at", `${(100 * time) / (player.duration || leader?.duration || 1)}%`);
  player.parentElement?.classList.toggle("heard", isHeard);
  if (player.preload === "none" && isSound(player) && !isHeard && player !== leader) return player.pause(); // it need not be loaded
  const isOver = time >= player.duration; // it waits at its end for the longer ones
  if (player !== leader && !isOver && Math.abs(player.currentTime - time) > (isPlaying ? MAX_DRIFT : 0.001)) player.currentTime = time;
  if (isPlaying && player.paused && !isOver) player.play().catch(() => {});
  else if (!isPlaying && !player.paused) player.pause();
}

/** An axis as time: all cells of the grid show the same value of it, and another one when the bar plays or moves. @param {Page} page */
export function createScrubber(page) {
  let timer = 0;
  const close = el("button", { "aria-label": "Do not play an axis", onclick: () => page.update(setTime(page.getState(), undefined)) }, "✕");
  const bar = createBar("Value of the axis that plays", 1, () => page.update({ play: page.getState().play ? "" : "on" }, { replace: true }), seek, close);
  const findAxis = ({ time } = page.getState()) => page.dataset.axes.find(({ name }) => name === time);
  /** @param {Axis} axis */
  const listCodes = (axis) => Layout.orderCodes(axis, page.getState()).filter((code) => !page.getState().hidden[axis.name]?.includes(code));

  /** @param {number} index beyond the last value it begins again */
  function seek(index) {
    const axis = findAxis();
    const codes = axis ? listCodes(axis) : [];
    if (axis && codes.length > 0) page.update({ pins: ViewState.withEntry(page.getState().pins, axis.name, codes[(index + codes.length) % codes.length]) }, { replace: true });
  }

  /** @param {ViewState.State} state */
  function show(state) {
    const axis = state.view === "grid" ? findAxis(state) : undefined;
    bar.node.hidden = axis === undefined;
    const isPlaying = axis !== undefined && state.play !== "" && state.trial === "";
    if (isPlaying) timer ||= setInterval(() => bar.move(1), VALUE_PERIOD);
    else {
      clearInterval(timer);
      timer = 0;
    }
    if (axis === undefined) return;
    const [codes, code] = [listCodes(axis), state.pins[axis.name]];
    bar.show(codes.indexOf(code), codes.length - 1, `${axis.name}: ${code === undefined ? "" : axis.labelOf(code)}`, isPlaying);
  }

  return { node: bar.node, show };
}

/**
 * The change that makes an axis the time, or none. It leaves its rows or columns, because a cell shows one value of it.
 * @param {ViewState.State} state @param {Axis | undefined} axis @returns {Partial<ViewState.State>}
 */
export function setTime(state, axis) {
  const free = ViewState.withEntry(state.pins, state.time, undefined);
  if (axis === undefined) return { time: "", play: "", pins: free };
  const directions = Object.fromEntries(Layout.DIRECTIONS.filter((direction) => state[direction] === axis.name).map((direction) => [direction, ""]));
  const play = matchMedia("(prefers-reduced-motion: reduce)").matches ? "" : "on";
  return { ...directions, time: axis.name, play, view: "grid", pins: ViewState.withEntry(free, axis.name, Layout.orderCodes(axis, state)[0]) };
}

/** The films and sounds of the grid, which play all together; one hears the sound below the pointer. @param {Page} page */
export function createGridClock(page) {
  const clock = createClock(() => [...document.querySelectorAll(/** @type {"video"} */ ("#view video, #view audio"))], (players) => players.find(isSound));
  const [kinds, title] = [new Set(), el("span", { class: "dim" })];
  clock.node.prepend(title);
  document.addEventListener("pointerover", ({ target }) => {
    const player = target instanceof Element && target.closest("#view .cell")?.querySelector("audio");
    if (player) clock.hear(player);
  });
  /** @param {ViewState.State} state */
  function show({ view, trial }) {
    const { columns, decoded } = page.dataset.fileList; // a run may still add some
    const text = JSON.stringify([columns.kind, decoded.map((file) => file?.kind)]);
    for (const [kind, name] of [["video", "films"], ["audio", "sounds"]]) if (text.includes(`"${kind}"`)) kinds.add(name);
    title.textContent = `All ${[...kinds].join(" and ")}`;
    clock.sound.hidden = !kinds.has("sounds"); // few films have a sound
    clock.node.hidden = !["grid", "gallery"].includes(view) || kinds.size === 0;
    if (clock.node.hidden || trial !== "") clock.stop();
  }
  return { node: clock.node, show };
}
