"""Prepare an experiment: its plans, its targets, and every mistake at once, also those that a target would refuse.

Submits nothing. A target is skipped if its key is not set here or if it does not respond, because planning must work
without servers, and the run checks again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sweeper.comfy.target import Target, add_keys, as_target_list, check_targets, resolve_targets
from sweeper.errors import ExperimentError, InputError, Problem, UsageError
from sweeper.loading.experiment_builder import PartialExperiment
from sweeper.loading.load import load_partial
from sweeper.loading.model_axes import describe_off, find_bypass_links, find_nodes_to_bypass
from sweeper.loading.read_scope import EVERYTHING
from sweeper.loading.sweep_builder import COUNTED
from sweeper.loading.targets_file import load_named_targets
from sweeper.loading.trust import describe_missing_trust
from sweeper.model.axis_values import match_models
from sweeper.model.experiment import Experiment
from sweeper.model.model_facts import ModelFacts, Models
from sweeper.model.node_classes import NodeInfo
from sweeper.model.target_spec import CLOUD_URL, NamedTargets, TargetSpec, expand_groups
from sweeper.planning.compatibility import Compatibility, check_written_values
from sweeper.planning.model_inputs import list_nodes, may_name_models
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import is_space, plan_space
from sweeper.running.folder_lock import is_locked
from sweeper.running.node_class_cache import (
    Listing,
    fetch_classes,
    fetch_model_files,
    get_cached_classes,
    use_cached_classes,
)
from sweeper.running.preflight import describe_large_files
from sweeper.running.run_events import Event
from sweeper.running.stop_control import run_for_all, run_sync
from sweeper.running.target_models import TargetModels, describe_differences
from sweeper.schemas.values import format_value
from sweeper.store import Store
from sweeper.tables.results_folder import default_results_folder
from sweeper.wording import join_names, suggest

if TYPE_CHECKING:
    from sweeper.running.health import LaunchedServers

T = TypeVar("T")

_MAX_SPLIT_WORDS: Final = 3  # of the items of a list that may be one text
_MAX_SPLIT_SHOWN: Final = 3
_ARTICLES: Final = ("a", "an", "the")
_KEY_NOT_SENT: Final = "its key is sent only if you give the target by --target"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An experiment without mistakes, and what a command knows about it.

    `specs` are the targets that it uses, as written; None: those of the experiment. `users` are the user's names for
    servers. `plans` are those of the sweep and of all values of the search, if they were made. `notes` say what is
    unusual but runs. `classes` are the node classes of the first target that is known. `models`: by target, what it
    tells about the model files of the plan now.
    """

    experiment: Experiment
    specs: Sequence[TargetSpec] | None
    users: NamedTargets
    plans: tuple[Plan, ...] = ()
    notes: tuple[str, ...] = ()
    classes: NodeInfo | None = None
    models: Mapping[str, Models] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The plan of the sweep; of an experiment that has only a search, that of all its values."""
        return self.plans[0]

    @property
    def named(self) -> NamedTargets:
        return {**self.users, **self.experiment.named_targets}

    def resolve_targets(self) -> tuple[Target, ...]:
        """The targets, without keys. Raises UsageError."""
        specs = self.experiment.targets if self.specs is None else self.specs
        return resolve_targets(list(specs), named=self.named)

    def check_targets(
        self, object_info: tuple[str, NodeInfo] | None = None, *, keep_temp: bool | None = None
    ) -> Prepared:
        """Check the plans, or without any the values that the experiment writes, against the targets.

        Returns the same with notes on what is unusual but runs, and on each target that was not checked. `object_info`:
        the name and the classes of a server that stands for the targets. `keep_temp` overrides that of the experiment.
        Raises ExperimentError for what a target would refuse, and UsageError for an unknown target.
        """
        experiment = self.experiment
        check_targets(experiment.targets if self.specs is None else self.specs, self.named)
        keeps = experiment.run.keep_temp if keep_temp is None else keep_temp
        problems: list[Problem] = []
        notes: list[str] = []
        first: NodeInfo | None = None
        told: dict[str, TargetModels] = {}
        fits: list[Compatibility] = []

        def check(classes: NodeInfo) -> bool:
            found = [plan.fit(classes) for plan in self.plans]
            fits[:] = found or [Compatibility(check_written_values(experiment, classes), ())]
            return not any(fit.problems for fit in fits)

        for name, classes in self._iter_classes(told, check) if object_info is None else [object_info]:
            if isinstance(classes, str):
                notes.append(f"not checked against {name} ({classes})")
                continue
            if object_info is not None:
                check(classes)
            first = first or classes
            for fit in fits:
                problems += [replace(problem, message=f"{problem.message} (on {name})") for problem in fit.problems]
                notes += [str(note) for note in fit.notes]
                notes += [] if keeps else [f"{note} (`run` refuses this)" for note in fit.unsaved]
        if problems:
            raise ExperimentError(dict.fromkeys(problems))
        swept = [plan for plan in self.plans if not is_space(plan)]
        notes += filter(None, (describe_large_files(plan, of) for plan in swept for of in self.iter_targets()))
        models = {name: of.facts for name, of in told.items()}
        notes += [note for name, of in told.items() for note in of.list_limits(name)]
        if self.specs is None and first is not None and any(may_name_models(plan, first) for plan in self.plans):
            keyed = (target.name for target in self.resolve_targets() if target.key_source)
            notes += [f"model files on {name} not compared ({_KEY_NOT_SENT})" for name in keyed if name not in models]
        advice = "(`run` refuses this without --allow-different-models)"
        notes += [f"{line} {advice}" for line in describe_differences(models)]
        return replace(self, notes=tuple(dict.fromkeys(notes)), classes=first, models=models)

    def ask_targets(self) -> Prepared:
        """The same with what the targets tell, for a run, which may send them their keys. Checks nothing."""
        told: dict[str, TargetModels] = {}
        found = [classes for _, classes in self._iter_classes(told, may_send_keys=True)]
        first = next((classes for classes in found if not isinstance(classes, str)), None)
        return replace(self, classes=first, models={name: of.facts for name, of in told.items()})

    async def list_model_files(
        self,
        folders: Collection[str],
        *,
        asks: bool = True,
        may_send_keys: bool = False,
        launched: LaunchedServers | None = None,
    ) -> tuple[dict[str, Listing], dict[str, str]]:
        """What each target lists in these folders, and why the others list nothing, by their names.

        Not `asks`: the embedded server alone is asked. `may_send_keys`: see `_add_key`. `launched`: start there what
        starts with a run, to ask it; None: its files stay unknown. Raises UsageError and UnreachableError if it cannot.
        """

        async def ask(target: Target) -> tuple[str, Listing | str]:
            if not asks and not target.embedded:
                return target.name, "nobody asked it"
            keyed = self._add_key(target, may_send_keys=may_send_keys)
            if not isinstance(keyed, str) and keyed.launch is not None and launched is not None:
                launched.start(keyed)
                await launched[keyed.name].wait_until_up()
                keyed = replace(keyed, url=launched[keyed.name].url)
            return target.name, keyed if isinstance(keyed, str) else await fetch_model_files(keyed, folders)

        answers = await run_for_all(ask, self.iter_targets())
        found = {name: answer for name, answer in answers if not isinstance(answer, str)}
        return found, {name: answer for name, answer in answers if isinstance(answer, str)}

    def find_bypass_links(self, nodes: Collection[str], *, may_send_keys: bool) -> dict[str, Any]:
        """The links past some nodes, by the first server whose classes are known."""
        asked = self._iter_classes({}, may_send_keys=may_send_keys)
        known = (info for _, info in asked if not isinstance(info, str))
        return next((find_bypass_links(self.experiment.template, nodes, info) for info in known), {})

    def iter_targets(self) -> Iterator[Target]:
        """The targets without keys, of several GPUs the first. Those that only workers know are left out."""
        specs = self.experiment.targets if self.specs is None else self.specs
        for used in expand_groups(specs, self.named):
            with suppress(UsageError):
                yield resolve_targets([used.spec], named=self.named)[0]

    def _iter_classes(
        self,
        told: dict[str, TargetModels],
        check: Callable[[NodeInfo], bool] = lambda _: True,
        *,
        may_send_keys: bool = False,
    ) -> Iterator[tuple[str, NodeInfo | str]]:
        """The name and the node classes of each server, or why its classes are not known. Adds its models to `told`.

        `check` sees the classes first, and is False of those that may be outdated (see `get_classes`). `may_send_keys`:
        see `_add_key`.
        """
        for target in self.iter_targets():
            name = "Comfy Cloud" if target.url == CLOUD_URL else target.name
            classes, models = self._ask(target, check, may_send_keys=may_send_keys)
            if models is not None:
                told[target.name] = models
            yield name, classes

    def _ask(
        self, target: Target, check: Callable[[NodeInfo], bool], *, may_send_keys: bool
    ) -> tuple[NodeInfo | str, TargetModels | None]:
        """The classes of a target from the cache or the server, or why they are not known; and its models.

        Comfy Cloud's classes rarely change, so the cache answers before a keyring is opened for its key. A ComfyUI is
        asked each time, because its classes change with every custom node.
        """
        nodes = list_nodes(self.plans[0]) if self.plans else list(self.experiment.template.graph.values())
        use_cached = partial(use_cached_classes, target, nodes, check)
        is_cached_first = target.dialect == "cloud" and not may_send_keys and self.specs is None
        if is_cached_first and not isinstance(cached := use_cached(""), str):
            return cached, None
        keyed = self._add_key(target, may_send_keys=may_send_keys)
        if isinstance(keyed, str):
            return use_cached(keyed), None
        plan = self.plans[0] if self.plans and not is_space(self.plans[0]) else None
        return run_sync(lambda: fetch_classes(keyed, nodes, plan, check))

    def _add_key(self, target: Target, *, may_send_keys: bool) -> Target | str:
        """The target with its key, or why that cannot be sent.

        Only a target that the user gave receives a key, unless `may_send_keys`: a command that submits nothing must not
        send a secret to a server that a file chose.
        """
        if target.key_source is not None and not may_send_keys and self.specs is None:
            return _KEY_NOT_SENT
        try:
            return add_keys(target, os.environ)
        except UsageError:
            return "no key"


def prepare(
    partial: PartialExperiment,
    problems: Iterable[Problem] = (),
    *,
    specs: Sequence[TargetSpec] | None,
    users: NamedTargets,
    object_info: tuple[str, NodeInfo] | None = None,
    extra_check: Callable[[Experiment], object] | None = None,
    keep_temp: bool | None = None,
    needs_sweep: bool = True,
    asks_targets: bool = True,
    out: object = None,
) -> Prepared:
    """Plan a loaded experiment, and check it and all values of its search against its targets.

    If it has only a search, that is a mistake if `needs_sweep`. `problems` are those besides the mistakes in the file.
    `extra_check` may raise ExperimentError with more. `asks_targets` False: the targets stay unknown, because the
    experiment lacks trust. `out`: see `complete_models`. The other arguments are those of Prepared and of
    `check_targets`.

    Raises ExperimentError with every problem: if one stage finds some, the later stages still check whatever could be
    read.
    """
    has_targets = not any(problem.key.startswith("target") for problem in partial.problems)
    asks = asks_targets and has_targets
    listed: list[str] = []
    if asks:
        partial, listed = complete_models(partial, specs, users, out=out)
    elif partial.experiment.pending:
        partial = replace(partial, has_plan=False)
    experiment = partial.experiment
    found = [*partial.problems, *problems]
    plans: list[Plan] = []
    checks: list[Callable[[], object]] = [] if extra_check is None else [lambda: extra_check(experiment)]
    if partial.has_plan:
        makers = list_planners(experiment, needs_sweep=needs_sweep)
        checks += [lambda make=make: plans.append(make()) for make in makers]  # type: ignore[misc]
    for check in checks:
        try:
            check()
        except ExperimentError as error:
            found += error.problems
    prepared = Prepared(experiment, specs, users, tuple(plans))
    if asks and partial.has_template:
        known = {(problem.file, problem.line, problem.key) for problem in found}
        counted = {problem.key.rpartition("[")[0] for problem in found if problem.message.endswith(COUNTED)} - {""}
        try:
            prepared = prepared.check_targets(object_info, keep_temp=keep_temp)
        except InputError as error:
            new = [problem for problem in error.problems if problem.key.rpartition("[")[0] not in counted]
            found += [problem for problem in new if (problem.file, problem.line, problem.key) not in known]
    if found or not plans:
        raise ExperimentError(found)
    off = (describe_off(experiment.template, name) for name in partial.switched)
    return replace(prepared, notes=(*listed, *off, *_iter_split_texts(experiment), *prepared.notes))


def complete_models(
    loaded: PartialExperiment,
    specs: Sequence[TargetSpec] | None,
    users: NamedTargets,
    *,
    asks: bool = True,
    may_send_keys: bool = False,
    out: object = None,
    counts: Callable[[str, str, ModelFacts], bool] = lambda *_: True,
    report: Callable[[Event], None] | None = None,
) -> tuple[PartialExperiment, list[str]]:
    """Complete the axes of model files of a loaded experiment, by what its targets list, and say what is unusual.

    If no target lists any, the values are those of the last run in `out` (default: the experiment's folder) that had
    some. `specs` and `users` are those of Prepared; `asks` and `may_send_keys`: see `list_model_files`. `counts`:
    whether a file does, by its target and `folder/name`. `report`: also ask a ComfyUI that starts with the run, and
    pass on how it starts; None: start nothing. Raises UsageError for an unknown target, and what `list_model_files`
    raises.
    """
    experiment, found, notes, problems = loaded.experiment, {}, [], [*loaded.problems]
    if not experiment.pending or experiment.complete is None:
        return loaded, []
    prepared = Prepared(experiment, specs, users)
    folders = {pattern.partition("/")[0] for pattern in experiment.pending}
    results = out if isinstance(out, Path) else default_results_folder(experiment.file, experiment.name)
    ask = partial(prepared.list_model_files, folders, asks=asks, may_send_keys=may_send_keys)
    listings, silent = run_sync(partial(_ask_launched, ask, prepared, results, report))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in silent.items()) or "no target can be asked from here"
    if listings and silent:
        notes.append(f"the model files are those of {join_names(listings)}; {reasons}")
    for pattern, path in experiment.pending.items():
        folder = pattern.partition("/")[0]
        named = Counter(name for target, listing in listings.items() for name, facts in listing[folder].items()
                        if counts(target, f"{folder}/{name}", facts))  # fmt: skip
        files = match_models((name for name, count in named.items() if count == len(listings)), pattern)
        if files and (others := match_models(named.keys() - {*files}, pattern)):
            notes.append(f"{pattern}: not all targets have {join_names(others)}, so they are left out")
        earlier = None if listings else _find_earlier(prepared, results, pattern, str(path[-1]))
        if earlier is not None:
            notes.append(f"{pattern}: {reasons}; its values are {earlier[0]}")
            found[pattern] = earlier[1]
        elif files:
            nodes = find_nodes_to_bypass(experiment.template, str(path[-1]))
            links = prepared.find_bypass_links(nodes, may_send_keys=may_send_keys) if nodes else {}
            found[pattern] = {"files": files, "links": links}
        else:
            why = f"its values are files of a server, but {reasons}; start it, or give `--set {path[-1]}=[A,B]`"
            problems += experiment.make_error(path, _explain_no_files(pattern, listings) or why).problems
    if len(problems) > len(loaded.problems):
        rest = replace(experiment, complete=None)  # so that nobody asks again
        return replace(loaded, experiment=rest, problems=tuple(problems), has_plan=False), notes
    return experiment.complete(found), notes


async def _ask_launched(
    ask: Callable[..., Awaitable[T]], prepared: Prepared, out: Path, report: Callable[[Event], None] | None
) -> T:
    """Ask the targets, also those that start with a run, unless there is no `report` or a run uses `out`."""
    if report is None or not any(target.launch for target in prepared.iter_targets()) or is_locked(out):
        return await ask()
    from sweeper.running.health import LaunchedServers

    async with aclosing(LaunchedServers(out, prepared.experiment.run.patience, report)) as launched:
        return await ask(launched=launched)


def complete_experiment(
    experiment: Experiment,
    target: TargetSpec | Sequence[TargetSpec | Target] | None = None,
    named: NamedTargets | None = None,
    out: object = None,
    *,
    may_send_keys: bool = True,
    report: Callable[[Event], None] | None = None,
) -> Experiment:
    """The experiment with the values of its axes of model files, for a caller that runs it.

    The arguments are those of `run_async` and `complete_models`. Raises ExperimentError and what the latter raises.
    """
    specs = None if target is None or not experiment.pending else as_target_list(target)
    loaded = PartialExperiment(experiment, (), has_template=True, has_plan=True)
    loaded, _ = complete_models(loaded, specs, named or {}, may_send_keys=may_send_keys, out=out, report=report)
    if loaded.problems:
        raise ExperimentError(loaded.problems)
    return loaded.experiment


def _find_earlier(prepared: Prepared, results: Path, pattern: str, slot: str) -> tuple[str, Any] | None:
    """The files of the last run with this pattern, or those of the cached node classes; and which of these."""
    if Store.exists(results):
        with Store.open(results, readonly=True) as store:
            for run in reversed(store.runs()):
                if pattern in run.overrides:
                    return f"those of run {run.id}", run.overrides[pattern]
    template = prepared.experiment.template
    for address in template.slots[slot].addresses if slot in template.slots else ():
        node = template.graph[address.node]
        for target in prepared.resolve_targets():
            classes = get_cached_classes(target, [node])
            spec = None if classes is None else classes.classes[node["class_type"]].inputs.get(address.input)
            if files := match_models(map(str, spec.choices or ()) if spec is not None else (), pattern):
                return f"those that {target.name} had in the last 24 hours", {"files": files}
    return None


def _explain_no_files(pattern: str, listings: Mapping[str, Listing]) -> str:
    """Why nothing matches, with the nearest name; empty if nothing was listed."""
    folder, _, rest = pattern.partition("/")
    if len(listings) > 1:
        return f"the targets have no file in common that matches {format_value(pattern)}"
    for name, listing in listings.items():
        others = [key for key in listing if key != folder]
        hint = suggest(rest, listing[folder], "files there") if listing[folder] else suggest(folder, others, "folders")
        return f"no file on {name} matches {format_value(pattern)}{hint}"
    return ""


def _iter_split_texts(experiment: Experiment) -> Iterator[str]:
    """Say which lists look like one text, such as `[a fox, 8k, film grain]`, that YAML splits at its commas.

    The slot has a text of several words, and the items are short, without quotes, and do not begin alike.
    """
    source, slots = experiment.source, experiment.template.slots
    axes = [axis for block in experiment.blocks for group in block.dimensions for axis in group]
    for axis in axes if source is not None else ():
        words = [option.value.split() for option in axis.options if isinstance(option.value, str)]
        starts = {"a" if item[0] in _ARTICLES else item[0] for item in words if item}
        is_short = len(starts) > 1 and max(map(len, words)) <= _MAX_SPLIT_WORDS
        is_prose = axis.name in slots and " " in str(slots[axis.name].default).strip()
        if source is not None and axis.path in source.plain_lists and is_short and is_prose:
            texts = ", ".join(format_value(option.value) for option in axis.options[:_MAX_SPLIT_SHOWN])
            more = ", ..." if len(words) > _MAX_SPLIT_SHOWN else ""
            message = f"{len(words)} {axis.name}s ({texts}{more}); quote a text that has commas"
            problem = source.make_problem(axis.path, message)
            yield from [str(problem)] if problem.line else []


def list_planners(experiment: Experiment, *, needs_sweep: bool) -> list[Callable[[], Plan]]:
    """Functions that make the plan of the sweep, and that of all values of the search. Each may raise ExperimentError.

    If there is only a search, the first is left out, unless `needs_sweep`.
    """
    search = experiment.search
    planners: list[Callable[[], Plan]] = []
    if experiment.blocks or needs_sweep:
        planners.append(lambda: Plan(experiment))
    if search is not None:
        planners.append(lambda: plan_space(experiment, search))
    return planners


def plan(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    *,
    named: NamedTargets | None = None,
) -> Plan:
    """Plan an experiment, or the file of one. Submits nothing.

    With a `target`, finds what `sweeper plan --target` finds: the plan is also checked against the node classes of the
    target, if it responds. `named`: the user's names for servers (default: those of the targets file). Raises
    ExperimentError with all mistakes at once.
    """
    if target is None and isinstance(experiment, Experiment) and not experiment.pending:
        return Plan(experiment)
    users = load_named_targets() if named is None else named
    if isinstance(experiment, Experiment):
        partial, problems = PartialExperiment(experiment, (), has_template=True, has_plan=True), []
    else:
        partial = load_partial(experiment, named=users if target is None else None, scope=EVERYTHING)
        problems = describe_missing_trust(partial.experiment.file, partial.needs)
    specs = None if target is None else as_target_list(target)
    partial, _ = complete_models(partial, specs, users)
    return prepare(partial, problems, specs=specs, users=users, asks_targets=target is not None).plan
