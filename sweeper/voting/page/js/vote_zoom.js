// @ts-check
// Zoom and move both pictures together, by wheel, pinch, key and drag.
"use strict";

const VoteZoom = (() => {
  const MAX_SCALE = 16;
  let scale = 1;
  let x = 0; // of the shift, as a part of the picture's frame
  let y = 0;
  /** @type {HTMLElement} */
  let host;
  /** @type {() => void} */
  let onChange = () => {};

  function apply() {
    const limit = (scale - 1) / 2;
    x = Math.max(-limit, Math.min(limit, x));
    y = Math.max(-limit, Math.min(limit, y));
    for (const image of host.querySelectorAll("img")) image.style.transform = `translate(${x * 100}%, ${y * 100}%) scale(${scale})`;
    host.classList.toggle("zoomed", scale > 1);
    onChange();
  }

  /**
   * Zoom so that the point of the window stays where it is.
   * @param {Element} frame of the picture under the point @param {number} factor @param {number} clientX @param {number} clientY
   */
  function zoomAt(frame, factor, clientX, clientY) {
    const box = frame.getBoundingClientRect();
    zoom(factor, (clientX - box.left) / box.width - 0.5, (clientY - box.top) / box.height - 0.5);
  }

  /** @param {number} factor @param {number} atX from -0.5 to 0.5, as a part of the frame @param {number} atY */
  function zoom(factor, atX, atY) {
    const next = Math.max(1, Math.min(MAX_SCALE, scale * factor));
    x = atX - ((atX - x) * next) / scale;
    y = atY - ((atY - y) * next) / scale;
    scale = next;
    apply();
  }

  /** @param {number} dx @param {number} dy as parts of the frame */
  function move(dx, dy) {
    x += dx;
    y += dy;
    apply();
  }

  function reset() {
    scale = 1;
    x = y = 0;
    apply();
  }

  /** @param {WheelEvent} event */
  function handleWheel(event) {
    event.preventDefault();
    zoomAt(/** @type {HTMLElement} */ (event.currentTarget), Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
  }

  /**
   * @param {HTMLElement} pictures the element around both pictures @param {() => void} changed called after each change
   */
  function start(pictures, changed) {
    host = pictures;
    onChange = changed;
    for (const frame of pictures.querySelectorAll("button")) frame.addEventListener("wheel", handleWheel, { passive: false });
  }

  return { start, zoomAt, move, reset, toggle: () => (scale > 1 ? reset() : zoom(3, 0, 0)), isZoomed: () => scale > 1 };
})();
