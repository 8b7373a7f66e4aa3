// What one can give to others of the page: one file, a picture or a PDF of what is shown, and the address.

import { announce, copyText, el, makeButton, makePanel } from "../../../serving/page/js/dom.js";
import * as PrintSheet from "./print_sheet.js";
import * as Workflow from "./workflow.js";
/** @import { Page } from "./main.js" */

const MAX_NAMED = 200; // trials in a command

/** The menu `Share`. A page that a server of sweeper shows makes the files itself; one from a disk knows the command. @param {Page} page */
export function create(page) {
  const name = page.dataset.raw.experiment.replace(/[^\w-]+/g, "-");
  const isServed = location.protocol.startsWith("http") && page.dataset.raw.live !== undefined;
  /** @param {string} text @param {string} title @param {string} file @param {"--one-file" | "--sheet"} option */
  const makeExport = (text, title, file, option) =>
    isServed
      ? makeButton(text, () => download(page, file), { title })
      : makeButton(`Copy command: ${text}`, () => copyText(makeCommand(page, file, option), "command"), { title });
  return makePanel(
    "Share",
    makeExport("one file", "A page with its pictures inside, to send", `${name}.html`, "--one-file"),
    makeExport("contact sheet", "A picture of the grid", `${name}.png`, "--sheet"),
    makeButton("Print or save as PDF", () => PrintSheet.print(page), { title: "The whole arrangement, on pages" }),
    makeButton("Copy address", () => copyText(location.href, "address"), { title: "It opens this view" }),
  );
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
  const body = JSON.stringify({ file, x, y, trials: describeShown(page), address: location.hash });
  try {
    const answer = await fetch("share", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!answer.ok) throw new Error(await answer.text());
    const url = URL.createObjectURL(await answer.blob());
    el("a", { href: url, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    announce(`${file} is saved`);
  } catch (error) {
    announce(`${file} cannot be made: ${error instanceof Error ? error.message : error}`);
  }
}
