"""Execute the runs of an assistant: within what is left of its budget, and in a folder that no link leads away from.

An assistant may move, replace and edit all files in the root while a run goes on. So a run counts what its own jobs
cost in memory, and looks at the folder again before it writes there. A link that is made in the moment between such a
look and the next write is followed; only a sandbox of the operating system can prevent that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sweeper.cli.assistant.workspace import Ledger, Workspace
from sweeper.loading.trust import find_url_path
from sweeper.model.money import Charge, sum_charges
from sweeper.model.trial import Trial
from sweeper.running.session import Session
from sweeper.running.spending import FolderSpending
from sweeper.store.artifacts import ArtifactFolder, IncomingFile

if TYPE_CHECKING:
    from sweeper.running.resume import MissingFiles
    from sweeper.running.spending import JobPrices, JobUsage
    from sweeper.store.job_charges import JobCharge
    from sweeper.store.records import JobRecord


class ConfinedSpending(FolderSpending):
    """The spending of a folder, limited by `ledger` too, which counts the jobs that this process submits.

    The ledger ignores all other jobs, because an assistant may have written them into the store.
    """

    ledger: ClassVar[Ledger]

    def __init__(
        self, prices: JobPrices, earlier: Iterable[JobCharge] = (), *, budget: int | None = None, **rest: Any
    ) -> None:
        super().__init__(prices, earlier, budget=budget, **rest)
        self._folder_budget = budget
        self._limit()

    def adopt(self, job: JobRecord, trial: Trial) -> None:
        super().adopt(job, trial)
        self._limit()

    def record_intent(self, job: JobRecord, trial: Trial) -> tuple[Charge, ...]:
        charges = super().record_intent(job, trial)
        if charges:
            self.ledger.record(job.id, sum_charges(charges).high)
            self._limit()
        return charges

    def record_end(self, job: JobRecord, trial: Trial, usage: JobUsage, now: float) -> tuple[Charge, ...] | None:
        charges = super().record_end(job, trial, usage, now)
        if charges is not None and job.id in self.ledger.amounts:
            self.ledger.record(job.id, sum_charges(charges).high)
        self._limit()
        return charges

    def _limit(self) -> None:
        left = self.ledger.left
        spent = self.spent
        limits = [
            self._folder_budget,
            None if left is None else (spent.low if spent.high is None else spent.high) + left,
        ]
        self.budget = min((limit for limit in limits if limit is not None), default=None)


class _ConfinedArtifacts(ArtifactFolder):
    """The folder of pictures, which is checked before each file."""

    def __init__(self, out: Path, check: Callable[[], None]) -> None:
        super().__init__(out)
        self._check = check

    @contextmanager
    def open_incoming(self, job: str, index: int) -> Iterator[IncomingFile]:
        self._check()
        with super().open_incoming(job, index) as file:
            yield file

    def save(self, file: IncomingFile, name: str) -> str:
        self._check()
        return super().save(file, name)


class ConfinedSession(Session):
    """A run that submits and writes nothing after a part of its results folder has become a link that leads outside."""

    workspace: ClassVar[Workspace]

    def check_places(self) -> None:
        """Raise ResultsError or UsageError if the run would write outside of the root."""
        self.workspace.check_folder(self.out)
        if self.artifact_url is not None:
            self.workspace.resolve(find_url_path(self.artifact_url))

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """Lock the folder. The check before each submission looks for links too."""
        self.check_places()
        with super().lock() as check_lock:

            def check() -> None:
                check_lock()
                self.check_places()

            check()
            yield check

    def open_artifacts(self) -> ArtifactFolder:
        """The folder for the run's pictures. If they go to a URL, it is checked before each submission only."""
        self.check_places()
        return super().open_artifacts() if self.artifact_url else _ConfinedArtifacts(self.out, self.check_places)

    async def restore(self, missing: MissingFiles) -> None:
        self.check_places()
        await super().restore(missing)

    async def _finish(self, *arguments: Any) -> None:
        self.check_places()
        await super()._finish(*arguments)


def bind_session(workspace: Workspace, ledger: Ledger) -> type[Session]:
    """Return the session class of runs in a workspace that cost at most what is left in a ledger."""
    spending = type("BoundSpending", (ConfinedSpending,), {"ledger": ledger})
    return type("BoundSession", (ConfinedSession,), {"workspace": workspace, "spending_class": spending})
