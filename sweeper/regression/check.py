"""Check pictures against a baseline, after running an experiment afresh or for a results folder as it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ImageError, UsageError
from sweeper.loading.load import load, load_recorded
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
from sweeper.planning.plan import Plan
from sweeper.regression.baseline import AcceptedFile, Baseline, default_folder, list_changes, read_baseline
from sweeper.regression.cases import TrialRow, identify_points, load_run_record, read_run
from sweeper.regression.comparison import CHANGED, Comparison, Comparisons, compare_with_baseline
from sweeper.regression.match_files import NO_CHECKS, Checks, match_files, parse_checks
from sweeper.running.notify import EndNotice
from sweeper.running.prepare import complete_experiment
from sweeper.running.run import run
from sweeper.running.run_events import Event
from sweeper.running.settings import TrialFilter, read_notify
from sweeper.schemas.values import format_value
from sweeper.tables.results_folder import default_results_folder


def make_live_check(
    folder: Path, run: str | None, experiment: Experiment | None
) -> Callable[[Collection[int] | None], Comparisons] | None:
    """A function that compares some trials of an unfinished run with the default baseline; None if there is none."""
    if experiment is not None:
        baseline = default_folder(experiment.file, experiment.name)
    else:
        record = load_run_record(folder, run)
        baseline = default_folder(Path(record.file), record.experiment)
    return (lambda trials: check(folder, run=run, trials=trials)) if baseline.is_dir() else None


def check(
    what: Experiment | str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    attribute: bool = False,
    named: NamedTargets | None = None,
    progress: Callable[[Event], None] | None = None,
    runner: Callable[..., Run] | None = None,
    notify: str | None = None,
    **options: Any,
) -> Comparisons:
    """Compare pictures with the accepted ones, and with `attribute` find out why pictures changed.

    `what` is an experiment or its file, which is run afresh, or a results folder, which is compared as it is. `options`
    are those of `check_experiment` or of `check_results`. `target`, `named` and `progress` are those of `sweeper.run`,
    and `runner` is a function to use instead of it, such as `sweeper.cluster.run`. `notify`: the URL that gets one
    message at the end (default: that of the experiment); none does if nothing was run.

    Raises UsageError for an option that has no effect on a results folder, and what the two functions and
    `attribute_changes` raise.
    """
    report = progress or (lambda _: None)
    runs: list[Run] = []
    if is_folder := not isinstance(what, Experiment) and Path(what).is_dir():
        folder = Path(str(what))
        only_for_runs = {} if attribute else {"target": target, "runner": runner, "notify": notify}
        reject_for_folder(folder, [name for name, value in {"out": out, **only_for_runs}.items() if value is not None])
        if not attribute:
            return check_results(folder, baseline, **options)
        experiment = _load_recorded_experiment(folder, options.get("run"))
    else:
        loaded = what if isinstance(what, Experiment) else load(what)
        experiment = complete_experiment(loaded, target, named, report=report)
        folder = Path(out) if out is not None else default_results_folder(experiment.file, experiment.name, "check")

    def run_silently(*arguments: Any, **rest: Any) -> Run:
        runs.append((runner or run)(*arguments, notify="", **rest))
        return runs[-1]

    def compare() -> Comparisons:
        shared: dict[str, Any] = {"target": target, "named": named, "progress": progress, "runner": run_silently}
        if is_folder:
            found = check_results(folder, baseline, **options)
        else:
            found = check_experiment(experiment, baseline, out=out, **shared, **options)
        return attribute_changes(found, experiment, **shared) if attribute else found

    notice = EndNotice(read_notify(notify, experiment.run), "check", experiment.name, folder, report)
    try:
        found = compare()
    except Exception as error:
        if runs or not is_folder:
            notice.post_now(runs[0] if runs else None, stopped_by=None, ok=False, reason=type(error).__name__)
        raise
    if runs:
        notice.post_now(runs[0], stopped_by=found.stopped_by, ok=found.ok)
    return found


def check_experiment(
    experiment: Experiment,
    baseline: str | os.PathLike[str] | Baseline | None = None,
    *,
    runner: Callable[..., Run] = run,
    out: str | os.PathLike[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    trials: Collection[int] | None = None,
    allow_new: bool = False,
    **run_arguments: Any,
) -> Comparisons:
    """Run every trial of an experiment afresh and compare its pictures with the accepted ones.

    - `baseline`: its folder, by default `baselines/<name>/` beside the experiment file.
    - `out`: the results folder, by default `results/<name>-check/` beside the experiment file.
    - `where`, `limit`, `trials`: run and compare only the trials for which this expression is true, at most this many,
      and only those of these indexes.
    - `allow_new`: cases without an accepted picture do not fail the check.
    - `run_arguments`: further arguments of `runner`, such as the fields of RunOptions.

    Raises ExperimentError for invalid `checks` and ResultsError for an unreadable baseline before anything is
    submitted, and everything that `sweeper.run` raises.
    """
    checks = parse_checks(experiment)
    accepted = read_accepted(baseline, experiment.file, experiment.name)
    folder = Path(out) if out is not None else default_results_folder(experiment.file, experiment.name, "check")
    plan = Plan(experiment)
    is_selected = TrialFilter(where, plan, trials)
    is_partial = where is not None or trials is not None
    selected = {trial.index for trial in plan.written() if is_selected(trial)} if is_partial else None
    known = {entry.case.point for entry in accepted.entries.values()}
    written = list(plan.written()) if known else []
    may_be_gone = {
        trial.index for trial, (_, point) in zip(written, identify_points(written), strict=True) if point in known
    }
    options = {"plan": plan, "fresh": True, "alone": True, "where": where, "limit": limit, "may_be_gone": may_be_gone}
    ended = runner(experiment, out=folder, **options, trials=trials, **run_arguments)
    run_cases = read_run(folder, ended.run_id, selected, own=limit is not None)  # only the run knows which these are
    found = compare_with_baseline(
        run_cases, accepted, checks, fresh=True, allow_new=allow_new, is_partial=is_partial or limit is not None
    )
    return replace(found, stopped_by=ended.stopped_by, custom_baseline=baseline is not None)


def check_results(
    folder: Path,
    baseline: str | os.PathLike[str] | None = None,
    *,
    run: str | int | None = None,
    fresh: bool = False,
    trials: Collection[int] | None = None,
    allow_new: bool = False,
) -> Comparisons:
    """Compare the pictures of a results folder with the accepted ones, without running anything.

    `run` selects one run instead of the table, `trials` only some of its trials, and `fresh` only the pictures that
    this run made itself. The other options are those of `check_experiment`. If the experiment file is gone, every
    picture must be identical to the accepted one.

    Raises ResultsError for results or a baseline that cannot be read, and ExperimentError for invalid `checks`.
    """
    record = load_run_record(folder, run)
    file = Path(record.file)
    # Read the baseline before the rows, because parsing its manifest takes much memory for a moment.
    accepted = read_accepted(baseline, file, record.experiment)
    run_cases = read_run(folder, run, trials)
    checks = parse_checks(load_recorded(file, record.overrides, results=folder)) if file.is_file() else NO_CHECKS
    found = compare_with_baseline(
        run_cases, accepted, checks, fresh=fresh, allow_new=allow_new, is_partial=trials is not None
    )
    return replace(found, custom_baseline=baseline is not None)


def reject_for_folder(folder: Path, options: Sequence[str]) -> None:
    """Raise UsageError if `options` names any option, because checking a results folder runs nothing."""
    if options:
        raise UsageError(
            f"{folder}: checking a results folder runs nothing, so leave out {' and '.join(options)}, or check the "
            f"experiment ({load_run_record(folder).file})"
        )


def _load_recorded_experiment(folder: Path, run: str | int | None) -> Experiment:
    record = load_run_record(folder, run)
    file = Path(record.file)
    if not file.is_file():
        raise UsageError(
            f"{folder}: attribute needs the experiment of these results, and {file} is gone; "
            "restore it, or check without attribute"
        )
    return load_recorded(file, record.overrides, results=folder)


def read_accepted(folder: str | os.PathLike[str] | Baseline | None, experiment_file: Path, name: str) -> Baseline:
    """The baseline in a folder, by default that of the experiment. Raises ResultsError."""
    if isinstance(folder, Baseline):
        return folder
    return read_baseline(Path(folder) if folder is not None else default_folder(experiment_file, name), name)


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

    def written(self) -> Iterator[Trial]:
        for index, digest in enumerate(self._accepted):
            cells = {"case": digest[:12]}
            yield Trial(index, {}, cells, digest, cells)

    __iter__ = written

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
    """The verdict on a changed case; `row` is today's run of the accepted workflow, whose picture decides.

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
