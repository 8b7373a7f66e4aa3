"""`Document`: an experiment and its slots file on disk, which the page changes, with undo and redo; and the changes.

The change on disk wins. Before a save replaces a file, it reads it again. If another program has changed it, the text
on disk becomes the present one, and the text of the page waits behind redo.

An input that is not a slot yet becomes one first. A sweep of several blocks is shown, and not changed.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sweeper.editing.edit_yaml import DELETE, YamlText, edit_yaml, get_at, move_entry, parse_text
from sweeper.errors import InputError, Problem, UsageError
from sweeper.files import atomic_write
from sweeper.loading.bounded_files import read_text_bytes
from sweeper.loading.load import get_slots_file
from sweeper.loading.read_scope import OutsideError, ReadScope, describe_cause, find_project
from sweeper.loading.starter_experiment import render_slot
from sweeper.loading.suggest_slots import Suggestion
from sweeper.schemas import make_editor_line
from sweeper.schemas.values import KeyPath, format_value

_MAX_STEPS: Final = 200  # of undo
_LINE_ENDS: Final = re.compile("\r\n|\r|\n")
_GRID: Final = ("sweep", "grid")
_ZIP: Final = ("sweep", "zip")
_WHERE: Final = ("sweep", "where")
# What the page shows in fields of their own.
_SHOWN: Final = {("name",), ("template",), ("target",), ("params",), ("sweep",), _GRID, _ZIP, _WHERE}


class StaleVersionError(Exception):
    """A change was made for another text than the present one. Nothing was saved; the message says what happened."""


class Document:
    """An experiment file that is open on the page, and the slots file of its template. Not thread-safe.

    `scope`: what the experiment may read; by default its project. If the file is a link, its target is changed.
    `slots_file`: where the slots file is or would be; None if the template cannot be read. Undo leaves new slots in it,
    which change nothing. Raises UsageError, here and in all methods that read or save.
    """

    def __init__(self, file: Path, scope: ReadScope | None = None) -> None:
        self.file = file
        self._scope = scope or ReadScope(find_project(file))
        self.slots_file: Path | None = None
        self.slots_text: str | None = None
        self._opened = self._read_text(file)
        self._texts, self._index = [self._opened], 0  # the present one, those to undo before it, those to redo after it
        self._read_slots()

    @property
    def text(self) -> str:
        return self._texts[self._index]

    @property
    def version(self) -> str:
        return hashlib.sha256(repr((self.text, self.slots_text)).encode()).hexdigest()[:32]

    def can_step(self, by: int) -> bool:
        """Whether there is a text so many steps ahead, to redo; behind (-1), to undo."""
        return 0 <= self._index + by < len(self._texts)

    def apply(
        self, version: str, changes: Iterable[Mapping[str, Any]], suggestions: Collection[Suggestion] = ()
    ) -> None:
        """Save the changes of the page, all or none; see `apply_changes`. Raises StaleVersionError."""
        self.check_version(version)
        text, slots_text = apply_changes(self.text, self.slots_text, changes, suggestions)
        if slots_text is not None and slots_text != self.slots_text:
            if self.slots_file is None:
                raise UsageError("the template cannot be read, so no input can become a slot; mend it first")
            self._save(self.slots_file, slots_text, text)  # first: a kill in between leaves an unused slot
            self.slots_text = slots_text
        self._save_text(text)

    def replace_text(self, version: str, text: str) -> None:
        """Save any text, with the line ends of the present one, which pages do not keep.

        Raises StaleVersionError; redo brings back the refused text then.
        """
        ends = set(_LINE_ENDS.findall(self.text))
        if len(ends) == 1:
            end = ends.pop()
            text = _LINE_ENDS.sub(lambda _: end, text)
        if version != self.version and text not in self._texts[self._index : self._index + 2]:
            self._texts.insert(self._index + 1, text)
        self.check_version(version)
        self._save_text(text)

    def step(self, version: str, by: int) -> None:
        """Save the text one step behind (-1: undo) or ahead (1: redo). Raises StaleVersionError."""
        self.check_version(version)
        if not self.can_step(by):
            raise UsageError("there is nothing left to undo or redo")
        index = self._index + by
        self._save(self.file, self._texts[index], self._texts[index])
        self._index = index
        self._read_slots()

    def reload(self) -> bool:
        """Take the files on disk; the text before can be undone to. Returns whether they had been changed."""
        version = self.version
        self._take(self._read_text(self.file))
        return self.version != version

    def diff(self) -> list[tuple[str, str]]:
        """Return the lines that differ from the opened text, and three around each, with `+`, `-` or a space."""
        if self.text == self._opened:  # a comparison of long texts takes seconds
            return []
        found = difflib.unified_diff(self._opened.splitlines(), self.text.splitlines(), lineterm="")
        return [(" ", "...") if line[:2] == "@@" else (line[0], line[1:]) for line in [*found][2:]]

    def check_version(self, version: str) -> None:
        """Raise StaleVersionError if this is another version."""
        if version != self.version:
            raise StaleVersionError(f"{self.file.name} has changed since; the page shows the present text")

    def _save_text(self, text: str) -> None:
        if text != self.text:
            self._save(self.file, text, text)
            self._take(text)

    def _save(self, path: Path, content: str, wanted: str) -> None:
        """Replace a file as a whole, unless another program has changed one. Then `wanted` waits behind redo."""
        try:
            path = self._resolve(path)
            self.file.stat()  # else the next line would make its folder again
            with atomic_write(path) as stream:
                if path.exists():
                    shutil.copymode(path, stream.name)
                stream.write(content.encode())
                stream.flush()
                if self.reload():
                    self._texts[self._index + 1 :] = [wanted]
                    message = f"{self.file.name} or its slots file was changed by another program"
                    raise StaleVersionError(
                        f"{message}; the page shows the file on disk (redo brings back what you changed)"
                    )
        except (OutsideError, OSError, ValueError) as error:  # half of a surrogate pair is a ValueError
            cause = error.strerror if isinstance(error, OSError) else error
            raise UsageError(Problem(str(self.file), 0, "", f"cannot be saved: {cause}")) from error

    def _take(self, text: str) -> None:
        """Make a text the present one."""
        if text != self.text:
            self._texts = [*self._texts[: self._index + 1][-_MAX_STEPS:], text]
            self._index = len(self._texts) - 1
        self._read_slots()

    def _read_slots(self) -> None:
        """Read the slots file of the template. While the text has a mistake, it is the last."""
        try:
            template = get_at(parse_text(self.text).value, ("template",))
            path = self.file.parent / template if isinstance(template, str) and template else None
            is_there = path is not None and self._scope.resolve(path).is_file()
            self.slots_file = self._scope.resolve(get_slots_file(path)) if path is not None and is_there else None
        except InputError:
            pass
        except (OutsideError, OSError, ValueError):  # of another project, or a name that no disk accepts
            self.slots_file = None
        is_there = self.slots_file is not None and self.slots_file.exists()
        self.slots_text = self._read_text(self.slots_file) if self.slots_file is not None and is_there else None

    def _resolve(self, path: Path) -> Path:
        return self._scope.resolve(path, hidden=path == self.file)

    def _read_text(self, path: Path) -> str:
        try:
            return read_text_bytes(self._resolve(path)).decode()
        except (OutsideError, OSError, ValueError) as error:
            raise UsageError(Problem(str(path), 0, "", describe_cause(error))) from error


def apply_changes(
    text: str, slots_text: str | None, changes: Iterable[Mapping[str, Any]], suggestions: Collection[Suggestion] = ()
) -> tuple[str, str | None]:
    """Return the texts of the experiment and of its slots file after the changes, in their order.

    `slots_text`: None if there is no such file. `suggestions` are the slots that inputs can become, which a change
    names by `address`; no slot of the template itself has one of their names. Raises UsageError.
    """
    for change in changes:
        if isinstance(address := change.get("address"), str) and "name" not in change:
            name, slots_text = _add_slot(slots_text, address, suggestions)
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


def _add_slot(slots_text: str | None, address: str, suggestions: Collection[Suggestion]) -> tuple[str, str | None]:
    """Return the name of the slot at an address, and the slots file that has it."""
    names = find_slots(slots_text)
    if address in names:
        return names[address], slots_text
    suggestion = next((slot for slot in suggestions if address in slot.addresses), None)
    if suggestion is None:
        raise UsageError(f"the workflow has no input {format_value(address)} that a slot can set")
    numbered = (f"{suggestion.name}_{number}" for number in itertools.count(2))
    name = next(name for name in itertools.chain([suggestion.name], numbered) if name not in names.values())
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

    axes = [axis | {"zip": path[2] if path[1] == "zip" else None} for path, axis in describe(*_list_groups(value))]
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
