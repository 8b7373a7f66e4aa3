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
        preload: full ? "auto" : "metadata",
      });
    }
    if (file.kind === "audio") return el("audio", { src: address(file.path), controls: true, preload: "none" });
    return el(
      "span",
      { class: "word" },
      full ? el("a", { href: address(file.path), download: "" }, file.was) : (/\.\w+$/.exec(file.was)?.[0] ?? "file"),
    );
  }

  function create() {
    return el("div", { class: "cell", role: "gridcell" });
  }

  /** Show a trial in a cell; a negative row is a combination that the plan does not have. */
  function bind(node, row, more, context) {
    const { dataset, marks, state } = context;
    const before = node.dataset.row === String(row) ? node.querySelector("img.preview") : null;
    node.dataset.row = row;
    if (row < 0) {
      node.className = "cell none";
      node.removeAttribute("data-trial");
      node.setAttribute("aria-label", "not in the plan");
      node.title = "Not in the plan: `exclude`, `where` or `sample` of the experiment leaves it out";
      node.replaceChildren();
      return;
    }
    const status = dataset.status(row);
    const files = dataset.files(row);
    node.className = `cell ${status}`;
    node.dataset.trial = dataset.trial(row);
    node.draggable = files.length > 0;
    const reason = [dataset.reason(row), checkReason(dataset, row)].filter(Boolean).join("\n");
    node.title = reason ? `${dataset.title(row)}\n${reason}` : dataset.title(row);
    const parts = [frame(files, status, dataset.reason(row), row, context, before)];
    if (more || files.length > 4) parts.push(el("span", { class: "badge" }, more ? `+${more}` : `${files.length}`));
    const check = dataset.check(row);
    if (check) parts.push(verdict(check, node, state.size));
    if (state.captions) parts.push(el("span", { class: "caption" }, caption(row, context)));
    node.replaceChildren(...parts);
    node.style.setProperty("--tint", context.tint(row));
    mark(node, row, marks, context);
  }

  /** A combination whose trials this view leaves out, but the plan has. */
  function leftOut(node) {
    node.classList.add("filtered");
    node.setAttribute("aria-label", "left out by the filter");
    node.title = "Left out by the filter, or by what is chosen for the other axes";
  }

  const SIGNS = { same: "=", changed: "≠", new: "+", missing: "−", failed: "!", "not compared": "?" };

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
    if (files.length === 1 && files[0].kind === "image" && files[0].thumb) {
      return media(files[0], { src: source(files[0]), load, box, frame: true });
    }
    const shown = files.slice(0, state.size >= 96 ? 4 : 1);
    const part = shown.length > 1 ? [(box[0] - 2) / 2, shown.length > 2 ? (box[1] - 2) / 2 : box[1]] : box;
    const each = shown.map((file) => media(file, { src: source(file), load, box: part }));
    return el("span", { class: shown.length > 1 ? "frame several" : "frame" }, each);
  }

  function caption(row, { dataset, colour, free }) {
    if (colour) return colour.label(row) || "no value";
    return free.length ? free.map((axis) => axis.label(row)).join(" · ") : `trial ${dataset.trial(row)}`;
  }

  /** Verdict and stars on a bound cell; also what a screen reader says of it. */
  function mark(node, row, marks, { dataset }) {
    const { verdict, stars, comment } = marks.get(row);
    node.classList.toggle("keep", verdict === "keep");
    node.classList.toggle("reject", verdict === "reject");
    node.querySelector(".stars")?.remove();
    const text = (STARS[stars] ?? "") + (comment ? " ✎" : "");
    if (text) node.append(el("span", { class: "stars" }, text));
    const words = [
      `trial ${dataset.trial(row)}`,
      dataset.title(row),
      dataset.status(row),
      dataset.reason(row),
      checkReason(dataset, row),
      verdict,
      stars ? `${stars} stars` : "",
      comment ?? "",
    ];
    node.setAttribute("aria-label", words.filter(Boolean).join(", "));
  }

  sweeper.cell = { address, bind, create, leftOut, mark, media, STARS };
})((globalThis.sweeper ??= {}));
