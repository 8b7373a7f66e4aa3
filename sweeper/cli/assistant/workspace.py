"""What an assistant may touch: files in one folder, targets that the person named, and no more money than they set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sweeper.cli.confirm_cost import list_paid_targets, load_spent
from sweeper.comfy.target import Target, resolve_targets
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.loading.parse import parse_yaml
from sweeper.loading.read_scope import Project
from sweeper.model.experiment import Experiment
from sweeper.model.money import CURRENCY, format_usd
from sweeper.model.source import SourceError
from sweeper.model.target_spec import CLOUD, EMBEDDED, NamedTargets, is_comfy_platform
from sweeper.model.urls import identify_server
from sweeper.running.prepare import Prepared
from sweeper.store import FILE_NAME, Store
from sweeper.tables.results_folder import find_results_folder
from sweeper.wording import suggest

_EXPERIMENT_SUFFIXES: Final = (".yaml", ".yml")
_ALLOW: Final = "the person who started it can allow it: `sweeper mcp --target NAME`, or an entry in their targets file"
_MAX_TEXT: Final = 1_000_000  # characters of an experiment that an assistant writes


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder `root` (resolved), and the targets that the person named besides the known ones."""

    root: Path
    targets: tuple[str, ...] = ()

    @property
    def project(self) -> Project:
        """The root as the project of every experiment in it."""
        return Project(self.root, self.root)

    def resolve(self, name: str) -> Path:
        """Return a path in the root. Raises UsageError for one outside of it, links resolved, or hidden in it."""
        path = self.root / name
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"{name!r} is not a path: {error}") from None
        if not self.project.contains(path):
            raise UsageError(f"{name} is outside of {self.root} or hidden in it; this server works in that folder only")
        return resolved

    def check_servers(self, experiment: Experiment, requested: Sequence[str], users: NamedTargets) -> None:
        """Check the targets of a command. Raises UsageError for a server that the person did not name.

        An assistant may have written the experiment, so its own targets are checked too. `users`: the person's names.
        """
        known = [EMBEDDED, CLOUD, *users, *self.targets]
        for name in requested:
            if name not in known:
                raise UsageError(f"{name!r} is not a target that this server may use{suggest(name, known)}; {_ALLOW}")
        named = {**users, **experiment.named_targets}
        used = resolve_targets(requested or list(experiment.targets), named=named, environ={}, with_keys=False)
        # One at a time, because several names may stand for one server.
        allowed = [resolve_targets(name, named=users, environ={}, with_keys=False)[0] for name in known]
        for target in used:
            if not target.embedded:
                self._check_server(target, [one for one in allowed if not one.embedded])

    def _check_server(self, target: Target, allowed: Sequence[Target]) -> None:
        """Check a server that the command uses. Under another name it would have no price, and so cost nothing."""
        same = [one for one in allowed if identify_server(one.url) == identify_server(target.url)]
        if not same:
            raise UsageError(f"{target.url} is not a server that this server may use; {_ALLOW}")
        if not any(one.price == target.price and one.partner_key_env == target.partner_key_env for one in same):
            names = " or ".join(dict.fromkeys(one.name for one in same))
            raise UsageError(f"{target.url} has a price or a key under the name {names}; use it by that name")

    def find_results(self, name: str) -> Path:
        """Return the results folder of a folder or an experiment file in the root."""
        return self.resolve(str(find_results_folder(self.resolve(name))))

    def check_recorded_file(self, results: Path) -> None:
        """Check that the report of a results folder reads its experiment in the root, or none. Raises UsageError."""
        with Store.open(results, readonly=True) as store:
            files = [run.file for run in store.runs()]
        for file in files:
            if (self.root / file).exists():
                self.resolve(file)

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


def check_spending(prepared: Prepared, budget: int | None) -> None:
    """Check that a run may use its targets. `budget`: in micro-dollars, None if nothing may cost money.

    Raises UsageError if a target may cost money but has no budget or no known price.
    """
    paid = list_paid_targets(prepared)
    if paid and budget is None:
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


@dataclass(slots=True)
class Ledger:
    """What the runs of one session of an assistant cost together, and what they may cost: `budget` in micro-dollars.

    `folders` has for each results folder that a run of the session used what it had cost before the first of them, and
    what it had cost when it was last read. The store of the folder has the truth, also after a run was killed; so its
    jobs that have not ended count with what they cost at most. `budget` None: nothing may cost money.
    """

    budget: int | None = None
    folders: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, folder: Path) -> None:
        """Count what the folder costs from now on. What it cost before its store was deleted stays counted."""
        spent = load_spent(folder)
        before, last = self.folders.get(str(folder), (spent.low if spent.high is None else spent.high, spent.at_most))
        if not (folder / FILE_NAME).is_file():
            before, last = before - last, 0
        self.folders[str(folder)] = (before, last)

    def limit_folder(self, folder: Path) -> int:
        """Return what all runs of a folder of the ledger may cost together, those before the session included."""
        before = self.folders[str(folder)][0]
        return int(max(before + max((self.budget or 0) - self._count_spent(without=str(folder)), 0), 0))

    @property
    def left(self) -> int | None:
        """What may still be spent; None if nothing may cost money."""
        return None if self.budget is None else int(max(self.budget - self._count_spent(), 0))

    def _count_spent(self, without: str = "") -> float:
        """Add up the session. A store that is gone counts as it was when it was last read."""
        for folder, (before, _) in self.folders.items():
            if (Path(folder) / FILE_NAME).is_file():
                self.folders[folder] = (before, load_spent(Path(folder)).at_most)
        return sum(max(last - before, 0) for folder, (before, last) in self.folders.items() if folder != without)

    def __str__(self) -> str:
        left = self.left
        return "nothing may cost money" if left is None else f"{format_usd(left)} {CURRENCY} left of the budget"


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
