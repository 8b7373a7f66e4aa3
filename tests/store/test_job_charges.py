from __future__ import annotations

import math

import pytest

from sweeper.model.charges import ESTIMATED, OF_JOB, PRICED, Charge
from sweeper.model.money import UNKNOWN_AMOUNT, Amount
from sweeper.store import Store, records
from sweeper.store.records import JobRecord

NODE = Charge("7", "FluxProNode", Amount(0.03, 0.05), PRICED)
TIME = Charge(OF_JOB, "", Amount(0.0, 1.0), ESTIMATED)


def record_intent(store, job_id, *charges):
    job = JobRecord(job_id, 1, "cloud", f"digest of {job_id}", "sent", 1, None, records.INTENT, 10.0)
    store.record_intent(job, charges=charges)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path) as store:
        yield store


def test_job_that_may_run_counts_with_what_it_costs_at_most(store):
    record_intent(store, "j1", NODE, TIME)
    assert store.charges.load_spent() == Amount(0.03, 1.05)
    assert [charge.is_open for charge in store.charges.iter_all()] == [True, True]
    store.record_submitted("j1", "p1", 11.0)
    store.record_finished("j1", records.FAILED, charges=[NODE])
    ((charge),) = store.charges.iter_all()
    assert (charge.charge, charge.job, charge.target, charge.is_open) == (NODE, "j1", "cloud", False)


@pytest.mark.parametrize(
    ("prompt_id", "state", "spent"),
    [
        (None, records.UNSENT, 0.0),
        (None, records.REJECTED, 0.0),
        (None, records.LOST, 0.0),
        ("p1", records.LOST, 1.05),
        ("p1", records.CANCELLED, 1.05),
    ],
)
def test_only_jobs_that_a_server_may_have_executed_are_spent(store, prompt_id, state, spent):
    record_intent(store, "j1", NODE, TIME)
    if prompt_id is not None:
        store.record_submitted("j1", prompt_id, 11.0)
    store.record_finished("j1", state)
    assert store.charges.load_spent().high == pytest.approx(spent)


def test_charge_without_upper_bound_has_none_in_the_sum(store):
    record_intent(store, "j1", NODE, Charge("8", "ChatNode", UNKNOWN_AMOUNT, PRICED))
    assert store.charges.load_spent() == Amount(0.03, math.inf)
    assert next(charge for charge in store.charges.iter_all() if charge.charge.node == "8").charge.amount.is_unknown
