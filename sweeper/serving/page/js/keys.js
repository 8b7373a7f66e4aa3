// The keys of a page: what each does, and the dialog that lists them. The list has the keys of what the page has shown.

import { el } from "./dom.js";

/**
 * @typedef {[keys: string, words: string, act: (key: string, event: KeyboardEvent) => unknown]} Binding
 *   The names of its keys have spaces between them; a letter is lower case, the space bar is `Space`. A key for which `act`
 *   returns false is left to others.
 */

/** @type {Record<string, [down: number, across: number]>} */
export const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
/** @type {Map<string, Binding[]>} by title, the latest at the end */
const groups = new Map();
/** @type {Record<string, string>} */
const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };

/**
 * Let keys act on an element and what is inside of it, but not while one types there.
 * @param {EventTarget} node
 * @param {string} title of the keys in the list; "" leaves them out
 * @param {Binding[]} bindings
 * @param {(event: KeyboardEvent) => boolean} [isOwn] whether a press belongs to the element
 */
export function bind(node, title, bindings, isOwn = () => true) {
  groups.delete(title);
  if (title) groups.set(title, bindings);
  node.addEventListener("keydown", (event) => {
    if (!(event instanceof KeyboardEvent) || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("#keys[open]") !== null || !isOwn(event)) return; // nothing acts behind the list
    const key = event.key === " " ? "Space" : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const typed = key === "Space" ? "input, textarea, select, button, summary, a" : "input, textarea, select";
    if (event.target instanceof Element && event.target.matches(typed)) return;
    if (bindings.some(([keys, , act]) => keys.split(" ").includes(key) && act(key, event) !== false)) event.preventDefault();
  });
}

/** Press the visible button in an element that a key stands for; false if it has none. @param {ParentNode} host @param {string} key */
export function press(host, key) {
  const button = host.querySelector(`:not([hidden]) > [data-key="${CSS.escape(key)}"]:not([hidden])`);
  if (button instanceof HTMLElement) button.click();
  return button !== null;
}

/** Open the list. */
export function open() {
  const close = el("button", { "aria-label": "Close", onclick: () => dialog.close() }, "✕");
  const sections = [...groups].reverse().map(([title, bindings]) =>
    el("section", {}, el("h2", {}, title), el("dl", {}, bindings.map(([keys, words]) => [el("dt", {}, keys.split(" ").map((key) => el("kbd", {}, SIGNS[key] ?? (key.length === 1 ? key.toUpperCase() : key)))), el("dd", {}, words)]))),
  );
  const dialog = el("dialog", { id: "keys", "aria-label": "Keys", tabindex: -1, onclose: () => dialog.remove() }, el("header", {}, el("h1", {}, "Keys"), close), sections);
  document.body.append(dialog);
  dialog.showModal();
  dialog.focus(); // not the button, whose ring would be the first thing to see
}
