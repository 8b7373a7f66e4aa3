// Nodes that stand for places of a list: those that scroll out of view are moved to the places that come into it.
"use strict";

(function (sweeper) {
  /**
   * Bring `map`, place -> node, to the range [from, to). `put(node, place)` shows a place in a node that was at another;
   * `make()` gives a node where none is free. A node that is left over is removed, by `drop`. `go()` says whether there
   * is time for one more, in this frame; is everything there?
   */
  function recycle(map, [from, to], { make, put, drop = (node) => node.remove(), go = () => true }) {
    const free = [];
    for (const [place, node] of map) {
      if (place >= from && place < to) continue;
      map.delete(place);
      free.push(node);
    }
    let whole = true;
    for (let place = from; place < to; place++) {
      if (map.has(place)) continue;
      if (!go()) {
        whole = false;
        break;
      }
      const node = free.pop() ?? make();
      put(node, place);
      map.set(place, node);
    }
    // What there was no time for is out of view, and is taken again in the next frame.
    if (whole) free.forEach(drop);
    else free.forEach((node, n) => map.set(-1 - n - map.size, node));
    return whole;
  }

  sweeper.recycle = recycle;
})((globalThis.sweeper ??= {}));
