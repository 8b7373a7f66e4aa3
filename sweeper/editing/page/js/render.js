// Shows a description of elements by changing only what differs, so that focus, caret, scrolling and typed text stay.

/** @typedef {{tag: string, attributes: Record<string, any>, children: (Item | string)[]}} Item an element to show */
/** @typedef {Item | string | number | null | undefined | boolean | Child[]} Child nothing is shown for null, undefined, true and false */
/** @typedef {(event: any) => void} Handler */
/** @typedef {{[name: string]: any, onclick?: Handler, oninput?: Handler, onchange?: Handler, onkeydown?: Handler}} Attributes */

const SVG = new Set(["svg", "path", "text"]);

/**
 * Describe an element. Children that are left out keep their place, so that their neighbours stay the same elements;
 * what may move has a `key`, which is unique among its neighbours.
 * @param {string} tag @param {Attributes} [attributes] `value`: see `setValue`
 * @param {Child[]} children @returns {Item}
 */
export function h(tag, attributes = {}, ...children) {
  const given = tag === "button" ? { type: "button", ...attributes } : attributes;
  const flat = /** @type {any[]} */ (/** @type {any} */ (children).flat(Infinity)).map((child) => (typeof child === "boolean" ? "" : (child ?? "")));
  return { tag, attributes: given, children: flat.map((child) => (typeof child === "object" ? child : String(child))) };
}

/** Show these children in an element. Focus stays where it was. @param {HTMLElement} host @param {Item[]} children */
export function show(host, children) {
  const focused = document.activeElement;
  patchChildren(host, children);
  if (focused instanceof HTMLElement && focused !== document.activeElement && host.contains(focused)) focused.focus(); // it was moved
}

/** @param {any} parent @param {(Item | string)[]} items */
function patchChildren(parent, items) {
  const keys = new Set(items.map((item) => (typeof item === "string" ? undefined : item.attributes.key)));
  /** @type {Map<any, any>} */
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    const key = node.shown?.attributes.key;
    if (key === undefined) continue;
    if (keys.has(key)) keyed.set(key, node);
    else node.remove();
  }
  let next = parent.firstChild;
  for (const item of items) {
    const key = typeof item === "string" ? undefined : item.attributes.key;
    const isFree = next !== null && next.shown?.attributes.key === undefined;
    const old = key === undefined ? (isFree ? next : null) : keyed.get(key);
    const node = patch(old ?? null, item);
    if (node === next) next = next.nextSibling;
    else if (old !== null && old === next) {
      next = next.nextSibling;
      old.replaceWith(node);
    } else parent.insertBefore(node, next);
  }
  while (parent.childNodes.length > items.length) parent.lastChild.remove();
}

/** Make `node` show the item, or make another one. @param {any} node @param {Item | string} item */
function patch(node, item) {
  if (typeof item === "string") {
    if (node?.nodeType !== Node.TEXT_NODE) return document.createTextNode(item);
    if (node.data !== item) node.data = item;
    return node;
  }
  const { tag, attributes, children } = item;
  if (node?.shown?.tag !== tag) {
    node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  }
  const before = node.shown?.attributes ?? {};
  for (const name of Object.keys(before)) if (!(name in attributes)) setAttribute(node, name, undefined);
  for (const [name, value] of Object.entries(attributes)) if (before[name] !== value) setAttribute(node, name, value);
  patchChildren(node, children);
  if (attributes.value !== undefined && "value" in node) setValue(node, before.value, String(attributes.value));
  node.shown = item;
  return node;
}

/** @param {any} node @param {string} name @param {any} value */
function setAttribute(node, name, value) {
  if (name === "key" || (name === "value" && node.tagName !== "OPTION")) return;
  if (name.startsWith("on")) node[name] = value && ((/** @type {Event} */ event) => void value(event)); // to return false would prevent the default
  else if (name === "checked" || name === "open") node[name] = value === true;
  else if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}

/** Write the value of a field, but never over what somebody types there, or typed wrongly. @param {any} node @param {any} before @param {string} value */
function setValue(node, before, value) {
  const isTyped = before !== undefined && node.value !== String(before);
  const isKept = node.getAttribute("aria-invalid") === "true" || node === document.activeElement;
  if (node.value !== value && !(isTyped && isKept)) node.value = value;
}
