// The values of an axis as chips: add, edit, label and remove them; several inputs at once by a bundle.

import { edit, redraw, toggle, TYPING, ui, upload } from "./app.js";
import { acceptFiles, describeError, makeFileButton, makeMenu, makePicker, makeValueField, setError, showError, showPicture } from "./fields.js";
import { findInput, findProblems, isLabelled, isNumeric, nameAxis, parseText, shortenTexts, splitLines, splitTyped, toLabel, toName, toPlain, toText } from "./model.js";
import { h } from "./render.js";
/** @import { Axis, Input, State } from "./model.js" */
/** @import { Child } from "./render.js" */

const MOST = 500; // chips that are shown
/** @typedef {{state: State, axis: Axis, items: any[], input: Input | undefined, key: string, set: (items: any[], delay?: number) => void}} Context */

/** @param {State} state @param {Axis} axis */
export function makeChips(state, axis) {
  const input = findInput(state, axis.name);
  const key = input?.address ?? axis.name;
  /** @type {any[]} */
  const items = axis.value;
  /** @type {Context} */
  const context = { state, axis, items, input, key, set: (value, delay) => edit({ set: "axis", ...nameAxis(axis, input), value }, delay) };
  const shown = items.slice(0, MOST);
  const names = shortenTexts(shown.map(toName));
  const wrong = findProblems(state, axis.name).map(({ key }) => /\[(\d+)\][^[]*$/.exec(key ?? "")?.[1]);
  const chips = shown.map((item, index) => makeChip(context, item, index, names[index], wrong.includes(String(index))));
  const [adder, below] = makeAdder(context);
  const open = items.findIndex((_item, index) => ui.chip === `${key} ${index}`);
  const list = h("div", { class: input?.multiline ? "chips texts" : "chips", role: "group", "aria-label": `Values of ${axis.name}` }, chips, items.length > MOST && h("a", { href: "#yaml" }, `${(items.length - MOST).toLocaleString("en-US")} more in the file`), adder);
  return h("div", {}, list, below, open >= 0 && makeEditor(context, items[open], open));
}

/** @type {Record<string, string>} where the arrow keys go from a chip */
const NEIGHBOURS = { ArrowRight: "nextElementSibling", ArrowDown: "nextElementSibling", ArrowLeft: "previousElementSibling", ArrowUp: "previousElementSibling" };

/** @param {any} item */
const isBundle = (item) => isLabelled(item) && "set" in item;

/** Open the editor of a chip, or none, and say where the focus goes. @param {string} chip @param {string} focus */
function openChip(chip, focus) {
  delete ui.errors[`edit ${ui.chip}`];
  ui.chip = chip;
  ui.focus = focus;
  redraw();
}

/** @param {Context} context @param {any} item @param {number} index @param {string} name @param {boolean} isWrong */
function makeChip(context, item, index, name, isWrong) {
  const chip = `${context.key} ${index}`;
  const isOpen = ui.chip === chip;
  const plain = toPlain(item);
  const toLabel = () => openChip(chip, `label ${chip}`);
  const onkeydown = (/** @type {any} */ event) => {
    const side = NEIGHBOURS[event.key];
    if (side) event.currentTarget.parentElement[side]?.firstElementChild.focus();
    else if (event.key === "Delete" || event.key === "Backspace") remove(context, index);
    else return;
    event.preventDefault();
  };
  const onclick = () => (isOpen ? openChip("", `chip ${chip}`) : isBundle(item) ? toLabel() : openChip(chip, `edit ${chip}`));
  const sets = isBundle(item) && h("span", { class: "dim" }, Object.entries(item.set).map(([slot, value]) => `${slot} ${toText(value)}`).join(", "));
  const attributes = { class: isWrong ? "chip wrong" : "chip", "data-key": `chip ${chip}`, title: toText(isBundle(item) ? item.set : plain), tabindex: index === 0 || isOpen ? 0 : -1, "aria-expanded": String(isOpen) };
  const button = h("button", { ...attributes, onclick, ondblclick: toLabel, onkeydown }, showPicture(plain), h("span", {}, name || "(empty)"), sets);
  return h("span", { class: "chip-box", key: index }, button, h("button", { class: "cross", tabindex: -1, "aria-label": `Remove ${name}`, onclick: () => remove(context, index) }, "×"));
}

/** @param {Context} context @param {number} index */
function remove({ items, key, set }, index) {
  openChip("", items.length > 1 ? `chip ${key} ${Math.min(index, items.length - 2)}` : `add ${key}`);
  set(items.toSpliced(index, 1));
}

/** What is open below the chips: the value, its label, what else it sets. @param {Context} context @param {any} item @param {number} index */
function makeEditor(context, item, index) {
  const { state, axis, items, input, key, set } = context;
  const chip = `${key} ${index}`;
  const name = `Value ${index + 1} of ${axis.name}`;
  const put = (/** @type {any} */ changed, /** @type {number | undefined} */ delay) => set(items.with(index, changed), delay);
  const setLabel = (/** @type {string} */ label) => put(isBundle(item) ? { ...item, label } : label === "" ? toPlain(item) : { label, value: toPlain(item) }, TYPING);
  const field = makeValueField(input, toPlain(item), { key: `edit ${chip}`, label: name, onValue: (value, delay) => put(isLabelled(item) ? { ...item, value } : value, delay) });
  const label = h("input", { class: "text", "aria-label": `Label of ${name}`, "data-key": `label ${chip}`, value: isLabelled(item) ? toText(item.label) : "", placeholder: "its name on the page", oninput: (event) => setLabel(event.target.value) });
  const close = () => openChip("", `chip ${chip}`);
  const onkeydown = (/** @type {any} */ event) => {
    if (event.key !== "Escape" && (event.key !== "Enter" || !event.target.matches("input"))) return;
    event.preventDefault();
    close();
  };
  return h("div", { class: "editor", key: `editor ${chip}`, role: "group", "aria-label": name, onkeydown },
    !isBundle(item) && h("div", { class: "row" }, h("span", {}, "Value"), field),
    h("div", { class: "row" }, h("span", {}, "Label"), label),
    isBundle(item) && makeBundle(state, item, chip, put),
    h("div", { class: "row" }, h("button", { onclick: () => remove(context, index) }, "Remove"), h("button", { onclick: close }, "Done")));
}

/** What a bundle sets. @param {State} state @param {any} item @param {string} chip @param {(item: any, delay?: number) => void} put */
function makeBundle(state, item, chip, put) {
  const add = (/** @type {string} */ name, /** @type {any} */ value, /** @type {number | undefined} */ delay) => put({ ...item, set: { ...item.set, [name]: value } }, delay);
  const remove = (/** @type {string} */ name) => put({ ...item, set: Object.fromEntries(Object.entries(item.set).filter(([other]) => other !== name)) });
  const rows = Object.entries(item.set).map(([name, value]) => {
    const field = makeValueField(findInput(state, name), value, { key: `bundle ${chip} ${name}`, label: `${name} of ${item.label}`, onValue: (changed, delay) => add(name, changed, delay) });
    return h("div", { class: "row", key: name }, h("span", {}, name), field, h("button", { class: "cross", "aria-label": `Do not set ${name}`, onclick: () => remove(name) }, "×"));
  });
  const free = state.inputs.filter(({ slot, type }) => slot !== null && !(slot in item.set) && type !== "object" && ![...state.axes, ...state.fixed].some(({ name }) => name === slot)).map(toLabel);
  return h("div", { class: "bundle" }, rows, makeMenu("Also set an input", [["", "also set…"], ...free.map((name) => [name, name])], "", (name) => add(name, findInput(state, name)?.value, 0)));
}

/** What adds values: what stands behind the chips, and what opens below them. @param {Context} context @returns {Child[]} */
function makeAdder(context) {
  const { axis, items, input, key, set } = context;
  const focus = { "data-key": `add ${key}` };
  const plain = items.map(toPlain);
  if (items.length > 0 && items.every(isBundle)) {
    const add = () => {
      set([...items, { label: `${toText(items.at(-1).label)} 2`, set: items.at(-1).set }]);
      openChip(`${key} ${items.length}`, `label ${key} ${items.length}`);
    };
    return [h("button", { ...focus, onclick: add }, "Add")];
  }
  if (input && input.choices !== null) {
    const isOpen = ui.open.has(`picker ${key}`);
    const button = h("button", { "aria-expanded": String(isOpen), onclick: () => toggle(`picker ${key}`) }, isOpen ? "Done" : "Choose…");
    return [button, isOpen && makePicker(input, plain, "checkbox", (value, isChosen) => set(isChosen ? [...items, value] : items.filter((item) => toPlain(item) !== value)))];
  }
  if (input?.type === "boolean") {
    const missing = [true, false].find((value) => !plain.includes(value));
    return [missing !== undefined && h("button", { ...focus, onclick: () => set([...items, missing]) }, `Add ${missing}`)];
  }
  if (input?.type === "file") {
    const onFiles = async (/** @type {Iterable<File>} */ files) => {
      const paths = await upload(files, `add ${key}`);
      if (paths.length > 0) set([...items, ...paths]);
    };
    return [h("div", { class: "drop", ...acceptFiles(onFiles) }, "Drop pictures here, or ", makeFileButton("choose files…", `add ${key}`, axis.name, onFiles), showError(`add ${key}`))];
  }
  return makeTypedAdder(context, `add ${key}`);
}

/** @param {Context} context @param {string} key of the field */
function makeTypedAdder({ axis, items, input, set }, key) {
  const add = (/** @type {string[]} */ texts) => {
    const parsed = texts.map((text) => parseText(text, input));
    const error = parsed.find(({ error }) => error !== undefined)?.error ?? "";
    setError(key, error);
    if (error !== "" || texts.length === 0) return false;
    delete ui.pasted[key];
    ui.focus = key;
    set([...items, ...parsed.map(({ value }) => value)]);
    return true;
  };
  const commit = (/** @type {any} */ event) => {
    event.preventDefault();
    const field = event.currentTarget.closest(".adder").firstChild;
    if (add(splitTyped(field.value, input))) field.value = "";
  };
  const onpaste = (/** @type {ClipboardEvent} */ event) => {
    const lines = splitLines(event.clipboardData?.getData("text") ?? "");
    if (isNumeric(input) || lines.length < 2) return;
    event.preventDefault();
    ui.pasted[key] = lines;
    ui.focus = `lines ${key}`;
    redraw();
  };
  const onkeydown = (/** @type {KeyboardEvent} */ event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && commit(event);
  const attributes = { "aria-label": `Add a value to ${axis.name}`, "data-key": key, placeholder: "Add a value", ...describeError(key), onkeydown, onpaste, oninput: () => key in ui.errors && setError(key, "") };
  const field = input?.multiline ? h("textarea", { rows: 1, ...attributes }) : h("input", { class: isNumeric(input) ? "number" : "text", ...attributes });
  const lines = ui.pasted[key];
  const question = lines && h("div", { class: "question", role: "group", "aria-label": "Pasted lines" },
    h("p", {}, `You pasted ${lines.length} lines. Are they one text, or ${lines.length} values?`),
    h("button", { "data-key": `lines ${key}`, onclick: () => add(lines) }, `${lines.length} values, a line each`),
    h("button", { onclick: () => add([lines.join("\n")]) }, "One text"));
  return [h("div", { class: "adder" }, field, h("button", { onclick: commit }, "Add")), h("div", {}, showError(key), question)];
}
