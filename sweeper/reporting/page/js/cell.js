// One cell of the grid: its pictures, or why there are none, and what is said about it.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;
  const STARS = ["", "★", "★★", "★★★", "★★★★", "★★★★★"];
  const WORDS = {
    failed: "failed",
    cancelled: "cancelled",
    pending: "not run yet",
    running: "running",
    succeeded: "no file",
  };

  const PLAYER = 110; // pixels from which on a browser draws the button of a player

  /** Address of a file of the report: its parts are names of files, whatever stands in them. */
  const address = (path) => path.split("/").map(encodeURIComponent).join("/");

  /** The smallest thumbnail that fills a cell of so many pixels. */
  function thumb(file, size, sides) {
    const side = sides.find((one) => one >= size * devicePixelRatio);
    return side === undefined ? file.thumb : file.thumb.replace(/\.webp$/, `-${side}.webp`);
  }

  /**
   * What shows a file: a picture, a player, or a plain word for what a browser cannot show. `src`: another address;
   * `load(image, address)`: who decides when a picture is fetched; `box`: the pixels it is shown in, where a sprite may
   * stand for it first; `frame`: the picture is the whole of its cell.
   */
  function media(file, { full = false, src, load = (image, from) => (image.src = from), box, frame = false } = {}) {
    if (file.kind === "missing") return el("span", { class: "word" }, "file is gone");
    if (file.kind === "image" && (file.thumb || full || /\.(svg|avif)$/.test(file.path))) {
      src ??= address(full ? file.path : (file.thumb ?? file.path));
      // A thumbnail is decoded with the frame that shows it: a cell is never shown empty after its file is there.
      const make = (load) => {
        const image = el("img", { alt: "", decoding: full ? "async" : "sync", draggable: String(full) });
        if (frame) {
          image.className = "frame";
          image.style.backgroundColor = file.colour;
        }
        load(image, src);
        return image;
      };
      return (box && sweeper.sprites.create(file, box, () => make((image) => (image.src = src)))) ?? make(load);
    }
    if (file.kind === "video") {
      return el("video", {
        src: address(file.path),
        controls: full,
        muted: true,
        loop: true,
        playsinline: true,
        // With a thumbnail nothing of a film is fetched before it is played.
        poster: !full && file.thumb ? (src ?? address(file.thumb)) : undefined,
        preload: full ? "auto" : file.thumb ? "none" : "metadata",
      });
    }
    if (file.kind === "audio") return el("audio", { src: address(file.path), controls: true, preload: "none" });
    return el(
      "span",
      { class: "word" },
      full ? el("a", { href: address(file.path), download: "" }, file.was) : (/\.\w+$/.exec(file.was)?.[0] ?? "file"),
    );
  }

  const spare = []; // cells of a grid that is gone: the next one takes them
  const MOST_SPARE = 600;
  const plains = new WeakMap(); // cell -> what it shows a plain trial with: {sprite, image, caption, tint}

  function create() {
    return spare.pop() ?? el("div", { class: "cell", role: "gridcell" });
  }

  function drop(node) {
    node.remove();
    for (const said of ["aria-label", "title"]) node.removeAttribute(said); // of a trial that the next grid may not show
    if (spare.length < MOST_SPARE) spare.push(node);
  }

  /**
   * Show a trial in a cell; a negative row is a combination that the plan does not have. `stack`: all trials of the cell
   * where there are several. `brief`: what is read and not seen may wait for `complete`, and the caption too where the
   * context says `unread`; returns whether it does.
   */
  function bind(node, row, stack, context, brief = false) {
    const { dataset, marks, state } = context;
    if (row >= 0 && !stack && isPlain(row, context)) {
      bindPlain(node, row, context);
      if (!brief) describe(node, row, context);
      return brief;
    }
    const before = node.dataset.row === String(row) ? node.querySelector("img.preview") : null;
    node.dataset.row = row;
    if (row < 0) {
      node.className = "cell none";
      for (const name of ["title", "aria-label"]) node.removeAttribute(name);
      node.removeAttribute("data-trial");
      node.draggable = false;
      node.replaceChildren();
      return false;
    }
    const status = dataset.status(row);
    const files = dataset.files(row);
    node.className = `cell ${status}`;
    node.dataset.trial = dataset.trial(row);
    node.draggable = files.length > 0;
    const parts = [frame(files, status, dataset.reason(row), row, context, before)];
    const summary = stack && sweeper.stack.summary(dataset, stack);
    if (summary) parts.push(badge(summary, state.size));
    else if (files.length > most(state)) parts.push(el("span", { class: "badge" }, counted(files, state)));
    const check = dataset.check(row);
    if (check) parts.push(verdict(check, node, state.size));
    if (state.captions) {
      const words = el("span");
      fillCaption(words, caption(row, context), state.size, context.tint(row));
      parts.push(words);
    }
    node.replaceChildren(...parts);
    mark(node, row, marks, context);
    describe(node, row, context, summary);
    return false;
  }

  /** One picture that has a sprite, of a trial that succeeded: what a grid of thousands mostly consists of. */
  function isPlain(row, { dataset }) {
    const files = dataset.files(row);
    if (files.length !== 1 || files[0].kind !== "image" || sign(files[0]) || !files[0].thumb || !sweeper.sprites.has(files[0])) return false;
    return dataset.status(row) === "succeeded" && !dataset.about.check;
  }

  /** The same elements whatever trial it is: while a grid scrolls, nothing is made and nothing is thrown away. */
  function bindPlain(node, row, context) {
    const { dataset, marks, state, box } = context;
    const [file] = dataset.files(row);
    let parts = plains.get(node);
    if (parts === undefined) plains.set(node, (parts = { sprite: el("span"), image: null, caption: el("span") }));
    const { sprite, caption: below } = parts;
    if (node.className !== "cell succeeded plain") node.className = "cell succeeded plain";
    node.dataset.row = row;
    node.dataset.trial = dataset.trial(row);
    node.draggable = true;
    const style = sweeper.sprites.centred(file, box);
    sweeper.sprites.show(sprite, file, style, () => {
      parts.image ??= el("img", { alt: "", decoding: "sync", draggable: "false" });
      parts.image.style.cssText = style;
      parts.image.src = address(thumb(file, state.size, dataset.about.sides));
      return parts.image;
    });
    // A text costs a layout of its cell, and memory until the browser finds the time to collect what that leaves behind.
    if (state.captions) fillCaption(below, context.unread ? "" : caption(row, context), state.size, context.tint(row));
    const wanted = state.captions ? [sprite, below] : [sprite];
    const there = node.childNodes;
    if (there.length !== wanted.length || wanted.some((one, place) => one !== there[place])) node.replaceChildren(...wanted);
    if (marks.any(row)) mark(node, row, marks);
  }

  /** Ask for the pictures of a cell that still shows sprites; how many are they? */
  function sharpen(node) {
    return [...node.getElementsByClassName("sprite")].filter(sweeper.sprites.sharpen).length;
  }

  /** Text below a picture, shortened here: a style that cuts it off is a clip, which the browser goes through in each frame. */
  function fillCaption(node, full, width, tint) {
    const { firstChild } = node;
    const fitted = sweeper.letters.fitted(full, width - 10);
    const text = fitted ?? full;
    const classes = fitted === undefined ? "caption cut" : "caption";
    if (node.className !== classes) node.className = classes;
    if ((firstChild?.data ?? "") !== text) firstChild && text ? (firstChild.data = text) : (node.textContent = text);
    const shade = tint === "transparent" ? "" : tint;
    if (node.style.getPropertyValue("--tint") !== shade) node.style.setProperty("--tint", shade);
  }

  /** A combination whose trials this view leaves out, but the plan has. */
  function leftOut(node) {
    node.classList.add("filtered");
    node.setAttribute("aria-label", "left out by the filter");
    node.title = "Left out by the filter, or by what is chosen for the other axes";
  }

  /** A combination that the plan does not have, and which rule dropped it. */
  function absent(node, values, dataset) {
    node.title = dataset.absent(new Map(values.map(([axis, place]) => [axis.name, place])));
    node.setAttribute("aria-label", node.title);
  }

  const SIGNS = { same: "=", changed: "≠", new: "+", missing: "−", failed: "!", "not compared": "?", cancelled: "×", pending: "…", running: "…" };

  /** How many trials lie below the one that is shown, and what is to be known of them. */
  function badge({ more, kind, count }, size) {
    if (!kind) return el("span", { class: "badge" }, `+${more}`);
    const words = `+${more} · ${count} ${sweeper.stack.word(kind)}`;
    const fits = sweeper.letters.fitted(words, size - 20) === words;
    return el("span", { class: `badge holds-${kind.replace(" ", "-")}` }, fits ? words : `+${more} ${SIGNS[kind]}`);
  }

  function checkReason(dataset, row) {
    const check = dataset.check(row);
    return check ? [`check: ${check.state}`, check.reason].filter(Boolean).join(", ") : "";
  }

  /** What the check found, as a sign that does not rest on its colour alone. */
  function verdict(check, node, size) {
    node.classList.add(`check-${check.state.replace(" ", "-")}`);
    const sign = SIGNS[check.state] ?? "?";
    return el("span", { class: "verdict" }, size >= 96 ? `${sign} ${check.state}` : sign);
  }

  /** How many files of a trial its cell shows. */
  const most = (state) => (state.size >= 96 ? 4 : 1);

  /** As many files as a cell shows, one of each kind among them: a film or a sound after six stills would never be seen. */
  function chosen(files, count) {
    const kind = (file) => sign(file) || file.kind; // an animated picture is a film to the eye
    const firsts = files.filter((file, place) => files.findIndex((other) => kind(other) === kind(file)) === place);
    const wanted = [...new Set([...firsts, ...files])].slice(0, count);
    return files.filter((file) => wanted.includes(file)).slice(0, count); // one file may be there twice
  }

  /** What a still has not: a film and a sound are told from one without a play button. */
  const sign = ({ kind, frames }) => (kind === "video" || frames > 1 ? "▶" : kind === "audio" ? "♪" : "");

  /** `width`: pixels that there are; a player of sounds without its button is none, and the sign says where there is one. */
  function signed(file, shown, width) {
    const mark = sign(file);
    if (!mark) return shown;
    const player = width < PLAYER && file.kind === "audio" ? null : shown;
    return el("span", { class: "moving" }, player, el("span", { class: player ? "sign" : "sign alone", "aria-hidden": "true" }, mark));
  }

  /** How many files there are, and the signs of those that the cell does not show. */
  function counted(files, state) {
    const shown = chosen(files, most(state));
    return [files.length, ...new Set(files.filter((file) => !shown.includes(file)).map(sign).filter(Boolean))].join(" ");
  }

  /** "6 pictures, 1 film", where there is anything but pictures; "" elsewhere. */
  function kinds(files) {
    const word = (file) => (file.kind === "audio" ? "sound" : sign(file) ? "film" : file.kind === "image" ? "picture" : "file");
    const counts = new Map();
    for (const file of files) counts.set(word(file), (counts.get(word(file)) ?? 0) + 1);
    if (!files.some(sign)) return "";
    return [...counts].map(([name, count]) => `${count} ${name}${count > 1 ? "s" : ""}`).join(", ");
  }

  /** The pictures of a trial; where there is none, a word in its place and the reason below it. */
  function frame(files, status, reason, row, { dataset, state, load, box }, before) {
    const source = (file) => (file.thumb ? address(thumb(file, state.size, dataset.about.sides)) : undefined);
    if (files.length === 0) {
      const holder = el("span", { class: "frame" });
      const sight = dataset.sight(row);
      if (sight?.[3]) {
        // The same element as before: it shows the last preview until the next one is there.
        const image = before ?? el("img", { alt: "", class: "preview", draggable: "false" });
        image.src = `preview/${dataset.trial(row)}?${sight[3]}`;
        holder.append(image);
      } else holder.append(el("span", { class: "word" }, WORDS[status]));
      if (status === "running") holder.append(el("progress", { max: sight?.[2] || null, value: sight?.[2] ? sight[1] : null }));
      else if (state.size >= 96 && status === "failed") holder.append(el("span", { class: "why" }, reason));
      return holder;
    }
    if (files.length === 1 && files[0].kind === "image" && files[0].thumb && !sign(files[0])) {
      return media(files[0], { src: source(files[0]), load, box, frame: true });
    }
    const shown = chosen(files, most(state));
    const part = shown.length > 1 ? [(box[0] - 2) / 2, shown.length > 2 ? (box[1] - 2) / 2 : box[1]] : box;
    const each = shown.map((file) => signed(file, media(file, { src: source(file), load, box: part }), part[0]));
    return el("span", { class: shown.length > 1 ? "frame several" : "frame" }, each);
  }

  const named = (axis, row) => `${axis.name}: ${axis.word(axis.of[row])}`;

  /** A value as a caption has it: what is in brackets, as "(none)", says of which axis. */
  function valued(axis, row) {
    const word = axis.word(axis.of[row]);
    return word[0] === "(" ? named(axis, row) : word;
  }

  function caption(row, { dataset, state, colour, free }) {
    if (colour) return colour.label(row) || "no value";
    if (free.length) return free.map((axis) => valued(axis, row)).join(" · ");
    const trial = dataset.trial(row);
    return state.size < 96 ? String(trial) : `trial ${trial}`; // "trial 1…" would tell no cell from its neighbour
  }

  /** Verdict and stars on a bound cell. */
  function mark(node, row, marks) {
    const { verdict, stars, comment } = marks.get(row);
    node.classList.toggle("keep", verdict === "keep");
    node.classList.toggle("reject", verdict === "reject");
    node.querySelector(".stars")?.remove();
    const text = (STARS[stars] ?? "") + (comment ? " ✎" : "");
    if (text) node.append(el("span", { class: "stars" }, text));
  }

  /** What a brief `bind` left out. */
  function complete(node, row, context) {
    const parts = plains.get(node);
    if (context.state.captions && parts) fillCaption(parts.caption, caption(row, context), context.state.size, context.tint(row));
    describe(node, row, context);
  }

  /** What is said of a cell to those who point at it, and to those who listen; `summary`: of the trials that share it. */
  function describe(node, row, { dataset, marks, free }, summary = null) {
    const without = free.filter((axis) => axis.of[row] < 0).map((axis) => named(axis, row)); // its caption has them too
    const title = [dataset.title(row), ...without].join(" · ");
    const [reason, check] = [dataset.reason(row), checkReason(dataset, row)];
    const { verdict, stars, comment } = marks.get(row);
    node.title = [title, reason, check, summary?.words].filter(Boolean).join("\n");
    const words = [
      `trial ${dataset.trial(row)}`,
      title,
      dataset.status(row),
      kinds(dataset.files(row)),
      reason,
      check,
      verdict,
      stars ? `${stars} stars` : "",
      comment ?? "",
      summary?.words,
    ];
    node.setAttribute("aria-label", words.filter(Boolean).join(", "));
  }

  sweeper.cell = { absent, address, bind, complete, create, describe, drop, leftOut, mark, media, sharpen, STARS };
})((globalThis.sweeper ??= {}));
