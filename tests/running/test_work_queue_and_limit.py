"""Who gets which work next, and how many jobs a target may have: no server needed."""

from __future__ import annotations

import asyncio
from random import Random

from sweeper.model.trial import Trial
from sweeper.running.concurrency_limit import Gate
from sweeper.running.sharding import Line
from sweeper.running.work import Work
from sweeper.running.work_queue import Backlog
from sweeper.store import records
from sweeper.store.records import Job


def work(index, target=None):
    trial = Trial(index, {}, {}, f"d{index}", {})
    if target is None:
        return Work(trial)
    return Work(trial, Job(f"j{index}", 1, target, f"d{index}", "s", 1, None, records.INTENT, 0.0))


def test_work_whose_job_may_stand_on_a_server_goes_to_that_server_first():
    async def go():
        backlog = Backlog([work(0, "one")], Line(iter([work(1), work(2)])))
        other = await backlog.take("two")
        own = await backlog.take("one")
        return own.trial.index, other.trial.index

    assert asyncio.run(go()) == (0, 1)


def test_whoever_is_idle_waits_for_what_another_may_give_back():
    async def go():
        backlog = Backlog([], Line(iter([work(0)])))
        taken = await backlog.take("one")
        idle = asyncio.create_task(backlog.take("two"))
        await asyncio.sleep(0)
        assert not idle.done()
        backlog.give_back(taken, "one")
        assert (await idle) is taken
        backlog.done("two")
        return await backlog.take("one")

    assert asyncio.run(go()) is None


def test_what_a_target_that_is_gone_may_have_is_left_for_the_next_run_and_holds_nobody():
    async def go():
        backlog = Backlog([work(0, "one"), work(1, "one")], Line(iter([work(2)])))
        taken = await backlog.take("one")
        other = await backlog.take("two")
        waiting = asyncio.create_task(backlog.take("two"))
        await asyncio.sleep(0)
        backlog.release("one")
        backlog.give_back(taken, "one")
        backlog.done("two")
        left = [item.trial.index for item in backlog.left()["one"]]
        return other.trial.index, await waiting, left, taken.job is not None

    assert asyncio.run(go()) == (2, None, [1, 0], True)


def test_what_a_target_that_is_gone_was_never_sent_is_the_others():
    async def go():
        backlog = Backlog([], Line(iter([work(0)])))
        taken = await backlog.take("one")
        backlog.release("one")
        backlog.give_back(taken, "one")
        return await backlog.take("two") is taken, await backlog.take("one"), backlog.left()

    assert asyncio.run(go()) == (True, None, {})


def test_a_silent_target_gets_nothing_until_it_answers_and_holds_nothing_that_it_was_not_sent():
    async def go():
        backlog = Backlog([work(0, "one")], Line(iter([work(1)])))
        backlog.suspend("one")
        asking = asyncio.create_task(backlog.take("one"))
        other = await backlog.take("two")
        assert not backlog.stuck({"two"})
        backlog.done("two")
        assert backlog.stuck({"two"})  # what is left is the silent one's
        assert not asking.done()
        backlog.resume("one")
        return other.trial.index, (await asking).trial.index

    assert asyncio.run(go()) == (1, 0)


def test_a_closed_backlog_hands_out_nothing_and_holds_nobody():
    async def go():
        backlog = Backlog([work(0, "elsewhere")], Line(iter([])))
        waiting = asyncio.create_task(backlog.take("one"))
        await asyncio.sleep(0)
        backlog.close()
        return await waiting

    assert asyncio.run(go()) is None


def test_a_full_queue_lowers_the_limit_and_accepted_jobs_raise_it_again():
    async def go():
        gate = Gate(4, Random(1))
        for _ in range(4):
            await gate.enter()
        assert gate.turned_away(0.0) == 0.05
        assert gate.limit == 3
        gate.turned_away(None)
        gate.turned_away(None)
        assert gate.limit == 3
        gate.leave()
        gate.leave()
        gate.turned_away(None)
        assert gate.limit == 1
        raised = []
        for accepted in range(1, 60):
            gate.accepted()
            raised += [accepted] if gate.limit > 1 + len(raised) else []
        return gate.limit, raised

    assert asyncio.run(go()) == (4, [8, 24, 48])


def test_the_gate_stays_closed_for_as_long_as_the_server_asked():
    async def go():
        loop = asyncio.get_running_loop()
        gate = Gate(1, Random(1))
        await gate.enter()
        asked = gate.turned_away(0.2)
        gate.leave()
        start = loop.time()
        await gate.enter()
        return asked, loop.time() - start >= 0.19

    assert asyncio.run(go()) == (0.2, True)
