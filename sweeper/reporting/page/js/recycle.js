// Elements for the visible part of a list: those that scroll out of view are moved to what comes into view.

/** @import { LineRange } from "./grid_geometry.js" */

/**
 * Make `items` (index -> element) cover a range. Returns whether it covers all of it.
 * @template T
 * @param {Map<number, T>} items @param {LineRange} range @param {object} actions
 * @param {() => T} actions.make a new element, when none is free
 * @param {(item: T, index: number) => void} actions.put shows another index in an element
 * @param {(item: T) => void} actions.drop removes an element that is left over
 * @param {() => boolean} [actions.hasTime] whether there is time for one more in this frame
 */
export function cover(items, [from, to], { make, put, drop, hasTime = () => true }) {
  const free = [];
  for (const [index, item] of items) {
    if (index >= from && index < to) continue;
    items.delete(index);
    free.push(item);
  }
  let complete = true;
  for (let index = from; index < to; index++) {
    if (items.has(index)) continue;
    if (!hasTime()) {
      complete = false;
      break;
    }
    const item = free.pop() ?? make();
    put(item, index);
    items.set(index, item);
  }
  // Keep unused elements under negative indices: the next frame uses them.
  if (complete) free.forEach(drop);
  else free.forEach((item, n) => items.set(-1 - n - items.size, item));
  return complete;
}
