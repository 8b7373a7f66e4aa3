"""What stands on a worker for the driver's plan, store and common ground, so that the lane carries trials as ever.

Nothing here decides: it notes what the lane would have written, for the driver to write.
"""

from __future__ import annotations

import filecmp
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sweeper.cluster.messages import Finished, Grant, Item, News, RowSaid, Taken, Told
from sweeper.running.run_context import Shared
from sweeper.running.run_events import Cancelling, Draining, JobPreview, JobProgress
from sweeper.running.work_queue import Backlog
from sweeper.store import records
from sweeper.store.artifacts import FOLDER, ArtifactFolder

if TYPE_CHECKING:
    from sweeper.model.trial import InputFile, Trial
    from sweeper.running.run_events import Event
    from sweeper.running.work import Work
    from sweeper.store.artifacts import Incoming
    from sweeper.store.records import Artifact, Job

# A stint has its own words for its end; steps and pictures of every node would fill the network for a bar.
_KEPT_TO_OURSELVES = (Draining, Cancelling, JobProgress, JobPreview)


class Logbook:
    """Stands for the store: `intend` was committed by the driver before, the rest becomes news. `states`: what is known
    of each granted job here; `submitting`: those whose submission has left and is not answered yet.
    """

    def __init__(self, tell: Callable[[News], None]) -> None:
        self._tell = tell
        self._prompts: set[str] = set()
        self.states: dict[str, str] = {}
        self.submitting: set[str] = set()
        self.attempt_of: dict[str, int] = {}

    def grant(self, digest: str, grant: Grant) -> None:
        self.states[grant.job] = records.UNSENT
        self.attempt_of[digest] = grant.attempt

    def adopt(self, job: Job) -> None:
        self.states[job.id] = job.state

    def attempts(self, digest: str, _targets: Sequence[str]) -> int:
        return self.attempt_of[digest] - 1

    def knows(self, prompt_id: str) -> bool:
        return prompt_id in self._prompts

    def know(self, prompt_ids: Iterable[str]) -> None:
        self._prompts.update(prompt_ids)

    def intend(self, job: Job, *, durable: bool = True) -> None:  # noqa: ARG002 (it is, on the driver's disk)
        assert job.id in self.states, "only what the driver has committed may leave"
        self.states[job.id] = records.INTENT
        self.submitting.add(job.id)

    def sync(self) -> None:
        """Nothing to do: what must be on a disk is on the driver's."""

    def submitted(self, job_id: str, prompt_id: str, now: float) -> None:
        self.states[job_id] = records.SUBMITTED
        self.submitting.discard(job_id)
        self._prompts.add(prompt_id)
        self._tell(Taken(job_id, prompt_id, now))

    def finish(
        self,
        job_id: str,
        state: str,
        *,
        started: float | None = None,
        ended: float | None = None,
        error: tuple[str, str] | None = None,
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        self.states[job_id] = state
        self.submitting.discard(job_id)
        if state != records.UNSENT:  # that one may leave again in a moment; the stint tells at its end
            self._tell(Finished(job_id, state, started, ended, error, tuple(artifacts)))


class Folder(ArtifactFolder):
    """Artifacts of a cluster: what a process brought before it died is found again, not brought twice."""

    def keep(self, file: Incoming, name: str) -> str:
        """As the base class; but where this very file is under that name, which bears its job's id, it is the one."""
        place = self.path / name
        if place.is_file() and filecmp.cmp(file.settle(), place, shallow=False):
            file.path.unlink()
            return f"{FOLDER}/{name}"
        return super().keep(file, name)


class Waiting:
    """A group's trials that are not begun, as a lane's supply; the far ones may be taken back."""

    def __init__(self) -> None:
        self.works: deque[Work] = deque()

    @property
    def empty(self) -> bool:
        return not self.works

    def take(self, target: str) -> Work | None:  # noqa: ARG002 (there is one here)
        return self.works.popleft() if self.works else None

    def release(self, target: str) -> None:
        """What waits goes back to the driver."""


class Errands(Backlog):
    """The backlog of one group: what its server may not be sent under the driver's id goes back to the driver."""

    def __init__(self, fresh: Waiting, hand_back: Callable[[Work], None]) -> None:
        super().__init__([], fresh)
        self._hand_back = hand_back

    def give_back(self, work: Work, target: str) -> None:
        """As the base class; a work whose id is spent needs the driver's next intent."""
        if work.job is None:
            self._hand_back(work)
            self.done(target)
        else:
            super().give_back(work, target)


class Cargo:
    """Stands for the plan: the graphs that the driver rendered, by digest."""

    def __init__(self, items: Iterable[Item], local: Callable[[InputFile], InputFile]) -> None:
        self._items = {item.trial.digest: item for item in items}
        self._local = local

    def workflow(self, trial: Trial) -> dict[str, Any]:
        # A copy of two levels: the carrier writes the names of uploaded files into it.
        graph = self._items[trial.digest].graph
        return {key: {**node, "inputs": dict(node.get("inputs", {}))} for key, node in graph.items()}

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        return tuple(map(self._local, self._items[trial.digest].files))

    def class_of(self, node: str) -> str | None:
        """The class of a node; the graphs of one group come of one template."""
        for item in self._items.values():
            found = item.graph.get(node)
            return None if found is None else str(found["class_type"])
        return None


@dataclass(slots=True)
class Aboard(Shared):
    """The common ground of one group's lane. Failures are counted by the driver, rows are written there."""

    tell: Callable[[News], None] = lambda _: None
    classes: Callable[[str], str | None] = lambda _: None
    times: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """No: what waits here may be taken back for another worker."""
        return False

    async def durable(self) -> None:
        """The driver committed the intents before the group was granted."""

    def took(self, target: str, nodes: Iterable[tuple[str, float]]) -> None:  # noqa: ARG002 (there is one here)
        for node, seconds in nodes:
            name = self.classes(node)
            if name is not None:
                runs, total = self.times.get(name, (0, 0.0))
                self.times[name] = (runs + 1, total + seconds)

    def row_done(
        self,
        work: Work,
        status: str,
        target: str,  # noqa: ARG002
        *,
        artifacts: tuple[Artifact, ...] = (),  # noqa: ARG002 (told with the job's end)
        error: tuple[str, str] | None = None,
        seconds: float | None = None,
    ) -> None:
        assert work.job is not None
        self.tell(RowSaid(work.job.id, status, error, work.final, seconds))


def forwarded(tell: Callable[[News], None], name: str) -> Callable[[Event], None]:
    """A `report` that hands on what the driver's watcher should know, under this worker's name."""

    def report(event: Event) -> None:
        if isinstance(event, _KEPT_TO_OURSELVES):
            return
        named: Any = event
        tell(Told(replace(named, target=name) if hasattr(event, "target") else event))

    return report
