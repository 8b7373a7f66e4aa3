"""A run held against a baseline, case by case: the states, and all of them together. Pure but for reading pictures.

Running, and telling whose fault a change is, live elsewhere; so does every way of showing it.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ImageError
from sweeper.model.result import FAILED as ROW_FAILED
from sweeper.regression.accept import describe_unusable, is_surely_same
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry
from sweeper.regression.cases import Case, OutputFile, RunCases, TrialRow
from sweeper.regression.match_files import (
    CompareFunction,
    CompareResult,
    CompareTask,
    compare_task,
    distance,
    equal_metrics,
    map_parallel,
)
from sweeper.regression.server_changes import describe_drift
from sweeper.regression.thresholds import Checks, Threshold

SAME: Final = "same"
CHANGED: Final = "changed"
NEW: Final = "new"  # a picture without a baseline
MISSING: Final = "missing"  # a baseline without a trial, or without the output
FAILED: Final = "failed"  # its trial failed
NOT_COMPARED: Final = "not compared"  # never "no regression": the trial did not run, or a file cannot be read
FilePair = tuple[OutputFile, TrialRow, BaselineEntry]
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
    current_file: str | None = None
    accepted_info: AcceptedFile | None = None
    seconds: float | None = None
    verdict: str = ""
    servers: str = ""

    @property
    def accepted(self) -> Path | None:
        return Path(self.accepted_file) if self.accepted_file is not None else None

    @property
    def now(self) -> Path | None:
        return Path(self.current_file) if self.current_file is not None else None

    @property
    def severity(self) -> float:
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
    custom_baseline: bool = False

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def counts(self) -> dict[str, int]:
        """How many cases are in each state, all states present."""
        found = Counter(one.state for one in self.items)
        return {state: found[state] for state in STATES}

    def is_blocking(self, one: Comparison) -> bool:
        """Whether this case keeps the check from passing."""
        return one.state != SAME and not (one.state == NEW and self.allow_new)

    @property
    def accept_command(self) -> str:
        """What accepts these results as this baseline, as a shell takes it."""
        where = ("--baseline", str(self.baseline)) if self.custom_baseline else ()
        return shlex.join(("sweeper", "accept", str(self.results), *where))

    @property
    def servers(self) -> dict[str, int]:
        """On which servers the pictures were accepted and made now, in sentences, and for how many cases each holds."""
        return dict(Counter(one.servers for one in self.items if one.servers).most_common())

    @property
    def ok(self) -> bool:
        """Whether everything that was accepted still holds; never true where nothing was compared at all."""
        return (
            self.has_baseline
            and self.stopped_by is None
            and bool(self.items)
            and not any(map(self.is_blocking, self.items))
        )


def compare_with_baseline(
    run_cases: RunCases,
    baseline: Baseline,
    checks: Checks,
    *,
    fresh: bool = False,
    allow_new: bool = False,
    compare_remote: CompareFunction | None = None,
) -> Comparisons:
    """Hold a run against a baseline.

    `answer`: who looks at pictures that lie at a URL; without, they are fetched. `fresh`: only what this very run made
    counts; a row that rests on an earlier run's job is not compared. Raises UsageError when a `where` of the checks
    cannot be computed.
    """
    seen: set[str] = set()
    items: list[Comparison] = []
    pairs: list[FilePair] = []
    ways: dict[str, list[str]] = {}
    for key, entry in baseline.entries.items():
        ways.setdefault(entry.case.point, []).append(key)
    for row in run_cases.rows:
        known = ways.get(row.point, [])
        if not row.succeeded or (fresh and row.run != run_cases.run):
            cases = [baseline.entries[key].case for key in known] or [Case(row.cells, "", 0, row.point)]
            items += [_build_unfinished(case, row, fresh=fresh) for case in cases]
            seen.update(known)
            continue
        for shown in row.outputs:
            key = shown.case.key
            found = baseline.entries.get(key)
            seen.add(key)
            if found is None:
                items.append(_build_comparison(shown, row, NEW, reason="no picture was accepted for it yet"))
            else:
                pairs.append((shown, row, found))
        if not row.outputs and not known:
            items.append(
                _build_without_file(Case(row.cells, "", 0, row.point), row, NOT_COMPARED, "its trial gave no file")
            )
    items += _CaseComparer(run_cases, baseline, checks).compare_pairs(pairs, compare_remote)
    planned = {row.point for row in run_cases.rows}
    items += [_build_missing(baseline, entry, planned) for key, entry in baseline.entries.items() if key not in seen]
    return Comparisons(
        run_cases.experiment, baseline.folder, run_cases.folder, _sort_by_severity(items), allow_new, baseline.exists,
        run=run_cases.run,
    )  # fmt: skip


def _sort_by_severity(items: Iterable[Comparison]) -> tuple[Comparison, ...]:
    def rank(one: Comparison) -> tuple[int, float, int, str, int, str]:
        first = STATES.index(one.state), -one.severity
        if one.trial is None:
            return *first, -1, "", 0, one.case.name
        return *first, one.trial, one.case.node, one.case.position, ""  # no name has to be made

    return tuple(sorted(items, key=rank))


class _CaseComparer:
    """A run beside a baseline, and what is the same for most of their cases: found once, by whichever thread."""

    def __init__(self, observed: RunCases, baseline: Baseline, checks: Checks) -> None:
        self._run_cases, self._baseline, self._checks = observed, baseline, checks
        self._folder = str(baseline.folder)
        self._drifts: dict[tuple[str | None, int], str] = {}
        self._equal_by_names: dict[tuple[str, ...], dict[str, float]] = {}

    def compare_pairs(self, pairs: list[FilePair], compare_remote: CompareFunction | None) -> list[Comparison]:
        """What bytes and manifest do not settle is asked of whoever can look at the pictures."""
        items = map_parallel(self._compare_bytes, pairs)
        open_ = [place for place, item in enumerate(items) if isinstance(item, CompareTask)]
        away = [place for place in open_ if compare_remote is not None and items[place].url is not None]
        here = sorted(set(open_) - set(away))
        self._run_cases.fetch(pairs[place][0] for place in here)
        answers = dict(zip(here, map_parallel(compare_task, [items[place] for place in here]), strict=True))
        if compare_remote is not None and away:
            answers.update(zip(away, compare_remote([items[place] for place in away]), strict=True))
        for place, found in answers.items():
            items[place] = self._build_result(pairs[place], items[place], found)
        return items

    def _compare_bytes(self, pair: FilePair) -> Comparison | CompareTask:
        """What needs no look at pictures: the very bytes, or accepted files that cannot be used."""
        shown, row, entry = pair
        bounds = self._checks.thresholds_for(row.result.params, row.result.columns)
        for accepted in entry.accepted:
            if shown.url is None and is_surely_same(self._get_accepted_path(accepted), accepted, shown):
                return self._build_same(shown, row, accepted, bounds)
        usable: list[tuple[AcceptedFile, Path]] = []
        reasons: list[str] = []
        for accepted in entry.accepted:
            path = Path(self._get_accepted_path(accepted))
            reason = describe_unusable(path, accepted)
            if not reason and shown.url is not None and shown.sha256 == accepted.sha256:
                return self._build_same(shown, row, accepted, bounds)
            reasons += [reason] if reason else []
            usable += [] if reason else [(accepted, path)]
        if not usable:
            return _build_comparison(
                shown, row, NOT_COMPARED, reason="; ".join(reasons), accepted_info=entry.accepted[0]
            )
        paths = tuple(path for _, path in usable)
        return CompareTask(shown.path, shown.sha256, shown.url, paths, tuple(one.pixels for one, _ in usable), bounds)

    def _build_same(
        self, shown: OutputFile, row: TrialRow, accepted: AcceptedFile, thresholds: Mapping[str, Threshold]
    ) -> Comparison:
        metrics, servers = self._get_equal_metrics(thresholds), self._describe_drift(accepted, row)
        path = self._get_accepted_path(accepted)
        return _build_comparison(shown, row, SAME, accepted_file=path, tier="bytes", metrics=metrics, servers=servers)

    def _build_result(self, pair: FilePair, task: CompareTask, result: CompareResult) -> Comparison:
        shown, row, entry = pair
        path = task.accepted[0 if isinstance(result, ImageError) else result[0]]
        before = next(one for one in entry.accepted if one.file == path.name)
        servers = self._describe_drift(before, row)
        if isinstance(result, ImageError):
            reason = (self._run_cases.describe_missing(shown) if task.url is None else "") or str(result)
            return _build_comparison(
                shown, row, NOT_COMPARED, reason=reason, accepted_info=before, accepted_file=str(path), servers=servers
            )
        found = result[1]
        return _build_comparison(
            shown, row, SAME if found.passes else CHANGED, reason=found.reason, tier=found.tier, metrics=found.metrics,
            accepted_info=None if found.passes else before, accepted_file=str(path), servers=servers,
        )  # fmt: skip

    def _get_accepted_path(self, accepted: AcceptedFile) -> str:
        return os.path.join(self._folder, accepted.file)  # noqa: PTH118 - a Path for each case takes longer

    def _describe_drift(self, accepted: AcceptedFile, row: TrialRow) -> str:
        key = accepted.server, id(row.server)  # which the rows of one run and target have in common
        if key not in self._drifts:
            self._drifts[key] = describe_drift(self._baseline.get_server(accepted), row.server)
        return self._drifts[key]

    def _get_equal_metrics(self, thresholds: Mapping[str, Threshold]) -> Mapping[str, float]:
        key = tuple(thresholds)
        if key not in self._equal_by_names:
            self._equal_by_names[key] = equal_metrics(thresholds)
        return self._equal_by_names[key]


def _build_comparison(shown: OutputFile, row: TrialRow, state: str, **rest: Any) -> Comparison:
    one = row.result
    return Comparison(
        shown.case, state, trial=one.trial, digest=one.digest, params=one.params, current_file=shown.path_text,
        seconds=one.ran_s, **rest,
    )  # fmt: skip


def _build_without_file(case: Case, row: TrialRow, state: str, reason: str) -> Comparison:
    one = row.result
    return Comparison(case, state, reason=reason, trial=one.trial, digest=one.digest, params=one.params)


def _build_unfinished(case: Case, row: TrialRow, *, fresh: bool) -> Comparison:
    one = row.result
    if one.status == ROW_FAILED:
        said = f"{one.error_type}: {one.error}" if one.error_type else one.error or "its trial failed"
        return _build_without_file(case, row, FAILED, " ".join(said.split()))
    stale = fresh and row.succeeded
    return _build_without_file(
        case, row, NOT_COMPARED, "its trial was not run this time" if stale else f"its trial is {one.status}"
    )


def _build_missing(baseline: Baseline, entry: BaselineEntry, planned: set[str]) -> Comparison:
    there = entry.case.point in planned
    reason = "its trial gave no such output" if there else "the experiment has no such trial any more"
    before = entry.accepted[0]
    file = str(baseline.folder / before.file)
    return Comparison(
        entry.case, MISSING, reason=reason, params=before.params, accepted_file=file, accepted_info=before
    )
