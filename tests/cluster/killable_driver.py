"""A driver that kills itself with SIGKILL at a chosen call of its store. It is a process of its own."""

from __future__ import annotations

import os
import signal

from sweeper.store import Store
from sweeper.store.server_facts import ServerFacts
from tests.cluster.result_rows import run_on


def die_at(method: str, when: str, number: int) -> None:
    owner = Store if hasattr(Store, method) else ServerFacts
    original = getattr(owner, method)
    calls = 0

    def dying(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        value = original(self, *args, **kwargs)
        if calls == number and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, method, dying)


def drive(file: str, cluster: str, out: str, crash: tuple[str, str, int]) -> None:
    """Run an experiment, and die before or after a call of a method of Store or ServerFacts: the method, when, and the
    number of the call.
    """
    die_at(*crash)
    run_on(file, cluster, out=out, progress=lambda event: None)
