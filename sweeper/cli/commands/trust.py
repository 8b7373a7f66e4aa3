"""`sweeper trust`: remember what the experiments of a folder may do with keys, own code and files elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.errors import ExperimentError, UsageError
from sweeper.loading.bounded_files import BoundError, find_matching_files
from sweeper.loading.load import load_partial, read_name
from sweeper.loading.read_scope import has_marker, make_scope
from sweeper.loading.targets_file import load_named_targets
from sweeper.loading.trust import add_grants, find_trust_needs, load_grants, remove_grants

_HELP = """Allow the experiments in PATH (a folder with its subfolders, or one experiment) all that they need trust for.

sweeper reads and runs a stranger's experiment without trust, but an experiment needs trust to:

\b
- send the value of an environment variable as a key (api_key_env, partner_key_env), unless your own
  targets file names that variable for that server
- post how its runs end (run.notify)
- import Python code (a metric `module:function`), or start a ComfyUI (`launch`)
- read files outside of its project or hidden in it (template, lines, csv, files, slots of kind file)
- write anywhere but in its project (run.out; results or baselines that are links)

sweeper shows what it allows, and remembers exactly that for each folder. If an experiment needs more later, or is
in another folder, sweeper asks again and says what is new.

With trust or without, the key of Comfy Cloud goes to Comfy Cloud only, unless your own targets file names its
variable for another server; an experiment starts no other program; sweeper reads nothing in /proc, /sys and /dev; and
paths in a results folder or a baseline stay inside it. A target that the experiment names receives its workflows
and input files.

The project of an experiment is the nearest folder that contains .git or pyproject.toml; if there is none, the
experiment's own folder (and templates/ beside a folder experiments/). Your home folder and the folders above it
are never a project. `--trust` trusts an experiment for one command.
"""


@click.command(
    help=_HELP,
    epilog=format_examples("sweeper trust my-sweep", "sweeper trust --list", "sweeper trust --revoke my-sweep"),
)
@click.argument("path", type=click.Path(path_type=Path), required=False, metavar="[PATH]")
@click.option("--list", "list_grants", is_flag=True, help="Show what is allowed.")
@click.option("--revoke", is_flag=True, help="Forget what the experiments in PATH were allowed.")
@options.as_json
def command(path: Path | None, *, list_grants: bool, revoke: bool, as_json: bool) -> None:
    if list_grants:
        if revoke or path is not None:
            raise UsageError("--list takes neither PATH nor --revoke")
        _show({str(folder): sorted(grants) for folder, grants in sorted(load_grants().items())}, as_json=as_json)
        return
    path = Path() if path is None else path
    if not revoke:
        _show(_allow_all(path), as_json=as_json)
        return
    if not remove_grants(path):
        raise UsageError(f"{path.resolve()}: is not trusted; `sweeper trust --list` shows what is")
    if as_json:
        console.print_json({"folder": str(path.resolve()), "trusted": False})
    else:
        console.print_status(f"no longer trusted: {path.resolve()}")


def _allow_all(path: Path) -> dict[str, list[str]]:
    """Allow what the experiments need; returns all that is allowed to each folder with one that needs something."""
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder; give an experiment, or the folder of some")
    files = _find_experiments(path) if path.is_dir() else [path]
    folders = {file.parent.resolve() for file in files if _allow(file)}
    known = load_grants()
    return {str(folder): sorted(known[folder]) for folder in sorted(folders)}


def _find_experiments(folder: Path) -> list[Path]:
    """The experiments in a folder and its subfolders, but those of other projects and hidden ones."""
    try:
        files = [file for end in ("yaml", "yml") for file in find_matching_files(folder, f"**/*.{end}", lambda _: None)]
    except BoundError as error:
        raise UsageError(f"{folder}: {error}") from error
    return [file for file in sorted(files) if _belongs(file, folder) and _is_experiment(file)]


def _belongs(file: Path, folder: Path) -> bool:
    between = [above for above in file.parents if above.is_relative_to(folder) and above != folder]
    return not any(has_marker(above) or above.name.startswith(".") for above in between)


def _is_experiment(file: Path) -> bool:
    try:
        return bool(read_name(file))
    except ExperimentError:  # other YAML, such as the slots of a template
        return False


def _allow(file: Path) -> bool:
    """Allow what one experiment needs; returns whether it needs anything."""
    allowed: frozenset[str] = frozenset()
    while True:
        partial = load_partial(file, scope=make_scope(file, allowed, {}))
        needs = [*partial.needs, *find_trust_needs(partial.experiment, named=load_named_targets())]
        needed = frozenset(grant for need in needs for grant in need.grants)
        if needed <= allowed:  # what was allowed names no more files
            break
        allowed |= needed
    if allowed:
        add_grants(file.parent, allowed)
    return bool(allowed)


def _show(grants: dict[str, list[str]], *, as_json: bool) -> None:
    if as_json:
        console.print_json({"trusted": grants})
        return
    for folder, texts in grants.items():
        console.print_line(sanitize(folder))
        for text in texts:
            console.print_line(sanitize(f"  {text}"))
    if not grants:
        console.print_status("nothing here needs trust")
