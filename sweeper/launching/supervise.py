"""Keeps one ComfyUI of a run alive: waits until it answers, starts it again when it dies, hangs or fills the memory.

`running` says through `ServerUser` what the ComfyUI is used for, and learns which of its processes died.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, Final, Protocol

from platformdirs import user_cache_path

from sweeper.errors import Trouble, UnreachableError, UsageError
from sweeper.files import atomic_write
from sweeper.launching.launch_comfyui import (
    PORT_TAKEN,
    ComfyProcess,
    choose_port,
    describe_exit,
    explain_failed_start,
    find_python,
    make_own_folder,
    measure_memory,
    read_start_time,
    start_comfyui,
)
from sweeper.model.launch_spec import LaunchSpec

_INTERVAL: Final = 0.2  # seconds between two looks at the process
_MAX_LOOKS: Final = 25  # for the record of another run that starts it again
_ASK_EVERY: Final = 5.0  # seconds between two questions whether it answers
_MEASURE_EVERY: Final = 1.0  # seconds between two looks at the memory
_MUCH_MEMORY: Final = 1.5  # times `max_memory`, above which a ComfyUI is not left to its job
_MAX_STARTS: Final = 3  # that fail in a row; only one if nothing tells that another could succeed
_REPORT_EVERY: Final = 10.0  # seconds, while it starts


class ServerUser(Protocol):
    """What uses the ComfyUI: the target worker of a run."""

    def is_idle(self) -> bool:
        """Whether none of its jobs is on the server, and no file is being downloaded."""

    def hold(self, is_held: bool, /) -> None:
        """Send no more jobs until further notice."""

    def handle_death(self, how: str, since: float | None, /) -> bool:
        """The process has ended, and its jobs are lost. Whether it executed one. `how`: in words.

        `since`: when it was started, in seconds since 1970; None if none of its jobs is to blame.
        """


class Supervisor:
    """One ComfyUI of the target `name`, which writes to `log`.

    `patience`: seconds without an answer, or at the start without a new line, after which it is started again.
    `report(seconds, line)`: it has been starting for so long, and its log ends so.

    `alive_since`: when its process was started, in seconds since 1970; jobs that are older are lost. It is 0 if an
    earlier run left it, infinite while none runs. `last_death`: how the process before ended, in words.
    """

    def __init__(
        self, name: str, launch: LaunchSpec, log: Path, patience: float, report: Callable[[float, str], None]
    ) -> None:
        self.name, self.launch, self.log, self.patience, self.report = name, launch, log, patience, report
        self.user: ServerUser | None = None
        self.alive_since = 0.0
        self.last_death = ""
        self._process: ComfyProcess | None = None
        self._failure: str | None = None  # why it is given up
        self._restart_reason: str | None = None
        self._is_used = False  # whether its process got work
        self._held_at = 0.0  # since when it gets no more jobs, because its memory is full
        self._is_settled = asyncio.Event()  # it answers, or is given up

    @property
    def url(self) -> str:
        assert self._process is not None
        return f"http://127.0.0.1:{self._process.port}"

    async def wait_until_up(self) -> None:
        """Wait until it answers. Raises UnreachableError when it was given up."""
        await self._is_settled.wait()
        if self._failure is not None:
            raise UnreachableError(f"{self.name}: {self._failure}", trouble=Trouble.REFUSED)

    def restart(self, reason: str) -> None:
        """Let it be started again, because it does not do what it should."""
        self._restart_reason = reason

    def start(self) -> None:
        """Start it, or find the one that an earlier run left. Raises UsageError."""
        find_python(self.launch)
        self._process = self._find_kept() if self.launch.keep else None
        if self._process is None:
            self.log.unlink(missing_ok=True)
            self._start(choose_port(), make_own_folder())

    def _start(self, port: int, own_folder: Path) -> None:
        process = self._process = start_comfyui(self.launch, port, own_folder, self.log)
        self.alive_since = time.time()
        if self.launch.keep:
            facts = {"pid": process.pid, "start": read_start_time(process.pid), "port": port,
                     "folder": str(own_folder), "log": str(self.log)}  # fmt: skip
            with atomic_write(self._record) as file:
                file.write(json.dumps(facts).encode())

    async def run(self) -> None:
        """Watch it, and start it again, until it is given up or this is cancelled."""
        failures, has_answered = 0, False
        while self._failure is None:
            process = self._process
            assert process is not None
            how = await self._wait_for_end(process)
            if was_up := self._is_settled.is_set():
                has_answered = True
                self._handle_death(how)
            failures = 0 if self._is_used else failures + 1
            is_taken = any(PORT_TAKEN.search(line) for line in process.read_tail())
            await asyncio.to_thread(process.kill)  # with what it started, or what `guard` left that somebody killed
            may_pass = has_answered or is_taken or how.startswith("killed")
            try:
                if failures >= (_MAX_STARTS if may_pass else 1):
                    ended = f"ComfyUI in {self.launch.folder} ended: {how}; its log: {self.log}"
                    self._failure = ended if was_up else explain_failed_start(self.launch, how, process)
                else:
                    await asyncio.sleep(failures)
                    other = await self._find_restarted(process) if self.launch.keep else None
                    if other is not None:
                        self._process, self.alive_since = other, time.time()
                        continue
                    self._start(choose_port() if is_taken and not has_answered else process.port, process.own_folder)
            except (UsageError, OSError) as error:
                self._failure = str(error)
        self._settle()

    @property
    def _is_idle(self) -> bool:
        return self.user is None or self.user.is_idle()

    def _hold(self, is_held: bool) -> None:
        if self.user is not None:
            self.user.hold(is_held)

    def _settle(self) -> None:
        self._is_settled.set()
        self._hold(False)

    def _handle_death(self, how: str) -> None:
        since, self.alive_since = self.alive_since, math.inf
        self._is_settled.clear()
        self.last_death = how
        if self.user is not None:
            self.user.hold(True)
            is_blamed = self.user.handle_death(how, since if self._restart_reason is None else None)
            self._is_used |= is_blamed

    async def _wait_for_end(self, process: ComfyProcess) -> str:
        """Wait until it ends, or end it because it hangs or fills the memory. Returns how it ended."""
        began = alive_at = asked_at = time.monotonic()
        reported_at, measured_at, tail, is_up = -math.inf, 0.0, [""], False
        answer, self._is_used = None, False
        while (code := process.poll()) is None:
            if not is_up or time.monotonic() - asked_at > min(_ASK_EVERY, self.patience / 4):
                asked_at = time.monotonic()
                if process.is_own(answer := await asyncio.to_thread(process.read_answer)):
                    alive_at = time.monotonic()
                    if not is_up:
                        is_up, self._restart_reason, self._held_at = True, None, 0.0
                        self._settle()
            now, reason = time.monotonic(), self._restart_reason if is_up else None
            if not is_up and (new_tail := process.read_tail()) != tail:
                tail = new_tail
                alive_at = now if answer is None else alive_at  # it may write a line for each of our questions
            if not is_up and now - reported_at >= _REPORT_EVERY:
                reported_at = now
                self.report(now - began, tail[-1] if tail else "")
            if now - alive_at > self.patience:
                found = "no answer" if is_up else "no answer, and nothing new in its log,"
                reason = f"{found if answer is None else 'only errors at /system_stats'} for {self.patience:g} s"
            self._is_used |= is_up and not self._is_idle
            if is_up and now - measured_at >= _MEASURE_EVERY:
                measured_at, reason = now, reason or self._check_memory(process.pid, now)
            if reason is not None:
                await asyncio.to_thread(process.kill)
                return reason
            await asyncio.sleep(_INTERVAL)
        return describe_exit(code, process.read_tail())

    def _check_memory(self, pid: int, now: float) -> str | None:
        """Why it is to be ended now; before, it gets no more jobs."""
        if self.launch.max_memory is None:
            return None
        used = measure_memory(pid)
        if used > self.launch.max_memory and not self._held_at:
            self._held_at = now
            self._hold(True)
        is_urgent = used > _MUCH_MEMORY * self.launch.max_memory or now - self._held_at > self.patience
        is_due = self._held_at and (is_urgent or self._is_idle)
        return f"{used / 2**30:.1f} GB, more than its max_memory" if is_due else None

    def end(self) -> str | None:
        """Wait until it has ended; of one that is kept, return how to end it."""
        process = self._process
        if process is None:
            return None
        if not self.launch.keep or process.poll() is not None:
            process.end()
            rmtree(process.own_folder, ignore_errors=True)
            return None
        if process.popen is not None:
            process.popen.returncode = 0  # it is nobody's child any more, and Python must not warn of it
        return (
            f"{self.name}: its ComfyUI stays at {self.url} for the next run (keep: true); `kill {process.pid}` ends it"
        )

    # --- those that stay

    @property
    def _record(self) -> Path:
        text = repr((str(self.launch), self.launch.device))
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]
        return user_cache_path("sweeper", appauthor=False) / "launched" / f"{digest}.json"

    async def _find_restarted(self, process: ComfyProcess) -> ComfyProcess | None:
        """The one that another run, which used this one too, has started in its place; None: this run has to."""
        with suppress(FileExistsError):
            (process.own_folder / f"restarted-{process.pid}").touch(exist_ok=False)
            return None
        for _ in range(_MAX_LOOKS):  # the other run may have been killed just now
            if (found := self._find_kept()) is not None:
                return found
            await asyncio.sleep(_INTERVAL)
        return None

    def _find_kept(self) -> ComfyProcess | None:
        """The process that an earlier run left, if it still runs. `run` also compares its command line."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            facts: dict[str, Any] = json.loads(self._record.read_text("utf-8"))
            folder, start = Path(facts["folder"]), facts["start"]
            process = ComfyProcess(int(facts["pid"]), int(facts["port"]), folder, Path(facts["log"]), start_time=start)
            if folder.parent == self._record.parent:  # else not ours
                if process.poll() is None:
                    return process
                if self._process is None:  # else it starts again there
                    rmtree(folder, ignore_errors=True)
        return None
