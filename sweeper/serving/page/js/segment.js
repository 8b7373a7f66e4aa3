// Small parts of pages: buttons of which one is pressed, the theme of a page, which are such buttons, and an interval. Every page
// of an address has the same theme.

import { el } from "./dom.js";

/** @type {Record<string, string>} */
const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const KEY = "sweeper:theme";

/**
 * Make buttons of which one is pressed.
 * @param {string} label @param {Record<string, string>} options the text of each button by its name
 * @param {(name: string) => void} onChoose
 */
export function createSegment(label, options, onChoose) {
  const buttons = Object.entries(options).map(([name, text]) => el("button", { "data-keep": `${label} ${name}`, onclick: () => onChoose(name) }, text));
  const node = el("div", { class: "segment", role: "group", "aria-label": label }, buttons);
  /** @param {string} chosen */
  const choose = (chosen) => Object.keys(options).forEach((name, index) => buttons[index].setAttribute("aria-pressed", String(name === chosen)));
  return { node, choose };
}

/** A mean on a line with its interval, as shares of the line from 0 to 1. @param {number} low @param {number} mean @param {number} high */
export function createInterval(low, mean, high) {
  const [reach, dot] = [el("i", { class: "reach" }), el("i", { class: "dot" })];
  reach.style.cssText = `left:${low * 100}%;width:${(high - low) * 100}%`;
  dot.style.left = `${mean * 100}%`;
  return el("span", { class: "estimate", "aria-hidden": "true" }, reach, dot);
}

/** The choice of the theme, which applies at once, and is remembered if the browser allows it. */
export function createSwitch() {
  const { node, choose } = createSegment("Theme", THEMES, (name) => apply(name, true));

  /** @param {string} chosen @param {boolean} isKept */
  function apply(chosen, isKept) {
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    choose(chosen);
    try {
      if (isKept) localStorage.setItem(KEY, chosen);
    } catch {
      /* then it lasts as long as the page */
    }
  }

  let saved = null;
  try {
    saved = localStorage.getItem(KEY);
  } catch {
    /* then it follows the system */
  }
  apply(saved !== null && Object.hasOwn(THEMES, saved) ? saved : "auto", false);
  return node;
}
