"""What the page changes in an experiment, as edits of its text and of the text of its slots file; and what it shows.

Pure functions. An input that is no slot yet becomes one first. A sweep of several blocks is shown, and not changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from sweeper.editing.edit_yaml import DELETE, add_line, edit_yaml, get_at, move_entry, parse_text
from sweeper.editing.yaml_text import YamlText
from sweeper.errors import UsageError
from sweeper.loading.starter_experiment import render_slot
from sweeper.loading.suggest_slots import Suggestion
from sweeper.model.axis_values import AXIS_FORMS
from sweeper.schemas import load_schema, make_editor_line
from sweeper.schemas.values import KeyPath, format_value

ORDER: Final = tuple(load_schema("experiment")["properties"])  # of the keys of a file
_GRID: Final = ("sweep", "grid")
_ZIP: Final = ("sweep", "zip")
_SHOWN: Final = frozenset(("name", "template", "target", "params", "sweep"))  # keys with a field of their own
_SHOWN_OF_SWEEP: Final = frozenset(("grid", "zip", "where"))


def apply_changes(
    text: str,
    slots_text: str | None,
    changes: Iterable[Mapping[str, Any]],
    suggestions: Collection[Suggestion] = (),
    taken: Collection[str] = (),
) -> tuple[str, str | None]:
    """Return the texts of the experiment and of its slots file after the changes, in their order.

    `slots_text`: None if there is no such file. `suggestions` are the slots that inputs can become, which a change
    names by `address`; `taken` are the names of the template's slots. Raises UsageError.
    """
    for change in changes:
        if isinstance(address := change.get("address"), str) and "name" not in change:
            name, slots_text = _add_slot(slots_text, address, suggestions, taken)
            text = _apply(text, {**change, "name": name})
        else:
            text = _apply(text, change)
    return text, slots_text


def _apply(text: str, change: Mapping[str, Any]) -> str:
    match change:
        case {"set": "axis", "name": str(name), "value": list() | dict() as value}:
            changed = edit_yaml(text, _find_axis(text, name) or (*_GRID, name), value, order=ORDER)
            return changed if "replace" in value else _remove(changed, ("params", name))  # it searches in that text
        case {"set": "fixed", "name": str(name), "value": value}:
            return edit_yaml(_remove_axis(text, name), ("params", name), value, order=ORDER)
        case {"set": "none", "name": str(name)}:
            return _remove(_remove_axis(text, name), ("params", name))
        case {"set": "zip", "name": str(name), "with": str(other)}:
            return _zip_axes(text, name, other)
        case {"set": "unzip", "name": str(name)}:
            path = _get_axis(text, name)
            return _tidy(move_entry(text, path, _GRID), path) if path[1] == "zip" else text
        case {"set": "move", "name": str(name), "before": None | str() as before}:
            return _move_axis(text, name, before)
        case {"set": "where", "value": None | str() as value}:
            _find_axis(text, "")
            return _set_or_remove(text, ("sweep", "where"), value)
        case {"set": "key", "path": [str(), *_] as path, "value": value}:
            return _set_or_remove(text, tuple(path), value)
    raise UsageError(f"sweeper does not know this change: {format_value(dict(change))}")


def _set_or_remove(text: str, path: KeyPath, value: Any) -> str:
    return _remove(text, path) if value is None else edit_yaml(text, path, value, order=ORDER)


def _remove(text: str, path: KeyPath) -> str:
    """Delete what is at a path, with the mappings and lists that would be empty then, which a file may not have."""
    value = parse_text(text).value
    if get_at(value, path) is DELETE:
        return text
    while len(path) > 1 and len(get_at(value, path[:-1])) == 1:
        path = path[:-1]
    return edit_yaml(text, path, DELETE)


def _find_axis(text: str, name: str) -> KeyPath | None:
    """Return the path of an axis. Raises UsageError if the sweep has several blocks."""
    value = parse_text(text).value
    if isinstance(get_at(value, ("sweep",)), list):
        raise UsageError("the sweep of this file is a list of blocks, which can only be edited as YAML")
    groups = get_at(value, _ZIP)
    zipped = [(*_ZIP, index, name) for index in range(len(groups) if isinstance(groups, list) else 0)]
    return next((path for path in [(*_GRID, name), *zipped] if get_at(value, path) is not DELETE), None)


def _get_axis(text: str, name: str) -> KeyPath:
    path = _find_axis(text, name)
    if path is None:
        raise UsageError(f"there is no axis {format_value(name)} in this file; make it one first")
    return path


def _remove_axis(text: str, name: str) -> str:
    is_list = isinstance(get_at(parse_text(text).value, ("sweep",)), list)  # then it may be an axis of some blocks only
    path = None if is_list else _find_axis(text, name)
    return text if path is None else _tidy(_remove(text, path), path)


def _tidy(text: str, path: KeyPath) -> str:
    """After an axis has left `path`: the last axis of a zip group belongs into the grid, and nothing stays empty."""
    parent = path[:-1]
    rest = get_at(parse_text(text).value, parent)
    if path[1] == "zip" and isinstance(rest, dict) and len(rest) == 1:
        text, rest = move_entry(text, (*parent, *rest), _GRID), {}
    return _remove(text, parent) if rest == {} else text


def _zip_axes(text: str, name: str, other: str) -> str:
    path, group = _get_axis(text, name), _get_axis(text, other)[:-1]
    if name == other or (path[:-1] == group and group != _GRID):
        return text
    if group == _GRID:
        groups = get_at(parse_text(text).value, _ZIP)
        group = (*_ZIP, len(groups) if isinstance(groups, list) else 0)
        text = move_entry(text, (*_GRID, other), group)
    return _tidy(move_entry(text, path, group), path)


def _move_axis(text: str, name: str, before: str | None) -> str:
    path = _get_axis(text, name)
    other = None if before is None else _get_axis(text, before)
    is_beside = other is not None and other[:-1] == path[:-1]
    if name == before or len(get_at(parse_text(text).value, path[:-1])) == 1:
        return text
    if path[1] == "zip" and other is not None and not is_beside:
        raise UsageError("a zip group stands behind the axes of the grid; take the axis out of its group first")
    return move_entry(text, path, path[:-1], before if is_beside else None)


def _add_slot(
    slots_text: str | None, address: str, suggestions: Collection[Suggestion], taken: Collection[str]
) -> tuple[str, str | None]:
    """Return the name of the slot at an address, and the slots file that has it."""
    names = find_slots(slots_text)
    if address in names:
        return names[address], slots_text
    suggestion = next((slot for slot in suggestions if address in slot.addresses), None)
    if suggestion is None:
        raise UsageError(f"the workflow has no input {format_value(address)} that a slot can set")
    numbered = (f"{suggestion.name}_{number}" for number in itertools.count(2))
    name = next(name for name in itertools.chain([suggestion.name], numbered) if name not in {*names.values(), *taken})
    line = render_slot(replace(suggestion, name=name))
    return name, add_line(slots_text or f"{make_editor_line('slots')}\n", ("slots", name), line)


def find_slots(slots_text: str | None) -> dict[str, str]:
    """The names of the slots in a slots file by the addresses that they set. Raises UsageError if it is no YAML."""
    declared = get_at(parse_text(slots_text or "").value, ("slots",))
    slots = declared if isinstance(declared, dict) else {}
    places = ((name, get_at(slots, (name, "at"))) for name in slots)
    return {str(address): name for name, at in places for address in (at if isinstance(at, list) else [at])}


def describe_document(text: str) -> dict[str, Any]:
    """Return what the page shows of an experiment: its axes, fixed values and other keys, with their YAML and lines.

    What cannot be read is left out.
    """
    try:
        source = parse_text(text)
    except UsageError:
        text, source = "", parse_text("")
    yaml_text, value = YamlText(text), source.value if isinstance(source.value, dict) else {}

    def describe(path: KeyPath) -> dict[str, Any]:
        return {"yaml": yaml_text.read_value(path), "line": source.find_line(path)}

    def list_keys(path: KeyPath) -> list[KeyPath]:
        part = get_at(value, path)
        return [(*path, key) for key in part] if isinstance(part, dict) else []

    groups, sweep, where = get_at(value, _ZIP), get_at(value, ("sweep",)), get_at(value, ("sweep", "where"))
    zipped = [
        path for index in range(len(groups) if isinstance(groups, list) else 0) for path in list_keys((*_ZIP, index))
    ]
    axes = [
        {"name": path[-1], "form": _get_form(form), "value": form, "count": _count_values(form),
         "zip": path[2] if path[1] == "zip" else None, **describe(path)}
        for path in [*list_keys(_GRID), *zipped]
        for form in [get_at(value, path)]
    ]  # fmt: skip
    others = [
        path for path in list_keys(()) if path[0] not in _SHOWN or (path[0] == "sweep" and isinstance(sweep, list))
    ]
    others += [path for path in list_keys(("sweep",)) if path[1] not in _SHOWN_OF_SWEEP]
    budget = get_at(value, ("run", "budget"))
    return {
        **{key: value.get(key) for key in ("name", "template", "target")},
        "budget": None if budget is DELETE else budget if isinstance(budget, str) else f"{budget} USD",
        "axes": sorted(axes, key=lambda axis: axis["line"]),
        "fixed": [
            {"name": path[-1], "value": get_at(value, path), **describe(path)} for path in list_keys(("params",))
        ],
        "where": where if isinstance(where, str) else None,
        "other": [{"key": ".".join(map(str, path)), **describe(path)} for path in others],
        "blocks": len(sweep) if isinstance(sweep, list) else 1,
    }


def _get_form(value: Any) -> str:
    if isinstance(value, list):
        return "values"
    form = next((form for form in AXIS_FORMS if isinstance(value, dict) and form in value), "other")
    return "range" if form == "from" else form


def _count_values(value: Any) -> int | None:
    """Return the number of values of an axis, if its text alone says it."""
    values = value if isinstance(value, list) else get_at(value, ("with",))
    seeds = get_at(value, ("seeds",))
    return len(values) if isinstance(values, list) else seeds if type(seeds) is int else None
