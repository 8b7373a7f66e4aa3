"""The servers that a run starts itself: the embedded server, and the ComfyUIs that `sweeper.launching` watches."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from sweeper import embedded
from sweeper.comfy.target import Target
from sweeper.errors import UsageError
from sweeper.launching.supervise import Supervisor
from sweeper.model.portable_names import make_portable
from sweeper.running.run_events import Event, Notice, TargetStarting
from sweeper.running.settings import EffectiveSettings
from sweeper.store.containment import refuse_links


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
