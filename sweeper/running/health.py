"""Starts the servers that a run brings itself, tracks which targets are reachable, and retries the others.

A run brings the embedded server, and the ComfyUIs that `sweeper.launching` watches.

The other targets go on without an unreachable one, and it gets work again when it responds. It is given up if none of
the reachable targets can continue and all unreachable ones have been silent for `patience` seconds. It is given up
sooner if its process has exited, because the jobs that we wait for are gone with it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from sweeper import embedded
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.protocol import Server
from sweeper.comfy.retry import RECONNECT
from sweeper.comfy.target import Target
from sweeper.errors import RefusedError, Trouble, UnreachableError, UsageError
from sweeper.files import make_portable
from sweeper.launching.supervise import Supervisor
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Event, Notice, TargetDown, TargetStarting, TargetUp, WaitingForTarget
from sweeper.running.settings import EffectiveSettings
from sweeper.running.stop_control import cancel_when, wait_at_most
from sweeper.store.containment import refuse_links

T = TypeVar("T")

_PING_TIMEOUT: Final = 5.0  # seconds
_PATIENCE_CHECK_INTERVAL: Final = 10.0  # seconds, at most
_GONE_AFTER: Final = 30.0  # seconds of refused connections after which the process has exited; a tunnel may come back
_RESTART_PAUSE: Final = 0.5  # seconds, until what watches a process has seen its end
_CONNECT_WAIT: Final = 5.0  # seconds that the run waits for the other targets once one has responded


def make_embedded_server(settings: EffectiveSettings, workers: int) -> embedded.EmbeddedServer:
    seconds = {name: (each, each) for name, each in settings.node_seconds.items()}
    faults = embedded.Faults(scenario=embedded.Scenario(node_seconds=seconds))
    return embedded.EmbeddedServer(
        dialect="cloud", workers=workers, faults=faults, object_info=settings.object_info, permissive=True
    )


class LaunchedServers(dict[str, Supervisor]):
    """By target, what keeps its ComfyUI alive. `patience`: of the run, for targets without their own.

    `is_shared`: they stay at the end of a run, because the next round of a search needs them.
    """

    def __init__(self, out: Path, patience: float, report: Callable[[Event], None], *, is_shared: bool = False) -> None:
        super().__init__()
        self.is_shared = is_shared
        self._logs, self._patience, self._report = out / "logs", patience, report
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, target: Target) -> str:
        """Start the ComfyUI of a target, and watch it. Returns its URL. Raises UsageError and ResultsError."""
        launch, name = target.launch, target.name
        assert launch is not None
        if name in self:
            return self[name].url
        words = re.sub(r"[^\w.-]+", "-", name).strip("-")
        log = self._logs / f"{make_portable(words, 'target')}.log"
        if any(other.log.name.casefold() == log.name.casefold() for other in self.values()):
            log = log.with_stem(f"{log.stem}-{len(self) + 1}")
        refuse_links(self._logs, log)
        supervisor = self[name] = Supervisor(
            name, launch, log, launch.patience or self._patience,
            lambda seconds, line: self._report(TargetStarting(name, seconds, line)),
        )  # fmt: skip
        try:
            supervisor.start()
        except (UsageError, OSError) as error:
            raise UsageError(f"target {name}: {error}") from None
        if launch.max_memory is not None and not Path("/proc/self/stat").exists():
            self._report(Notice(f"{name}: this system does not tell how much memory it takes; max_memory does nothing"))
        self._tasks.append(asyncio.create_task(supervisor.run()))
        return supervisor.url

    async def aclose(self) -> None:
        """End all of them, except those that are kept, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ended = await asyncio.gather(*(asyncio.to_thread(supervisor.end) for supervisor in self.values()))
        for message in filter(None, ended):
            self._report(Notice(message))


Connections = tuple[list[tuple[ComfyClient, Server]], list[tuple[ComfyClient, str]]]


async def connect_all(clients: Sequence[ComfyClient], launched: Mapping[str, Supervisor]) -> Connections:
    """Connect to all targets of a run concurrently. A target that hangs delays the others for a few seconds only.

    `launched`: what keeps the ComfyUIs alive that the run started, by target. Returns the clients that connected, in
    their order, and the others, each with the reason. Raises RefusedError if a target refuses us, and UnreachableError
    if none responds.
    """
    tasks = [asyncio.ensure_future(connect_started(client, launched)) for client in clients]
    try:
        await _wait_for_answers(tasks)
        servers: list[tuple[ComfyClient, Server]] = []
        pending: list[tuple[ComfyClient, str]] = []
        for client, task in zip(clients, tasks, strict=True):
            name = client.target.name
            try:
                if task.done():
                    servers.append((client, task.result()))
                else:
                    pending.append((client, f"no response within {_CONNECT_WAIT:g} s"))
            except UnreachableError as error:
                pending.append((client, str(error).removeprefix(f"{name}: ")))
            except RefusedError as error:
                raise RefusedError(f"{name}: {error}", is_account_problem=error.is_account_problem) from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not servers:
        raise UnreachableError("; ".join(f"{client.target.name}: {reason}" for client, reason in pending))
    return servers, pending


async def connect_started(client: ComfyClient, launched: Mapping[str, Supervisor]) -> Server:
    """Connect to a target; if the run started its ComfyUI, as soon as that answers. Raises TargetError."""
    supervisor = launched.get(client.target.name)
    while supervisor is not None:
        await supervisor.wait_until_up()
        client.move(supervisor.url)  # it may have found its port taken
        with suppress(UnreachableError):  # it has died since
            return await client.connect()
        await asyncio.sleep(_RESTART_PAUSE)
    return await client.connect()


async def _wait_for_answers(tasks: Sequence[asyncio.Future[Server]]) -> None:
    """Wait until all have responded, one refuses us, or one has responded and the others had enough time."""
    loop, waiting = asyncio.get_running_loop(), set(tasks)
    deadline = loop.time() + _CONNECT_WAIT
    while waiting:
        errors = [task.exception() for task in tasks if task.done()]  # None: it connected
        if any(error is not None and not isinstance(error, UnreachableError) for error in errors):
            return
        remaining = deadline - loop.time()
        if remaining <= 0 and None in errors:
            return
        timeout = remaining if remaining > 0 else None
        _, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


class HealthMonitor:
    """Knows which targets are up or down. `reachable`: the names of those that are up at the start."""

    def __init__(self, context: RunContext, reachable: Iterable[str]) -> None:
        self._context = context
        self._reachable = set(reachable)
        self._down_since: dict[str, float] = {}  # by the event loop's clock
        self._refusing_since: dict[str, float] = {}  # since when their ports refuse connections

    def is_down(self, target: str) -> bool:
        """Whether a target is unreachable and being retried."""
        return target in self._down_since

    def mark_dead(self, target: str) -> None:
        """Note that a target gets no more work in this run."""
        self._reachable.discard(target)

    async def ping(self, client: ComfyClient) -> bool:
        """Whether a target responds now. Raises RefusedError."""
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await client.connect()
        except (UnreachableError, TimeoutError):
            return False
        return True

    async def wait_until_up(self, client: ComfyClient, reason: str) -> Server | None:
        """Retry an unreachable target until it responds. Returns None if there is no more work for it.

        Raises UnreachableError when the target is given up (with Trouble.REFUSED if its process has exited), and
        RefusedError if it refuses us. `reason`: why it is unreachable, as a message.
        """
        context, name, began = self._context, client.target.name, asyncio.get_running_loop().time()
        self._down_since[name] = began
        self._reachable.discard(name)
        context.work_queue.suspend(name)
        patience = context.settings.patience if client.target.launch is None else None
        context.report(TargetDown(name, reason, final=False, patience=patience))
        try:
            server = await self.run_unless_finished(self._reconnect(client, reason))
        finally:
            del self._down_since[name]
            self._refusing_since.pop(name, None)
            context.work_queue.resume(name)
        if server is not None:
            self._reachable.add(name)
            context.report(TargetUp(name, asyncio.get_running_loop().time() - began))
        return server

    async def run_unless_finished(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Run `coroutine`, but cancel it and return None when no target gets any more work in this run."""
        return await cancel_when(self._context.work_queue.wait_finished(), coroutine)

    async def _reconnect(self, client: ComfyClient, reason: str) -> Server:
        if client.target.launch is not None:  # it is started again, for as long as that makes sense
            return await connect_started(client, self._context.launched)
        last_reason = [reason]
        server = await cancel_when(self._wait_for_patience(client), self._connect_with_backoff(client, last_reason))
        if server is None:
            trouble = Trouble.TIMEOUT if self._find_gone_since(client) is None else Trouble.REFUSED
            raise UnreachableError(last_reason[0], trouble=trouble)
        return server

    async def _connect_with_backoff(self, client: ComfyClient, last_reason: list[str]) -> Server:
        """Retry until the target responds. The one entry of `last_reason` is replaced after each failure."""
        name, failures = client.target.name, 0
        while True:
            await asyncio.sleep(RECONNECT.draw(failures, self._context.random))
            try:
                return await client.connect()
            except UnreachableError as error:
                last_reason[:] = [str(error)]
                if error.trouble is Trouble.REFUSED:
                    self._refusing_since.setdefault(name, asyncio.get_running_loop().time())
                else:
                    self._refusing_since.pop(name, None)
            failures += 1

    async def _wait_for_patience(self, client: ComfyClient) -> None:
        """Wait until the target is to be given up, and report while the run can do nothing else."""
        loop, work_queue = asyncio.get_running_loop(), self._context.work_queue
        was_stuck = False
        while True:
            remaining = self._get_deadline(client) - loop.time()
            is_stuck = work_queue.is_stuck(self._reachable)
            if is_stuck and remaining <= 0:
                return
            if is_stuck or was_stuck:
                self._context.report(WaitingForTarget(client.target.name, remaining if is_stuck else None))
            was_stuck = is_stuck
            seconds = min(remaining, _PATIENCE_CHECK_INTERVAL) if is_stuck else None
            await wait_at_most(seconds, work_queue.wait_changed())

    def _get_deadline(self, client: ComfyClient) -> float:
        """When to give up an unreachable target, by the event loop's clock."""
        patience, gone_since = self._context.settings.patience, self._find_gone_since(client)
        if gone_since is None:
            return max(self._down_since.values()) + patience
        return gone_since + min(_GONE_AFTER, patience)

    def _find_gone_since(self, client: ComfyClient) -> float | None:
        """Since when a target's process seems to have exited, its jobs lost with it; None if it may still execute them.

        Also None without a reachable target to take over the jobs, and for paid partner nodes, because the process may
        be alive behind a tunnel that ended.
        """
        name = client.target.name
        loses_jobs = client.loses_jobs_on_exit or self._context.work_queue.has_our_ids(name)
        return self._refusing_since.get(name) if loses_jobs and not client.extra_data and self._reachable else None
