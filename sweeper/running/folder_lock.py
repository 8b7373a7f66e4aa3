"""Lock a results folder, so that one run at a time writes it; a second run's error names the owner.

The operating system releases the lock when its process ends, so a killed run leaves nothing to clean up. Reading needs
no lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from sweeper.errors import ResultsError

LOCK_FILE_NAME: Final = ".lock"
_LOCK_OFFSET: Final = 2**30  # Windows blocks readers of locked bytes: lock one far behind the text that names the owner


@contextmanager
def lock_folder(out: Path, *, now: float) -> Iterator[None]:
    """Create the folder `out` if needed, and lock it while the block runs. `now`: seconds since 1970.

    Raises ResultsError if another run has locked it, or if the folder cannot be written.
    """
    path = out / LOCK_FILE_NAME
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{out}: the results folder cannot be written: {error.strerror or error}") from error
    with file:
        if not _try_lock(file):
            raise ResultsError(
                f"{out}: another run is using this results folder{_describe_owner(path)}; wait for it, or use --out"
            )
        file.seek(0)
        file.truncate()
        since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.seek(0)
                file.truncate()


def is_locked(out: Path) -> bool:
    """Whether a run seems to have locked the folder. Does not touch the lock.

    Checks that the owner named in the lock file is alive, because a killed run leaves its name behind.
    """
    try:
        owner = json.loads((out / LOCK_FILE_NAME).read_text("utf-8"))
        if os.name == "nt" or owner["host"] != socket.gethostname():
            return True  # cannot be checked from here
        os.kill(int(owner["pid"]), 0)
    except PermissionError:
        return True  # alive, and another user's
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _describe_owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text("utf-8"))
        return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


if os.name == "nt":  # pragma: no cover - tests run on POSIX
    import msvcrt

    def _try_lock(file: IO[str]) -> bool:
        file.seek(_LOCK_OFFSET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
