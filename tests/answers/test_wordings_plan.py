"""The approved words of `sweeper plan`."""

from __future__ import annotations

from dataclasses import replace

from sweeper.model.money import NOTHING, UNKNOWN_AMOUNT, Amount
from sweeper.planning.plan import OrderReport
from sweeper.planning.plan_outline import (
    BlockOutline,
    Bounds,
    CellCost,
    DueAmount,
    Exclusion,
    NodeCost,
    PlanCost,
    PlanOutline,
    TimeCost,
)
from sweeper.running.plan_answer import (
    CostChange,
    CostChanges,
    DifferentTrial,
    Estimate,
    MeanSeconds,
    PlanAnswer,
    PlanDifferences,
    WrittenWorkflows,
)
from tests.answers.approved import check_approved

CELLS = {"prompt": ["a fox | a hare", "\x1b[2Jan owl with a description that is too long for a cell"],
         "steps": list(range(1, 41)), "seed": [2**64 - 1]}  # fmt: skip
BLOCK = BlockOutline((("prompt",), ("steps",), ("seed",)), (2, 40, 1), 80, (), 0, 80)
OUTLINE = PlanOutline("foxes", "foxes.yaml", "templates/txt2img.json", 80, {"prompt": 2, "steps": 40, "seed": 1},
                      (BLOCK,), CELLS.__getitem__)  # fmt: skip
ORDER = OrderReport("auto", (("prompt", "steps", "seed"),), 200, 200, 0, measured=False, caching="classic",
                    why_written=None)  # fmt: skip
PLAN = PlanAnswer(
    outline=OUTLINE, out="results/foxes", targets=("embedded",), on="embedded", order=ORDER, selected=80, new=80,
    done=0, failed=0, open=0, stale=0, stale_files="", done_on={}, duplicates=0, where=None, limit=None, jobs=80,
    estimate_s=None, estimate=None, cost=None, warnings=(), has_classes=True,
)  # fmt: skip

EXCLUDED = (
    Exclusion("exclude[0]", {"prompt": "a fox", "steps": 3}, 2), Exclusion("exclude[1]", {"steps": 3.0}, 1),
    Exclusion("where", "steps * cfg < 21", 10), Exclusion("sample", {"n": 5, "seed": 1}, 62),
)  # fmt: skip
SECONDS = MeanSeconds(5.0, 2.5, 7322.0)


def usd(low, high=None):
    return Amount.between(low, low if high is None else high)


def make_node(number, **changes):
    node = NodeCost(node=str(number), class_type="PaidImage", executions=Bounds(80, 80), each=usd(0.03, 0.045),
                    total=usd(2.4, 3.6), left=usd(1.2))  # fmt: skip
    return replace(node, **changes)


def make_cost(*nodes, time=None, axes=None, left=NOTHING):
    total = sum((node.total for node in nodes), NOTHING)
    return PlanCost(jobs=80, total=total, left=left, priced=DueAmount(total, NOTHING), estimated=time, nodes=nodes,
                    axes=axes or {})  # fmt: skip


def test_plan():
    check_approved("plan", PLAN)
    alone = replace(OUTLINE, count=1, axes={}, blocks=(replace(BLOCK, axes=(), sizes=(), product=1, count=1),))
    order = replace(ORDER, mode="written", axes=((),), executions=5, written=5)
    check_approved(
        "plan_of_one_trial", replace(PLAN, outline=alone, order=order, selected=1, new=1, jobs=1, targets=(), on="")
    )


def test_plan_with_filters_options_and_earlier_jobs():
    blocks = (replace(BLOCK, excluded=EXCLUDED, included=1, count=6), replace(BLOCK, sizes=(2,), product=2, count=2))
    check_approved(
        "plan_that_goes_on",
        replace(
            PLAN, outline=replace(OUTLINE, count=8, blocks=blocks), targets=("gpu-1", "gpu-2"), on="gpu-1, gpu-2",
            selected=7, new=4, done=2, failed=1, open=1, stale=1, done_on={"gpu-2": 1, "old": 1}, duplicates=1,
            stale_files="mychar.safetensors on gpu-1 changed (3 Nov -> 28 Nov)", where="steps < 9", limit=3, jobs=3,
            estimate_s=5.0,
            estimate=Estimate(SECONDS, 2, MeanSeconds(61.0, 1.0, 90.0)),
            order=OrderReport("auto", (("prompt", "steps"), ("seed",)), 12, 30, 18, measured=True, caching="lru 3",
                              why_written="this server keeps no node results"),
            workflows=WrittenWorkflows("out", 3, 4), warnings=("out holds 2 workflows of other plans",),
        ),
    )  # fmt: skip


def test_plan_of_paid_nodes():
    axes = {"width": tuple(CellCost(width, 2 * (width > 1), usd(0.06)) for width in range(25)),
            "prompt": (CellCost("a fox", 40, usd(1)), CellCost(["a", {"b": 1}], 40, UNKNOWN_AMOUNT))}  # fmt: skip
    nodes = (
        make_node(1, approximate=True),
        make_node(2, class_type="PaidVideo", executions=Bounds(3, 80), each=Amount(50_000, None),
                  total=Amount(4_000_000, None), reasons=("it costs 0.05 USD/second",)),
        make_node(3), make_node(4), make_node(5),
    )  # fmt: skip
    time = TimeCost(Bounds(3000.0, 9000.5), usd(2, 4), usd(1))
    cost = make_cost(*nodes, time=time, axes=axes, left=usd(1.5, 4))
    check_approved("plan_of_paid_nodes", replace(PLAN, cost=cost, done=3))
    check_approved(
        "plan_of_paid_nodes_limited", replace(PLAN, cost=make_cost(nodes[0], left=usd(0.03)), limit=1, jobs=1)
    )


def test_plan_of_paid_time():
    learnt = TimeCost(Bounds(20.0, 20.0), usd(0.5), NOTHING)
    once = Estimate(MeanSeconds(20.0, 20.0, 20.0), 1, MeanSeconds(20.0, 20.0, 20.0))
    check_approved(
        "plan_of_paid_time", replace(PLAN, cost=make_cost(time=learnt), done=80, new=0, jobs=1, estimate=once)
    )
    unknown = TimeCost(None, UNKNOWN_AMOUNT, UNKNOWN_AMOUNT)
    check_approved("plan_of_unknown_time", replace(PLAN, cost=make_cost(make_node(1), time=unknown)))
    check_approved("plan_of_paid_jobs", replace(PLAN, cost=make_cost(time=TimeCost(None, usd(0.8), usd(0.8)))))


def make_diff(new=(), changed=(), gone=(), *, cost=None):
    counts = (40, len(new), len(changed), len(gone))
    return PlanDifferences("results/foxes", 3, *counts, cost, {"changed": changed, "new": new, "gone": gone})


def test_plan_compared_with_a_run():
    axes = {"prompt": "a fox", "steps": 8}
    changed = (DifferentTrial(1, axes, 7, {"cfg": (2.0, 4.0), "text": (None, "new")}), DifferentTrial(2, axes, 8, {}))
    new = tuple(DifferentTrial(index, axes) for index in range(12))
    cost = CostChanges(CostChange(usd(0.06), usd(0.12)), CostChange(usd(0.16, 0.27), usd(0.25, 0.4)))
    check_approved("plan_diff", replace(PLAN, diff=make_diff(new, changed, new[:1], cost=cost)))
    for name, nodes, time in (
        ("plan_diff_of_equal_cost", CostChange(usd(0.06), usd(0.06)), None),
        ("plan_diff_of_cheaper_nodes", CostChange(usd(0.06), usd(0.03)), None),
        ("plan_diff_of_time", CostChange(NOTHING, NOTHING), CostChange(usd(0.1), usd(0.1))),
    ):
        check_approved(name, make_diff(cost=CostChanges(nodes, time)))
