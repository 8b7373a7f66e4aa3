"""What an assistant may touch: files in one folder, targets that the person named, and no more money than they set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.cli.spending import list_paid_targets
from sweeper.cli.targets_file import load_named_targets
from sweeper.comfy.target import resolve_targets
from sweeper.did_you_mean import suggest
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.loading.load import load
from sweeper.loading.parse import parse_yaml
from sweeper.loading.read_scope import Project, ReadScope
from sweeper.model.experiment import Experiment
from sweeper.model.money import CURRENCY, format_usd
from sweeper.model.source import SourceError
from sweeper.model.target_spec import CLOUD, EMBEDDED, is_comfy_platform
from sweeper.model.urls import identify_server
from sweeper.store import FILE_NAME, Store
from sweeper.tables.results_folder import default_results_folder, find_results_folder

_EXPERIMENT_SUFFIXES: Final = (".yaml", ".yml")
_ALLOW: Final = "the person who started it can allow it: `sweeper mcp --target NAME`, or an entry in their targets file"
_MAX_TEXT: Final = 1_000_000  # characters of an experiment that an assistant writes


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder `root` (resolved), the targets that the person named besides the known ones, and their budget in USD.

    `budget` None: no run may cost anything.
    """

    root: Path
    targets: tuple[str, ...] = ()
    budget: float | None = None

    def resolve(self, name: str) -> Path:
        """Return a path in the root. Raises UsageError for one outside of it, links resolved, or hidden in it."""
        path = self.root / name
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"{name!r} is not a path: {error}") from None
        if not Project(self.root, self.root).contains(path):
            raise UsageError(f"{name} is outside of {self.root} or hidden in it; this server works in that folder only")
        return resolved

    def load_experiment(self, name: str, overrides: dict[str, Any]) -> tuple[Path, Experiment]:
        """Read an experiment that reads nothing outside of the root. Raises ExperimentError or UsageError."""
        path = self.resolve(name)
        scope = ReadScope(Project(self.root, self.root))
        return path, load(path, overrides=overrides, scope=scope)

    def check_servers(self, experiment: Experiment, requested: Sequence[str]) -> None:
        """Check the targets of a command. Raises UsageError for a server that the person did not name.

        An assistant may have written the experiment, so its own targets are checked too.
        """
        own = load_named_targets()
        known = [EMBEDDED, CLOUD, *own, *self.targets]
        for name in requested:
            if name not in known:
                raise UsageError(f"{name!r} is not a target that this server may use{suggest(name, known)}; {_ALLOW}")
        named = {**own, **experiment.named_targets}
        used = resolve_targets(requested or list(experiment.targets), named=named, environ={}, with_keys=False)
        allowed = resolve_targets(known, named=own, environ={}, with_keys=False)
        servers = {identify_server(target.url) for target in allowed if not target.embedded}
        for target in used:
            if not target.embedded and identify_server(target.url) not in servers:
                raise UsageError(f"{target.url} is not a server that this server may use; {_ALLOW}")

    def check_spending(self, experiment: Experiment, requested: Sequence[str]) -> None:
        """Check that a run may use its targets.

        Raises UsageError as `check_servers` does, and if a target may cost money but has no budget or no known price.
        """
        self.check_servers(experiment, requested)
        paid = list_paid_targets(experiment, list(requested) or None)
        if paid and self.budget is None:
            names = " and ".join(target.name for target in paid)
            raise UsageError(
                f"runs on {names} may cost money, and the person who started this server set no budget; they can: "
                'sweeper mcp --budget "5 USD"'
            )
        unpriced = [target.name for target in paid if is_comfy_platform(target.url) and target.price is None]
        if unpriced:
            raise UsageError(
                f"nobody stated what the time of {' and '.join(unpriced)} costs, so a budget cannot be kept; the "
                "person can state it: `price:` of that target in their targets file"
            )

    def find_results(self, name: str) -> Path:
        """Return the results folder of a folder or an experiment file in the root."""
        return self.resolve(str(find_results_folder(self.resolve(name))))

    def save_experiment(self, name: str, text: str) -> Path:
        """Write an experiment file. Raises UsageError for other texts, and if another kind of file is there."""
        path = self.resolve(name)
        if path.suffix.lower() not in _EXPERIMENT_SUFFIXES:
            raise UsageError(f"{name}: an experiment is a .yaml file")
        if len(text) > _MAX_TEXT:
            raise UsageError(f"{name}: the text has {len(text)} characters; at most {_MAX_TEXT} are allowed")
        _check_experiment(text, name)
        if path.exists():
            _check_experiment(path.read_text("utf-8-sig"), f"the file that {name} would replace")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as handle:
            handle.write(text.encode())
        return path


def load_spent(experiment: Experiment) -> float:
    """What the results folder of an experiment has cost so far, in US dollars."""
    folder = default_results_folder(experiment.file, experiment.name)
    if not (folder / FILE_NAME).is_file():
        return 0.0
    with Store.open(folder, readonly=True) as store:
        return store.charges.load_spent().high


def describe_budget(left: float | None) -> str:
    """What may still be spent, for the assistant."""
    return "nothing may cost money" if left is None else f"{format_usd(max(left, 0.0))} {CURRENCY} left of the budget"


def _check_experiment(text: str, name: str) -> None:
    try:
        value = parse_yaml(text, name).value
    except SourceError as error:
        raise UsageError(error.problem) from error
    if not isinstance(value, dict) or "template" not in value:
        raise UsageError(f"{name} is not an experiment: a mapping with the key `template` is needed")


def get_root(folder: Path) -> Path:
    """Return the root as a resolved path. Raises UsageError for a folder that holds all that the user has."""
    root = folder.resolve()
    if not root.is_dir():
        raise UsageError(f"--root {folder}: there is no such folder")
    if root == Path.home().resolve() or root == Path(root.anchor) or os.path.ismount(root):
        raise UsageError(f"--root {folder}: this folder holds too much for an assistant; give the folder of a project")
    return root
