"""The storages (URLs of folders) that sweeper may open: where a run of this user wrote, and what the user lists.

A results folder names the URLs of its pictures, so its author would choose the hosts to which its reader sends
requests. The list is `storages.txt` in the configuration folder, one URL a line, or the file $SWEEPER_STORAGES_FILE. A
storage allows everything below it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from platformdirs import user_config_path

from sweeper.errors import ResultsError

STORAGES_VARIABLE: Final = "SWEEPER_STORAGES_FILE"
_allowed: Final[set[str]] = set()  # in this process


def get_storages_path() -> Path:
    """The path of the list."""
    if STORAGES_VARIABLE in os.environ:
        return Path(os.environ[STORAGES_VARIABLE]).expanduser()
    return user_config_path("sweeper", appauthor=False, roaming=True) / "storages.txt"


def allow_storage(url: str, *, remember: bool = False) -> None:
    """Allow a storage in this process, and if `remember` from now on, where the list can be written."""
    url = url.rstrip("/")
    _allowed.add(url)
    if remember and url.isprintable() and url not in _load_storages():
        path = get_storages_path()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":
                    file.write(b"\n")  # the user may have edited it
                file.write(f"{url}\n".encode())


def require_storage(url: str, *, is_folder: bool = False) -> None:
    """Raise ResultsError unless the URL of a file, or of a folder, is in a storage that sweeper may open."""
    if _is_in(url, _allowed) or _is_in(url, _load_storages()):
        return
    storage = url if is_folder else url.rpartition("/")[0]
    raise ResultsError(
        f"{storage}: no run of yours wrote there from this machine, so sweeper does not open it: whoever made this "
        "results folder would choose where you send requests, with your keys; if you trust them, add the line "
        f"`{storage}` to {get_storages_path()}"
    )


def _load_storages() -> frozenset[str]:
    try:
        lines = get_storages_path().read_text("utf-8").splitlines()
    except (OSError, ValueError):  # there is none, or it is not a text
        return frozenset()
    return frozenset(line.strip().rstrip("/") for line in lines if "://" in line)


def _is_in(url: str, storages: Iterable[str]) -> bool:
    return any(
        url == storage or (url.startswith(f"{storage}/") and _goes_down(url[len(storage) + 1 :]))
        for storage in storages
    )


def _goes_down(path: str) -> bool:
    return not any(part in ("", ".", "..") for part in unquote(path).replace("\\", "/").split("/"))
