"""Run sweeper's commands as processes of their own, so that a long run can be watched and stopped.

A process gets no terminal, so nothing asks a question. Its output is bounded. It imports nothing from the root folder,
and ends when this server ends; see `confined_command`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import sweeper
from sweeper.cli.assistant.workspace import SPENT, Ledger, Workspace
from sweeper.errors import SweeperError, UsageError
from sweeper.loading.trust import TRUST_VARIABLE
from sweeper.running.stop_control import wait_at_most

_MODULE: Final = "sweeper.cli.assistant.confined_command"
_MAX_LINES: Final = 200  # of stderr that are kept
_MAX_LINE: Final = 65_536  # bytes of a line of stderr
_MAX_OUTPUT: Final = 20_000_000  # bytes of stdout
_SPENT_LINE: Final = json.dumps({SPENT: 0})[:-2].encode()  # as it begins
_SECONDS: Final = 300.0  # that a command which runs nothing may take, and a run until its first line
_END_SECONDS: Final = 5.0  # that a command may take to end after its stdin is closed


class CommandProcess:
    """A command that is running, or has ended."""

    def __init__(self, process: asyncio.subprocess.Process, ledger: Ledger) -> None:
        self._process = process
        self._ledger, self._key = ledger, str(uuid.uuid4())
        self.messages: deque[str] = deque(maxlen=_MAX_LINES)
        self._output = bytearray()
        self._has_line = asyncio.Event()  # or its output has ended
        self._readers = asyncio.gather(self._read_output(), self._read_messages())

    @classmethod
    async def start(cls, words: Sequence[str], workspace: Workspace, ledger: Ledger) -> CommandProcess:
        """Start `sweeper WORDS` in the root of a workspace, with what is left in a ledger, which gets its costs."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", _MODULE, cwd=workspace.root, env=_make_environment(workspace.root),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        request = {
            "words": list(words),
            "root": str(workspace.root),
            "targets": list(workspace.targets),
            "budget": ledger.left,
        }
        started = cls(process, ledger)
        started._send(json.dumps(request).encode() + b"\n")
        return started

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

    async def read_line(self) -> Any:
        """Wait for the first line of stdout, take it off, and return its JSON. Raises SweeperError if there is none."""
        await wait_at_most(_SECONDS, self._has_line.wait())
        line, newline, rest = self._output.partition(b"\n")
        try:
            value = json.loads(line) if newline else None
        except ValueError:
            value = None
        if value is None:
            await self.close()
            raise SweeperError(self.read_messages() or f"the command ended with code {self.exit_code}")
        self._output = rest
        return value

    def interrupt(self) -> None:
        """Interrupt like Ctrl-C: the first time, a run submits nothing more and waits; the second time, it cancels."""
        self._send(b"\n")

    async def close(self) -> None:
        """Let the command end as after Ctrl-C: a run cancels its jobs after 2 s. It is killed after 5 s."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not await self.wait(_END_SECONDS):
            self.kill()
            await self.wait(_END_SECONDS)

    def kill(self) -> None:
        """End the command at once, unless it has ended."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def parse_output(self) -> Any:
        """Return the JSON on stdout; None if there is none."""
        try:
            return json.loads(self._output)
        except ValueError:
            return None

    def read_messages(self) -> str:
        """Return the last lines of stderr."""
        return "\n".join(self.messages)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(ConnectionError, RuntimeError):  # it has ended
            self._process.stdin.write(line)

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while chunk := await self._process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(_SPENT_LINE):
                    self._ledger.record(self._key, json.loads(line)[SPENT])
                elif len(self._output) < _MAX_OUTPUT:
                    self._output += line + b"\n"
                    self._has_line.set()
            if len(rest) > _MAX_OUTPUT:
                rest = b""  # no command prints such a line
        self._output += rest
        self._has_line.set()

    async def _read_messages(self) -> None:
        assert self._process.stderr is not None
        rest = b""
        while chunk := await self._process.stderr.read(_MAX_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_MAX_LINE:]
            self.messages += [line.decode("utf-8", "replace").rstrip() for line in lines]
        self.messages += [rest.decode("utf-8", "replace").rstrip()] if rest else []


def _make_environment(root: Path) -> dict[str, str]:
    """The environment of a command that trusts no folder, and imports nothing from the root, nor does Python below it.

    An empty entry of PYTHONPATH is the current folder, which is the root for the command.
    """
    own = Path(sweeper.__file__).resolve().parent.parent
    folders = [Path(folder).resolve() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    kept = [str(folder) for folder in folders if folder == own or not folder.is_relative_to(root)]
    changes = {"PYTHONIOENCODING": "utf-8", "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(kept)}
    changes[TRUST_VARIABLE] = str(Path(__file__).with_name("no-trust.json"))  # there is no such file
    environment = {**os.environ, **changes}
    if not kept:
        del environment["PYTHONPATH"]
    return environment


async def run_command(words: Sequence[str], workspace: Workspace) -> Any:
    """Run a command that submits nothing, and return its JSON. Raises SweeperError with its messages if it fails.

    If the call is cancelled, the command ends with it.
    """
    process = await CommandProcess.start(words, workspace, Ledger())
    try:
        if not await process.wait(_SECONDS):
            raise UsageError(f"`sweeper {words[0]}` did not end in {_SECONDS:.0f} s")
    finally:
        process.kill()
    output = process.parse_output()
    if process.exit_code != 0 or output is None:
        raise SweeperError(process.read_messages() or f"`sweeper {words[0]}` ended with code {process.exit_code}")
    return output
