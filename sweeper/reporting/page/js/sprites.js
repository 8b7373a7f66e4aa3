// Sprites: every picture very small, on a few sheets that are loaded once. A cell shows its sprite until its picture is
// loaded.

import * as Dom from "../../../serving/page/js/dom.js";
/** @import { PageFile } from "./dataset.js" */

/** @typedef {[width: number, height: number]} Box pixels */

/** @type {WeakMap<Element, () => HTMLImageElement>} sprite -> makes the picture that replaces it */
const makers = new WeakMap();
/** @type {WeakMap<Element, HTMLImageElement>} sprite -> that picture, while it is loading */
const loading = new WeakMap();
/** @type {WeakMap<Element, string>} sprite -> the style it was last given */
const styles = new WeakMap();
/** @type {HTMLImageElement[]} the sheets: as long as they are referenced, no cell waits for one */
const images = [];
/** @type {{across: number, perSheet: number, paths: string[], lines: number[]} | null} */
let sheets = null;

/**
 * Prepare the sheets. Each gets a class, because the page's content security policy forbids style attributes.
 * @param {{across: number, sheets: string[], count: number} | undefined} raw `sprites` of the data
 */
export function install(raw) {
  if (raw === undefined || raw.sheets.length === 0) return;
  const { across, sheets: paths, count } = raw;
  const perSheet = across ** 2;
  const lines = paths.map((_, index) => Math.ceil(Math.min(perSheet, count - index * perSheet) / across));
  sheets = { across, perSheet, paths, lines };
  const rules = paths.map((path, index) => {
    const url = JSON.stringify(new URL(Dom.toUrl(path), document.baseURI).href);
    return `.sheet-${index} { background-image: url(${url}); background-size: ${across * 100}% ${lines[index] * 100}%; }`;
  });
  const style = new CSSStyleSheet();
  style.replaceSync(rules.join("\n"));
  document.adoptedStyleSheets.push(style);
}

/** Load and decode all sheets, one after the other; cells in view request theirs earlier. */
export async function loadAll() {
  for (const path of sheets?.paths ?? []) {
    const image = new Image();
    image.src = Dom.toUrl(path);
    images.push(image);
    await image.decode().catch(() => {}); // if a sheet is gone, its cells wait for their pictures
  }
}

/** @param {PageFile} file */
export const has = (file) => sheets !== null && file.sprite !== undefined;

/**
 * Make a sprite that fills a box; undefined if the file has none.
 * @param {PageFile} file @param {Box} box
 * @param {() => HTMLImageElement} makeImage as in `show`
 */
export function create(file, box, makeImage) {
  if (!has(file)) return undefined;
  const node = document.createElement("span");
  show(node, file, fitStyle(file, box), makeImage);
  return node;
}

/** The style that scales a file to a box. @param {PageFile} file @param {Box} box */
function fitStyle(file, [width, height]) {
  const scale = Math.min(width / file.width, height / file.height);
  return `width:${file.width * scale}px;height:${file.height * scale}px`;
}

/** The same with margins that centre the file, so that no layout has to. @param {PageFile} file @param {Box} box */
export function centreStyle(file, [width, height]) {
  const scale = Math.min(width / file.width, height / file.height);
  const [across, down] = [(width - file.width * scale) / 2, (height - file.height * scale) / 2];
  return `${fitStyle(file, [width, height])};margin:${down}px ${across}px`;
}

/**
 * Show a file's sprite in an element.
 * @param {HTMLElement} node @param {PageFile} file @param {string} style
 * @param {() => HTMLImageElement} makeImage makes the picture itself, when `sharpen` needs it
 */
export function show(node, file, style, makeImage) {
  if (sheets === null || file.sprite === undefined) return;
  const sheet = Math.floor(file.sprite / sheets.perSheet);
  const index = file.sprite % sheets.perSheet;
  const toPercent = (/** @type {number} */ at, /** @type {number} */ count) => (count > 1 ? (100 * at) / (count - 1) : 0);
  const x = toPercent(index % sheets.across, sheets.across);
  const y = toPercent(Math.floor(index / sheets.across), sheets.lines[sheet]);
  const classes = `sprite sheet-${sheet}`;
  if (node.className !== classes) node.className = classes;
  // Set the style only if it changed: during a fast scroll, old style objects would take more memory than the sheets.
  if (styles.get(node) !== style) {
    node.style.cssText = style;
    styles.set(node, style);
  }
  node.style.backgroundPosition = `${x}% ${y}%`;
  makers.set(node, makeImage);
  loading.delete(node);
}

/** Load the picture of a sprite; false if that was already requested. @param {Element} node */
export function sharpen(node) {
  const makeImage = makers.get(node);
  if (makeImage === undefined) return false;
  const image = makeImage();
  makers.delete(node);
  loading.set(node, image);
  // When it is loaded, its cell may show another trial.
  image.onload = image.onerror = () => loading.get(node) === image && node.replaceWith(image);
  return true;
}
