// What the page knows: the state of the server, which it follows and changes, and what is open and typed on the page.

import { announce } from "../../../serving/page/js/dom.js";
import { applyChanges, findFixed, nameInput, toLabel } from "./model.js";
/** @import { Change, Input, State } from "./model.js" */

const RETRY = 2000; // milliseconds until a server that does not respond is asked again
export const TYPING = 300; // milliseconds without a key after which a typed change is sent
export const LONGEST = 700; // milliseconds after which it is sent although somebody still types
const { parse, rawJSON } = /** @type {any} */ (JSON); // TypeScript does not know rawJSON and the source yet

/** Read JSON in which an integer may be larger than a double can hold; it becomes a BigInt. @param {string} text */
const readJson = (text) => parse(text, (/** @type {string} */ _key, /** @type {any} */ value, /** @type {any} */ context) => (typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source) ? BigInt(context.source) : value));

/** @param {any} body */
const writeJson = (body) => JSON.stringify(body, (_key, value) => (typeof value === "bigint" ? rawJSON(String(value)) : value));

/** Speaks to `sweeper open`: sends changes one after the other; the state of the answers wins. */
class Server {
  /** @param {() => void} onChange called after each change of what the page shows */
  constructor(onChange) {
    this.onChange = onChange;
    /** @type {State | null} */
    this.state = null;
    this.problem = ""; // why the server refused the last request
    this.isAway = false;
    this.isLocked = false; // whether another server listens here now, which does not know this page
    /** @type {Change[]} */
    this.waiting = []; // not sent yet
    /** @type {Change[]} */
    this.sent = []; // not answered yet
    /** @type {Change[]} */
    this.lost = []; // not made (or the whole text), because another program had changed the file
    this.timer = 0;
    this.since = 0; // when the first of the waiting changes was made
    /** @type {Promise<any>} */
    this.last = Promise.resolve(); // the last request that changes something: they go one after the other
  }

  /** What to show: the server's state with the changes that it has not answered yet. @returns {State | null} */
  get shown() {
    return this.state && applyChanges(this.state, [...this.sent, ...this.waiting]);
  }

  /** Follow the state for ever. */
  async follow() {
    const { status, body } = await this.ask("GET", `state?after=${this.state?.number ?? -1}`);
    this.isLocked = status === 401;
    if (status === 200) this.take(body);
    this.setAway(status === 0);
    setTimeout(() => this.follow(), status === 200 ? 0 : RETRY);
  }

  /** @param {boolean} isAway */
  setAway(isAway) {
    if (this.isAway === isAway && !this.isLocked) return;
    this.isAway = isAway;
    this.flush();
    this.onChange();
  }

  /** @param {State} state */
  take(state) {
    if (this.state !== null && state.number < this.state.number) return;
    this.state = state;
    this.onChange();
  }

  /** Change the file, at once or after a pause in typing. @param {Change[]} changes @param {number} [delay] milliseconds */
  edit(changes, delay = 0) {
    if (this.waiting.length === 0) this.since = performance.now();
    this.waiting.push(...changes);
    this.problem = "";
    this.lost = [];
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), Math.min(delay, this.since + LONGEST - performance.now()));
    this.onChange();
    if (delay === 0) draw(); // the next press, which may come before the next frame, builds on it
  }

  /** Make the changes that another program's change prevented, or forget them. @param {boolean} isMade */
  settleLost(isMade) {
    const { lost } = this;
    this.lost = [];
    if (isMade && lost[0].text !== undefined) this.act("edit", lost[0]);
    else this.edit(isMade ? lost : []);
  }

  /** Send what waits, after all requests before. */
  flush() {
    clearTimeout(this.timer);
    return this.enqueue(async () => {
      if (this.waiting.length === 0 || this.isAway || this.state === null) return;
      [this.sent, this.waiting] = [this.waiting, []];
      const changes = this.sent;
      const { status } = await this.post("edit", { changes });
      this.sent = [];
      if (status === 409) this.lost = changes;
      if (status === 0) this.waiting = [...changes, ...this.waiting];
      this.onChange();
    });
  }

  /** Send a request after all changes. @param {string} path @param {Record<string, any>} [body] @returns {Promise<any>} the answer; null if it was refused */
  act(path, body = {}) {
    this.flush();
    return this.enqueue(async () => {
      const { status, body: answer } = await this.post(path, body);
      if (status === 409 && body.text !== undefined) this.lost = [body];
      this.onChange();
      return status === 200 ? answer : null;
    });
  }

  /** @template T @param {() => Promise<T>} task @returns {Promise<T>} */
  enqueue(task) {
    const result = this.last.then(task);
    this.last = result;
    return result;
  }

  /** Send a request, and take the state that answers it. @param {string} path @param {Record<string, any>} body */
  async post(path, body) {
    const answer = await this.ask("POST", path, { version: this.state?.version, ...body });
    if (answer.status === 0) this.setAway(true);
    const isFine = [0, 200, 409].includes(answer.status);
    this.problem = isFine ? "" : (answer.body.problem ?? `sweeper answered ${answer.status}: ${answer.body}`);
    if (answer.body.mode !== undefined) this.take(answer.body);
    return answer;
  }

  /** Status 0: the server does not respond. @param {string} method @param {string} path @param {any} [body] @returns {Promise<{status: number, body: any}>} */
  async ask(method, path, body) {
    const options = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: writeJson(body) };
    try {
      const response = await fetch(path, { method, ...options });
      const text = await response.text();
      const isJson = response.headers.get("content-type")?.startsWith("application/json");
      return { status: response.status, body: isJson ? readJson(text) : text };
    } catch {
      return { status: 0, body: {} };
    }
  }
}

/** @type {{search: string, open: Set<string>, chip: string, errors: Record<string, string>, pasted: Record<string, string[]>, turns: boolean, dragged: string,
 *   choices: Record<string, {filter: string, stamp: string, values: any[], total: number}>, focus: string}} */
export const ui = {
  search: "", // what the list of inputs is searched for
  open: new Set(), // keys of what is unfolded: nodes, pickers, messages
  chip: "", // key of the chip whose editor is open
  errors: {}, // why what stands in a field is no value, by the key of the field
  pasted: {}, // lines that may be one text or several values, by the key of the field
  choices: {}, // answers of the server, by address
  turns: false, // whether the page turns into the report when the run has begun
  dragged: "", // name of the axis that is being dragged
  focus: "", // the `data-key` of the element that gets the focus when it is there
};

let frame = 0;
/** @type {() => void} */
let draw = () => {};

/** @param {() => void} newDraw shows the whole page */
export const setDraw = (newDraw) => (draw = newDraw);

/** Show the page again, soon. */
export function redraw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const { focus } = ui;
    draw();
    const node = document.querySelector(`[data-key="${CSS.escape(focus)}"]`);
    if (!(node instanceof HTMLElement)) return;
    node.focus();
    if (node instanceof HTMLInputElement) node.select();
  });
}

export const server = new Server(redraw);

/** Unfold what has this key, or fold it. @param {string} key @param {string} [focus] where the focus goes */
export function toggle(key, focus = "") {
  if (!ui.open.delete(key)) ui.open.add(key);
  ui.focus = focus;
  redraw();
}

/** Change one thing of the file. @param {Change} change @param {number} [delay] milliseconds */
export const edit = (change, delay) => server.edit([change], delay);

/** Make an input an axis, and go there. @param {Input} input */
export function vary(input) {
  const { type, address, choices } = input;
  const { value } = findFixed(/** @type {State} */ (server.shown), input) ?? input;
  const isSeed = type === "integer" && /seed/i.test(`${input.role} ${address}`);
  if (choices !== null) ui.open.add(`picker ${address}`);
  edit({ set: "axis", ...nameInput(input), value: isSeed ? { seeds: 3 } : type === "boolean" ? [value, !value] : [value] });
  ui.focus = `add ${address}`;
  announce(`${toLabel(input)} varies now`);
}

/** The name of a file, and its content as base64. @param {File} file @returns {Promise<{name: string, content: string}>} */
export function readFile(file) {
  const reader = new FileReader();
  return new Promise((resolve, reject) => {
    reader.onload = () => resolve({ name: file.name, content: String(reader.result).replace(/^[^,]*,/, "") }); // without the start of the data URL
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** Upload files into the folder of the experiment. @param {Iterable<File>} files @param {string} key of the field that shows what is wrong @returns {Promise<string[]>} their paths */
export async function upload(files, key) {
  const paths = [];
  const problems = [];
  for (const file of files) {
    const answer = await server.act("upload", await readFile(file));
    if (answer !== null) paths.push(answer.path);
    else if (server.problem !== "") problems.push(server.problem);
    server.problem = ""; // it stands at the field
  }
  if (problems.length > 0) ui.errors[key] = problems.join("; ");
  else delete ui.errors[key];
  redraw();
  return paths;
}
