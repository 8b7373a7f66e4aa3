"""The budget of a results folder: no job is submitted that may exceed it, whatever fails."""

from __future__ import annotations

import json
import random
import time
from contextlib import ExitStack

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.faults import Scenario
from sweeper.errors import UnreachableError, UsageError
from sweeper.model.money import Amount, to_micros, to_usd
from sweeper.running.run_events import JobSubmitted, Notice, RunCounts, TrialDone
from tests.running.fault_proxy import AFTER, BEFORE, LATE, STREAM, FaultyProxy
from tests.running.servers import Served
from tests.running.shop import KEY_VARIABLE, PRICE, Shop, load_charges


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a key")


@pytest.fixture
def shop():
    with Shop() as server:
        yield server


def test_run_ends_in_order_at_the_budget_and_goes_on_with_a_larger_one(shop, experiment, tmp_path):
    plan, out = experiment(seed=list(range(10))), tmp_path / "out"

    first = sweeper.run(plan, shop.target(), out, budget=0.1)
    assert (first.stopped_by, first.succeeded, first.pending, shop.sold) == ("budget", 3, 7, 3)
    assert first.error == (
        "budget: 0.09 USD of 0.10 USD is spent, and the next job may cost 0.03 USD; 7 trials are left, for about "
        "0.21 USD. To go on, run the same command with `--budget '0.30 USD'`"
    )
    for wrong in (-1, "20 credits"):
        with pytest.raises(UsageError, match="is not a sum in US dollars"):
            sweeper.run(plan, shop.target(), out, budget=wrong)
    second = sweeper.run(plan, shop.target(), out, budget=0.1)
    assert (second.stopped_by, second.submitted) == ("budget", 0)
    third = sweeper.run(plan, shop.target(), out, budget="0.3 USD")
    assert (third.stopped_by, third.error, third.succeeded, shop.sold) == (None, None, 10, 10)
    assert (third.cost.high, third.spent.high) == (210_000, 300_000)


def choose_fault(draw):
    """Make a proxy's `decide`, which strikes a few requests at random."""
    kinds, strikes = draw.sample([*BEFORE, *AFTER, *STREAM, LATE], 6), 12

    def decide(asked):
        nonlocal strikes
        kind = draw.choice(kinds)
        if not strikes or draw.random() > 0.2 or (kind in STREAM) != asked.path.endswith("/ws"):
            return None
        if asked.path.endswith("object_info") or (kind == LATE and not asked.submits):
            return None
        strikes -= 1
        return kind

    return decide


@pytest.mark.parametrize("seed", range(3))
def test_budget_holds_whatever_fails(seed, experiment, tmp_path):
    draw = random.Random(seed)
    plan = experiment(seed=list(range(8)), run={"retries": 3})
    shops, targets = [], []

    def attempt(budget):
        """Run the same command until it gets as far as it can."""
        for _ in range(5):
            try:
                run = sweeper.run(plan, targets, tmp_path / "out", budget=budget, patience=5.0, retry_failed=True)
            except UnreachableError:  # at the start
                continue
            charged = to_micros(sum(shop.charge_total for shop in shops))
            assert charged <= run.spent.high <= to_micros(budget), run
            assert run.spent == load_charges(tmp_path / "out")[1]
            if run.stopped_by == "budget" or run.succeeded == 8:
                return run
        raise AssertionError(run)

    with ExitStack() as stack:
        for _ in range(1 + seed % 2):
            dialect = draw.choice(["cloud", "comfyui", "v2"])
            shop = stack.enter_context(Shop(dialect, tells_charges=draw.random() < 0.5))
            proxy = stack.enter_context(FaultyProxy(shop.url, choose_fault(draw)))
            shop.faults.fail_nodes, shop.faults.fail_node_times = {draw.choice(["Paint", "Keep"])}, draw.randint(0, 3)
            shop.faults.fail_type = draw.choice(["OOMError", "RuntimeError"])
            # API v2 has no call for node classes.
            price = {"price": {"nodes": {"Paint": f"{PRICE} USD"}}} if dialect == "v2" else {}
            targets.append(shop.target(url=proxy.url, concurrency=draw.choice([1, 2, 4]), **price))
            shops.append(shop)
        attempt(draw.randint(2, 8) * PRICE + draw.choice([0, 0.01]))
        assert attempt(10.0).succeeded == 8


def test_cheaper_target_goes_on_when_the_dear_one_does_not_fit(experiment, tmp_path):
    with Shop() as dear, Shop() as cheap, Shop() as free:
        targets = [
            shop.target(name=name, price={"nodes": {"Paint": price}}, concurrency=2)
            for shop, name, price in ((dear, "dear", "0.05 USD"), (cheap, "cheap", "0.01 USD"), (free, "free", "0 USD"))
        ]
        plan = experiment(seed=list(range(30)))
        first = sweeper.run(plan, targets[:2], tmp_path / "out", budget=0.17)
        cost = 0.05 * dear.sold + 0.01 * cheap.sold
        assert (first.stopped_by, first.spent) == ("budget", Amount.exactly(cost))
        assert 0.16 < cost <= 0.17 + 1e-9
        second = sweeper.run(plan, targets, tmp_path / "out", budget=0.17)
        assert (second.stopped_by, second.succeeded + second.kept.get("free", 0)) == (None, 30)
        assert cost == pytest.approx(0.05 * dear.sold + 0.01 * cheap.sold)


def test_job_on_a_target_that_is_down_makes_nothing_wait_for_ever(experiment, tmp_path):
    with Shop("comfyui") as away, Shop() as there, FaultyProxy(away.url) as proxy:
        away.faults.stall_nodes, there.faults.node_seconds = {"Paint"}, 0.1

        def leave(event):
            if isinstance(event, JobSubmitted) and event.target == "away":
                proxy.decide = lambda _: "reset"

        price = {"nodes": {"Paint": "0.06 USD"}}
        targets = [away.target(url=proxy.url, name="away", price=price), there.target(name="there", price=price)]
        began = time.monotonic()
        run = sweeper.run(
            experiment(seed=list(range(6))), targets, tmp_path / "out", budget=0.13, patience=1.0, progress=leave
        )

    assert (run.stopped_by, run.spent.high) == ("budget", 120_000)
    assert time.monotonic() - began < 30


def test_failure_that_the_budget_left_without_a_retry_is_named(shop, experiment, tmp_path):
    shop.faults.fail_nodes, shop.faults.fail_node_times, shop.faults.fail_type = {"Keep"}, 1, "OOMError"
    plan, target = experiment(seed=[1, 2]), shop.target(concurrency=1)
    run = sweeper.run(plan, target, tmp_path / "out", budget=0.04)
    assert (run.stopped_by, run.failed, run.pending) == ("budget", 1, 1)
    assert "; 2 trials are left, for about 0.06 USD." in run.error
    assert "with `--budget '0.09 USD'` and `--retry-failed`, because 1 of them failed" in run.error
    assert sweeper.run(plan, target, tmp_path / "out", budget=0.1, retry_failed=True).succeeded == 2


@pytest.mark.parametrize("price", [{"per_job": "0.02 USD", "per_second": "0.0001 USD"}, {"per_second": "0.1 USD"}])
def test_the_budget_that_a_run_proposes_lets_the_rest_run(price, shop, experiment, tmp_path):
    shop.faults.node_seconds = 0.05
    target, out = shop.target(price={"nodes": {}, **price}, concurrency=2), tmp_path / "out"
    first = sweeper.run(experiment(seed=list(range(6))), target, out, budget=0.015)
    assert first.stopped_by == "budget"
    shop.faults.node_seconds = 0.06
    proposed = first.error.partition("--budget '")[2].partition("'")[0]
    assert sweeper.run(experiment(seed=list(range(6))), target, out, budget=proposed).succeeded == 6


def test_jobs_go_one_at_a_time_until_it_is_known_how_long_they_take(shop, experiment, tmp_path):
    shop.faults.node_seconds = 0.1
    events = []
    price = {"per_second": "0.1 USD", "nodes": {}}
    run = sweeper.run(
        experiment(seed=list(range(6))),
        shop.target(price=price, concurrency=3),
        tmp_path / "out",
        budget=0.5,
        progress=events.append,
    )
    order = [type(event) for event in events if isinstance(event, JobSubmitted | TrialDone)]
    assert order[:4] == [JobSubmitted, TrialDone, JobSubmitted, JobSubmitted]
    assert (run.stopped_by, run.succeeded) == (None, 6)
    assert 0.6 * 0.2 < to_usd(run.spent.high) < 0.5


def test_budget_is_refused_if_a_price_has_no_upper_bound(experiment, tmp_path):
    out = tmp_path / "out"
    with Shop(badge={"engine": "jsonata", "expr": '{"type": "text", "text": "$5/1M tokens"}'}) as shop:
        with pytest.raises(UsageError, match=r"node 1 \(Paint\) costs at most on shop.*'\$5/1M tokens'; state that in"):
            sweeper.run(experiment(seed=[1, 2, 3]), shop.target(), out, budget=1.0)
        assert shop.seen.submits == 0
        sweeper.run(experiment(seed=[1, 2, 3]), shop.target(), out, limit=1)
        with pytest.raises(UsageError, match=r"what node 1 \(Paint\) cost in run 1 on shop"):
            sweeper.run(experiment(seed=[1, 2, 3]), shop.target(), out, budget=1.0, where="seed == 2", fresh=True)
        stated = shop.target(price={"nodes": {"Paint": "0.4 USD"}})
        run = sweeper.run(experiment(seed=[1, 2, 3]), stated, out, budget=1.0)
        assert (run.stopped_by, run.succeeded, shop.sold) == ("budget", 2, 2)


def test_budget_is_refused_if_nobody_knows_the_nodes_of_a_paid_target(experiment, tmp_path):
    with Shop("v2") as shop:  # API v2 has no call for them
        paid = shop.target(price={"per_job": "0.01 USD"})
        with pytest.raises(UsageError, match="does not say which node classes it has"):
            sweeper.run(experiment(seed=[1]), paid, tmp_path / "out", budget=1.0)
        assert shop.seen.submits == 0
        events = []
        run = sweeper.run(
            experiment(seed=[1]), shop.target(has_key=False), tmp_path / "out", budget=1.0, progress=events.append
        )
    assert run.succeeded == 1
    assert any("the budget limits nothing" in event.message for event in events if isinstance(event, Notice))


def test_budget_takes_no_prices_from_the_cache_of_node_classes(shop, experiment, tmp_path):
    priced, shop.faults.scenario = shop.faults.scenario, Scenario()
    sweeper.run(experiment(seed=[100]), shop.target(), tmp_path / "free")
    shop.faults.scenario = priced
    for check in (True, False):
        out = tmp_path / f"checked-{check}"
        run = sweeper.run(experiment(seed=[1, 2, 3]), shop.target(), out, budget=0.04, fresh=True, check=check)
        assert (run.stopped_by, run.spent) == ("budget", Amount.exactly(PRICE))


def test_remake_and_check_count_as_much_as_the_first_run(shop, experiment, tmp_path):
    plan, out = experiment(seed=[1, 2, 3]), tmp_path / "out"
    assert sweeper.run(plan, shop.target(), out, budget=0.15).succeeded == 3
    shop.faults.missing_download_times = 10**6
    for file in (out / "artifacts").iterdir():
        file.unlink()
    remade = sweeper.run(plan, shop.target(), out, budget=0.15, remake=True, retries=0)
    assert (remade.stopped_by, shop.sold) == ("budget", 5)
    shop.faults.missing_download_times = 0
    fresh = sweeper.run(plan, shop.target(), out, budget=0.18, fresh=True)
    assert (fresh.stopped_by, shop.sold, fresh.spent.high) == ("budget", 6, 180_000)


@pytest.mark.parametrize("seed", range(3))
def test_budget_holds_when_the_run_is_killed(seed, coloured, runners, tmp_path):
    draw = random.Random(seed)
    plan = coloured(6, run={"retries": 3})
    price = {"per_job": f"{PRICE} USD", "nodes": {}}
    with Served(("cloud", "comfyui", "v2")[seed % 3], tmp_path / "data") as server:
        target = server.target(price=price, concurrency=draw.choice([1, 3]))
        budget = draw.randint(2, 5) * PRICE
        for die_at in (draw.randint(90, 180), draw.randint(10, 60), None):
            order = {} if die_at is None else {"die_at": die_at}
            ended = runners.run(plan, target, tmp_path / "out", options={"budget": budget}, **order)
            _, spent = load_charges(tmp_path / "out")
            assert to_micros(len(server.proxy.accepted) * PRICE) <= spent.high <= to_micros(budget)
        assert ended.said[-1] == "stopped_by budget"
        assert spent.high == to_micros(budget) == to_micros(len(server.proxy.accepted) * PRICE)
        ended = runners.run(plan, target, tmp_path / "out", options={"budget": 6 * PRICE})
        assert (ended.said[-1], len(server.proxy.accepted)) == ("stopped_by None", 6)


def test_three_jobs_that_prove_free_leave_the_whole_budget(experiment, tmp_path):
    """In floats, 3 x 0.01 - 3 x 0.01 is -3e-18, of which no logarithm exists."""
    plan, counts, lines = experiment(seed=[1, 2, 3]), RunCounts(), []

    def show(event):
        counts.count(event)
        lines.append(str(counts))

    with Shop("comfyui", cache="lru 50") as shop:
        target = shop.target(price={"nodes": {"Paint": "0.01 USD"}}, concurrency=3)
        sweeper.run(plan, target, tmp_path / "first")
        shop.faults.node_seconds = 0.2
        run = sweeper.run(plan, target, tmp_path / "out", budget=0.03, progress=show)
    assert (run.succeeded, run.spent, shop.sold) == (3, Amount(), 3)
    assert "spent" not in lines[-1]


def test_a_larger_job_may_cost_as_many_times_more_as_it_is_larger(tmp_path):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": "{{ width }}", "height": 8, "batch_size": 1, "color": 1}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "t.json").write_text(json.dumps(graph))
    with EmbeddedServer() as server:
        target = {"url": server.url, "name": "box", "dialect": "cloud", "price": {"per_second": "1 USD", "nodes": {}}}

        def run(width, **options):
            (tmp_path / "e.yaml").write_text(f"template: t.json\nsweep: {{grid: {{width: [{width}]}}}}\n")
            return sweeper.run(tmp_path / "e.yaml", target, tmp_path / "out", **options)

        spent = to_usd(run(8).spent.high)
        assert run(4000, budget=spent * 20).stopped_by == "budget"
        assert run(8, budget=spent * 20, fresh=True).stopped_by is None
