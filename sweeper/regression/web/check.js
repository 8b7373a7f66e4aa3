// @ts-check
// The page of a check: moves between cases, switches how two pictures are compared, and collects the cases to accept.
// The selection is kept in the browser until the next check. It is used by saving it for `sweeper accept --cases`.
"use strict";

(() => {
  const sections = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("section")]);
  const list = find(document, "textarea", HTMLTextAreaElement);
  /** @type {Set<string>} names of cases */
  const accepted = new Set();
  const storageKey = `sweeper-check-${document.body.dataset.key}`;
  let current = -1; // index of a section

  /**
   * The element of the page that a selector finds.
   * @template {Element} E
   * @param {ParentNode} root @param {string} selector @param {new () => E} type
   */
  function find(root, selector, type) {
    const node = root.querySelector(selector);
    if (!(node instanceof type)) throw new Error(`the page has no ${selector}`);
    return node;
  }

  /** @param {HTMLElement} section */
  const getName = (section) => section.dataset.case ?? "";

  /**
   * The check box that accepts a case; a case without a new picture has none.
   * @param {HTMLElement} section @returns {HTMLInputElement | null}
   */
  const findBox = (section) => section.querySelector("input[type=checkbox]");

  /** @param {number} index */
  function choose(index) {
    if (sections.length === 0) return;
    sections[current]?.classList.remove("chosen");
    current = Math.min(Math.max(index, 0), sections.length - 1);
    sections[current].classList.add("chosen");
    sections[current].focus({ preventScroll: true });
    sections[current].scrollIntoView({ block: "nearest" });
  }

  /** @param {string} mode */
  function setMode(mode) {
    document.body.dataset.mode = mode;
    for (const button of modeButtons) button.setAttribute("aria-pressed", String(button.dataset.look === mode));
    sections[current]?.scrollIntoView({ block: "nearest" });
  }

  /** Show which cases are accepted; returns their names. */
  function show() {
    for (const section of sections) {
      const isAccepted = accepted.has(getName(section));
      section.classList.toggle("taken", isAccepted);
      const box = findBox(section);
      if (box) box.checked = isAccepted;
    }
    const names = sections.map(getName).filter((name) => accepted.has(name));
    list.value = names.map((name) => name + "\n").join("");
    find(document, "#count", HTMLElement).textContent = String(names.length);
    return names;
  }

  /** Show and save a change. Nothing else is saved: a page that is reloaded quickly may read an older list. */
  function save() {
    const names = show();
    try {
      localStorage.setItem(storageKey, JSON.stringify(names));
    } catch {
      // This browser stores nothing for the page: the list is still on the page.
    }
  }

  /**
   * @param {HTMLElement} section
   * @param {boolean} [isAccepted] by default the opposite of before
   */
  function accept(section, isAccepted = !accepted.has(getName(section))) {
    if (!findBox(section)) return;
    if (isAccepted) accepted.add(getName(section));
    else accepted.delete(getName(section));
  }

  function acceptAllOrNone() {
    const isAnyLeft = sections.some((section) => findBox(section) && !accepted.has(getName(section)));
    for (const section of sections) accept(section, isAnyLeft);
    save();
  }

  function acceptCurrent() {
    if (current < 0) return;
    accept(sections[current]);
    save();
    choose(current + 1);
  }

  function downloadList() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([list.value], { type: "text/plain" }));
    link.download = "accepted.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** @type {Record<string, () => void>} */
  const keys = {
    j: () => choose(current + 1),
    ArrowDown: () => choose(current + 1),
    k: () => choose(current - 1),
    ArrowUp: () => choose(current - 1),
    s: () => setMode("side"),
    b: () => setMode("blink"),
    l: () => setMode("slider"),
    d: () => setMode("difference"),
    a: acceptCurrent,
  };

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const isOwn = event.target instanceof Element && event.target.matches("textarea, input[type=range], video, audio");
    const act = keys[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || isOwn || act === undefined) return;
    event.preventDefault();
    act();
  }

  /** @param {HTMLElement} section @param {number} index */
  function listen(section, index) {
    section.addEventListener("click", (event) => {
      const isControl = event.target instanceof Element && event.target.closest("label, input, a, video, audio");
      if (!isControl && index !== current) choose(index);
    });
    const box = findBox(section);
    box?.addEventListener("change", () => {
      accept(section, box.checked);
      save();
    });
    const slider = /** @type {HTMLInputElement | null} */ (section.querySelector("input[type=range]"));
    slider?.addEventListener("input", () => find(section, ".pile", HTMLElement).style.setProperty("--at", `${slider.value}%`));
  }

  const modeButtons = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-look]")]);
  for (const button of modeButtons) button.addEventListener("click", () => setMode(button.dataset.look ?? "side"));
  document.addEventListener("keydown", onKey);
  find(document, "#all", HTMLElement).addEventListener("click", acceptAllOrNone);
  find(document, "#save", HTMLElement).addEventListener("click", downloadList);
  sections.forEach(listen);
  setInterval(() => document.body.classList.toggle("turn"), 600); // for the blinking mode
  try {
    for (const name of JSON.parse(localStorage.getItem(storageKey) ?? "[]")) accepted.add(name);
  } catch {
    // as in `save`
  }
  show();
})();
