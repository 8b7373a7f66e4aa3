"""Which files an experiment may read: those of its project, those that the user allowed, and none of the system's.

A file outside is not opened. `OutsideError` says what trust it needs, so that nothing in it can reach a message before
the user decides.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.errors import MAX_EXAMPLES, Problem
from sweeper.loading import bounded_files
from sweeper.loading.bounded_files import BoundError, check_is_no_system_file
from sweeper.model.axis_values import AxisError, PendingModelsError, match_models
from sweeper.model.experiment import HashedFile
from sweeper.model.source import Source
from sweeper.schemas.values import KeyPath, fits_shape, format_value
from sweeper.wording import suggest

_MARKERS: Final = (".git", "pyproject.toml")  # of a project folder
_NEIGHBOURS: Final = {"experiments": "templates"}  # the usual layout: experiments read the templates beside them


@dataclass(frozen=True, slots=True)
class Project:
    """The folder that an experiment belongs to, as a resolved path.

    `home` is the experiment's own folder. `extra` are other folders that belong to it.
    """

    folder: Path
    home: Path
    extra: tuple[Path, ...] = ()

    def contains(self, path: Path, *, hidden: bool = False) -> bool:
        """Whether a file is in the project, links resolved, and unless `hidden`, not hidden or in a hidden folder.

        Hidden files hold secrets: `.env`, `.git/config`. A path that the system does not accept counts as contained,
        because nothing can be read from it.
        """
        try:
            resolved = Path(os.path.realpath(path))
        except (OSError, ValueError):  # a NUL
            return True
        return any(
            resolved.is_relative_to(folder)
            and (hidden or not any(part.startswith(".") for part in resolved.relative_to(folder).parts))
            for folder in (self.folder, self.home, *self.extra)
        )


def find_project(file: Path) -> Project:
    """Find the project of an experiment: the nearest folder with `.git` or `pyproject.toml`, else its own folder.

    Without a marker, `templates/` beside a folder `experiments/` belongs to it. The user's home folder, and the folders
    above it, are never a project: they hold everything that the user has.
    """
    home = file.parent.resolve()
    excluded = _find_excluded(home)
    for folder in (home, *home.parents):
        if folder not in excluded and has_marker(folder):
            return Project(folder, home)
    neighbour = home.parent / _NEIGHBOURS.get(home.name, "")
    # A link would make any folder a part of it.
    is_real = neighbour != home.parent and Path(os.path.realpath(neighbour)) == neighbour
    return Project(home, home, (neighbour,) if is_real else ())


@dataclass(frozen=True, slots=True, order=True)
class TrustNeed:
    """What an experiment may do only with trust: the place with its message, and what the user allows by a yes.

    A grant is a short sentence such as `read /data/prompts.txt`. It is remembered, so that a new one is asked about.
    """

    problem: Problem
    grants: tuple[str, ...]


class OutsideError(AxisError):
    """A file is outside of the scope, so it was not opened. `path` is resolved."""

    def __init__(self, path: Path, project: Project) -> None:
        where = "hidden in" if path.is_relative_to(project.folder) else "outside of"
        super().__init__(f"reads {format_value(str(path), _MAX_PATH)}, {where} the project {project.folder}")
        self.path = path

    @property
    def grant(self) -> str:
        """What the user allows by a yes."""
        return f"{_READ}{self.path}"


_MAX_PATH: Final = 400  # characters: a person decides by the path
_READ: Final = "read "  # how the grant of a file or folder begins


def _find_excluded(folder: Path) -> set[Path]:
    """Return the folders that are never a project: the top, and the user's home with all above it."""
    try:
        user_home = Path.home().resolve()
    except RuntimeError:  # no home folder is known
        return {Path(folder.anchor)}
    return {Path(folder.anchor), user_home, *user_home.parents}


def is_near(file: Path, results: Path) -> bool:
    """Whether an experiment file belongs to a results folder: below it, in its project, or in the current one."""
    folder, path = Path(os.path.realpath(results)), Path(os.path.realpath(file))
    here = Path.cwd().resolve()
    if folder.is_relative_to(path.parent) and path.parent not in _find_excluded(path):
        return True
    for project in (find_project(folder / "any").folder, find_project(here / "any").folder):
        if has_marker(project) and path.is_relative_to(project):
            return True
    return path.is_relative_to(here) and here not in _find_excluded(here)


def has_marker(folder: Path) -> bool:
    """Whether a folder says that it is a project."""
    return any((folder / marker).exists() for marker in _MARKERS)


@dataclass(frozen=True, slots=True)
class ReadScope:
    """What one experiment may read.

    `project` None: everything, because a program or a person chose the experiment. `granted` are the files and folders
    that the user allowed. `given` are the input files that the user gave with `--set`, which is their own choice.
    """

    project: Project | None
    granted: tuple[Path, ...] = ()
    given: frozenset[str] = frozenset()

    def resolve(self, path: Path, name: str | None = None, *, hidden: bool = False) -> Path:
        """Return the path without links, to be opened as it is. `name`: of an input file, as the experiment writes it.

        `hidden`: it may be hidden, as an experiment file may. Raises OutsideError; BoundError for a folder of the
        system, which nobody may read; and OSError or ValueError for a name that the system does not accept.
        """
        return self.check(path, name, hidden=hidden, opens=True)

    def check(self, path: Path, name: str | None = None, *, hidden: bool = True, opens: bool = False) -> Path:
        """Do the same, but on the way of a pattern, where folders of the system are only passed through."""
        resolved = Path(os.path.realpath(path))
        if opens:
            check_is_no_system_file(resolved)
        is_given = name in self.given or any(resolved.is_relative_to(granted) for granted in self.granted)
        for project, is_exempt in ((_limit, False), (self.project, is_given)):
            if project is not None and not is_exempt and not project.contains(path, hidden=hidden):
                raise OutsideError(resolved, project)
        return resolved


EVERYTHING: Final = ReadScope(None)
_limit: Project | None = None


def limit_process(project: Project) -> None:
    """Let no scope of this process leave a project, whoever makes it; for a process that works for an assistant."""
    global _limit  # noqa: PLW0603 - it is the process that is limited
    _limit = project


def make_scope(file: Path, grants: Collection[str], overrides: Mapping[str, Any]) -> ReadScope:
    """Return the scope of an experiment file.

    `grants`: what the user allowed for it. `overrides`: the values given with `--set`, one or a list for each name; any
    text among them may be the name of an input file.
    """
    granted = tuple(Path(grant.removeprefix(_READ)) for grant in grants if grant.startswith(_READ))
    values = [item for value in overrides.values() for item in (value if isinstance(value, list) else [value])]
    return ReadScope(find_project(file), granted, frozenset(value for value in values if isinstance(value, str)))


class ExperimentFolder:
    """The folder of an experiment, as far as the scope allows. Relative names in the experiment start here.

    `outside` has the errors about files outside of the scope, by where the experiment names them. What reads a file
    raises OutsideError for such a file, and AxisError for a file that cannot be read.
    """

    def __init__(self, home: Path, scope: ReadScope) -> None:
        self.home = home
        self.scope = scope
        self.outside: dict[KeyPath, list[OutsideError]] = {}
        self.hashed_files: dict[str, HashedFile] = {}
        self.models: Mapping[str, Any] = {}  # what servers have, by pattern: a list, or `files` beside `links`
        self.pending: dict[str, KeyPath] = {}  # patterns that are not in `models`, and where they stand
        self._texts: dict[Path, str] = {}  # so that the second phase of loading sees the files of the first
        self._found: dict[str, list[str]] = {}
        self._missing_count = 0

    def add_outside(self, path: KeyPath, error: OutsideError) -> None:
        """Remember that the experiment names a file outside of the scope at `path`."""
        self.outside.setdefault(path, []).append(error)

    def list_needs(self, source: Source) -> Iterator[TrustNeed]:
        """Yield what the experiment may read only with trust: one need for each part of the file that names some."""
        for path, errors in self.outside.items():
            grants = tuple(dict.fromkeys(error.grant for error in errors))
            more = f" (and {len(grants) - 1} more files)" if len(grants) > 1 else ""
            yield TrustNeed(source.make_problem(path, f"{errors[0]}{more}"), grants)

    def read_text(self, name: str) -> str:
        with self._explain_errors(name, FileNotFoundError, NotADirectoryError):
            path = self.scope.resolve(self.home / name)
            if path not in self._texts:
                text = bounded_files.read_text_bytes(path).decode("utf-8-sig")
                self._texts[path] = text.replace("\r\n", "\n")  # universal newlines would split a line at a single CR
        return self._texts[path]

    def list_models(self, pattern: str) -> list[str]:
        given = self.models.get(pattern)
        if given is None:
            raise PendingModelsError(pattern)
        files: Any = given.get("files") if isinstance(given, dict) else given
        if not fits_shape(files, [str]) or not (matching := match_models(files, pattern)):
            raise AxisError(f"no file among the given ones matches {format_value(pattern)}")
        return matching

    def look(self) -> dict[str, tuple[int, int]]:
        """The sizes and times of the lists that were read, and of the files that patterns match now, by path."""
        paths = [*self._texts]
        for pattern in self._found:
            with suppress(AxisError):  # none is left
                paths += [self.home / name for name in self._find_files(pattern)]
        found: dict[str, tuple[int, int]] = {}
        for path in paths:
            with suppress(OSError):  # it is gone
                found[str(path)] = path.stat().st_size, path.stat().st_mtime_ns
        return found

    def find_files(self, pattern: str) -> list[str]:
        if pattern not in self._found:
            self._found[pattern] = self._find_files(pattern)
        return self._found[pattern]

    def _find_files(self, pattern: str) -> list[str]:
        path = Path(pattern)
        if path in (Path(), Path(path.anchor)):  # glob in Python 3.11 raises IndexError for these
            inside = pattern.rstrip("/") + "/*"
            shown = format_value(pattern)
            raise AxisError(f"{shown} is a folder and not a pattern of files; use {inside} for its files")
        try:
            self.scope.resolve(self.home / bounded_files.cut_pattern(path))
            top = Path(path.anchor) if path.is_absolute() else self.home
            relative = str(path.relative_to(path.anchor)) if path.is_absolute() else pattern
            found = bounded_files.find_matching_files(top, relative, self.scope.check)
        except BoundError as error:
            raise AxisError(f"{format_value(pattern)} {error}") from error
        except (ValueError, NotImplementedError, OSError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            raise AxisError(f"{format_value(pattern)} is not a pattern of files: {cause}") from error
        if not found:
            raise AxisError(f"no file matches {format_value(pattern)}")
        return sorted((file if path.is_absolute() else file.relative_to(self.home)).as_posix() for file in found)

    def hash_file(self, name: Any) -> HashedFile:
        """Hash the file that the value of a slot names."""
        if not isinstance(name, str):
            raise AxisError(f"found {format_value(name)}, but a file slot takes the name of a file")
        if name not in self.hashed_files:
            with self._explain_errors(name, FileNotFoundError, IsADirectoryError, NotADirectoryError):
                resolved = self.scope.resolve(self.home / name, name)
                self.hashed_files[name] = HashedFile(resolved, bounded_files.compute_sha256(resolved))
        return self.hashed_files[name]

    @contextmanager
    def _explain_errors(self, name: str, *missing: type[OSError]) -> Iterator[None]:
        """Raise AxisError for whatever prevents the reading of a file; `missing` say that there is no such file."""
        try:
            yield
        except BoundError as error:
            raise AxisError(f"{format_value(name)} {error}") from error
        except missing as error:
            self._missing_count += 1
            advice = suggest_files(self.home / name, name) if self._missing_count <= MAX_EXAMPLES else ""
            raise AxisError(f"there is no file {format_value(name)}{advice}") from error
        except (OSError, ValueError) as error:
            raise AxisError(f"{format_value(name)} {describe_cause(error)}") from error


def suggest_files(path: Path, name: str, suffix: str = "") -> str:
    """Return the end of the message "there is no file": the similar files in that folder, written as `name` is."""
    start = name[: len(name) - len(path.name)]
    try:
        with os.scandir(path.parent) as folder:
            entries = [entry.name for entry in folder if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return f"; there is no folder '{path.parent}' either"
    except (OSError, ValueError):
        return ""
    files = sorted(entry for entry in entries if entry.endswith(suffix) and not entry.startswith("."))
    return suggest(name, [start + entry for entry in files], "files there")


def describe_cause(error: Exception) -> str:
    """Say why a file cannot be read. A name with a NUL raises ValueError before the system is asked."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start})"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    if isinstance(error, OutsideError):
        return f"cannot be read: {error}"
    return "cannot be read: its name contains a NUL character"
