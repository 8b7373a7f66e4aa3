// The points of a search: one for each choice of values for the axes of its space, with all trials that tried it. No DOM.

/** @import { Axis, Column } from "./columns.js" */
/** @import { Dataset } from "./dataset.js" */

/**
 * @typedef {object} Objective  a number that the search makes as large or as small as possible
 * @property {Column} column the objective of each trial's point
 * @property {boolean} maximize
 * @property {string} short its name beside a number
 * @property {string} direction which direction is better
 * @property {string} title both
 */
/**
 * @typedef {object} SearchPoint
 * @property {number} number from 1, in the order of the rounds
 * @property {number[]} rows all its trials
 * @property {number[]} shown those that pass the filter
 * @property {number} round 0: before the search
 * @property {number} wanted how many trials it has unless it is stopped early
 * @property {(number | null)[]} objectives
 * @property {PointKind} kind
 */
/** @typedef {"tried" | "earlier" | "stopped" | "failed" | "pending"} PointKind */
/**
 * @typedef {object} Search
 * @property {Objective[]} objectives
 * @property {Axis[]} space
 * @property {SearchPoint[]} points in the order of their numbers
 */

/** @type {Record<PointKind, string>} */
export const KIND_WORDS = {
  tried: "tried by the search",
  earlier: "done before the search",
  stopped: "stopped early or incomplete",
  failed: "failed, so without an objective",
  pending: "without an objective yet",
};

/** @param {Dataset} dataset @param {(row: number) => boolean} holds whether a row passes the filter @returns {Search} */
export function collect(dataset, holds) {
  /** @type {{objectives: {metric: string, column: string, maximize: boolean}[], space: string[]}} */
  const { objectives, space } = dataset.raw.search;
  const axes = dataset.axes.filter(({ name }) => space.includes(name));
  const isOnly = objectives.length === 1;
  const columns = objectives.map(({ metric, column, maximize }) => {
    const name = isOnly && column !== metric ? `${column}: ${metric}` : column;
    const direction = `${maximize ? "higher" : "lower"} is better`;
    return { column: dataset.outcomeColumn(column), maximize, short: metric, direction, title: `${name}, ${direction}` };
  });
  const round = dataset.outcomeColumn("round");
  const groups = Map.groupBy(dataset.listRows(), (row) => axes.map((axis) => axis.codes[row]).join());
  const points = [...groups.values()].map((rows) => ({ rows, round: Math.min(...rows.map((row) => round.value(row) ?? 0)) }));
  const tried = points.filter((point) => point.round > 0);
  // If the experiment cannot be read any more, nobody knows which combinations its `where` leaves out.
  const most = Math.max(0, ...(tried.length ? tried : points).map(({ rows }) => rows.length));
  const wantedOf = (/** @type {number[]} */ [row]) => dataset.raw.wanted?.[row] ?? most;
  const lastRound = dataset.raw.live?.running ? Math.max(0, ...points.map((point) => point.round)) : Infinity;
  return {
    objectives: columns,
    space: axes,
    points: points
      .sort((a, b) => a.round - b.round || a.rows[0] - b.rows[0])
      .map(({ rows, round }, index) => {
        const values = columns.map(({ column }) => rows.map((row) => column.value(row)).find((value) => typeof value === "number") ?? null);
        const wanted = wantedOf(rows);
        const isShort = rows.length < wanted && round < lastRound;
        const kind = findKind(dataset, rows, values.every((value) => value !== null), round, isShort);
        return { number: index + 1, rows, shown: rows.filter(holds), round, wanted, objectives: values, kind };
      }),
  };
}

/**
 * @param {Dataset} dataset @param {number[]} rows @param {boolean} isKnown whether the objectives are known
 * @param {number} round @param {boolean} isShort whether it has fewer trials than others, and gets no more
 * @returns {PointKind}
 */
function findKind(dataset, rows, isKnown, round, isShort) {
  const statuses = rows.map((row) => dataset.status(row));
  if (!isKnown) return statuses.includes("failed") && !statuses.some((status) => ["pending", "running"].includes(status)) ? "failed" : "pending";
  if (round === 0) return "earlier";
  return isShort && !statuses.includes("pending") ? "stopped" : "tried";
}

/**
 * The points that can be compared: with all their trials, if there are any of those. A mean of fewer says less.
 * @param {SearchPoint[]} points @param {number[]} indices of the objectives that have to be known
 */
export function listComparable(points, indices) {
  const known = points.filter(({ objectives }) => indices.every((index) => objectives[index] !== null));
  const complete = known.filter(({ kind }) => kind !== "stopped");
  return complete.length > 0 ? complete : known;
}

/**
 * Compare two points by an objective, the better one first; points without one come last.
 * @param {Objective} objective @param {number} index of the objective
 */
export const makeComparison = ({ maximize }, index) => (/** @type {SearchPoint} */ a, /** @type {SearchPoint} */ b) => {
  const [one, other] = [a, b].map(({ objectives }) => objectives[index]);
  if (one === null || other === null) return Number(one === null) - Number(other === null);
  return maximize ? other - one : one - other;
};

/**
 * The points to which no other is at least as good in each of these objectives and better in one: the Pareto front.
 * @param {SearchPoint[]} points @param {Objective[]} objectives @param {number[]} [indices] of the objectives, by default all
 */
export function findFront(points, objectives, indices = [...objectives.keys()]) {
  const known = listComparable(points, indices);
  const [first] = indices;
  const signed = (/** @type {SearchPoint} */ point, /** @type {number} */ index) =>
    /** @type {number} */ (point.objectives[index]) * (objectives[index].maximize ? 1 : -1);
  const dominates = (/** @type {SearchPoint} */ a, /** @type {SearchPoint} */ b) =>
    indices.every((index) => signed(a, index) >= signed(b, index)) && indices.some((index) => signed(a, index) > signed(b, index));
  return known.filter((point) => !known.some((other) => dominates(other, point))).sort(makeComparison(objectives[first], first));
}

/** @param {SearchPoint} point */
export function describeKind({ kind, rows, round, wanted }) {
  const trials = `${rows.length} trial${rows.length === 1 ? "" : "s"}`;
  const count = kind === "stopped" ? `${rows.length} of ${wanted} trials` : trials;
  return [round > 0 && `round ${round}`, count, kind !== "tried" && KIND_WORDS[kind]].filter(Boolean).join(" · ");
}
