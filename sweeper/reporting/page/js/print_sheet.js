// The whole arrangement of the grid as tables, for paper: the grid itself has only the cells that are in view.

import { el, toUrl } from "../../../serving/page/js/dom.js";
import * as Layout from "./layout.js";
/** @import { Page } from "./main.js" */

const MAX_CELLS = 3000; // a browser needs a minute for more
const MAX_COLUMNS = 8; // of one table; further columns follow below
const SHEET = "print-sheet"; // id of the element that only paper shows

/** @param {Page} page */
export function listen(page) {
  addEventListener("beforeprint", () => put(page));
  addEventListener("afterprint", () => document.getElementById(SHEET)?.remove());
}

/** Print when all pictures are there. @param {Page} page */
export async function print(page) {
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
      const title = [nameValue(heads.yy, down.outer), nameValue(heads.xx, across.outer)].filter(Boolean).join(" · ");
      return [el("h2", {}, title), makeTable(page, down, across)];
    }),
  );
  const { experiment } = page.dataset.raw;
  const note = left < 0 ? `, of which the first ${MAX_CELLS.toLocaleString("en")} cells are printed` : "";
  return [el("h1", {}, experiment), ...tables, el("p", {}, `${shown.toLocaleString("en")} trials${note} · made with sweeper`)];
}

/** @param {Layout.Head | undefined} head @param {number} code */
const nameValue = (head, code) => (head ? `${head.name} ${head.labelOf(code)}` : "");

/** @param {{from: number, to: number}} range */
const listRange = ({ from, to }) => Array.from({ length: to - from }, (_, index) => from + index);

/** @param {Page} page @param {{from: number, to: number}} down @param {{from: number, to: number}} across */
function makeTable(page, down, across) {
  const { columns, rows, heads } = page.getArrangement();
  const top = heads.x ? [el("thead", {}, el("tr", {}, heads.y ? el("td") : null, listRange(across).map((c) => el("th", {}, nameValue(heads.x, columns[c].inner)))))] : [];
  const body = listRange(down).map((r) =>
    el("tr", {}, heads.y ? el("th", {}, nameValue(heads.y, rows[r].inner)) : null, listRange(across).map((c) => makeCell(page, r, c))),
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
