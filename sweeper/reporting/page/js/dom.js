// Making elements. Text always goes in as text: nothing in this page parses markup.
"use strict";

(function (sweeper) {
  /** An element with attributes (`class`, `aria-*`, ...), listeners (`onclick`: a function) and children. */
  function el(tag, attributes = {}, ...children) {
    return fill(document.createElement(tag), attributes, children);
  }

  function svg(tag, attributes = {}, ...children) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  }

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  let fields = 0;

  /** Make anew what is in `host`: the focus then goes to what has the `data-keep` of the element that had it. */
  function keepingFocus(host, redraw) {
    const kept = host.contains(document.activeElement) ? document.activeElement.dataset.keep : undefined;
    redraw();
    if (kept !== undefined) host.querySelector(`[data-keep="${CSS.escape(kept)}"]`)?.focus();
  }

  /** A control with its visible label beside it. */
  function field(label, control, more = "") {
    control.id = `field-${++fields}`;
    control.dataset.keep ??= label;
    return el("div", { class: `field ${more}` }, el("label", { for: control.id }, label), control);
  }

  /** A menu; `options` are [value, text]. */
  function menu(options, chosen, change) {
    const select = el("select", { onchange: () => change(select.value) });
    for (const [value, text] of options) select.append(el("option", { value }, text));
    select.value = chosen;
    return select;
  }

  /** Tell a person who listens, and one who looks, what just happened. */
  let quiet = 0;
  function say(text) {
    const said = document.getElementById("said");
    said.textContent = text;
    said.classList.add("shown");
    clearTimeout(quiet);
    quiet = setTimeout(() => said.classList.remove("shown"), Math.max(3000, text.length * 60)); // as long as it takes to read
  }

  /** Offer a text as a file; works from file:// too. */
  function save(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  async function copy(text, what) {
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
    say(`${what} copied`);
  }

  sweeper.dom = { el, svg, field, keepingFocus, menu, say, save, copy };
})((globalThis.sweeper ??= {}));
