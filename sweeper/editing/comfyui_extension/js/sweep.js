// @ts-check
// *Sweep...* in ComfyUI's page: in its menu, in the context menus of nodes and widgets, and as a tab of the sidebar.
// It asks only the routes of this pack, on the same ComfyUI.

// @ts-expect-error ComfyUI serves it
import { app } from "../../scripts/app.js";
import { ask, showCommand, toOwnHost } from "./parts.js";
import { Sidebar } from "./sidebar.js";

/**
 * @typedef {{ name: string, label?: string, type?: string, value?: unknown, options?: { serialize?: boolean } }} Widget
 * @typedef {{ name: string, widget?: { name: string } }} Input
 * @typedef {object} Node
 * @property {number | string} id
 * @property {string} [comfyClass]
 * @property {Widget[]} [widgets]
 * @property {Input[]} [inputs]
 * @property {any} [subgraph] of a node that stands for a subgraph
 * @property {(x: number, y: number, withDisabled: boolean) => Widget | undefined} [getWidgetOnPos]
 * @typedef {Record<string, { class_type: string, inputs: Record<string, unknown> }>} Prompt
 */

const OPEN = "sweeper.open";
const sidebar = new Sidebar(() => sweep());
let canStart = false; // whether this ComfyUI can start sweeper; else we show the command
/** @type {Element | null} */
let pressed = null; // what the last context menu was opened on

/** Open the workflow, as ComfyUI would queue it, in sweeper; with a widget as its first axis. @param {Node} [node] @param {Widget} [widget] */
async function sweep(node, widget) {
  // Opened now, because a browser blocks a tab that comes long after the click.
  const tab = canStart ? openTab() : null;
  try {
    const { output } = await app.graphToPrompt();
    const axis = node && widget ? findAddress(output, node, widget) : null;
    if (widget && !axis) tell("warn", `${widget.name} is set by another node, so it cannot be an axis; choose one on the page`);
    const title = app.extensionManager.workflow?.activeWorkflow?.filename ?? "workflow";
    const answer = await ask("open", { prompt: output, axis, title });
    canStart = !answer.command;
    if (answer.command) {
      tab?.close();
      showCommand(answer.command);
    } else {
      const url = toOwnHost(answer.url);
      sidebar.show(url);
      if (tab && !tab.closed) tab.location.replace(url);
      else tell("info", "The sweep is open: see the tab Sweep of the sidebar");
    }
  } catch (error) {
    tab?.close();
    tell("error", error instanceof Error ? error.message : String(error));
  }
}

function openTab() {
  const tab = window.open("about:blank", "_blank");
  if (tab) {
    tab.document.title = "Sweep";
    tab.document.documentElement.style.cssText = "color-scheme: light dark; font: 16px sans-serif; padding: 2em";
    tab.document.body.textContent = "Starting sweeper...";
  }
  return tab;
}

/** @param {"info" | "warn" | "error"} severity @param {string} detail */
function tell(severity, detail) {
  app.extensionManager.toast.add({ severity, summary: "Sweep", detail, life: severity === "error" ? undefined : 8000 });
}

/**
 * Where a widget's value is in the prompt: `node.input`, where a node of a subgraph is `5:3`. Null if it is nowhere,
 * or comes from another node.
 * @param {Prompt} prompt @param {Node} node @param {Widget} widget
 */
function findAddress(prompt, node, widget) {
  const [inner, name] = findSource(node, widget);
  const key = Object.keys(prompt).find((key) => key === inner || key.endsWith(`:${inner}`));
  const value = key === undefined ? undefined : prompt[key].inputs[name];
  return value === undefined || Array.isArray(value) ? null : `${key}.${name}`;
}

/**
 * The node and the input that a widget sets. That of a node which stands for a subgraph sets an input of a node in it.
 * @param {Node} node @param {Widget} widget @returns {[string, string]}
 */
function findSource(node, widget) {
  const index = node.inputs?.findIndex((input) => (input.widget?.name ?? input.name) === widget.name) ?? -1;
  const link = node.subgraph?.getLink?.(node.subgraph.inputs?.[index]?.linkIds?.[0]);
  const inner = node.subgraph?.getNodeById?.(link?.target_id);
  const input = inner?.inputs?.[link?.target_slot];
  if (!input) return [String(node.id), widget.name];
  const [path, name] = findSource(inner, { name: input.widget?.name ?? input.name });
  return [`${node.id}:${path}`, name];
}

/** The widget on which the context menu was opened. @param {Node} node */
function findPressed(node) {
  // Nodes that are HTML: the row of a widget has the dot of its input.
  const row = pressed?.closest(".lg-node-widget");
  const slot = row?.querySelector("[data-slot-key]")?.getAttribute("data-slot-key") ?? "";
  const input = node.inputs?.[Number(/-in-(\d+)$/.exec(slot)?.[1] ?? -1)];
  if (input) return node.widgets?.find((widget) => widget.name === (input.widget?.name ?? input.name));
  if (pressed?.tagName !== "CANVAS") return undefined;
  const [x, y] = app.canvas.graph_mouse;
  return node.getWidgetOnPos?.(x, y, true);
}

/** Entries of a node's context menu. @param {Node} node */
function listMenuItems(node) {
  const widgets = (node.widgets ?? []).filter(isValue);
  if (!widgets.length) return [];
  /** @param {Widget} widget */
  const makeItem = (widget, prefix = "") => ({
    content: `${prefix}${widget.label || widget.name}`.replace(/[<>&]/g, ""), // older pages take it for HTML
    callback: () => void sweep(node, widget),
  });
  const found = findPressed(node);
  const items = found && widgets.includes(found) ? [makeItem(found, "Sweep ")] : [];
  return [null, ...items, { content: "Sweep...", has_submenu: true, submenu: { options: widgets.map((w) => makeItem(w)) } }];
}

/** Whether a widget has a value that a sweep can set. @param {Widget} widget */
const isValue = ({ value, options }) =>
  options?.serialize !== false && ["string", "number", "boolean"].includes(typeof value);

app.registerExtension({
  name: "sweeper.sweep",
  commands: [{ id: OPEN, label: "Sweep...", icon: "pi pi-th-large", function: () => sweep() }],
  menuCommands: [{ path: ["Extensions"], commands: [OPEN] }],
  getNodeMenuItems: listMenuItems,
  async setup() {
    const remember = (/** @type {Event} */ event) => (pressed = /** @type {Element} */ (event.target));
    document.addEventListener("contextmenu", remember, true);
    document.addEventListener("pointerdown", remember, true); // the canvas opens its menu at the press
    app.extensionManager.registerSidebarTab({
      id: "sweeper",
      icon: "pi pi-th-large",
      title: "Sweep",
      tooltip: "Sweep: vary inputs of this workflow, and see the grid",
      type: "custom",
      render: (/** @type {HTMLElement} */ element) => sidebar.render(element),
    });
    try {
      canStart = (await ask("pages", {})).can_start;
    } catch {
      // Not at this machine, or the routes are missing: a press on Sweep... says so.
    }
  },
});
