"""Which files an experiment may read: those of its project, those that the user allowed, and none of the system's.

A file outside is not opened. `OutsideError` says what trust it needs, so that nothing in it can reach a message before
the user decides.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.errors import Problem
from sweeper.loading.bounded_files import check_is_no_system_file
from sweeper.model.axis_values import AxisError
from sweeper.schemas.values import format_value

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

    def contains(self, path: Path) -> bool:
        """Whether a file is in the project, links resolved, and neither hidden nor in a hidden folder.

        Hidden files hold secrets: `.env`, `.git/config`. A path that the system does not accept counts as contained,
        because nothing can be read from it.
        """
        resolved = _resolve(path)
        return resolved is None or any(
            resolved.is_relative_to(folder)
            and not any(part.startswith(".") for part in resolved.relative_to(folder).parts)
            for folder in (self.folder, self.home, *self.extra)
        )

    def surrounds(self, path: Path) -> bool:
        """Whether a file is in the project, hidden or not."""
        resolved = _resolve(path)
        return resolved is None or any(
            resolved.is_relative_to(folder) for folder in (self.folder, self.home, *self.extra)
        )


def find_project(file: Path) -> Project:
    """Find the project of an experiment: the nearest folder with `.git` or `pyproject.toml`, else its own folder.

    Without a marker, `templates/` beside a folder `experiments/` belongs to it. The user's home folder, and the folders
    above it, are never a project: they hold everything that the user has.
    """
    home = file.parent.resolve()
    excluded = {Path(home.anchor)}
    try:
        user_home = Path.home().resolve()
        excluded |= {user_home, *user_home.parents}
    except RuntimeError:  # no home folder is known
        pass
    for folder in (home, *home.parents):
        if folder not in excluded and has_marker(folder):
            return Project(folder, home)
    neighbour = _NEIGHBOURS.get(home.name)
    return Project(home, home, () if neighbour is None else ((home.parent / neighbour).resolve(),))


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
        super().__init__(f"reads {format_value(str(path))}, {where} the project {project.folder}")
        self.path = path

    @property
    def grant(self) -> str:
        """What the user allows by a yes."""
        return f"{_READ}{self.path}"


_READ: Final = "read "  # how the grant of a file or folder begins


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

    def resolve(self, path: Path, name: str | None = None) -> Path:
        """Return the path without links, to be opened as it is. `name`: of an input file, as the experiment writes it.

        Raises OutsideError; BoundError for a folder of the system, which nobody may read; and OSError or ValueError for
        a name that the system does not accept.
        """
        resolved = Path(os.path.realpath(path))
        check_is_no_system_file(resolved)
        if not (
            self.project is None or name in self.given or self.project.contains(path) or self._is_granted(resolved)
        ):
            raise OutsideError(resolved, self.project)
        return resolved

    def check_folder(self, folder: Path) -> None:
        """Check a folder that a pattern reached by a link. Raises OutsideError. Hidden folders are no concern here."""
        if self.project is None or self.project.surrounds(folder):
            return
        resolved = folder.resolve()
        if not self._is_granted(resolved):
            raise OutsideError(resolved, self.project)

    def _is_granted(self, resolved: Path) -> bool:
        return any(resolved.is_relative_to(granted) for granted in self.granted)


EVERYTHING: Final = ReadScope(None)


def make_scope(file: Path, grants: Collection[str], overrides: Mapping[str, Any]) -> ReadScope:
    """Return the scope of an experiment file.

    `grants`: what the user allowed for it. `overrides`: the values given with `--set`, one or a list for each name; any
    text among them may be the name of an input file.
    """
    granted = tuple(Path(grant.removeprefix(_READ)) for grant in grants if grant.startswith(_READ))
    values = [item for value in overrides.values() for item in (value if isinstance(value, list) else [value])]
    return ReadScope(find_project(file), granted, frozenset(value for value in values if isinstance(value, str)))


def _resolve(path: Path) -> Path | None:
    """Return the path with links resolved; None if the system does not accept it: a loop of links, or a NUL."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, RuntimeError, ValueError):
        return None
