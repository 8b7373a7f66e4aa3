// Numbers as colours: one scale for cells, heat maps and lines.
"use strict";

(function (sweeper) {
  // Five stops of viridis (Smith and van der Walt 2015): even to the eye, and readable without red and green.
  const STOPS = [
    [68, 1, 84],
    [59, 82, 139],
    [33, 145, 140],
    [94, 201, 98],
    [253, 231, 37],
  ];
  const LINES = ["#3b78c4", "#d9822b", "#3f9b57", "#b5459e", "#8a6d3b", "#2aa3a3", "#c4453b", "#7a7f87"];

  /** Colour of `share` (0 to 1) as rgb(). */
  function at(share) {
    const place = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
    const low = Math.min(STOPS.length - 2, Math.floor(place));
    const mixed = STOPS[low].map((part, i) => Math.round(part + (STOPS[low + 1][i] - part) * (place - low)));
    return `rgb(${mixed.join(", ")})`;
  }

  /** The text colour that can be read on `at(share)`. */
  const ink = (share) => (share > 0.55 ? "#111" : "#fff");

  /** Lowest and highest of some numbers; missing ones do not count. */
  function extent(numbers) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of numbers) {
      if (typeof value !== "number") continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return low <= high ? [low, high] : null;
  }

  /** A number's share of its extent; a constant lies in the middle. */
  const share = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);

  sweeper.colours = { at, ink, extent, share, LINES };
})((globalThis.sweeper ??= {}));
