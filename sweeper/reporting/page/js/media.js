// Elements that show a file: a picture, a player, or a word for what a browser cannot show.

import { el, toUrl } from "../../../serving/page/js/dom.js";
import * as Sprites from "./sprites.js";
import { countEach } from "./value_text.js";
/** @import { Dataset, PageFile } from "./dataset.js" */

/**
 * The smallest thumbnail that fills a cell of `size` pixels. A smaller one exists only of a picture that is larger.
 * @param {PageFile} file @param {number} size
 * @param {number[]} sides of the smaller thumbnails, in pixels
 * @returns {string} its path
 */
export function pickThumbnail(file, size, sides) {
  const side = sides.find((pixels) => pixels >= size * devicePixelRatio && pixels < Math.max(file.width, file.height));
  const thumb = file.thumb ?? file.path;
  return side === undefined ? thumb : thumb.replace(/\.webp$/, `-${side}.webp`);
}

/** Whether a browser shows the file itself as a picture. @param {PageFile} file */
export const canShow = ({ kind, path }) => kind === "image" && /\.(png|jpe?g|webp|gif|avif|bmp)$/i.test(path ?? "");

/**
 * @typedef {object} MediaOptions
 * @property {boolean} [full] show the file itself, with controls, and not its thumbnail
 * @property {string} [src] the URL of another thumbnail
 * @property {(image: HTMLImageElement, url: string) => void} [load] decides when a picture is loaded
 * @property {Sprites.Box} [box] the pixels it is shown in; a sprite may stand in for it first
 * @property {boolean} [isFrame] whether the picture fills its cell
 */

/** Make the element that shows a file. @param {PageFile} file @param {MediaOptions} [options] @returns {HTMLElement} */
export function create(file, options = {}) {
  const { full = false, src } = options;
  if (file.kind === "missing") return el("span", { class: "word" }, "file is gone");
  if (file.kind === "outside") return el("span", { class: "word" }, "in the full report");
  if (file.kind === "image" && (file.thumb || full || /\.(svg|avif)$/.test(file.path))) return createImage(file, options);
  if (file.kind === "video") {
    return el("video", {
      src: toUrl(file.path),
      muted: true,
      loop: !full, // the bar of the dialog plays it otherwise
      playsinline: true,
      // With a thumbnail as poster, nothing of the film is loaded before it is played.
      poster: !full && file.thumb ? (src ?? toUrl(file.thumb)) : undefined,
      preload: full ? "auto" : file.thumb ? "none" : "metadata",
    });
  }
  if (file.kind === "audio") return createSound(file, options);
  const suffix = /\.\w+$/.exec(file.was)?.[0] ?? "file";
  return el("span", { class: "word" }, full ? el("a", { href: toUrl(file.path), download: "" }, file.was) : suffix);
}

/** A sound by its waveform, which is its thumbnail, or a sign, and a player, which a bar plays. @param {PageFile} file @param {MediaOptions} options */
function createSound(file, options) {
  const { full = false } = options;
  const wave = file.thumb ? createImage(file, { ...options, full: false }) : full && el("span", { class: "word" }, "♪");
  return el("span", { class: "sound" }, wave, el("audio", { src: toUrl(file.path), preload: full ? "auto" : "none" }), el("span", { class: "playhead" }));
}

/** @param {PageFile} file @param {MediaOptions} options */
function createImage(file, { full = false, src, load = (image, url) => (image.src = url), box, isFrame = false }) {
  const url = src ?? toUrl(full ? file.path : (file.thumb ?? file.path));
  /** @param {(image: HTMLImageElement, url: string) => void} start */
  const makeImage = (start) => {
    // A thumbnail is decoded with the frame that shows it, so that a cell is never empty once its file is loaded.
    const image = el("img", { alt: "", decoding: full ? "async" : "sync", draggable: String(full) });
    reportLoss(image);
    if (isFrame) {
      image.className = "frame";
      image.style.backgroundColor = file.colour ?? ""; // until it is loaded, not behind it
      image.addEventListener("load", () => image.style.removeProperty("background-color"));
    }
    start(image, url);
    return image;
  };
  const sprite = box && Sprites.create(file, box, () => makeImage((image) => (image.src = url)));
  return sprite ?? makeImage(load);
}

/** A small picture of a row's first file; null if it has none. @param {Dataset} dataset @param {number} row @param {number} width pixels */
export function createThumb(dataset, row, width) {
  const [file] = dataset.files(row);
  if (!file?.thumb) return null;
  return reportLoss(el("img", { src: toUrl(pickThumbnail(file, width, dataset.raw.sides)), alt: "", loading: "lazy", draggable: "false" }));
}

/** Let a picture that cannot be loaded say so in its place. @param {HTMLImageElement} image */
export function reportLoss(image) {
  image.addEventListener("error", () => (image.alt = "the picture cannot be loaded"));
  image.addEventListener("load", () => (image.alt = ""));
  return image;
}

/** The sign that tells a film or a sound from a still picture, which has none. @param {PageFile} file */
export const getSign = ({ kind, frames = 1 }) => (kind === "video" || frames > 1 ? "▶" : kind === "audio" ? "♪" : "");

/** Put the sign of a film or sound on its element; a sound without a waveform has nothing else. @param {PageFile} file @param {HTMLElement} node */
export function addSign(file, node) {
  const sign = getSign(file);
  if (!sign) return node;
  const isAlone = file.kind === "audio" && !file.thumb;
  return el("span", { class: "moving" }, node, el("span", { class: isAlone ? "sign alone" : "sign", "aria-hidden": "true" }, sign));
}

/** Choose `count` files, one of each kind first: a film after six stills would otherwise never be shown. @param {PageFile[]} files @param {number} count */
export function choose(files, count) {
  const getKind = (/** @type {PageFile} */ file) => getSign(file) || file.kind; // an animated picture counts as a film
  const firsts = files.filter((file, index) => files.findIndex((other) => getKind(other) === getKind(file)) === index);
  const wanted = [...new Set([...firsts, ...files])].slice(0, count);
  return files.filter((file) => wanted.includes(file)).slice(0, count); // a file may be listed twice
}

/** How many files there are, and the signs of those that are not shown. @param {PageFile[]} files @param {PageFile[]} shown */
export const describeCount = (files, shown) =>
  [files.length, ...new Set(files.filter((file) => !shown.includes(file)).map(getSign).filter(Boolean))].join(" ");

/** For example "6 pictures, 1 film"; "" if all are pictures. @param {PageFile[]} files */
export function describeKinds(files) {
  if (!files.some(getSign)) return "";
  /** @param {PageFile} file */
  const getWord = (file) => (file.kind === "audio" ? "sound" : getSign(file) ? "film" : file.kind === "image" ? "picture" : "file");
  return [...countEach(files.map(getWord))].map(([word, count]) => `${count} ${word}${count > 1 ? "s" : ""}`).join(", ");
}

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
export function fillDrag(event, file, workflow = null, name = "") {
  if (!file?.path || event.dataTransfer === null) return;
  const url = new URL(toUrl(file.path), location.href).href;
  const fileName = file.path.split("/").at(-1) ?? "";
  const type = MEDIA_TYPES[/\w+$/.exec(fileName)?.[0].toLowerCase() ?? ""] ?? "application/octet-stream";
  const inline = workflow && `data:application/json,${encodeURIComponent(workflow)}#/${encodeURIComponent(name)}`;
  event.dataTransfer.setData("text/uri-list", inline || url);
  event.dataTransfer.setData("text/plain", url);
  event.dataTransfer.setData("DownloadURL", `${type}:${fileName}:${url}`);
  event.dataTransfer.effectAllowed = "copy";
}
