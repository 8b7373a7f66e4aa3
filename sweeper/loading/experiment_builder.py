"""From the mapping that a user wrote to an Experiment, and every mistake in it.

The schema has checked the shapes; here is what it cannot say: names that are slots or used, one name in one place,
values that their slots take, groups of equal length. `blocks` does one block of the sweep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final, Protocol

from sweeper.did_you_mean import suggest
from sweeper.errors import ExperimentError, Problem
from sweeper.loading.sweep_builder import BlockBuilder, KnownNames
from sweeper.model.axis_values import AxisError, FileAccess
from sweeper.model.experiment import Experiment, HashedFile, RunSettings
from sweeper.model.expressions import Expression, ExpressionError, compile_text
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.model.source import Source
from sweeper.model.target_spec import NamedTargets, find_target_problems
from sweeper.model.template import MISSING, Template
from sweeper.planning.plan import iter_derived_values
from sweeper.schemas import convert_whole_floats, find_schema_problems, load_schema
from sweeper.schemas.values import KeyPath, format_value

_PLAN_KEYS: Final = (
    "",
    "template",
    "params",
    "derive",
    "sweep",
)  # the keys that a plan is made of; "" is the whole file
_ANY_VALUE = SlotSchema(None)  # of a variable: any finite JSON value


class ExperimentFiles(FileAccess, Protocol):
    """The folder of the experiment: texts and patterns, and the files that file slots take."""

    def hash_file(self, name: str) -> HashedFile:
        """The file that a value names. Raises AxisError when there is none."""


@dataclass(frozen=True, slots=True)
class PartialExperiment:
    """What could be read of an experiment, and every problem. Where there are some, it lacks what they are about.

    `has_plan`: all that its trials are made of is sound, whatever else is wrong.
    """

    experiment: Experiment
    problems: tuple[Problem, ...]
    has_template: bool
    has_plan: bool


def build_experiment(
    source: Source,
    template: Template | None,
    folder: ExperimentFiles,
    *,
    file: Path,
    metric_problems: Iterable[tuple[int, str]] = (),
    problems: Iterable[Problem] = (),
    extra_used_names: frozenset[str] = frozenset(),
    named: NamedTargets | None = None,
) -> PartialExperiment:
    """Make the Experiment, and find every problem.

    `template` is None where it could not be read: `problems` then says why, and what does not need it is checked
    nevertheless. `also_read` are names that count as used, as those of a `derive` that an override has replaced.
    `named` are the user's names for servers, None where a target of no known name is left for later.
    """
    shape = find_schema_problems("experiment", source.value)
    found = list(problems)
    found += [source.make_problem(path, message) for path, message in shape]
    refused = {path for path, _ in shape}
    targets = find_target_problems(source.value, named)
    found += [source.make_problem(path, message) for path, message in targets if path not in refused]
    found += [source.make_problem(("metrics", place), message) for place, message in metric_problems]
    whole = convert_whole_floats(
        "experiment", source.value
    )  # JSON Schema takes 2.0 for an integer; a share is a float here
    sound = source.with_value(_prune(whole, [_widen_path(path) for path, _ in shape]) if shape else whole)
    forgiven = {name for path, _ in shape for name in _iter_names(source.value, path)}
    declaration = _ExperimentBuilder(sound, template, folder, file, forgiven)
    declaration.extra_used_names = extra_used_names
    experiment = declaration.build()
    found += declaration.problems
    aside = all(problem.file == source.name and _get_top_key(problem) not in _PLAN_KEYS for problem in found)
    has_template = template is not None
    return PartialExperiment(experiment, tuple(found), has_template, has_plan=has_template and aside and not forgiven)


class _ExperimentBuilder:
    """One experiment on its way, and the problems met on the way.

    `forgiven` are names in parts that the schema has refused: they may be missing without a second message. Without
    a template any name may be a slot's.
    """

    def __init__(
        self, source: Source, template: Template | None, folder: ExperimentFiles, file: Path, suppressed_names: set[str]
    ) -> None:
        self.suppressed_names = suppressed_names
        self.source = source
        self.no_template = template is None
        self.template = template or Template("", {}, {}, ())
        self.folder = folder
        self.file = file
        self.raw: Mapping[str, Any] = source.value
        self.problems: list[Problem] = []
        self.files: dict[str, HashedFile] = {}
        self.extra_used_names: frozenset[str] = frozenset()

    def add_problem(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.source.make_problem(path, message))

    def build(self) -> Experiment:
        raw = self.raw
        name = raw.get("name", _slugify(self.file.stem))
        derive = self.compile_derived(raw.get("derive", {}))
        blocks = self.build_blocks(name, derive)
        params = self.build_params(raw.get("params", {}), derive, blocks)
        for block in blocks:
            self.check_given(
                block, derive, params, given_somewhere={name for one in blocks for name in one.given_paths}
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
            blocks=tuple(block.block for block in blocks),
            order=raw.get("order", "auto"),
            metrics=tuple(raw.get("metrics", ())),
            checks=raw.get("checks", {}),
            run=_make_run_settings(raw.get("run", {})),
            files=self.files,
            source=self.source,
        )

    def normalise_value(self, name: str, value: Any, path: KeyPath) -> Any:
        """A value for `name`, normalised by its slot; a file is looked up. Problems are noted, the value returned."""
        slot = self.template.slots.get(name)
        try:
            value = slot.schema.normalise(value) if slot is not None else _ANY_VALUE.normalise(value)
            if slot is not None and slot.is_file:
                self.files[value] = self.hash_file(value)
        except (ValueRefusedError, AxisError) as error:
            self.add_problem(path, str(error) if name in path else f"{name}: {error}")
        return value

    def hash_file(self, value: Any) -> HashedFile:
        if not isinstance(value, str):
            raise AxisError("a file slot takes the name of a file")
        return self.folder.hash_file(value)

    def check_metric_names(self, blocks: list[BlockBuilder]) -> None:
        """A metric is a column of the table, and so is every slot and axis: no two may bear one name."""
        taken = {*self.template.slots, *(name for block in blocks for name in block.axis_names)}
        for place, metric in enumerate(self.raw.get("metrics", [])):
            if metric in taken:
                message = f"'{metric}' is also a slot or an axis, and the table would have two columns of that name"
                self.add_problem(("metrics", place), message)

    def hash_default_files(self, blocks: list[BlockBuilder], given: set[str]) -> None:
        for slot in self.template.slots.values():
            swept = all(slot.name in block.given_paths and slot.name not in block.partly_given for block in blocks)
            if slot.is_file and slot.default is not MISSING and slot.name not in given and not swept:
                try:
                    self.files[slot.default] = self.hash_file(slot.default)
                except AxisError as error:
                    self.add_problem(("template",), f"the default of slot '{slot.name}': {error}")

    def compile_derived(self, raw: Mapping[str, str]) -> dict[str, Expression]:
        found: dict[str, Expression] = {}
        for name, text in raw.items():
            try:
                found[name] = compile_text(text)
            except ExpressionError as error:
                self.add_problem(("derive", name), str(error))
        graph = {name: [other for other in expression.names if other in found] for name, expression in found.items()}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = error.args[1]
            self.add_problem(("derive", circle[0]), f"these names need each other: {' -> '.join(reversed(circle))}")
            self.suppressed_names.update(circle, *(found[name].names for name in circle))
            return {name: expression for name, expression in found.items() if name not in circle}
        return {name: found[name] for name in order}

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
                BlockBuilder(self, one, ("sweep", place), name, self.collect_names(derive))
                for place, one in enumerate(raw)
            ]
        return [BlockBuilder(self, raw, ("sweep",), name, self.collect_names(derive))]

    def build_params(
        self, raw: Mapping[str, Any], derive: Mapping[str, Expression], blocks: list[BlockBuilder]
    ) -> dict[str, Any]:
        names = self.collect_names(derive)
        used = names.used | {name for block in blocks for name in block.used}
        found: dict[str, Any] = {}
        for name, written in raw.items():
            path: KeyPath = ("params", name)
            value = self.normalise_value(name, written, path)
            if name in derive:
                self.add_problem(
                    path, f"'{name}' is also in `derive` (line {self.source.find_line(('derive', name))}); give it once"
                )
            elif name not in names.slots and name not in used and not self.no_template:
                self.add_problem(
                    path, f"'{name}' is neither a slot of the template nor used{suggest(name, names.slots, 'slots')}"
                )
            elif all(name in block.given_paths and name not in block.partly_given for block in blocks):
                where = blocks[0].given_paths[name]
                self.add_problem(
                    path, f"'{name}' is also swept (line {self.source.find_line(where)}); give it in one place only"
                )
            if name in names.slots or name in used:
                found[name] = value
        for name in derive:
            if name not in names.slots and name not in used and not self.no_template:
                message = f"'{name}' is neither a slot of the template nor used"
                self.add_problem(("derive", name), message + suggest(name, names.slots, "slots"))
        return found

    def check_given(
        self,
        reader: BlockBuilder,
        derive: Mapping[str, Expression],
        params: Mapping[str, Any],
        *,
        given_somewhere: set[str],
    ) -> None:
        """Check that the block gives every name that its expressions read, and every slot that has no default."""
        slots = self.template.slots
        given = {name for name in reader.given_paths if name not in reader.partly_given}
        names = {*slots, *params, *derive, *given, *reader.axis_names} - (reader.partly_given - {*slots, *params})
        known = names | self.suppressed_names
        expressions: dict[KeyPath, Expression] = {("derive", name): found for name, found in derive.items()}
        if reader.block.where is not None:
            expressions[(*reader.block.path, "where")] = reader.block.where
        hinted = names | set(self.raw.get("params", {}))
        for path, expression in expressions.items() if not self.no_template else ():
            for name in expression.names:
                if name in given_somewhere and name not in known:
                    some = "not by every value" if name in reader.partly_given else "not by this block"
                    line = self.source.find_line(reader.block.path)
                    self.add_problem(
                        path, f"'{name}' is given, but {some} (line {line}); give it there, or in `params` for all"
                    )
                elif name not in known:
                    self.add_problem(
                        path, f"'{name}' is neither a slot nor a variable{suggest(name, sorted(hinted), 'known')}"
                    )
        for name, slot in slots.items():
            if slot.default is MISSING and name not in {*derive, *params, *given, *self.suppressed_names}:
                message = (
                    f"the slot '{name}' has no value: give it in `params`, in the sweep, or a default in its template"
                )
                self.add_problem(reader.block.path if self.raw.get("sweep") else (), message)


def with_derived_files(experiment: Experiment, folder: ExperimentFiles) -> Experiment:
    """The experiment with the files that `derive` names for file slots; the plan itself opens none.

    Raises ExperimentError for a file that is not there.
    """
    slots = [name for name, slot in experiment.template.slots.items() if slot.is_file and name in experiment.derive]
    found = dict(experiment.files)
    problems: list[Problem] = []
    for name in slots:
        for value in iter_derived_values(experiment, name):
            try:
                if not isinstance(value, str):
                    raise AxisError(f"found {format_value(value)}, but a file slot takes the name of a file")  # noqa: TRY301
                found[value] = folder.hash_file(value)
            except AxisError as error:
                source = experiment.source
                assert source is not None
                problems.append(source.make_problem(("derive", name), str(error)))
    if problems:
        raise ExperimentError(problems)
    return replace(experiment, files=found) if slots else experiment


def _make_run_settings(raw: Mapping[str, Any]) -> RunSettings:
    given = dict(raw)
    limit = given.get("max_failures")
    if isinstance(limit, str):
        given["max_failures"] = float(limit.strip().removesuffix("%")) / 100
    given |= {name: float(given[name]) for name in ("timeout", "patience") if name in given}
    return RunSettings(**given)


def _get_top_key(problem: Problem) -> str:
    """The key of the file's top level that a problem is below."""
    return re.split(r"[.\[]", problem.key)[0]


def _iter_names(value: Mapping[str, Any], path: KeyPath) -> Iterator[str]:
    """The names that a refused part of the experiment may have meant to give: those on the way to it and inside it."""
    if path[:1] in (("params",), ("derive",), ("sweep",)):
        yield from (part for part in path[1:] if isinstance(part, str))
    elif path[:1] and path[0] in load_schema("experiment")["properties"]:
        return
    part: Any = value
    for step in path:
        part = part[step]
    waiting = [part]
    while waiting:
        one = waiting.pop()
        yield from one if isinstance(one, dict) else ()
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _widen_path(path: KeyPath) -> KeyPath:
    """A refused part of an axis or a zip group is taken out with all of it: half a form would be judged once more."""
    for key, below in (("grid", 2), ("zip", 2)):
        if path[:1] == ("sweep",) and key in path:
            return path[: path.index(key) + below]
    return path


def _prune(value: Any, paths: Iterable[KeyPath]) -> Any:
    """The mapping without the parts at `paths`: what can still be checked when the schema has refused them.

    A refused item takes its list along, so that the places of the others stay true.
    """
    pruned = set(paths)

    def copy_part(part: Any, path: KeyPath) -> Any:
        if isinstance(part, dict):
            kept = {key: copy_part(item, (*path, key)) for key, item in part.items() if (*path, key) not in pruned}
            return {key: item for key, item in kept.items() if item is not None or part[key] is None}
        if isinstance(part, list):
            if any((*path, place) in pruned for place in range(len(part))):
                return None
            return [copy_part(item, (*path, place)) for place, item in enumerate(part)]
        return part

    return copy_part(value, ()) if isinstance(value, dict) and () not in pruned else {}


def _slugify(text: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text)
