// Sprites: every picture very small, on a few sheets that are loaded once; what a cell shows until its picture is there.
"use strict";

(function (sweeper) {
  const makers = new WeakMap(); // sprite element -> makes the sharp picture that replaces it
  const asked = new WeakMap(); // sprite element -> that picture, once it was asked for
  const styles = new WeakMap(); // sprite element -> the style that it was shown in
  let sheets = null; // {across, full, lines: of each sheet}
  const held = []; // the sheets' pictures: as long as they are held, no cell waits for one

  /** Take in what the page's data says of the sheets; one class each, since a page with CSP has no style attributes. */
  function install(about) {
    if (about === undefined || about.sheets.length === 0) return;
    const full = about.across ** 2;
    const lines = about.sheets.map((_, n) => Math.ceil(Math.min(full, about.count - n * full) / about.across));
    sheets = { ...about, full, lines };
    const rules = about.sheets.map((path, n) => {
      const url = new URL(sweeper.cell.address(path), document.baseURI).href;
      return `.sheet-${n} { background-image: url(${JSON.stringify(url)}); background-size: ${about.across * 100}% ${lines[n] * 100}%; }`;
    });
    const style = new CSSStyleSheet();
    style.replaceSync(rules.join("\n"));
    document.adoptedStyleSheets.push(style);
  }

  /** Load and decode all sheets, one after the other: those in view are asked for by their cells anyway. */
  async function load() {
    for (const path of sheets?.sheets ?? []) {
      const image = new Image();
      image.src = sweeper.cell.address(path);
      held.push(image);
      await image.decode().catch(() => {}); // a sheet that is gone: its cells wait for their pictures
    }
  }

  const has = (file) => sheets !== null && file.sprite !== undefined;

  /** A sprite for a file in a box of [width, height] pixels; undefined where it has none. `make`: as in `show`. */
  function create(file, box, make) {
    if (!has(file)) return undefined;
    const node = document.createElement("span");
    show(node, file, sized(file, box), make);
    return node;
  }

  /** Style of a file that is drawn out to the size that it has in a box of [width, height] pixels. */
  function sized(file, [width, height]) {
    const scale = Math.min(width / file.width, height / file.height);
    return `width:${file.width * scale}px;height:${file.height * scale}px`;
  }

  /** The same for a file that is alone in its box: it stands in the middle without any help of a layout. */
  function centred(file, [width, height]) {
    const scale = Math.min(width / file.width, height / file.height);
    const [across, down] = [(width - file.width * scale) / 2, (height - file.height * scale) / 2];
    return `${sized(file, [width, height])};margin:${down}px ${across}px`;
  }

  /** Show a file's sprite in `node`, in this style. `make()` gives the picture itself, when `sharpen` wants it. */
  function show(node, file, style, make) {
    const sheet = Math.floor(file.sprite / sheets.full);
    const place = file.sprite % sheets.full;
    const share = (at, count) => (count > 1 ? (100 * at) / (count - 1) : 0);
    const x = share(place % sheets.across, sheets.across);
    const y = share(Math.floor(place / sheets.across), sheets.lines[sheet]);
    const classes = `sprite sheet-${sheet}`;
    if (node.className !== classes) node.className = classes;
    // A style that is set as a whole is thrown away as a whole: in a fling that is more than all the sheets together.
    if (styles.get(node) !== style) {
      node.style.cssText = style;
      styles.set(node, style);
    }
    node.style.backgroundPosition = `${x}% ${y}%`;
    makers.set(node, make);
    asked.delete(node);
  }

  /** Ask for the picture that a sprite stands for; false where it was asked for. */
  function sharpen(node) {
    if (!makers.has(node)) return false;
    const image = makers.get(node)();
    makers.delete(node);
    asked.set(node, image);
    // By then its cell may show another trial.
    image.onload = () => asked.get(node) === image && node.replaceWith(image);
    return true;
  }

  sweeper.sprites = { centred, create, has, install, load, sharpen, show };
})((globalThis.sweeper ??= {}));
