// What varies: a card for each axis, its values in their form, which axes vary together, and `where`.

import { edit, redraw, toggle, TYPING, ui } from "./app.js";
import { makeChips } from "./chips.js";
import { makeMenu, makeValueField } from "./fields.js";
import { countThings, describeValues, findForm, findInput, findProblems, isOfFilter, listRange, makeRange, nameAxis, nameInput, splitLines, toLabel, toPlain, toSource, toText } from "./model.js";
import { h } from "./render.js";
/** @import { Axis, Input, State } from "./model.js" */
/** @import { Child, Item } from "./render.js" */

/** @type {Record<string, string>} */
const FORM_NAMES = {
  values: "a list of values", range: "from ... to", seeds: "random seeds", lines: "lines of a file", csv: "a column of a CSV file",
  jsonl: "a field of JSON Lines", models: "all files of a model folder", files: "files that match", choices: "a text with {one|other}", replace: "a word in the text",
};
/** @type {Record<string, string[]>} */
const FORMS = { integer: ["values", "range", "seeds"], number: ["values", "range"], string: ["values", "lines", "csv", "jsonl", "choices", "replace"], file: ["values", "files"] };
/** @type {Record<string, string>} */
const FIELD_NAMES = { lines: "Text file", csv: "CSV file", jsonl: "JSON Lines file", models: "Folder/pattern", files: "Pattern", choices: "Text", replace: "Word", with: "Instead, a line each", key: "Drawn from", seeds: "How many" };

/** @param {State} state @returns {Item} */
export function makeAxes(state) {
  const makeSection = (/** @type {Child[]} */ ...content) => h("section", { class: "axes", "aria-labelledby": "axes-title" }, h("h2", { id: "axes-title" }, "What varies"), content);
  if (state.blocks > 1) {
    const items = state.axes.map(({ name, yaml }, index) => h("div", { class: "card", key: index }, h("h3", {}, name), h("pre", {}, yaml)));
    return makeSection(h("p", { class: "dim" }, `The sweep of this file has ${state.blocks} blocks. `, h("a", { href: "#yaml" }, "Edit it as text")), items);
  }
  const cards = state.axes.map((axis) => {
    const group = state.axes.filter(({ zip }) => zip !== null && zip === axis.zip);
    if (group.length < 2) return makeCard(state, axis, false);
    if (group[0] !== axis) return null; // it stands in the group of the first
    const label = `${group.map(({ name }) => name).join(" and ")} vary together`;
    return h("div", { class: "group", key: `group ${axis.name}`, role: "group", "aria-label": label }, h("p", { class: "dim" }, "These vary together: first with first, second with second"), group.map((axis) => makeCard(state, axis, true)));
  });
  const isEmpty = state.axes.length === 0;
  const nothing = state.template ? "Nothing varies yet, so there is one picture. Press Vary beside an input below." : "The file cannot be read. Press File to correct it.";
  const about = h("p", { class: isEmpty ? "empty" : "dim" }, isEmpty ? nothing : "There is a picture for each combination of these values.");
  return makeSection(about, h("div", { class: "cards" }, cards), makeBundleButton(state), (state.axes.length > 1 || state.where !== null) && makeFilter(state));
}

/** @param {State} state @param {Axis} axis @param {boolean} isZipped */
function makeCard(state, axis, isZipped) {
  const { name } = axis;
  const form = findForm(axis.value);
  const input = findInput(state, name);
  const key = input?.address ?? name;
  const problems = findProblems(state, name);
  const size = form === "values" ? axis.value.length : (axis.value?.with?.length ?? axis.value?.seeds ?? null);
  const isOpen = ui.open.has(`more ${key}`);
  const grip = h("span", { class: "grip", draggable: "true", title: "Drag onto another input to vary both together", "aria-hidden": "true", ondragstart: () => setDragged(name), ondragend: () => setDragged("") }, "⠿");
  const offered = !input ? [] : input.choices === null ? (FORMS[input.type] ?? []) : input.model ? ["values", "models"] : [];
  const forms = form in FORM_NAMES && offered.length > 0 ? [...new Set([...offered, form])] : [];
  const acts = h("div", { class: "acts" },
    forms.length > 1 && makeMenu(`How the values of ${name} are given`, forms.map((form) => [form, FORM_NAMES[form]]), form, (chosen) => put(axis, input, convert(axis, input, chosen))),
    state.axes.length > 1 && !isZipped && h("button", { class: "quiet", "aria-expanded": String(isOpen), "aria-label": `More for ${name}`, onclick: () => toggle(`more ${key}`) }, "More"),
    h("button", { class: "quiet", "aria-label": `Do not vary ${name}`, onclick: () => keep(axis, input) }, "Do not vary"));
  const head = h("header", {}, grip, h("h3", {}, input ? toLabel(input) : name), h("span", { class: "dim source" }, input ? toSource(input) : "a name of this experiment"), size !== null && h("span", { class: "dim" }, countThings(size, "value")), acts);
  const isTarget = () => ui.dragged !== "" && ui.dragged !== name;
  const ondrop = () => {
    if (isTarget()) edit({ set: "zip", name: ui.dragged, with: name });
    setDragged("");
  };
  const classes = ["card", problems.length && "wrong", isTarget() && "target"].filter(Boolean).join(" ");
  return h("div", { class: classes, key: `axis ${key}`, role: "group", "aria-label": `${name} varies`, ondrop }, head, makeForm(state, axis, input), problems.map(({ message }) => h("p", { class: "error" }, message)), (isOpen || isZipped) && makeFooter(state, axis, isZipped));
}

/** @param {string} name */
function setDragged(name) {
  ui.dragged = name;
  setTimeout(redraw); // a change of the page now would end a drag that starts
}

/** @param {State} state @param {Axis} axis @param {boolean} isZipped */
function makeFooter(state, axis, isZipped) {
  const { name } = axis;
  if (isZipped) return h("footer", {}, h("button", { onclick: () => edit({ set: "unzip", name }) }, `Vary ${name} alone`));
  const index = state.axes.indexOf(axis);
  const move = (/** @type {number} */ to, /** @type {string} */ text) =>
    h("button", { disabled: to < 0 || to >= state.axes.length, "aria-label": `Move ${name} ${text}`, onclick: () => edit({ set: "move", name, before: state.axes[to > index ? to + 1 : to]?.name ?? null }) }, `Move ${text}`);
  const others = state.axes.filter((other) => other !== axis).map((other) => [other.name, other.name]);
  return h("footer", {}, move(index - 1, "up"), move(index + 1, "down"), makeMenu(`Vary ${name} together with`, [["", "vary together with…"], ...others], "", (other) => edit({ set: "zip", name, with: other })));
}

/** Make an axis stop varying: its first value stays, or else that of the workflow. @param {Axis} axis @param {Input | undefined} input */
function keep({ name, value }, input) {
  const first = Array.isArray(value) && input ? toPlain(value[0]) : undefined;
  edit(first === undefined ? { set: "none", name } : { set: "fixed", ...nameInput(/** @type {Input} */ (input)), value: first });
  ui.focus = `input ${input?.address}`;
}

/** @param {Axis} axis @param {Input | undefined} input @param {any} value @param {number} [delay] */
const put = (axis, input, value, delay) => edit({ set: "axis", ...nameAxis(axis, input), value }, delay);

/** The axis in another form, with the values that it has, as far as that is possible. @param {Axis} axis @param {Input | undefined} input @param {string} form @returns {any} */
function convert(axis, input, form) {
  const values = Array.isArray(axis.value) ? axis.value.map(toPlain) : findForm(axis.value) === "range" ? listRange(axis.value) : [input?.value];
  const text = toText(input?.value);
  const word = (text.match(/[\p{L}\p{N}]+/gu) ?? []).reduce((best, word) => (word.length > best.length ? word : best), "");
  const step = input?.type === "integer" ? Math.max(1, input.step ?? 1) : (input?.step ?? 0.1);
  /** @type {Record<string, any>} */
  const forms = {
    values, range: makeRange(values.map(Number), step), seeds: { seeds: Math.max(3, values.length) }, csv: { csv: "prompts.csv", column: "text" },
    jsonl: { jsonl: "prompts.jsonl", column: "prompt" }, models: { models: `${/lora/i.test(axis.name) ? "loras" : "checkpoints"}/*` },
    replace: { replace: word, with: [word] }, lines: { lines: "prompts.txt" }, files: { files: "inputs/*.png" }, choices: { choices: text },
  };
  return forms[form];
}

/** @param {State} state @param {Axis} axis @param {Input | undefined} input */
function makeForm(state, axis, input) {
  const { value } = axis;
  const form = findForm(value);
  if (form === "values") return makeChips(state, axis);
  if (!(form in FORM_NAMES)) return h("div", {}, h("pre", {}, axis.yaml), h("a", { href: "#yaml" }, "Edit it as text"));
  const isRange = form === "range";
  const fields = Object.keys(value).filter((name) => !["scale", "none", "columns"].includes(name)).map((name) => {
    const isList = name === "with";
    const isCount = name === "seeds" || name === "count";
    const type = isCount || (isRange && input?.type === "integer") ? "integer" : isRange ? "number" : "string";
    const like = /** @type {any} */ ({ type, schema: isCount ? { minimum: 1 } : null, choices: null, multiline: isList || name === "choices" });
    const label = FIELD_NAMES[name] ?? name;
    const key = `form ${axis.name} ${name}`;
    const onValue = (/** @type {any} */ given) => put(axis, input, { ...value, [name]: isList ? splitLines(given) : given }, TYPING);
    const field = makeValueField(like, isList ? value.with.map(toText).join("\n") : value[name], { key, label: `${label} of ${axis.name}`, onValue });
    return h("div", { class: isRange || isCount ? "row short" : "row", key }, h("span", { "aria-hidden": "true" }, label), field);
  });
  const respace = (/** @type {string} */ how) => put(axis, input, how === "step" ? makeRange([value.from, value.to], 1) : { from: value.from, to: value.to, count: Math.max(2, listRange(value).length) });
  const menus = isRange && [
    makeMenu("Spacing", [["step", "by step"], ["count", "by count"]], "step" in value ? "step" : "count", respace),
    "count" in value && makeMenu("Scale", [["linear", "linear"], ["log", "log"]], value.scale ?? "linear", (scale) => put(axis, input, { ...value, scale })),
  ];
  const gives = form === "seeds" ? "sweeper draws them, the same in every run" : isRange ? describeValues(listRange(value)) : "";
  return h("div", {}, h("div", { class: "fields" }, fields, menus), gives !== "" && h("p", { class: "dim gives" }, gives));
}

/** @param {State} state */
function makeBundleButton(state) {
  const isFree = (/** @type {string | null} */ name) => ![...state.axes, ...state.fixed].some((given) => given.name === name);
  const input = state.inputs.find(({ slot, type }) => slot !== null && type !== "object" && isFree(slot));
  const name = ["look", "setup", "format"].find((name) => isFree(name) && !findInput(state, name)) ?? `look-${state.axes.length}`;
  const onclick = () => {
    edit({ set: "axis", name, value: [{ label: "first", set: { [/** @type {string} */ (input?.slot)]: input?.value } }] });
    ui.chip = `${name} 0`;
    ui.focus = `label ${name} 0`;
  };
  return input && h("button", { class: "quiet", title: "Such as portrait: a width and a height", onclick }, "Add a named value that sets several inputs");
}

/** The field for `where`. The browser completes the last word: each option is the whole text with another end. @param {State} state */
function makeFilter(state) {
  const problems = state.problems.filter(isOfFilter);
  const names = new Set([...state.axes.map(({ name }) => name), ...state.inputs.flatMap(({ slot }) => slot ?? [])]);
  const start = (state.where ?? "").replace(/[A-Za-z_][\w-]*$/, "");
  const oninput = (/** @type {any} */ event) => edit({ set: "where", value: event.target.value.trim() === "" ? null : event.target.value }, TYPING);
  const field = h("input", { class: "text", id: "where", list: "names", autocomplete: "off", "aria-invalid": problems.length > 0 && "true", value: state.where ?? "", placeholder: "all combinations; or such as: steps * width <= 16384", oninput, onblur: redraw });
  const list = h("datalist", { id: "names" }, [...names].map((name) => h("option", { value: start + name })));
  return h("div", { class: "filter" }, h("label", { for: "where" }, "Only where"), field, list, problems.map(({ message }) => h("p", { class: "error" }, message)));
}
