// Helpers that make DOM elements. Text is always inserted as text: this page never parses markup.

/** @typedef {Node | string | null | undefined | false} Child what `el` takes as a child; nothing is shown for null, undefined and false */
/** @typedef {Child | Child[] | Child[][]} Children */

/**
 * Make an element with attributes (`class`, `aria-*`, ...), listeners (`onclick`: a function) and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [attributes] null, undefined and false leave an attribute out
 * @param {Children[]} children @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), tag === "button" ? { type: "button", ...attributes } : attributes, children);
}

/**
 * Make an SVG element; the parameters are those of `el`.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, any>} [attributes] @param {Children[]} children @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/**
 * @template {Element} E
 * @param {E} node @param {Record<string, any>} attributes @param {any[]} children @returns {E}
 */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** The element of index.html with this id. @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const node = document.getElementById(id);
  if (node === null) throw new Error(`index.html has no element #${id}`);
  return node;
}

/**
 * Rebuild the content of `host` and give the focus back to the element with the same `data-keep` as before.
 * @param {HTMLElement} host @param {() => void} redraw
 */
export function redrawKeepingFocus(host, redraw) {
  const key = focusKey(host);
  redraw();
  focusByKey(host, key);
}

/** The `data-keep` of the focused element inside `host`. @param {Node} host @returns {string | undefined} */
export function focusKey(host) {
  const focused = document.activeElement;
  return isFocusable(focused) && host.contains(focused) ? focused.dataset.keep : undefined;
}

/** @param {ParentNode} host @param {string | undefined} key */
export function focusByKey(host, key) {
  const node = key === undefined ? null : host.querySelector(`[data-keep="${CSS.escape(key)}"]`);
  if (isFocusable(node)) node.focus();
}

/** @param {Element | null} node @returns {node is HTMLElement | SVGElement} */
const isFocusable = (node) => node instanceof HTMLElement || node instanceof SVGElement;

/** Send a value to the server as JSON. @param {string} path @param {any} value @param {RequestInit} [more] options */
export const postJson = (path, value, more = {}) =>
  fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value), ...more });

/** @type {number | undefined} */
let scrollbar;

/** The pixels that a scroll bar takes from what it scrolls; 0 if it lies above. */
export function measureScrollbar() {
  if (scrollbar === undefined) {
    const node = document.body.appendChild(el("div"));
    node.style.cssText = "position:fixed;left:-99px;width:50px;overflow:scroll";
    scrollbar = node.offsetWidth - node.clientWidth;
    node.remove();
  }
  return scrollbar;
}

/** A button with a text. @param {string} text @param {() => void} onclick @param {Record<string, any>} [more] attributes */
export const makeButton = (text, onclick, more = {}) => el("button", { onclick, ...more }, text);

let fieldCount = 0;

/**
 * Put a visible label beside a control.
 * @param {string} label @param {HTMLInputElement | HTMLSelectElement} control
 * @param {string} [classes] more classes of the element around both
 */
export function makeField(label, control, classes = "") {
  control.id = `field-${++fieldCount}`;
  control.dataset.keep ??= label;
  return el("div", { class: `field ${classes}` }, el("label", { for: control.id }, label), control);
}

/** @param {string[][]} options [value, text] of each @param {string} selected @param {(value: string) => void} onChange */
export function makeMenu(options, selected, onChange) {
  const select = el("select", { onchange: () => onChange(select.value) });
  for (const [value, text] of options) select.append(el("option", { value }, text));
  select.value = selected;
  return select;
}

/** A button that opens a panel below it. A press elsewhere or Escape closes the panel. @param {string} text of the button @param {Children[]} content */
export function makePanel(text, ...content) {
  const panel = el("div", { class: "menu-panel", role: "group", "aria-label": text, hidden: true }, ...content);
  const button = el("button", { "aria-expanded": "false", "data-keep": text, onclick: () => toggle(panel.hidden === true) }, `${text} ▾`);
  const node = el("div", { class: "menu" }, button, panel);

  /** @param {boolean} isOpen */
  function toggle(isOpen) {
    panel.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    // It is as wide as its content, and grows to the side that has room.
    if (isOpen) panel.classList.toggle("rightwards", node.getBoundingClientRect().right < panel.offsetWidth + 8);
  }

  document.addEventListener("pointerdown", (event) => {
    if (!node.contains(/** @type {Node} */ (event.target))) toggle(false);
  });
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    event.preventDefault(); // it means nothing else then
    toggle(false);
    button.focus();
  });
  return node;
}

let hideTimer = 0;

/**
 * Show a message at the bottom of the page for some seconds; screen readers read it aloud. An open dialog shows it
 * itself, because it covers the page and nothing outside of it is read.
 * @param {string} text
 */
export function announce(text) {
  const message = byId("message");
  const host = document.querySelector("dialog[open]") ?? document.body;
  if (message.parentElement !== host) host.append(message);
  message.textContent = text;
  message.classList.add("shown");
  clearTimeout(hideTimer);
  hideTimer = setTimeout(() => message.classList.remove("shown"), Math.max(3000, text.length * 60)); // long enough to read it
}

/** Offer a text as a download; this also works from file://. @param {string} name @param {string} type @param {string} text */
export function saveFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Copy a text to the clipboard and announce it as `what`. @param {string} text @param {string} what */
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "offscreen", readonly: true });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy"); // the only way on a page without clipboard permission
    area.remove();
  }
  announce(`${what} copied`);
}

/** The URL of a file of the report; its path may contain any character. A page in a notebook has the files inside. @param {string} path */
export const toUrl = (path) => /** @type {any} */ (globalThis).sweeper?.inline?.[path] ?? path.split("/").map(encodeURIComponent).join("/");
