"""Commands that are forked from a process that has imported sweeper, because each import takes a second.

`python` is a small program that stands for Python where a test runs `python -m sweeper` or a script, and
`forked_commands` puts it in the place of Python where `sweeper mcp` starts a command. If the environment has
`TESTS_PYTHON`, that is what the command sees as its own Python. The program hands its streams, folder, environment and
arguments to this script, which forks. So a command is still a process of its own: it gets the signals of the program,
dies when the program is killed, and the program ends as the command did. Only the start of Python is skipped; tests
about that, and those that look at the id of the process, start it themselves.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from ast import literal_eval
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from tests import ROOT
from tests.waiting import wait_until

_SHARED = "TESTS_FORKS"  # the variable with the address of a process that other processes of pytest share
_PROGRAM = """#!{python} -IS
import os, signal, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({address!r})
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: server.send(str(int(number)).encode()))
socket.send_fds(server, [repr((os.getcwd(), dict(os.environ), sys.argv[1:])).encode()], [0, 1, 2])
for stream in range(3):
    os.close(stream)
status = int(server.recv(16) or b"9")
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
"""
_MODULES = (
    "tests.few_classes", "sweeper.cli.assistant.mcp_tools",
    "sweeper.cli.main_group", "sweeper.cli.commands.check", "sweeper.cli.commands.init", "sweeper.cli.commands.plan",
    "sweeper.cli.commands.report", "sweeper.cli.commands.run", "sweeper.cli.commands.search",
    "sweeper.cli.commands.template", "sweeper.cli.assistant.confined_session", "sweeper.embedded.app_comfyui",
    "sweeper.embedded.app_cloud", "sweeper.embedded.nodes.images", "sweeper.images.metrics.formulas",
    "sweeper.images.metrics.measure", "sweeper.model.expressions.compiler", "sweeper.regression.check",
    "sweeper.reporting.write_report", "sweeper.running.health", "sweeper.running.run", "sweeper.schemas.validator",
    "anyio._backends._asyncio", "sweeper.cli.assistant.confined_command", "httpcore", "rich.progress", "uvicorn",
    "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "sweeper.embedded.embedded_server",
    "sweeper.embedded.nodes.media_files", "sweeper.embedded.nodes.sampling", "sweeper.embedded.diffusion.vae",
    "sweeper.running.run_answer", "numpy.random", "uvicorn.lifespan.off",
    "uvicorn.protocols.websockets.websockets_sansio_impl", "encodings.utf_8_sig", "evalica",
    "sweeper.cluster.cluster_session", "sweeper.planning.searching.proposals", "sweeper.regression.verdict",
    "sweeper.reporting.live.server", "sweeper.running.confirm_best", "sweeper.tables.effects", "sweeper.voting.ballot",
)  # fmt: skip


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What to start in place of Python for `-m sweeper`. Where Linux's calls are missing, it is Python."""
    if not hasattr(os, "pidfd_open"):
        yield sys.executable
        return
    folder: Path = tmp_path_factory.mktemp("forks")
    with ExitStack() as stack:
        address = os.environ.get(_SHARED) or str(stack.enter_context(serve_forks(folder)))
        program = folder / "program"
        program.write_text(_PROGRAM.format(python=sys.executable, address=address))
        program.chmod(0o755)
        wait_until(Path(address).exists)
        yield str(program)


@contextmanager
def serve_forks(folder: Path) -> Iterator[Path]:
    """Start the process that forks. Gives the address at which it will listen."""
    address = folder / "address"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", __name__, str(address)]
    with subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.PIPE) as process:
        yield address
        process.communicate(timeout=60)


@contextmanager
def share_forks() -> Iterator[None]:
    """Serve all processes of pytest that are started meanwhile."""
    with tempfile.TemporaryDirectory() as folder, serve_forks(Path(folder)) as address:
        os.environ[_SHARED] = str(address)
        yield
        del os.environ[_SHARED]


@pytest.fixture
def forked_commands(python: str) -> Iterator[None]:
    """Fork the commands of a server in this process."""
    with mock.patch("sweeper.cli.assistant.cli_process.sys", SimpleNamespace(executable=python)):
        yield


def main() -> None:
    """Import sweeper, and fork until stdin ends."""
    for name in _MODULES:
        importlib.import_module(name)
    with suppress(ImportError):
        importlib.import_module("uvloop")
    gc.freeze()  # a search for cycles would copy all of the memory that the processes share
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(f"{sys.argv[1]}.new")
        listening.listen()
        Path(f"{sys.argv[1]}.new").rename(sys.argv[1])
        _Forks(listening).serve()


class _Forks:
    """Forks a command for each connection, and reports how it ended. Kills it when its program is gone."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._waiting: set[socket.socket] = set()  # for a program's message, its signals or its end
        self._pids: dict[socket.socket, int] = {}
        self._ends: dict[int, socket.socket] = {}  # each command's connection, by the descriptor that tells of its end

    def serve(self) -> None:
        """Go on until stdin ends; then kill what still runs."""
        while sys.stdin not in (ready := self._wait()):
            for source in ready:
                if source is self._listening:
                    self._waiting.add(self._listening.accept()[0])
                elif source in self._ends:
                    self._report_end(source)
                elif source in self._pids:
                    self._pass_signal(source)
                elif source in self._waiting:
                    self._start(source)
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)

    def _wait(self) -> list[Any]:
        return select.select([sys.stdin, self._listening, *self._waiting, *self._ends], [], [])[0]

    def _start(self, connection: socket.socket) -> None:
        message, streams, _, _ = socket.recv_fds(connection, 2**20, 3)
        if not message:  # the program was killed before it sent one
            self._waiting.remove(connection)
            connection.close()
            return
        with warnings.catch_warnings():
            # Since 3.12 Python warns of other threads. Here these are NumPy's, which wait and hold no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            for one in (self._listening, *self._waiting, *self._ends.values()):
                one.close()
            _carry_out(*literal_eval(message.decode()), streams)
        for stream in streams:
            os.close(stream)
        self._pids[connection] = pid
        self._ends[os.pidfd_open(pid)] = connection

    def _pass_signal(self, connection: socket.socket) -> None:
        number = connection.recv(16)  # nothing if the program is gone
        os.kill(self._pids[connection], int(number or signal.SIGKILL))
        if not number:
            self._waiting.remove(connection)

    def _report_end(self, end: int) -> None:
        connection = self._ends.pop(end)
        os.close(end)
        status = os.waitpid(self._pids.pop(connection), 0)[1]
        with connection, suppress(OSError):
            connection.send(str(status).encode())
        self._waiting.discard(connection)


def _carry_out(folder: str, environment: dict[str, str], arguments: list[str], streams: list[int]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode, encoding="utf-8") for number, mode in enumerate("rww"))  # noqa: PTH123, SIM115
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.executable = environment.get("TESTS_PYTHON", sys.executable)
    if arguments[0] == "-P":
        del arguments[0]
    if arguments[0].endswith(".py"):
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")
        sys.exit()
    _, module, *sys.argv[1:] = arguments[arguments.index("-m") :]
    sys.exit(importlib.import_module("sweeper.cli" if module == "sweeper" else module).main())


if __name__ == "__main__":
    main()
