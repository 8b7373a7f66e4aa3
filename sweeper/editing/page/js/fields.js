// The field of one value, by the type of its input: text, number, choice of the server's list, or file.

import { redraw, server, toggle, TYPING, ui, upload } from "./app.js";
import { isNumeric, parseText, toText } from "./model.js";
import { h } from "./render.js";
/** @import { Input } from "./model.js" */

const SEARCHED = 12; // choices above which they can be searched

/**
 * @param {Input | undefined} input undefined: a variable, which takes any value
 * @param {any} value @param {{key: string, label: string, onValue: (value: any, delay?: number) => void}} options `key` names the field on the page
 */
export function makeValueField(input, value, { key, label, onValue }) {
  if (input && input.choices !== null) return makeChoice(input, value, key, label, onValue);
  if (input?.type === "boolean") return makeMenu(label, [["true", "true"], ["false", "false"]], String(value), (text) => onValue(text === "true"), { "data-key": key });
  if (input?.type === "file") {
    const onFiles = async (/** @type {Iterable<File>} */ files) => (await upload(files, key)).slice(0, 1).forEach((path) => onValue(path));
    return h("div", { class: "file-field", ...acceptFiles(onFiles) }, showPicture(value), h("span", { class: "plain" }, toText(value)), makeFileButton("Choose a file…", key, label, onFiles), showError(key));
  }
  if (value !== null && typeof value === "object") return h("code", { class: "plain", title: "Edit it in the file" }, toText(value));
  const oninput = (/** @type {any} */ event) => {
    const { value: parsed, error } = parseText(event.target.value, input);
    setError(key, error ?? "");
    if (error === undefined) onValue(parsed, TYPING);
  };
  const attributes = { "aria-label": label, "data-key": key, value: toText(value), ...describeError(key), oninput, onblur: redraw };
  const field = input?.multiline ? h("textarea", { rows: 1, ...attributes }) : h("input", { class: isNumeric(input) ? "number" : "text", ...attributes });
  return h("div", { class: "value" }, field, showError(key));
}

/** @param {string} label @param {string[][]} options value and text of each @param {string} value @param {(value: string) => void} onChange @param {Record<string, any>} [more] attributes */
export const makeMenu = (label, options, value, onChange, more = {}) =>
  h("select", { "aria-label": label, value, onchange: (event) => onChange(event.target.value), ...more }, options.map(([name, text]) => h("option", { value: name, key: name }, text)));

/** @param {string} key @param {string} text empty: no mistake */
export function setError(key, text) {
  if (text === "") delete ui.errors[key];
  else ui.errors[key] = text;
  redraw();
}

/** The attributes that tie a field to its mistake. @param {string} key */
export const describeError = (key) => (key in ui.errors ? { "aria-invalid": "true", "aria-describedby": `error-${key.replace(/\s/g, "-")}` } : {});

/** @param {string} key */
export const showError = (key) => key in ui.errors && h("p", { class: "error", role: "alert", id: `error-${key.replace(/\s/g, "-")}` }, ui.errors[key]);

/** The picture of a value, if the page can show it. @param {any} value */
export function showPicture(value) {
  const name = /^inputs\/([^/]+\.(?:png|jpe?g|webp|gif))$/i.exec(String(value))?.[1];
  return name !== undefined && h("img", { class: "thumb", alt: "", src: `files/${encodeURIComponent(name)}` });
}

/** The handlers of an element on which files can be dropped. @param {(files: Iterable<File>) => void} onFiles */
export const acceptFiles = (onFiles) => ({
  ondrop: (/** @type {any} */ event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    onFiles(event.dataTransfer.files);
  },
});

/** @param {string} text @param {string} key @param {string} label @param {(files: Iterable<File>) => void} onFiles */
export function makeFileButton(text, key, label, onFiles) {
  const file = h("input", { type: "file", class: "offscreen", tabindex: -1, "aria-hidden": "true", multiple: true, onchange: (event) => onFiles(event.target.files) });
  return h("span", {}, h("button", { "data-key": key, "aria-label": `${label}: ${text}`, onclick: (event) => event.currentTarget.nextElementSibling.click() }, text), file);
}

/** A button that opens the list. @param {Input} input @param {any} value @param {string} key @param {string} label @param {(value: any) => void} onValue */
function makeChoice(input, value, key, label, onValue) {
  const panel = `choice ${key}`;
  const isOpen = ui.open.has(panel);
  const close = () => toggle(panel, key);
  const choose = (/** @type {any} */ chosen) => {
    close();
    onValue(chosen);
  };
  const button = h("button", { class: "choice", "data-key": key, "aria-expanded": String(isOpen), "aria-label": `${label}: ${toText(value)}`, onclick: () => toggle(panel) }, toText(value), h("span", { class: "dim", "aria-hidden": "true" }, "▾"));
  return h("div", { class: "value", onkeydown: (event) => isOpen && event.key === "Escape" && close() }, button, isOpen && makePicker(input, [value], "radio", choose));
}

/** The choices that the server lists. @param {Input} input @param {any[]} chosen @param {"radio" | "checkbox"} type @param {(value: any, isChosen: boolean) => void} onChoose */
export function makePicker(input, chosen, type, onChoose) {
  const { address } = input;
  const stamp = JSON.stringify([server.state?.target, server.state?.checking, input.choices]); // the list may be another one now
  if (ui.choices[address]?.stamp !== stamp) loadChoices(address, ui.choices[address]?.filter ?? "", stamp);
  const { values, total, filter } = ui.choices[address];
  const isSearched = (input.choices ?? 0) > SEARCHED;
  const focus = `add ${address}`;
  const items = [...new Set([...(filter === "" ? chosen : []), ...values])].map((value, index) => {
    const attributes = { type, name: `picker ${address}`, checked: chosen.includes(value), "data-key": index === 0 && !isSearched ? focus : null };
    return h("label", { key: toText(value), class: "option" }, h("input", { ...attributes, onchange: (event) => onChoose(value, event.target.checked) }), h("span", {}, toText(value)));
  });
  const field = h("input", { type: "search", class: "text", "aria-label": `Search the choices of ${address}`, placeholder: `Search ${input.choices} choices`, "data-key": focus, oninput: (event) => loadChoices(address, event.target.value, stamp) });
  const rest = total > values.length && h("p", { class: "dim" }, `${values.length} of ${total.toLocaleString("en-US")} are shown; search for the others`);
  return h("div", { class: "picker", role: "group", "aria-label": `Choices of ${address}` }, isSearched && field, h("div", { class: "options" }, items), rest);
}

let timer = 0;

/** @param {string} address @param {string} filter @param {string} stamp */
function loadChoices(address, filter, stamp) {
  ui.choices[address] = { ...(ui.choices[address] ?? { values: [], total: 0 }), filter, stamp };
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const { status, body } = await server.ask("GET", `choices?${new URLSearchParams({ address, filter })}`);
    if (status === 200 && ui.choices[address].filter === filter) ui.choices[address] = { ...body, filter, stamp };
    redraw();
  }, filter === "" ? 0 : TYPING);
}
