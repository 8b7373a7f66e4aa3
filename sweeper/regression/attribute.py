"""Find out why a picture changed: run the accepted workflow again on today's server, and compare its picture with both.

============================ ============================== ===========================
Today's picture of the       Compared with today's picture  Verdict
accepted workflow, compared  of today's workflow
with the accepted picture
============================ ============================== ===========================
similar                      different                      your workflow changed
different                    similar                        the server drifted
different                    different                      both
similar                      (both workflows are the same)  not reproducible
============================ ============================== ===========================
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sweeper.errors import ImageError
from sweeper.loading.read_scope import find_project
from sweeper.model.experiment import Experiment
from sweeper.model.model_facts import describe_model_changes
from sweeper.model.node_classes import NodeInfo
from sweeper.model.result import FAILED, Run
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.model.template import Template
from sweeper.model.trial import InputFile, Trial
from sweeper.model.workflow import encode_canonical, is_link
from sweeper.planning.compatibility import Compatibility
from sweeper.planning.order import Costs
from sweeper.planning.plan import Plan
from sweeper.regression.baseline import AcceptedFile, Baseline, read_baseline
from sweeper.regression.cases import TrialRow, read_run
from sweeper.regression.comparison import CHANGED, Comparison, Comparisons
from sweeper.regression.match_files import match_files
from sweeper.regression.server_changes import list_changes
from sweeper.regression.thresholds import Checks, parse_checks
from sweeper.running.run_events import Event
from sweeper.schemas.values import format_value

SERVER_DRIFTED: Final = "the server drifted"
WORKFLOW_CHANGED: Final = "your workflow changed"
BOTH: Final = "both: the server drifted and your workflow changed"
NOT_REPRODUCIBLE: Final = "not reproducible: the same workflow on the same server gives other pictures"
UNKNOWN: Final = "unknown"
_MAX_DIFFERENCES: Final = 5  # named in a verdict


class StoredPlan(Plan):
    """A plan of the workflows in a baseline, with one trial per digest."""

    def __init__(self, experiment: Experiment, baseline: Baseline, accepted: Sequence[AcceptedFile]) -> None:
        self.experiment = experiment
        self._baseline = baseline
        self._accepted = {file.digest: file for file in accepted}
        self.axis_columns = ("case",)
        self.axis_sizes = {"case": len(self._accepted)}

    @property
    def slot_names(self) -> tuple[str, ...]:
        return ()

    def __len__(self) -> int:
        return len(self._accepted)

    def __iter__(self) -> Iterator[Trial]:
        return self.written()

    def written(self) -> Iterator[Trial]:
        for index, digest in enumerate(self._accepted):
            cells = {"case": digest[:12]}
            yield Trial(index, {}, cells, digest, cells)

    def workflow(self, trial: Trial) -> dict[str, Any]:
        graph = self._baseline.get_graph(self._accepted[trial.digest])
        assert graph is not None, "the plan contains only files whose workflow is known"
        return graph

    def get_template(self, trial: Trial) -> Template:
        return Template("", self.workflow(trial), {}, ())

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        folder = self.experiment.file.parent
        inputs = []
        for address, facts in self._accepted[trial.digest].inputs.items():
            node, _, name = address.partition(".")
            mask = None
            if "mask" in facts:
                mask = InputFile(node, name, facts["mask"], (folder / facts["mask"]).resolve(), facts["mask_sha256"])
            path = (folder / facts["file"]).resolve()
            inputs.append(InputFile(node, name, facts["file"], path, facts["sha256"], mask))
        return tuple(inputs)

    def reordered(self, _costs: Costs) -> Plan:
        return self  # there are no axes to reorder

    def fit(self, _nodes: NodeInfo) -> Compatibility:
        return Compatibility((), ())  # if today's server refuses the workflow, that is a result and not a mistake


def attribute_changes(
    found: Comparisons,
    experiment: Experiment,
    *,
    target: TargetSpec | Sequence[TargetSpec] | None,
    named: NamedTargets | None,
    progress: Callable[[Event], None] | None,
    runner: Callable[..., Run],
) -> Comparisons:
    """Add a verdict to each changed case. Returns `found` unchanged if nothing changed or the run was stopped.

    `runner` is `sweeper.run`, or a function with the same arguments. It runs the accepted workflows into
    `<results>-attribution`. Raises what `sweeper.run` raises. If a workflow cannot be run again, the verdict is
    `unknown`, with the reason.
    """
    changed = {item.case.key: item.accepted_info for item in found if item.state == CHANGED and item.accepted_info}
    if found.stopped_by is not None or not changed:
        return found
    baseline, checks = read_baseline(found.baseline, found.experiment), parse_checks(experiment)
    digests = {item.digest for item in found if item.case.key in changed}
    plan = Plan(experiment)
    workflows = {trial.digest: plan.workflow(trial) for trial in plan.written() if trial.digest in digests}
    obstacles = {key: _rerun_obstacle(baseline, experiment, file) for key, file in changed.items()}
    runnable = [file for key, file in changed.items() if not obstacles[key]]
    rows: dict[str, TrialRow] = {}
    stopped_by = None
    if runnable:
        out = found.results.with_name(f"{found.results.name}-attribution")
        stored, accepted = replace(experiment, metrics=()), StoredPlan(experiment, baseline, runnable)
        run = runner(stored, target, out, plan=accepted, named=named, progress=progress, fresh=True)
        run_cases = read_run(out, run.run_id)
        rows = {row.result.digest: row for row in run_cases.rows if row.run in (run.run_id, None)}
        run_cases.fetch(output for row in rows.values() for output in row.outputs)
        stopped_by = run.stopped_by if run.stopped_by == "interrupt" else None
    items = []
    for item in found:
        file = changed.get(item.case.key)
        if file is None:
            items.append(item)
            continue
        obstacle = obstacles[item.case.key]
        row = rows.get(file.digest)
        verdict = f"{UNKNOWN}: {obstacle}" if obstacle else _decide_verdict(item, file, row, checks)
        is_drift = verdict in (SERVER_DRIFTED, BOTH)
        if is_drift and row is not None:
            changes = describe_model_changes(baseline.get_models(file), row.result.model_facts)
            verdict = ": ".join([verdict, *(["; ".join(changes)] if changes else [])])
        if verdict.startswith((WORKFLOW_CHANGED, BOTH)):
            differences = _describe_differences(baseline.get_graph(file) or {}, workflows.get(item.digest or "", {}))
            verdict = f"{verdict}: {differences}" if differences else verdict
        if is_drift and row is not None and (changes := list_changes(baseline.get_server(file), row.server)):
            verdict = f"{verdict}; on the server: {'; '.join(changes)}"
        items.append(replace(item, verdict=verdict))
    return replace(found, cases=tuple(items), stopped_by=stopped_by)


def _rerun_obstacle(baseline: Baseline, experiment: Experiment, accepted: AcceptedFile) -> str:
    """Why an accepted workflow cannot be run again; empty if it can."""
    if baseline.get_graph(accepted) is None:
        return "the baseline does not hold the workflow that made the accepted picture"
    files = [(facts[kind], facts[f"{prefix}sha256"]) for facts in accepted.inputs.values()
             for kind, prefix in (("file", ""), ("mask", "mask_")) if kind in facts]  # fmt: skip
    project = find_project(experiment.file)
    for file, sha256 in files:
        path = experiment.file.parent / file
        if file not in experiment.files and not project.contains(path):  # a stranger may have written the manifest
            return f"the input file {file} is outside of the project {project.folder}"
        try:
            same = hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        except OSError:
            return f"the input file {file} is gone"
        if not same:
            return f"the input file {file} has changed"
    return ""


def _decide_verdict(item: Comparison, accepted: AcceptedFile, row: TrialRow | None, checks: Checks) -> str:
    """The verdict on a changed case; `row` is today's run of the accepted workflow."""
    assert item.accepted is not None
    assert item.now is not None
    if row is not None and row.result.status == FAILED:
        return (
            f"{SERVER_DRIFTED}: it no longer runs the accepted workflow ({row.result.error_type}: {row.result.error})"
        )
    if row is None or not row.succeeded:
        return f"{UNKNOWN}: the accepted workflow was not run"
    wanted = item.case.node, item.case.position
    rerun = next((output.path for output in row.outputs if (output.case.node, output.case.position) == wanted), None)
    if rerun is None:
        return f"{SERVER_DRIFTED}: the accepted workflow no longer gives this output"
    thresholds = checks.thresholds_for(item.params, item.case.cells)
    other_workflow = accepted.digest != item.digest
    try:
        drifted = not match_files(item.accepted, rerun, thresholds).passes
        rewritten = other_workflow and not match_files(rerun, item.now, thresholds).passes
    except ImageError as error:
        return f"{UNKNOWN}: {error}"
    if drifted:
        return BOTH if rewritten else SERVER_DRIFTED
    return WORKFLOW_CHANGED if other_workflow else NOT_REPRODUCIBLE


def _describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What changed between two workflows: `cfg 1 -> 1.3 in node 3 (KSampler)`. Empty if one of them is unknown."""
    if not before or not now:
        return ""
    texts = []
    for node in dict.fromkeys((*before, *now)):
        old, new = before.get(node), now.get(node)
        if old is None or new is None:
            texts.append(f"node {node} ({(old or new or {})['class_type']}) {'added' if old is None else 'removed'}")
            continue
        if old["class_type"] != new["class_type"]:
            texts.append(f"node {node} {old['class_type']} -> {new['class_type']}")
        for name in dict.fromkeys((*old["inputs"], *new["inputs"])):
            if encode_canonical(old["inputs"].get(name)) != encode_canonical(new["inputs"].get(name)):
                values = [_describe_input(inputs, name) for inputs in (old["inputs"], new["inputs"])]
                texts.append(f"{name} {' -> '.join(values)} in node {node} ({new['class_type']})")
    more = len(texts) - _MAX_DIFFERENCES
    return ", ".join([*texts[:_MAX_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])


def _describe_input(inputs: Mapping[str, Any], name: str) -> str:
    if name not in inputs:
        return "(not given)"
    value = inputs[name]
    if isinstance(value, float):  # 7.0 in a workflow is the 7 that the user wrote
        return encode_canonical(value).decode()
    return f"node {value[0]}" if is_link(value) else format_value(value)
