// Magnifies the pictures of an element by wheel, pinch, drag and keys: all pictures in a `.lens` move together.

export class PanZoom {
  static MAX_SCALE = 40; // times the size that fits
  static STEP = 1.25; // of one notch of the wheel, or one key
  static HELP = "one pixel on one of the screen; larger, smaller (the wheel does it too, and a drag moves)";

  /** @param {HTMLElement} host the element around the pictures, also after they were replaced @param {() => void} [onChange] called after each change */
  constructor(host, onChange = () => {}) {
    this.host = host;
    this.onChange = onChange;
    /** @type {Map<number, {x: number, y: number}>} where each finger or the mouse button is down */
    this.pointers = new Map();
    this.scale = 1; // times the size that fits
    this.x = 0; // how far the pictures are moved, as a share of their box
    this.y = 0;
    this.apply();
    host.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    host.addEventListener("pointerdown", (event) => this.onDown(event));
    host.addEventListener("pointermove", (event) => this.onMove(event));
    for (const name of /** @type {const} */ (["pointerup", "pointercancel", "pointerleave"])) {
      host.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    host.addEventListener("dblclick", (event) => {
      if (PanZoom.findFrame(event.target)) this.toggleActualSize(event);
    });
    host.addEventListener("dragstart", (event) => {
      if (this.isMagnified()) event.preventDefault(); // a drag moves the picture then
    });
  }

  /** The box that a picture fills, if the target is in one. @param {EventTarget | null} target */
  static findFrame(target) {
    return target instanceof Element ? target.closest(".lens") : null;
  }

  isMagnified() {
    return this.scale > 1;
  }

  /** Show whole pictures again. */
  reset() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.apply();
  }

  /** Write the state to the stage; it stays when the next trial is shown, so that one compares the same detail. */
  apply() {
    const { style, classList } = this.host;
    style.setProperty("--scale", String(this.scale));
    style.setProperty("--move-x", `${this.x * 100}%`);
    style.setProperty("--move-y", `${this.y * 100}%`);
    classList.toggle("magnified", this.isMagnified());
    this.onChange();
  }

  /**
   * Change the scale, and keep the point under the pointer where it is.
   * @param {number} scale
   * @param {{clientX: number, clientY: number}} [at] else the middle
   * @param {Element | null} [frame]
   */
  scaleTo(scale, at, frame = this.host.querySelector(".lens")) {
    if (frame === null) return;
    const box = frame.getBoundingClientRect();
    const next = Math.min(PanZoom.MAX_SCALE, Math.max(1, scale));
    // The point's distance from the middle of the box, as a share of the box.
    const [x, y] = at ? [(at.clientX - box.left) / box.width - 0.5, (at.clientY - box.top) / box.height - 0.5] : [0, 0];
    this.moveTo(x - ((x - this.x) * next) / this.scale, y - ((y - this.y) * next) / this.scale, next);
  }

  /** @param {number} x @param {number} y @param {number} [scale] */
  moveTo(x, y, scale = this.scale) {
    const limit = (scale - 1) / 2; // no farther than to the edge of the picture
    this.scale = scale;
    this.x = Math.min(limit, Math.max(-limit, x));
    this.y = Math.min(limit, Math.max(-limit, y));
    this.apply();
  }

  /** One pixel of the picture on one of the screen, or back to the whole picture. @param {{clientX: number, clientY: number}} [at] */
  toggleActualSize(at) {
    if (this.isMagnified()) return this.reset();
    const picture = this.host.querySelector(".lens img");
    if (!(picture instanceof HTMLImageElement)) return;
    const fitted = Math.min(picture.clientWidth / picture.naturalWidth, picture.clientHeight / picture.naturalHeight) * devicePixelRatio;
    this.scaleTo(fitted < 0.99 ? 1 / fitted : 2 ** Math.ceil(Math.log2(fitted * 1.5)) / fitted, at, PanZoom.findFrame(picture));
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    const frame = PanZoom.findFrame(event.target);
    if (frame === null || (event.deltaY > 0 && !this.isMagnified())) return;
    event.preventDefault();
    this.scaleTo(this.scale * PanZoom.STEP ** -Math.sign(event.deltaY), event, frame);
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    if (PanZoom.findFrame(event.target) === null || event.button !== 0) return;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const last = this.pointers.get(event.pointerId);
    const frame = PanZoom.findFrame(event.target);
    if (last === undefined || frame === null) return;
    const now = { x: event.clientX, y: event.clientY };
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    this.pointers.set(event.pointerId, now);
    if (other !== undefined) {
      const spread = (/** @type {{x: number, y: number}} */ point) => Math.hypot(point.x - other.x, point.y - other.y);
      const middle = { clientX: (now.x + other.x) / 2, clientY: (now.y + other.y) / 2 };
      this.scaleTo((this.scale * spread(now)) / Math.max(1, spread(last)), middle, frame);
    } else if (this.isMagnified()) {
      const box = frame.getBoundingClientRect();
      this.moveTo(this.x + (now.x - last.x) / box.width, this.y + (now.y - last.y) / box.height);
    }
  }

  /** Act on one of the keys z + = - @param {string} key */
  onKey(key) {
    if (key === "z") this.toggleActualSize();
    else this.scaleTo(key === "-" ? this.scale / PanZoom.STEP : this.scale * PanZoom.STEP);
  }
}
