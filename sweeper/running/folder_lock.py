"""Lock a results folder, so that one run at a time writes it; a second run's error names the owner.

The operating system releases the lock when its process ends, so a killed run leaves nothing to clean up. Reading needs
no lock.

Whoever removes the lock file, such as a clean-up script, must not let a second run in. So where the system can also
lock a folder, the folder itself is locked. Elsewhere the run checks before each submission that the lock file is
still the one that it locked.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from sweeper.errors import ResultsError
from sweeper.store.containment import refuse_links

LOCK_FILE_NAME: Final = ".lock"
_LOCK_OFFSET: Final = 2**30  # Windows blocks readers of locked bytes: lock one far behind the text that names the owner


@contextmanager
def lock_folder(out: Path, *, now: float) -> Iterator[Callable[[], None]]:
    """Create the folder `out` if needed, and lock it while the block runs. `now`: seconds since 1970.

    Gives a function that raises ResultsError if the lock no longer keeps other runs out, because its file was removed.
    Raises ResultsError if another run has locked the folder, or if it cannot be written, or if the file is a link.
    """
    path = out / LOCK_FILE_NAME
    refuse_links(path)
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            is_folder_locked = stack.enter_context(lock_itself(out))
            file = stack.enter_context(_open_locked(path))
        except BlockingIOError:
            raise ResultsError(
                f"{out}: another run is using this results folder{_describe_owner(path)}; wait for it, or use --out"
            ) from None
        except OSError as error:
            raise ResultsError(f"{out}: the results folder cannot be written: {error.strerror or error}") from error
        file.seek(0)
        file.truncate()
        since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
        file.flush()

        def check() -> None:
            if not is_folder_locked and not _is_same_file(file, path):
                raise ResultsError(
                    f"{path}: removed or replaced while this run used it, so another run may be using the folder; "
                    "make sure that none is, and run the same command again"
                )

        try:
            yield check
        finally:
            with contextlib.suppress(OSError):
                file.seek(0)
                file.truncate()


@contextmanager
def _open_locked(path: Path) -> Iterator[IO[str]]:
    """Open and lock the file. Raises BlockingIOError if another run has locked it, and OSError."""
    while True:
        with path.open("a+", encoding="utf-8") as file:
            if not _try_lock(file):
                raise BlockingIOError
            if _is_same_file(file, path):  # not one that was removed between opening and locking it
                yield file
                return


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def is_locked(out: Path) -> bool:
    """Whether a run seems to have locked the folder. Does not touch the lock.

    Checks that the owner named in the lock file is alive, because a killed run leaves its name behind.
    """
    try:
        refuse_links(out / LOCK_FILE_NAME)
        owner = json.loads((out / LOCK_FILE_NAME).read_text("utf-8"))
        # Another host's processes cannot be checked from here, and on Windows signal 0 would end the process.
        if sys.platform != "win32" and owner["host"] == socket.gethostname():
            os.kill(int(owner["pid"]), 0)
    except PermissionError:
        return True  # alive, and another user's
    except (OSError, ValueError, KeyError, TypeError, ResultsError):
        return False
    return True


def _describe_owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text("utf-8"))
        return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[str]) -> bool:
        file.seek(_LOCK_OFFSET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    @contextmanager
    def lock_itself(_: Path, /) -> Iterator[bool]:
        """Whether the folder itself is locked: Windows cannot, but nor can anybody remove an open file there."""
        yield False

else:
    import fcntl

    @contextmanager
    def lock_itself(out: Path, /) -> Iterator[bool]:
        """Lock a folder itself, and give whether that works here. Raises BlockingIOError if somebody else did so."""
        folder = os.open(out, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # NFS locks only what is open for writing
                yield False
            else:
                yield True
        finally:
            os.close(folder)

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
