"""From one picture to the next experiment: *More like this* and *Revise this cell*. Pure functions to texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sweeper.editing.edit_yaml import DELETE, edit_yaml, get_at, parse_text, write_flow
from sweeper.errors import UsageError
from sweeper.model.axis_values import make_seeds
from sweeper.model.experiment import Experiment
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.schemas import make_editor_line
from sweeper.schemas.values import KeyPath, is_number
from sweeper.wording import join_names, to_one_line

_SEED_INPUTS: Final = frozenset(("seed", "noise_seed"))
_MORE_SEEDS: Final = 3


def make_similar(experiment: Experiment, settings: Mapping[str, Any], *, name: str) -> str:
    """Return the text of an experiment around one trial, for a file beside that of `experiment`.

    `settings`: the trial's `params`, and its `axes` where they have other names. Each numeric axis gets the steps
    half-way to its neighbours, unless `derive` reads it; a seed gets more seeds; all else is fixed. Raises UsageError
    if `experiment` comes from no file.
    """
    if experiment.source is None:
        raise UsageError("an experiment without a file has no text to begin with")
    slots = experiment.template.slots
    read = {name for expression in experiment.derive.values() for name in expression.names}
    seeds = [slot.name for slot in slots.values() if any(at.input in _SEED_INPUTS for at in slot.addresses)]
    axes: dict[str, list[Any]] = {}
    for axis in (axis for block in experiment.written_blocks for group in block.dimensions for axis in group):
        value = settings.get(axis.name)
        if axis.name in slots and axis.name not in read and axis.name not in seeds and is_number(value):
            numbers = [option.value for option in axis.options if is_number(option.value)]
            axes[axis.name] = _refine(value, numbers, slots[axis.name].schema)
    axes = {axis: steps for axis, steps in axes.items() if len(steps) > 1}
    for seed in [seed for seed in seeds if is_number(settings.get(seed)) and seed not in read][:1]:
        drawn = [settings[seed], *make_seeds(_MORE_SEEDS, name, seed)]
        axes[seed] = [value for value in drawn if _is_allowed(value, slots[seed].schema)]
    given = {*experiment.params, *experiment.axis_names}
    params = {
        key: value
        for key, value in settings.items()
        if key in slots and key not in axes and (key in given or value != slots[key].default)
    }
    head = f"# Around one picture of {to_one_line(experiment.name)}: finer steps of its numbers, and more seeds."
    text = f"{make_editor_line('experiment')}\n{head}\nname: {write_flow(name)}\n"
    kept = {key: experiment.source.value.get(key) for key in ("template", "target", "targets", "metrics", "run")}
    parts: list[tuple[KeyPath, Mapping[str, Any]]] = [((), kept), (("params",), params), (("sweep", "grid"), axes)]
    for parent, part in parts:
        for key, value in part.items():
            if value is not None or parent:
                text = edit_yaml(text, (*parent, key), value)
    return text


def make_revised(text: str, *, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Return the text of the experiment with one more trial: that of `settings`, with other values of some names.

    It is a row of `include`, which gives all axes of the sweep and may give any slot, also one that `params`, a bundle
    or `derive` gives otherwise. Raises UsageError.
    """
    value = parse_text(text).value
    sweep = get_at(value, ("sweep",))
    if get_at(value, ("search",)) is not DELETE:
        raise UsageError(
            "a search chooses its trials itself, so it takes no single one; make an experiment around the picture"
        )
    if isinstance(sweep, list):
        raise UsageError(
            "the sweep of this file is a list of blocks; add the trial to one of them in the text of the file"
        )
    zipped = get_at(sweep, ("zip",))
    groups = [get_at(sweep, ("grid",)), *(zipped if isinstance(zipped, list) else ())]
    axes = [axis for group in groups if isinstance(group, dict) for axis in group]
    if missing := [axis for axis in axes if settings.get(axis) is None]:
        found = f"the trial has no value of {join_names(missing)}, so the file has changed since"
        raise UsageError(f"{found}; run it again first")
    rows = get_at(sweep, ("include",))
    rows = rows if isinstance(rows, list) else []
    same = [row for row in rows if isinstance(row, dict) and row.items() <= settings.items()]
    row = {name: settings[name] for name in [*axes, *(name for row in same for name in row)]} | {**changes}
    return text if row in rows else edit_yaml(text, ("sweep", "include", len(rows)), row)


def _refine(value: float, numbers: list[float], schema: SlotSchema) -> list[Any]:
    """Return a value with those half-way to its neighbours, ascending; on an end, as far to the other side."""
    below = max((number for number in numbers if number < value), default=None)
    above = min((number for number in numbers if number > value), default=None)
    down = value - below if below is not None else above - value if above is not None else 0
    up = above - value if above is not None else down
    steps: list[Any] = [value - down / 2, value, value + up / 2]
    if schema.is_integer or (isinstance(value, int) and "number" not in schema.types):
        steps = [round(step) for step in steps]
    return sorted({step for step in steps if (step == value or step not in numbers) and _is_allowed(step, schema)})


def _is_allowed(value: Any, schema: SlotSchema) -> bool:
    try:
        schema.normalise(value)
    except ValueRefusedError:
        return False
    return True
