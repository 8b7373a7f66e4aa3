// @ts-check
// Dragging: an axis to the direction that it shall have, and a cell's file out of the page.

import * as Dom from "./dom.js";
/** @import { Axis } from "./columns.js" */
/** @import { PageFile } from "./dataset.js" */

const TYPE = "application/x-sweeper-axis";
/** @type {Record<string, string>} */
const MEDIA_TYPES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", webp: "image/webp", gif: "image/gif" };

/**
 * An axis that can be dragged. Its menu does the same by keyboard and on touch screens.
 * @param {Axis} axis
 */
export function makeChip(axis) {
  /** @param {DragEvent} event */
  function start(event) {
    event.dataTransfer?.setData(TYPE, axis.name);
    if (event.dataTransfer) event.dataTransfer.effectAllowed = "move";
    event.stopPropagation();
  }
  const title = `Drag ${axis.name} onto X axis, Y axis, an outer axis, or the labels of the grid`;
  return Dom.el("span", { class: "chip", draggable: "true", title, ondragstart: start }, axis.name);
}

/**
 * Let an axis be dropped on an element.
 * @param {HTMLElement} node @param {(name: string) => void} onDrop
 */
export function acceptAxis(node, onDrop) {
  /** @param {DragEvent} event */
  const onOver = (event) => {
    if (!event.dataTransfer?.types.includes(TYPE)) return;
    event.preventDefault();
    node.classList.add("dropping");
  };
  node.addEventListener("dragenter", onOver);
  node.addEventListener("dragover", onOver);
  node.addEventListener("dragleave", (event) => {
    if (!node.contains(/** @type {Node | null} */ (event.relatedTarget))) node.classList.remove("dropping");
  });
  node.addEventListener("drop", (event) => {
    node.classList.remove("dropping");
    const name = event.dataTransfer?.getData(TYPE) ?? "";
    if (name === "") return;
    event.preventDefault();
    onDrop(name);
  });
}

/**
 * Fill a drag of a cell, a picture or a link with the artifact itself, never its thumbnail.
 *
 * ComfyUI fetches the first URL it is given, but may fetch neither a file of this disk nor one of another server.
 * Therefore a workflow goes first, as a data URL. A picture that is dragged out of the dialog is a file to the
 * browser, which ComfyUI reads before all this.
 * @param {DragEvent} event @param {PageFile | undefined} file
 * @param {string | null} [workflow] JSON text
 * @param {string} [name] of the workflow's file
 */
export function fillWithFile(event, file, workflow = null, name = "") {
  if (!file?.path || event.dataTransfer === null) return;
  const url = new URL(Dom.toUrl(file.path), location.href).href;
  const fileName = file.path.split("/").at(-1) ?? "";
  const type = MEDIA_TYPES[/\w+$/.exec(fileName)?.[0].toLowerCase() ?? ""] ?? "application/octet-stream";
  const inline = workflow && `data:application/json,${encodeURIComponent(workflow)}#/${encodeURIComponent(name)}`;
  event.dataTransfer.setData("text/uri-list", inline || url);
  event.dataTransfer.setData("text/plain", url);
  event.dataTransfer.setData("DownloadURL", `${type}:${fileName}:${url}`);
  event.dataTransfer.effectAllowed = "copy";
}
