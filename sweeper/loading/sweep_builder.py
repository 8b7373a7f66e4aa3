"""Build one block of a sweep from the mapping that a user wrote: its axes, filters and extra rows.

Before that, `apply_overrides` gives names other values, as `--set name=value` does.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from sweeper.errors import MAX_OF_A_KIND, MAX_PROBLEMS, Problem
from sweeper.loading.model_axes import switch_off
from sweeper.loading.read_scope import ExperimentFolder, OutsideError
from sweeper.model.axis_values import (
    AXIS_FORMS,
    AxisError,
    Option,
    PendingModelsError,
    WorkBudget,
    expand_axis,
    format_label,
)
from sweeper.model.experiment import Axis, Block, Dimension, HashedFile, IncludeRow, Sample
from sweeper.model.expressions import ExpressionError, compile_column_expression, compile_expression, compile_text
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.model.source import Source
from sweeper.model.template import MISSING, Slot, Template
from sweeper.model.workflow import encode_canonical, is_link
from sweeper.schemas.values import KeyPath, format_value
from sweeper.wording import join_command, suggest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
COUNTED: Final = "more of its values are wrong"  # ends the last problem of an axis, of which others are left out
_ANY_VALUE: Final = SlotSchema(None)  # for variables: any finite JSON value
Overrides = Mapping[str, Any]


class ExperimentDraft:
    """What the builders of one experiment share: where it comes from, and its files and problems so far.

    `no_template`: the template could not be read, so any name may be one of its slots. `derived` are the names that
    `derive` computes, `used` those that texts read.
    """

    def __init__(self, source: Source, template: Template | None, folder: ExperimentFolder) -> None:
        self.source = source
        self.raw: Mapping[str, Any] = source.value
        self.no_template = template is None
        self.template = template or Template("", {}, {}, ())
        self.folder = folder
        self.name = ""
        self.derived: frozenset[str] = frozenset()
        self.used: frozenset[str] = frozenset()
        self.problems: list[Problem] = []
        self.files: dict[str, HashedFile] = {}
        self.extra_paths: dict[str, dict[str, KeyPath]] = {}  # by the name of a column, the axes that fill it
        self.switched: list[str] = []  # slots whose value `(none)` the template understands
        self.budget = WorkBudget()

    def add_problem(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.source.make_problem(path, message))

    def add_axis_error(self, path: KeyPath, error: AxisError, start: str = "") -> None:
        if isinstance(error, OutsideError):
            self.folder.add_outside(path, error)
        elif isinstance(error, PendingModelsError):
            self.folder.pending.setdefault(str(error), path)
        else:
            messages = (f"{start}{item}" if isinstance(item, str) else item for item in error.args)
            self.problems += [
                self.source.make_problem(path, item) if isinstance(item, str) else item for item in messages
            ]

    def advise(self, word: object, allowed: Iterable[object], label: str = "allowed") -> str:
        """Return what `suggest` says, for the first problems: it compares the word with every name."""
        return suggest(word, allowed, label) if len(self.problems) < MAX_PROBLEMS else ""

    def suggest_slot(self, name: str) -> str:
        """Return the end of a message about a name that is not a slot. Add a problem if the template has no slots."""
        file = Path(self.template.file)
        if self.no_template:
            return ""
        if self.template.slots:
            found = [
                f"{node_id}.{key}"
                for node_id, node in self.template.graph.items()
                for key, value in node["inputs"].items()
                if key in {name, f"{name}_name"} and not is_link(value)
            ]
            at = json.dumps(found[0] if len(found) == 1 else found) if found else "NODE.INPUT"
            add = f"; to make it one, add `{name}: {{at: {at}}}` to the slots in {file.with_suffix('.slots.yaml')}"
            if found:
                return add
            advice = self.advise(name, self.template.slots, "slots")
            lists = join_command(["sweeper", "template", "slots", str(file)])
            return advice if "did you mean" in advice else f"{advice}{add} (`{lists}` lists the inputs)"
        made = str(file.with_stem(f"{file.stem}-template"))
        command = join_command(["sweeper", "template", "new", str(file), "-o", made])
        message = f"is a workflow without slots, so nothing in it can be set; make a template of it (`{command}`)"
        self.add_problem(("template",), f"{message} and name that here")
        return ""

    def switch_off(self, name: str, pattern: str, first: str) -> None:
        """Let `(none)`, the first value of an axis of model files, switch its nodes off. Raises AxisError."""
        names = self.folder.list_models(pattern)
        default = self.template.slots[name].default if name in self.template.slots else MISSING
        given = self.folder.models[pattern]
        links = given.get("links") if isinstance(given, dict) else None  # maybe from a stranger's results
        links = links if isinstance(links, dict) else {}
        self.template = switch_off(self.template, name, default if default in names else first, links)
        self.switched.append(name)

    def normalise_value(self, name: str, value: Any, path: KeyPath) -> Any:
        """Normalise a value by the slot `name`, and hash the file that it names. Problems are added, not raised."""
        slot = self.template.slots.get(name)
        try:
            value = slot.schema.normalise(value) if slot is not None else _ANY_VALUE.normalise(value)
            if slot is not None and slot.is_file:
                self.files[value] = self.folder.hash_file(value)
        except AxisError as error:
            self.add_axis_error(path, error, "" if name in path else f"{name}: ")
        except ValueRefusedError as error:
            message = str(error) if name in path else f"{name}: {error}"
            is_axis = path[0] == "params" and isinstance(value, list)
            hint = "; to try each of them, put it under `sweep:`, `grid:`" if is_axis else ""
            self.add_problem(path, message + hint)
        return value


class BlockBuilder:
    """Builds one block.

    `given_paths` maps every name that the block gives to its path. `partly_given` are the names that only some options
    give, `used` the names that `where` reads, `replaced` those whose text in `params` an axis searches; `extras` are
    the names of the more columns of its axes.
    """

    def __init__(self, owner: ExperimentDraft, raw: Mapping[str, Any], path: KeyPath) -> None:
        self.owner, self.raw, self.path = owner, raw, path
        self.given_paths: dict[str, KeyPath] = {}
        self.partly_given: set[str] = set()
        self.used: set[str] = set()
        self.replaced: set[str] = set()
        self.extras: set[str] = set()
        self._option_indexes: dict[str, dict[bytes | str, list[int]]] = {}  # by axis
        condition = None
        try:
            condition = compile_expression(raw["where"]) if "where" in raw else None
        except ExpressionError as error:
            owner.add_problem((*path, "where"), f"{format_value(raw['where'])} {error}")
        self.used |= set(condition.names) if condition is not None else set()
        dimensions = tuple(self._build_dimensions())
        self.axes = {axis.name: (number, axis) for number, group in enumerate(dimensions) for axis in group}
        if condition is not None and (dotted := {name for name in self.extras if "." in name}):
            condition = compile_column_expression(raw["where"], dotted, others=True)
        sample = raw.get("sample") or {}
        chosen = Sample(int(sample["n"]), int(sample.get("seed", 0))) if "n" in sample else None
        self.block = Block(dimensions=dimensions, where=condition, sample=chosen, path=path)
        exclude = tuple(self._resolve_exclude(row, index) for index, row in enumerate(raw.get("exclude", [])))
        include = tuple(self._resolve_include(row, index) for index, row in enumerate(raw.get("include", [])))
        self.block = replace(self.block, exclude=exclude, include=include)

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
                message = "the axes of a zip group vary together and need the same number of values"
                self.owner.add_problem(path, f"{message}: {lengths}")
            elif axes:
                yield axes

    def _build_axis(self, name: str, form: Any, path: KeyPath) -> Axis | None:
        slot = self.owner.template.slots.get(name)
        is_off = isinstance(form, dict) and form.get("none") is True
        default = MISSING if slot is None else slot.default
        if self.owner.no_template and isinstance(form, dict):
            default = form.get("replace")  # a text in which it can replace, because the real one is unknown
        try:
            options = expand_axis(
                form,
                axis=name,
                experiment=self.owner.name,
                integer=slot is not None and slot.schema.is_integer,
                parse_text=partial(slot.schema.parse_text, like=slot.default) if slot is not None else str,
                base=(self.owner.raw.get("params") or {}).get(name, default),
                files=self.owner.folder,
                budget=self.owner.budget,
            )
            if is_off and name not in self.owner.switched and not self.owner.no_template:
                self.owner.switch_off(name, form["models"], options[1].value)
        except AxisError as error:
            self.owner.add_axis_error(path, error)
            self.given_paths.setdefault(name, path)  # so that it is not also reported as missing
            return None
        self._check_name(name, options, path)
        for column in dict.fromkeys(column for option in options for column in option.extra):
            self.owner.extra_paths.setdefault(column, {})[name] = path
            self.extras.add(column)
        normalised = self._normalise_options(name, options, path, form)
        if isinstance(form, dict) and "replace" in form:
            self.replaced.add(name)
        self._record_given(name, options, path)
        return Axis(name, tuple(normalised), path)

    def _normalise_options(self, name: str, options: list[Option], path: KeyPath, form: Any) -> list[Option]:
        """Return the options as `_normalise_option` does. Of the wrong ones, all but the first are only counted."""
        problems, normalised, wrong_count = self.owner.problems, [], 0
        for index, option in enumerate(options):
            before = len(problems)
            normalised.append(self._normalise_option(name, option, path, index, form))
            wrong_count += len(problems) > before
            if wrong_count > MAX_OF_A_KIND + 1:
                del problems[before:]
        if wrong_count > MAX_OF_A_KIND + 1:
            others = wrong_count - MAX_OF_A_KIND - 1
            problems[-1] = replace(problems[-1], message=f"this and {others:,} {COUNTED}")
        return normalised

    def _normalise_option(self, name: str, option: Option, path: KeyPath, index: int, form: Any) -> Option:
        option_path: KeyPath = (*path, index) if isinstance(form, list) else path
        sets = {}
        for slot, value in option.sets.items():
            if not self._can_be_given(slot):
                message = f"'{slot}' is neither a slot of the template nor used{self.owner.suggest_slot(slot)}"
                self.owner.add_problem((*option_path, "set", slot), message)
            sets[slot] = self.owner.normalise_value(slot, value, (*option_path, "set", slot))
        value = option.value
        if value is not MISSING and not (index == 0 and isinstance(form, dict) and form.get("none") is True):
            value = self.owner.normalise_value(name, value, option_path)
        return Option(value, option.label, sets, option.extra)  # faster than `replace` for a million values

    def _check_name(self, name: str, options: list[Option], path: KeyPath) -> None:
        is_bundle_axis = all(option.sets for option in options)
        if not _NAME.fullmatch(name):
            message = "is not a name for an axis; use letters, digits, _ and -, with a letter or _ first"
            self.owner.add_problem(path, f"{format_value(name)} {message}")
        elif name in self.owner.template.slots and any(option.sets for option in options):
            message = f"'{name}' is a slot, and cannot be the name of bundles too; name the axis after what they are"
            self.owner.add_problem(path, f"{message}, such as 'format'")
        elif name in RESERVED_COLUMNS:
            self.owner.add_problem(path, f"an axis cannot be named '{name}': the table has a column of that name")
        elif name in self.owner.derived:
            line = self.owner.source.find_line(("derive", name))
            self.owner.add_problem(path, f"'{name}' is also in `derive` (line {line}); give it in one place only")
        elif not self._can_be_given(name) and not is_bundle_axis:
            message = f"the axis '{name}' is neither a slot of the template nor used in `derive` or `where`"
            self.owner.add_problem(path, message + self.owner.suggest_slot(name))

    def _can_be_given(self, name: str) -> bool:
        owner = self.owner
        return owner.no_template or name in owner.template.slots or name in owner.used or name in self.used

    def _record_given(self, name: str, options: list[Option], path: KeyPath) -> None:
        """Record which names the axis gives. A name that another axis or bundle also gives is a problem."""
        own = sum(option.value is not MISSING and name not in option.sets for option in options)
        counts = Counter(itertools.chain.from_iterable(option.sets for option in options)) + Counter({name: own})
        for given_name in sorted(counts, key=lambda given_name: given_name != name):
            if given_name in self.given_paths:
                line = self.owner.source.find_line(self.given_paths[given_name])
                self.owner.add_problem(path, f"'{given_name}' is also given in line {line}; give it in one place only")
            if given_name != name and given_name in self.owner.derived:
                message = f"a bundle sets '{given_name}', which `derive` computes; give it in one place only"
                self.owner.add_problem(path, message)
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
        axes = self.axes
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
            if not matching and not self.owner.no_template:  # without a template, values from files are texts
                cells = (option.cell for option in axis.options)
                advice = self.owner.advise(value, cells, "its values")
                self.owner.add_problem((*path, name), f"no value of '{name}' is {format_value(value)}{advice}")
            matching_options[dimension] = matching_options.get(dimension, matching) & matching
        return matching_options

    def _resolve_include(self, row: Mapping[str, Any], index: int) -> IncludeRow:
        path: KeyPath = (*self.path, "include", index)
        axes = {name: axis for name, (_, axis) in self.axes.items()}
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
                advice = self.owner.advise(name, itertools.chain(axes, self.owner.template.slots))
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


def apply_overrides(
    value: Mapping[str, Any], overrides: Overrides, slots: Mapping[str, Slot]
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the experiment with each name overridden, and the names that only a replaced `derive` reads.

    An axis gets the given values, which may be labels of labelled values or bundles. A name with one value that no
    block sweeps moves to `params`. A name with several values becomes an axis of every block, innermost, and of the
    space of a search. A derived name becomes a plain one. `value` must be a valid experiment by the schema.
    """
    changed = dict(value)
    forms = {name: _to_axis_form(item, slots.get(name)) for name, item in overrides.items()}
    axes = {name: form for name, form in forms.items() if form is not None}
    bases = {name: slot.default for name, slot in slots.items()} | (value.get("params") or {})
    raw = value.get("sweep")
    if raw is None and axes and "search" not in value:
        raw = {}
    blocks = [] if raw is None else raw if isinstance(raw, list) else [raw]
    new_blocks = [_override_block(block, overrides, axes, bases) for block in blocks]
    if raw is not None:
        changed["sweep"] = new_blocks if isinstance(raw, list) else new_blocks[0]
    swept_names = [set(_iter_axis_names(block)) & overrides.keys() for block in new_blocks]
    if "search" in value:
        changed["search"] = search = dict(value["search"])
        for section in {"space", "over"} & search.keys():
            search[section] = _override_axes(search[section], overrides, axes, bases)
        over = search.get("over", {})
        search["space"] |= {name: form for name, form in axes.items() if name not in {*search["space"], *over}}
        swept_names.append({*search["space"], *over} & overrides.keys())
    swept_everywhere = set.intersection(*swept_names) if swept_names else set()
    params = {**(value.get("params") or {}), **overrides}
    changed["params"] = {name: item for name, item in params.items() if name not in swept_everywhere}
    derive = value.get("derive") or {}
    changed["derive"] = {name: text for name, text in derive.items() if name not in overrides}
    unused = {name for replaced in derive.keys() & overrides.keys() for name in _find_names(derive[replaced])}
    return changed, frozenset(unused)


def _to_axis_form(value: Any, slot: Slot | None) -> Any:
    """The values of an override as an axis, or None if it is one value.

    A list has several values, unless its slot takes lists; then a list of lists has.
    """
    types = slot.schema.types if slot is not None else ()
    if isinstance(value, list):
        return value if "array" not in types or (value and all(isinstance(item, list) for item in value)) else None
    return value if isinstance(value, Mapping) and "object" not in types and {*AXIS_FORMS} & value.keys() else None


def _iter_axis_names(block: Mapping[str, Any]) -> Iterator[str]:
    yield from block.get("grid", {})
    for group in block.get("zip", []):
        yield from group


def _override_block(
    block: Mapping[str, Any], overrides: Overrides, axes: Mapping[str, Any], bases: Overrides
) -> dict[str, Any]:
    changed = dict(block)
    if "grid" in block:
        changed["grid"] = _override_axes(block["grid"], overrides, axes, bases)
    if "zip" in block:
        groups = []
        for group in block["zip"]:
            others = {name: form for name, form in group.items() if name not in overrides}
            changed_group = _override_axes(group, overrides, axes, bases)
            overridden = [{name: form} for name, form in changed_group.items() if name in overrides]
            groups += [*([others] if others else []), *overridden]
        changed["zip"] = groups
    if added := {name: form for name, form in axes.items() if name not in set(_iter_axis_names(block))}:
        changed["grid"] = {**changed.get("grid", {}), **added}
    # Without the values of forms such as {seeds: 4}, which are not known yet.
    listed = {name: axes.get(name, [item]) for name, item in overrides.items() if isinstance(axes.get(name, []), list)}
    if "exclude" in block:  # a row for another value of an overridden axis matches nothing now
        given = {name: {encode_canonical(value) for value in values} for name, values in listed.items()}
        changed["exclude"] = [
            row
            for row in block["exclude"]
            if all(encode_canonical(value) in given[name] for name, value in row.items() if name in given)
        ]
    if "include" in block:
        rows = [row for row in block["include"] if row.keys() & overrides.keys() <= listed.keys()]
        changed["include"] = [other for row in rows for other in _override_row(row, listed)]
    return changed


def _override_axes(
    forms: Mapping[str, Any], overrides: Overrides, axes: Mapping[str, Any], bases: Overrides
) -> dict[str, Any]:
    changed = {name: _choose_options(form, axes.get(name, [overrides[name]]), bases.get(name))
               for name, form in forms.items() if name in overrides}  # fmt: skip
    return {**forms, **changed}


def _choose_options(form: Any, values: Any, base: Any) -> Any:
    """The values of an override, where a label of the axis `form` stands for its labelled value or bundle.

    `base`: the text in which the form may replace words.
    """
    if isinstance(form, dict) and "replace" in form and isinstance(base, str):
        words = map(format_label, form["with"])
        form = [{"label": word, "value": base.replace(form["replace"], word)} for word in words]
    if not isinstance(values, list) or not isinstance(form, list):
        return values
    labelled = {format_label(item["label"]): item for item in form if isinstance(item, dict) and "label" in item}
    return [value if isinstance(value, dict | list) else labelled.get(format_label(value), value) for value in values]


def _override_row(row: Mapping[str, Any], listed: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row of `include` with every combination of the values of the overridden names in it."""
    names = [name for name in row if name in listed]
    for values in itertools.product(*(listed[name] for name in names)):
        yield {**row, **dict(zip(names, values, strict=True))}


def _find_names(text: str) -> tuple[str, ...]:
    try:
        return compile_text(text).names
    except ExpressionError:  # a check without the override reports it
        return ()
