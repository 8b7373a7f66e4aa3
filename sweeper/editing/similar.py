"""From one picture to the next experiment: *More like this* and *Revise this cell*. Pure functions to texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from sweeper.editing.edit_yaml import DELETE, edit_yaml, get_at, parse_text, write_flow
from sweeper.errors import UsageError
from sweeper.model.axis_values import make_seeds
from sweeper.model.experiment import Experiment, NumberRange
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.model.template import MISSING, Slot
from sweeper.schemas import make_editor_line
from sweeper.schemas.values import KeyPath, format_value, is_number, to_fraction
from sweeper.wording import join_names, to_one_line

_SEED_INPUTS: Final = frozenset(("seed", "noise_seed"))
_MORE_SEEDS: Final = 3
_SHARE: Final = 0.1  # of a continuous range, to either side


def make_similar(experiment: Experiment, settings: Mapping[str, Any], *, name: str) -> str:
    """Return the text of an experiment around one trial, for a file beside that of `experiment`.

    `settings`: the trial's `params`, and its `axes` where they have other names. Each numeric axis gets finer steps
    half-way to its neighbours; a seed gets more seeds; all else is fixed. Raises UsageError if `experiment` comes from
    no file.
    """
    if experiment.source is None:
        raise UsageError("an experiment without a file has no text to begin with")
    raw: Mapping[str, Any] = experiment.source.value
    slots = experiment.template.slots
    axes: dict[str, list[Any]] = {}
    for axis in experiment.axis_names if experiment.search is None else slots:
        slot, value = slots.get(axis), settings.get(axis)
        if slot is not None and not _is_seed(slot) and is_number(value):
            steps = _refine(value, _list_numbers(experiment, axis, value), slot.schema)
            axes |= {axis: steps} if len(steps) > 1 else {}
    seed = next((slot for slot in slots.values() if _is_seed(slot) and is_number(settings.get(slot.name))), None)
    if seed is not None:
        drawn = [settings[seed.name], *make_seeds(_MORE_SEEDS, name, seed.name)]
        axes[seed.name] = [value for value in drawn if _is_allowed(value, seed.schema)]
    derive = _find_derived(experiment, axes)
    used = {name for text in derive for name in experiment.derive[text].names} - axes.keys() - derive.keys()
    given = {*experiment.params, *experiment.axis_names, *used}
    values = {**settings, **_list_variables(experiment, settings, used)}
    params = {
        key: value
        for key, value in values.items()
        if key not in axes and key not in derive and (value is not None or key in slots)
        if key in used or (key in slots and (key in given or value != slots[key].default))
    }
    about = "all else is fixed" if axes else "it has no number and no seed to vary, so all is fixed"
    title = to_one_line(experiment.name)
    head = f"# More like one picture of {title}: finer steps of its numbers, more seeds; {about}."
    text = f"{make_editor_line('experiment')}\n{head}\nname: {write_flow(name)}\n"
    parts: list[tuple[KeyPath, Mapping[str, Any]]] = [
        ((), {key: raw[key] for key in ("template", "target", "targets") if key in raw}),
        (("params",), params),
        (("derive",), derive),
        (("sweep", "grid"), axes),
        ((), {key: raw[key] for key in ("metrics", "run") if key in raw}),
    ]
    for parent, part in parts:
        for key, value in part.items():
            text = edit_yaml(text, (*parent, key), value)
    return text


def make_revised(text: str, *, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Return the text of the experiment with one more trial: that of `settings`, with other values of some names.

    It is a row of `include`, which gives all axes of its block and may give any slot, also one that `params`, a bundle
    or `derive` gives otherwise. Raises UsageError.
    """
    value = parse_text(text).value
    sweep = get_at(value, ("sweep",))
    if sweep is DELETE and get_at(value, ("search",)) is not DELETE:
        raise UsageError(
            "a search chooses its trials itself, so it takes no single one; make an experiment around the picture"
        )
    blocks = [(("sweep", index), block) for index, block in enumerate(sweep)] if isinstance(sweep, list) else []
    paths: list[tuple[KeyPath, Any]] = [*blocks] or [(("sweep",), {} if sweep is DELETE else sweep)]
    for path, block in sorted(paths, key=lambda item: not _has_values(item[1], settings)):
        axes = _list_axes(block)
        if any(settings.get(axis) is None for axis in axes):
            continue
        rows = block.get("include") or []
        same = [row for row in rows if isinstance(row, dict) and all(settings.get(key) == row[key] for key in row)]
        names = dict.fromkeys([*axes, *(key for row in same for key in row)])
        row = {**{key: settings[key] for key in names}, **changes}
        return text if row in rows else edit_yaml(text, (*path, "include", len(rows)), row)
    missing = [axis for axis in _list_axes(paths[0][1]) if settings.get(axis) is None]
    raise UsageError(
        f"the trial has no value of {join_names(missing)}, so the file has changed since; run it again first"
    )


def _list_axes(block: Any) -> dict[str, Any]:
    if not isinstance(block, dict):
        raise UsageError(f"the sweep of this file is {format_value(block)}, and not a block; mend it first")
    groups = [block.get("grid"), *(block.get("zip") or [])]
    return {name: form for group in groups if isinstance(group, dict) for name, form in group.items()}


def _has_values(block: Any, settings: Mapping[str, Any]) -> bool:
    """Whether the lists of a block have the settings, so that the trial is probably one of this block."""

    def has(items: list[Any], value: Any) -> bool:
        parts = [item if isinstance(item, dict) and "label" in item else {"value": item} for item in items]
        return any(part.get("value") == value or part.get("label") == value for part in parts)

    axes = _list_axes(block).items()
    return all(has(form, settings.get(name)) for name, form in axes if isinstance(form, list))


def _is_seed(slot: Slot) -> bool:
    return any(address.input in _SEED_INPUTS for address in slot.addresses)


def _list_numbers(experiment: Experiment, name: str, value: float) -> list[float]:
    """Return the numbers on an axis; of a continuous range, two that are a tenth of it away."""
    for item in experiment.search.space if experiment.search is not None else ():
        if item.name == name and item.numbers is not None:
            distance = (item.numbers.high - item.numbers.low) * _SHARE
            return [max(item.numbers.low, value - distance), min(item.numbers.high, value + distance)]
    axes = [axis for block in experiment.written_blocks for dimension in block.dimensions for axis in dimension]
    return [option.value for axis in axes if axis.name == name for option in axis.options if is_number(option.value)]


def _refine(value: float, numbers: list[float], schema: SlotSchema) -> list[Any]:
    """Return a value with those half-way to its neighbours, ascending; on an end, as far to the other side."""
    below = max((number for number in numbers if number < value), default=None)
    above = min((number for number in numbers if number > value), default=None)
    if below is None and above is None:
        return []
    low = value - (above - value) if below is None and above is not None else below
    high = value + (value - below) if above is None and below is not None else above
    if low is None or high is None:
        return []
    is_whole = schema.is_integer or (isinstance(value, int) and "number" not in schema.types)
    numbers_between = NumberRange(low, high, is_integer=is_whole)
    steps = [numbers_between.round((low + value) / 2), value, numbers_between.round((value + high) / 2)]
    multiple = schema.rules.get("multipleOf")
    if is_number(multiple) and multiple > 0:
        factor = to_fraction(multiple)
        counts = math.floor(to_fraction(steps[0]) / factor), math.ceil(to_fraction(steps[2]) / factor)
        lower, upper = (count * factor for count in counts)
        steps = [int(lower), value, int(upper)] if is_whole else [float(lower), value, float(upper)]
    return sorted({number for number in steps if low < number < high and _is_allowed(number, schema)})


def _is_allowed(value: Any, schema: SlotSchema) -> bool:
    try:
        schema.normalise(value)
    except ValueRefusedError:
        return False
    return True


def _find_derived(experiment: Experiment, axes: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of `derive` that still vary, because they read an axis, and of those that they read."""
    varying = set(axes)
    for name, expression in experiment.derive.items():  # sorted: each needs only earlier ones
        varying |= {name} if varying & set(expression.names) else set()
    needed = varying & experiment.derive.keys()
    for name in reversed([*experiment.derive]):
        needed |= experiment.derive.keys() & set(experiment.derive[name].names) if name in needed else set()
    return {name: expression.text for name, expression in experiment.derive.items() if name in needed}


def _list_variables(experiment: Experiment, settings: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """Return the values of names that are no slots. On an axis, the label in the table stands for a value."""
    found = {name: value for name, value in experiment.params.items() if name in used}
    axes = [axis for block in experiment.blocks for dimension in block.dimensions for axis in dimension]
    options = [(axis, option) for axis in axes if axis.name in used for option in axis.options]
    for axis, option in options:
        if option.cell == settings.get(axis.name):
            found[axis.name] = option.cell if option.value is MISSING else option.value
    return found
