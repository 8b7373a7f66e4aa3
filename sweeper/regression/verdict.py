"""Say for each metric whether the new trials are better than the old ones, worse, equivalent, or undecided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from sweeper.errors import UsageError
from sweeper.model.result import SAMPLING_METRIC, Result
from sweeper.model.search_columns import VOTES_METRIC
from sweeper.regression.verdict_pairs import MatchedTrials, SideTrials
from sweeper.schemas.values import is_number
from sweeper.statistics.equivalence import EQUIVALENT, HIGHER, LOWER, UNDECIDED, Decision, decide_all
from sweeper.statistics.paired import MeanDifference, Numbers, PairDesign
from sweeper.wording import suggest

BETTER, WORSE = "better", "worse"
DEFAULT_MARGIN: Final = 0.2  # standard deviations of the metric among the old trials: Cohen's "small" effect
_SHOWN_PAIRS: Final = 6
_COLUMNS: Final = ("ran_s", "cost")  # columns beside the metrics that can be judged
_OF_JOBS: Final = (*_COLUMNS, SAMPLING_METRIC, VOTES_METRIC)  # metrics that two equal pictures need not share
_MAXIMIZED: Final = ("aesthetic", "prompt_similarity", VOTES_METRIC)
_MINIMIZED: Final = (*_COLUMNS, SAMPLING_METRIC)


@dataclass(frozen=True, slots=True)
class VerdictQuery:
    """What to judge: the metrics (all that hold numbers if none is named), their margins, and which way is better."""

    metrics: Sequence[str] = ()
    margins: Mapping[str, float] | None = None
    maximize: Sequence[str] = ()
    minimize: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """The verdict on one metric.

    `word` is `better`, `worse`, `equivalent` or `undecided`; `higher` or `lower` if nobody said which is better.
    `direction` is 1 if higher is better, -1 if lower is, else 0. `old` and `new` are the means over the matched trials.
    `note` says why there is no difference to judge; then `difference` is None.
    """

    metric: str
    word: str
    direction: int = 0
    old: float | None = None
    new: float | None = None
    margin: float = 0.0
    difference: MeanDifference | None = None
    decision: Decision | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class TrialPair:
    """Two matched trials and the metrics of each, for looking at them. `size`: the largest difference, in margins."""

    cells: Mapping[str, Any]
    old: Result
    new: Result
    metrics: Mapping[str, tuple[float, float]]
    size: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdicts on all metrics, and the pairs that differ most."""

    matched: MatchedTrials
    metrics: tuple[MetricVerdict, ...]
    pairs: tuple[TrialPair, ...]
    notes: tuple[str, ...]

    @property
    def word(self) -> str:
        """`worse` if one metric is; else `undecided` if one is not settled; else `better` if one is."""
        words = {one.word for one in self.metrics}
        if WORSE in words:
            return WORSE
        if words - {BETTER, EQUIVALENT}:
            return UNDECIDED
        return BETTER if BETTER in words else EQUIVALENT

    @property
    def ok(self) -> bool:
        """Whether every metric is better or equivalent."""
        return self.word in (BETTER, EQUIVALENT)


def find_verdict(matched: MatchedTrials, query: VerdictQuery) -> Verdict:
    """Judge the metrics of matched trials. Raises UsageError if there is none to judge."""
    names, notes = _choose_metrics(matched, query)
    found = [_measure(matched, name, (query.margins or {}).get(name)) for name in names]
    measured = {one.metric: one for one in found if one.difference is not None}
    differences = [one.difference for one in measured.values() if one.difference is not None]
    decisions = decide_all(differences, [one.margin for one in measured.values()])
    decided = dict(zip(measured, decisions, strict=True))
    verdicts = tuple(_decide(one, decided.get(one.metric), _find_direction(one.metric, query)) for one in found)
    return Verdict(matched, verdicts, _find_largest(matched, verdicts), (*matched.notes, *notes))


def _decide(one: MetricVerdict, decision: Decision | None, direction: int) -> MetricVerdict:
    word = one.word if decision is None else decision.word
    if word in (HIGHER, LOWER) and direction:
        word = BETTER if (word == HIGHER) == (direction > 0) else WORSE
    return replace(one, word=word, direction=direction, decision=decision)


def check_query(sides: Sequence[SideTrials], query: VerdictQuery) -> list[str]:
    """The mistakes in a query about these sides."""
    allowed = [*_list_common(sides), *_COLUMNS]
    options = {"--metric": query.metrics, "--margin": query.margins or (), "--maximize": query.maximize,
               "--minimize": query.minimize}  # fmt: skip
    problems = [
        f"{option}: there is no metric '{name}' on both sides{suggest(name, allowed, 'metrics')}"
        for option, names in options.items()
        for name in names
        if name not in allowed
    ]
    problems += [f"--maximize and --minimize both name {one}" for one in query.maximize if one in query.minimize]
    return problems


def _list_common(sides: Sequence[SideTrials]) -> list[str]:
    return [name for name in sides[0].layout.measured_metrics if all(name in one.layout.metrics for one in sides)]


def _choose_metrics(matched: MatchedTrials, query: VerdictQuery) -> tuple[list[str], list[str]]:
    sides = (matched.old_side, matched.new_side)
    common = _list_common(sides)
    one_sided = [
        f"{name} is a metric of {side.label} alone, so it is not judged"
        for side in sides
        for name in side.layout.measured_metrics
        if name not in common
    ]
    if query.metrics:
        return list(dict.fromkeys(query.metrics)), one_sided
    rows = [row for side in sides for row in side.rows]
    names = [name for name in common if any(is_number(row.metrics.get(name)) for row in rows)]
    if VOTES_METRIC in names and sides[0].folder != sides[1].folder:
        names.remove(VOTES_METRIC)
        one_sided.append("votes compare pictures of one folder only, so they are not judged")
    if not names:
        raise UsageError("no metric with numbers is on both sides; name some under `metrics:`, or give --metric ran_s")
    return names, one_sided


def _find_direction(metric: str, query: VerdictQuery) -> int:
    if metric in query.maximize or metric in query.minimize:
        return 1 if metric in query.maximize else -1
    return (metric in _MAXIMIZED) - (metric in _MINIMIZED)


def _get_number(row: Result, name: str) -> float:
    value: Any = getattr(row, name) if name in _COLUMNS else row.metrics.get(name)
    return float(value) if is_number(value) else math.nan


def _average(groups: Sequence[Sequence[Result]], name: str) -> Numbers:
    """The mean of a metric in each group of trials; NaN if one of them has none."""
    return np.array([np.mean([_get_number(row, name) for row in rows]) for rows in groups])


def _measure(matched: MatchedTrials, name: str, margin: float | None) -> MetricVerdict:
    """The difference in one metric, not decided yet unless it needs no statistics."""
    old, new = _average(matched.old, name), _average(matched.new, name)
    known = np.isfinite(old) & np.isfinite(new)
    if not known.any():
        return MetricVerdict(name, UNDECIDED, note="No matched trials have numbers on both sides")
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.std([*old[known], *new[known]]))
        if not math.isfinite(spread):
            return MetricVerdict(name, UNDECIDED, note="The numbers are too large to compute with")
    spread = float(np.std(old[known], ddof=1)) if known.sum() > 1 else 0.0
    facts: dict[str, Any] = {"old": float(old[known].mean()), "new": float(new[known].mean()),
                             "margin": DEFAULT_MARGIN * spread if margin is None else margin}  # fmt: skip
    if name not in _OF_JOBS and _have_same_pictures(matched):
        note = f"The pictures of all {len(matched.old)} pairs are the same, byte by byte"
        return MetricVerdict(name, EQUIVALENT, **facts, note=note)
    differences = new[known] - old[known]
    if not differences.any():
        pairs = f"All {len(differences)} pairs are" if len(differences) > 1 else "The one pair is"
        note = f"{pairs} equal, so nothing says how much a pair can differ"
        return MetricVerdict(name, UNDECIDED, **facts, note=note)
    design = PairDesign(matched.settings[known], [codes[known] for codes in matched.replicates])
    difference = design.estimate(differences)
    if difference.low is None:
        return MetricVerdict(name, UNDECIDED, **facts, note="There is only one matched pair; a verdict needs several")
    return MetricVerdict(name, UNDECIDED, **facts, difference=difference)


def _have_same_pictures(matched: MatchedTrials) -> bool:
    groups = zip(matched.old, matched.new, strict=True)
    return all({row.sha256 for row in olds} == {row.sha256 for row in news} for olds, news in groups)


def _find_largest(matched: MatchedTrials, verdicts: Sequence[MetricVerdict]) -> tuple[TrialPair, ...]:
    """The pairs whose difference in some metric is the largest, measured in margins."""
    pairs = []
    for cells, olds, news in zip(matched.cells, matched.old, matched.new, strict=True):
        old, new = olds[0], news[0]
        numbers = {one.metric: (_get_number(old, one.metric), _get_number(new, one.metric)) for one in verdicts}
        known = {name: pair for name, pair in numbers.items() if all(map(math.isfinite, pair))}
        margins = {one.metric: one.margin for one in verdicts if one.margin and one.metric in known}
        sizes = [abs(known[name][1] - known[name][0]) / margin for name, margin in margins.items()]
        pairs.append(TrialPair(cells, old, new, known, max(sizes, default=0.0)))
    return tuple(sorted((pair for pair in pairs if pair.size), key=lambda pair: -pair.size)[:_SHOWN_PAIRS])
