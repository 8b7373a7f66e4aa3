"""What the store has of the cost of each job: at most from its intent on, and by what ran after its end."""

from __future__ import annotations

import pytest

import sweeper
from sweeper.model.money import ESTIMATED, MEASURED, OF_JOB, PRICED, Amount, to_micros
from sweeper.running.run_events import CostChanged
from sweeper.store import Store
from tests.running.shop import KEY_VARIABLE, PRICE, Shop, load_charges


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a key")


@pytest.fixture
def shop():
    with Shop() as server:
        yield server


def test_each_job_is_charged_for_the_partner_node_that_ran_and_for_its_time(shop, experiment, tmp_path):
    events = []
    price = {"per_second": "100 USD", "per_job": "0.5 USD"}
    run = sweeper.run(experiment(seed=[1, 100]), shop.target(price=price), tmp_path / "out", progress=events.append)

    charges, spent = load_charges(tmp_path / "out")
    assert (run.succeeded, len(charges)) == (2, 4)
    nodes = [one.charge for one in charges if one.charge.node == "1"]
    assert sorted(charge.amount.high for charge in nodes) == [30_000, 500_000]
    assert {(charge.class_type, charge.kind) for charge in nodes} == {("Paint", PRICED)}
    with Store.open(tmp_path / "out", readonly=True) as store:
        for job in store.jobs():
            (time,) = (one.charge for one in charges if one.job == job.id and one.charge.node == OF_JOB)
            assert (time.kind, time.amount) == (ESTIMATED, Amount.exactly(0.5 + 100 * job.seconds))
    assert [event.spent for event in events if isinstance(event, CostChanged)][-1] == spent


@pytest.mark.parametrize("dialect", ["cloud", "comfyui", "v2"])
def test_a_job_costs_what_the_server_says(dialect, experiment, tmp_path):
    price = {"per_second": "1 USD", "nodes": {"Paint": "9 USD"}}
    with Shop(dialect, tells_charges=True) as shop:
        target = shop.target(price=price, concurrency=1)
        run = sweeper.run(experiment(seed=[1, 2, 3, 4]), target, tmp_path / "out")

    charges = [one.charge for one in load_charges(tmp_path / "out")[0]]
    measured = [charge.amount.high for charge in charges if charge.kind == MEASURED]
    assert (run.succeeded, shop.charge_total) == (4, pytest.approx(4 * PRICE))
    assert measured == [to_micros(PRICE)] * len(measured)
    if dialect == "comfyui":  # its events say what partner nodes cost, unless one comes after the end of the job
        assert (len(measured) > 0, {charge.kind for charge in charges if charge.node == OF_JOB}) == (True, {ESTIMATED})
    else:
        assert len(measured) == len(charges) == 4


@pytest.mark.parametrize(("node", "least"), [("Paint", 0.0), ("Keep", PRICE)])
def test_a_failed_job_is_charged_for_what_ran_and_perhaps_for_what_failed(node, least, experiment, tmp_path):
    with Shop("comfyui") as shop:
        shop.faults.fail_nodes = {node}
        sweeper.run(experiment(seed=[1], run={"retries": 0}), shop.target(), tmp_path / "out")

    ((charge,), spent) = load_charges(tmp_path / "out")
    assert (charge.state, charge.charge.amount, spent) == (
        "failed",
        Amount.between(least, PRICE),
        Amount.between(least, PRICE),
    )


def test_a_node_whose_result_the_server_has_cached_costs_nothing(experiment, tmp_path):
    with Shop("comfyui") as shop:
        for _ in range(2):
            sweeper.run(experiment(seed=[1]), shop.target(), tmp_path / "out", fresh=True)

        charges, spent = load_charges(tmp_path / "out")
    assert [one.charge.amount for one in charges] == [Amount.exactly(0.03), Amount()]
    assert spent.high == 30_000 * shop.sold


def test_a_job_that_the_server_refuses_costs_nothing(shop, experiment, tmp_path):
    shop.faults.refusal, shop.faults.refusal_times = "BILLING_UNAVAILABLE", 1
    shop.faults.drop_before_accept = 1
    run = sweeper.run(experiment(seed=[1]), shop.target(), tmp_path / "out")

    assert (run.succeeded, load_charges(tmp_path / "out")[1].high) == (1, 30_000)
