"""Partner nodes of a recorded object_info, with a price of every kind, from the plan to the server's own account."""

from __future__ import annotations

import json

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import UsageError
from sweeper.model.money import PRICED, Amount, to_usd
from tests.running.shop import KEY_VARIABLE, load_charges

PRICES = {  # class -> what its expression computes
    "PaidImage": '{"type": "usd", "usd": widgets.width > 64 ? 0.08 : 0.04}',
    "PaidRange": '{"type": "range_usd", "min_usd": 0.1, "max_usd": 0.2, "format": {"approximate": true}}',
    "PaidList": '{"type": "list_usd", "usd": [0.3, 0.5]}',
    "PaidSeconds": '{"type": "usd", "usd": 0.01, "format": {"suffix": "/second"}}',
    "PaidTokens": '{"type": "text", "text": "by token"}',
}
INPUTS = {"width": ["INT", {"default": 64}], "seed": ["INT", {"default": 0, "max": 2**32}], "duration": ["INT", {}]}
COSTS = {
    "PaidImage": Amount.exactly(0.08),
    "PaidRange": Amount.between(0.1, 0.2),
    "PaidList": Amount.between(0.3, 0.5),
    "PaidSeconds": Amount.exactly(0.05),
    "PaidTokens": Amount.exactly(0.07),  # as the target's price states
}


def describe(expr):
    badge = {"engine": "jsonata", "expr": expr, "depends_on": {"widgets": [{"name": "width", "type": "INT"}]}}
    inputs = {"required": INPUTS, "optional": {"image": ["IMAGE", {}]}}
    return {
        "input": inputs, "output": ["IMAGE"], "output_name": ["IMAGE"], "output_is_list": [False], "output_node": False,
        "name": "", "display_name": "", "description": "", "python_module": "comfy_api_nodes.paid", "category": "api",
        "api_node": True, "price_badge": badge,
    }  # fmt: skip


def make_graph():
    """A chain of all classes that ends in a saved picture."""
    graph = {}
    for number, name in enumerate(PRICES, 1):
        image = {"image": [str(number - 1), 0]} if number > 1 else {}
        graph[str(number)] = {"class_type": name, "inputs": {"width": 96, "seed": 1, "duration": 5, **image}}
    graph["9"] = {"class_type": "SaveImage", "inputs": {"images": [str(len(PRICES)), 0], "filename_prefix": "x"}}
    return graph


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer("comfyui", object_info={name: describe(expr) for name, expr in PRICES.items()}) as running:
        yield running


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(make_graph()))
    (tmp_path / "t.slots.yaml").write_text("slots: {seed: {at: 1.seed, schema: {type: integer}}}")
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({"template": "t.json", "sweep": {"grid": {"seed": [1, 2, 3]}}}))
    return file


def test_each_kind_of_price_is_charged_and_kept_within_a_budget(server, experiment, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a key of some length")
    target = {"name": "box", "url": server.url, "partner_key_env": KEY_VARIABLE}
    with pytest.raises(UsageError, match=r"nobody knows what node 5 \(PaidTokens\) costs at most on box"):
        sweeper.run(experiment, target, tmp_path / "out", budget=2)
    assert server.charge_total == 0

    target["price"] = {"nodes": {"PaidTokens": "0.07 USD"}}
    run = sweeper.run(experiment, target, tmp_path / "out", budget=2)

    charges, spent = load_charges(tmp_path / "out")
    assert {(one.charge.class_type, one.charge.amount, one.charge.kind) for one in charges} == {
        (name, amount, PRICED) for name, amount in COSTS.items()
    }
    # A job costs 0.6 to 0.9 USD, so a third one might exceed the budget. The server has no price for tokens.
    assert (run.stopped_by, run.succeeded, spent) == ("budget", 2, Amount.between(1.2, 1.8))
    assert to_usd(spent.low) - 2 * 0.07 - 1e-9 <= server.charge_total <= 2
