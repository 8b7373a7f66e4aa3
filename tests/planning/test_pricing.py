"""What plans cost, against a simulation that renders every trial and remembers what a server has cached."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest

from sweeper.model.money import UNKNOWN_AMOUNT, Amount, TargetPrice
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.price_badge import PriceCalculator
from sweeper.model.workflow import encode_canonical, is_link
from sweeper.planning.order import Costs, ServerCache
from sweeper.planning.plan_outline import Bounds, CellCost
from sweeper.planning.pricing import LearntTimes, PlanPrices
from tests.experiment_files import make_plan, node

EXPR = """{
  "type": "range_usd", "min_usd": widgets.width / 1000,
  "max_usd": widgets.width / 500 + (inputs.image.connected ? 1 : 0)
}"""
BADGE = {
    "engine": "jsonata",
    "expr": EXPR,
    "depends_on": {"widgets": [{"name": "width", "type": "INT"}], "inputs": ["image"], "input_groups": []},
}
CLASSES = NodeInfo.from_object_info(
    {
        "Paid": {
            "input": {
                "required": {"prompt": ["STRING", {}], "seed": ["INT", {}]},
                "optional": {"width": ["INT", {"default": 100}], "image": ["IMAGE", {}]},
            },
            "output": ["IMAGE"],
            "price_badge": BADGE,
        },
        "Choose": {
            "input": {"required": {"mode": [["fast", "best"], {}]}},
            "output": ["IMAGE"],
            "price_badge": {
                "engine": "jsonata",
                "expr": '{"type": "usd", "usd": widgets.mode = "best" ? 2 : 1}',
                "depends_on": {"widgets": [{"name": "mode", "type": "COMBO"}]},
            },
        },
        "Blur": {"input": {"required": {"image": ["IMAGE", {}], "radius": ["INT", {}]}}, "output": ["IMAGE"]},
        "PrimitiveInt": {"input": {"required": {"value": ["INT", {}]}}, "output": ["INT"]},
        "Compute": {"input": {"required": {}}, "output": ["INT"]},
        "SaveImage": {"input": {"required": {"images": ["IMAGE", {}]}}, "output": [], "output_node": True},
    }
)
GRAPH = {
    "1": node("Paid", prompt="a", seed=0, width=["5", 0]),
    "2": node("Blur", image=["1", 0], radius=1),
    "3": node("Paid", prompt="b", seed=0, image=["2", 0]),
    "4": node("SaveImage", images=["3", 0], filename_prefix="x"),
    "5": node("PrimitiveInt", value=200),
    "6": node("Paid", prompt="nobody needs this", seed=0),
}
SLOTS = {
    "prompt": {"at": "1.prompt"},
    "seed": {"at": "1.seed"},
    "width": {"at": "5.value"},
    "radius": {"at": "2.radius"},
    "second": {"at": "3.seed"},
}


def simulate(plan, caching, sent):
    """Add up the price of every execution of a node, trial by trial. Each block begins with an empty cache."""
    calculator, total, cached = PriceCalculator(), Amount(), set()
    first_trials = set(itertools.accumulate([part.count for part in plan.parts]))
    for number, trial in enumerate(plan):
        cached = set() if number in first_trials else cached
        if not sent[trial.index]:
            continue
        graph = plan.workflow(trial)
        keys = {}
        for node_id in ("1", "3"):
            keys[node_id] = encode_canonical(list_upstream(graph, node_id))
            if caching.kind == "none" or keys[node_id] not in cached:
                inputs = graph[node_id]["inputs"]
                values = {"width": graph["5"]["inputs"]["value"] if node_id == "1" else 100}
                total += calculator.compute(CLASSES.classes["Paid"].price_badge, values, inputs).amount
        cached = cached | set(keys.values()) if caching.keeps_all else set(keys.values())
    return total


def compute_cost(prices, sent):
    """The cost of these trials, all of which are left to pay."""
    cost = prices.compute(sent, sent)
    assert (cost.left, cost.priced.left) == (cost.total, cost.priced.total)
    return cost


def list_upstream(graph, node_id):
    inputs = graph[node_id]["inputs"]
    return [graph[node_id], *(list_upstream(graph, one[0]) for one in inputs.values() if is_link(one))]


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_costs_what_its_executions_cost_one_by_one(tmp_path, seed):
    chance = random.Random(seed)
    axes = {name: chance.sample(range(100, 110), chance.randint(1, 3)) for name in chance.sample(sorted(SLOTS), 4)}
    rest = {"sample": {"n": 5, "seed": seed}} if seed % 2 else {"include": [dict.fromkeys(axes, 50)]}
    caching = chance.choice([ServerCache(), ServerCache("none"), ServerCache("ram", keeps_all=True)])
    experiment = {"sweep": [{"grid": axes, **rest}, {"grid": {"second": [1, 2]}}]}
    plan = make_plan(tmp_path, experiment, GRAPH, SLOTS).reordered(Costs(caching=caching))
    sent = bytearray(chance.random() < 0.7 for _ in range(len(plan)))

    cost = compute_cost(PlanPrices(plan, CLASSES), sent)

    expected = simulate(plan, caching, sent)
    assert cost.total == expected
    assert (cost.jobs, [one.node for one in cost.nodes]) == (sum(sent), ["1", "3"])  # node 6 never runs


def test_an_axis_that_changes_the_price_is_listed_with_its_values(tmp_path):
    grid = {"width": [100, 200], "radius": [1, 2], "prompt": ["a", "b"]}
    plan = make_plan(tmp_path, {"sweep": {"grid": grid}}, GRAPH, SLOTS)

    cost = compute_cost(PlanPrices(plan, CLASSES), bytearray(b"\1" * 8))

    # Node 1 runs twice for each width, because a change of the radius leaves it in the cache; node 3 runs in every job.
    assert cost.axes == {
        "width": (
            CellCost(100, 4, Amount.between(0.2 + 0.4, 0.4 + 4.8)),
            CellCost(200, 4, Amount.between(0.4 + 0.4, 0.8 + 4.8)),
        )
    }
    assert [(node.executions, node.each) for node in cost.nodes] == [
        (Bounds(4, 4), Amount.between(0.1, 0.4)),
        (Bounds(8, 8), Amount.between(0.1, 1.2)),
    ]


def test_jobs_that_may_run_on_any_machine_cost_from_the_best_to_every_job(tmp_path):
    plan = make_plan(tmp_path, {"sweep": {"grid": {"radius": [1, 2, 3]}}}, GRAPH, SLOTS)

    cost = compute_cost(PlanPrices(plan, CLASSES, shares_cache=False), bytearray(b"\1\1\1"))

    assert cost.nodes[0].executions == Bounds(1, 3)
    assert cost.nodes[0].total == Amount.between(0.2, 1.2)


@pytest.mark.parametrize(
    ("class_type", "inputs", "amount", "reason"),
    [
        ("Choose", {"mode": ["2", 0]}, Amount.between(1, 2), ""),  # any of its choices
        ("Paid", {"width": ["2", 0]}, UNKNOWN_AMOUNT, "its input width comes from node 2"),
        ("Paid", {}, Amount.between(0.1, 0.2), ""),  # the default
    ],
)
def test_a_value_that_comes_over_a_link_is_guessed_only_from_few_choices(tmp_path, class_type, inputs, amount, reason):
    graph = {
        "1": node(class_type, prompt="a", seed=0, **inputs),
        "2": node("Compute"),
        "3": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    plan = make_plan(tmp_path, {}, graph, {"seed": {"at": "1.seed"}})

    (cost,) = compute_cost(PlanPrices(plan, CLASSES), bytearray(b"\1")).nodes

    assert cost.total == amount
    assert "".join(cost.reasons).startswith(reason)


def test_too_many_combinations_of_values_make_the_price_unknown(tmp_path):
    plan = make_plan(tmp_path, {"sweep": {"grid": {"width": {"from": 1, "to": 2001, "step": 1}}}}, GRAPH, SLOTS)

    cost = compute_cost(PlanPrices(plan, CLASSES), bytearray(b"\1" * 2001))

    assert cost.nodes[0].total == UNKNOWN_AMOUNT
    assert cost.nodes[0].reasons == ("it depends on more than 2,000 combinations of values",)


TIMES = {"Paid": 2.0, "Blur": 1.0, "SaveImage": 0.5, "PrimitiveInt": 0.0}


@pytest.mark.parametrize(
    ("learnt", "seconds"),
    [
        (LearntTimes(), None),
        (LearntTimes(TIMES, [5.5]), (9 * 0.5, 9 * 2)),  # 3 runs of Paid, 2 of the others; one job: half to double
        (LearntTimes(TIMES, [4, 4, 4]), (9 * 0.95, 9 * 1.05)),
        (LearntTimes({"Paid": 2.0}, [4, 4, 4]), (8 * 0.95, 8 * 1.05)),  # a class is unknown: the mean of the jobs
    ],
)
def test_the_time_of_jobs_is_estimated_node_by_node_with_the_cache(tmp_path, learnt, seconds):
    plan = make_plan(tmp_path, {"sweep": {"grid": {"radius": [1, 2]}}}, GRAPH, SLOTS)
    rates = [TargetPrice(Fraction(10_000), 1_000_000), None]

    cost = compute_cost(PlanPrices(plan, CLASSES, rates, learnt), bytearray(b"\1\1"))

    if seconds is None:
        assert (cost.estimated.seconds, cost.estimated.total.high) == (None, None)
    else:
        found = (cost.estimated.seconds.low, cost.estimated.seconds.high)
        assert found == pytest.approx(seconds, abs=0.001)
        assert cost.estimated.total == Amount.between(0, 2 + 0.01 * seconds[1])
        assert cost.total == cost.priced.total + cost.estimated.total
