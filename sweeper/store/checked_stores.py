"""Remembers which large stores were checked, so that no command checks the same bytes again.

The check of a store with 100,000 jobs takes seconds, and the hash of its bytes a tenth of that. A bit that flips later
gives another hash. The list is in the user's cache folder, where nobody else writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from blake3 import blake3
from platformdirs import user_cache_path

from sweeper.files import atomic_write

MIN_SIZE: Final = 16 * 2**20  # bytes; the check of a smaller store takes a fraction of a second
_MAX_KNOWN: Final = 200  # stores, the latest ones
_MAX_SECONDS: Final = 20.0  # of a check
_PART: Final = 2**20  # bytes that are read at once


def find_once(path: Path, find: Callable[..., str | None]) -> str | None:
    """Return the damage that `find()` finds in the database at `path`, unless the same bytes were checked before.

    A check that happens once may take longer: then its seconds are the argument.
    """
    store_hash = _hash_store(path)
    if store_hash is None:
        return find()
    if store_hash in _read_known():
        return None
    damage = find(_MAX_SECONDS)
    if damage is None and _hash_store(path) == store_hash:  # another process may have written meanwhile
        _add_known(store_hash)
    return damage


def remember(path: Path) -> None:
    """Count what the database at `path` holds as checked, because this process checked it a moment ago and wrote it."""
    store_hash = _hash_store(path)
    if store_hash is not None and store_hash not in _read_known():
        _add_known(store_hash)


def _add_known(store_hash: str) -> None:
    known = [*_read_known(), store_hash][-_MAX_KNOWN:]
    with suppress(OSError), atomic_write(_list_path()) as file:
        file.write("\n".join(known).encode())


def _hash_store(path: Path) -> str | None:
    """Hash a large database with its log; None if the database is small or cannot be read, or has a journal."""
    try:
        if path.stat().st_size < MIN_SIZE or path.with_name(f"{path.name}-journal").exists():
            return None
        hasher = blake3(b"2", max_threads=blake3.AUTO)  # another number if the check looks for more
        for file in (path, path.with_name(f"{path.name}-wal")):
            hasher.update(b"\0")
            with suppress(FileNotFoundError), file.open("rb") as content:
                while part := content.read(_PART):
                    hasher.update(part)
    except OSError:
        return None
    return hasher.hexdigest()


def _read_known() -> list[str]:
    try:
        return _list_path().read_text("ascii").split()
    except (OSError, ValueError):
        return []


def _list_path() -> Path:
    return user_cache_path("sweeper", appauthor=False) / "checked-stores.txt"
