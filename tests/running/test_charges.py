"""What the store has of the cost of each job: at most from its intent on, and by what ran after its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.model.charges import ESTIMATED, OF_JOB, PRICED
from sweeper.model.money import Amount
from sweeper.running.run_events import CostChanged
from sweeper.store import Store
from tests.running.conftest import NODES

BADGE = {
    "engine": "jsonata",
    "expr": '{"type": "usd", "usd": widgets.seed > 99 ? 0.5 : 0.03}',
    "depends_on": {"widgets": [{"name": "seed", "type": "INT"}], "inputs": [], "input_groups": []},
}


class Shop(EmbeddedServer):
    """A server whose node Paint costs money, and which counts how often it ran."""

    def __init__(self, dialect: Any = "cloud", badge: Any = BADGE) -> None:
        paint = NODES["Paint"]
        self.runs: Counter[str] = Counter()  # by text and seed

        def run(context: Any, text: str, seed: int) -> Any:
            self.runs[f"{text}/{seed}"] += 1
            return paint.run(context, text=text, seed=seed)

        super().__init__(dialect, nodes={**NODES, "Paint": replace(paint, run=run, flags={"price_badge": badge})})
        self.faults.retry_after = 0.0

    def target(self, **more: Any) -> dict[str, Any]:
        return {"url": self.url, "dialect": self.settings.dialect, "name": f"shop-{self.url[-5:]}", **more}


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        yield server


def load_charges(out):
    with Store.open(out, readonly=True) as store:
        return list(store.charges.iter_all()), store.charges.load_spent()


def test_each_job_is_charged_for_the_partner_node_that_ran_and_for_its_time(shop, experiment, tmp_path):
    events = []
    price = {"per_second": "100 USD", "per_job": "0.5 USD"}
    run = sweeper.run(experiment(seed=[1, 100]), shop.target(price=price), tmp_path / "out", progress=events.append)

    charges, spent = load_charges(tmp_path / "out")
    assert (run.succeeded, len(charges)) == (2, 4)
    nodes = [one.charge for one in charges if one.charge.node == "1"]
    assert sorted(charge.amount.high for charge in nodes) == [0.03, 0.5]
    assert {(charge.class_type, charge.kind) for charge in nodes} == {("Paint", PRICED)}
    with Store.open(tmp_path / "out", readonly=True) as store:
        for job in store.jobs():
            (time,) = (one.charge for one in charges if one.job == job.id and one.charge.node == OF_JOB)
            assert (time.kind, time.amount.low) == (ESTIMATED, pytest.approx(0.5 + 100 * job.seconds))
    assert [event.spent for event in events if isinstance(event, CostChanged)][-1].high == pytest.approx(spent.high)


def test_a_failed_job_may_have_cost_anything_up_to_its_price(shop, experiment, tmp_path):
    shop.faults.fail_nodes = {"Keep"}
    sweeper.run(experiment(seed=[1], run={"retries": 0}), shop.target(), tmp_path / "out")

    ((charge,), spent) = load_charges(tmp_path / "out")
    assert (charge.state, charge.charge.amount, spent) == ("failed", Amount(0, 0.03), Amount(0, 0.03))


def test_a_node_whose_result_the_server_has_cached_costs_nothing(experiment, tmp_path):
    with Shop("comfyui") as shop:
        for _ in range(2):
            sweeper.run(experiment(seed=[1]), shop.target(), tmp_path / "out", fresh=True)

        charges, spent = load_charges(tmp_path / "out")
    assert [one.charge.amount for one in charges] == [Amount.exactly(0.03), Amount()]
    assert spent.high == 0.03 * sum(shop.runs.values())


def test_a_job_that_the_server_refuses_costs_nothing(shop, experiment, tmp_path):
    shop.faults.refusal, shop.faults.refusal_times = "BILLING_UNAVAILABLE", 1
    shop.faults.drop_before_accept = 1
    run = sweeper.run(experiment(seed=[1]), shop.target(), tmp_path / "out")

    assert (run.succeeded, load_charges(tmp_path / "out")[1].high) == (1, 0.03)
