"""A run held against a baseline, case by case: the states, and all of them together. Pure but for reading pictures.

Running, and telling whose fault a change is, live elsewhere; so does every way of showing it.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ImageError
from sweeper.model.result import FAILED as ROW_FAILED
from sweeper.regression.accept import plainly_same, why_unusable
from sweeper.regression.baseline import Accepted, Baseline, Entry
from sweeper.regression.cases import Case, Observed, Row, Shown
from sweeper.regression.match_files import Answer, Answering, Question, answered, distance, equal_metrics, side_by_side
from sweeper.regression.server_changes import drift
from sweeper.regression.thresholds import Bound, Checks

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

    `accepted` and `now` are the two files, kept as texts because ten thousand paths are some megabytes. `before` is
    what the manifest says of the accepted one where they are not the same. `servers` tells on which servers they were
    made, as far as these told. `verdict` is filled in by attribution.
    """

    case: Case
    state: str
    tier: str = ""
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    trial: int | None = None
    digest: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    accepted_file: str | None = None
    now_file: str | None = None
    before: Accepted | None = None
    seconds: float | None = None
    verdict: str = ""
    servers: str = ""

    @property
    def accepted(self) -> Path | None:
        return Path(self.accepted_file) if self.accepted_file is not None else None

    @property
    def now(self) -> Path | None:
        return Path(self.now_file) if self.now_file is not None else None

    @property
    def worst(self) -> float:
        """How far it is from what was accepted, to sort by: the mean difference of 0-255, more where nothing fits."""
        return distance(self.metrics) if self.state in (CHANGED, FAILED, NOT_COMPARED) else 0.0


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Every case of a run and of its baseline. Iterates over the cases, those that need a look first.

    `allow_new`: cases without a baseline may be. `run`: the id of the run that was compared. `stopped_by`: why it
    ended early, if it did. `elsewhere`: `baseline` is not the one that `sweeper accept` writes by itself.
    """

    experiment: str
    baseline: Path
    results: Path
    items: tuple[Comparison, ...]
    allow_new: bool = False
    has_baseline: bool = True
    stopped_by: str | None = None
    run: int | None = None
    elsewhere: bool = False

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
    def accepting(self) -> str:
        """What accepts these results as this baseline, as a shell takes it."""
        where = ("--baseline", str(self.baseline)) if self.elsewhere else ()
        return shlex.join(("sweeper", "accept", str(self.results), *where))

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
            cases = [baseline.entries[key].case for key in known] or [Case(row.cells, "", 0, row.point)]
            items += [_unfinished(case, row, fresh=fresh) for case in cases]
            seen.update(known)
            continue
        for shown in row.shown:
            key = shown.case.key
            found = baseline.entries.get(key)
            seen.add(key)
            if found is None:
                items.append(_of(shown, row, NEW, reason="no picture was accepted for it yet"))
            else:
                pairs.append((shown, row, found))
        if not row.shown and not known:
            items.append(_of_row(Case(row.cells, "", 0, row.point), row, NOT_COMPARED, "its trial gave no file"))
    items += _Held(observed, baseline, checks).compared(pairs, answer)
    planned = {row.point for row in observed.rows}
    items += [_missing(baseline, entry, planned) for key, entry in baseline.entries.items() if key not in seen]
    return Comparisons(
        observed.experiment, baseline.folder, observed.folder, _sorted(items), allow_new, baseline.exists,
        run=observed.run,
    )  # fmt: skip


def _sorted(items: Iterable[Comparison]) -> tuple[Comparison, ...]:
    def rank(one: Comparison) -> tuple[int, float, int, str, int, str]:
        first = STATES.index(one.state), -one.worst
        if one.trial is None:
            return *first, -1, "", 0, one.case.name
        return *first, one.trial, one.case.node, one.case.position, ""  # no name has to be made

    return tuple(sorted(items, key=rank))


class _Held:
    """A run beside a baseline, and what is the same for most of their cases: found once, by whichever thread."""

    def __init__(self, observed: Observed, baseline: Baseline, checks: Checks) -> None:
        self._observed, self._baseline, self._checks = observed, baseline, checks
        self._folder = str(baseline.folder)
        self._drifts: dict[tuple[str | None, int], str] = {}
        self._equal: dict[tuple[str, ...], dict[str, float]] = {}

    def compared(self, pairs: list[Pair], answer: Answering | None) -> list[Comparison]:
        """What bytes and manifest do not settle is asked of whoever can look at the pictures."""
        items = side_by_side(self._settled, pairs)
        open_ = [place for place, item in enumerate(items) if isinstance(item, Question)]
        away = [place for place in open_ if answer is not None and items[place].url is not None]
        here = sorted(set(open_) - set(away))
        self._observed.bring(pairs[place][0] for place in here)
        answers = dict(zip(here, side_by_side(answered, [items[place] for place in here]), strict=True))
        if answer is not None and away:
            answers.update(zip(away, answer([items[place] for place in away]), strict=True))
        for place, found in answers.items():
            items[place] = self._told(pairs[place], items[place], found)
        return items

    def _settled(self, pair: Pair) -> Comparison | Question:
        """What needs no look at pictures: the very bytes, or accepted files that cannot be used."""
        shown, row, entry = pair
        bounds = self._checks.for_trial(row.result.params, row.result.columns)
        for accepted in entry.accepted:
            if shown.url is None and plainly_same(self._path(accepted), accepted, shown):
                return self._same(shown, row, accepted, bounds)
        usable: list[tuple[Accepted, Path]] = []
        reasons: list[str] = []
        for accepted in entry.accepted:
            path = Path(self._path(accepted))
            reason = why_unusable(path, accepted)
            if not reason and shown.url is not None and shown.sha256 == accepted.sha256:
                return self._same(shown, row, accepted, bounds)
            reasons += [reason] if reason else []
            usable += [] if reason else [(accepted, path)]
        if not usable:
            return _of(shown, row, NOT_COMPARED, reason="; ".join(reasons), before=entry.accepted[0])
        paths = tuple(path for _, path in usable)
        return Question(shown.path, shown.sha256, shown.url, paths, tuple(one.pixels for one, _ in usable), bounds)

    def _same(self, shown: Shown, row: Row, accepted: Accepted, bounds: Mapping[str, Bound]) -> Comparison:
        metrics, servers = self._equal_metrics(bounds), self._drift(accepted, row)
        path = self._path(accepted)
        return _of(shown, row, SAME, accepted_file=path, tier="bytes", metrics=metrics, servers=servers)

    def _told(self, pair: Pair, question: Question, answer: Answer) -> Comparison:
        shown, row, entry = pair
        path = question.accepted[0 if isinstance(answer, ImageError) else answer[0]]
        before = next(one for one in entry.accepted if one.file == path.name)
        servers = self._drift(before, row)
        if isinstance(answer, ImageError):
            reason = (self._observed.absent(shown) if question.url is None else "") or str(answer)
            return _of(shown, row, NOT_COMPARED, reason=reason, before=before, accepted_file=str(path), servers=servers)
        found = answer[1]
        return _of(
            shown, row, SAME if found.passes else CHANGED, reason=found.reason, tier=found.tier, metrics=found.metrics,
            before=None if found.passes else before, accepted_file=str(path), servers=servers,
        )  # fmt: skip

    def _path(self, accepted: Accepted) -> str:
        return os.path.join(self._folder, accepted.file)  # noqa: PTH118 - a Path for each case takes longer

    def _drift(self, accepted: Accepted, row: Row) -> str:
        key = accepted.server, id(row.server)  # which the rows of one run and target have in common
        if key not in self._drifts:
            self._drifts[key] = drift(self._baseline.server(accepted), row.server)
        return self._drifts[key]

    def _equal_metrics(self, bounds: Mapping[str, Bound]) -> Mapping[str, float]:
        key = tuple(bounds)
        if key not in self._equal:
            self._equal[key] = equal_metrics(bounds)
        return self._equal[key]


def _of(shown: Shown, row: Row, state: str, **rest: Any) -> Comparison:
    one = row.result
    return Comparison(
        shown.case, state, trial=one.trial, digest=one.digest, params=one.params, now_file=shown.path_text,
        seconds=one.ran_s, **rest,
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
    file = str(baseline.folder / before.file)
    return Comparison(entry.case, MISSING, reason=reason, params=before.params, accepted_file=file, before=before)
