"""A stand-in for the document of the page, until the real one comes."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.loading.load import get_slots_file


class StaleVersionError(UsageError):
    """The files have changed since the version that a change was made for."""


class Document:
    """An experiment on disk, which the page changes."""

    def __init__(self, file: Path, _scope: Any = None) -> None:
        self.file = file
        self.text = self.opened_text = file.read_text("utf-8")
        self._undo: list[str] = []
        self._redo: list[str] = []

    @property
    def version(self) -> str:
        return hashlib.sha256((self.text + (self.slots_text or "")).encode()).hexdigest()[:16]

    @property
    def slots_text(self) -> str | None:
        try:
            return get_slots_file(self.file.parent / str(_load(self.text).get("template"))).read_text("utf-8")
        except OSError:
            return None

    @property
    def slots_file(self) -> Path | None:
        return get_slots_file(self.file.parent / str(_load(self.text).get("template")))

    @property
    def can_undo(self) -> bool:
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    def apply(
        self, version: str, changes: Sequence[Mapping[str, Any]], _suggestions: Any = (), _taken: Any = ()
    ) -> None:
        value = _load(self.text)
        for change in changes:
            _change(value, change)
        self.replace_text(version, yaml.safe_dump(value, sort_keys=False))

    def replace_text(self, version: str, text: str) -> None:
        self._check(version)
        self._undo.append(self.text)
        self._redo.clear()
        self._save(text)

    def undo(self, version: str) -> None:
        self._check(version)
        if self._undo:
            self._redo.append(self.text)
            self._save(self._undo.pop())

    def redo(self, version: str) -> None:
        self._check(version)
        if self._redo:
            self._undo.append(self.text)
            self._save(self._redo.pop())

    def reload(self) -> bool:
        text = self.file.read_text("utf-8")
        if text == self.text:
            return False
        self._undo.append(self.text)
        self.text = text
        return True

    def diff(self) -> list[tuple[str, str]]:
        lines = difflib.ndiff(self.opened_text.splitlines(), self.text.splitlines())
        return [(line[0], line[2:]) for line in lines if line[0] != "?"]

    def _check(self, version: str) -> None:
        self.reload()
        if version != self.version:
            raise StaleVersionError(f"{self.file}: changed since")

    def _save(self, text: str) -> None:
        with atomic_write(self.file) as stream:
            stream.write(text.encode())
        self.text = text


def _load(text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def _change(value: dict[str, Any], change: Mapping[str, Any]) -> None:
    name = change.get("name") or change.get("address")
    grid, params = value.setdefault("sweep", {}).setdefault("grid", {}), value.setdefault("params", {})
    actions: dict[str, Callable[[], Any]] = {
        "axis": lambda: (params.pop(name, None), grid.update({name: change["value"]})),
        "fixed": lambda: (grid.pop(name, None), params.update({name: change["value"]})),
        "none": lambda: (grid.pop(name, None), params.pop(name, None)),
        "where": lambda: value["sweep"].update({"where": change["value"]}),
        "key": lambda: value.update({change["path"][0]: change["value"]}),
    }
    if change.get("set") not in actions:
        raise UsageError(f"{change.get('set')!r} is not a change that the stand-in knows")
    actions[change["set"]]()
    if not params:
        del value["params"]


def describe_document(text: str) -> dict[str, Any]:
    value = _load(text)
    sweep = value.get("sweep") or {}
    grid = (sweep if isinstance(sweep, dict) else {}).get("grid") or {}
    lines = text.splitlines()

    def describe(name: str, item: Any) -> dict[str, Any]:
        line = next((i for i, text in enumerate(lines, 1) if text.strip().startswith(f"{name}:")), 0)
        return {
            "name": name,
            "value": item,
            "yaml": yaml.safe_dump(item, default_flow_style=True).strip(),
            "line": line,
        }

    axes = [
        describe(name, item)
        | {
            "form": "values" if isinstance(item, list) else "seeds" if "seeds" in item else "range",
            "count": len(item) if isinstance(item, list) else None,
            "zip": None,
        }
        for name, item in grid.items()
    ]
    known = ("name", "template", "target", "sweep", "params", "run", "metrics", "description")
    return {
        "name": value.get("name"), "template": value.get("template"),
        "target": value.get("target", "embedded"), "budget": (value.get("run") or {}).get("budget"), "axes": axes,
        "fixed": [describe(name, item) for name, item in (value.get("params") or {}).items()],
        "where": sweep.get("where") if isinstance(sweep, dict) else None,
        "other": [{"key": key, "yaml": "...", "line": 0} for key in value if key not in known],
        "blocks": len(sweep) if isinstance(sweep, list) else 1,
    }  # fmt: skip
