"""What an assistant may touch: files in one folder, targets that the person named, and no more money than they set."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import sweeper
from sweeper.comfy.target import Target, resolve_targets
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.loading.parse import parse_yaml
from sweeper.loading.read_scope import Project, limit_process
from sweeper.model.experiment import Experiment
from sweeper.model.money import CURRENCY, format_usd
from sweeper.model.source import SourceError
from sweeper.model.target_spec import CLOUD, EMBEDDED, NamedTargets, is_comfy_platform
from sweeper.model.urls import identify_server
from sweeper.running.cost_question import list_paid_targets
from sweeper.running.prepare import Prepared
from sweeper.store import Store
from sweeper.store.containment import refuse_links
from sweeper.tables.results_folder import find_results_folder
from sweeper.wording import suggest

_EXPERIMENT_SUFFIXES: Final = (".yaml", ".yml")
_ALLOW: Final = "the person who started it can allow it: `sweeper mcp --target NAME`, or an entry in their targets file"
SPENT: Final = "spent"  # the key of the lines in which the process of a run says what it has spent
_STACK_BYTES: Final = 16 * 2**20  # of a thread that answers: macOS gives 512 kB, too few for nested files
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
        used = resolve_targets(requested or list(experiment.targets), named=named)
        allowed: list[Target] = []
        for name in known:  # one at a time, because several names may stand for one server
            with suppress(UsageError):  # such as a ComfyUI on all GPUs of a machine without one; `used` would name it
                allowed += resolve_targets(name, named=users)
        for target in used:
            if not target.embedded:
                self._check_server(target, [server for server in allowed if not server.embedded])

    def _check_server(self, target: Target, allowed: Sequence[Target]) -> None:
        """Check a server that the command uses. Under another name it would have no price, and so cost nothing."""
        same = [
            server
            for server in allowed
            if (identify_server(server.url), server.launch) == (identify_server(target.url), target.launch)
        ]
        if not same:
            raise UsageError(f"{target.url or target.name} is not a server that this server may use; {_ALLOW}")
        if not any(
            server.price == target.price and server.partner_key_env == target.partner_key_env for server in same
        ):
            names = " or ".join(dict.fromkeys(server.name for server in same))
            raise UsageError(f"{target.url} has a price or a key under the name {names}; use it by that name")

    def find_results(self, name: str) -> Path:
        """Return the results folder of a folder or an experiment file in the root."""
        return self.resolve(str(find_results_folder(self.resolve(name))))

    def create_results(self, folder: Path) -> Path:
        """Create a results folder in the root, and return it without links. Raises UsageError or ResultsError."""
        resolved = self.resolve(str(folder))
        for part in self._list_parts(resolved):
            with suppress(OSError):  # the run reports what cannot be written
                part.mkdir(exist_ok=True)
            refuse_links(part)
        self.check_folder(resolved)
        return resolved

    def check_folder(self, folder: Path) -> None:
        """Raise ResultsError if a folder on the way to a results folder is a link, or a link in it leads out."""
        refuse_links(*self._list_parts(folder))
        with suppress(FileNotFoundError):
            refuse_links(*folder.iterdir(), inside=self.root)

    def _list_parts(self, folder: Path) -> list[Path]:
        """The folders from the root, which is left out, to a folder in it."""
        parts = folder.relative_to(self.root).parts
        return [self.root.joinpath(*parts[: count + 1]) for count in range(len(parts))]

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
    """What may be spent, and what was: `budget` and `amounts` in micro-dollars. `budget` None: nothing may cost money.

    It is in memory only, because an assistant can change every file in the root. The server has the ledger of the
    session, by run; the process of a run has one by job, and calls `report` with its sum at each change.
    """

    budget: int | None = None
    report: Callable[[int], None] = lambda _: None
    amounts: dict[str, int] = field(default_factory=dict)
    spent: int = 0

    def record(self, key: str, amount: int | None) -> None:
        """Set the amount of a run or a job. None, without an upper bound, counts as the whole budget."""
        most = self.budget or 0
        amount = most if amount is None else min(amount, most)
        self.spent += amount - self.amounts.get(key, 0)
        self.amounts[key] = amount
        self.report(self.spent)

    @property
    def left(self) -> int | None:
        """What may still be spent; None if nothing may cost money."""
        return None if self.budget is None else max(self.budget - self.spent, 0)

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


def confine_process(workspace: Workspace) -> None:
    """Let this process open nothing outside of the workspace, and import nothing from it or from the current folder."""
    limit_process(workspace.project)
    threading.stack_size(_STACK_BYTES)
    own = Path(sweeper.__file__).resolve().parent.parent
    folders = {entry: Path(os.path.realpath(entry)) for entry in sys.path if entry}
    sys.path[:] = [
        entry for entry, folder in folders.items() if folder == own or not folder.is_relative_to(workspace.root)
    ]
