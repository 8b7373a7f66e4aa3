"""Group commit: a waiter waits for a sync that began after its write, and shares it with others."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sweeper.errors import ResultsError
from sweeper.running.run_context import GroupCommit


def test_waiters_that_come_during_a_sync_share_the_next_one():
    written: list[int] = []
    synced: list[int] = []  # how much was written when each sync began
    first, go = threading.Event(), threading.Event()

    def sync() -> None:
        synced.append(len(written))
        first.set()
        assert go.wait(60)

    async def write(syncing: GroupCommit, number: int) -> None:
        written.append(number)
        await syncing.flush()
        assert synced[-1] >= written.index(number) + 1

    async def scene() -> None:
        syncing = GroupCommit(sync)
        tasks = [asyncio.create_task(write(syncing, 0))]
        await asyncio.to_thread(first.wait, 10)
        tasks += [asyncio.create_task(write(syncing, number)) for number in range(1, 20)]
        await asyncio.sleep(0)  # each has written, and waits
        tasks[5].cancel()
        go.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [n for n, result in enumerate(ended) if result is not None] == [5]
        await syncing.flush()  # also after a pause
        syncing.close()

    asyncio.run(scene())
    assert synced == [1, 20, 20]


def test_a_failed_sync_raises_in_every_waiter_and_the_next_may_succeed():
    problems = [ResultsError("the disk is full")]

    def sync() -> None:
        if problems:
            raise problems.pop()

    async def scene() -> None:
        syncing = GroupCommit(sync)
        with pytest.raises(ResultsError, match="full"):
            await syncing.flush()
        await syncing.flush()
        syncing.close()

    asyncio.run(scene())
