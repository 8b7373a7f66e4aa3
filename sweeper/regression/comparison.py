"""A run held against a baseline, case by case: the states, and all of them together. Pure but for reading pictures.

Running, and telling whose fault a change is, live elsewhere; so does every way of showing it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ImageError
from sweeper.regression.accepting import plainly_same, why_unusable
from sweeper.regression.baseline import Accepted, Baseline, Entry
from sweeper.regression.cases import Case, Observed, Row, Shown
from sweeper.regression.checks import Bound, Checks
from sweeper.regression.matching import Answer, Answering, Question, answered, distance, equal_metrics, side_by_side
from sweeper.regression.servers import drift
from sweeper.result import FAILED as ROW_FAILED

SAME: Final = "same"
CHANGED: Final = "changed"
NEW: Final = "new"  # a picture without a baseline
MISSING: Final = "missing"  # a baseline without a trial, or without the output
FAILED: Final = "failed"  # its trial failed
NOT_COMPARED: Final = "not compared"  # never "no regression": the trial did not run, or a file cannot be read
Pair = tuple[Shown, Row, Entry]
STATES: Final = (CHANGED, FAILED, NOT_COMPARED, MISSING, NEW, SAME)  # what needs a look first


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of one case. `tier` is how it was found the same or not (the words of `matching.Match`),
    `reason` says why for people, `metrics` are the measures where there was something to measure.

    `accepted` and `now` are the two files; `before` is what the manifest says of the accepted one. `servers` tells on
    which servers they were made, as far as these told. `verdict` is filled in by attribution.
    """

    case: Case
    state: str
    tier: str = ""
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    trial: int | None = None
    digest: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    accepted: Path | None = None
    now: Path | None = None
    before: Accepted | None = None
    seconds: float | None = None
    verdict: str = ""
    servers: str = ""

    @property
    def worst(self) -> float:
        """How far it is from what was accepted, to sort by: the mean difference of 0-255, more where nothing fits."""
        return distance(self.metrics) if self.state in (CHANGED, FAILED, NOT_COMPARED) else 0.0


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Every case of a run and of its baseline. Iterates over the cases, those that need a look first.

    `allow_new`: cases without a baseline may be. `run`: the id of the run that was compared. `stopped_by`: why it
    ended early, if it did.
    """

    experiment: str
    baseline: Path
    results: Path
    items: tuple[Comparison, ...]
    allow_new: bool = False
    has_baseline: bool = True
    stopped_by: str | None = None
    run: int | None = None

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def counts(self) -> dict[str, int]:
        """How many cases are in each state, all states present."""
        found = Counter(one.state for one in self.items)
        return {state: found[state] for state in STATES}

    def bad(self, one: Comparison) -> bool:
        """Whether this case keeps the check from passing."""
        return one.state != SAME and not (one.state == NEW and self.allow_new)

    @property
    def servers(self) -> dict[str, int]:
        """On which servers the pictures were accepted and made now, in sentences, and for how many cases each holds."""
        return dict(Counter(one.servers for one in self.items if one.servers).most_common())

    @property
    def ok(self) -> bool:
        """Whether everything that was accepted still holds; never true where nothing was compared at all."""
        return self.has_baseline and self.stopped_by is None and bool(self.items) and not any(map(self.bad, self.items))


def compare(
    observed: Observed,
    baseline: Baseline,
    checks: Checks,
    *,
    fresh: bool = False,
    allow_new: bool = False,
    answer: Answering | None = None,
) -> Comparisons:
    """Hold a run against a baseline.

    `answer`: who looks at pictures that lie at a URL; without, they are fetched. `fresh`: only what this very run made
    counts; a row that rests on an earlier run's job is not compared. Raises UsageError when a `where` of the checks
    cannot be computed.
    """
    seen: set[str] = set()
    items: list[Comparison] = []
    pairs: list[Pair] = []
    ways: dict[str, list[str]] = {}
    for key, entry in baseline.entries.items():
        ways.setdefault(entry.case.point, []).append(key)
    for row in observed.rows:
        known = ways.get(row.point, [])
        if not row.succeeded or (fresh and row.run != observed.run):
            cases = [baseline.entries[key].case for key in known] or [Case(row.cells, "", 0)]
            items += [_unfinished(case, row, fresh=fresh) for case in cases]
            seen.update(known)
            continue
        for shown in row.shown:
            found = baseline.entries.get(shown.case.key)
            seen.add(shown.case.key)
            if found is None:
                items.append(_of(shown, row, NEW, reason="no picture was accepted for it yet"))
            else:
                pairs.append((shown, row, found))
        if not row.shown and not known:
            items.append(_of_row(Case(row.cells, "", 0), row, NOT_COMPARED, "its trial gave no file"))
    items += _compared(observed, baseline, checks, pairs, answer)
    planned = {row.point for row in observed.rows}
    items += [_missing(baseline, entry, planned) for key, entry in baseline.entries.items() if key not in seen]
    return Comparisons(
        observed.experiment, baseline.folder, observed.folder, _sorted(items), allow_new, baseline.exists,
        run=observed.run,
    )  # fmt: skip


def _sorted(items: Iterable[Comparison]) -> tuple[Comparison, ...]:
    def rank(one: Comparison) -> tuple[int, float, int, str]:
        return STATES.index(one.state), -one.worst, one.trial if one.trial is not None else -1, one.case.name

    return tuple(sorted(items, key=rank))


def _compared(
    observed: Observed, baseline: Baseline, checks: Checks, pairs: list[Pair], answer: Answering | None
) -> list[Comparison]:
    """What bytes and manifest do not settle is asked of whoever can look at the pictures."""
    items = side_by_side(lambda pair: _settled(baseline, checks, pair), pairs)
    open_ = [place for place, item in enumerate(items) if isinstance(item, Question)]
    away = [place for place in open_ if answer is not None and items[place].url is not None]
    here = [place for place in open_ if place not in set(away)]
    observed.bring(pairs[place][0] for place in here)
    answers = dict(zip(here, side_by_side(answered, [items[place] for place in here]), strict=True))
    if answer is not None and away:
        answers.update(zip(away, answer([items[place] for place in away]), strict=True))
    for place, found in answers.items():
        items[place] = _told(observed, baseline, pairs[place], items[place], found)
    return items


def _settled(baseline: Baseline, checks: Checks, pair: Pair) -> Comparison | Question:
    """What needs no look at pictures: the very bytes, or accepted files that cannot be used."""
    shown, row, entry = pair
    bounds = checks.for_trial(row.result.params, row.result.columns)
    usable: list[tuple[Accepted, Path]] = []
    reasons: list[str] = []
    for accepted in entry.accepted:
        path = baseline.folder / accepted.file
        if shown.url is None and plainly_same(path, accepted, shown):
            return _same(baseline, pair, accepted, bounds)
    for accepted in entry.accepted:
        path = baseline.folder / accepted.file
        reason = why_unusable(path, accepted)
        if not reason and shown.url is not None and shown.sha256 == accepted.sha256:
            return _same(baseline, pair, accepted, bounds)
        reasons += [reason] if reason else []
        usable += [] if reason else [(accepted, path)]
    if not usable:
        return _of(shown, row, NOT_COMPARED, reason="; ".join(reasons), before=entry.accepted[0])
    paths = tuple(path for _, path in usable)
    return Question(shown.path, shown.sha256, shown.url, paths, tuple(one.pixels for one, _ in usable), bounds)


def _same(baseline: Baseline, pair: Pair, accepted: Accepted, bounds: Mapping[str, Bound]) -> Comparison:
    shown, row, _ = pair
    return _of(
        shown, row, SAME, before=accepted, accepted=baseline.folder / accepted.file, tier="bytes",
        metrics=equal_metrics(bounds), servers=drift(baseline.server(accepted), row.server),
    )  # fmt: skip


def _told(observed: Observed, baseline: Baseline, pair: Pair, question: Question, answer: Answer) -> Comparison:
    shown, row, entry = pair
    place = 0 if isinstance(answer, ImageError) else answer[0]
    path = question.accepted[place]
    before = next(one for one in entry.accepted if one.file == path.name)
    servers = drift(baseline.server(before), row.server)
    if isinstance(answer, ImageError):
        reason = observed.absent(shown) if question.url is None else ""
        return _of(
            shown, row, NOT_COMPARED, reason=reason or str(answer), before=before, accepted=path, servers=servers
        )
    found = answer[1]
    state = SAME if found.passes else CHANGED
    return _of(
        shown, row, state, reason=found.reason, before=before, accepted=path, tier=found.tier, metrics=found.metrics,
        servers=servers,
    )  # fmt: skip


def _of(shown: Shown, row: Row, state: str, **rest: Any) -> Comparison:
    one = row.result
    return Comparison(
        shown.case, state, trial=one.trial, digest=one.digest, params=one.params, now=shown.path, seconds=one.ran_s,
        **rest,
    )  # fmt: skip


def _of_row(case: Case, row: Row, state: str, reason: str) -> Comparison:
    one = row.result
    return Comparison(case, state, reason=reason, trial=one.trial, digest=one.digest, params=one.params)


def _unfinished(case: Case, row: Row, *, fresh: bool) -> Comparison:
    one = row.result
    if one.status == ROW_FAILED:
        said = f"{one.error_type}: {one.error}" if one.error_type else one.error or "its trial failed"
        return _of_row(case, row, FAILED, " ".join(said.split()))
    stale = fresh and row.succeeded
    return _of_row(
        case, row, NOT_COMPARED, "its trial was not run this time" if stale else f"its trial is {one.status}"
    )


def _missing(baseline: Baseline, entry: Entry, planned: set[str]) -> Comparison:
    there = entry.case.point in planned
    reason = "its trial gave no such output" if there else "the experiment has no such trial any more"
    before = entry.accepted[0]
    return Comparison(
        entry.case, MISSING, reason=reason, params=before.params, accepted=baseline.folder / before.file, before=before
    )
