"""`sweeper plan` and the cost: partner nodes, the price of a target, what is left to pay, and differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.store import Store
from sweeper.store.records import JobEnd, JobRecord, TableLayout

PRICE = """(
    $cost := widgets.width > 1024 ? 0.045 : 0.03;
    {"type": "usd", "usd": $cost * (inputs.image.connected ? 2 : 1)}
)"""
OBJECT_INFO = {
    "PaidImage": {
        "input": {"required": {"prompt": ["STRING", {}], "width": ["INT", {"default": 1024}], "seed": ["INT", {}]}},
        "output": ["IMAGE"],
        "api_node": True,
        "price_badge": {
            "engine": "jsonata",
            "expr": PRICE,
            "depends_on": {"widgets": [{"name": "width", "type": "INT"}], "inputs": ["image"], "input_groups": []},
        },
    },
    "PaidVideo": {
        "input": {"required": {"image": ["IMAGE", {}], "radius": ["INT", {}]}},
        "output": ["IMAGE"],
        "api_node": True,
        "price_badge": {
            "engine": "jsonata",
            "expr": '{"type": "usd", "usd": 0.05, "format": {"suffix": "/second"}}',
            "depends_on": {"widgets": [], "inputs": [], "input_groups": []},
        },
    },
    "Blur": {
        "input": {
            "required": {"image": ["IMAGE", {}], "radius": ["INT", {}]},
            "optional": {"model_name": ["STRING", {}]},
        },
        "output": ["IMAGE"],
    },
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}},
        "output": [],
        "output_node": True,
    },
}
GRAPH = {
    "1": {"class_type": "PaidImage", "inputs": {"prompt": "a fox", "width": 1024, "seed": 0}},
    "2": {"class_type": "Blur", "inputs": {"image": ["1", 0], "radius": 1}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}
SLOTS = {
    name: {"at": at, "schema": {"type": "integer"}}
    for name, at in (("width", "1.width"), ("seed", "1.seed"), ("radius", "2.radius"))
}
BOX = {"name": "box", "url": "http://127.0.0.1:9"}


@pytest.fixture
def plan(sweeper):
    """A function that plans a sweep of these axes on a target that is never asked."""

    def run(grid, *options, graph=None, price=None, target=None):
        Path("t.json").write_text(json.dumps(GRAPH | (graph or {})))
        Path("t.slots.yaml").write_text(json.dumps({"slots": SLOTS}))
        Path("o.json").write_text(json.dumps(OBJECT_INFO))
        target = target or BOX | ({"price": price} if price else {})
        Path("e.yaml").write_text(json.dumps({"template": "t.json", "target": target, "sweep": {"grid": grid}}))
        return sweeper("plan", "e.yaml", "--object-info", "o.json", *options)

    return run


def list_lines(text):
    """The lines of a text, with one space between its columns."""
    return [" ".join(line.split()) for line in text.splitlines()]


def record_jobs(sweeper, count, *, times=None):
    """Record that the first trials of `e.yaml` succeeded in 10, 12, 10, ... seconds."""
    out = sweeper("plan", "e.yaml", "--object-info", "o.json", "--jsonl", "-").out
    trials = [json.loads(line) for line in out.splitlines()][:count]
    with Store.open(Path("results/e")) as store:
        with store.transaction():
            run = store.create_run(TableLayout("e", ("width",), ("width",)), file="e.yaml", targets=["box"], now=0.0)
            store.add_trials(run, [(one["index"], one["digest"], one["params"], one["axes"]) for one in trials])
        for one in trials:
            digest = one["digest"]
            store.record_intent(JobRecord(digest, run, "box", digest, "s" * 64, 1, digest, "intent", 0.0))
            store.record_finished(digest, JobEnd("succeeded", started=0.0, ended=10.0 + 2 * (one["index"] % 2)))
        store.servers.add_node_times("box", times or {})


def test_a_partner_node_is_paid_once_for_what_the_server_caches(plan):
    outcome = plan({"seed": [1, 2, 3], "radius": [1, 2]})

    assert "cost 0.09 USD (3 executions x 0.03 USD PaidImage)" in list_lines(outcome.out)
    assert "cost by" not in outcome.out


def test_the_cost_of_what_is_done_is_not_left_to_pay(plan, sweeper):
    plan({"width": [512, 2048], "seed": [1, 2]})
    record_jobs(sweeper, 3)

    outcome = plan({"width": [512, 2048], "seed": [1, 2]})

    line = "cost 0.15 USD (4 jobs x 0.03-0.045 USD PaidImage); 0.045 USD left to pay (3 of 4 done)"
    assert line in list_lines(outcome.out)
    table = outcome.out.partition("cost by width:\n\n")[2].partition("\n\n")[0].splitlines()
    assert [row.split() for row in table] == [
        ["width", "jobs", "each", "job", "total"],
        ["512", "2", "0.03", "USD", "0.06", "USD"],
        ["2048", "2", "0.045", "USD", "0.09", "USD"],
    ]


def test_plan_json_says_how_each_figure_was_found(plan):
    cost = plan({"seed": [1, 2]}, "--json", price={"per_job": "0.01 USD"}).json["cost"]

    assert (cost["currency"], cost["total"], cost["left"]) == ("USD", {"low": 0.08, "high": 0.08}, cost["total"])
    assert cost["estimated"] == {
        "seconds": None,
        "total": {"low": 0.02, "high": 0.02},
        "left": {"low": 0.02, "high": 0.02},
    }
    assert cost["nodes"] == [
        {
            "node": "1", "class": "PaidImage", "kind": "priced", "executions": {"low": 2, "high": 2},
            "each": {"low": 0.03, "high": 0.03}, "total": {"low": 0.06, "high": 0.06},
            "left": {"low": 0.06, "high": 0.06}, "approximate": False, "reasons": [],
        }
    ]  # fmt: skip


def test_a_lower_bound_says_so_and_why(plan):
    outcome = plan(
        {"seed": [1, 2]}, graph={"2": {"class_type": "PaidVideo", "inputs": {"image": ["1", 0], "radius": 1}}}
    )

    line = "cost at least 0.16 USD (2 jobs x 0.03 USD PaidImage, 2 jobs x at least 0.05 USD PaidVideo)"
    assert line in list_lines(outcome.out)
    assert "cost by node:" in outcome.out
    assert "  node 2 (PaidVideo): it costs 0.05 USD/second, and no input says how much it will use" in outcome.out


def test_gpu_time_is_unknown_until_a_job_has_run_then_a_range(plan, sweeper):
    price = {"per_hour": "3.60 USD"}
    first = plan({"seed": [1, 2, 3, 4]}, price=price)
    record_jobs(sweeper, 2, times={"PaidImage": (2, 20.0), "Blur": (2, 1.0), "SaveImage": (2, 1.0)})
    second = plan({"seed": [1, 2, 3, 4]}, "--json", price=price).json["cost"]
    text = plan({"seed": [1, 2, 3, 4]}, price=price).out

    line = "cost 0.12 USD (4 jobs x 0.03 USD PaidImage) + GPU time, unknown until the first job has run"
    assert line in list_lines(first.out)
    low, high = second["estimated"]["seconds"].values()
    assert low < 4 * 11 < high < 1.5 * 4 * 11
    assert second["estimated"]["total"]["low"] == pytest.approx(low * 0.001, abs=2e-6)
    assert second["estimated"]["left"]["high"] < second["estimated"]["total"]["high"]
    assert " s of GPU, 0.0" in text
    assert "left to pay (2 of 4 done)" in text


def test_a_target_states_what_the_nodes_of_a_class_cost(plan):
    price = {"nodes": {"PaidImage": "0.07 USD", "Blur": "0.002 USD"}}

    lines = list_lines(plan({"seed": [1, 2]}, price=price).out)

    assert "cost 0.144 USD (2 jobs x 0.07 USD PaidImage, 2 jobs x 0.002 USD Blur)" in lines


def test_nothing_is_shown_where_nothing_has_a_price(sweeper, write):
    file = write("template: t.json\nsweep: {grid: {seed: [1, 2]}}\n")

    assert sweeper("plan", file, "--json").json["cost"] is None
    assert "cost" not in sweeper("plan", file).out


def test_on_comfy_cloud_nobody_knows_which_machine_has_a_result_cached(plan):
    outcome = plan({"radius": [1, 2, 3]}, target="cloud")

    assert "cost 0.03-0.09 USD (1-3 executions x 0.03 USD PaidImage)" in list_lines(outcome.out)


def test_diff_shows_what_the_partner_nodes_cost_before_and_now(plan, sweeper):
    plan({"width": [512, 1024]})
    record_jobs(sweeper, 2)

    same = plan({"width": [512, 1024]}, "--diff", "1")
    other = plan({"width": [512, 2048, 4096]}, "--diff", "1")
    data = plan({"width": [512, 2048, 4096]}, "--diff", "1", "--json").json["diff"]["cost"]

    assert "cost 0.06 USD for partner nodes, as before" in list_lines(same.out)
    assert "cost 0.06 USD -> 0.12 USD for partner nodes (+0.06 USD)" in list_lines(other.out)
    assert data == {
        "currency": "USD",
        "run": {"low": 0.06, "high": 0.06},
        "plan": {"low": 0.12, "high": 0.12},
        "time": None,
    }


def test_diff_shows_what_gpu_time_cost_before_and_now(plan, sweeper):
    plan({"width": [512, 1024]})
    record_jobs(sweeper, 2)

    outcome = plan({"width": [512, 1024, 512, 1025]}, "--diff", "1", price={"per_second": "0.01 USD"})

    nodes = "0.06 USD -> 0.105 USD for partner nodes (+0.045 USD)"  # a duplicate costs nothing
    time = "0.1634-0.2766 USD -> 0.2525-0.4075 USD for GPU time"
    assert f"cost {nodes}; {time}" in list_lines(outcome.out)


def test_validate_reports_a_wrong_price_with_its_line(sweeper, write):
    file = write("template: t.json\ntarget:\n  url: http://127.0.0.1:9\n  price: {per_second: 0.27 credits}\n")

    outcome = sweeper("validate", file)

    assert outcome.code == 2
    assert "shop.yaml:4: target.price: `per_second` is in credits and `credits_per_usd` is missing" in outcome.err


def test_a_target_of_the_targets_file_may_have_a_price(plan, tmp_path, monkeypatch):
    (tmp_path / "targets.yaml").write_text("studio: {url: 'http://studio:8188', price: {per_job: 0.5 USD}}\n")
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))

    outcome = plan({"seed": [1, 2]}, target="studio")

    line = "cost 0.06 USD (2 jobs x 0.03 USD PaidImage) + 1.00 USD for the jobs on the target"
    assert line in list_lines(outcome.out)


def test_the_cost_is_that_of_the_selected_trials(plan):
    grid = {"width": [512, 2048], "seed": [1, 2]}

    assert "cost 0.06 USD (2 jobs x 0.03 USD PaidImage)" in list_lines(plan(grid, "--where", "width == 512").out)
    limited = plan(grid, "--limit", "1").out
    assert "(4 jobs x 0.03-0.045 USD PaidImage); 0.03 USD for the jobs of this run (at most 1)" in limited


def test_the_time_of_larger_jobs_is_scaled_from_that_of_smaller_ones(plan, sweeper):
    price = {"per_second": "0.01 USD"}
    plan({"width": [512], "seed": [1]}, price=price)
    record_jobs(sweeper, 1)
    same = plan({"width": [512], "seed": [1, 2]}, "--json", price=price).json
    larger = plan({"width": [4096], "seed": [1]}, "--json", price=price).json
    text = list_lines(plan({"width": [4096], "seed": [1]}, price=price).out)

    assert (same["estimate"]["mean_s"], same["estimate"]["scaled"]) == (10.0, 0)
    estimate = larger["estimate"]
    assert (estimate["mean_s"], estimate["scaled"]) == (80.0, 1)
    assert estimate["min_s"] < 30
    assert estimate["max_s"] > 100
    cost = larger["cost"]["estimated"]["left"]
    assert cost["low"] < 0.8 < cost["high"]
    assert "1 job scaled to their pixels, frames, steps and batch, because no earlier job had these" in text


def test_the_time_of_jobs_with_other_model_files_is_a_guess(plan, sweeper):
    blur = {"2": {"class_type": "Blur", "inputs": {"image": ["1", 0], "radius": 1, "model_name": "{{ model }}"}}}
    plan({"model": ["a"]}, graph=blur)
    record_jobs(sweeper, 1)
    outcome = plan({"model": ["a", "b"]}, graph=blur)
    assert "estimate 10.0 s (1.2 s to 1 min 20 s) for one job at a time" in list_lines(outcome.out)
    assert "1 job of model files that no earlier job had: a guess" in list_lines(outcome.out)
