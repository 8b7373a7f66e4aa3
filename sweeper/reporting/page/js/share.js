// What one can give to others of the page: one file, a picture or a PDF of what is shown, and the address.

import { announce, copyText, el, makeButton, makePanel, postJson, saveFile, toUrl } from "../../../serving/page/js/dom.js";
import * as Layout from "./layout.js";
import * as Workflow from "./workflow.js";
/** @import { Page } from "./main.js" */

const MAX_NAMED = 200; // trials in a command

/** The menu `Share`. A server makes files, and a page of one file a copy; a page in a folder may read no file, so it has commands. @param {Page} page */
export function create(page) {
  const { experiment, live, first } = page.dataset.raw;
  const name = experiment.replace(/[^\w-]+/g, "-");
  const isServed = location.protocol.startsWith("http") && live !== undefined;
  /** @param {string} text @param {string} title @param {string} file @param {"--one-file" | "--sheet"} option */
  const makeExport = (text, title, file, option) =>
    isServed
      ? makeButton(text, () => download(page, file), { title })
      : makeButton(`Copy command: ${text}`, () => copyText(makeCommand(page, file, option), "command"), { title });
  const exports = [makeExport("one file", "A page with its pictures inside, to send", `${name}.html`, "--one-file"), makeExport("contact sheet", "A picture of the grid", `${name}.png`, "--sheet")];
  const copy = makeButton("Save a copy with this view and these marks", () => saveCopy(page, `${name}.html`), { title: "One file with all trials and pictures, to send" });
  const hint = el("p", { class: "dim" }, "This page cannot write files. To make one, paste a command into a terminal, in the folder from which you ran sweeper.");
  return makePanel("Share",
    first?.address !== undefined ? copy : isServed ? exports : [hint, ...exports],
    makeButton("Print or save as PDF", () => print(page), { title: "The whole arrangement, on pages" }),
    makeButton("Copy address", () => copyText(location.href, "address"), { title: "It opens this view" }),
  );
}

/** Save this page of one file again. What its script made goes, and is made anew. @param {Page} page @param {string} file */
function saveCopy({ marks }, file) {
  announce(`${file} is saved`); // by an element that the copy needs in its place
  const copy = /** @type {HTMLElement} */ (document.documentElement.cloneNode(true));
  for (const node of copy.querySelectorAll("body > :not(script, noscript)")) {
    node.replaceChildren();
    node.removeAttribute("class");
  }
  const change = JSON.stringify({ first: { address: location.hash }, marks: Object.fromEntries(marks.byDigest) });
  const [data] = document.scripts;
  copy.querySelector("script")?.after(el("script", { nonce: data.nonce }, `Object.assign(sweeper.raw, ${change.replaceAll("<", "\\u003c")});`));
  saveFile(file, "text/html", `<!doctype html>\n${copy.outerHTML}`);
}

/** The trials that are shown, as ranges such as `0-99,120`; empty for all. @param {Page} page */
function describeShown(page) {
  const rows = page.getRows();
  if (rows.length === page.dataset.size) return "";
  /** @type {[number, number][]} */
  const ranges = [];
  for (const trial of rows.map((row) => page.dataset.trial(row)).sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last[1] === trial - 1) last[1] = trial;
    else ranges.push([trial, trial]);
  }
  return ranges.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
}

/** @param {Page} page @param {string} file @param {string} option */
function makeCommand(page, file, option) {
  const { dataset } = page;
  const { x, y } = page.getState();
  const rows = page.getRows();
  const words = ["sweeper", "report", dataset.raw.results, option, file];
  if (option === "--sheet") words.push(...(x ? ["--x", x] : []), ...(y ? ["--y", y] : []));
  if (rows.length < dataset.size) {
    if (rows.length > MAX_NAMED) announce(`the command takes all trials: ${rows.length} cannot be named; add --where or --marked`);
    else words.push("--where", `trial in [${rows.map((row) => dataset.trial(row)).join(", ")}]`);
  }
  return words.map(Workflow.quoteWord).join(" ");
}

/** @param {Page} page @param {string} file */
async function download(page, file) {
  const { x, y } = page.getState();
  announce(`${file} is being made…`);
  try {
    const answer = await postJson("share", { file, x, y, trials: describeShown(page), address: location.hash });
    if (!answer.ok) throw new Error(await answer.text());
    const url = URL.createObjectURL(await answer.blob());
    el("a", { href: url, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    announce(`${file} is saved`);
  } catch (error) {
    announce(`${file} cannot be made: ${error instanceof Error ? error.message : error}`);
  }
}

// --- on paper: the whole arrangement of the grid as tables, because the grid itself has only the cells that are in view

const MAX_CELLS = 3000; // a browser needs a minute for more
const MAX_COLUMNS = 8; // of one table; further columns follow below
const SHEET = "print-sheet"; // id of the element that only paper shows

/** @param {Page} page */
export function listenToPrint(page) {
  addEventListener("beforeprint", () => put(page));
  addEventListener("afterprint", () => document.getElementById(SHEET)?.remove());
}

/** Print when all pictures are there. @param {Page} page */
async function print(page) {
  const images = [...put(page).querySelectorAll("img")];
  await Promise.allSettled(images.map((image) => image.decode()));
  globalThis.print();
}

/** @param {Page} page @returns {HTMLElement} */
function put(page) {
  const there = document.getElementById(SHEET);
  if (there) return there;
  const isGrid = ["grid", "gallery"].includes(page.getState().view);
  const sheet = el("section", { id: SHEET, class: isGrid ? "" : "empty" }, isGrid ? makeTables(page) : []);
  document.body.append(sheet);
  return sheet;
}

/** @param {Page} page */
function makeTables(page) {
  const { columns, rows, heads, find, shown } = page.getArrangement();
  const parts = Layout.groupByOuter(columns).flatMap(({ outer, from, to }) =>
    Array.from({ length: Math.ceil((to - from) / MAX_COLUMNS) }, (_, part) => {
      const start = from + part * MAX_COLUMNS;
      return { outer, from: start, to: Math.min(to, start + MAX_COLUMNS) };
    }),
  );
  let left = MAX_CELLS;
  const tables = Layout.groupByOuter(rows).flatMap((down) =>
    parts.flatMap((across) => {
      if (!listRange(down).some((r) => listRange(across).some((c) => find(r, c) >= 0))) return [];
      left -= (down.to - down.from) * (across.to - across.from);
      if (left < 0) return [];
      const title = [Layout.nameValue(heads.yy, down.outer), Layout.nameValue(heads.xx, across.outer)].filter(Boolean).join(" · ");
      return [el("h2", {}, title), makeTable(page, down, across)];
    }),
  );
  const { experiment } = page.dataset.raw;
  const note = left < 0 ? `, of which the first ${MAX_CELLS.toLocaleString("en")} cells are printed` : "";
  return [el("h1", {}, experiment), ...tables, el("p", {}, `${shown.toLocaleString("en")} trials${note} · made with sweeper`)];
}

/** @param {{from: number, to: number}} range */
const listRange = ({ from, to }) => Array.from({ length: to - from }, (_, index) => from + index);

/** @param {Page} page @param {{from: number, to: number}} down @param {{from: number, to: number}} across */
function makeTable(page, down, across) {
  const { columns, rows, heads } = page.getArrangement();
  const top = heads.x ? [el("thead", {}, el("tr", {}, heads.y ? el("td") : null, listRange(across).map((c) => el("th", {}, Layout.nameValue(heads.x, columns[c].inner)))))] : [];
  const body = listRange(down).map((r) =>
    el("tr", {}, heads.y ? el("th", {}, Layout.nameValue(heads.y, rows[r].inner)) : null, listRange(across).map((c) => makeCell(page, r, c))),
  );
  return el("table", {}, top, el("tbody", {}, body));
}

/** @param {Page} page @param {number} r @param {number} c */
function makeCell({ dataset, marks, getArrangement }, r, c) {
  const { exists, find } = getArrangement();
  const row = exists && !exists(r, c) ? -1 : find(r, c);
  if (row < 0) return el("td");
  const [file] = dataset.files(row);
  const path = file?.thumb ?? (file?.kind === "image" ? file.path : undefined);
  const { verdict, stars } = marks.get(row);
  const mark = [verdict === "keep" ? "✓ kept" : verdict === "reject" ? "✗ rejected" : "", "★".repeat(stars)].filter(Boolean).join(" ");
  return el("td", {}, path ? el("img", { src: toUrl(path), alt: "" }) : dataset.status(row), el("small", {}, mark));
}
