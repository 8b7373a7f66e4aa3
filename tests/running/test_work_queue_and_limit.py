"""The work queue and the concurrency limit, without a server."""

from __future__ import annotations

import asyncio
from random import Random

from sweeper.model.trial import Trial
from sweeper.running.concurrency_limit import ConcurrencyLimit
from sweeper.running.work_queue import SingleQueue, WorkItem, WorkQueue
from sweeper.store import records
from sweeper.store.records import JobRecord


def work(index, target=None):
    trial = Trial(index, {}, {}, f"d{index}", {})
    if target is None:
        return WorkItem(trial)
    return WorkItem(trial, JobRecord(f"j{index}", 1, target, f"d{index}", "s", 1, None, records.INTENT, 0.0))


def test_an_item_with_an_open_job_goes_to_its_server_first():
    async def go():
        backlog = WorkQueue([work(0, "one")], SingleQueue(iter([work(1), work(2)])))
        other = await backlog.take("two")
        own = await backlog.take("one")
        return own.trial.index, other.trial.index

    assert asyncio.run(go()) == (0, 1)


def test_an_idle_target_waits_for_items_that_others_may_return():
    async def go():
        backlog = WorkQueue([], SingleQueue(iter([work(0)])))
        taken = await backlog.take("one")
        idle = asyncio.create_task(backlog.take("two"))
        await asyncio.sleep(0)
        assert not idle.done()
        backlog.requeue(taken, "one")
        assert (await idle) is taken
        backlog.complete("two")
        return await backlog.take("one")

    assert asyncio.run(go()) is None


def test_items_pinned_to_a_dropped_target_are_postponed():
    async def go():
        backlog = WorkQueue([work(0, "one"), work(1, "one")], SingleQueue(iter([work(2)])))
        taken = await backlog.take("one")
        other = await backlog.take("two")
        waiting = asyncio.create_task(backlog.take("two"))
        await asyncio.sleep(0)
        backlog.drop_target("one")
        backlog.requeue(taken, "one")
        backlog.complete("two")
        left = [item.trial.index for item in backlog.list_postponed()["one"]]
        return other.trial.index, await waiting, left, taken.job is not None

    assert asyncio.run(go()) == (2, None, [1, 0], True)


def test_unsent_items_of_a_dropped_target_go_to_the_others():
    async def go():
        backlog = WorkQueue([], SingleQueue(iter([work(0)])))
        taken = await backlog.take("one")
        backlog.drop_target("one")
        backlog.requeue(taken, "one")
        return await backlog.take("two") is taken, await backlog.take("one"), backlog.list_postponed()

    assert asyncio.run(go()) == (True, None, {})


def test_a_suspended_target_gets_nothing_and_reserves_nothing():
    async def go():
        backlog = WorkQueue([work(0, "one")], SingleQueue(iter([work(1)])))
        backlog.suspend("one")
        asking = asyncio.create_task(backlog.take("one"))
        other = await backlog.take("two")
        assert not backlog.is_stuck({"two"})
        backlog.complete("two")
        assert backlog.is_stuck({"two"})  # what is left is the silent one's
        assert not asking.done()
        backlog.resume("one")
        return other.trial.index, (await asking).trial.index

    assert asyncio.run(go()) == (1, 0)


def test_a_closed_queue_returns_no_items_and_blocks_nobody():
    async def go():
        backlog = WorkQueue([work(0, "elsewhere")], SingleQueue(iter([])))
        waiting = asyncio.create_task(backlog.take("one"))
        await asyncio.sleep(0)
        backlog.close()
        return await waiting

    assert asyncio.run(go()) is None


def test_a_full_queue_lowers_the_limit_and_accepted_jobs_raise_it_again():
    async def go():
        gate = ConcurrencyLimit(4, Random(1))
        for _ in range(4):
            await gate.acquire()
        assert gate.record_queue_full(0.0) == 0.05
        assert gate.current == 3
        gate.record_queue_full(None)
        gate.record_queue_full(None)
        assert gate.current == 3
        gate.release()
        gate.release()
        gate.record_queue_full(None)
        assert gate.current == 1
        raised = []
        for accepted in range(1, 60):
            gate.record_accepted()
            raised += [accepted] if gate.current > 1 + len(raised) else []
        return gate.current, raised

    assert asyncio.run(go()) == (4, [8, 24, 48])


def test_the_limit_pauses_for_as_long_as_the_server_asked():
    async def go():
        loop = asyncio.get_running_loop()
        gate = ConcurrencyLimit(1, Random(1))
        await gate.acquire()
        asked = gate.record_queue_full(0.2)
        gate.release()
        start = loop.time()
        await gate.acquire()
        return asked, loop.time() - start >= 0.19

    assert asyncio.run(go()) == (0.2, True)
