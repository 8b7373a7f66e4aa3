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

from sweeper.did_you_mean import hint
from sweeper.errors import ExperimentError, Problem
from sweeper.loading.sweep_builder import BlockReader, Names
from sweeper.model.axis_values import AxisError, Files
from sweeper.model.experiment import Experiment, InputFact, RunSettings
from sweeper.model.expressions import Expression, ExpressionError, compile_text
from sweeper.model.slot_values import Normaliser, ValueRefusedError
from sweeper.model.source import Path as Key
from sweeper.model.source import Source
from sweeper.model.target_spec import Named, written_problems
from sweeper.model.template import MISSING, Template
from sweeper.planning.plan import derived_values
from sweeper.schemas import schema, shape_problems, shown, whole_numbers

_OF_TRIALS: Final = (
    "",
    "template",
    "params",
    "derive",
    "sweep",
)  # the keys that a plan is made of; "" is the whole file
_ANY = Normaliser(None)  # of a variable: any finite JSON value


class Folder(Files, Protocol):
    """The folder of the experiment: texts and patterns, and the files that file slots take."""

    def fact(self, name: str) -> InputFact:
        """The file that a value names. Raises AxisError when there is none."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read of an experiment, and every problem. Where there are some, it lacks what they are about.

    `has_plan`: all that its trials are made of is sound, whatever else is wrong.
    """

    experiment: Experiment
    problems: tuple[Problem, ...]
    has_template: bool
    has_plan: bool


def declare(
    source: Source,
    template: Template | None,
    folder: Folder,
    *,
    file: Path,
    metric_problems: Iterable[tuple[int, str]] = (),
    problems: Iterable[Problem] = (),
    also_read: frozenset[str] = frozenset(),
    named: Named | None = None,
) -> Draft:
    """Make the Experiment, and find every problem.

    `template` is None where it could not be read: `problems` then says why, and what does not need it is checked
    nevertheless. `also_read` are names that count as used, as those of a `derive` that an override has replaced.
    `named` are the user's names for servers, None where a target of no known name is left for later.
    """
    shape = shape_problems("experiment", source.value)
    found = list(problems)
    found += [source.problem(path, message) for path, message in shape]
    refused = {path for path, _ in shape}
    targets = written_problems(source.value, named)
    found += [source.problem(path, message) for path, message in targets if path not in refused]
    found += [source.problem(("metrics", place), message) for place, message in metric_problems]
    whole = whole_numbers("experiment", source.value)  # JSON Schema takes 2.0 for an integer; a share is a float here
    sound = source.with_value(_without(whole, [_whole(path) for path, _ in shape]) if shape else whole)
    forgiven = {name for path, _ in shape for name in _named(source.value, path)}
    declaration = _Declaration(sound, template, folder, file, forgiven)
    declaration.also_read = also_read
    experiment = declaration.experiment()
    found += declaration.problems
    aside = all(problem.file == source.name and _part(problem) not in _OF_TRIALS for problem in found)
    has_template = template is not None
    return Draft(experiment, tuple(found), has_template, has_plan=has_template and aside and not forgiven)


class _Declaration:
    """One experiment on its way, and the problems met on the way.

    `forgiven` are names in parts that the schema has refused: they may be missing without a second message. Without
    a template any name may be a slot's.
    """

    def __init__(
        self, source: Source, template: Template | None, folder: Folder, file: Path, forgiven: set[str]
    ) -> None:
        self.forgiven = forgiven
        self.source = source
        self.unsure = template is None
        self.template = template or Template("", {}, {}, ())
        self.folder = folder
        self.file = file
        self.raw: Mapping[str, Any] = source.value
        self.problems: list[Problem] = []
        self.files: dict[str, InputFact] = {}
        self.also_read: frozenset[str] = frozenset()

    def wrong(self, path: Key, message: str) -> None:
        self.problems.append(self.source.problem(path, message))

    def experiment(self) -> Experiment:
        raw = self.raw
        name = raw.get("name", _slug(self.file.stem))
        derive = self.derived(raw.get("derive", {}))
        blocks = self.blocks(name, derive)
        params = self.params(raw.get("params", {}), derive, blocks)
        for block in blocks:
            self.finish(block, derive, params, anywhere={name for one in blocks for name in one.given})
        self.default_files(blocks, {*params, *derive})
        self.metric_columns(blocks)
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
            run=_settings(raw.get("run", {})),
            files=self.files,
            source=self.source,
        )

    def value(self, name: str, value: Any, path: Key) -> Any:
        """A value for `name`, normalised by its slot; a file is looked up. Problems are noted, the value returned."""
        slot = self.template.slots.get(name)
        try:
            value = slot.normalise(value) if slot is not None else _ANY(value)
            if slot is not None and slot.is_file:
                self.files[value] = self.file_fact(value)
        except (ValueRefusedError, AxisError) as error:
            self.wrong(path, str(error) if name in path else f"{name}: {error}")
        return value

    def file_fact(self, value: Any) -> InputFact:
        if not isinstance(value, str):
            raise AxisError("a file slot takes the name of a file")
        return self.folder.fact(value)

    def metric_columns(self, blocks: list[BlockReader]) -> None:
        """A metric is a column of the table, and so is every slot and axis: no two may bear one name."""
        taken = {*self.template.slots, *(name for block in blocks for name in block.axis_names)}
        for place, metric in enumerate(self.raw.get("metrics", [])):
            if metric in taken:
                message = f"'{metric}' is also a slot or an axis, and the table would have two columns of that name"
                self.wrong(("metrics", place), message)

    def default_files(self, blocks: list[BlockReader], given: set[str]) -> None:
        for slot in self.template.slots.values():
            swept = all(slot.name in block.given and slot.name not in block.partial for block in blocks)
            if slot.is_file and slot.default is not MISSING and slot.name not in given and not swept:
                try:
                    self.files[slot.default] = self.file_fact(slot.default)
                except AxisError as error:
                    self.wrong(("template",), f"the default of slot '{slot.name}': {error}")

    def derived(self, raw: Mapping[str, str]) -> dict[str, Expression]:
        found: dict[str, Expression] = {}
        for name, text in raw.items():
            try:
                found[name] = compile_text(text)
            except ExpressionError as error:
                self.wrong(("derive", name), str(error))
        graph = {name: [other for other in expression.names if other in found] for name, expression in found.items()}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = error.args[1]
            self.wrong(("derive", circle[0]), f"these names need each other: {' -> '.join(reversed(circle))}")
            self.forgiven.update(circle, *(found[name].names for name in circle))
            return {name: expression for name, expression in found.items() if name not in circle}
        return {name: found[name] for name in order}

    def names(self, derive: Mapping[str, Expression]) -> Names:
        used = {name for expression in derive.values() for name in expression.names} | self.forgiven | self.also_read
        return Names(slots=self.template.slots, derive=frozenset(derive), used=frozenset(used), unsure=self.unsure)

    def blocks(self, name: str, derive: Mapping[str, Expression]) -> list[BlockReader]:
        raw = self.raw.get("sweep")
        if raw is None:
            return [BlockReader(self, {}, ("sweep",), name, self.names(derive))]
        if isinstance(raw, list):
            return [BlockReader(self, one, ("sweep", place), name, self.names(derive)) for place, one in enumerate(raw)]
        return [BlockReader(self, raw, ("sweep",), name, self.names(derive))]

    def params(
        self, raw: Mapping[str, Any], derive: Mapping[str, Expression], blocks: list[BlockReader]
    ) -> dict[str, Any]:
        names = self.names(derive)
        used = names.used | {name for block in blocks for name in block.used}
        found: dict[str, Any] = {}
        for name, written in raw.items():
            path: Key = ("params", name)
            value = self.value(name, written, path)
            if name in derive:
                self.wrong(
                    path, f"'{name}' is also in `derive` (line {self.source.line(('derive', name))}); give it once"
                )
            elif name not in names.slots and name not in used and not self.unsure:
                self.wrong(
                    path, f"'{name}' is neither a slot of the template nor used{hint(name, names.slots, 'slots')}"
                )
            elif all(name in block.given and name not in block.partial for block in blocks):
                where = blocks[0].given[name]
                self.wrong(path, f"'{name}' is also swept (line {self.source.line(where)}); give it in one place only")
            if name in names.slots or name in used:
                found[name] = value
        for name in derive:
            if name not in names.slots and name not in used and not self.unsure:
                message = f"'{name}' is neither a slot of the template nor used"
                self.wrong(("derive", name), message + hint(name, names.slots, "slots"))
        return found

    def finish(
        self, reader: BlockReader, derive: Mapping[str, Expression], params: Mapping[str, Any], *, anywhere: set[str]
    ) -> None:
        """Check that the block gives every name that its expressions read, and every slot that has no default."""
        slots = self.template.slots
        given = {name for name in reader.given if name not in reader.partial}
        names = {*slots, *params, *derive, *given, *reader.axis_names} - (reader.partial - {*slots, *params})
        known = names | self.forgiven
        expressions: dict[Key, Expression] = {("derive", name): found for name, found in derive.items()}
        if reader.block.where is not None:
            expressions[(*reader.block.path, "where")] = reader.block.where
        hinted = names | set(self.raw.get("params", {}))
        for path, expression in expressions.items() if not self.unsure else ():
            for name in expression.names:
                if name in anywhere and name not in known:
                    some = "not by every value" if name in reader.partial else "not by this block"
                    line = self.source.line(reader.block.path)
                    self.wrong(
                        path, f"'{name}' is given, but {some} (line {line}); give it there, or in `params` for all"
                    )
                elif name not in known:
                    self.wrong(path, f"'{name}' is neither a slot nor a variable{hint(name, sorted(hinted), 'known')}")
        for name, slot in slots.items():
            if slot.default is MISSING and name not in {*derive, *params, *given, *self.forgiven}:
                message = (
                    f"the slot '{name}' has no value: give it in `params`, in the sweep, or a default in its template"
                )
                self.wrong(reader.block.path if self.raw.get("sweep") else (), message)


def with_derived_files(experiment: Experiment, folder: Folder) -> Experiment:
    """The experiment with the files that `derive` names for file slots; the plan itself opens none.

    Raises ExperimentError for a file that is not there.
    """
    slots = [name for name, slot in experiment.template.slots.items() if slot.is_file and name in experiment.derive]
    found = dict(experiment.files)
    problems: list[Problem] = []
    for name in slots:
        for value in derived_values(experiment, name):
            try:
                if not isinstance(value, str):
                    raise AxisError(f"found {shown(value)}, but a file slot takes the name of a file")  # noqa: TRY301
                found[value] = folder.fact(value)
            except AxisError as error:
                source = experiment.source
                assert source is not None
                problems.append(source.problem(("derive", name), str(error)))
    if problems:
        raise ExperimentError(problems)
    return replace(experiment, files=found) if slots else experiment


def _settings(raw: Mapping[str, Any]) -> RunSettings:
    given = dict(raw)
    limit = given.get("max_failures")
    if isinstance(limit, str):
        given["max_failures"] = float(limit.strip().removesuffix("%")) / 100
    given |= {name: float(given[name]) for name in ("timeout", "patience") if name in given}
    return RunSettings(**given)


def _part(problem: Problem) -> str:
    """The key of the file's top level that a problem is below."""
    return re.split(r"[.\[]", problem.key)[0]


def _named(value: Mapping[str, Any], path: Key) -> Iterator[str]:
    """The names that a refused part of the experiment may have meant to give: those on the way to it and inside it."""
    if path[:1] in (("params",), ("derive",), ("sweep",)):
        yield from (part for part in path[1:] if isinstance(part, str))
    elif path[:1] and path[0] in schema("experiment")["properties"]:
        return
    part: Any = value
    for step in path:
        part = part[step]
    waiting = [part]
    while waiting:
        one = waiting.pop()
        yield from one if isinstance(one, dict) else ()
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _whole(path: Key) -> Key:
    """A refused part of an axis or a zip group is taken out with all of it: half a form would be judged once more."""
    for key, below in (("grid", 2), ("zip", 2)):
        if path[:1] == ("sweep",) and key in path:
            return path[: path.index(key) + below]
    return path


def _without(value: Any, paths: Iterable[Key]) -> Any:
    """The mapping without the parts at `paths`: what can still be checked when the schema has refused them.

    A refused item takes its list along, so that the places of the others stay true.
    """
    pruned = set(paths)

    def copied(part: Any, path: Key) -> Any:
        if isinstance(part, dict):
            kept = {key: copied(item, (*path, key)) for key, item in part.items() if (*path, key) not in pruned}
            return {key: item for key, item in kept.items() if item is not None or part[key] is None}
        if isinstance(part, list):
            if any((*path, place) in pruned for place in range(len(part))):
                return None
            return [copied(item, (*path, place)) for place, item in enumerate(part)]
        return part

    return copied(value, ()) if isinstance(value, dict) and () not in pruned else {}


def _slug(text: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text)
