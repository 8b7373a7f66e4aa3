// Dragging a cell's file out of the page.

import * as Dom from "../../../serving/page/js/dom.js";
/** @import { PageFile } from "./dataset.js" */

/** @type {Record<string, string>} */
const MEDIA_TYPES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", webp: "image/webp", gif: "image/gif" };

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
