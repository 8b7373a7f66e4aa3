"""Start runs in processes of their own, read their messages, signal them and wait for them; see `killable_run.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

import sweeper
from tests.waiting import read_line

SCRIPT = Path(__file__).with_name("killable_run.py")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run's process ended (0, or minus the signal), and all its messages."""

    code: int
    said: tuple[str, ...]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def error(self) -> str:
        """Why the run ended early, as a message; "None" if it did not."""
        (found,) = (word for word in self.said if word.startswith("error "))
        return found.removeprefix("error ")

    @property
    def steps(self) -> list[str]:
        (found,) = (word for word in self.said if word.startswith("steps "))
        return list(json.loads(found.removeprefix("steps ")))


class Runner:
    """A run in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid: int = self._read()["pid"]
        self.said: list[str] = []

    def _read(self) -> Any:
        line = read_line(self._process.stdout)
        assert line, "the process that starts the runs is gone"
        return json.loads(line)

    def until(self, word: str, times: int = 1) -> None:
        """Read messages until `word` came `times` more times."""
        while times:
            message = self._read()
            assert "said" in message, f"ended without saying {word}: {self.said}"
            self.said.append(message["said"])
            times -= message["said"] == word

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        while "ended" not in (message := self._read()):
            self.said.append(message["said"])
        return Ended(message["ended"], tuple(self.said))


class Runners:
    """Starts runs one at a time. A second instance can start one beside it. Skips the test on Windows.

    `python` is the fixture of that name, by which the script need not import sweeper either.
    """

    def __init__(self, python: str) -> None:
        self._python = python

    def __enter__(self) -> Self:
        if not hasattr(os, "fork"):
            pytest.skip("the process that starts the runs forks, which Windows cannot")
        environ = {**os.environ, "PYTHONPATH": str(Path(sweeper.__file__).parent.parent)}
        self._process = subprocess.Popen(
            [self._python, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def start(self, experiment: Any, target: Any, out: Path, **order: Any) -> Runner:
        """Start a run. `killable_run.py` describes the other fields of the order."""
        assert self._process.stdin is not None
        order.update(experiment=str(experiment.file), target=target, out=str(out))
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Runner(self._process)

    def run(self, experiment: Any, target: Any, out: Path, **order: Any) -> Ended:
        return self.start(experiment, target, out, **order).wait()
