"""Build one block of a sweep from the mapping that a user wrote: its axes, filters and extra rows."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from sweeper.model.axis_values import AxisError, FileAccess, Option, WorkBudget, expand_axis, format_label
from sweeper.model.experiment import Axis, Block, Dimension, IncludeRow, Sample
from sweeper.model.expressions import ExpressionError, compile_expression
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.source import Source
from sweeper.model.template import MISSING, Slot
from sweeper.model.workflow import encode_canonical
from sweeper.schemas.values import KeyPath, format_value

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The names that an experiment may use: the slots, the names that `derive` computes, and those that texts read.

    `no_template`: the template could not be read, so any name may be one of its slots.
    """

    slots: Mapping[str, Slot]
    derived: frozenset[str]
    used: frozenset[str]
    no_template: bool = False


class BlockOwner(Protocol):
    """The builder of the experiment, as far as a block needs it."""

    @property
    def source(self) -> Source:
        """The experiment file, for the lines of keys."""

    @property
    def folder(self) -> FileAccess:
        """The access to files with values."""

    @property
    def budget(self) -> WorkBudget:
        """What the axes of all blocks may cost."""

    def add_problem(self, path: KeyPath, message: str) -> None:
        """Add a problem."""

    def add_axis_error(self, path: KeyPath, error: AxisError) -> None:
        """Add the problem of an axis, or remember that it needs trust."""

    def advise(self, word: object, allowed: Iterable[object], label: str = "allowed") -> str:
        """Return what `suggest` says, for the first problems of the experiment."""

    def suggest_slot(self, name: str) -> str:
        """Return the end of a message about a name that is not a slot."""

    def normalise_value(self, name: str, value: Any, path: KeyPath) -> Any:
        """Normalise a value for the slot `name`, or add a problem."""


class BlockBuilder:
    """Builds one block.

    `given_paths` maps every name that the block gives to its path. `partly_given` are the names that only some options
    give, `used` the names that `where` reads.
    """

    def __init__(
        self, owner: BlockOwner, raw: Mapping[str, Any], path: KeyPath, experiment: str, names: KnownNames
    ) -> None:
        self.owner = owner
        self.raw = raw
        self.path = path
        self.experiment = experiment
        self.names = names
        self.given_paths: dict[str, KeyPath] = {}
        self.partly_given: set[str] = set()
        self.used: set[str] = set()
        self._option_indexes: dict[str, dict[bytes | str, list[int]]] = {}  # by axis
        condition = self._compile_where()
        self.used |= set(condition.names) if condition is not None else set()
        dimensions = tuple(self._build_dimensions())
        self.axis_names = frozenset(axis.name for dimension in dimensions for axis in dimension)
        sample = raw.get("sample")
        self.block = Block(
            dimensions=dimensions,
            where=condition,
            sample=Sample(int(sample["n"]), int(sample.get("seed", 0))) if sample and "n" in sample else None,
            path=path,
        )
        exclude = tuple(self._resolve_exclude(row, index) for index, row in enumerate(raw.get("exclude", [])))
        include = tuple(self._resolve_include(row, index) for index, row in enumerate(raw.get("include", [])))
        self.block = replace(self.block, exclude=exclude, include=include)

    def _compile_where(self) -> Any:
        if "where" not in self.raw:
            return None
        try:
            return compile_expression(self.raw["where"])
        except ExpressionError as error:
            self.owner.add_problem((*self.path, "where"), f"{format_value(self.raw['where'])} {error}")
            return None

    def _build_dimensions(self) -> Iterator[Dimension]:
        for name, form in self.raw.get("grid", {}).items():
            axis = self._build_axis(name, form, (*self.path, "grid", name))
            if axis is not None:
                yield (axis,)
        for index, group in enumerate(self.raw.get("zip", [])):
            path: KeyPath = (*self.path, "zip", index)
            axes_or_none = [self._build_axis(name, form, (*path, name)) for name, form in group.items()]
            axes = tuple(axis for axis in axes_or_none if axis is not None)
            if len({len(axis.options) for axis in axes}) > 1:
                lengths = ", ".join(f"{axis.name} has {len(axis.options)}" for axis in axes)
                self.owner.add_problem(
                    path, f"the axes of a zip group vary together and need the same number of values: {lengths}"
                )
            elif axes:
                yield axes

    def _build_axis(self, name: str, form: Any, path: KeyPath) -> Axis | None:
        slot = self.names.slots.get(name)
        try:
            options = expand_axis(
                form,
                axis=name,
                experiment=self.experiment,
                integer=slot is not None and slot.schema.is_integer,
                parse_text=partial(slot.schema.parse_text, like=slot.default) if slot is not None else str,
                files=self.owner.folder,
                budget=self.owner.budget,
            )
        except AxisError as error:
            self.owner.add_axis_error(path, error)
            self.given_paths.setdefault(name, path)  # so that it is not also reported as missing
            return None
        self._check_name(name, options, path)
        normalised = [self._normalise_option(name, option, path, index, form) for index, option in enumerate(options)]
        self._record_given(name, options, path)
        return Axis(name, tuple(normalised), path)

    def _normalise_option(self, name: str, option: Option, path: KeyPath, index: int, form: Any) -> Option:
        option_path: KeyPath = (*path, index) if isinstance(form, list) else path
        sets = {}
        for slot, value in option.sets.items():
            if not self._can_be_given(slot):
                message = f"'{slot}' is neither a slot of the template nor used{self.owner.suggest_slot(slot)}"
                self.owner.add_problem((*option_path, "set", slot), message)
            sets[slot] = self.owner.normalise_value(slot, value, (*option_path, "set", slot))
        value = option.value
        value = value if value is MISSING else self.owner.normalise_value(name, value, option_path)
        return Option(value, option.label, sets, option.groups)  # faster than `replace` for a million values

    def _check_name(self, name: str, options: list[Option], path: KeyPath) -> None:
        is_bundle_axis = all(option.sets for option in options)
        if not _NAME.fullmatch(name):
            message = "is not a name for an axis; use letters, digits, _ and -, with a letter or _ first"
            self.owner.add_problem(path, f"{format_value(name)} {message}")
        elif name in self.names.slots and any(option.sets for option in options):
            message = f"'{name}' is a slot, and cannot be the name of bundles too; name the axis after what they are"
            self.owner.add_problem(path, f"{message}, such as 'format'")
        elif name in RESERVED_COLUMNS:
            self.owner.add_problem(path, f"an axis cannot be named '{name}': the table has a column of that name")
        elif name in self.names.derived:
            line = self.owner.source.find_line(("derive", name))
            self.owner.add_problem(path, f"'{name}' is also in `derive` (line {line}); give it in one place only")
        elif not self._can_be_given(name) and not is_bundle_axis:
            message = f"the axis '{name}' is neither a slot of the template nor used in `derive` or `where`"
            self.owner.add_problem(path, message + self.owner.suggest_slot(name))

    def _can_be_given(self, name: str) -> bool:
        names = self.names
        return names.no_template or name in names.slots or name in names.used or name in self.used

    def _record_given(self, name: str, options: list[Option], path: KeyPath) -> None:
        """Record which names the axis gives. A name that another axis or bundle also gives is a problem."""
        with_value = [option for option in options if option.value is not MISSING]
        names = dict.fromkeys([*([name] if with_value else []), *(slot for option in options for slot in option.sets)])
        counts = Counter(
            slot for option in options for slot in {*option.sets, *([name] if option.value is not MISSING else [])}
        )
        for given_name in names:
            if given_name in self.given_paths:
                line = self.owner.source.find_line(self.given_paths[given_name])
                self.owner.add_problem(path, f"'{given_name}' is also given in line {line}; give it in one place only")
            if given_name != name and given_name in self.names.derived:
                self.owner.add_problem(
                    path, f"a bundle sets '{given_name}', which `derive` computes; give it in one place only"
                )
            self.given_paths.setdefault(given_name, path)
            if counts[given_name] < len(options):
                self.partly_given.add(given_name)

    def _find_options(self, axis: Axis, value: Any) -> list[int]:
        """Return the indexes of the options that a value in a row means: by label, or an equal value of its type."""
        if axis.name not in self._option_indexes:
            self._option_indexes[axis.name] = _index_options(axis)
        index = self._option_indexes[axis.name]
        try:
            same = index.get(encode_canonical(value), [])
        except ValueError:  # NaN or infinity, which no axis can have
            same = []
        return sorted({*index.get(format_label(value), []), *same})

    def _resolve_exclude(self, row: Mapping[str, Any], index: int) -> Mapping[int, frozenset[int]]:
        path: KeyPath = (*self.path, "exclude", index)
        axes = {
            axis.name: (dimension, axis)
            for dimension, axes_of_dimension in enumerate(self.block.dimensions)
            for axis in axes_of_dimension
        }
        matching_options: dict[int, frozenset[int]] = {}
        for name, value in row.items():
            if name not in axes and name in self.given_paths:  # an axis that could not be read, which is reported
                continue
            if name not in axes:
                advice = self.owner.advise(name, axes, "axes")
                self.owner.add_problem((*path, name), f"'{name}' is not an axis of this block{advice}")
                continue
            dimension, axis = axes[name]
            matching = frozenset(self._find_options(axis, value))
            if not matching and not self.names.no_template:  # without a template, values from files are texts
                cells = (option.cell for option in axis.options)
                advice = self.owner.advise(value, cells, "its values")
                self.owner.add_problem((*path, name), f"no value of '{name}' is {format_value(value)}{advice}")
            matching_options[dimension] = matching_options.get(dimension, matching) & matching
        return matching_options

    def _resolve_include(self, row: Mapping[str, Any], index: int) -> IncludeRow:
        path: KeyPath = (*self.path, "include", index)
        axes = {axis.name: axis for group in self.block.dimensions for axis in group}
        chosen = {name: axis.options[0] for name, axis in axes.items()}
        values: dict[str, Any] = {}
        for name, value in row.items():
            value_path: KeyPath = (*path, name)
            if name in axes:
                known_option = next((axes[name].options[at] for at in self._find_options(axes[name], value)), None)
                if known_option is None and any(option.sets for option in axes[name].options):
                    labels = (option.label for option in axes[name].options)
                    advice = self.owner.advise(value, labels, "its labels")
                    self.owner.add_problem(value_path, f"'{name}' has no bundle {format_value(value)}{advice}")
                chosen[name] = known_option or Option(self.owner.normalise_value(name, value, value_path))
            elif self._can_be_given(name):
                values[name] = self.owner.normalise_value(name, value, value_path)
            else:
                advice = self.owner.advise(name, itertools.chain(axes, self.names.slots))
                self.owner.add_problem(value_path, f"'{name}' is neither an axis of this block nor a slot{advice}")
        return IncludeRow(chosen, values)


def _index_options(axis: Axis) -> dict[bytes | str, list[int]]:
    """Return the indexes of the options by label, a text, and by value, as canonical JSON: 4 is 4.0, but not "4"."""
    index: dict[bytes | str, list[int]] = {}
    for number, option in enumerate(axis.options):
        if option.label is not None:
            index.setdefault(option.label, []).append(number)
        if option.value is not MISSING:
            try:
                index.setdefault(encode_canonical(option.value), []).append(number)
            except ValueError:  # NaN or infinity, which another problem reports
                continue
    return index
