"""Build an Experiment from the mapping that a user wrote, and find every mistake in it.

The schema checks shapes. This module checks what a schema cannot express: every name is a slot or is used, it is given
once, and its slot accepts its values. `sweep_builder` builds one block of the sweep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final, Protocol

from sweeper.errors import MAX_PROBLEMS, ExperimentError, Problem
from sweeper.loading.metric_list import build_judges, find_metric_problems, name_metrics
from sweeper.loading.read_scope import OutsideError, TrustNeed
from sweeper.loading.search_builder import SearchBuilder, find_objective_problems, list_objective_metrics
from sweeper.loading.sweep_builder import BlockBuilder, KnownNames
from sweeper.model.axis_values import AxisError, FileAccess, WorkBudget
from sweeper.model.experiment import Experiment, HashedFile, Judge, RunSettings
from sweeper.model.expressions import Expression, ExpressionError, compile_text
from sweeper.model.money import parse_usd
from sweeper.model.portable_names import find_name_problem
from sweeper.model.shell_words import join_command
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.model.source import Source
from sweeper.model.target_spec import NamedTargets, find_target_problems
from sweeper.model.template import MISSING, Template
from sweeper.planning.plan import iter_derived_values
from sweeper.schemas import find_schema_problems, load_schema
from sweeper.schemas.values import KeyPath, format_value
from sweeper.wording import suggest

_PLAN_KEYS: Final = ("", "template", "params", "derive", "sweep", "search")  # that define the trials; "": the file
_COUNTS: Final = ("concurrency", "retries", "max_trials")  # of `run`
_ANY_VALUE: Final = SlotSchema(None)  # for variables: any finite JSON value


class ExperimentFiles(FileAccess, Protocol):
    """Read access to the files of the experiment's folder, and to the files that file slots name.

    Each method raises OutsideError, an AxisError, for a file outside of the scope.
    """

    def add_outside(self, path: KeyPath, error: OutsideError) -> None:
        """Remember that the experiment names a file outside of the scope at `path`."""

    def hash_file(self, name: str) -> HashedFile:
        """Hash the file that a value names. Raises AxisError if it cannot be read."""


@dataclass(frozen=True, slots=True)
class PartialExperiment:
    """The valid parts of an experiment, and every problem in the others.

    `has_plan`: everything that defines the trials is valid, whatever else is wrong. `needs`: what the experiment may
    read only with trust, and was not read.
    """

    experiment: Experiment
    problems: tuple[Problem, ...]
    has_template: bool
    has_plan: bool
    needs: tuple[TrustNeed, ...] = ()


def build_experiment(
    source: Source,
    template: Template | None,
    folder: ExperimentFiles,
    *,
    file: Path,
    problems: Iterable[Problem] = (),
    extra_used_names: frozenset[str] = frozenset(),
    named: NamedTargets | None = None,
) -> PartialExperiment:
    """Build the Experiment and find every problem.

    `template` is None if it could not be read. Then `problems` says why, and the parts that do not need it are still
    checked. `extra_used_names` count as used: an override has replaced the `derive` that reads them. `named` are the
    user's names for servers; None: unknown names of targets are no problem yet.
    """
    shape_problems = find_schema_problems("experiment", source.value)
    all_problems = list(problems)
    all_problems += [source.make_problem(path, message) for path, message in shape_problems]
    refused_paths = {path for path, _ in shape_problems}
    target_problems = find_target_problems(source.value, named)
    all_problems += [
        source.make_problem(path, message) for path, message in target_problems if path not in refused_paths
    ]
    all_problems += [
        source.make_problem(path, message) for path, message in find_metric_problems(source.value.get("metrics"))
    ]
    measured = source.value.get("metrics")
    names = name_metrics(measured if isinstance(measured, list) else ())
    objective_problems = find_objective_problems(source.value.get("search"), names)
    all_problems += [
        source.make_problem(path, message) for path, message in objective_problems if path not in refused_paths
    ]
    valid_source = source
    if shape_problems:
        valid_source = source.with_value(_prune(source.value, [_widen_path(path) for path, _ in shape_problems]))
    suppressed_names = {name for path, _ in shape_problems for name in _iter_names(source.value, path)}
    builder = _ExperimentBuilder(
        valid_source,
        template,
        folder,
        file,
        suppressed_names=suppressed_names,
        extra_used_names=extra_used_names,
    )
    experiment = builder.build()
    all_problems += builder.problems
    is_plan_unaffected = all(
        problem.file == source.name and _get_top_key(problem) not in _PLAN_KEYS for problem in all_problems
    )
    has_template = template is not None
    return PartialExperiment(
        experiment,
        tuple(all_problems),
        has_template,
        has_plan=has_template and is_plan_unaffected and not suppressed_names,
    )


class _ExperimentBuilder:
    """Builds one experiment and collects its problems.

    `suppressed_names` are the names in parts that the schema has refused: if they are missing, there is no second
    message. `no_template`: the template could not be read, so any name may be one of its slots.
    """

    def __init__(
        self,
        source: Source,
        template: Template | None,
        folder: ExperimentFiles,
        file: Path,
        *,
        suppressed_names: set[str],
        extra_used_names: frozenset[str],
    ) -> None:
        self.suppressed_names = suppressed_names
        self.extra_used_names = extra_used_names
        self.source = source
        self.no_template = template is None
        self.template = template or Template("", {}, {}, ())
        self.folder = folder
        self.file = file
        self.raw: Mapping[str, Any] = source.value
        self.problems: list[Problem] = []
        self.files: dict[str, HashedFile] = {}
        self.budget = WorkBudget()

    def add_problem(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.source.make_problem(path, message))

    def add_axis_error(self, path: KeyPath, error: AxisError, start: str = "") -> None:
        if isinstance(error, OutsideError):
            self.folder.add_outside(path, error)
        else:
            self.add_problem(path, f"{start}{error}")

    def advise(self, word: object, allowed: Iterable[object], label: str = "allowed") -> str:
        """Return what `suggest` says, for the first problems: it compares the word with every name."""
        return suggest(word, allowed, label) if len(self.problems) < MAX_PROBLEMS else ""

    def suggest_slot(self, name: str) -> str:
        """Return the end of a message about a name that is not a slot. Add a problem if the template has no slots."""
        if self.template.slots or self.no_template:
            return self.advise(name, self.template.slots, "slots")
        file = Path(self.template.file)
        command = join_command(
            ["sweeper", "template", "new", str(file), "-o", str(file.with_stem(f"{file.stem}-template"))]
        )
        message = f"is a workflow without slots, so nothing in it can be set; make a template of it (`{command}`)"
        self.add_problem(("template",), f"{message} and name that here")
        return ""

    def build(self) -> Experiment:
        raw = self.raw
        name = raw.get("name", make_name(self.file))
        if isinstance(name, str) and (problem := find_name_problem(name)) is not None:
            self.add_problem(("name",), f"'{name}' {problem}; it names the results folder, so write another `name`")
        derive = self.compile_derived(raw.get("derive", {}))
        search = self.build_search(name, derive)
        sweep = self.build_blocks(name, derive) if "sweep" in raw or search is None else []
        blocks = [*sweep, *([search] if search is not None else [])]
        params = self.build_params(raw.get("params", {}), derive, blocks)
        for block in blocks:
            self.check_given(
                block, derive, params, given_somewhere={name for other in blocks for name in other.given_paths}
            )
        self.hash_default_files(blocks, {*params, *derive})
        self.check_metric_names(blocks)
        target = raw.get("target", "embedded")
        return Experiment(
            name=name,
            file=self.file,
            template=self.template,
            targets=tuple(target) if isinstance(target, list) else (target,),
            named_targets=raw.get("targets", {}),
            description=raw.get("description", ""),
            params=params,
            derive=derive,
            blocks=tuple(block.block for block in sweep),
            search=None if search is None else search.search,
            order=raw.get("order", "auto"),
            metrics=self.list_metrics(),
            judges=self.build_judges(),
            checks=raw.get("checks", {}),
            run=_make_run_settings(raw.get("run", {})),
            files=self.files,
            source=self.source,
        )

    def normalise_value(self, name: str, value: Any, path: KeyPath) -> Any:
        """Normalise a value by the slot `name`, and hash the file that it names. Problems are added, not raised."""
        slot = self.template.slots.get(name)
        try:
            value = slot.schema.normalise(value) if slot is not None else _ANY_VALUE.normalise(value)
            if slot is not None and slot.is_file:
                self.files[value] = _hash_file(self.folder, value)
        except AxisError as error:
            self.add_axis_error(path, error, "" if name in path else f"{name}: ")
        except ValueRefusedError as error:
            message = str(error) if name in path else f"{name}: {error}"
            is_axis = path[0] == "params" and isinstance(value, list)
            self.add_problem(
                path, message + ("; to try each of them, put it under `sweep:`, `grid:`" if is_axis else "")
            )
        return value

    def check_metric_names(self, blocks: list[BlockBuilder]) -> None:
        """Check that no metric has the name of a slot or axis, because all of them are columns of the table."""
        taken = {*self.template.slots, *(name for block in blocks for name in block.axis_names)}
        for index, metric in enumerate(name_metrics(self.raw.get("metrics", []))):
            if metric in taken:
                message = f"'{metric}' is also a slot or an axis, and the table would have two columns of that name"
                self.add_problem(("metrics", index), message)

    def list_metrics(self) -> tuple[str, ...]:
        """List the columns to measure: those of `metrics`, and those that a search needs."""
        listed = name_metrics(self.raw.get("metrics", ()))
        return tuple(dict.fromkeys((*listed, *list_objective_metrics(self.raw.get("search")))))

    def build_judges(self) -> dict[str, Judge]:
        entries, slots = self.raw.get("metrics", ()), self.template.slots
        judges, problems = build_judges(entries, slots, knows_slots=not self.no_template)
        for path, message in problems:
            self.add_problem(path, message)
        return judges

    def hash_default_files(self, blocks: list[BlockBuilder], given: set[str]) -> None:
        for slot in self.template.slots.values():
            is_swept = all(slot.name in block.given_paths and slot.name not in block.partly_given for block in blocks)
            if slot.is_file and slot.default is not MISSING and slot.name not in given and not is_swept:
                try:
                    self.files[slot.default] = _hash_file(self.folder, slot.default)
                except AxisError as error:
                    self.add_axis_error(("template",), error, f"the default of slot '{slot.name}': ")

    def compile_derived(self, raw: Mapping[str, str]) -> dict[str, Expression]:
        expressions: dict[str, Expression] = {}
        for name, text in raw.items():
            try:
                expressions[name] = compile_text(text)
            except ExpressionError as error:
                self.add_problem(("derive", name), str(error))
        graph = {
            name: [other_name for other_name in expression.names if other_name in expressions]
            for name, expression in expressions.items()
        }
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = error.args[1]
            self.add_problem(("derive", cycle[0]), f"these names need each other: {' -> '.join(reversed(cycle))}")
            self.suppressed_names.update(cycle, *(expressions[name].names for name in cycle))
            return {name: expression for name, expression in expressions.items() if name not in cycle}
        return {name: expressions[name] for name in order}

    def collect_names(self, derive: Mapping[str, Expression]) -> KnownNames:
        used = (
            {name for expression in derive.values() for name in expression.names}
            | self.suppressed_names
            | self.extra_used_names
        )
        return KnownNames(
            slots=self.template.slots, derived=frozenset(derive), used=frozenset(used), no_template=self.no_template
        )

    def build_blocks(self, name: str, derive: Mapping[str, Expression]) -> list[BlockBuilder]:
        raw = self.raw.get("sweep")
        if raw is None:
            return [BlockBuilder(self, {}, ("sweep",), name, self.collect_names(derive))]
        if isinstance(raw, list):
            return [
                BlockBuilder(self, block, ("sweep", index), name, self.collect_names(derive))
                for index, block in enumerate(raw)
            ]
        return [BlockBuilder(self, raw, ("sweep",), name, self.collect_names(derive))]

    def build_search(self, name: str, derive: Mapping[str, Expression]) -> SearchBuilder | None:
        raw = self.raw.get("search")
        return None if raw is None else SearchBuilder(self, raw, name, self.collect_names(derive))

    def build_params(
        self, raw: Mapping[str, Any], derive: Mapping[str, Expression], blocks: list[BlockBuilder]
    ) -> dict[str, Any]:
        names = self.collect_names(derive)
        used = names.used | {name for block in blocks for name in block.used}
        params: dict[str, Any] = {}
        for name, raw_value in raw.items():
            path: KeyPath = ("params", name)
            value = self.normalise_value(name, raw_value, path)
            if name in derive:
                self.add_problem(
                    path, f"'{name}' is also in `derive` (line {self.source.find_line(('derive', name))}); give it once"
                )
            elif name not in names.slots and name not in used and not self.no_template:
                self.add_problem(path, f"'{name}' is neither a slot of the template nor used{self.suggest_slot(name)}")
            elif all(name in block.given_paths and name not in block.partly_given for block in blocks):
                path_in_sweep = blocks[0].given_paths[name]
                self.add_problem(
                    path,
                    f"'{name}' is also swept (line {self.source.find_line(path_in_sweep)}); give it in one place only",
                )
            if name in names.slots or name in used:
                params[name] = value
        for name in derive:
            if name not in names.slots and name not in used and not self.no_template:
                message = f"'{name}' is neither a slot of the template nor used"
                self.add_problem(("derive", name), message + self.suggest_slot(name))
        return params

    def check_given(
        self,
        builder: BlockBuilder,
        derive: Mapping[str, Expression],
        params: Mapping[str, Any],
        *,
        given_somewhere: set[str],
    ) -> None:
        """Check that the block has a value for every name in expressions, and for every slot without a default."""
        slots = self.template.slots
        given = {name for name in builder.given_paths if name not in builder.partly_given}
        names = {*slots, *params, *derive, *given, *builder.axis_names} - (builder.partly_given - {*slots, *params})
        known = names | self.suppressed_names
        expressions: dict[KeyPath, Expression] = {("derive", name): expression for name, expression in derive.items()}
        if builder.block.where is not None:
            expressions[(*builder.block.path, "where")] = builder.block.where
        suggested = sorted(names | set(self.raw.get("params", {})))
        for path, expression in expressions.items() if not self.no_template else ():
            for name in expression.names:
                if name in given_somewhere and name not in known:
                    detail = "not by every value" if name in builder.partly_given else "not by this block"
                    line = self.source.find_line(builder.block.path)
                    self.add_problem(
                        path, f"'{name}' is given, but {detail} (line {line}); give it there, or in `params` for all"
                    )
                elif name not in known:
                    advice = self.advise(name, suggested, "known")
                    self.add_problem(path, f"'{name}' is neither a slot nor a variable{advice}")
        for name, slot in slots.items():
            if slot.default is MISSING and name not in {*derive, *params, *given, *self.suppressed_names}:
                message = (
                    f"the slot '{name}' has no value: give it in `params`, in the sweep, or a default in its template"
                )
                if not slot.path:  # it stands in a text of the workflow, which may be meant for a node
                    message += (
                        f"; if {{{{ {name} }}}} is not a slot, put its text between {{% raw %}} and {{% endraw %}}"
                    )
                self.add_problem(builder.block.path if self.raw.get(str(builder.block.path[0])) else (), message)


def with_derived_files(experiment: Experiment, folder: ExperimentFiles) -> Experiment:
    """Return the experiment with the files that `derive` computes for file slots.

    Raises ExperimentError if a file cannot be read.
    """
    slots = [name for name, slot in experiment.template.slots.items() if slot.is_file and name in experiment.derive]
    files = dict(experiment.files)
    problems: list[Problem] = []
    for name in slots:
        for value in iter_derived_values(experiment, name):
            try:
                files[value] = _hash_file(folder, value)
            except OutsideError as error:
                folder.add_outside(("derive", name), error)
            except AxisError as error:
                source = experiment.source
                assert source is not None
                problems.append(source.make_problem(("derive", name), str(error)))
    if problems:
        raise ExperimentError(problems)
    return replace(experiment, files=files) if slots else experiment


def _hash_file(folder: ExperimentFiles, value: Any) -> HashedFile:
    if not isinstance(value, str):
        raise AxisError(f"found {format_value(value)}, but a file slot takes the name of a file")
    return folder.hash_file(value)


def _make_run_settings(raw: Mapping[str, Any]) -> RunSettings:
    # JSON Schema accepts 2.0 as an integer, but as `max_failures` a float is a share.
    settings = {**raw, **{name: int(raw[name]) for name in _COUNTS if name in raw}}
    if isinstance(limit := raw.get("max_failures"), str):
        settings["max_failures"] = float(limit.strip().removesuffix("%")) / 100
    elif limit is not None:
        settings["max_failures"] = int(limit)
    settings |= {name: float(settings[name]) for name in ("timeout", "patience") if name in settings}
    settings |= {name: parse_usd(settings[name]) for name in ("confirm_above", "budget") if name in settings}
    return RunSettings(**settings)


def _get_top_key(problem: Problem) -> str:
    """Return the top-level key of the file that contains a problem."""
    return re.split(r"[.\[]", problem.key)[0]


def _iter_names(value: Mapping[str, Any], path: KeyPath) -> Iterator[str]:
    """Yield the names that a refused part of the experiment may define: those in its path and inside it."""
    if path[:1] in (("params",), ("derive",), ("sweep",), ("search",)):
        yield from (part for part in path[1:] if isinstance(part, str))
    elif path[:1] and path[0] in load_schema("experiment")["properties"]:
        return
    part: Any = value
    for key in path:
        part = part[key]
    pending = [part]
    while pending:
        item = pending.pop()
        yield from item if isinstance(item, dict) else ()
        pending += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()


def _widen_path(path: KeyPath) -> KeyPath:
    """Return the path of the whole axis or zip group that contains a refused part, to check nothing of it again."""
    for section, key, below in (
        ("sweep", "grid", 2),
        ("sweep", "zip", 2),
        ("search", "space", 2),
        ("search", "over", 2),
    ):
        if path[:1] == (section,) and key in path:
            return path[: path.index(key) + below]
    return path


def _prune(value: Any, paths: Iterable[KeyPath]) -> Any:
    """Return the mapping without the parts at `paths`, which the schema has refused.

    If an item of a list is refused, the whole list is removed, so that the indexes of other items do not change.
    """
    pruned = set(paths)

    def copy_part(part: Any, path: KeyPath) -> Any:
        if isinstance(part, dict):
            items = {key: copy_part(item, (*path, key)) for key, item in part.items() if (*path, key) not in pruned}
            return {key: item for key, item in items.items() if item is not None or part[key] is None}
        if isinstance(part, list):
            if any((*path, index) in pruned for index in range(len(part))):
                return None
            return [copy_part(item, (*path, index)) for index, item in enumerate(part)]
        return part

    return copy_part(value, ()) if isinstance(value, dict) and () not in pruned else {}


def make_name(file: Path) -> str:
    """Return the name of an experiment that states none: that of its file, with `-` for unusual characters."""
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in file.stem
    )
