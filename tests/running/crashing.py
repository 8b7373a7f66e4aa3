"""A runner that kills itself with SIGKILL at a chosen step, or waits to be signalled; run as a script.

python crashing.py EXPERIMENT TARGET_JSON OUT METHOD WHEN NUMBER: dies when/after the NUMBERth call of Store.METHOD.
python crashing.py EXPERIMENT TARGET_JSON OUT: runs, prints each progress event's class, and at the end stopped_by.
With FILE_LIMIT in the environment no file may grow beyond so many bytes, as on a full disk.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import sweeper
from sweeper.errors import SweeperError
from sweeper.store import Store


def die_at(method: str, when: str, number: int) -> None:
    original = getattr(Store, method)
    calls = 0

    def dying(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = original(self, *args, **kwargs)
        if calls == number and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(Store, method, dying)


def main() -> None:
    file, target, out, *crash = sys.argv[1:]
    sys.stdout.reconfigure(line_buffering=True)
    if "FILE_LIMIT" in os.environ:
        import resource

        limit = int(os.environ["FILE_LIMIT"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if crash:
        die_at(crash[0], crash[1], int(crash[2]))
    try:
        run = sweeper.run(
            sweeper.load(file),
            json.loads(target),
            out,
            progress=lambda event: sys.stdout.write(type(event).__name__ + "\n"),
        )
    except SweeperError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        return
    sys.stdout.write(f"stopped_by {run.stopped_by}\n")


if __name__ == "__main__":
    main()
