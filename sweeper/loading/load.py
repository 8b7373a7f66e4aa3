"""Reads an experiment and all that it names: the only part of the model that opens files.

`load` gives the Experiment with its template checked; what is wrong in any of the files is reported together. `draft`
gives what could be read in spite of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from sweeper.did_you_mean import join_names, suggest
from sweeper.errors import ExperimentError, ImageError, Problem, TemplateError
from sweeper.images.metrics import find_unknown_metrics
from sweeper.loading.experiment_builder import PartialExperiment, build_experiment, with_derived_files
from sweeper.loading.overrides import apply_overrides
from sweeper.loading.parse import parse_json, parse_yaml
from sweeper.loading.template_builder import build_template
from sweeper.model.axis_values import AxisError
from sweeper.model.experiment import Experiment, HashedFile
from sweeper.model.source import Source, SourceError
from sweeper.model.target_spec import NamedTargets, find_target_problems
from sweeper.model.template import Template
from sweeper.model.workflow import is_workflow
from sweeper.planning.plan import Plan, iter_value_pairs
from sweeper.schemas import find_schema_problems
from sweeper.schemas.values import format_value

MAX_BYTES: Final = 64 * 1024 * 1024  # of one text file; the largest real workflows have 2 MB
_CHUNK: Final = 1 << 20


def load(
    experiment: str | os.PathLike[str], *, overrides: Mapping[str, Any] | None = None, named: NamedTargets | None = None
) -> Experiment:
    """Read an experiment with its template, its lists and its input files' hashes.

    `overrides` fixes names to one value each, as `--set` does. `named` are the user's names for servers: with them a
    target that is none of these, and no name of the experiment's, is a problem too. Raises ExperimentError with every
    problem of every file.
    """
    found = load_partial(experiment, overrides=overrides, named=named)
    if found.problems:
        raise ExperimentError(found.problems)
    return found.experiment


def load_partial(
    experiment: str | os.PathLike[str], *, overrides: Mapping[str, Any] | None = None, named: NamedTargets | None = None
) -> PartialExperiment:
    """As `load`, and what could be read in spite of its problems, for who looks for more of them.

    Raises ExperimentError where the file itself is no mapping in YAML.
    """
    file = Path(experiment)
    source = _read_source(file, _format_path(file), parse_yaml, ExperimentError)
    value = source.value
    if not isinstance(value, dict):
        raise ExperimentError(source.make_problem((), "is no experiment: a mapping with the key `template` is needed"))
    if is_workflow(value):
        message = "is a workflow; an experiment names it under `template:`, and `sweeper init DIR` makes one to edit"
        raise ExperimentError(Problem(source.name, 0, "", message))
    read: frozenset[str] = frozenset()
    if overrides and not find_schema_problems("experiment", value):
        value, read = apply_overrides(value, overrides)
        source = source.with_value(value, {name: f"--set {name}" for name in overrides})
    problems: list[Problem] = []
    template = _load_referenced_template(source, file, problems)
    metrics = value.get("metrics")
    names = [str(metric) for metric in metrics] if isinstance(metrics, list) else []
    unknown = [(names.index(metric), message) for metric, message in find_unknown_metrics(names)]
    folder = _ExperimentFolder(file.parent)
    found = build_experiment(
        source,
        template,
        folder,
        file=file,
        metric_problems=unknown,
        problems=problems,
        extra_used_names=read,
        named=named,
    )
    made, problems = replace(found.experiment, overrides=dict(overrides or {})), list(found.problems)
    if found.has_plan:
        try:
            made = with_derived_files(made, folder)
            problems += _find_mask_problems(made)
        except ExperimentError as error:
            problems += error.problems
    return replace(found, experiment=made, problems=tuple(problems))


def check_targets(experiment: Experiment, named: NamedTargets) -> None:
    """See that each of the experiment's own targets is one, `named` being the user's names. Raises ExperimentError."""
    source = experiment.source
    wrong = find_target_problems(source.value, named) if source is not None else []
    if source is not None and wrong:
        raise ExperimentError(source.make_problem(path, message) for path, message in wrong)


def load_template(file: str | os.PathLike[str]) -> Template:
    """Read a template: the workflow, and `name.slots.yaml` beside it where there is one. Raises TemplateError."""
    path = Path(file)
    sidecar = path.with_name(path.name.removesuffix(path.suffix) + ".slots.yaml")
    workflow = _read_source(path, _format_path(path), parse_json, TemplateError)
    there = os.path.exists(sidecar)  # noqa: PTH110 - Path's raises for names that no disk takes
    slots = _read_source(sidecar, _format_path(sidecar), parse_yaml, TemplateError) if there else None
    return build_template(workflow, slots)


def read_workflow(file: str | os.PathLike[str]) -> Source:
    """Read a workflow's JSON without asking what is in it. Raises TemplateError."""
    return _read_source(Path(file), _format_path(Path(file)), parse_json, TemplateError)


def _load_referenced_template(source: Source, file: Path, problems: list[Problem]) -> Template | None:
    name = source.value.get("template")
    if not isinstance(name, str) or not name:
        return None
    path = file.parent / name
    if not os.path.isfile(path):  # noqa: PTH113 - Path's raises for names that no disk takes
        problems.append(
            source.make_problem(
                ("template",), f"there is no file {format_value(name)}{_suggest_files(path, name, '.json')}"
            )
        )
        return None
    try:
        template = load_template(path)
    except TemplateError as error:
        problems.extend(error.problems)
        return None
    return _with_relative_defaults(template, path.parent, file.parent)


def _with_relative_defaults(template: Template, home: Path, folder: Path) -> Template:
    """A file slot's default is written relative to its template; params are relative to the experiment."""
    slots = dict(template.slots)
    for name, slot in slots.items():
        if slot.is_file and isinstance(slot.default, str):
            slots[name] = replace(slot, default=_to_relative(home / slot.default, folder))
    return replace(template, slots=slots)


def _read_source(path: Path, name: str, parse: Any, error_class: type[ExperimentError | TemplateError]) -> Source:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise error_class(Problem(name, 0, "", f"has more than {MAX_BYTES:,} bytes"))
        source: Source = parse(path.read_text("utf-8-sig"), name)
    except FileNotFoundError as error:
        raise error_class(
            Problem(name, 0, "", f"there is no such file{_suggest_files(path, name, path.suffix or '.yaml')}")
        ) from error
    except UnicodeDecodeError as error:
        raise error_class(Problem(name, 0, "", f"is not UTF-8 text (byte {error.start})")) from error
    except (OSError, ValueError) as error:
        folder = isinstance(error, OSError) and path.is_dir()
        cause = (
            _describe_folder(path, name, ".yaml" if error_class is ExperimentError else ".json")
            if folder
            else f"cannot be read: {_describe_cause(error)}"
        )
        raise error_class(Problem(name, 0, "", cause)) from error
    except SourceError as error:
        raise error_class(error.problem) from error
    return source


def _describe_folder(path: Path, name: str, suffix: str) -> str:
    """That a folder was named, and the files in it that may have been meant."""
    there = sorted(one.name for one in path.glob(f"*{suffix}") if not one.name.endswith(".slots.yaml"))
    inside = [str(Path(name) / one) for one in there]
    return (
        f"is a folder; name a file in it: {join_names(inside)}"
        if inside
        else f"is a folder, without a {suffix} file in it"
    )


def _to_relative(path: Path, folder: Path) -> str:
    try:
        return os.path.relpath(path, folder).replace(os.sep, "/")
    except ValueError:  # Windows, on another drive: no relative way leads there
        return path.resolve().as_posix()


def _suggest_files(path: Path, name: str, suffix: str = "") -> str:
    """The tail of "there is no file": what lies in that folder, as `name` would be written."""
    start = name[: len(name) - len(path.name)]
    try:
        with os.scandir(path.parent) as folder:
            entries = [entry.name for entry in folder if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return f"; there is no folder '{path.parent}' either"
    except (OSError, ValueError):
        return ""
    there = sorted(entry for entry in entries if entry.endswith(suffix) and not entry.startswith("."))
    return suggest(name, [start + entry for entry in there], "files there")


def _describe_cause(error: Exception) -> str:
    """Why the system does not open a file; a name with a NUL never gets as far as the system."""
    return str(error.strerror if isinstance(error, OSError) else error)


def _format_path(path: Path) -> str:
    """The path as the user would type it from here, without climbing steps."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _find_mask_problems(experiment: Experiment) -> Iterator[Problem]:
    """What is wrong between masks and the pictures below them: each pair that a trial has, once, by the headers."""
    for slot in experiment.template.slots.values():
        if slot.masked_slot:
            odd = dict(_find_mismatched_pairs(experiment, slot.masked_slot, slot.name))
            filtered = any(block.exclude or block.where or block.sample for block in experiment.blocks)
            trials = Plan(experiment).written() if odd and filtered else ()
            there = {(trial.params[slot.masked_slot], trial.params[slot.name]) for trial in trials}
            yield from dict.fromkeys(problem for pair, problem in odd.items() if not filtered or pair in there)


def _find_mismatched_pairs(
    experiment: Experiment, picture: str, mask: str
) -> Iterator[tuple[tuple[Any, Any], Problem]]:
    """Each pair of a picture and a mask that cannot go together, and why."""
    from sweeper.images.decoding import read_size

    @cache
    def size_or_error(name: str) -> tuple[int, int] | str:
        try:
            return read_size(experiment.files[name].path)
        except ImageError as error:
            return str(error)

    seen: set[tuple[Any, Any]] = set()
    for below, above, where in iter_value_pairs(experiment, picture, mask):
        pair = below, above
        if pair in seen or not {*pair} <= experiment.files.keys():
            continue
        seen.add(pair)
        one, other = size_or_error(below), size_or_error(above)
        if isinstance(one, str):
            yield pair, replace(where(picture), message=f"the picture {format_value(below)} of a mask {one}")
        elif isinstance(other, str):
            yield pair, replace(where(mask), message=f"the mask {format_value(above)} {other}")
        elif one != other:
            sizes = f"{other[0]} x {other[1]} pixels, but its picture {format_value(below)} {one[0]} x {one[1]}"
            message = f"the mask {format_value(above)} has {sizes}; the two must be of one size"
            yield pair, replace(where(mask), message=message)


class _ExperimentFolder:
    """The experiment's folder: every relative name in the file starts here."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.hashed_files: dict[str, HashedFile] = {}

    def read_text(self, name: str) -> str:
        path = self.home / name
        try:
            if path.stat().st_size > MAX_BYTES:
                raise AxisError(f"'{name}' has more than {MAX_BYTES:,} bytes")
            # Universal newlines would cut a line at a CR that stands alone.
            return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AxisError(f"there is no file {format_value(name)}{_suggest_files(path, name)}") from error
        except UnicodeDecodeError as error:
            raise AxisError(f"'{name}' is not UTF-8 text (byte {error.start})") from error
        except (OSError, ValueError) as error:
            raise AxisError(f"{format_value(name)} cannot be read: {_describe_cause(error)}") from error

    def find_files(self, pattern: str) -> list[str]:
        if Path(pattern) in (Path(), Path(Path(pattern).anchor)):  # Python 3.11's glob has an IndexError for these
            inside = pattern.rstrip("/") + "/*"
            raise AxisError(f"{format_value(pattern)} is a folder and no pattern of files; its files are {inside}")
        try:
            if Path(pattern).is_absolute():
                anchor = Path(pattern).anchor
                found = [str(one) for one in Path(anchor).glob(str(Path(pattern).relative_to(anchor))) if one.is_file()]
            else:
                found = [one.relative_to(self.home).as_posix() for one in self.home.glob(pattern) if one.is_file()]
        except (ValueError, NotImplementedError, OSError) as error:
            raise AxisError(f"{format_value(pattern)} is no pattern of files: {_describe_cause(error)}") from error
        if not found:
            raise AxisError(f"no file matches {format_value(pattern)}")
        return sorted(found)

    def hash_file(self, name: str) -> HashedFile:
        if name not in self.hashed_files:
            path = self.home / name
            try:
                self.hashed_files[name] = HashedFile(path.resolve(), _compute_sha256(path))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise AxisError(f"there is no file {format_value(name)}{_suggest_files(path, name)}") from error
            except (OSError, ValueError) as error:
                raise AxisError(f"{format_value(name)} cannot be read: {_describe_cause(error)}") from error
        return self.hashed_files[name]


def _compute_sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()
