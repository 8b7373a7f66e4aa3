"""Find what an experiment may do only with the user's trust: keys, own code, and what it writes elsewhere.

`sweeper.loading.load` finds the files that it may read only with trust. Nothing here decides. The command line asks the
user; a program that calls `sweeper.run` has chosen its file itself.

What the user allowed is in `trusted.json` in the configuration folder, or in the file $SWEEPER_TRUST_FILE. A grant
belongs to one folder and not to those below it, because a clone in a trusted folder is a stranger's.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from sweeper.errors import Problem, UsageError
from sweeper.files import atomic_write
from sweeper.loading.read_scope import Project, TrustNeed, find_project
from sweeper.loading.targets_file import get_user_file
from sweeper.model.experiment import Experiment, RunSettings
from sweeper.model.launch_spec import make_launch_spec
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
from sweeper.model.urls import identify_server, parse_notify_url
from sweeper.schemas.values import KeyPath, fits_shape
from sweeper.wording import join_command, join_names, shorten

# Where sweeper writes beside an experiment unless the user names a folder; {} is the experiment's name.
_RESULTS_FOLDERS: Final = ("results/{}/artifacts", "results/{}-check/artifacts", "results/{}-calibrate/artifacts")
_BASELINE_FOLDERS: Final = ("baselines/{}",)
_Needs = Iterator[tuple[KeyPath, str]]
TRUST_VARIABLE: Final = "SWEEPER_TRUST_FILE"
_KEY: Final = "folders"
Grants = Mapping[Path, frozenset[str]]  # by the resolved folder of the experiments


def find_trust_needs(
    experiment: Experiment,
    known: frozenset[str] = frozenset(),
    *,
    targets: Sequence[TargetSpec] | None = None,
    named: NamedTargets | None = None,
    out: object = None,
) -> list[TrustNeed]:
    """List what the experiment may do only with trust, besides reading files, each with its location.

    `known` is granted already, and left out. `targets` and `out` are the user's own choice, which replaces the
    experiment's. `named` are the user's targets.
    """
    source = experiment.source
    if source is None:  # made by a program, not from a file
        return []
    project = find_project(experiment.file)
    needs = [
        *_find_keys(experiment, targets, named or {}),
        *_find_prices(experiment, targets, named or {}),
        *_find_launches(experiment, targets, named or {}),
        *_find_code(experiment),
        *_find_judges(experiment),
        *_find_notify(experiment),
        *_find_output(experiment, project, out),
        *_find_links(experiment, project, out),
    ]
    # The text of the problem may be shortened, what is allowed not.
    missing = [(path, message) for path, message in needs if message not in known]
    return sorted(
        {TrustNeed(source.make_problem(path, shorten(message, 300)), (message,)) for path, message in missing}
    )


def describe_missing_trust(file: Path, needs: Sequence[TrustNeed], *, is_known: bool = False) -> list[Problem]:
    """Say that an experiment is not trusted, how to trust it, and what for; nothing without needs.

    `is_known`: its folder was trusted before, with less.
    """
    if not needs:
        return []
    what = "needs more trust than its folder has" if is_known else "is not trusted to do what the next lines say"
    command = join_command(["sweeper", "trust", str(file)])
    advice = f"{what}. If you trust its author: `{command}`, or add --trust to this command"
    return [Problem(needs[0].problem.file, 0, "", advice), *(need.problem for need in needs)]


def check_default_folder(folder: Path, experiment_file: Path) -> None:
    """Raise UsageError if a default folder of an experiment is outside of its project, because a link leads there."""
    project = find_project(experiment_file)
    allowed = load_grants().get(project.home, frozenset())
    links = set(_describe_links(folder.relative_to(experiment_file.parent), project)) - allowed
    if links:
        raise UsageError(f"{experiment_file}: {min(links)}; if that is what you want, name that folder in its place")


def _find_keys(experiment: Experiment, targets: Sequence[TargetSpec] | None, named: NamedTargets) -> _Needs:
    """Yield each variable that a used target of the experiment names for a host for which the user did not name it.

    A deployment gets a key although no variable is named, and anybody can have one; so it needs trust too.
    """
    known_keys = list_known_keys(named) | {(identify_server(CLOUD_URL), key) for key in CLOUD_KEYS}
    for path, spec in _iter_used_entries(experiment, targets, named):
        settings = parse_target(spec, {}).settings
        server = settings.get("url") or f"worker {settings.get('worker', settings.get('launch'))}"
        for setting in KEY_VARIABLES:
            variable = settings.get(setting)
            is_named = setting in spec or is_deployment(server)
            if variable and is_named and (identify_server(server), variable) not in known_keys:
                use = " with workflows that have partner nodes" if setting == KEY_VARIABLES[1] else ""
                message = f"sends the value of the environment variable {variable} to {server}{use}"
                yield ((*path, setting) if setting in spec else path), message


def _find_launches(experiment: Experiment, targets: Sequence[TargetSpec] | None, named: NamedTargets) -> _Needs:
    """Yield each program that the experiment starts. The user's own names and options are not the experiment's."""
    for path, spec in _iter_used_entries(experiment, targets, named):
        parsed = parse_target(spec, {})
        if "launch" in spec and parsed.is_valid:
            yield (*path, "launch"), f"starts {make_launch_spec(parsed.settings)}"


def _find_prices(experiment: Experiment, targets: Sequence[TargetSpec] | None, named: NamedTargets) -> _Needs:
    """Yield what lets the experiment spend without a question: too low a price, or too high a sum that needs none."""
    for path, spec in _iter_used_entries(experiment, targets, named):
        settings = parse_target(spec, {}).settings
        server = settings.get("url", "")
        pays = is_comfy_platform(server) or any(settings.get(variable) for variable in KEY_VARIABLES)
        if "price" in spec and pays:
            price = json.dumps(spec["price"])
            yield (*path, "price"), f"states what {server} costs: {price}; sweeper asks before it spends by that"
    if experiment.run.confirm_above > RunSettings().confirm_above:
        yield ("run", "confirm_above"), f"lets runs cost {float(experiment.run.confirm_above):g} USD without a question"


def _iter_used_entries(
    experiment: Experiment, targets: Sequence[TargetSpec] | None, named: NamedTargets
) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yield the path and the settings of each target that the experiment itself defines and this command uses.

    A group of the user's (`named`) may have a name that the experiment defines.
    """
    names, source = experiment.named_targets, experiment.source
    has_list = source is not None and isinstance(source.value.get("target"), list)
    pending: list[tuple[KeyPath, Any, bool]] = [
        (("target", index) if has_list else ("target",), spec, targets is None)
        for index, spec in enumerate(experiment.targets if targets is None else targets)
    ]
    used = {CLOUD}  # its entry completes every target on Comfy Cloud
    while pending:
        path, spec, is_own = pending.pop()
        if not isinstance(spec, str) or "://" in spec:
            if is_own:
                yield path, {"url": spec} if isinstance(spec, str) else spec
        elif (name := spec.strip()) not in used:
            used.add(name)
            entry = names.get(name, named.get(name))
            if isinstance(entry, list | tuple):
                pending += [(("targets", name, index), member, name in names) for index, member in enumerate(entry)]
    for name in used & names.keys():
        entry = names[name]
        if not isinstance(entry, InvalidEntry) and not isinstance(entry, list | tuple):
            settings = {"url": entry} if isinstance(entry, str) else entry
            yield ("targets", name), {**({"url": CLOUD_URL} if name == CLOUD else {}), **settings}


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
        inputs = f", and the files of {join_names(judge.pictures)}" if judge.pictures else ""
        path = ("metrics", experiment.metrics.index(name))
        yield path, f"sends its pictures{inputs}, and a question about them, to {judge.url}{key}"


def _find_notify(experiment: Experiment) -> _Needs:
    if experiment.run.notify:
        address = parse_notify_url(experiment.run.notify)
        # What is allowed is this URL and no other of the host, whose path may choose who reads the messages.
        yield ("run", "notify"), f"posts how its runs end to {address.host} (an address with the mark {address.digest})"


def _find_output(experiment: Experiment, project: Project, out: object) -> _Needs:
    url = experiment.run.out
    if url is None or (isinstance(out, str) and "://" in out):
        return
    # A URL with a host, or a chain of file systems (`::`), is not a plain path.
    is_plain_path = url.startswith("file:///") and "::" not in url
    if not is_plain_path or not project.contains(Path(find_url_path(url))):
        yield ("run", "out"), f"writes to {url}, which is outside of the project {project.folder}"


def _find_links(experiment: Experiment, project: Project, out: object) -> _Needs:
    """Yield the default folders that lead out of the project by a link. `out`: a results folder that the user named."""
    for pattern in (*(_RESULTS_FOLDERS if out is None else ()), *_BASELINE_FOLDERS):
        yield from (((), message) for message in _describe_links(Path(pattern.format(experiment.name)), project))


def _describe_links(folder: Path, project: Project) -> Iterator[str]:
    """Yield where each link on the way to a default folder leads that leaves the project."""
    path = project.home
    for index, part in enumerate(folder.parts, 1):
        path, expected = Path(os.path.realpath(path / part)), path / part
        if path != expected and not project.contains(path, hidden=True):
            yield f"writes to {path}, where the link {Path(*folder.parts[:index]).as_posix()} leads"


def find_url_path(url: str, platform: str = sys.platform) -> str:
    """Return the path of a URL `file:///...`: `C:/a` of `file:///C:/a` on Windows. `platform`: as `sys.platform`."""
    path = unquote(url.removeprefix("file://"))
    return re.sub(r"^/(?=[A-Za-z]:)", "", path) if platform == "win32" else path


def get_trust_path() -> Path:
    """The path of the file: from $SWEEPER_TRUST_FILE, or in the system's folder for user settings."""
    return get_user_file(TRUST_VARIABLE, "trusted.json")


def load_grants() -> Grants:
    """The grants of each folder; none if there is no file. Raises UsageError if the file is unusable."""
    path = get_trust_path()
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    except (ValueError, RecursionError):
        value = None
    if not fits_shape(value, {_KEY: {...: [str]}}):
        message = "is not a list of trusted folders; delete it, and trust your folders again with `sweeper trust DIR`"
        raise UsageError(Problem(str(path), 0, "", message))
    return {Path(folder): frozenset(texts) for folder, texts in value[_KEY].items()}


def add_grants(folder: Path, grants: Collection[str]) -> None:
    """Allow the experiments in a folder more from now on. Raises UsageError if the file cannot be read or written."""
    known, resolved = load_grants(), folder.resolve()
    _save({**known, resolved: known.get(resolved, frozenset()) | frozenset(grants)})


def remove_grants(folder: Path) -> bool:
    """Forget what a folder and those below it were allowed. Returns whether there was something to forget.

    Raises UsageError as `add_grants` does.
    """
    known, resolved = load_grants(), folder.resolve()
    kept = {home: grants for home, grants in known.items() if not home.is_relative_to(resolved)}
    if len(kept) == len(known):
        return False
    _save(kept)
    return True


def _save(folders: Grants) -> None:
    path = get_trust_path()
    value = {_KEY: {str(folder): sorted(grants) for folder, grants in sorted(folders.items())}}
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        with atomic_write(path) as file:
            file.write(text.encode("utf-8", "surrogatepass") + b"\n")
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be written: {error.strerror}")) from error
