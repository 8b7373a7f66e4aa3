"""Runs in processes of their own that die at a chosen step: a script that forks one for every order it gets.

It reads orders from stdin, one JSON object per line, and forks for each, because importing sweeper anew for hundreds of
runs would take longer than the runs. It writes {"pid": ...} at once, {"said": ...} for the class of each progress event
and for the final messages, and {"ended": ...} when that process has ended: 0, or minus the signal.

An order has: experiment (file), target (or a list), out, options, and optionally `die_at` (the number of the step to
die at, or the names of steps, of which it dies at the last one once the others have come in this
order), `steps` (true to report the name of every step), `file_limit` (bytes that no file may exceed, as on a full
disk), `list_lag` (seconds for which sweeper does not believe a list of Comfy Cloud that lacks a job), `powerless` (true
to take root's power to write into read-only files), and `searches` (true for `sweeper.search` instead of
`sweeper.run`). A step is a statement of the database that changes something, or opening for writing,
syncing, linking, renaming or removing a file, each before and after. Requests belong to the proxy. Each round that a
search has planned, and not recorded yet, is a step too.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import pkgutil
import resource
import signal
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any

import sweeper
import sweeper.comfy
import sweeper.planning
import sweeper.running
import sweeper.store
from sweeper.comfy import jobs_api
from sweeper.errors import SweeperError
from sweeper.running.run_events import RoundPlanned

CALLS = ("fsync", "link", "rename", "replace", "unlink")


class Steps:
    """Counts the steps of this process, and kills it at one of them like kill -9."""

    def __init__(self, die_at: int | list[str] | None) -> None:
        self.die_at = die_at
        self.awaited = list(die_at) if isinstance(die_at, list) else []
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        self.names.append(name)
        is_awaited = self.awaited[:1] == [name]
        if is_awaited:
            del self.awaited[0]
        if len(self.names) == self.die_at or (is_awaited and not self.awaited):
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self, out: str) -> None:
        for name in CALLS:
            setattr(os, name, partial(self._call, name, getattr(os, name)))
        sqlite3.connect = partial(sqlite3.connect, factory=self._connections())

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            if (
                event == "open"
                and str(arguments[0]).startswith(out)
                and arguments[1]
                and arguments[1] not in ("r", "rb")
            ):
                self(f"before open {Path(str(arguments[0])).suffix}")

        sys.addaudithook(audit)

    def _call(self, name: str, original: Any, *arguments: Any, **rest: Any) -> Any:
        self(f"before {name}")
        found = original(*arguments, **rest)
        self(f"after {name}")
        return found

    def _connections(self) -> type[sqlite3.Connection]:
        step = self

        def count_calls(name: str) -> Any:
            original = getattr(sqlite3.Connection, name)

            def call(self: Any, *arguments: Any) -> Any:
                what = " ".join([name, *str(arguments[0] if arguments else "").split()[:5]])
                if "SELECT" in what:
                    return original(self, *arguments)
                step(f"before {what}")
                found = original(self, *arguments)
                step(f"after {what}")
                return found

            return call

        names = ("execute", "executemany", "executescript", "commit")
        return type("Connection", (sqlite3.Connection,), {name: count_calls(name) for name in names})


def give_up_power() -> None:
    """Drop all capabilities with capset(2), because root can write into read-only folders."""
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def carry_out(order: dict[str, Any], said: Any) -> None:
    """One run, in this process."""

    def say(word: str) -> None:
        said.write(word + "\n")
        said.flush()

    if "file_limit" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
    if order.get("powerless") and not os.geteuid():
        give_up_power()
    jobs_api.LIST_LAG = order.get("list_lag", 0.3)  # the lists of our server do not lag by default
    steps = Steps(order.get("die_at"))
    steps.install(order["out"])

    def report(event: Any) -> None:
        say(type(event).__name__)
        if isinstance(event, RoundPlanned):
            steps(f"round {event.number} planned")

    execute = sweeper.search if order.get("searches") else sweeper.run
    try:
        run: Any = execute(
            sweeper.load(order["experiment"]),
            order["target"],
            order["out"],
            progress=report,
            **order.get("options", {}),
        )
    except SweeperError as error:
        say(f"{type(error).__name__}: {error}")
    else:
        say(f"error {run.error}")
        say(f"stopped_by {run.ended_by if order.get('searches') else run.stopped_by}")
    if order.get("steps"):
        say("steps " + json.dumps(steps.names))


def warm_up() -> None:
    """Import what runs import late, before the first fork."""
    for package in (sweeper.comfy, sweeper.running, sweeper.store, sweeper.planning):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    for name in (
        "sweeper.running.run",
        "sweeper.loading.load",
        "sweeper.running.node_class_cache",
        "sweeper.tables.export",
        "sweeper.model.expressions.compiler",
        "sweeper.schemas.validator",
        "PIL.PngImagePlugin",
        "jsonschema",
        "httpcore",
        "anyio._backends._asyncio",
    ):
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")


def warm_up_searches() -> None:
    """Import what searches import late. It takes a second, so runs do without."""
    for name in ("sweeper.planning.searching.proposals", "optuna.samplers._tpe.sampler"):
        importlib.import_module(name)


def main() -> None:
    warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("searches"):
            warm_up_searches()
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            try:
                with os.fdopen(writing, "w", encoding="utf-8") as said:
                    carry_out(order, said)
            except BaseException:  # noqa: BLE001 (a forked process must not go on as its parent)
                sys.excepthook(*sys.exc_info())
                os._exit(70)
            os._exit(0)
        os.close(writing)
        write(pid=pid)
        with os.fdopen(reading, encoding="utf-8") as heard:
            for word in heard:
                write(said=word.rstrip("\n"))
        write(ended=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def write(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
