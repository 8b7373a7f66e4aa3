// Which axes of a grid go across and down, and which repeat it, before anybody has chosen. No DOM.

/** @typedef {{name: string, size: number, longest: () => number}} GridAxis `size`: how many values; `longest`: the letters of the longest label */

const MAX_FIRST_COLUMNS = 8; // of a first view that repeats its X axis
const MAX_ACROSS_LABEL = 24; // letters of a value that is shown across when there is only one axis

/** @param {{name: string}} column */
export const isSeed = ({ name }) => /(^|[^a-z])seed$/i.test(name);

/**
 * Choose the two axes with most values, longer texts down the side, then up to two outer ones. Seeds come last, because
 * one compares prompts and settings first.
 * @template {GridAxis} Axis
 * @param {Axis[]} axes those that vary
 * @param {(axis: Axis, others: Axis[]) => boolean} isDetermined whether the values of the others fix that of the axis
 * @param {(axis: Axis, other: Axis) => boolean} isTogether whether two vary together
 * @returns {{x: string, y: string, xx: string, yy: string}} the names across, down, of outer columns and outer rows
 */
export function placeAxes(axes, isDetermined, isTogether) {
  /** @type {Axis[]} */
  const chosen = [];
  // The sort is stable, so a page that is opened twice looks the same.
  for (const axis of axes.toSorted((a, b) => Number(isSeed(a)) - Number(isSeed(b)) || b.size - a.size)) {
    if (chosen.length < 4 && !isDetermined(axis, chosen)) chosen.push(axis);
  }
  // Two sizes may have one width. What varies together with another axis shares its direction, where no cell is empty for it.
  const findPartner = (/** @type {Axis} */ axis) => chosen.find((other) => other !== axis && isTogether(axis, other));
  const [first, ...others] = chosen;
  const [second, third, fourth] = others.sort((a, b) => Number(findPartner(a) === first) - Number(findPartner(b) === first));
  if (second && findPartner(second) === first) return { x: first.name, y: "", xx: second.name, yy: third?.name ?? "" };
  const view = { x: first?.name ?? "", y: second?.name ?? "", xx: fourth?.name ?? "", yy: third?.name ?? "" };
  if (second && first.longest() > second.longest()) [view.x, view.y] = [second.name, first.name];
  // Outer columns are used only as long as all of them fit on a screen; otherwise the outer axis goes down the side.
  const columnCount = (view.x === first?.name ? first : second)?.size ?? 1;
  const partner = third && findPartner(third);
  const isOuterColumn = partner ? view.x === partner.name : third && columnCount * third.size <= MAX_FIRST_COLUMNS;
  if (isOuterColumn) [view.xx, view.yy] = [view.yy, view.xx];
  if (!second && first && first.longest() > MAX_ACROSS_LABEL) [view.x, view.y] = ["", first.name];
  return view;
}
