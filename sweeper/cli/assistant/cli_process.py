"""Run sweeper's commands as processes of their own, so that a long run can be watched and stopped.

A process gets no terminal, so nothing asks a question. Its output is bounded.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sweeper.cli.wait_for_signal import CREATION_FLAGS, INTERRUPT
from sweeper.errors import UsageError

_MAX_LINES: Final = 200  # of stderr that are kept
_MAX_OUTPUT: Final = 20_000_000  # bytes of stdout
_SECONDS: Final = 300.0  # that a command which runs nothing may take


class CommandProcess:
    """A command that is running, or has ended."""

    def __init__(self, arguments: Sequence[str], process: asyncio.subprocess.Process) -> None:
        self.arguments = tuple(arguments)
        self._process = process
        self.messages: deque[str] = deque(maxlen=_MAX_LINES)
        self._output = b""
        self._readers = asyncio.gather(self._read_output(), self._read_messages())

    @classmethod
    async def start(cls, arguments: Sequence[str], folder: Path) -> CommandProcess:
        """Start `sweeper ARGUMENTS` in a folder."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sweeper", *arguments, cwd=folder,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"}, creationflags=CREATION_FLAGS,
        )  # fmt: skip
        return cls(arguments, process)

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.returncode

    async def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so many seconds. Returns whether it ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
                await asyncio.shield(self._readers)
        except TimeoutError:
            return False
        return True

    def interrupt(self) -> None:
        """Interrupt like Ctrl-C: the first time, a run submits nothing more and waits; the second time, it cancels."""
        if self.exit_code is None:
            self._process.send_signal(INTERRUPT)

    def parse_output(self) -> Any:
        """Return the JSON on stdout; None if there is none."""
        try:
            return json.loads(self._output)
        except ValueError:
            return None

    def read_messages(self) -> str:
        """Return the last lines of stderr."""
        return "\n".join(self.messages)

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(65536):
            if len(self._output) < _MAX_OUTPUT:
                self._output += chunk

    async def _read_messages(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self.messages.append(line.decode("utf-8", "replace").rstrip())


async def run_command(arguments: Sequence[str], folder: Path, *, allowed: Sequence[int] = (0,)) -> Any:
    """Run a command that submits nothing, and return its JSON. Raises UsageError with its messages if it fails.

    `allowed`: the exit codes after which the JSON counts.
    """
    process = await CommandProcess.start(arguments, folder)
    if not await process.wait(_SECONDS):
        process.interrupt()
        raise UsageError(f"`sweeper {arguments[0]}` did not end in {_SECONDS:.0f} s")
    output = process.parse_output()
    if process.exit_code not in allowed or output is None:
        raise UsageError(process.read_messages() or f"`sweeper {arguments[0]}` ended with code {process.exit_code}")
    return output
