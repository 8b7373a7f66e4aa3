"use strict";
// The page of a check: which case is looked at, how, and which are accepted. What is accepted is kept in the browser
// until the next check, and leaves it only as a list of names for `sweeper accept --cases`.
const sections = [...document.querySelectorAll("section")];
const list = document.querySelector("textarea");
const taken = new Set();
const memory = `sweeper-check-${document.body.dataset.key}`;
let at = -1;

function choose(place) {
  if (!sections.length) return;
  if (at >= 0) sections[at].classList.remove("chosen");
  at = Math.min(Math.max(place, 0), sections.length - 1);
  sections[at].classList.add("chosen");
  sections[at].focus({ preventScroll: true });
  sections[at].scrollIntoView({ block: "nearest" });
}

function look(mode) {
  document.body.dataset.mode = mode;
  for (const button of document.querySelectorAll("[data-look]"))
    button.setAttribute("aria-pressed", String(button.dataset.look === mode));
  if (at >= 0) sections[at].scrollIntoView({ block: "nearest" });
}

function show() {
  for (const section of sections) {
    const yes = taken.has(section.dataset.case);
    section.classList.toggle("taken", yes);
    const box = section.querySelector("input[type=checkbox]");
    if (box) box.checked = yes;
  }
  const names = sections.map((section) => section.dataset.case).filter((name) => taken.has(name));
  list.value = names.map((name) => name + "\n").join("");
  document.querySelector("#count").textContent = String(names.length);
  return names;
}

// Only a change is kept: a page that is loaded anew at once may be told an older list, and is not to keep that.
function changed() {
  const names = show();
  try {
    localStorage.setItem(memory, JSON.stringify(names));
  } catch { /* a browser that keeps nothing: the list is on the page all the same */ }
}

function take(section, yes = !taken.has(section.dataset.case)) {
  if (!section.querySelector("input[type=checkbox]")) return;
  if (yes) taken.add(section.dataset.case);
  else taken.delete(section.dataset.case);
}

function takeAll() {
  const yes = sections.some((one) => one.querySelector("input[type=checkbox]") && !taken.has(one.dataset.case));
  for (const section of sections) take(section, yes);
  changed();
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([list.value], { type: "text/plain" }));
  link.download = "accepted.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const keys = {
  j: () => choose(at + 1), ArrowDown: () => choose(at + 1),
  k: () => choose(at - 1), ArrowUp: () => choose(at - 1),
  s: () => look("side"), b: () => look("blink"), l: () => look("slider"), d: () => look("difference"),
  a: () => { if (at >= 0) { take(sections[at]); changed(); choose(at + 1); } },
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea, input[type=range], video, audio")) return;
  const act = keys[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
for (const button of document.querySelectorAll("[data-look]")) button.addEventListener("click", () => look(button.dataset.look));
document.querySelector("#all").addEventListener("click", takeAll);
document.querySelector("#save").addEventListener("click", save);
sections.forEach((section, place) => {
  section.addEventListener("click", (event) => { if (!event.target.closest("label, input, a, video, audio") && place !== at) choose(place); });
  section.querySelector("input[type=checkbox]")?.addEventListener("change", (event) => { take(section, event.target.checked); changed(); });
  const slider = section.querySelector("input[type=range]");
  slider?.addEventListener("input", () => section.querySelector(".pile").style.setProperty("--at", `${slider.value}%`));
});
setInterval(() => document.body.classList.toggle("turn"), 600);
try {
  for (const name of JSON.parse(localStorage.getItem(memory) ?? "[]")) taken.add(name);
} catch { /* as above */ }
show();
