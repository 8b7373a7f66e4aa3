"""Run an experiment as a process of its own, which asks the question about money through its exit code and last line.

The process has no input, so nothing asks there. Nor does it get the signals of this terminal: a press of Ctrl-C reaches
it only through `stop`, and it goes on if this process is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sweeper.answers.cells import sanitize
from sweeper.errors import UsageError
from sweeper.running.cost_question import CONFIRMED, UNANSWERED
from sweeper.running.folder_lock import is_locked
from sweeper.wording import join_command

_MAX_MESSAGES: Final = 20
_MAX_BYTES: Final = 50_000  # of them


def list_run_words(file: Path, *options: str) -> list[str]:
    """The words of `sweeper run` for a file, whose name may begin with a dash."""
    return ["run", f"./{file}" if str(file).startswith("-") else str(file), *options]


class Runner:
    """Starts one run at a time, and knows the last. Thread-safe."""

    def __init__(self) -> None:
        self.kind, self.starts = "run", 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._command, self._stops = "", 0
        folder = tempfile.mkdtemp(prefix="sweeper-run-")
        self._log = Path(folder, "log")  # what the run says; no pipe, because it may outlive this process
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

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
            code, messages, command = process.poll(), self._read_messages(), self._command
            state = "ended" if code is not None else "stopping" if self._stops else "running"
        return {
            "state": state, "kind": self.kind, "exit_code": code, "messages": messages, "command": command,
            "has_begun": has_begun, "question": messages[-1] if messages and code == UNANSWERED else None,
        }  # fmt: skip

    def _read_messages(self) -> list[str]:
        lines = self._log.read_bytes()[-_MAX_BYTES:].decode("utf-8", "replace").split("\n")
        return [text for line in lines if (text := sanitize(line.rstrip()))][-_MAX_MESSAGES:]

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
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own words
                    [sys.executable, "-P", "-m", "sweeper", *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    env=os.environ | {CONFIRMED: confirmed}, **own_group,
                )  # fmt: skip
            threading.Thread(target=self._process.wait, daemon=True).start()  # it may end after this object
            self._command, self._stops, self.kind = join_command(["sweeper", *words]), 0, kind
            self.starts += 1

    def stop(self) -> bool:
        """Stop the run as Ctrl-C does: the first time it submits nothing more, the second time it cancels its jobs.

        If it has ended with a question, the answer is no. Returns whether there was something to stop.
        """
        with self._lock:
            process = self._process
            if process is not None and process.poll() == UNANSWERED:
                self._process = None
            elif process is None or process.poll() is not None:
                return False
            elif sys.platform == "win32":
                process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                process.send_signal(signal.SIGINT)
            self._stops += 1
        return True
