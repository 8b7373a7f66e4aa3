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
from pathlib import Path
from typing import Any, Final

from sweeper.editing.changes import apply_changes
from sweeper.editing.edit_yaml import get_at, parse_text
from sweeper.errors import InputError, Problem, UsageError
from sweeper.files import atomic_write
from sweeper.loading.bounded_files import read_text_bytes
from sweeper.loading.load import get_slots_file
from sweeper.loading.read_scope import OutsideError, ReadScope, describe_cause, find_project
from sweeper.loading.suggest_slots import Suggestion

_MAX_STEPS: Final = 200  # of undo
_LINE_ENDS: Final = re.compile("\r\n|\r|\n")


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
        self.text = ""
        self.slots_file: Path | None = None
        self.slots_text: str | None = None
        self._take(self._read_text(file))
        self._opened = self.text
        self._undo: list[str] = []
        self._redo: list[str] = []

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
        text, slots_text = apply_changes(self.text, self.slots_text, changes, suggestions, taken)
        if slots_text is not None and slots_text != self.slots_text:
            if self.slots_file is None:
                raise UsageError("the template cannot be read, so no input can become a slot; mend it first")
            self._save(self.slots_file, slots_text, text)  # first: a kill in between leaves an unused slot
            self.slots_text = slots_text
        self._commit(text)

    def replace_text(self, version: str, text: str) -> None:
        """Save any text, with the line ends of the present one, which pages do not keep.

        Raises StaleVersionError; redo brings back the refused text then.
        """
        ends = set(_LINE_ENDS.findall(self.text))
        if len(ends) == 1:
            end = ends.pop()
            text = _LINE_ENDS.sub(lambda _: end, text)
        if version != self.version and text not in (self.text, *self._redo[-1:]):
            self._redo.append(text)
        self._check_version(version)
        self._commit(text)

    def undo(self, version: str) -> None:
        self._step_back(version, self._undo, self._redo)

    def redo(self, version: str) -> None:
        self._step_back(version, self._redo, self._undo)

    def reload(self) -> bool:
        """Take the files on disk; the text before can be undone to. Returns whether they had been changed."""
        version, text = self.version, self.text
        self._take(self._read_text(self.file))
        if self.text != text:
            self._undo.append(text)
            self._redo.clear()
        return self.version != version

    def diff(self) -> list[tuple[str, str]]:
        """Return the lines that differ from the opened text, and three around each, with `+`, `-` or a space."""
        if self.text == self._opened:  # a comparison of long texts takes seconds
            return []
        found = difflib.unified_diff(self._opened.splitlines(), self.text.splitlines(), lineterm="")
        return [(" ", "...") if line[:2] == "@@" else (line[0], line[1:]) for line in [*found][2:]]

    def _check_version(self, version: str) -> None:
        if version != self.version:
            raise StaleVersionError(f"{self.file.name} has changed since; the page shows the present text")

    def _commit(self, text: str) -> None:
        if text != self.text:
            self._save(self.file, text, text)
            self._undo[:] = [*self._undo[1 - _MAX_STEPS :], self.text]
            self._redo.clear()
            self._take(text)

    def _step_back(self, version: str, source: list[str], other: list[str]) -> None:
        self._check_version(version)
        if not source:
            raise UsageError("there is nothing left to undo or redo")
        self._save(self.file, source[-1], source[-1])
        other.append(self.text)
        self._take(source.pop())

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
                    self._redo[:] = [wanted]
                    message = f"{self.file.name} or its slots file was changed by another program"
                    raise StaleVersionError(
                        f"{message}; the page shows the file on disk (redo brings back what you changed)"
                    )
        except (OutsideError, OSError, ValueError) as error:  # half of a surrogate pair is a ValueError
            cause = error.strerror if isinstance(error, OSError) else error
            raise UsageError(Problem(str(self.file), 0, "", f"cannot be saved: {cause}")) from error

    def _take(self, text: str) -> None:
        """Make a text the present one, with the slots file of its template. While it has a mistake, with the last."""
        try:
            template = get_at(parse_text(text).value, ("template",))
            path = self.file.parent / template if isinstance(template, str) and template else None
            is_there = path is not None and self._scope.resolve(path).is_file()
            self.slots_file = self._scope.resolve(get_slots_file(path)) if path is not None and is_there else None
        except InputError:
            pass
        except (OutsideError, OSError, ValueError):  # of another project, or a name that no disk accepts
            self.slots_file = None
        is_there = self.slots_file is not None and self.slots_file.exists()
        slots_text = self._read_text(self.slots_file) if self.slots_file is not None and is_there else None
        self.text, self.slots_text = text, slots_text

    def _resolve(self, path: Path) -> Path:
        return self._scope.resolve_experiment(path) if path == self.file else self._scope.resolve(path)

    def _read_text(self, path: Path) -> str:
        try:
            return read_text_bytes(self._resolve(path)).decode()
        except (OutsideError, OSError, ValueError) as error:
            raise UsageError(Problem(str(path), 0, "", describe_cause(error))) from error
