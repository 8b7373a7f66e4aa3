"""Find what an experiment may do only with the user's trust: keys, own code, and files outside of its project.

Nothing here decides. The command line asks the user; a program that calls `sweeper.run` has chosen its file itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from sweeper.errors import Problem
from sweeper.model.experiment import Experiment, RunSettings
from sweeper.model.source import Source
from sweeper.model.target_spec import (
    CLOUD,
    CLOUD_KEYS,
    CLOUD_URL,
    KEY_VARIABLES,
    InvalidEntry,
    NamedTargets,
    TargetSpec,
    is_comfy_platform,
    is_deployment,
    list_known_keys,
    parse_target,
)
from sweeper.model.urls import identify_server
from sweeper.schemas.values import KeyPath, format_value

_MARKERS: Final = (".git", "pyproject.toml")  # of a project folder
_READING_FORMS: Final = ("lines", "csv", "files")
_PATTERN_CHARACTERS: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Project:
    """The folder that an experiment belongs to, as a resolved path.

    `home` is the experiment's own folder. `has_marker`: the project folder has `.git` or `pyproject.toml`.
    """

    folder: Path
    home: Path
    has_marker: bool

    @property
    def suggested_folder(self) -> Path:
        """The folder to trust. Without a marker it is the experiment's, because its neighbours may be strangers'."""
        return self.folder if self.has_marker else self.home

    def is_trusted(self, folders: Collection[Path]) -> bool:
        """Whether one of the trusted folders is this project, or a folder of it that contains the experiment."""
        return any(folder.is_relative_to(self.folder) and self.home.is_relative_to(folder) for folder in folders)

    def contains(self, path: Path) -> bool:
        """Whether a file is in the project, links resolved, and neither hidden nor in a hidden folder.

        Hidden files hold secrets: `.env`, `.git/config`. A path that the system does not accept counts as contained,
        because nothing can be read from it.
        """
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a NUL
            return True
        return any(
            resolved.is_relative_to(folder)
            and not any(part.startswith(".") for part in resolved.relative_to(folder).parts)
            for folder in (self.folder, self.home)
        )


def find_project(file: Path) -> Project:
    """Find the project of an experiment: the nearest folder with `.git` or `pyproject.toml`, else the folder above.

    The user's home folder, and the folders above it, are never a project: they hold everything that the user has.
    """
    home = file.parent.resolve()
    excluded = {Path(home.anchor)}
    try:
        user_home = Path.home().resolve()
        excluded |= {user_home, *user_home.parents}
    except RuntimeError:  # no home folder is known
        pass
    for folder in (home, *home.parents):
        if folder not in excluded and any((folder / marker).exists() for marker in _MARKERS):
            return Project(folder, home, has_marker=True)
    return Project(home if home.parent in excluded else home.parent, home, has_marker=False)


def find_trust_needs(
    experiment: Experiment,
    *,
    targets: Sequence[TargetSpec] | None = None,
    named: NamedTargets | None = None,
    out: object = None,
) -> list[Problem]:
    """List what the experiment may do only with trust, each with its location and what it would do.

    `targets` and `out` are the user's own choice, which replaces the experiment's. `named` are the user's targets.
    """
    source = experiment.source
    if source is None:  # made by a program, not from a file
        return []
    project = find_project(experiment.file)
    needs = [
        *_find_keys(experiment, targets, named or {}),
        *_find_prices(experiment, targets),
        *_find_code(experiment),
        *_find_judges(experiment),
        *_find_output(experiment, project, out),
    ]
    problems = {source.make_problem(path, message) for path, message in needs}
    return sorted(problems | {*find_outside_reads(experiment, project)})


def find_outside_reads(experiment: Experiment, project: Project) -> list[Problem]:
    """List the files outside of a project that the experiment reads, each with its location."""
    source = experiment.source
    if source is None:
        return []
    needs = [
        *_find_templates(experiment, source, project),
        *_find_reads(experiment, source, project),
        *_find_input_files(experiment, project),
    ]
    return sorted({source.make_problem(path, message) for path, message in needs})


_Needs = Iterator[tuple[KeyPath, str]]


def _find_keys(experiment: Experiment, targets: Sequence[TargetSpec] | None, named: NamedTargets) -> _Needs:
    """Yield each variable that a used target of the experiment names for a host for which the user did not name it.

    A deployment gets a key although no variable is named, and anybody can have one; so it needs trust too.
    """
    known_keys = list_known_keys(named) | {(identify_server(CLOUD_URL), key) for key in CLOUD_KEYS}
    for path, spec in _iter_used_entries(experiment, targets):
        settings = parse_target(spec, {}).settings
        server = settings.get("url") or f"worker {settings.get('worker')}"
        for setting in KEY_VARIABLES:
            variable = settings.get(setting)
            is_named = setting in spec or is_deployment(server)
            if variable and is_named and (identify_server(server), variable) not in known_keys:
                yield (
                    (*path, setting) if setting in spec else path,
                    f"sends the value of the environment variable {variable} to {server}",
                )


def _find_prices(experiment: Experiment, targets: Sequence[TargetSpec] | None) -> _Needs:
    """Yield what lets the experiment spend without a question: too low a price, or too high a sum that needs none."""
    for path, spec in _iter_used_entries(experiment, targets):
        settings = parse_target(spec, {}).settings
        server = settings.get("url", "")
        pays = is_comfy_platform(server) or any(settings.get(variable) for variable in KEY_VARIABLES)
        if "price" in spec and pays:
            yield (*path, "price"), f"states what {server} costs, and sweeper asks before it spends by that"
    if experiment.run.confirm_above > RunSettings().confirm_above:
        yield ("run", "confirm_above"), f"lets runs cost {experiment.run.confirm_above:g} USD without a question"


def _iter_used_entries(
    experiment: Experiment, targets: Sequence[TargetSpec] | None
) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yield the path and the settings of each target that the experiment itself defines and this command uses."""
    names = experiment.named_targets
    used = {CLOUD}  # its entry completes every target on Comfy Cloud
    for index, spec in enumerate(experiment.targets if targets is None else targets):
        if isinstance(spec, str) and "://" not in spec:
            used.add(spec.strip())
        elif targets is None:
            path = ("target", index) if _has_target_list(experiment) else ("target",)
            yield path, {"url": spec} if isinstance(spec, str) else spec
    for name in used & names.keys():
        entry = names[name]
        if not isinstance(entry, InvalidEntry):
            settings = {"url": entry} if isinstance(entry, str) else entry
            yield ("targets", name), {**({"url": CLOUD_URL} if name == CLOUD else {}), **settings}


def _has_target_list(experiment: Experiment) -> bool:
    return experiment.source is not None and isinstance(experiment.source.value.get("target"), list)


def _find_code(experiment: Experiment) -> _Needs:
    listed = experiment.source.value.get("metrics", ()) if experiment.source is not None else ()
    for index, metric in enumerate(experiment.metrics):
        module, colon, _ = metric.partition(":")
        if colon:
            path = ("metrics", index) if index < len(listed) else ("search",)
            yield path, f"imports the module '{module}', from the current folder first, and runs its code"


def _find_judges(experiment: Experiment) -> _Needs:
    for name, judge in experiment.judges.items():
        key = f", with the value of the environment variable {judge.key_env}" if judge.key_env else ""
        path = ("metrics", experiment.metrics.index(name))
        yield path, f"sends its pictures, and a question about them, to {judge.url}{key}"


def _find_templates(experiment: Experiment, source: Source, project: Project) -> _Needs:
    name = source.value.get("template")
    if not isinstance(name, str):
        return
    file = experiment.file.parent / name
    if not file.name:  # a folder, which is reported elsewhere
        return
    for path in (file, file.with_name(file.name.removesuffix(file.suffix) + ".slots.yaml")):
        if not project.contains(path):
            yield ("template",), _describe_read(path, project)


def _find_reads(experiment: Experiment, source: Source, project: Project) -> _Needs:
    """Yield the axes that take their values from files outside of the project."""
    for path, form in (*_iter_axis_forms(source.value.get("sweep")), *_iter_search_forms(source.value.get("search"))):
        for key in _READING_FORMS:
            name = form.get(key)
            if isinstance(name, str):
                file = experiment.file.parent / (_cut_pattern(name) if key == "files" else name)
                if not project.contains(file):
                    yield (*path, key), _describe_read(file, project)


def _iter_axis_forms(sweep: Any) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    blocks: list[tuple[KeyPath, Any]] = [(("sweep",), sweep)]
    if isinstance(sweep, list):
        blocks = [(("sweep", index), block) for index, block in enumerate(sweep)]
    for path, block in blocks:
        if not isinstance(block, Mapping):
            continue
        groups: list[tuple[KeyPath, Any]] = [((*path, "grid"), block.get("grid"))]
        zipped = block.get("zip")
        groups += [
            ((*path, "zip", index), group) for index, group in enumerate(zipped if isinstance(zipped, list) else ())
        ]
        for group_path, group in groups:
            for name, form in group.items() if isinstance(group, Mapping) else ():
                if isinstance(form, Mapping):
                    yield (*group_path, name), form


def _iter_search_forms(search: Any) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    for section in ("space", "over"):
        axes = search.get(section) if isinstance(search, Mapping) else None
        for name, form in axes.items() if isinstance(axes, Mapping) else ():
            if isinstance(form, Mapping):
                yield ("search", section, name), form


def _cut_pattern(pattern: str) -> Path:
    """Return the folder of a pattern that certainly contains every match: the parts before the first wildcard."""
    parts = Path(pattern).parts
    end = next((index for index, part in enumerate(parts) if _PATTERN_CHARACTERS & set(part)), len(parts))
    rest = parts[end:]
    # `..` after a wildcard can lead out again.
    return Path(*parts[:end], *(part for part in rest if part == ".."))


def _find_input_files(experiment: Experiment, project: Project) -> _Needs:
    """Yield the values of file slots that are outside of the project; one for each part of the file that gives some."""
    # What the user gave with --set, one value or a list of them.
    values = (value if isinstance(value, list) else [value] for value in experiment.overrides.values())
    given = {value for items in values for value in items if isinstance(value, str)}
    outside = {
        name: file.path
        for name, file in experiment.files.items()
        if name not in given and not project.contains(file.path)
    }
    locations = dict(_iter_value_locations(experiment)) if outside else {}
    defaults = {slot.default for slot in experiment.template.slots.values() if slot.is_file}
    files_by_path: dict[KeyPath, list[Path]] = {}
    for name, file in outside.items():
        path = locations.get(name, ("template",) if name in defaults else ("derive",))
        files_by_path.setdefault(path, []).append(file)
    for path, files in files_by_path.items():
        yield path, _describe_read(files[0], project, others=len(files) - 1)


def _iter_value_locations(experiment: Experiment) -> Iterator[tuple[str, KeyPath]]:
    """Yield each text that the file gives to a name, with its path in the file."""
    for block in experiment.written_blocks:
        for index, row in enumerate(block.include):
            yield from ((value, (*block.path, "include", index)) for value in row.values.values() if _is_text(value))
        for axis in (axis for dimension in block.dimensions for axis in dimension):
            for index, option in enumerate(axis.options):
                for value in (option.value, *option.sets.values()):
                    if _is_text(value):
                        yield value, axis.locate_option(experiment.source, index)
    for name, value in experiment.params.items():
        if _is_text(value):
            yield value, ("params", name)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _find_output(experiment: Experiment, project: Project, out: object) -> _Needs:
    url = experiment.run.out
    if url is None or (isinstance(out, str) and "://" in out):
        return
    # A URL with a host, or a chain of file systems (`::`), is not a plain path.
    is_plain_path = url.startswith("file:///") and "::" not in url
    if not is_plain_path or not project.contains(Path(find_url_path(url))):
        yield ("run", "out"), f"writes to {url}, which is outside of the project {project.folder}"


def find_url_path(url: str, platform: str = sys.platform) -> str:
    """Return the path of a URL `file:///...`: `C:/a` of `file:///C:/a` on Windows. `platform`: as `sys.platform`."""
    path = unquote(url.removeprefix("file://"))
    return re.sub(r"^/(?=[A-Za-z]:)", "", path) if platform == "win32" else path


def _describe_read(path: Path, project: Project, *, others: int = 0) -> str:
    more = f" and {others} other files" if others else ""
    kind = "hidden in" if path.resolve().is_relative_to(project.folder) else "outside of"
    return f"reads {format_value(str(path))}{more}, {kind} the project {project.folder}"
