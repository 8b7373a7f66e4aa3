from __future__ import annotations

import pytest

from sweeper.model.money import ESTIMATED, MEASURED, OF_JOB, PRICED, UNKNOWN_AMOUNT, Amount, Charge
from sweeper.store import Store, records
from sweeper.store.records import JobEnd, JobRecord, TableLayout

NODE = Charge("7", "FluxProNode", Amount.between(0.03, 0.05), PRICED)
TIME = Charge(OF_JOB, "", Amount.between(0.0, 1.0), ESTIMATED)


def record_intent(store, job_id, *charges):
    job = JobRecord(job_id, 1, "cloud", f"digest of {job_id}", "sent", 1, None, records.INTENT, 10.0)
    store.record_intent(job, charges=charges)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path) as store:
        yield store


def test_job_that_may_run_counts_with_what_it_costs_at_most(store):
    record_intent(store, "j1", NODE, TIME)
    assert store.charges.load_spent() == Amount.between(0.03, 1.05)
    assert [charge.is_open for charge in store.charges.iter_all()] == [True, True]
    store.record_submitted("j1", "p1", 11.0)
    store.record_finished("j1", JobEnd(records.FAILED, charges=[NODE]))
    ((charge),) = store.charges.iter_all()
    assert (charge.charge, charge.job, charge.target, charge.is_open) == (NODE, "j1", "cloud", False)


@pytest.mark.parametrize(
    ("prompt_id", "state", "spent"),
    [
        (None, records.UNSENT, 0),
        (None, records.REJECTED, 0),
        (None, records.LOST, 0),
        ("p1", records.LOST, 1_050_000),
        ("p1", records.CANCELLED, 1_050_000),
    ],
)
def test_only_jobs_that_a_server_may_have_executed_are_spent(store, prompt_id, state, spent):
    record_intent(store, "j1", NODE, TIME)
    if prompt_id is not None:
        store.record_submitted("j1", prompt_id, 11.0)
    store.record_finished("j1", JobEnd(state))
    assert store.charges.load_spent().high == spent


def test_charge_without_upper_bound_has_none_in_the_sum(store):
    record_intent(store, "j1", NODE, Charge("8", "ChatNode", UNKNOWN_AMOUNT, PRICED))
    assert store.charges.load_spent() == Amount.between(0.03, None)
    assert (
        next(charge for charge in store.charges.iter_all() if charge.charge.node == "8").charge.amount == UNKNOWN_AMOUNT
    )


@pytest.mark.parametrize(
    ("charges", "cost"),
    [
        ([], (None, None)),
        ([NODE], (0.05, "priced")),
        ([NODE, TIME], (1.05, "estimated")),
        ([NODE, Charge("8", "ChatNode", UNKNOWN_AMOUNT, PRICED)], (0.05, "priced (at least)")),
        ([Charge("7", "FluxProNode", Amount.exactly(0.04), MEASURED)], (0.04, "measured")),
    ],
)
def test_cost_of_a_row_is_the_upper_end_and_of_the_least_sure_kind(store, charges, cost):
    with store.transaction():
        run = store.create_run(TableLayout("e", (), ()), file="e.yaml", targets=["cloud"], now=1.0)
        store.add_trials(run, [(0, "digest of j1", {}, {}), (1, "digest of j2", {}, {})])
    record_intent(store, "j1", NODE, TIME)
    record_intent(store, "j2", NODE, TIME)  # has not ended
    store.record_finished("j1", JobEnd(records.SUCCEEDED, charges=charges))
    row, running = store.results()
    assert (row.cost, row.cost_kind) == cost
    assert (running.cost, running.cost_kind, running.currency) == (None, None, None)
