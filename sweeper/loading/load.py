"""Read an experiment and the files that it names, as far as its scope allows.

`load` returns the Experiment or reports the problems of all files together. `load_partial` returns the valid parts in
spite of problems, and what the experiment may read only with trust.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from sweeper.errors import MAX_PROBLEMS, ExperimentError, ImageError, InputError, Problem, TemplateError, UsageError
from sweeper.files import find_name_problem
from sweeper.loading.bounded_files import BoundError, read_named_bytes, read_text_bytes
from sweeper.loading.experiment_builder import PartialExperiment, build_experiment, make_name, with_derived_files
from sweeper.loading.parse import parse_json, parse_yaml
from sweeper.loading.read_scope import (
    EVERYTHING,
    ExperimentFolder,
    OutsideError,
    ReadScope,
    TrustNeed,
    describe_cause,
    find_project,
    is_near,
    make_scope,
    suggest_files,
)
from sweeper.loading.sweep_builder import apply_overrides
from sweeper.loading.template_builder import build_template
from sweeper.loading.trust import describe_missing_trust, find_trust_needs, load_grants
from sweeper.model.experiment import Experiment, select_listed_models, select_settings
from sweeper.model.expressions import ExpressionError, compile_column_expression
from sweeper.model.source import Source, SourceError
from sweeper.model.target_spec import NamedTargets, TargetSpec, find_target_problems
from sweeper.model.template import Template
from sweeper.model.workflow import is_workflow
from sweeper.planning.grid import map_axis_columns
from sweeper.planning.plan import Plan, iter_value_pairs
from sweeper.schemas import find_schema_problems
from sweeper.schemas.values import format_value
from sweeper.wording import join_command, join_names

_MEDIA_SUFFIXES: Final = frozenset((".png", ".webp", ".jpg", ".jpeg", ".mp4", ".webm"))  # that may carry a workflow


def load(
    experiment: str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    named: NamedTargets | None = None,
    name: str | None = None,
    scope: ReadScope = EVERYTHING,
) -> Experiment:
    """Read an experiment with its template and its lists, and hash its input files.

    `overrides` gives names other values, as `--set` does; a list makes an axis. `named` are the user's names for
    servers; with them, an unknown name of a target is also a problem. `name` replaces the experiment's. `scope`: what
    it may read; a caller of this function has chosen the file, so everything by default. Raises ExperimentError with
    the problems of all files.
    """
    partial = load_partial(experiment, overrides=overrides, named=named, name=name, scope=scope)
    if partial.problems or partial.needs:
        raise ExperimentError([*partial.problems, *describe_missing_trust(Path(experiment), partial.needs)])
    return partial.experiment


def load_recorded(
    experiment: str | os.PathLike[str],
    overrides: Mapping[str, Any],
    *,
    results: Path | None = None,
    name: str | None = None,
) -> Experiment:
    """Read the experiment of an earlier run with what the user allowed it.

    `overrides` and `name` are those of `load`. `results`: the results folder that names the file. Its author may be
    somebody else, who would choose which files are read; so the file must belong to the same project, or to the current
    folder, and input files among the overrides count as the experiment's own. None: the user named the file. Raises
    ExperimentError, and UsageError as `load_grants` does.
    """
    file = Path(experiment)
    if results is not None and not is_near(file, results):
        message = "is of another project than these results, so sweeper does not read it; run this in its folder"
        raise ExperimentError(Problem(str(file), 0, "", message))
    grants = load_grants().get(file.parent.resolve(), ())
    scope = make_scope(file, grants, overrides if results is None else {})
    try:
        return load(file, overrides=overrides, name=name, scope=scope)
    except ExperimentError:
        if results is None:
            raise
        # Without what is wrong, because the file may be anything.
        command = join_command(["sweeper", "validate", str(file)])
        message = f"can no longer be read as the experiment of these results; `{command}` says why"
        raise ExperimentError(Problem(str(file), 0, "", message)) from None


def read_name(experiment: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the name of an experiment, and the command that runs it: `run`, or `search` if it has no sweep.

    Reads no file that the experiment names. Raises ExperimentError.
    """
    file = Path(experiment)
    source = _read_experiment(file, ReadScope(find_project(file)))
    name = source.value.get("name", make_name(file))
    is_refused = any(path == ("name",) for path, _ in find_schema_problems("experiment", source.value))
    if is_refused or not isinstance(name, str) or find_name_problem(name) is not None:
        raise ExperimentError(source.make_problem(("name",), "is not a name of an experiment"))
    return name, "search" if "search" in source.value and "sweep" not in source.value else "run"


def load_partial(
    experiment: str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    named: NamedTargets | None = None,
    name: str | None = None,
    scope: ReadScope,
) -> PartialExperiment:
    """Read the valid parts of an experiment, and find the problems in the others. The arguments are those of `load`.

    Raises ExperimentError if the file is not YAML or not a mapping.
    """
    file = Path(experiment)
    source = _read_experiment(file, scope)
    if name is not None:
        source = source.with_value({**source.value, "name": name}, {})
    template_problems: list[Problem] = []
    folder = ExperimentFolder(file.parent, scope)
    template = _load_referenced_template(source, file, folder, template_problems)
    template_outside = folder.outside

    def build(overrides: Mapping[str, Any]) -> PartialExperiment:
        """Build the experiment from what was read, again when servers have listed their model files."""
        folder.outside = {path: [*errors] for path, errors in template_outside.items()}
        folder.pending.clear()
        folder.models = select_listed_models(overrides)
        settings, changed, unused = select_settings(overrides), source, frozenset[str]()
        if settings and not find_schema_problems("experiment", source.value):
            value, unused = apply_overrides(source.value, settings, template.slots if template is not None else {})
            changed = source.with_value(value, {name: f"--set {name}" for name in settings})
        built = build_experiment(
            changed, template, folder, file=file, problems=template_problems, extra_used_names=unused, named=named
        )
        loaded = replace(built.experiment, overrides=dict(overrides), look=folder.look)
        problems = list(built.problems)
        if folder.pending:
            pending = dict(folder.pending)
            loaded = replace(loaded, pending=pending, complete=lambda models: build({**overrides, **models}))
        elif built.has_plan:
            try:
                loaded = with_derived_files(loaded, folder)
                problems += _find_mask_problems(loaded) if not folder.outside else ()
            except ExperimentError as error:
                problems += error.problems
            problems += itertools.islice(_find_override_problems(loaded, changed), MAX_PROBLEMS)
        needs = tuple(folder.list_needs(changed))
        has_plan = built.has_plan and not needs
        return replace(built, experiment=loaded, problems=tuple(problems), needs=needs, has_plan=has_plan)

    return build(overrides or {})


def load_granted(
    file: Path,
    users: NamedTargets,
    *,
    trust: bool,
    targets: Sequence[TargetSpec] | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: object = None,
    checks_names: bool = True,
) -> tuple[PartialExperiment, list[TrustNeed], bool]:
    """Load an experiment with what the user allowed it, and opens no file beyond that.

    Returns it with what it needs trust for and is not trusted with, and whether its folder was trusted before. `trust`:
    it is trusted with everything. `targets`, `overrides` and `out` are the user's own choice, which needs no trust.
    `users` are the user's targets. With `checks_names`, an unknown name of a target is a problem. Raises
    ExperimentError as `load_partial` does, and UsageError as `load_grants` does.
    """
    known = frozenset() if trust else load_grants().get(file.parent.resolve(), frozenset())
    scope = EVERYTHING if trust else make_scope(file, known, overrides or {})
    named = users if targets is None and checks_names else None
    partial = load_partial(file, overrides=overrides, named=named, scope=scope)
    if trust:
        return partial, [], False
    more = find_trust_needs(partial.experiment, known, targets=targets, named=users, out=out)
    return partial, [*partial.needs, *more], bool(known)


def _read_experiment(file: Path, scope: ReadScope) -> Source:
    """Read the mapping of an experiment file. Raises ExperimentError."""
    name = _format_path(file)
    opened: Path | None = None
    if scope.project is not None and file.is_file():  # and no pipe of the shell
        try:
            opened = scope.resolve(file, hidden=True)
        except OutsideError as error:
            where = f"outside of the project {file.parent.resolve()}"
            message = f"is a link to {error.path}, {where}; name that file itself"
            raise ExperimentError(Problem(name, 0, "", message)) from None
        except BoundError as error:
            raise ExperimentError(Problem(name, 0, "", str(error))) from None

    def read(path: Path) -> bytes:
        return read_named_bytes(path) if opened is None else read_text_bytes(opened)

    source = _read_source(file, name, parse_yaml, ExperimentError, read)
    if not isinstance(source.value, dict):
        message = "is not an experiment: a mapping with the key `template` is needed"
        raise ExperimentError(source.make_problem((), message))
    if is_workflow(source.value):
        message = "is a workflow; an experiment names it under `template:`, and `sweeper init DIR` makes one to edit"
        raise ExperimentError(Problem(source.name, 0, "", message))
    return source


def _find_override_problems(experiment: Experiment, source: Source) -> Iterator[Problem]:
    """Yield the mistakes in the conditions of `checks.overrides`, which read the columns of the table."""
    names = frozenset((*experiment.template.slots, *map_axis_columns(experiment)))
    for index, entry in enumerate(experiment.checks.get("overrides", ())):
        try:
            if "where" in entry:  # else the schema has refused it
                compile_column_expression(entry["where"], names)
        except ExpressionError as error:
            yield source.make_problem(("checks", "overrides", index, "where"), str(error))


def check_targets(experiment: Experiment, named: NamedTargets) -> None:
    """Check the targets in the experiment. `named` are the user's names for servers. Raises ExperimentError."""
    source = experiment.source
    if source is not None and (target_problems := find_target_problems(source.value, named)):
        raise ExperimentError(source.make_problem(path, message) for path, message in target_problems)


def load_template(file: str | os.PathLike[str], scope: ReadScope = EVERYTHING) -> Template:
    """Read a template: the workflow, and `name.slots.yaml` beside it if it exists.

    Raises TemplateError, and OutsideError if one of them is outside of the scope.
    """
    path = Path(file)
    sidecar = get_slots_file(path)
    opened = {part: _resolve_template_file(part, scope) for part in (path, sidecar)}

    def read(part: Path, parse: Any) -> Source:
        return _read_source(part, _format_path(part), parse, TemplateError, lambda _: read_text_bytes(opened[part]))

    has_sidecar = os.path.exists(sidecar)  # noqa: PTH110 - raises no error for a name that no disk accepts
    return build_template(read(path, parse_json), read(sidecar, parse_yaml) if has_sidecar else None)


def get_slots_file(template: Path) -> Path:
    return template.with_name(template.name.removesuffix(template.suffix) + ".slots.yaml")


def _resolve_template_file(path: Path, scope: ReadScope) -> Path:
    try:
        return scope.resolve(path)
    except BoundError as error:
        raise TemplateError(Problem(_format_path(path), 0, "", str(error))) from error
    except (OSError, ValueError):  # no name of a file, so nothing is there
        return path


def read_workflow(file: str | os.PathLike[str]) -> Source:
    """Read the JSON of a workflow without checking it. Raises TemplateError."""
    path, open_file = Path(file), lambda part: read_text_bytes(EVERYTHING.resolve(part))
    return _read_source(path, _format_path(path), parse_json, TemplateError, open_file)


def read_yaml_file(file: Path, scope: ReadScope = EVERYTHING) -> Source:
    """Read a YAML or JSON file other than an experiment, without checking it. Raises UsageError."""
    try:
        return _read_source(file, str(file), parse_yaml, UsageError, lambda path: read_text_bytes(scope.resolve(path)))
    except OutsideError as error:
        message = f"is a link to {error.path}, outside of the project; name that file itself"
        raise UsageError(Problem(str(file), 0, "", message)) from None


def _load_referenced_template(
    source: Source, file: Path, folder: ExperimentFolder, problems: list[Problem]
) -> Template | None:
    name = source.value.get("template")
    if not isinstance(name, str) or not name:
        return None
    path = file.parent / name
    try:
        if path.name:
            for part in (path, get_slots_file(path)):  # before anything is said of what lies there
                _resolve_template_file(part, folder.scope)
        if not os.path.exists(path) or path.is_dir():  # noqa: PTH110 - as above
            message = f"there is no file {format_value(name)}{suggest_files(path, name, '.json')}"
            problems.append(source.make_problem(("template",), message))
            return None
        template = load_template(path, folder.scope)
    except OutsideError as error:
        folder.add_outside(("template",), error)
        return None
    except TemplateError as error:
        problems.extend(error.problems)
        return None
    return _with_relative_defaults(template, path.parent, file.parent)


def _with_relative_defaults(template: Template, home: Path, folder: Path) -> Template:
    """Make the defaults of file slots relative to the experiment, as params are. They are relative to the template."""
    slots = dict(template.slots)
    for name, slot in slots.items():
        if slot.is_file and isinstance(slot.default, str):
            path = home / slot.default
            try:
                default = os.path.relpath(path, folder).replace(os.sep, "/")
            except ValueError:  # on another drive of Windows
                default = path.resolve().as_posix()
            slots[name] = replace(slot, default=default)
    return replace(template, slots=slots)


def _read_source(
    path: Path, name: str, parse: Any, error_class: type[InputError], read_bytes: Callable[[Path], bytes]
) -> Source:
    try:
        text = read_bytes(path).decode("utf-8-sig")
        source: Source = parse(text.replace("\r\n", "\n").replace("\r", "\n"), name)
    except SourceError as error:
        raise error_class(error.problem) from error
    except (OSError, ValueError) as error:
        is_template = error_class is TemplateError
        if isinstance(error, BoundError):
            message = str(error)
        elif isinstance(error, FileNotFoundError):
            message = f"there is no such file{suggest_files(path, name, path.suffix or '.yaml')}"
        elif isinstance(error, UnicodeDecodeError) and is_template and path.suffix.lower() in _MEDIA_SUFFIXES:
            made = join_command(["sweeper", "template", "new", name, "-o", str(Path(name).with_suffix(".json"))])
            message = f"is a picture; if it carries its workflow, make a template of it: {made}"
        elif isinstance(error, OSError) and path.is_dir():
            suffix = ".json" if is_template else ".yaml"
            files = sorted(file.name for file in path.glob(f"*{suffix}") if not file.name.endswith(".slots.yaml"))
            paths = [str(Path(name) / file) for file in files]
            contents = f"; name a file in it: {join_names(paths)}" if paths else f", without a {suffix} file in it"
            message = f"is a folder{contents}"
        else:
            message = describe_cause(error)
        raise error_class(Problem(name, 0, "", message)) from error
    return source


def _format_path(path: Path) -> str:
    """Return the path relative to the current folder if it is inside it, else unchanged."""
    try:
        return str(Path(os.path.realpath(path)).relative_to(Path.cwd()))  # `resolve` fails for a loop of links
    except ValueError:
        return str(path)


def _find_mask_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield each mask that does not fit the picture under it in any trial. Only the headers of the files are read."""
    for slot in experiment.template.slots.values():
        if slot.masked_slot:
            mismatched = dict(_find_mismatched_pairs(experiment, slot.masked_slot, slot.name))
            has_filters = any(block.exclude or block.where or block.sample for block in experiment.blocks)
            trials = Plan(experiment).written() if mismatched and has_filters else ()
            used = {(trial.params[slot.masked_slot], trial.params[slot.name]) for trial in trials}
            found = (problem for pair, problem in mismatched.items() if not has_filters or pair in used)
            yield from dict.fromkeys(found)


def _find_mismatched_pairs(
    experiment: Experiment, picture: str, mask: str
) -> Iterator[tuple[tuple[Any, Any], Problem]]:
    from sweeper.images.decoding import read_size

    @cache
    def size_or_error(name: str) -> tuple[int, int] | str:
        try:
            return read_size(experiment.files[name].path)
        except ImageError as error:
            return str(error)

    seen: set[tuple[Any, Any]] = set()
    for picture_name, mask_name, locate in iter_value_pairs(experiment, picture, mask):
        pair = picture_name, mask_name
        if pair in seen or not {*pair} <= experiment.files.keys():
            continue
        seen.add(pair)
        picture_size, mask_size = size_or_error(picture_name), size_or_error(mask_name)
        place, message = mask, ""
        if isinstance(picture_size, str):
            place, message = picture, f"the picture {format_value(picture_name)} of a mask {picture_size}"
        elif isinstance(mask_size, str):
            message = f"the mask {format_value(mask_name)} {mask_size}"
        elif picture_size != mask_size:
            mask_text = f"the mask {format_value(mask_name)} has {mask_size[0]} x {mask_size[1]} pixels"
            picture_text = f"its picture {format_value(picture_name)} {picture_size[0]} x {picture_size[1]}"
            message = f"{mask_text}, but {picture_text}; both must have the same size"
        if message:
            yield pair, replace(locate(place), message=message)
