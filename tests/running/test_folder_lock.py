"""The lock of a results folder as Windows executes it, with a simulated `msvcrt`; other tests use the real lock."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sweeper.errors import ResultsError
from sweeper.running import folder_lock


class Locks:
    """`msvcrt.locking` for one process: locks bytes at the position of a file until its descriptor is closed."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.owners: dict[tuple[int, int], int] = {}  # (inode, position) -> descriptor

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        key = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        owner = self.owners.get(key)
        if owner not in (None, descriptor) and self.is_open(owner, key[0]):
            raise PermissionError(13, "Permission denied")
        self.owners[key] = descriptor

    @staticmethod
    def is_open(descriptor: int, inode: int) -> bool:
        with contextlib.suppress(OSError):
            return os.fstat(descriptor).st_ino == inode
        return False


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> Locks:
    found = Locks()
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=found.locking, LK_NBLCK=found.LK_NBLCK))
    return found


@pytest.fixture
def windows(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as Windows imports it: without `fcntl`."""
    spec = importlib.util.spec_from_file_location("folder_lock_on_windows", folder_lock.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(sys, "platform", "win32")
    spec.loader.exec_module(module)
    return module


def test_second_run_is_refused_and_reads_the_owner(windows: ModuleType, locks: Locks, tmp_path: Path) -> None:
    with windows.lock_folder(tmp_path, now=1_800_000_000.0) as check:
        check()
        assert windows.is_locked(tmp_path)
        assert [position for _, position in locks.owners] == [2**30]  # behind the text, so that others can read it
        with (
            pytest.raises(ResultsError, match=rf"process {os.getpid()} on .* since 2027-01-15"),
            windows.lock_folder(tmp_path, now=1_800_000_001.0),
        ):
            pass
    assert not windows.is_locked(tmp_path)
    with windows.lock_folder(tmp_path, now=1_800_000_002.0):
        pass


def test_the_owner_is_never_asked_by_a_signal(
    windows: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("on Windows, signal 0 ends the process"))
    with windows.lock_folder(tmp_path, now=1_800_000_000.0):
        assert windows.is_locked(tmp_path)


def test_a_removed_lock_file_is_noticed_without_a_lock_of_the_folder(windows: ModuleType, tmp_path: Path) -> None:
    with windows.lock_folder(tmp_path, now=1_800_000_000.0) as check:
        (tmp_path / ".lock").unlink()
        with pytest.raises(ResultsError, match="removed or replaced while this run used it"):
            check()
