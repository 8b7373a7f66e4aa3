"""A driver that kills itself with SIGKILL at a chosen call of its store; run as a script.

python killable_driver.py EXPERIMENT CLUSTER OUT METHOD WHEN NUMBER: dies before or after the NUMBERth call of METHOD,
a method of Store or ServerFacts.
python killable_driver.py EXPERIMENT CLUSTER OUT: runs, prints the class of each event, and stopped_by at the end.
"""

from __future__ import annotations

import os
import signal
import sys

from sweeper.cluster import bind_session
from sweeper.running.run import run
from sweeper.store import Store
from sweeper.store.server_facts import ServerFacts


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


def main() -> None:
    file, cluster, out, *crash = sys.argv[1:]
    sys.stdout.reconfigure(line_buffering=True)
    if crash:
        die_at(crash[0], crash[1], int(crash[2]))
    session = bind_session(cluster, {})
    finished = run(file, session=session, out=out, progress=lambda event: sys.stdout.write(type(event).__name__ + "\n"))
    sys.stdout.write(f"stopped_by {finished.stopped_by}\n")


if __name__ == "__main__":
    main()
