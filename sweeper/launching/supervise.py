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
_ASK_EVERY: Final = 5.0  # seconds between two questions whether it answers
_MEASURE_EVERY: Final = 1.0  # seconds between two looks at the memory
_MUCH_MEMORY: Final = 1.5  # times `max_memory`, above which a ComfyUI is not left to its job
_MAX_STARTS: Final = 3  # that fail in a row; only one if nothing tells that another could succeed
_REPORT_EVERY: Final = 10.0  # seconds, while it starts


class ServerUser(Protocol):
    """What uses the ComfyUI: the target worker of a run."""

    @property
    def is_idle(self) -> bool:
        """Whether none of its jobs is on the server, and no file is being downloaded."""

    def hold(self, is_held: bool, /) -> None:
        """Send no more jobs until further notice."""

    def handle_death(self, how: str, since: float | None, /) -> None:
        """The process has ended, and its jobs are lost. `how`: in words.

        `since`: when it was started, in seconds since 1970; None if none of its jobs is to blame.
        """


class _NoUser:
    is_idle = True

    def hold(self, is_held: bool, /) -> None: ...

    def handle_death(self, how: str, since: float | None, /) -> None: ...


NO_USER: Final = _NoUser()


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
        self.user: ServerUser = NO_USER
        self.alive_since = 0.0
        self.last_death = ""
        self._process: ComfyProcess | None = None
        self._failure: str | None = None  # why it is given up
        self._restart_reason: str | None = None
        self._is_up = False
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        assert self._process is not None
        return f"http://127.0.0.1:{self._process.port}"

    async def wait_until_up(self) -> None:
        """Wait until it answers. Raises UnreachableError when it was given up."""
        while not self._is_up:
            if self._failure is not None:
                raise UnreachableError(f"{self.name}: {self._failure}", trouble=Trouble.REFUSED)
            await self._changed.wait()

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
        self._process = start_comfyui(self.launch, port, own_folder, self.log)
        self.alive_since = time.time()
        if self.launch.keep:
            self._remember_kept(self._process)

    async def run(self) -> None:
        """Watch it, and start it again, until it is given up or this is cancelled."""
        failures, has_answered = 0, False
        while True:
            process = self._process
            assert process is not None
            how = await self._wait_for_answer(process)
            if how is None:
                failures, has_answered = 0, True
                self._is_up = True
                self._notify()
                self.user.hold(False)
                how = await self._wait_for_death(process)
                self._handle_death(how)
                message = f"ComfyUI in {self.launch.folder} ended: {how}; its log: {self.log}"
            else:
                failures += 1
                message = explain_failed_start(self.launch, how, process)
            is_taken = any(PORT_TAKEN.search(line) for line in process.read_tail())
            process.close_pipe()
            may_pass = has_answered or is_taken or how.startswith("killed")
            if failures >= (_MAX_STARTS if may_pass else 1):
                return self._give_up(message)
            await asyncio.sleep(failures)
            try:
                self._start(choose_port() if is_taken and not has_answered else process.port, process.own_folder)
            except (UsageError, OSError) as error:
                return self._give_up(str(error))

    def _handle_death(self, how: str) -> None:
        since, self.alive_since = self.alive_since, math.inf
        self._is_up, self.last_death = False, how
        self.user.hold(True)
        self.user.handle_death(how, since if self._restart_reason is None else None)

    def _give_up(self, message: str) -> None:
        self._failure = message
        self._notify()
        self.user.hold(False)

    async def _wait_for_answer(self, process: ComfyProcess) -> str | None:
        """Wait until it answers; None then, else how it ended before."""
        began = moved_at = time.monotonic()
        reported_at, tail, self._restart_reason = -math.inf, [""], None
        while True:
            if (code := process.poll()) is not None:
                return describe_exit(code, process.read_tail())
            if await asyncio.to_thread(process.answers):
                return None
            now = time.monotonic()
            if (new_tail := process.read_tail()) != tail:
                tail, moved_at = new_tail, now
            if now - moved_at > self.patience:
                await asyncio.to_thread(process.kill)
                return f"no answer, and nothing new in its log, for {self.patience:g} s"
            if now - reported_at >= _REPORT_EVERY:
                reported_at = now
                self.report(now - began, tail[-1] if tail else "")
            await asyncio.sleep(_INTERVAL)

    async def _wait_for_death(self, process: ComfyProcess) -> str:
        """Wait until it ends, or end it because it hangs or fills the memory. Returns how it ended."""
        answered_at = asked_at = time.monotonic()
        measured_at = held_at = 0.0
        while True:
            if (code := process.poll()) is not None:
                return describe_exit(code, process.read_tail())
            now = time.monotonic()
            reason = self._restart_reason
            if now - answered_at > self.patience:
                reason = f"no answer for {self.patience:g} s"
            if self.launch.max_memory is not None and now - measured_at >= _MEASURE_EVERY:
                measured_at = now
                used = measure_memory(process.pid)
                if used > self.launch.max_memory and not held_at:
                    held_at = now
                    self.user.hold(True)
                is_urgent = used > _MUCH_MEMORY * self.launch.max_memory or now - held_at > self.patience
                if held_at and (self.user.is_idle or is_urgent):
                    reason = f"{used / 2**30:.1f} GB, more than its max_memory"
            if reason is not None:
                await asyncio.to_thread(process.kill)
                return reason
            if now - asked_at > min(_ASK_EVERY, self.patience / 4):
                asked_at = now
                if await asyncio.to_thread(process.answers):
                    answered_at = time.monotonic()
            await asyncio.sleep(_INTERVAL)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close_pipe(self) -> None:
        """Let it begin to end, unless it is kept."""
        if self._process is not None and not self.launch.keep:
            self._process.close_pipe()

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
        text = repr((self.launch.identity, self.launch.device))
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]
        return user_cache_path("sweeper", appauthor=False) / "launched" / f"{digest}.json"

    def _remember_kept(self, process: ComfyProcess) -> None:
        facts = {"pid": process.pid, "start": read_start_time(process.pid), "port": process.port,
                 "folder": str(process.own_folder), "log": str(process.log)}  # fmt: skip
        with atomic_write(self._record) as file:
            file.write(json.dumps(facts).encode())

    def _find_kept(self) -> ComfyProcess | None:
        """The process that an earlier run left, if it still runs. `run` also compares its command line."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            facts: dict[str, Any] = json.loads(self._record.read_text("utf-8"))
            pid = int(facts["pid"])
            folder, log = Path(facts["folder"]), Path(facts["log"])
            if folder.parent != self._record.parent:  # not ours
                return None
            if read_start_time(pid) == facts["start"]:
                return ComfyProcess(pid, int(facts["port"]), folder, log, start_time=facts["start"])
            rmtree(folder, ignore_errors=True)
        return None
