"""One block of a sweep, from the mapping that a user wrote to a Block: its axes, and the rows dropped and added."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from sweeper.did_you_mean import suggest
from sweeper.model.axis_values import AxisError, FileAccess, Option, expand_axis, format_label
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
    """The names an experiment may use: the template's slots, what `derive` makes, what its texts read.

    `unsure`: the template could not be read, so that any name may be one of its slots.
    """

    slots: Mapping[str, Slot]
    derived: frozenset[str]
    used: frozenset[str]
    no_template: bool = False


class BlockOwner(Protocol):
    """What a block needs of the experiment it stands in."""

    @property
    def source(self) -> Source:
        """The file, for the line of a key."""

    @property
    def folder(self) -> FileAccess:
        """Where lines, columns and patterns come from."""

    def add_problem(self, path: KeyPath, message: str) -> None:
        """Note a problem."""

    def normalise_value(self, name: str, value: Any, path: KeyPath) -> Any:
        """Normalise a value for the slot `name`, or note the problem."""


class BlockBuilder:
    """Reads one block. `given` maps every name that it gives to where; `partial` are those not every option gives."""

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
        where = self._compile_where()
        self.used |= set(where.names) if where is not None else set()
        dimensions = tuple(self._build_dimensions())
        self.axis_names = frozenset(axis.name for dimension in dimensions for axis in dimension)
        sample = raw.get("sample")
        self.block = Block(dimensions=dimensions, where=where, sample=Sample(**sample) if sample else None, path=path)
        exclude = tuple(self._resolve_exclude(row, place) for place, row in enumerate(raw.get("exclude", [])))
        include = tuple(self._resolve_include(row, place) for place, row in enumerate(raw.get("include", [])))
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
        for place, group in enumerate(self.raw.get("zip", [])):
            path: KeyPath = (*self.path, "zip", place)
            made = [self._build_axis(name, form, (*path, name)) for name, form in group.items()]
            axes = tuple(axis for axis in made if axis is not None)
            if len({len(axis.options) for axis in axes}) > 1:
                lengths = ", ".join(f"{axis.name} has {len(axis.options)}" for axis in axes)
                self.owner.add_problem(
                    path, f"the axes of a zip group advance together and need equally many values: {lengths}"
                )
            elif axes:
                yield axes

    def _build_axis(self, name: str, form: Any, path: KeyPath) -> Axis | None:
        slot = self.names.slots.get(name)
        try:
            found = expand_axis(
                form,
                axis=name,
                experiment=self.experiment,
                integer=slot is not None and "integer" in slot.schema.types,
                parse_text=partial(slot.schema.parse_text, like=slot.default) if slot is not None else str,
                files=self.owner.folder,
            )
        except AxisError as error:
            self.owner.add_problem(path, str(error))
            self.given_paths.setdefault(name, path)  # it is wrong, not missing: one mistake, one message
            return None
        self._check_name(name, found, path)
        checked = [self._normalise_option(name, option, path, place, form) for place, option in enumerate(found)]
        self._record_given(name, found, path)
        return Axis(name, tuple(checked), path)

    def _normalise_option(self, name: str, option: Option, path: KeyPath, index: int, form: Any) -> Option:
        spot: KeyPath = (*path, index) if isinstance(form, list) else path
        sets = {}
        for slot, value in option.sets.items():
            if not self._can_be_given(slot):
                message = (
                    f"'{slot}' is neither a slot of the template nor used{suggest(slot, self.names.slots, 'slots')}"
                )
                self.owner.add_problem((*spot, "set", slot), message)
            sets[slot] = self.owner.normalise_value(slot, value, (*spot, "set", slot))
        value = option.value
        value = value if value is MISSING else self.owner.normalise_value(name, value, spot)
        return Option(value, option.label, sets, option.groups)  # not `replace`: an axis may have a million values

    def _check_name(self, name: str, options: list[Option], path: KeyPath) -> None:
        bundles = all(option.sets for option in options)
        if not _NAME.fullmatch(name):
            self.owner.add_problem(
                path, f"{format_value(name)} is no name for an axis: letters, digits, _ and -, a letter first"
            )
        elif name in self.names.slots and any(option.sets for option in options):
            message = f"'{name}' is a slot, and cannot be the name of bundles too; name the axis after what they are"
            self.owner.add_problem(path, f"{message}, such as 'format'")
        elif name in RESERVED_COLUMNS:
            self.owner.add_problem(path, f"an axis cannot be named '{name}': the table has a column of that name")
        elif name in self.names.derived:
            line = self.owner.source.find_line(("derive", name))
            self.owner.add_problem(path, f"'{name}' is also in `derive` (line {line}); give it in one place only")
        elif not self._can_be_given(name) and not bundles:
            message = f"the axis '{name}' is neither a slot of the template nor used in `derive` or `where`"
            self.owner.add_problem(path, message + suggest(name, self.names.slots, "slots"))

    def _can_be_given(self, name: str) -> bool:
        names = self.names
        return names.no_template or name in names.slots or name in names.used or name in self.used

    def _record_given(self, name: str, options: list[Option], path: KeyPath) -> None:
        """Note which names the axis gives; a name that another axis or bundle gives too is a problem."""
        plain = [option for option in options if option.value is not MISSING]
        names = dict.fromkeys([*([name] if plain else []), *(slot for option in options for slot in option.sets)])
        for one in names:
            if one in self.given_paths:
                line = self.owner.source.find_line(self.given_paths[one])
                self.owner.add_problem(
                    path, f"'{one}' is also given by the sweep's line {line}; give it in one place only"
                )
            if one != name and one in self.names.derived:
                self.owner.add_problem(
                    path, f"a bundle sets '{one}', which `derive` computes; give it in one place only"
                )
            self.given_paths.setdefault(one, path)
            giving = sum(one in option.sets or (one == name and option.value is not MISSING) for option in options)
            if giving < len(options):
                self.partly_given.add(one)

    def _resolve_exclude(self, row: Mapping[str, Any], index: int) -> Mapping[int, frozenset[int]]:
        path: KeyPath = (*self.path, "exclude", index)
        axes = {axis.name: (number, axis) for number, group in enumerate(self.block.dimensions) for axis in group}
        found: dict[int, frozenset[int]] = {}
        for name, value in row.items():
            if name not in axes:
                self.owner.add_problem((*path, name), f"'{name}' is no axis of this block{suggest(name, axes, 'axes')}")
                continue
            number, axis = axes[name]
            matching = frozenset(spot for spot, option in enumerate(axis.options) if is_match(option, value))
            if not matching and not self.names.no_template:  # without its slot a value of a file is a text
                cells = [option.cell for option in axis.options]
                self.owner.add_problem(
                    (*path, name), f"no value of '{name}' is {format_value(value)}{suggest(value, cells, 'its values')}"
                )
            found[number] = found.get(number, matching) & matching
        return found

    def _resolve_include(self, row: Mapping[str, Any], index: int) -> IncludeRow:
        path: KeyPath = (*self.path, "include", index)
        axes = {axis.name: axis for group in self.block.dimensions for axis in group}
        chosen = {name: axis.options[0] for name, axis in axes.items()}
        values: dict[str, Any] = {}
        for name, value in row.items():
            spot: KeyPath = (*path, name)
            if name in axes:
                known = next((option for option in axes[name].options if is_match(option, value)), None)
                if known is None and any(option.sets for option in axes[name].options):
                    labels = [option.label for option in axes[name].options]
                    self.owner.add_problem(
                        spot, f"'{name}' has no bundle {format_value(value)}{suggest(value, labels, 'its labels')}"
                    )
                chosen[name] = known or Option(self.owner.normalise_value(name, value, spot))
            elif self._can_be_given(name):
                values[name] = self.owner.normalise_value(name, value, spot)
            else:
                allowed = [*axes, *self.names.slots]
                self.owner.add_problem(
                    spot, f"'{name}' is neither an axis of this block nor a slot{suggest(name, allowed)}"
                )
        return IncludeRow(chosen, values)


def is_match(option: Option, value: Any) -> bool:
    """Whether a row of `exclude` or `include` means this option: by its label, or by a value of the same type."""
    if option.label is not None and option.label == format_label(value):
        return True
    return option.value is not MISSING and _is_equal(option.value, value)


def _is_equal(one: Any, other: Any) -> bool:
    """4 equals 4.0, but neither "4" nor true equals a number, at any depth: as canonical JSON has it."""
    try:
        return encode_canonical(one) == encode_canonical(other)
    except ValueError:  # NaN or infinity, which no value of an axis is
        return False
