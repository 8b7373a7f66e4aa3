"""What the page changes in an experiment, as edits of its text and of the text of its slots file; and what it shows.

Pure functions. An input that is not a slot yet becomes one first. A sweep of several blocks is shown, and not changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from sweeper.editing.edit_yaml import DELETE, YamlText, edit_yaml, get_at, move_entry, parse_text
from sweeper.errors import UsageError
from sweeper.loading.starter_experiment import render_slot
from sweeper.loading.suggest_slots import Suggestion
from sweeper.model.axis_values import AXIS_FORMS
from sweeper.schemas import make_editor_line
from sweeper.schemas.values import KeyPath, format_value

_GRID: Final = ("sweep", "grid")
_ZIP: Final = ("sweep", "zip")
_WHERE: Final = ("sweep", "where")
# What the page shows in fields of their own.
_SHOWN: Final = {("name",), ("template",), ("target",), ("params",), ("sweep",), _GRID, _ZIP, _WHERE}


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
            changed = edit_yaml(text, _find_axis(text, name) or (*_GRID, name), value)
            return changed if "replace" in value else _remove(changed, ("params", name))  # it searches in that text
        case {"set": "fixed", "name": str(name), "value": value}:
            return edit_yaml(_remove_axis(text, name), ("params", name), value)
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
            return _apply(text, {"set": "key", "path": _WHERE, "value": value})
        case {"set": "key", "path": [str()] | [str(), str()] as path, "value": value}:
            return _remove(text, tuple(path)) if value is None else edit_yaml(text, tuple(path), value)
    raise UsageError(f"sweeper does not know this change: {format_value(dict(change))}")


def _remove(text: str, path: KeyPath) -> str:
    """Delete what is at a path, with the mappings and lists that would be empty then, which a file may not have."""
    value = parse_text(text).value
    if get_at(value, path) is DELETE:
        return text
    while len(path) > 1 and len(get_at(value, path[:-1])) == 1:
        path = path[:-1]
    return edit_yaml(text, path, DELETE)


def _list_groups(value: Any) -> list[KeyPath]:
    """Return the paths of the mappings with axes: the grid, and each zip group."""
    groups = get_at(value, _ZIP)
    return [_GRID, *((*_ZIP, index) for index in range(len(groups) if isinstance(groups, list) else 0))]


def _find_axis(text: str, name: str) -> KeyPath | None:
    value = parse_text(text).value
    return next((path for group in _list_groups(value) if get_at(value, path := (*group, name)) is not DELETE), None)


def _get_axis(text: str, name: str) -> KeyPath:
    path = _find_axis(text, name)
    if path is None:
        raise UsageError(f"there is no axis {format_value(name)} that the page can change; edit the text of the file")
    return path


def _remove_axis(text: str, name: str) -> str:
    path = _find_axis(text, name)
    return text if path is None else _tidy(_remove(text, path), path)


def _tidy(text: str, path: KeyPath) -> str:
    """After an axis has left `path`: the last axis of a zip group belongs into the grid, and nothing stays empty."""
    group = path[:-1]
    rest = get_at(parse_text(text).value, group)
    if group != _GRID and isinstance(rest, dict) and len(rest) == 1:
        text, rest = move_entry(text, (*group, *rest), _GRID), {}
    return _remove(text, group) if rest == {} else text


def _zip_axes(text: str, name: str, other: str) -> str:
    path, group = _get_axis(text, name), _get_axis(text, other)[:-1]
    if name == other or (path[:-1] == group and group != _GRID):
        return text
    if group == _GRID:
        group = (*_ZIP, len(_list_groups(parse_text(text).value)) - 1)
        text = move_entry(text, (*_GRID, other), group)
    return _tidy(move_entry(text, path, group), path)


def _move_axis(text: str, name: str, before: str | None) -> str:
    path, other = _get_axis(text, name), None if before is None else _get_axis(text, before)
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
    text = slots_text or f"{make_editor_line('slots')}\nslots: {{}}\n"
    return name, edit_yaml(text, ("slots", name), parse_text(line).value[name], lines=[line])


def find_slots(slots_text: str | None) -> dict[str, str]:
    """The names of the slots in a slots file by the addresses that they set. Raises UsageError if it is not YAML."""
    declared = get_at(parse_text(slots_text or "").value, ("slots",))
    slots = declared if isinstance(declared, dict) else {}
    places = ((name, get_at(slots, (name, "at"))) for name in slots)
    return {str(address): name for name, at in places for address in (at if isinstance(at, list) else [at])}


def describe_document(text: str) -> dict[str, Any]:
    """Return what the page shows of an experiment: its axes, fixed values and other keys, with their YAML and lines.

    What cannot be read is left out.
    """
    try:
        written = YamlText(text)
    except UsageError:
        written = YamlText("")
    value = written.source.value if isinstance(written.source.value, dict) else {}

    def describe(*parents: KeyPath) -> list[tuple[KeyPath, dict[str, Any]]]:
        """List the entries of mappings by their paths."""
        parts = [(path, get_at(value, path)) for path in parents]
        paths = [(*path, key) for path, part in parts if isinstance(part, dict) for key in part]
        return [
            (path, {"name": path[-1], "value": get_at(value, path), "yaml": written.read_value(path),
                    "line": written.source.find_line(path)})
            for path in paths
        ]  # fmt: skip

    axes = [
        axis | _describe_form(axis["value"]) | {"zip": path[2] if path[1] == "zip" else None}
        for path, axis in describe(*_list_groups(value))
    ]
    sweep, where, budget = (get_at(value, path) for path in (("sweep",), ("sweep", "where"), ("run", "budget")))
    is_list = isinstance(sweep, list)
    return {
        **{key: value.get(key) for key in ("name", "template", "target")},
        "budget": None if budget is DELETE else budget if isinstance(budget, str) else f"{budget} USD",
        "axes": sorted(axes, key=lambda axis: axis["line"]),
        "fixed": [fixed for _, fixed in describe(("params",))],
        "where": where if isinstance(where, str) else None,
        "other": [
            {"key": ".".join(map(str, path)), "yaml": entry["yaml"], "line": entry["line"]}
            for path, entry in describe((), ("sweep",))
            if path not in _SHOWN or (is_list and path == ("sweep",))
        ],
        "blocks": len(sweep) if is_list else 1,
    }


def _describe_form(value: Any) -> dict[str, Any]:
    """Return the form of an axis, and the number of its values if its text alone says it."""
    if isinstance(value, list):
        return {"form": "values", "count": len(value)}
    form = next((form for form in AXIS_FORMS if isinstance(value, dict) and form in value), "other")
    words, seeds = get_at(value, ("with",)), get_at(value, ("seeds",))
    count = len(words) if isinstance(words, list) else seeds if type(seeds) is int else None
    return {"form": "range" if form == "from" else form, "count": count}
