"""What a results folder has spent, against a plain list of its jobs, for any order in which jobs begin and end."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from sweeper.model.money import NOTHING, OF_JOB, PRICED, Amount, Charge, sum_charges
from sweeper.running.spending import FolderSpending, JobUsage
from sweeper.store.records import INTENT, SUCCEEDED, JobRecord

SUMS = st.integers(0, 2_000_000)


class Prices:
    """The prices of jobs whose trial says what they cost: at most, and after their end."""

    def price_at_most(self, _target, trial):
        return (Charge("1", "Paint", Amount(0, trial.most), PRICED), Charge(OF_JOB, "", NOTHING, PRICED))

    def price_ended(self, _job, trial, _usage, _elapsed):
        return (Charge("1", "Paint", Amount(min(trial.cost, trial.most), min(trial.cost, trial.most)), PRICED),)

    def is_time_known(self, _target):
        return True


def make_job(number, state):
    return JobRecord(f"j{number}", 1, "t", f"d{number}", "sent", 1, f"p{number}", state, 1.0)


@given(SUMS, st.lists(st.tuples(SUMS, SUMS, st.booleans()), max_size=12), st.randoms())
def test_what_is_spent_is_never_negative_and_never_over_the_budget(budget, jobs, random):
    spending = FolderSpending(Prices(), budget=budget)
    open_jobs, amounts = {}, {}

    def end(number):
        trial = open_jobs.pop(number)
        charges = spending.record_end(make_job(number, SUCCEEDED), trial, JobUsage(), 2.0)
        amounts[number] = sum_charges(charges)

    for number, (most, cost, ends_one) in enumerate(jobs):
        trial = SimpleNamespace(most=most, cost=cost)
        if spending.fits("t", trial):
            assert spending.count_affordable("t", trial) >= 1
            amounts[number] = sum_charges(spending.record_intent(make_job(number, INTENT), trial))
            open_jobs[number] = trial
        else:
            assert sum(amount.high for amount in amounts.values()) + most > budget
            assert spending.count_affordable("t", trial) == 0
        if ends_one and open_jobs:
            end(random.choice(list(open_jobs)))
        assert spending.spent == sum(amounts.values(), NOTHING)
        assert 0 <= spending.spent.low <= spending.spent.high <= budget
    for number in random.sample(list(open_jobs), len(open_jobs)):
        end(number)
    assert spending.spent == sum(amounts.values(), NOTHING)
    assert spending.spent.high <= budget
