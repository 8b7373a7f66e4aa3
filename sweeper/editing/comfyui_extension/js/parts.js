// @ts-check
// What the menu and the sidebar share: the routes of this pack on the ComfyUI that served the page, and elements.

/** Ask a route. Rejects with what is wrong. @param {"open" | "pages" | "end"} name @param {object} body @returns {Promise<any>} */
export async function ask(name, body) {
  const headers = { "Content-Type": "application/json" };
  const address = new URL(`../../sweeper/${name}`, import.meta.url);
  const response = await fetch(address, { method: "POST", headers, body: JSON.stringify(body) });
  if (response.status === 404) throw new Error("ComfyUI has not loaded sweeper's extension: see its log, and restart it");
  const answer = await response.json().catch(() => ({ problem: `ComfyUI answered ${response.status}; see its log` }));
  if (!response.ok) throw new Error(answer.problem);
  return answer;
}

/**
 * The address of a page of sweeper, under the name by which the browser knows this machine here: a browser sends the
 * page's cookie within the same site only, and 127.0.0.1 and localhost are two. @param {string} url
 */
export const toOwnHost = (url) => Object.assign(new URL(url), { hostname: location.hostname }).href;

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} style @param {object} properties @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, style, properties) {
  const node = Object.assign(document.createElement(tag), properties);
  node.style.cssText = style;
  return node;
}

const FIELD = "background: var(--comfy-input-bg); color: var(--input-text); border: 1px solid var(--border-color);";
const BUTTON = `${FIELD} padding: 0.35rem 0.9rem; border-radius: 0.35rem; cursor: pointer`;

/** @param {string} textContent @param {() => void} onclick */
export const makeButton = (textContent, onclick) => make("button", BUTTON, { type: "button", textContent, onclick });

/** Show the command with which the user starts sweeper, where ComfyUI cannot. @param {string} command */
export function showCommand(command) {
  const style = `${FIELD} background: var(--comfy-menu-bg); max-width: 44rem; padding: 1.5rem; font: 14px sans-serif`;
  const dialog = make("dialog", style, { ariaLabel: "Sweep" });
  const textContent =
    "ComfyUI cannot start sweeper. The workflow is saved, and this command opens it: run it in a terminal where" +
    " `sweeper` works. After `sweeper comfyui-extension install` there, ComfyUI starts sweeper itself.";
  const area = { readOnly: true, rows: 4, value: command, ariaLabel: "Command" };
  const code = make("textarea", `${FIELD} width: 100%; margin: 1rem 0; padding: 0.5rem; font: 13px monospace`, area);
  async function copy() {
    code.select();
    await navigator.clipboard?.writeText(command).catch(() => document.execCommand("copy"));
  }
  dialog.append(make("p", "", { textContent }), code, makeButton("Copy", copy), " ", makeButton("Close", () => dialog.close()));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // ComfyUI has shortcuts for plain keys
  document.body.append(dialog);
  dialog.showModal();
  code.select();
}
