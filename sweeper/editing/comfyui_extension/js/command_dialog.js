// @ts-check
// Where ComfyUI cannot start sweeper: the command with which the user does.

/** @param {string} command */
export function showCommand(command) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-label", "Sweep");
  dialog.style.cssText =
    "max-width: 44rem; padding: 1.5rem; border: 1px solid var(--border-color); border-radius: 0.5rem;" +
    "background: var(--comfy-menu-bg); color: var(--input-text); font: 14px sans-serif";
  const text = document.createElement("p");
  text.textContent =
    "ComfyUI cannot start sweeper. The workflow is saved, and this command opens it: run it in a terminal where" +
    " `sweeper` works. After `sweeper comfyui-extension install` there, ComfyUI starts sweeper itself.";
  const code = document.createElement("textarea");
  code.readOnly = true;
  code.rows = 4;
  code.value = command;
  code.setAttribute("aria-label", "Command");
  code.style.cssText =
    "width: 100%; margin: 1rem 0; padding: 0.5rem; font: 13px monospace; resize: vertical;" +
    "background: var(--comfy-input-bg); color: inherit; border: 1px solid var(--border-color)";
  dialog.append(text, code, makeButton("Copy", copy), makeButton("Close", () => dialog.close()));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // ComfyUI has shortcuts for plain keys
  document.body.append(dialog);
  dialog.showModal();
  code.select();

  async function copy() {
    code.select();
    await navigator.clipboard?.writeText(command).catch(() => document.execCommand("copy"));
  }
}

/**
 * @param {string} label
 * @param {() => void} press
 */
export function makeButton(label, press) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.style.cssText =
    "margin-right: 0.5rem; padding: 0.35rem 0.9rem; border: 1px solid var(--border-color); border-radius: 0.35rem;" +
    "background: var(--comfy-input-bg); color: var(--input-text); cursor: pointer";
  button.addEventListener("click", press);
  return button;
}
