"""Compare the files of a run with a baseline, case by case. This reads files, but runs nothing and writes nothing."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from sweeper.answers.parts import Heading, Line, Part, Table
from sweeper.answers.render import NOT_IN_JSON, json_keys
from sweeper.errors import GONE_ERROR, ImageError
from sweeper.model.experiment import select_settings
from sweeper.model.model_facts import describe_model_changes
from sweeper.model.result import FAILED as TRIAL_FAILED
from sweeper.regression.accept import describe_unusable, is_surely_same
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry, describe_drift
from sweeper.regression.cases import Case, OutputFile, RunCases, TrialRow
from sweeper.regression.match_files import (
    Checks,
    Threshold,
    Thresholds,
    distance,
    equal_metrics,
    find_best_match,
    map_parallel,
    pick_loosest,
    propose_tolerance,
)
from sweeper.store.containment import display_path
from sweeper.wording import count_things, join_command

SAME: Final = "same"
CHANGED: Final = "changed"
NEW: Final = "new"  # a picture without an accepted one
MISSING: Final = "missing"  # an accepted picture without a trial, or without the output
FAILED: Final = "failed"  # its trial failed
GONE: Final = "gone"  # the server no longer offers what its trial needs, so that it did not run; see `find_gone`
NOT_COMPARED: Final = "not compared"  # the trial did not run, or a file cannot be read; the check does not pass
STATES: Final = (CHANGED, FAILED, NOT_COMPARED, MISSING, NEW, GONE, SAME)  # the most important first
FilePair: TypeAlias = tuple[OutputFile, TrialRow, BaselineEntry]
MAX_ROWS: Final = 50  # cases in a table: GitHub cuts a step summary at a megabyte; the page and JUnit XML have all


def _display(file: str | None) -> str | None:
    return None if file is None else display_path(Path(file))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The state of one case, and why.

    In JSON, `case` is its name, `cells` its swept values, and `position` the number of its file among those of the
    output node `node`, from 0. `tier` is the step that decided the state (see `match_files.Match`), and `metrics` are
    the measures, if there was anything to measure. `accepted` and `now` are the two files. Attribution fills in
    `verdict`: who changed the picture.

    The files are stored as texts, because ten thousand Path objects take some megabytes. `accepted_info` is the
    manifest's record of the accepted file if the two are not the same. `servers` describes on which servers they were
    made, and `seconds` is how long the trial took. `tolerance`: the thresholds that would allow a small change.
    """

    case: Case = field(
        metadata=json_keys(
            case=lambda case: case.name,
            cells=lambda case: case.cells,
            node=lambda case: case.node,
            position=lambda case: case.position,
        )
    )
    state: str
    tier: str = ""
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    trial: int | None = field(default=None, metadata=NOT_IN_JSON)
    digest: str | None = field(default=None, metadata=NOT_IN_JSON)
    params: Mapping[str, Any] = field(default_factory=dict, metadata=NOT_IN_JSON)
    accepted_file: str | None = field(default=None, metadata=json_keys(accepted=_display))
    current_file: str | None = field(default=None, metadata=json_keys(now=_display))
    accepted_info: AcceptedFile | None = field(default=None, metadata=NOT_IN_JSON)
    seconds: float | None = field(default=None, metadata=NOT_IN_JSON)
    verdict: str = field(default="", metadata=json_keys(verdict=lambda verdict: verdict or None))
    servers: str = field(default="", metadata=NOT_IN_JSON)
    tolerance: Mapping[str, Threshold] = field(default_factory=dict, metadata=NOT_IN_JSON)

    @property
    def accepted(self) -> Path | None:
        return Path(self.accepted_file) if self.accepted_file is not None else None

    @property
    def now(self) -> Path | None:
        return Path(self.current_file) if self.current_file is not None else None

    @property
    def severity(self) -> float:
        """How different the two files are, to sort by: the mean difference, 0-255, or more if they do not compare."""
        return distance(self.metrics) if self.state in (CHANGED, FAILED, NOT_COMPARED) else 0.0


@dataclass(frozen=True, slots=True)
class Comparisons:
    """The answer of `sweeper check`: every case of a run and of its baseline. Iterates over the cases.

    `ok`: whether the check passes; it does not if nothing was compared, or all cases are gone. `counts` has the number
    of cases in each state, also 0. `left_out` counts the accepted cases that a selection of trials left out.
    `stopped_by`: why the run ended early, if it did. `servers` has sentences about the servers on which the pictures
    were made, and the number of cases for each. `cases`: the most important first.

    With `allow_new`, cases without an accepted picture do not fail the check. `run` is the id of the run.
    `custom_baseline`: the baseline is not the experiment's default one.
    """

    experiment: str
    ok: bool = field(init=False)
    baseline: Path
    results: Path
    counts: Mapping[str, int] = field(init=False)
    left_out: int = field(default=0, kw_only=True)
    stopped_by: str | None = field(default=None, kw_only=True)
    servers: Mapping[str, int] = field(init=False)
    cases: tuple[Comparison, ...]
    allow_new: bool = field(default=False, metadata=NOT_IN_JSON)
    has_baseline: bool = field(default=True, metadata=NOT_IN_JSON)
    run: int | None = field(default=None, metadata=NOT_IN_JSON)
    custom_baseline: bool = field(default=False, metadata=NOT_IN_JSON)

    def __post_init__(self) -> None:
        states = Counter(comparison.state for comparison in self.cases)
        servers = Counter(comparison.servers for comparison in self.cases if comparison.servers)
        is_complete = self.has_baseline and self.stopped_by is None and states.total() > states[GONE]
        object.__setattr__(self, "ok", is_complete and not any(map(self.is_blocking, self.cases)))
        object.__setattr__(self, "counts", {state: states[state] for state in STATES})
        object.__setattr__(self, "servers", dict(servers.most_common()))

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    def is_blocking(self, comparison: Comparison) -> bool:
        """Whether this case keeps the check from passing."""
        return comparison.state not in (SAME, GONE) and not (comparison.state == NEW and self.allow_new)

    @property
    def has_differences(self) -> bool:
        """Whether there is more to show than that all is the same."""
        return self.counts[SAME] < len(self)

    @property
    def accept_command(self) -> str:
        """The shell command that accepts these results as this baseline."""
        options = ("--baseline", str(self.baseline)) if self.custom_baseline else ()
        return join_command(("sweeper", "accept", str(self.results), *options))

    def parts(self) -> Iterator[Part]:
        """The cases that are not the same, and then the counts, where a terminal ends."""
        yield from tabulate_cases([comparison for comparison in self.cases if comparison.state != SAME])
        yield Line(f"{self.experiment}: {self.describe_counts()}")
        yield from map(Line, [*self._describe_servers(), *self._propose_tolerance(), *self._advise_on_gone()])

    def summary_parts(self) -> Iterator[Part]:
        """A summary for a pull request: the result, the counts, and the cases that keep the check from passing."""
        yield Heading(f"{'✅' if self.ok else '❌'} sweeper check: {self.experiment}")
        yield Line(f"{self.describe_counts()}.")
        yield from map(Line, self.list_notes())
        yield from tabulate_cases([case for case in self.cases if self.is_blocking(case) or case.state == GONE])

    def list_notes(self) -> list[str]:
        """Sentences about the whole check, beside its counts."""
        notes = [*self._describe_servers(), *self._propose_tolerance(), *self._advise_on_gone()]
        if not self.has_baseline:
            notes.append("There is no baseline: nothing was compared.")
        if self.stopped_by:
            notes.append(f"The run ended early ({self.stopped_by}), so the remaining trials were not compared.")
        return notes

    def _propose_tolerance(self) -> Iterator[str]:
        """A sentence with the checks that would allow all changes, if each is a small drift."""
        changed = [case.tolerance for case in self.cases if case.state == CHANGED]
        if not changed or not all(changed):
            return
        names = dict.fromkeys(name for tolerance in changed for name in tolerance)
        checks = ", ".join(
            f'{name}: "{pick_loosest(name, [found[name] for found in changed if name in found])}"' for name in names
        )
        yield (
            f"The changes are small. If you want to allow them, `checks: {{{checks}}}` in the experiment would hold; "
            "`sweeper calibrate` measures what the server's noise needs"
        )

    def _advise_on_gone(self) -> Iterator[str]:
        if count := self.counts[GONE]:
            yield (
                f"{count_things(count, 'case')} gone: remove the values from the sweep; after the next check, "
                f"`{self.accept_command}` removes the cases from the baseline too"
            )

    def describe_counts(self) -> str:
        """`1 changed, 3 same`: the number of cases in each state."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count) or "no cases"
        return f"{counts}; {self.left_out} accepted cases not selected" if self.left_out else counts

    def _describe_servers(self) -> list[str]:
        servers = self.servers
        return [f"{server} ({count} cases)" if len(servers) > 1 else server for server, count in servers.items()]


def tabulate_cases(cases: Sequence[Comparison]) -> Iterator[Part]:
    """The first cases as a table, with what `--attribute` found."""
    rows = [(item.case.name, item.state, item.reason, item.verdict) for item in cases[:MAX_ROWS]]
    if rows:
        width = 4 if any(verdict for *_, verdict in rows) else 3
        yield Table(("case", "state", "why", "whose change")[:width], [row[:width] for row in rows])
    if len(cases) > MAX_ROWS:
        yield Line(f"... and {len(cases) - MAX_ROWS} more")


def compare_with_baseline(
    run_cases: RunCases,
    baseline: Baseline,
    checks: Checks,
    *,
    fresh: bool = False,
    allow_new: bool = False,
    is_partial: bool = False,
) -> Comparisons:
    """Compare every case of a run with the accepted files.

    `is_partial`: the run has only some trials of the experiment, so accepted cases of other trials are not missing;
    that is so, too, if `--set` changed its settings. With `fresh`, rows that reuse a job of an earlier run are not
    compared. Raises UsageError if a `where` of the checks cannot be computed.
    """
    is_partial = is_partial or bool(select_settings(run_cases.overrides))
    seen: set[str] = set()
    items: list[Comparison] = []
    pairs: list[FilePair] = []
    keys_by_point: dict[str, list[str]] = {}
    for key, entry in baseline.entries.items():
        keys_by_point.setdefault(entry.case.point, []).append(key)
    for row in run_cases.rows:
        accepted_keys = keys_by_point.get(row.point, [])
        whole_trial = Case(row.cells, "", 0, row.point)
        if not row.succeeded or (fresh and row.run != run_cases.run):
            cases = [baseline.entries[key].case for key in accepted_keys] or [whole_trial]
            items += [_build_unfinished(case, row) for case in cases]
            seen.update(accepted_keys)
            continue
        for output in row.outputs:
            key = output.case.key
            seen.add(key)
            if key in baseline.entries:
                pairs.append((output, row, baseline.entries[key]))
            else:
                items.append(_build_comparison(output, row, NEW, reason="no picture was accepted for it yet"))
        if not row.outputs and not accepted_keys:
            items.append(_build_comparison(whole_trial, row, NOT_COMPARED, reason="its trial gave no file"))
    items += _CaseComparer(run_cases, baseline, checks).compare_pairs(pairs)
    planned = {row.point for row in run_cases.rows}
    unseen = [entry for key, entry in baseline.entries.items() if key not in seen]
    missing = [entry for entry in unseen if not is_partial or entry.case.point in planned]
    items += [_build_missing(baseline, entry, planned) for entry in missing]
    return Comparisons(
        run_cases.experiment, baseline.folder, run_cases.folder, _sort_by_severity(items), allow_new=allow_new,
        has_baseline=baseline.exists, run=run_cases.run, left_out=len(unseen) - len(missing),
    )  # fmt: skip


def _sort_by_severity(items: Iterable[Comparison]) -> tuple[Comparison, ...]:
    def rank(comparison: Comparison) -> tuple[int, float, int, str, int, str]:
        first, case = (STATES.index(comparison.state), -comparison.severity), comparison.case
        if comparison.trial is None:
            return *first, -1, "", 0, case.name
        return *first, comparison.trial, case.node, case.position, ""  # without the name, which takes long to build

    return tuple(sorted(items, key=rank))


class _CaseComparer:
    """Compares the files of a run with those of a baseline. Facts that many cases share are computed once."""

    def __init__(self, run_cases: RunCases, baseline: Baseline, checks: Checks) -> None:
        self._run_cases, self._baseline, self._checks = run_cases, baseline, checks
        self._folder = str(baseline.folder)
        self._drifts: dict[tuple[object, ...], str] = {}

    def compare_pairs(self, pairs: list[FilePair]) -> list[Comparison]:
        """Compare by bytes, then the rest by their content."""
        results = map_parallel(self._compare_bytes, pairs)
        found = {index: result for index, result in enumerate(results) if isinstance(result, Comparison)}
        rest = [(pairs[index], result) for index, result in enumerate(results) if not isinstance(result, Comparison)]
        self._run_cases.fetch(output for (output, _, _), _ in rest)
        compared = iter(map_parallel(lambda task: self._compare_content(*task), rest))
        return [found[index] if index in found else next(compared) for index in range(len(pairs))]

    def _compare_bytes(self, pair: FilePair) -> Comparison | list[AcceptedFile]:
        """Compare without decoding: the bytes are equal, or no accepted file can be used; else these remain."""
        output, row, entry = pair
        thresholds = self._checks.thresholds_for(row.result.params, row.result.columns)
        for accepted in entry.accepted:
            if output.url is None and is_surely_same(self._get_accepted_path(accepted), accepted, output):
                return self._build_same(output, row, accepted, thresholds)
        usable: list[AcceptedFile] = []
        reasons: list[str] = []
        for accepted in entry.accepted:
            path = Path(self._get_accepted_path(accepted))
            if reason := describe_unusable(path, accepted):
                reasons.append(reason)
                continue
            if output.url is not None and output.sha256 == accepted.sha256:
                return self._build_same(output, row, accepted, thresholds)
            usable.append(accepted)
        if not usable:
            reason = "; ".join(reasons)
            return _build_comparison(output, row, NOT_COMPARED, reason=reason, accepted_info=entry.accepted[0])
        return usable

    def _build_same(
        self, output: OutputFile, row: TrialRow, accepted: AcceptedFile, thresholds: Thresholds
    ) -> Comparison:
        return _build_comparison(
            output, row, SAME, accepted_file=self._get_accepted_path(accepted), tier="bytes",
            metrics=equal_metrics(tuple(thresholds)), servers=self._describe_drift(accepted, row),
        )  # fmt: skip

    def _compare_content(self, pair: FilePair, usable: Sequence[AcceptedFile]) -> Comparison:
        output, row, _ = pair
        paths = [Path(self._get_accepted_path(accepted)) for accepted in usable]
        thresholds = self._checks.thresholds_for(row.result.params, row.result.columns)
        try:
            index, match = find_best_match(paths, output.path, thresholds)
        except ImageError as error:
            missing = self._run_cases.describe_missing(output) if output.url is None else ""
            return _build_comparison(
                output, row, NOT_COMPARED, reason=missing or str(error), accepted_info=usable[0],
                accepted_file=str(paths[0]), servers=self._describe_drift(usable[0], row),
            )  # fmt: skip
        return _build_comparison(
            output, row, SAME if match.passes else CHANGED, reason=match.reason, tier=match.tier,
            metrics=match.metrics, accepted_info=None if match.passes else usable[index],
            accepted_file=str(paths[index]), servers=self._describe_drift(usable[index], row),
            tolerance=propose_tolerance(match, thresholds),
        )  # fmt: skip

    def _get_accepted_path(self, accepted: AcceptedFile) -> str:
        return f"{self._folder}{os.sep}{accepted.file}"  # building a Path for each case takes longer

    def _describe_drift(self, accepted: AcceptedFile, row: TrialRow) -> str:
        key = accepted.server, id(row.server), accepted.model_facts, row.result.models  # rows of a target share these
        if key not in self._drifts:
            sentence = describe_drift(self._baseline.get_server(accepted), row.server)
            models = describe_model_changes(self._baseline.get_models(accepted), row.result.model_facts)
            self._drifts[key] = "; ".join(filter(None, (sentence, *models)))
        return self._drifts[key]


def _build_comparison(found: OutputFile | Case, row: TrialRow, state: str, **facts: Any) -> Comparison:
    """The state of a case, which may have no file today."""
    result = row.result
    if isinstance(found, OutputFile):
        facts |= {"current_file": found.path_text, "seconds": result.ran_s}
        found = found.case
    return Comparison(found, state, trial=result.trial, digest=result.digest, params=result.params, **facts)


def _build_unfinished(case: Case, row: TrialRow) -> Comparison:
    result = row.result
    if result.error_type == GONE_ERROR:
        return _build_comparison(case, row, GONE, reason=result.error or "")
    if result.status == TRIAL_FAILED:
        error = f"{result.error_type}: {result.error}" if result.error_type else result.error or "its trial failed"
        return _build_comparison(case, row, FAILED, reason=" ".join(error.split()))
    reason = "its trial was not run this time" if row.succeeded else f"its trial is {result.status}"
    return _build_comparison(case, row, NOT_COMPARED, reason=reason)


def _build_missing(baseline: Baseline, entry: BaselineEntry, planned: set[str]) -> Comparison:
    is_planned = entry.case.point in planned
    reason = "its trial did not give this output" if is_planned else "the experiment no longer has this trial"
    accepted = entry.accepted[0]
    return Comparison(
        entry.case, MISSING, reason=reason, params=accepted.params,
        accepted_file=str(baseline.folder / accepted.file), accepted_info=accepted,
    )  # fmt: skip


# Characters that XML 1.0 cannot hold, but a server's message or a prompt may.
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit_xml(suites: Mapping[str, Comparisons | str]) -> bytes:
    """Return the checks as UTF-8 XML, a suite for each title. A text in place of a check says why there is none.

    A changed, new or missing case is a failure. A case that failed or was not compared is an error. A new case that is
    allowed is skipped, not passed. A check without any case is an error too.
    """
    root = ET.Element("testsuites")
    for title, comparisons in suites.items():
        root.append(_build_suite(_clean(title), comparisons))
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _build_suite(title: str, comparisons: Comparisons | str) -> ET.Element:
    if isinstance(comparisons, str) or not comparisons.cases:
        suite = ET.Element("testsuite", name=f"sweeper {title}", tests="1", failures="0", errors="1", skipped="0")
        element = ET.SubElement(suite, "testcase", classname=title, name="all cases")
        message = _clean(comparisons) if isinstance(comparisons, str) else "nothing was compared"
        ET.SubElement(element, "error", message=message, type=NOT_COMPARED)
        return suite
    items = comparisons.cases
    errors = sum(comparisons.is_blocking(item) and _is_error(item) for item in items)
    failures = sum(comparisons.is_blocking(item) and not _is_error(item) for item in items)
    skipped = sum(item.state != SAME and not comparisons.is_blocking(item) for item in items)
    suite = ET.Element(
        "testsuite", name=f"sweeper {title}", tests=str(len(items)), failures=str(failures), errors=str(errors),
        skipped=str(skipped), time=f"{sum(item.seconds or 0.0 for item in items):.3f}",
    )  # fmt: skip
    for item in items:
        name, seconds = _clean(item.case.name), f"{item.seconds or 0.0:.3f}"
        element = ET.SubElement(suite, "testcase", classname=title, name=name, time=seconds)
        if item.state == SAME:
            continue
        message = _clean(f"{item.state}: {item.reason}")
        if not comparisons.is_blocking(item):
            ET.SubElement(element, "skipped", message=message)
            continue
        problem = ET.SubElement(element, "error" if _is_error(item) else "failure", message=message, type=item.state)
        problem.text = _clean(describe_case(item))
    return suite


def describe_case(comparison: Comparison) -> str:
    """All facts about a case, one per line."""
    lines = [f"{comparison.state}: {comparison.reason}"]
    lines += [f"{name}: {value:.6g}" for name, value in comparison.metrics.items()]
    facts = {"accepted": _display(comparison.accepted_file), "now": _display(comparison.current_file),
             "servers": comparison.servers, "verdict": comparison.verdict}  # fmt: skip
    return "\n".join([*lines, *(f"{name}: {text}" for name, text in facts.items() if text)])


def _is_error(comparison: Comparison) -> bool:
    return comparison.state in (FAILED, NOT_COMPARED)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
