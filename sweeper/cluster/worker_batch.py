"""One group of trials on a worker, from the driver's word to its last news: a lane of its own on the server beside it.

The driver pulls the news; if it does not for `LEASE` seconds it is dead or cut off, and the stint submits nothing more:
whoever takes the results folder next looks the jobs up on the server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from sweeper.cluster.messages import Batch, Finished, Grant, Item, News, Opening, Order, Over, Told, name_here, unpack
from sweeper.cluster.worker_context import Aboard, Cargo, Errands, Logbook, Waiting, forwarded
from sweeper.errors import RefusedError, SweeperError
from sweeper.running.run_events import TargetDown
from sweeper.running.scheduler import Crew
from sweeper.running.stop_control import INTERRUPT, REFUSED, UNREACHABLE, RunControl
from sweeper.running.work import Work
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.records import OPEN, UNSENT, Job

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.model.trial import InputFile
    from sweeper.running.concurrency_limit import Gate

LEASE: Final = 20.0  # seconds without a pull after which the driver counts as gone
_POLL: Final = 2.0  # seconds that a pull waits for news
_COALESCE: Final = 0.03  # seconds: news come in bursts, and a pull costs two hops
_INLINE: Final = 2**20  # bytes of a file that travels with its news; larger ones are asked for in pieces
_BATCH: Final = 4 * 2**20  # bytes of files in one batch
_SETTLE: Final = 20.0  # seconds for submissions on their way to be answered before the stint is let go


class Stint:
    """`folder`: where artifacts go; where that is their place (`shared`), the driver need not bring them. `inputs`:
    where the driver has put input files, by SHA-256. `metrics`: name -> function.
    """

    def __init__(
        self,
        order: Order,
        run_id: int,
        *,
        folder: ArtifactFolder,
        shared: bool,
        inputs: Path,
        metrics: dict[str, Any],
        name: str,
    ) -> None:
        self.order, self.folder, self.inputs, self.metrics = order, folder, inputs, metrics
        self._run_id = run_id
        self._shared_folder = shared
        self.control = RunControl()
        self.granted = asyncio.Event()
        self.dropped = False
        self.pulled = asyncio.get_running_loop().time()
        self._name = name
        self._items: list[Item] = []
        self._works: list[tuple[str, Work]] = []
        self._waiting = Waiting()
        self._returned: set[str] = set()  # jobs that were given back to the driver unsent
        self._inbox: asyncio.Queue[News | None] = asyncio.Queue()
        self._news: deque[tuple[int, News]] = deque()
        self._number = 0
        self._changed = asyncio.Event()
        self._over: Over | None = None
        self._logbook = Logbook(self._inbox.put_nowait)
        self._carrying: asyncio.Task[str | None] | None = None
        self._telling: asyncio.Task[None] | None = None

    # --- the driver's side

    def grant(self, opening: Opening) -> None:
        """Begin."""
        if self.granted.is_set():
            return
        self._items = unpack(opening.items)
        fresh = iter(opening.grants)
        for item in self._items:
            self._logbook.know(item.taken)
            if item.job is not None:
                self._logbook.adopt(item.job)
                # One submission is behind it: without the driver's next intent there is none from here.
                work = Work(item.trial, replace(item.job, target=self.target_name), sent=1)
            else:
                grant = next(fresh)
                self._logbook.grant(item.trial.digest, grant)
                work = Work(item.trial, self._intended(item, grant))
            self._works.append((work.job.id if work.job else "", work))
            self._waiting.works.append(work)
        self._telling = asyncio.create_task(self._tell())
        self.granted.set()

    def _intended(self, item: Item, grant: Grant) -> Job:
        # UNSENT and of this run: the carrier then uses this id, and no other, for its submission.
        return Job(
            grant.job, self._run_id, self.target_name, item.trial.digest, "", grant.attempt, None, UNSENT,
            grant.intended,
        )  # fmt: skip

    async def pull(self, after: int) -> Batch:
        """The news behind number `after`, whose predecessors the driver has written down; waits a moment for some."""
        loop = asyncio.get_running_loop()
        self.pulled = loop.time()
        self._forget(after)
        if not self._news and self._over is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._changed.wait()
        if self._over is None:
            await asyncio.sleep(_COALESCE)
        self.pulled = loop.time()
        return self._batch(after)

    def _batch(self, after: int) -> Batch:
        news: list[News] = []
        contents: dict[str, bytes] = {}
        room = _BATCH
        number = after
        for number, item in self._news:  # noqa: B007 (the last one is the batch's number)
            news.append(item)
            if isinstance(item, Finished) and not self._shared_folder:
                for artifact in item.artifacts:
                    if artifact.bytes <= _INLINE:
                        contents[artifact.path] = self.folder.at(artifact.path).read_bytes()
                        room -= artifact.bytes
            if room <= 0:
                break
        whole = number == self._number
        self._changed.clear()
        return Batch(number, tuple(news), contents, self._over if whole else None)

    def _forget(self, upto: int) -> None:
        while self._news and self._news[0][0] <= upto:
            _, item = self._news.popleft()
            if isinstance(item, Finished) and not self._shared_folder:
                self._unlink(item)

    def clear(self) -> None:
        """Everything is written down: nothing of ours is needed here any more."""
        self._forget(self._number)

    def _unlink(self, item: Finished) -> None:
        for artifact in item.artifacts:
            with contextlib.suppress(OSError):
                self.folder.at(artifact.path).unlink()

    def withdraw(self, count: int) -> int:
        """Give up to `count` trials that wait here back to the driver; how many there were."""
        waiting = self._waiting.works
        given: deque[str] = deque()
        while len(given) < count and waiting and (job := waiting[-1].job) is not None and job.state == UNSENT:
            waiting.pop()
            given.appendleft(job.id)
        for job_id in given:
            self._give_back(job_id)
        return len(given)

    def _hand_back(self, work: Work) -> None:
        self._give_back(next(job for job, known in self._works if known is work))

    def _give_back(self, job: str) -> None:
        self._returned.add(job)
        self._inbox.put_nowait(Finished(job, UNSENT, None, None, None, ()))

    def brake(self, *, cancelling: bool) -> None:
        self.control.drain(INTERRUPT)  # told once for each group on this worker
        if cancelling and not self.control.cancelling:
            self.control.halt(INTERRUPT)

    async def drop(self) -> tuple[str, ...]:
        """Let go: submit nothing more, wait for what is being answered, follow nothing. The jobs that never left.

        Artifacts in the results folder itself stay: the driver may have written them down and died before it said so.
        Those that it has not are found again with their jobs, by name and content.
        """
        self.dropped = True
        self.control.drain(INTERRUPT)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE
        while self._logbook.submitting and loop.time() < deadline:  # noqa: ASYNC110 (the lane knows no event for it)
            await asyncio.sleep(0.02)
        if self._carrying is not None:
            self._carrying.cancel()
            await asyncio.wait([self._carrying])
        await self._told()
        self.granted.set()
        while self._news:
            _, item = self._news.popleft()
            if isinstance(item, Finished) and not self._shared_folder:
                self._unlink(item)
        return tuple(job for job, state in self._logbook.states.items() if state == UNSENT)

    # --- the task's side

    @property
    def target_name(self) -> str:
        return self.order.target.name

    async def run(self, client: ComfyClient, gate: Gate) -> None:
        """Carry the group through its server's gate; returns when everything is in the news."""
        order = self.order
        cargo = Cargo(self._items, self._local)
        shared = Aboard(
            plan=cast("Any", cargo),
            experiment=order.experiment,
            run_id=self._run_id,
            store=cast("Any", self._logbook),
            folder=self.folder,
            settings=replace(order.settings, retries=0, fresh=False, limit=None),
            control=self.control,
            backlog=Errands(self._waiting, self._hand_back),
            report=forwarded(self._inbox.put_nowait, self._name),
            names=(self.target_name,),
            twins={},
            tell=self._inbox.put_nowait,
            classes=cargo.class_of,
        )
        crew = Crew(shared, [(client, gate)])
        self._carrying = asyncio.create_task(crew.run())
        watch = asyncio.create_task(self._lease())
        try:
            await self._carrying
        except asyncio.CancelledError:
            if not self.dropped:
                raise
        finally:
            watch.cancel()
            await self._told()
        left, reason = self._remains(), self.control.reason
        # What is left is the driver's to tell, which knows of every group's.
        self._over = Over(left, None if reason == INTERRUPT else reason, shared.error, shared.times)
        self._changed.set()

    async def fail(self, error: Exception) -> None:
        """Nothing can be done here: what never left goes back, what is open is for others to look for."""
        reason = REFUSED if isinstance(error, RefusedError) else UNREACHABLE
        said = str(error) if isinstance(error, SweeperError) else f"{type(error).__name__}: {error}"
        await self._told()
        self._append(Told(TargetDown(self._name, said, final=True)))
        self._over = Over(self._remains(), reason, f"{self._name}: {said}", {})
        self._changed.set()

    def _remains(self) -> tuple[str, ...]:
        """Tell what never left; return what is still open."""
        states = self._logbook.states
        for job, _ in self._works:
            if states[job] == UNSENT and job not in self._returned:
                self._append(Finished(job, UNSENT, None, None, None, ()))
        return tuple(job for job, _ in self._works if states[job] in OPEN)

    async def _told(self) -> None:
        """Everything that happened is in the news."""
        if self._telling is not None:
            self._inbox.put_nowait(None)
            await self._telling

    async def _tell(self) -> None:
        """Put what happens into the news, measured where it has pictures and metrics are asked for."""
        while (item := await self._inbox.get()) is not None:
            measured = item
            if isinstance(item, Finished) and item.artifacts and self.metrics:
                measured = await asyncio.to_thread(self._measured, item)
            if isinstance(item, Finished):
                self.folder.release(artifact.path for artifact in item.artifacts)
            self._append(measured)

    def _append(self, item: News) -> None:
        self._number += 1
        self._news.append((self._number, item))
        self._changed.set()

    def _measured(self, item: Finished) -> Finished:
        from sweeper.images.metrics import File, missing_metrics  # noqa: PLC0415 (NumPy and Pillow come with it)

        trial = next(work.trial for job, work in self._works if job == item.job)
        files = [
            File(artifact.sha256, self.folder.at(artifact.path), trial.digest, trial.params)
            for artifact in item.artifacts
        ]
        # The driver measures what is missing once more, and says why it cannot be done.
        return replace(item, measures=tuple(missing_metrics(files, self.metrics, {}, {})))

    async def _lease(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() - self.pulled < LEASE:  # noqa: ASYNC110 (each pull moves the end)
            await asyncio.sleep(1.0)
        await asyncio.shield(asyncio.ensure_future(self.drop()))

    def _local(self, file: InputFile) -> InputFile:
        mask = None if file.mask is None else self._local(file.mask)
        return replace(file, path=self.inputs / name_here(file), mask=mask)

    @property
    def abandoned(self) -> bool:
        """Whether nobody has asked for the news for so long that nobody will."""
        return self.unheard > 2 * LEASE

    @property
    def unheard(self) -> float:
        """Seconds since the driver last asked."""
        return asyncio.get_running_loop().time() - self.pulled

    @property
    def waits(self) -> bool:
        """Whether some of its trials have not been begun."""
        return not self._waiting.empty and self._over is None and not self.control.stopping
