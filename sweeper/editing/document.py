"""`Document`: an experiment and its slots file on disk, which the page changes, with undo and redo.

The change on disk wins. Before a save replaces a file, it reads it again. If another program has changed it, the text
on disk becomes the present one, and the text of the page waits behind redo.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sweeper.editing.changes import apply_changes
from sweeper.editing.edit_yaml import get_at, parse_text
from sweeper.errors import InputError, Problem, UsageError
from sweeper.files import atomic_write
from sweeper.loading.bounded_files import BoundError, read_text_bytes
from sweeper.loading.load import get_slots_file
from sweeper.loading.read_scope import OutsideError, ReadScope, describe_cause, find_project
from sweeper.loading.suggest_slots import Suggestion

_MAX_STEPS: Final = 500  # of undo
_MAX_CHARACTERS: Final = 32_000_000  # of all steps together
_LINE_ENDS: Final = re.compile("\r\n|\r|\n")


class StaleVersionError(Exception):
    """A change was made for another text than the present one. Nothing was saved; the message says what happened."""


@dataclass(frozen=True, slots=True)
class _State:
    """Both texts. `slots_file`: where the slots file is or would be; None if the template cannot be read."""

    text: str
    slots_file: Path | None = None
    slots_text: str | None = None


class Document:
    """An experiment file that is open on the page, and the slots file of its template. Not thread-safe.

    `scope`: what the experiment may read; by default its project. If the file is a link, its target is changed. Raises
    UsageError, here and in all methods that read or save.
    """

    def __init__(self, file: Path, scope: ReadScope | None = None) -> None:
        self.file = file
        self._scope = scope or ReadScope(find_project(file))
        self._state = _State("")
        self._state = self._opened = self._read()
        self._undo: list[_State] = []
        self._redo: list[_State] = []

    @property
    def text(self) -> str:
        return self._state.text

    @property
    def slots_file(self) -> Path | None:
        return self._state.slots_file

    @property
    def slots_text(self) -> str | None:
        return self._state.slots_text

    @property
    def opened_text(self) -> str:
        return self._opened.text

    @property
    def version(self) -> str:
        return hashlib.sha256(repr((self.text, self.slots_text)).encode()).hexdigest()[:32]

    @property
    def can_undo(self) -> bool:
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    def apply(
        self,
        version: str,
        changes: Sequence[Mapping[str, Any]],
        suggestions: Collection[Suggestion] = (),
        taken: Collection[str] = (),
    ) -> None:
        """Save the changes of the page, all or none; see `apply_changes`. Raises StaleVersionError."""
        self._check_version(version)
        state = self._state
        slots_text = state.slots_text
        text, slots_text = apply_changes(state.text, slots_text, changes, suggestions, taken)
        if slots_text != state.slots_text and state.slots_file is None:
            raise UsageError(
                "the template of this experiment cannot be read, so no input can become a slot; mend it first"
            )
        self._commit(replace(state, text=text, slots_text=slots_text))

    def replace_text(self, version: str, text: str) -> None:
        """Save any text, with the line ends of the present one, which pages do not keep.

        Raises StaleVersionError; redo brings back the refused text then.
        """
        ends = set(_LINE_ENDS.findall(self.text))
        if len(ends) == 1:
            end = ends.pop()
            text = _LINE_ENDS.sub(lambda _: end, text)
        new = replace(self._state, text=text)
        if version != self.version and new not in (self._state, *self._redo[-1:]):
            self._redo.append(new)
        self._check_version(version)
        self._commit(new)

    def undo(self, version: str) -> None:
        self._step_back(version, self._undo, self._redo)

    def redo(self, version: str) -> None:
        self._step_back(version, self._redo, self._undo)

    def reload(self) -> bool:
        """Take the files on disk, as a step that can be undone. Returns whether they had been changed."""
        found = self._read()
        if found == self._state:
            return False
        self._push(self._state)
        self._redo.clear()
        self._state = found
        return True

    def diff(self) -> list[tuple[str, str]]:
        """Return the lines that differ from the opened text, and three around each, with `+`, `-` or a space."""
        lines: list[tuple[str, str]] = []
        old = [self._opened.text, self._opened.slots_text or ""]
        for before, after in zip(old, [self.text, self.slots_text or ""], strict=True):
            found = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")
            lines += [(" ", "...") if line[:2] == "@@" else (line[0], line[1:]) for line in [*found][2:]]
        return lines

    def _step_back(self, version: str, source: list[_State], other: list[_State]) -> None:
        self._check_version(version)
        if not source:
            raise UsageError("there is no step left")
        present = self._state
        self._save(source[-1], is_undo=source is self._undo)
        source.pop()
        other.append(present)

    def _check_version(self, version: str) -> None:
        if version != self.version:
            raise StaleVersionError(f"{self.file.name} has changed since; the page shows the present text")

    def _commit(self, new: _State) -> None:
        present = self._state
        if new != present:
            self._save(new)
            self._push(present)
            self._redo.clear()

    def _push(self, state: _State) -> None:
        self._undo.append(state)
        while len(self._undo) > _MAX_STEPS or sum(len(step.text) for step in self._undo[:-1]) > _MAX_CHARACTERS:
            del self._undo[0]

    def _save(self, new: _State, *, is_undo: bool = False) -> None:
        """Replace the files by those of a state, and make it the present one.

        Slots come before the experiment that uses them, and go after it: a kill in between leaves an unused slot.
        """
        present = self._state
        files: list[tuple[Path, str | None, str | None]] = [(self.file, present.text, new.text)]
        if new.slots_file == present.slots_file and new.slots_file is not None:
            files.insert(len(files) if is_undo else 0, (new.slots_file, present.slots_text, new.slots_text))
        changed = [file for file in files if file[1] != file[2]]
        try:
            contents = [None if text is None else text.encode() for _, _, text in changed]
            is_saved = self._read() == present
            for (path, old, _), content in zip(changed if is_saved else (), contents if is_saved else (), strict=True):
                _replace_file(self._resolve(path), None if old is None else old.encode(), content)
        except _ChangedError:
            is_saved = False
        except (OutsideError, OSError, ValueError) as error:  # half of a surrogate pair is a ValueError
            cause = error.strerror if isinstance(error, OSError) else error
            raise UsageError(Problem(str(self.file), 0, "", f"cannot be saved: {cause}")) from error
        if is_saved:
            self._state = self._with_slots(new.text)
            return
        self._state = self._read()
        self._push(present)
        self._redo[:] = [new]
        message = f"{self.file.name} or its slots file was changed by another program; the page shows the file on disk"
        raise StaleVersionError(f"{message} (redo brings back what you changed)")

    def _read(self) -> _State:
        return self._with_slots(self._read_text(self.file))

    def _with_slots(self, text: str) -> _State:
        """Return the state of a text with the slots file on disk. While it has a mistake, that of the last text."""
        slots_file: Path | None = None
        try:
            template = get_at(parse_text(text).value, ("template",))
            path = self.file.parent / template if isinstance(template, str) and template else None
            if path is None or not self._scope.resolve(path).is_file():
                return _State(text)
            slots_file = self._scope.resolve(get_slots_file(path))
        except InputError:
            slots_file = self._state.slots_file
        except (OutsideError, OSError, ValueError):  # of another project, or a name that no disk accepts
            pass
        is_there = slots_file is not None and slots_file.exists()
        return _State(text, slots_file, self._read_text(slots_file) if slots_file is not None and is_there else None)

    def _resolve(self, path: Path) -> Path:
        return self._scope.resolve_experiment(path) if path == self.file else self._scope.resolve(path)

    def _read_text(self, path: Path) -> str:
        try:
            return read_text_bytes(self._resolve(path)).decode()
        except OutsideError as error:
            message = f"is a link to {error.path}, outside of the project; name that file itself"
        except BoundError as error:
            message = str(error)
        except (OSError, ValueError) as error:
            message = describe_cause(error)
        raise UsageError(Problem(str(path), 0, "", message))


class _ChangedError(Exception):
    """Another program has changed a file."""


def _replace_file(path: Path, old: bytes | None, content: bytes | None) -> None:
    """Replace a file as a whole, None: no file. Raises _ChangedError if its content is not the old one, and OSError."""

    def check() -> None:
        if (read_text_bytes(path) if path.exists() else None) != old:
            raise _ChangedError

    if content is None:
        check()
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        if old is not None:
            shutil.copymode(path, file.name)
        file.write(content)
        file.flush()
        check()
