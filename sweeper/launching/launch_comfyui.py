"""Starts one ComfyUI as a process of its own, and says what is wrong with one that ends.

The processes of one folder share its models, its custom nodes and its input folder. Each has a folder of its own for
outputs, temporary files and its database, which two processes cannot share.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from sweeper.errors import OUT_OF_MEMORY, UsageError
from sweeper.launching import guard
from sweeper.model.launch_spec import CPU, LaunchSpec
from sweeper.model.target_spec import CLOUD_KEYS

_PYTHONS: Final = (
    "venv/bin/python", ".venv/bin/python", "venv/Scripts/python.exe", ".venv/Scripts/python.exe",
    "../python_embeded/python.exe",
)  # fmt: skip
# Of sweeper's own Python, which would lead another one astray; and keys, which custom nodes could read.
_REMOVED_VARIABLES: Final = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", *CLOUD_KEYS)
_TAIL_BYTES: Final = 20_000
_TAIL_LINES: Final = 12
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_MAX_LINE: Final = 300  # characters
_ANSWER_SECONDS: Final = 5.0
_MAX_ANSWER: Final = 2**20  # bytes
_END_SECONDS: Final = 10.0  # more than the grace of `guard`

PORT_TAKEN: Final = re.compile(
    r"address already in use|\[Errno (48|98)\]|10048|error while attempting to bind", re.IGNORECASE
)
# What the last lines may show, and what to do then; {0} is what was found.
_CAUSES: Final = (
    (re.compile(r"(?<=ModuleNotFoundError: No module named ')[\w.]+"),
     "its Python lacks the package {0}: {python} -m pip install -r {requirements}, or give another `python:`"),
    (re.compile(r"(?<=main\.py: error: ).*"), "mend `args`: {0}"),
    (re.compile(r"not compiled with CUDA|no NVIDIA driver|No (CUDA|HIP) GPUs|invalid device ordinal", re.IGNORECASE),
     "it finds no such GPU: write `gpus: cpu`, or the numbers that `nvidia-smi -L` lists"),
    (OUT_OF_MEMORY, "the memory is full: close other programs, or give fewer `gpus`"),
    (PORT_TAKEN, "another program has its port: run the command again"),
)  # fmt: skip


def find_python(launch: LaunchSpec) -> str:
    """The Python that starts a ComfyUI. Raises UsageError if the folder is not a ComfyUI, or has no Python."""
    folder = Path(launch.folder)
    if not (folder / "main.py").is_file():
        inner = folder / "ComfyUI"
        advice = f"give {inner}" if (inner / "main.py").is_file() else "give the folder that contains ComfyUI's main.py"
        what = "it has no main.py" if folder.is_dir() else "there is no such folder"
        raise UsageError(f"`launch`: {folder} is not a ComfyUI: {what}; {advice}")
    if launch.python is not None:
        if shutil.which(launch.python) is None:
            advice = "give the Python that has ComfyUI's packages"
            raise UsageError(f"`python`: there is no {launch.python} that can be started; {advice}")
        return launch.python
    for name in _PYTHONS:
        if (folder / name).is_file():
            return os.path.normpath(folder / name)
    raise UsageError(
        f"`launch`: no Python in {folder}: neither venv, nor .venv, nor ../python_embeded; give the one that has "
        "ComfyUI's packages as `python:`"
    )


def choose_port() -> int:
    """A port of this machine at which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def build_command(launch: LaunchSpec, port: int, own_folder: Path) -> list[str]:
    """The command line of a ComfyUI, without options that its version does not have. Raises UsageError."""
    python = find_python(launch)
    folder = Path(launch.folder)
    known = ""
    with suppress(OSError, UnicodeDecodeError):
        known = (folder / "comfy" / "cli_args.py").read_text("utf-8")
    options = {"--output-directory": str(own_folder), "--temp-directory": str(own_folder),
               "--database-url": f"sqlite:///{(own_folder / 'comfyui.db').as_posix()}"}  # fmt: skip
    devices: dict[int | str | None, list[str]] = {None: [], CPU: ["--cpu"]}
    return [
        python, *(["-s"] if "python_embeded" in python else []), "main.py",
        "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch",
        *devices.get(launch.device, ["--cuda-device", str(launch.device)]),
        *(word for name, value in options.items() if name in known or not known for word in (name, value)),
        *launch.args,
    ]  # fmt: skip


@dataclass(slots=True)
class ComfyProcess:
    """One process of a ComfyUI. `pid` leads its session; `own_folder` has its outputs, and nobody guesses its name.

    `popen` is None for a process that an earlier run left; then `start_time` tells it from a later one with its `pid`.
    `log_start`: where its lines begin in the log.
    """

    pid: int
    port: int
    own_folder: Path
    log: Path
    log_start: int = 0
    start_time: str | None = None
    popen: subprocess.Popen[bytes] | None = None

    def poll(self) -> int | None:
        """Its exit code, 128 + N for the signal N; None while it runs."""
        if self.popen is None:
            return None if read_start_time(self.pid) == self.start_time else 1
        code = self.popen.poll()
        return code if code is None or code >= 0 else 128 - code

    def kill(self) -> None:
        """End it at once, with the processes that it started."""
        if self.popen is None and self.start_time is None:  # nothing tells whether it is still this process
            return
        if sys.platform != "win32":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        elif self.popen is None or self.popen.stdin is None:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGTERM)  # this terminates it on Windows
        self._wait()

    def end(self) -> None:
        """Let it end, and wait until it has."""
        if self.popen is not None:
            self._wait()
            self.kill()

    def _wait(self) -> None:
        """Wait until it has ended. The guard ends it, as it does when sweeper ends."""
        if self.popen is not None:
            with suppress(OSError, subprocess.TimeoutExpired):
                if self.popen.stdin is not None:
                    self.popen.stdin.close()
                self.popen.wait(_END_SECONDS)

    def read_tail(self) -> list[str]:
        """The last lines of what it wrote."""
        with suppress(OSError), self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
            lines = [line[:_MAX_LINE] for line in _COLOUR.sub("", text).splitlines()]
            return [line for line in lines if line.strip()][-_TAIL_LINES:]
        return []

    def read_answer(self) -> str | None:
        """What answers at its port; None if nothing does."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("GET", "/system_stats")
            return connection.getresponse().read(_MAX_ANSWER).decode("utf-8", "replace")
        return None

    def is_own(self, answer: str | None) -> bool:
        """Whether it is this ComfyUI that answered: it says with which arguments it was started."""
        return answer is not None and json.dumps(str(self.own_folder)) in answer


def start_comfyui(launch: LaunchSpec, port: int, own_folder: Path, log: Path) -> ComfyProcess:
    """Start a ComfyUI. Raises UsageError if it cannot be started."""
    command = build_command(launch, port, own_folder)
    removed = launch.key_variables.union(_REMOVED_VARIABLES)
    environ = {name: value for name, value in os.environ.items() if name not in removed}
    environ |= {"PYTHONUNBUFFERED": "1", **dict(launch.env)}
    words = command if launch.keep else [sys.executable, "-I", "-S", guard.__file__, str(own_folder), *command]
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows, where Ctrl-C would end it too
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"--- sweeper starts: {shlex.join(command)}\n".encode("utf-8", "replace"))
            output.flush()
            start = output.tell()
            popen = subprocess.Popen(  # noqa: S603 (the user's own ComfyUI, from the user's own file)
                words, cwd=launch.folder, env=environ, stdin=subprocess.DEVNULL if launch.keep else subprocess.PIPE,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True, creationflags=flags,
            )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UsageError(f"`launch`: {command[0]} cannot be started: {error}") from None
    return ComfyProcess(popen.pid, port, own_folder, log, start, popen=popen)


def make_own_folder() -> Path:
    """A new folder for one process, on the disk of the user's cache, because films may be large."""
    parent = user_cache_path("sweeper", appauthor=False) / "launched"
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))


def describe_exit(code: int, lines: Sequence[str]) -> str:
    """How a ComfyUI ended, in words: `segmentation fault (signal 11)`, `out of memory`, `exit code 1`."""
    if any(OUT_OF_MEMORY.search(line) for line in lines):
        return "out of memory"
    number = code - 128
    if number == getattr(signal, "SIGKILL", 9):
        return "killed (signal 9, which the system also sends when the memory is full)"
    if code > 128:
        with suppress(ValueError):
            name = signal.Signals(number)
            return f"{(signal.strsignal(number) or name.name).lower()} (signal {number})"
    return f"exit code {code}"


def explain_failed_start(launch: LaunchSpec, how: str, process: ComfyProcess) -> str:
    """Say why a ComfyUI did not start: how it ended, its last lines, and what to do."""
    lines = process.read_tail()
    requirements = shlex.quote(str(Path(launch.folder) / "requirements.txt"))
    facts = {"python": shlex.quote(find_python(launch)), "requirements": requirements}
    found = ((advice, matches[-1]) for cause, advice in _CAUSES if (matches := [*cause.finditer("\n".join(lines))]))
    advice = next((f"\n{text.format(match[0], **facts)}" for text, match in found), "")
    shown = "".join(f"\n  {line}" for line in lines) or " it wrote nothing"
    return f"ComfyUI in {launch.folder} did not start: {how}. Its last lines ({process.log}):{shown}{advice}"


def read_start_time(pid: int) -> str | None:
    """What tells a process from a later one with its number; None if none runs, and on Windows, where nothing does."""
    if fields := _read_stat(pid):
        return fields[19] if fields[0] != "Z" else None  # that has ended, but its parent has not asked how
    with suppress(OSError, subprocess.TimeoutExpired):  # macOS has no /proc
        command = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip() or None  # noqa: S603
    return None


def measure_memory(pid: int) -> int:
    """The resident bytes of all processes of the session that a process leads; 0 where the system has no /proc."""
    total = 0
    if sys.platform != "win32":
        for entry in Path("/proc").glob("[0-9]*"):
            fields = _read_stat(int(entry.name))
            if fields and fields[3] == str(pid):
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total


def _read_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (see proc(5)); empty if there is none."""
    with suppress(OSError, UnicodeDecodeError):
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return []
