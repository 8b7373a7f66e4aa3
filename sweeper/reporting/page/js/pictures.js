// Two pictures, compared: side by side, blinking, under a slider, or their difference. Pixels are never read, which a
// page opened from a disk may not do: the canvas subtracts them.
"use strict";

(function (sweeper) {
  const { el } = sweeper.dom;

  /**
   * A view of one or two files. `mode` is one of state.MODES; with one file, or with one that is no picture, what can be
   * shown is. `names`: of A, of B ("" where there is no B: it may be there and have no such file), and why A has none.
   */
  function compare(mode, a, b, names) {
    if (mode === "single" || names.b === "")
      return el("div", { class: "stage single" }, a ? full(a) : el("p", { class: "word" }, names.none));
    if (mode === "side" || a === undefined || b === undefined || a.kind !== "image" || b.kind !== "image") {
      return el("div", { class: "stage side-by-side" }, figure(a, "A", names.a), figure(b, "B", names.b));
    }
    if (mode === "slider") return slider(a, b, names);
    return mode === "difference" ? difference(a, b) : blink(a, b, names);
  }

  const full = (file) => sweeper.cell.media(file, { full: true });
  const figure = (file, letter, name) =>
    el(
      "figure",
      {},
      file ? full(file) : el("p", { class: "word" }, "no such file"),
      el("figcaption", {}, el("b", {}, letter), ` ${name}`),
    );

  function blink(a, b, names) {
    const second = full(b);
    const says = el("figcaption", {}, `A ${names.a}`);
    let showsB = false;
    const flip = () => {
      showsB = !showsB;
      second.style.visibility = showsB ? "visible" : "hidden";
      says.textContent = showsB ? `B ${names.b}` : `A ${names.a}`;
    };
    second.style.visibility = "hidden";
    const stack = el("div", { class: "stack" }, full(a), second);
    let beat = setInterval(flip, 600);
    const pause = el(
      "button",
      {
        type: "button",
        "aria-pressed": "false",
        onclick() {
          if (beat) {
            clearInterval(beat);
            beat = 0;
          } else beat = setInterval(flip, 600);
          pause.setAttribute("aria-pressed", String(!beat));
        },
      },
      "Pause",
    );
    const node = el(
      "div",
      { class: "stage" },
      stack,
      el("div", { class: "strip" }, pause, el("button", { type: "button", onclick: flip }, "Flip"), says),
    );
    node.addEventListener("sweeper-gone", () => clearInterval(beat));
    return node;
  }

  function slider(a, b, names) {
    const over = full(b);
    const range = el("input", {
      type: "range",
      min: 0,
      max: 100,
      value: 50,
      "aria-label": "How much of A is seen",
      oninput: place,
    });
    function place() {
      over.style.clipPath = `inset(0 0 0 ${range.value}%)`;
      line.style.left = `${range.value}%`;
    }
    const line = el("div", { class: "slider-line" });
    const stack = el(
      "div",
      {
        class: "stack",
        onpointermove: (event) => {
          if (event.buttons !== 1 && event.pointerType === "mouse") return;
          const box = stack.getBoundingClientRect();
          range.value = String(((event.clientX - box.left) / box.width) * 100);
          place();
        },
      },
      full(a),
      over,
      line,
    );
    stack.addEventListener("dragstart", (event) => event.preventDefault());
    place();
    return el("div", { class: "stage" }, stack, el("div", { class: "strip" }, `A ${names.a}`, range, `B ${names.b}`));
  }

  function difference(a, b) {
    const canvas = el("canvas", {
      role: "img",
      "aria-label": "Difference of the two pictures; black where they are equal",
    });
    const gain = el("input", {
      type: "range",
      min: 0,
      max: 6,
      step: 1,
      value: 2,
      "aria-label": "How much differences are amplified",
      oninput: amplify,
    });
    const says = el("span", {});
    function amplify() {
      canvas.style.filter = `brightness(${2 ** gain.value})`;
      says.textContent = `× ${2 ** gain.value}`;
    }
    amplify();
    const pictures = [a, b].map((file) => Object.assign(new Image(), { src: sweeper.cell.address(file.path) }));
    Promise.all(pictures.map((picture) => picture.decode())).then(
      () => {
        const [one, two] = pictures;
        if (one.naturalWidth !== two.naturalWidth || one.naturalHeight !== two.naturalHeight) {
          says.textContent = `${one.naturalWidth} × ${one.naturalHeight} against ${two.naturalWidth} × ${two.naturalHeight}: pictures of different size have no difference`;
          return;
        }
        [canvas.width, canvas.height] = [one.naturalWidth, one.naturalHeight];
        const pen = canvas.getContext("2d");
        pen.drawImage(one, 0, 0);
        pen.globalCompositeOperation = "difference";
        pen.drawImage(two, 0, 0);
        canvas.dataset.done = "true";
      },
      () => (says.textContent = "one of the pictures cannot be read"),
    );
    return el(
      "div",
      { class: "stage" },
      el("div", { class: "stack" }, canvas),
      el("div", { class: "strip" }, "difference", gain, says),
    );
  }

  sweeper.pictures = { compare };
})((globalThis.sweeper ??= {}));
