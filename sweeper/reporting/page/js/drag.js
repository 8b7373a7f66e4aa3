// Dragging: an axis onto the place where it is to be shown, and a cell's file out of the page.
"use strict";

(function (sweeper) {
  const TYPE = "application/x-sweeper-axis";
  const KINDS = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", webp: "image/webp", gif: "image/gif" };

  /** An axis that can be taken: its menu does the same by keyboard and on a screen that is touched. */
  function chip(axis) {
    const { el } = sweeper.dom;
    return el(
      "span",
      {
        class: "chip",
        draggable: "true",
        title: `Drag ${axis.name} onto X axis, Y axis, an outer place, or onto the grid's labels`,
        ondragstart(event) {
          event.dataTransfer.setData(TYPE, axis.name);
          event.dataTransfer.effectAllowed = "move";
          event.stopPropagation();
        },
      },
      axis.name,
    );
  }

  /** Let `node` take an axis; `taken(name)` is called with it. */
  function target(node, taken) {
    const over = (event) => {
      if (!event.dataTransfer.types.includes(TYPE)) return;
      event.preventDefault();
      node.classList.add("dropping");
    };
    node.addEventListener("dragenter", over);
    node.addEventListener("dragover", over);
    node.addEventListener("dragleave", (event) => node.contains(event.relatedTarget) || node.classList.remove("dropping"));
    node.addEventListener("drop", (event) => {
      node.classList.remove("dropping");
      const name = event.dataTransfer.getData(TYPE);
      if (name === "") return;
      event.preventDefault();
      taken(name);
    });
  }

  /**
   * What leaves the page with a cell, a picture or a link: the artifact itself, never its thumbnail. `workflow`: JSON text
   * that goes first, under `name`, for a program that fetches what it is given: ComfyUI may fetch neither a file of this
   * disk nor another server's. (A picture of a dialog goes as a file of its own, which ComfyUI reads before all this.)
   */
  function carry(event, file, workflow = null, name = "") {
    if (!file?.path) return;
    const url = new URL(sweeper.cell.address(file.path), location.href).href;
    const base = file.path.split("/").pop();
    const kind = KINDS[/\w+$/.exec(base)?.[0].toLowerCase()] ?? "application/octet-stream";
    const inline = workflow && `data:application/json,${encodeURIComponent(workflow)}#/${encodeURIComponent(name)}`;
    event.dataTransfer.setData("text/uri-list", inline || url);
    event.dataTransfer.setData("text/plain", url);
    event.dataTransfer.setData("DownloadURL", `${kind}:${base}:${url}`);
    event.dataTransfer.effectAllowed = "copy";
  }

  sweeper.drag = { chip, target, carry, TYPE };
})((globalThis.sweeper ??= {}));
