"""Run an experiment as a process of its own, after the question about money that `sweeper run` asks on a terminal.

The process has no input, so nothing asks there. Nor does it get the signals of this terminal: a press of Ctrl-C reaches
it only through `stop`, and it goes on if this process is killed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeper.answers.cells import sanitize
from sweeper.editing.state import load_checked
from sweeper.errors import UsageError
from sweeper.model.money import CURRENCY, MICROS, floor_micros, parse_usd
from sweeper.model.shell_words import join_command
from sweeper.running.cost_question import (
    CONFIRMED,
    answer_priced_plan,
    find_cost_question,
    list_paid_targets,
    load_spent,
)
from sweeper.running.folder_lock import is_locked
from sweeper.running.prepare import Prepared
from sweeper.tables.results_folder import REHEARSAL

REHEARSE: Final = "rehearse"
KINDS: Final = ("run", REHEARSE)
_MAX_MESSAGES: Final = 20
_MAX_LINE: Final = 10_000  # bytes
_GOES_ON: Final = "a run of this experiment goes on; wait for it, or stop it"


class Question(NamedTuple):
    """What to ask before a run, and the token that stands for a yes to exactly this."""

    text: str
    token: str


class Runner:
    """Starts one run at a time, and knows the last. `notify`: called after each change of `describe`. Thread-safe."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self.kind = "run"
        self._notify, self._secret, self._lock = notify, secrets.token_bytes(32), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._command, self._stops = "", 0
        self._messages: deque[str] = deque(maxlen=_MAX_MESSAGES)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def describe(self, results: Path | None) -> dict[str, Any] | None:
        """The last run of this process, or a run of another one in the results folder."""
        if self._process is None or (not self.is_running and results is not None and is_locked(results)):
            if results is None or not is_locked(results):
                return None
            other = "another process runs this experiment; stop it where it was started"
            return {"state": "running", "kind": "run", "exit_code": None, "messages": [other], "command": None}
        state = "ended" if not self.is_running else "stopping" if self._stops else "running"
        return {
            "state": state, "kind": self.kind, "exit_code": self._process.poll(), "messages": list(self._messages),
            "command": self._command,
        }  # fmt: skip

    def start(
        self, file: Path, *, version: str, kind: str, specs: Sequence[str] | None, budget: str | None,
        confirmed: str | None, trust: bool, out: Path | None = None, where: str | None = None,
    ) -> Question | None:  # fmt: skip
        """Start a run, or return the question to answer first. Raises UsageError if it cannot start.

        `version`: that of the file. `kind`: one of `KINDS`. `specs`: the targets besides the experiment's. `budget`: a
        sum such as `5 USD`. `confirmed`: the token of the question that was answered. `out`: another results folder
        than the experiment's. `where`: the condition for the trials to run.
        """
        prepared, check = load_checked(file, specs, trust=trust, asks_targets=False)
        if prepared is None:
            raise UsageError(f"the experiment has mistakes: {check.problems[0]}")
        folder = out or check.out
        if self.is_running or (folder is not None and (is_locked(folder) or is_locked(folder / REHEARSAL))):
            raise UsageError(_GOES_ON)
        words = ["run", f"./{file}" if str(file).startswith("-") else str(file)]
        words += [word for spec in specs or () for word in ("--target", spec)]
        words += [] if out is None else ["--out", str(out)]
        words += [] if where is None else ["--where", where]
        answered = ""
        if kind == REHEARSE:
            words.append("--rehearse")
        else:
            sum_of_money = None if budget is None else parse_usd(budget)
            text, limit, cost = self._find_question(prepared, out, {"budget": sum_of_money, "where": where})
            facts = repr((version, specs, out, where, limit, text, cost))
            question = text and Question(text, hashlib.blake2b(facts.encode(), key=self._secret).hexdigest())
            if question and confirmed != question.token:
                return question
            # Without a limit, the run asks again what it read, and goes on only if that is the question of here.
            words += [] if limit is None else ["--budget", f"{limit:f} {CURRENCY}", *(["--yes"] if question else [])]
            answered = question and question.text
        with self._lock:
            if self.is_running:
                raise UsageError(_GOES_ON)
            self._start([*words, *(["--trust"] if trust else [])], kind, answered)
        return None

    def _find_question(
        self, prepared: Prepared, out: Path | None, options: Mapping[str, Any]
    ) -> tuple[str, Decimal | None, str]:
        """The question about the money, the budget of the run, and what it costs.

        A plan may change after the question, such as by a price. So the run cannot cost more than what was confirmed,
        or without a question than what needs none. Without all prices there can be no budget, and the question says so.
        """
        paid, experiment, budget = list_paid_targets(prepared), prepared.experiment, options["budget"]
        if not paid:
            return "", budget, ""
        answer = answer_priced_plan(prepared, out, options)
        own = experiment.run.budget if budget is None else budget
        text, amount, _ = find_cost_question(answer, paid, experiment, own)
        spent = load_spent(Path(answer.out)).high
        if answer.cost is not None and answer.has_classes and amount.high is not None and spent is not None:
            most = floor_micros(experiment.run.confirm_above) if text is None else amount.high
            limit = Decimal(spent + most) / MICROS
            budget = limit if own is None else min(own, limit)
        return f"{text[0].upper()}{text[1:]}?" if text else "", budget, answer.describe_cost()

    def _start(self, words: Sequence[str], kind: str, answered: str) -> None:
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        messages: deque[str] = deque(maxlen=_MAX_MESSAGES)
        self._messages = messages
        process = subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-P", "-m", "sweeper", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {CONFIRMED: answered}, **own_group,
        )  # fmt: skip
        self._process, self._stops, self.kind = process, 0, kind
        self._command = join_command(["sweeper", *words])
        threading.Thread(target=self._read, args=(process, messages), name="sweeper-run", daemon=True).start()
        self._notify()

    def _read(self, process: subprocess.Popen[bytes], messages: deque[str]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            while line := output.readline(_MAX_LINE):
                if text := sanitize(line.decode("utf-8", "replace").rstrip()):
                    messages.append(text)
                    self._notify()
        process.wait()
        self._notify()

    def stop(self) -> bool:
        """Stop the run as Ctrl-C does: the first time it submits nothing more, the second time it cancels its jobs.

        Returns whether one goes on.
        """
        with self._lock:
            if self._process is None or not self.is_running:
                return False
            self._stops += 1
            if sys.platform == "win32":
                self._process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                self._process.send_signal(signal.SIGINT)
        self._notify()
        return True
