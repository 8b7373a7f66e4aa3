// @ts-check
// The tab of the sidebar: the page of an open sweep, which is the editor, then the live grid.

import { makeButton } from "./command_dialog.js";
import { ask, toOwnHost } from "./routes.js";

export class Sidebar {
  /** @param {() => void} sweep opens the workflow of ComfyUI's page */
  constructor(sweep) {
    this._sweep = sweep;
    /** @type {HTMLElement | null} */
    this._element = null;
    this._url = ""; // of the sweep that is shown
    // ComfyUI's option --disable-api-nodes forbids frames of other ports.
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => {
      if (effectiveDirective === "frame-src" && this._url.startsWith(blockedURI)) this._replaceFrame();
    });
  }

  /**
   * Show another sweep, now or when the tab is opened.
   * @param {string} url
   */
  show(url) {
    this._url = url;
    if (this._element?.isConnected) void this.render(this._element);
  }

  /** @param {HTMLElement} element */
  async render(element) {
    this._element = element;
    element.style.cssText = "display: flex; flex-direction: column; height: 100%";
    try {
      this._fill(element, (await ask("pages", {})).pages);
    } catch (error) {
      element.replaceChildren(makeText(error instanceof Error ? error.message : String(error)));
    }
  }

  /**
   * @param {HTMLElement} element
   * @param {{ url: string, title: string }[]} pages
   */
  _fill(element, pages) {
    if (!pages.length) {
      const hint = "No sweep is open. Right-click a widget, such as steps, and choose Sweep; or sweep this workflow:";
      const button = makeButton("Sweep...", this._sweep);
      button.style.margin = "0 1rem";
      button.style.alignSelf = "start";
      element.replaceChildren(makeText(hint), button);
      return;
    }
    const urls = pages.map(({ url }) => toOwnHost(url));
    if (!urls.includes(this._url)) this._url = /** @type {string} */ (urls.at(-1));
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", "Open sweeps");
    choice.append(...pages.map(({ title }, index) => new Option(title, urls[index], false, urls[index] === this._url)));
    choice.style.cssText = "flex: 1; min-width: 0; background: var(--comfy-input-bg); color: var(--input-text)";
    choice.addEventListener("change", () => this.show(choice.value));
    const bar = document.createElement("div");
    bar.style.cssText = "display: flex; gap: 0.5rem; align-items: center; padding: 0.5rem";
    bar.append(choice, makeLink("Open in a tab", this._url), makeButton("End", () => this._end(pages[choice.selectedIndex].url)));
    const frame = document.createElement("iframe");
    frame.title = "Sweep";
    frame.src = this._url;
    frame.style.cssText = "flex: 1; width: 100%; border: 0";
    element.replaceChildren(bar, frame);
  }

  /** @param {string} url as the pack knows it */
  async _end(url) {
    if (!confirm("End this sweep's page? A run in it stops; what is done stays, and Sweep... continues it.")) return;
    await ask("end", { url }).catch(() => undefined); // it has ended already
    if (this._element) await this.render(this._element);
  }

  _replaceFrame() {
    this._element
      ?.querySelector("iframe")
      ?.replaceWith(makeText("ComfyUI was started with an option that forbids frames here. Open the sweep in a tab."));
  }
}

/** @param {string} text */
function makeText(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  paragraph.style.cssText = "margin: 1rem; color: var(--input-text)";
  return paragraph;
}

/**
 * @param {string} label
 * @param {string} url
 */
function makeLink(label, url) {
  const link = document.createElement("a");
  link.textContent = label;
  link.href = url;
  link.target = "_blank";
  link.rel = "noopener";
  link.style.cssText = "white-space: nowrap; color: inherit; text-decoration: underline";
  return link;
}
