// One cell of the grid: its pictures, or why there are none, and what is said about it.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;
  const STARS = ["", "★", "★★", "★★★", "★★★★", "★★★★★"];
  const WORDS = { failed: "failed", cancelled: "cancelled", pending: "not run yet", succeeded: "no file" };

  /** Address of a file of the report: its parts are names of files, whatever stands in them. */
  const address = (path) => path.split("/").map(encodeURIComponent).join("/");

  /** What shows a file: a picture, a player, or a plain word for what a browser cannot show. */
  function media(file, { full = false } = {}) {
    if (file.kind === "missing") return el("span", { class: "word" }, "file is gone");
    if (file.kind === "image" && (file.thumb || full || /\.(svg|avif)$/.test(file.path))) {
      const src = address(full ? file.path : (file.thumb ?? file.path));
      return el("img", { src, alt: "", decoding: "async", draggable: full ? "true" : "false" });
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
    node.dataset.row = row;
    if (row < 0) {
      node.className = "cell none";
      node.removeAttribute("data-trial");
      node.setAttribute("aria-label", "not in the plan");
      node.title = "Not in the plan: excluded, dropped by a rule, not sampled, or filtered away";
      node.replaceChildren();
      return;
    }
    const status = dataset.status(row);
    const files = dataset.files(row);
    node.className = `cell ${status}`;
    node.dataset.trial = dataset.trial(row);
    const reason = dataset.reason(row);
    node.title = reason ? `${dataset.title(row)}\n${reason}` : dataset.title(row);
    const parts = [frame(files, status, reason, state.size)];
    if (more || files.length > 4) parts.push(el("span", { class: "badge" }, more ? `+${more}` : `${files.length}`));
    if (state.captions) parts.push(el("span", { class: "caption" }, caption(row, context)));
    node.replaceChildren(...parts);
    node.style.setProperty("--tint", context.tint(row));
    mark(node, row, marks, context);
  }

  function frame(files, status, reason, size) {
    const holder = el("span", { class: "frame" });
    if (files.length === 0) {
      holder.append(el("span", { class: "word" }, WORDS[status]));
      if (size >= 96 && status === "failed") holder.append(el("span", { class: "why" }, reason));
      return holder;
    }
    const shown = files.slice(0, size >= 96 ? 4 : 1);
    if (shown.length > 1) holder.classList.add("several");
    holder.append(...shown.map((file) => media(file)));
    if (files[0].colour && shown.length === 1) holder.style.backgroundColor = files[0].colour;
    return holder;
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
      verdict,
      stars ? `${stars} stars` : "",
      comment ?? "",
    ];
    node.setAttribute("aria-label", words.filter(Boolean).join(", "));
  }

  sweeper.cell = { address, bind, create, mark, media, STARS };
})((globalThis.sweeper ??= {}));
