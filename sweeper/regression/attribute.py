"""Whose change it is: the accepted workflow runs once more on today's server, and its picture is held against both.

=========================== ============================== ==================================
the accepted workflow's      held against what was accepted  verdict
picture of today             and against today's picture
=========================== ============================== ==================================
is like the accepted one     and unlike today's              your workflow changed
is unlike the accepted one   and like today's                the server drifted
is unlike both                                               both
is like both                 of one and the same workflow    not reproducible
=========================== ============================== ==================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ImageError
from sweeper.model.trial import InputFile, Trial
from sweeper.planning.compatibility import Compatibility
from sweeper.planning.order import Costs
from sweeper.planning.plan import Plan
from sweeper.regression.baseline import AcceptedFile, Baseline
from sweeper.regression.cases import TrialRow, read_run
from sweeper.regression.comparison import CHANGED, Comparison, Comparisons
from sweeper.regression.match_files import match_files
from sweeper.regression.thresholds import Checks

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment
    from sweeper.model.node_classes import NodeInfo
    from sweeper.model.result import Run
    from sweeper.model.target_spec import NamedTargets, TargetSpec
    from sweeper.running.run_events import Event

SERVER_DRIFTED: Final = "the server drifted"
WORKFLOW_CHANGED: Final = "your workflow changed"
BOTH: Final = "both: the server drifted and your workflow changed"
NOT_REPRODUCIBLE: Final = "not reproducible: the same workflow on the same server gives other pictures"
UNKNOWN: Final = "unknown"


class StoredPlan(Plan):
    """Workflows that a baseline kept, as a plan: one trial for each digest."""

    def __init__(self, experiment: Experiment, baseline: Baseline, stored: Sequence[AcceptedFile]) -> None:
        self.experiment = experiment
        self._baseline = baseline
        self._stored = {one.digest: one for one in stored}
        self.axis_columns = ("case",)
        self.axis_sizes = {"case": len(self._stored)}

    @property
    def slot_names(self) -> tuple[str, ...]:
        return ()

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[Trial]:
        return self.written()

    def written(self) -> Iterator[Trial]:
        for index, digest in enumerate(self._stored):
            cells = {"case": digest[:12]}
            yield Trial(index, {}, cells, digest, cells)

    def workflow(self, trial: Trial) -> dict[str, Any]:
        graph = self._baseline.get_graph(self._stored[trial.digest])
        assert graph is not None, "only accepted pictures whose workflow is known are planned"
        return graph

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        found = []
        for address, about in self._stored[trial.digest].inputs.items():
            node, _, name = address.partition(".")
            path = (self.experiment.file.parent / about["file"]).resolve()
            mask = None
            if "mask" in about:
                where = (self.experiment.file.parent / about["mask"]).resolve()
                mask = InputFile(node, name, about["mask"], where, about["mask_sha256"])
            found.append(InputFile(node, name, about["file"], path, about["sha256"], mask))
        return tuple(found)

    def reordered(self, costs: Costs) -> Plan:  # noqa: ARG002 - there are no axes to nest
        return self

    def fit(self, nodes: NodeInfo) -> Compatibility:  # noqa: ARG002 - what today's server will not run is an answer, not a mistake
        return Compatibility((), ())


def attribute_changes(
    found: Comparisons,
    baseline: Baseline,
    checks: Checks,
    experiment: Experiment,
    *,
    target: TargetSpec | Sequence[TargetSpec] | None,
    out: Path,
    runner: Callable[..., Run],
    named: NamedTargets | None = None,
    progress: Callable[[Event], None] | None = None,
) -> Comparisons:
    """The same comparisons, with a verdict on each changed case. Runs into `out`, a folder of its own, by `runner`,
    which is `sweeper.run` or does as that.

    Raises what `sweeper.run` raises; a workflow that cannot be run again makes the verdict `unknown`, with the reason.
    """
    changed = [one for one in found if one.state == CHANGED and one.accepted_info is not None]
    reasons = {one.case.key: _rerun_obstacle(baseline, experiment, one.accepted_info) for one in changed}
    stored = [one.accepted_info for one in changed if one.accepted_info is not None and not reasons[one.case.key]]
    rows: dict[str, TrialRow] = {}
    stopped = found.stopped_by
    if stored:
        plan = StoredPlan(experiment, baseline, stored)
        ended = runner(
            replace(experiment, metrics=()), target, out, plan=plan, named=named, progress=progress, fresh=True
        )
        observed = read_run(out, ended.run_id)
        rows = {row.result.digest: row for row in observed.rows if row.run in (ended.run_id, None)}
        observed.fetch(shown for row in rows.values() for shown in row.outputs)
        stopped = ended.stopped_by if ended.stopped_by == "interrupt" else stopped
    items = []
    for one in found:
        verdict = ""
        if one.state == CHANGED and one.accepted_info is not None:
            reason = reasons[one.case.key]
            verdict = (
                f"{UNKNOWN}: {reason}" if reason else _decide_verdict(one, rows.get(one.accepted_info.digest), checks)
            )
        items.append(replace(one, verdict=verdict))
    return replace(found, items=tuple(items), stopped_by=stopped)


def _rerun_obstacle(baseline: Baseline, experiment: Experiment, before: AcceptedFile | None) -> str:
    """Why an accepted workflow cannot be run again; empty when it can."""
    if before is None or baseline.get_graph(before) is None:
        return "the baseline does not hold the workflow that made the accepted picture"
    files = [(about[kind], about[f"{prefix}sha256"]) for about in before.inputs.values()
             for kind, prefix in (("file", ""), ("mask", "mask_")) if kind in about]  # fmt: skip
    for file, sha256 in files:
        try:
            same = hashlib.sha256((experiment.file.parent / file).read_bytes()).hexdigest() == sha256
        except OSError:
            return f"the input file {file} is gone"
        if not same:
            return f"the input file {file} is another one now"
    return ""


def _decide_verdict(one: Comparison, row: TrialRow | None, checks: Checks) -> str:
    assert one.accepted_info is not None
    assert one.accepted is not None
    assert one.now is not None
    if row is None or not row.succeeded:
        result = row.result if row is not None else None
        if result is not None and result.status == "failed":
            error = f"{result.error_type}: {result.error}"
            return f"{SERVER_DRIFTED}: it does not run the accepted workflow any more ({error})"
        return f"{UNKNOWN}: the accepted workflow was not run"
    again = next(
        (
            shown.path
            for shown in row.outputs
            if (shown.case.node, shown.case.position) == (one.case.node, one.case.position)
        ),
        None,
    )
    if again is None:
        return f"{SERVER_DRIFTED}: the accepted workflow gives no such output any more"
    bounds = checks.thresholds_for(one.params, one.case.cells)
    try:
        drifted = not match_files(one.accepted, again, bounds).passes
        rewritten = one.accepted_info.digest != one.digest and not match_files(again, one.now, bounds).passes
    except ImageError as error:
        return f"{UNKNOWN}: {error}"
    if drifted:
        return BOTH if rewritten else SERVER_DRIFTED
    return WORKFLOW_CHANGED if rewritten or one.accepted_info.digest != one.digest else NOT_REPRODUCIBLE
