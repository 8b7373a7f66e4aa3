// All inputs of the workflow: first those that people vary, then the others by node; a search over all.

import { edit, redraw, toggle, ui, vary } from "./app.js";
import { makeValueField } from "./fields.js";
import { countThings, findFixed, findInput, findProblems, nameInput, toLabel, toSource, toText } from "./model.js";
import { h } from "./render.js";
/** @import { Input, State } from "./model.js" */
/** @import { Item } from "./render.js" */

const GROUPS = { set: "Set by this experiment", app: "Marked by the author of the workflow", often: "Often varied" };

/** @type {Record<string, string>} */
const groups = {}; // in which each input was shown last

/** @param {State} state @returns {Item} */
export function makeInputs(state) {
  const given = new Set(state.axes.flatMap(({ name, value }) => [name, ...(Array.isArray(value) ? value.flatMap((item) => Object.keys(item?.set ?? {})) : [])]));
  const free = state.inputs.filter((input) => !given.has(input.slot ?? input.address) || findFixed(state, input)); // both are a mistake
  const oninput = (/** @type {any} */ event) => {
    ui.search = event.target.value;
    redraw();
  };
  const search = h("input", { type: "search", class: "text", id: "search", placeholder: `Search ${countThings(state.inputs.length, "input")}: name, node or value`, "aria-label": "Search the inputs", value: ui.search, oninput });
  const content = ui.search.trim() === "" ? makeGroups(state, free) : makeFound(state, free, ui.search);
  return h("section", { class: "inputs", "aria-labelledby": "inputs-title" }, h("h2", { id: "inputs-title" }, "Everything else stays the same"), h("p", { class: "dim" }, "Change a value here, or press Vary to try several."), search, content);
}

/** @param {State} state @param {Input[]} inputs @param {string} text */
function makeFound(state, inputs, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = inputs.filter((input) => {
    const all = [input.address, ...input.others, input.slot, input.title, input.class, input.role, toText(input.value)].join(" ").toLowerCase();
    return words.every((word) => all.includes(word));
  });
  return h("div", { class: "found" }, h("p", { class: "dim", role: "status" }, `${countThings(found.length, "input")} found`), found.map((input) => makeRow(state, input)));
}

/** @param {State} state @param {Input[]} free */
function makeGroups(state, free) {
  const focused = document.activeElement?.closest(".input")?.id; // this row stays in its group, because it would lose the focus
  const groupOf = (/** @type {Input} */ input) => {
    const group = findFixed(state, input) ? "set" : input.group;
    return (groups[input.address] = focused === `input-${input.address}` ? (groups[input.address] ?? group) : group);
  };
  const parts = Object.entries(GROUPS).map(([group, title]) => {
    const members = free.filter((input) => groupOf(input) === group);
    return members.length > 0 && h("div", { class: "group-list" }, h("h3", {}, title), members.map((input) => makeRow(state, input)));
  });
  const variables = state.fixed.filter(({ name }) => !findInput(state, name));
  const others = free.filter((input) => groupOf(input) === "other");
  const nodes = [...new Set(others.map(({ node }) => node))];
  const folds = nodes.map((node) => makeNode(state, node, others.filter((input) => input.node === node)));
  return h("div", {}, parts, variables.map(({ name, value, yaml }) => makeVariable(name, value, yaml)), nodes.length > 0 && h("h3", {}, "All other inputs, by node"), folds);
}

/** @param {State} state @param {string} node @param {Input[]} inputs */
function makeNode(state, node, inputs) {
  const key = `node ${node}`;
  const isOpen = ui.open.has(key);
  const button = h("button", { class: "fold", "aria-expanded": String(isOpen), onclick: () => toggle(key) }, h("span", { class: "arrow", "aria-hidden": "true" }, isOpen ? "▾" : "▸"), h("b", {}, inputs[0].title), h("span", { class: "dim" }, ` ${node} · ${inputs.map(toLabel).join(", ")}`));
  return h("div", { key }, button, isOpen && inputs.map((input) => makeRow(state, input)));
}

/** @param {State} state @param {Input} input */
function makeRow(state, input) {
  const { address, title } = input;
  const label = toLabel(input);
  const fixed = findFixed(state, input);
  const problems = fixed ? findProblems(state, fixed.name) : [];
  const field = makeValueField(input, fixed ? fixed.value : input.value, {
    key: `input ${address}`, label: `${label} of ${title}`, onValue: (value, delay) => edit({ set: "fixed", ...nameInput(input), value }, delay),
  });
  const reset = fixed && h("button", { class: "quiet", title: `Back to ${toText(input.value)}`, "aria-label": `Reset ${label}`, onclick: () => edit({ set: "none", name: fixed.name }) }, "Reset");
  const button = input.type !== "object" && h("button", { class: "vary", "aria-label": `Vary ${label} of ${title}`, onclick: () => vary(input) }, "Vary");
  return h("div", { class: input.multiline ? "input tall" : "input", key: `input ${address}`, id: `input-${address}` }, h("div", { class: "what" }, h("b", {}, label), h("span", { class: "dim" }, toSource(input))), field, h("div", { class: "acts" }, reset, button), problems.map(({ message }) => h("p", { class: "error" }, message)));
}

/** A value in `params` that is no input: `derive` or `where` reads it. @param {string} name @param {any} value @param {string} yaml */
function makeVariable(name, value, yaml) {
  const isPlain = value === null || typeof value !== "object";
  const field = isPlain ? makeValueField(undefined, value, { key: `input ${name}`, label: name, onValue: (value, delay) => edit({ set: "fixed", name, value }, delay) }) : h("pre", {}, yaml);
  return h("div", { class: "input", key: `variable ${name}` }, h("div", { class: "what" }, h("b", {}, name), h("span", { class: "dim" }, "a name of this experiment")), field);
}
