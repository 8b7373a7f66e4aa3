"""Build an Experiment from the mapping that a user wrote, and find every mistake in it.

The schema checks shapes. This module checks what a schema cannot express: every name is a slot or is used, it is given
once, and its slot accepts its values. `sweep_builder` builds one block of the sweep.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ExperimentError, Problem, UsageError
from sweeper.files import find_name_problem
from sweeper.loading.read_scope import ExperimentFolder, OutsideError, TrustNeed
from sweeper.loading.search_builder import (
    SearchBuilder,
    build_judges,
    build_likenesses,
    find_measuring_problems,
    find_unknown_names,
    list_metrics,
    name_metrics,
)
from sweeper.loading.sweep_builder import BlockBuilder, ExperimentDraft
from sweeper.model.axis_values import AxisError
from sweeper.model.experiment import Experiment, Judge, RunSettings
from sweeper.model.expressions import Expression, ExpressionError, compile_text
from sweeper.model.launch_spec import anchor_launches
from sweeper.model.money import parse_usd
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.source import Source
from sweeper.model.target_spec import NamedTargets, find_target_problems
from sweeper.model.template import MISSING, Template
from sweeper.model.urls import parse_notify_url
from sweeper.planning.plan import iter_derived_values
from sweeper.schemas import find_schema_problems, load_schema
from sweeper.schemas.values import KeyPath, format_value

_PLAN_KEYS: Final = ("", "template", "params", "derive", "sweep", "search")  # that define the trials; "": the file
_MAX_COLUMN: Final = 100  # characters of the name of a column
_COUNTS: Final = ("concurrency", "retries", "max_trials")  # of `run`


@dataclass(frozen=True, slots=True)
class PartialExperiment:
    """The valid parts of an experiment, and every problem in the others.

    `has_plan`: everything that defines the trials is valid, whatever else is wrong. `needs`: what the experiment may
    read only with trust, and was not read. `switched`: the slots whose first value, `(none)`, switches their nodes off.
    """

    experiment: Experiment
    problems: tuple[Problem, ...]
    has_template: bool
    has_plan: bool
    needs: tuple[TrustNeed, ...] = ()
    switched: tuple[str, ...] = ()


def build_experiment(
    source: Source,
    template: Template | None,
    folder: ExperimentFolder,
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
    refused_paths = {path for path, _ in shape_problems}
    found = [
        *shape_problems,
        *(pair for pair in find_target_problems(source.value, named) if pair[0] not in refused_paths),
        *find_measuring_problems(source.value, refused_paths),
    ]
    valid_source = source
    if shape_problems:
        valid_source = source.with_value(_prune(source.value, [_widen_path(path) for path, _ in shape_problems]))
    builder = _ExperimentBuilder(valid_source, template, folder)
    builder.suppressed_names = {name for path, _ in shape_problems for name in _iter_names(source.value, path)}
    builder.extra_used_names = extra_used_names
    experiment = builder.build(file)
    all_problems = (*problems, *(source.make_problem(path, message) for path, message in found), *builder.problems)
    has_template = template is not None
    are_elsewhere = (
        problem.file == source.name and re.split(r"[.\[]", problem.key)[0] not in _PLAN_KEYS for problem in all_problems
    )
    has_plan = has_template and not builder.suppressed_names and all(are_elsewhere)
    return PartialExperiment(experiment, all_problems, has_template, has_plan, switched=tuple(builder.switched))


class _ExperimentBuilder(ExperimentDraft):
    """Builds one experiment.

    `suppressed_names` are the names in parts that the schema has refused: if they are missing, there is no second
    message. `extra_used_names` are those of `build_experiment`.
    """

    suppressed_names: set[str]
    extra_used_names: frozenset[str]

    def build(self, file: Path) -> Experiment:
        raw = self.raw
        self.name = raw.get("name", make_name(file))
        if isinstance(self.name, str) and (problem := find_name_problem(self.name)) is not None:
            message = f"'{self.name}' {problem}; it names the results folder, so write another `name`"
            self.add_problem(("name",), message)
        metrics = raw.get("metrics", ())
        judges, judge_problems = build_judges(metrics)
        derive = self.compile_derived(raw.get("derive", {}), judges)
        search = SearchBuilder(self, raw["search"]) if "search" in raw else None
        sweep = self.build_blocks() if "sweep" in raw or search is None else []
        blocks = [*sweep, *([search] if search is not None else [])]
        params = self.build_params(raw.get("params", {}), derive, blocks)
        given_somewhere = {name for block in blocks for name in (*block.given_paths, *block.extras)}
        for block in blocks:
            self.check_given(block, derive, params, given_somewhere=given_somewhere)
        self.hash_default_files(blocks, {*params, *derive})
        self.check_metric_names(blocks)
        self.check_extra_columns(blocks)
        known = dict.fromkeys((*self.template.slots, *params, *sorted(given_somewhere)))
        knows_all = not self.no_template and not self.folder.pending
        unknown = find_unknown_names(metrics, judges, self.template.slots, known) if knows_all else ()
        for path, message in (*judge_problems, *unknown):
            self.add_problem(path, message)
        target = anchor_launches(raw.get("target", "embedded"), file.parent.absolute())
        return Experiment(
            name=self.name,
            file=file,
            template=self.template,
            targets=tuple(target) if isinstance(target, list) else (target,),
            named_targets={
                name: anchor_launches(entry, file.parent.absolute()) for name, entry in raw.get("targets", {}).items()
            },
            params=params,
            derive=derive,
            blocks=tuple(block.block for block in sweep),
            search=None if search is None else search.search,
            metrics=list_metrics(raw),
            judges=judges,
            likenesses=build_likenesses(metrics, self),
            run=self.build_run_settings(raw.get("run", {})),
            files=self.files,
            source=self.source,
            **{key: raw[key] for key in ("description", "order", "checks") if key in raw},
        )

    def build_run_settings(self, raw: Mapping[str, Any]) -> RunSettings:
        # JSON Schema accepts 2.0 as an integer, but as `max_failures` a float is a share.
        settings = {**raw, **{name: int(raw[name]) for name in _COUNTS if name in raw}}
        if isinstance(limit := raw.get("max_failures"), str):
            settings["max_failures"] = float(limit.strip().removesuffix("%")) / 100
        elif limit is not None:
            settings["max_failures"] = int(limit)
        settings |= {name: float(settings[name]) for name in ("timeout", "patience") if name in settings}
        settings |= {name: parse_usd(settings[name]) for name in ("confirm_above", "budget") if name in settings}
        try:
            if settings.get("notify") is not None:
                parse_notify_url(settings["notify"])
        except UsageError as error:
            self.add_problem(("run", "notify"), str(error))
            settings["notify"] = None
        return RunSettings(**settings)

    def check_metric_names(self, blocks: list[BlockBuilder]) -> None:
        """Check that no metric has the name of a slot or axis, because all of them are columns of the table."""
        taken = {*self.template.slots, *(name for block in blocks for name in block.axes)}
        for index, metric in enumerate(name_metrics(self.raw.get("metrics", []))):
            if metric in taken:
                message = f"'{metric}' is also a slot or an axis, and the table would have two columns of that name"
                self.add_problem(("metrics", index), message)

    def check_extra_columns(self, blocks: list[BlockBuilder]) -> None:
        """Check that no other column or name has the name of a more column of an axis."""
        axes = [name for block in blocks for name in block.axes]
        taken: dict[str, Collection[str]] = {
            "a slot": self.template.slots, "an axis": axes, "a column of labels": [f"{name}.label" for name in axes],
            "in `derive`": self.derived, "in `params`": self.raw.get("params") or (),
            "a metric": list_metrics(self.raw), "a column of every table": RESERVED_COLUMNS,
        }  # fmt: skip
        advice = "rename it in the file, or name the columns that you want, as in `columns: [skill, id]`"
        for column, paths in self.extra_paths.items():
            (axis, path), *others = paths.items()
            also = next((what for what, names in taken.items() if column in names), f"a column of '{axis}'")
            if not column.isprintable() or len(column) > _MAX_COLUMN:
                self.add_problem(path, f"its column {format_value(column)} has no name of a column; {advice}")
            elif others or not also.startswith("a column of '"):
                self.add_problem([*paths.values()][-1], f"its column '{column}' is also {also}; {advice}")

    def hash_default_files(self, blocks: list[BlockBuilder], given: set[str]) -> None:
        for slot in self.template.slots.values():
            is_swept = all(slot.name in block.given_paths and slot.name not in block.partly_given for block in blocks)
            if slot.is_file and slot.default is not MISSING and slot.name not in given and not is_swept:
                try:
                    self.files[slot.default] = self.folder.hash_file(slot.default)
                except AxisError as error:
                    self.add_axis_error(("template",), error, f"the default of slot '{slot.name}': ")

    def compile_derived(self, raw: Mapping[str, str], judges: Mapping[str, Judge]) -> dict[str, Expression]:
        expressions: dict[str, Expression] = {}
        for name, text in raw.items():
            try:
                expressions[name] = compile_text(text)
            except ExpressionError as error:
                self.add_problem(("derive", name), str(error))
        graph = {name: expressions.keys() & expression.names for name, expression in expressions.items()}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = error.args[1]
            self.add_problem(("derive", cycle[0]), f"these names need each other: {' -> '.join(reversed(cycle))}")
            self.suppressed_names.update(cycle, *(expressions[name].names for name in cycle))
            order = [name for name in expressions if name not in cycle]
        derive = {name: expressions[name] for name in order}
        self.derived = frozenset(derive)
        read = {name for expression in derive.values() for name in expression.names}
        read |= {name for judge in judges.values() for name in judge.names}
        self.used = frozenset(read | self.suppressed_names | self.extra_used_names)
        return derive

    def build_blocks(self) -> list[BlockBuilder]:
        raw = self.raw.get("sweep")
        if isinstance(raw, list):
            return [BlockBuilder(self, block, ("sweep", index)) for index, block in enumerate(raw)]
        return [BlockBuilder(self, {} if raw is None else raw, ("sweep",))]

    def build_params(
        self, raw: Mapping[str, Any], derive: Mapping[str, Expression], blocks: list[BlockBuilder]
    ) -> dict[str, Any]:
        slots, used = self.template.slots, self.used | {name for block in blocks for name in block.used}
        params: dict[str, Any] = {}
        for name, raw_value in raw.items():
            path: KeyPath = ("params", name)
            value = self.normalise_value(name, raw_value, path)
            if name in derive:
                line = self.source.find_line(("derive", name))
                self.add_problem(path, f"'{name}' is also in `derive` (line {line}); give it once")
            elif name not in slots and name not in used and not self.no_template:
                self.add_problem(path, f"'{name}' is neither a slot of the template nor used{self.suggest_slot(name)}")
            elif all(name in block.given_paths and name not in block.partly_given | block.replaced for block in blocks):
                line = self.source.find_line(blocks[0].given_paths[name])
                self.add_problem(path, f"'{name}' is also swept (line {line}); give it in one place only")
            if name in slots or name in used:
                params[name] = value
        for name in derive:
            if name not in slots and name not in used and not self.no_template:
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
        slots = self.template.slots
        given = {name for name in builder.given_paths if name not in builder.partly_given}
        given |= builder.extras
        names = {*slots, *params, *derive, *given, *builder.axes} - (builder.partly_given - {*slots, *params})
        known = names | self.suppressed_names
        expressions: dict[KeyPath, Expression] = {("derive", name): expression for name, expression in derive.items()}
        if builder.block.where is not None:
            expressions[(*builder.block.path, "where")] = builder.block.where
        suggested = sorted(names | set(self.raw.get("params", {})))
        for path, expression in expressions.items() if not self.no_template else ():
            for name in expression.names:
                if name in given_somewhere and name not in known:
                    detail = "not by every value" if name in builder.partly_given else "not by this block"
                    place = f"(line {self.source.find_line(builder.block.path)})"
                    message = f"'{name}' is given, but {detail} {place}; give it there, or in `params` for all"
                    self.add_problem(path, message)
                elif name not in known:
                    advice = self.advise(name, suggested, "known")
                    self.add_problem(path, f"'{name}' is neither a slot nor a variable{advice}")
        for name, slot in slots.items():
            if slot.default is MISSING and name not in {*derive, *params, *given, *self.suppressed_names}:
                message = (
                    f"the slot '{name}' has no value: give it in `params`, in the sweep, or a default in its template"
                )
                if not slot.path:  # it stands in a text of the workflow, which may be meant for a node
                    hint = "is not a slot, put its text between {% raw %} and {% endraw %}"
                    message += f"; if {{{{ {name} }}}} {hint}"
                self.add_problem(builder.block.path if self.raw.get(str(builder.block.path[0])) else (), message)


def with_derived_files(experiment: Experiment, folder: ExperimentFolder) -> Experiment:
    """Return the experiment with the files that `derive` computes for file slots.

    Raises ExperimentError if a file cannot be read.
    """
    slots = [name for name, slot in experiment.template.slots.items() if slot.is_file and name in experiment.derive]
    files = dict(experiment.files)
    problems: list[Problem] = []
    for name in slots:
        for value in iter_derived_values(experiment, name):
            try:
                files[value] = folder.hash_file(value)
            except OutsideError as error:
                folder.add_outside(("derive", name), error)
            except AxisError as error:
                problems += experiment.make_error(("derive", name), str(error)).problems
    if problems:
        raise ExperimentError(problems)
    return replace(experiment, files=files) if slots else experiment


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
    for section, key in (("sweep", "grid"), ("sweep", "zip"), ("search", "space"), ("search", "over")):
        if path[:1] == (section,) and key in path:
            return path[: path.index(key) + 2]
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
    return re.sub(r"[^A-Za-z0-9._-]", "-", file.stem)
