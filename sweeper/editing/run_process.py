"""Run an experiment as a process of its own, which asks the question about money through its exit code and last line.

The process has no input, so nothing asks there. Nor does it get the signals of this terminal: a press of Ctrl-C reaches
it only through `stop`, and it goes on if this process is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sweeper.answers.cells import sanitize
from sweeper.errors import UsageError
from sweeper.model.shell_words import join_command
from sweeper.running.cost_question import CONFIRMED, UNANSWERED
from sweeper.running.folder_lock import is_locked

_MAX_MESSAGES: Final = 20
_MAX_LINE: Final = 10_000  # bytes


def list_run_words(file: Path, *options: str) -> list[str]:
    """The words of `sweeper run` for a file, whose name may begin with a dash."""
    return ["run", f"./{file}" if str(file).startswith("-") else str(file), *options]


class Runner:
    """Starts one run at a time, and knows the last. `number` grows with what it says. Thread-safe."""

    def __init__(self) -> None:
        self.kind, self.number, self.starts = "run", 0, 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._command, self._stops = "", 0
        self._question: str | None = None
        self._messages: deque[str] = deque(maxlen=_MAX_MESSAGES)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def describe(self, results: Path | None) -> dict[str, Any] | None:
        """The last run of this process, or a run of another one in the results folder.

        `has_begun`: it has locked the folder. `question`: about money, which it asked before that, and ended.
        """
        process, has_begun = self._process, results is not None and is_locked(results)
        if process is None or (process.poll() is not None and has_begun):
            other = "another process runs this experiment; stop it where it was started"
            state, code, messages, command = "running", None, [other], None
            if not has_begun:
                return None
        else:
            code, messages, command = process.poll(), list(self._messages), self._command
            code = None if code == UNANSWERED and self._question is None else code  # its last line is on the way
            state = "ended" if code is not None else "stopping" if self._stops else "running"
        return {
            "state": state, "kind": self.kind, "exit_code": code, "messages": messages, "command": command,
            "has_begun": has_begun, "question": self._question,
        }  # fmt: skip

    def start(self, words: Sequence[str], results: Path | None, *, kind: str = "run", confirmed: str = "") -> None:
        """Start `sweeper` with these words. Raises UsageError if a run goes on in the results folder.

        `confirmed`: the question that was answered with yes. If the run has another one, it asks that.
        """
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        with self._lock:
            if self.is_running or (results is not None and is_locked(results)):
                raise UsageError("a run of this experiment goes on; wait for it, or stop it")
            process = subprocess.Popen(  # noqa: S603 - our own words
                [sys.executable, "-P", "-m", "sweeper", *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=os.environ | {CONFIRMED: confirmed}, **own_group,
            )  # fmt: skip
            self._process, self._stops, self.kind, self._question = process, 0, kind, None
            self._command, self._messages = join_command(["sweeper", *words]), deque(maxlen=_MAX_MESSAGES)
            self.number, self.starts = self.number + 1, self.starts + 1
        threading.Thread(target=self._read, args=(process, self._messages), name="sweeper-run", daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes], messages: deque[str]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            while line := output.readline(_MAX_LINE):
                if text := sanitize(line.decode("utf-8", "replace").rstrip()):
                    messages.append(text)
                    self.number += 1
        if process.wait() == UNANSWERED and process is self._process:
            self._question = messages[-1] if messages else ""
        self.number += 1

    def stop(self) -> bool:
        """Stop the run as Ctrl-C does: the first time it submits nothing more, the second time it cancels its jobs.

        If it has ended with a question, the answer is no. Returns whether there was something to stop.
        """
        with self._lock:
            process = self._process
            if self._question is not None:
                self._process = self._question = None
            elif process is None or process.poll() is not None:
                return False
            elif sys.platform == "win32":
                process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                process.send_signal(signal.SIGINT)
            self._stops += 1
            self.number += 1
        return True
