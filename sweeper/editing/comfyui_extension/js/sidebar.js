// @ts-check
// The tab of the sidebar: the page of an open sweep, which is the editor, then the live grid.

import { ask, make, makeButton, toOwnHost } from "./parts.js";

const CHOICE = "flex: 1; min-width: 0; background: var(--comfy-input-bg); color: var(--input-text)";

export class Sidebar {
  /** @param {() => void} sweep opens the workflow of ComfyUI's page */
  constructor(sweep) {
    this._sweep = sweep;
    /** @type {HTMLElement | null} */
    this._element = null;
    this._url = ""; // of the sweep that is shown
    // ComfyUI's option --disable-api-nodes forbids frames of other ports.
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => {
      if (effectiveDirective !== "frame-src" || !this._url.startsWith(blockedURI)) return;
      const text = "ComfyUI was started with an option that forbids frames here. Open the sweep in a tab.";
      this._element?.querySelector("iframe")?.replaceWith(makeText(text));
    });
  }

  /** Show another sweep, now or when the tab is opened. @param {string} url */
  show(url) {
    this._url = url;
    if (this._element?.isConnected) void this.render(this._element);
  }

  /** @param {HTMLElement} element */
  async render(element) {
    this._element = element;
    element.style.cssText = "display: flex; flex-direction: column; height: 100%";
    try {
      element.replaceChildren(...this._makeContent((await ask("pages", {})).pages));
    } catch (error) {
      element.replaceChildren(makeText(error instanceof Error ? error.message : String(error)));
    }
  }

  /** @param {{ url: string, title: string }[]} pages */
  _makeContent(pages) {
    if (!pages.length) {
      const hint = "No sweep is open. Right-click a widget, such as steps, and choose Sweep; or sweep this workflow:";
      const button = make("div", "margin: 0 1rem", {});
      button.append(makeButton("Sweep...", this._sweep));
      return [makeText(hint), button];
    }
    const urls = pages.map(({ url }) => toOwnHost(url));
    if (!urls.includes(this._url)) this._url = /** @type {string} */ (urls.at(-1));
    const choice = make("select", CHOICE, { ariaLabel: "Open sweeps", onchange: () => this.show(choice.value) });
    choice.append(...pages.map(({ title }, index) => new Option(title, urls[index], false, urls[index] === this._url)));
    const link = { textContent: "Open in a tab", href: this._url, target: "_blank", rel: "noopener" };
    const bar = make("div", "display: flex; gap: 0.5rem; align-items: center; padding: 0.5rem", {});
    const end = makeButton("End", () => this._end(pages[choice.selectedIndex].url));
    bar.append(choice, make("a", "white-space: nowrap; color: inherit; text-decoration: underline", link), end);
    return [bar, make("iframe", "flex: 1; width: 100%; border: 0", { title: "Sweep", src: this._url })];
  }

  /** @param {string} url as the pack knows it */
  async _end(url) {
    if (!confirm("End this sweep's page? A run in it stops; what is done stays, and Sweep... continues it.")) return;
    await ask("end", { url }).catch(() => undefined); // it has ended already
    if (this._element) await this.render(this._element);
  }
}

/** @param {string} textContent */
const makeText = (textContent) => make("p", "margin: 1rem; color: var(--input-text)", { textContent });
