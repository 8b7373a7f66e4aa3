"""What the jobs of the embedded server are charged, and what clients are told of it."""

from __future__ import annotations

import time

import httpx
import pytest

from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.errors import UsageError
from tests.embedded.clients import Comfy
from tests.embedded.probes import chain, probe_nodes, waiting
from tests.waiting import wait_until

BY_STEPS = {
    "engine": "jsonata",
    "expr": '{"type": "usd", "usd": 0.01 * widgets.steps}',
    "depends_on": {"widgets": [{"name": "steps", "type": "INT"}], "inputs": [], "input_groups": []},
}
RANGE = {**BY_STEPS, "expr": '{"type": "range_usd", "min_usd": 1, "max_usd": 2}'}


def with_scenario(**keys):
    return Faults(scenario=Scenario.from_mapping(keys))


def test_nodes_are_charged_when_they_run_and_not_from_the_cache(serve):
    client = serve("comfyui", faults=with_scenario(prices={"ProbeSampler": BY_STEPS, "ProbeEncode": "0.005 USD"}))
    first = client.submit(chain(steps=4))
    client.wait_for_end(first)
    assert client.server.list_charges(first) == {"2": pytest.approx(0.005), "3": pytest.approx(0.04)}
    client.run(chain(steps=4))
    assert client.server.charge_total == pytest.approx(0.045)
    client.run(chain(steps=7))
    assert client.server.charge_total == pytest.approx(0.115)


def test_a_job_that_fails_is_charged_for_what_ran(serve):
    client = serve("cloud", faults=with_scenario(prices={"ProbeSampler": "0.5 USD", "ProbeFail": "9 USD"}))
    client.run(chain(fail=True))
    assert client.server.charge_total == pytest.approx(0.5)


def test_time_is_charged_also_of_a_cancelled_job(serve, gate):
    client = serve("cloud", faults=with_scenario(price_per_second=10))
    submitted = time.monotonic()
    prompt_id = client.submit(waiting())
    assert gate.entered.wait(60)
    time.sleep(0.2)
    client.http.post(f"/api/jobs/{prompt_id}/cancel")
    client.wait_for_end(prompt_id)
    assert 10 * 0.2 <= client.server.charge_total <= 10 * (time.monotonic() - submitted)
    assert client.server.list_charges(prompt_id) == {"": client.server.charge_total}


def test_a_range_is_drawn_by_the_seed(serve):
    def draw(seed):
        client = serve("comfyui", faults=with_scenario(prices={"ProbeSampler": RANGE}, seed=seed))
        client.run(chain())
        return client.server.charge_total

    first, second, other = draw(1), draw(1), draw(2)
    assert first == second != other
    assert all(1 <= usd <= 2 for usd in (first, other))


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_object_info_shows_the_prices(serve, dialect):
    client = serve(dialect, faults=with_scenario(prices={"ProbeSampler": BY_STEPS, "ProbeEncode": 0.03}))
    path = "/object_info" if dialect == "comfyui" else "/api/object_info"
    classes = client.http.get(path).json()
    assert (classes["ProbeSampler"]["price_badge"], classes["ProbeSampler"]["api_node"]) == (BY_STEPS, True)
    assert classes["ProbeEncode"]["price_badge"]["engine"] == "jsonata"
    assert not classes["ProbeSave"].get("price_badge")
    if dialect == "comfyui":
        assert client.http.get("/object_info/ProbeSampler").json() == {"ProbeSampler": classes["ProbeSampler"]}


def test_a_described_class_costs_what_its_badge_says():
    badge = {
        "engine": "jsonata",
        "expr": '{"type": "usd", "usd": widgets.quality = "high" ? 0.4 : 0.1 * (inputs.image.connected ? 2 : 1)}',
        "depends_on": {"widgets": [{"name": "quality", "type": "COMBO"}], "inputs": ["image"], "input_groups": []},
    }
    inputs = {
        "required": {"prompt": ["STRING", {}]},
        "optional": {"quality": ["COMBO", {"options": ["high", "low"]}], "image": ["IMAGE"]},
    }
    described = {"PaidImage": {"input": inputs, "output": ["IMAGE"], "api_node": True, "price_badge": badge}}

    def paid(**values):
        return {"class_type": "PaidImage", "inputs": {"prompt": "a fox", **values}}

    graph = {
        "1": paid(),
        "2": paid(image=["1", 0], quality="low"),
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    with EmbeddedServer("comfyui", object_info=described) as server:
        client = Comfy(server)
        prompt_id = client.submit(graph)
        assert client.wait_for_end(prompt_id)["status"]["status_str"] == "success"
        assert server.list_charges(prompt_id) == {"1": pytest.approx(0.4), "2": pytest.approx(0.2)}
        client.http.close()


def test_balance_falls_with_the_charges(serve):
    client = serve("cloud", faults=with_scenario(prices={"ProbeSampler": "0.75 USD"}, balance="1 USD"))

    def get_cents():
        return client.http.get("/api/billing/balance").json()["effective_balance_micros"]

    assert get_cents() == 100
    client.run(chain(seed=1))
    client.run(chain(seed=2))
    assert get_cents() == -50  # overdrawn
    assert serve("cloud").http.get("/api/billing/balance").status_code == 404


def test_charges_outlive_a_restart(tmp_path):
    faults = with_scenario(prices={"ProbeSampler": "0.5 USD"})
    options = {"data": tmp_path, "nodes": probe_nodes(), "faults": faults}
    with EmbeddedServer(**options) as server:
        answer = httpx.post(f"{server.url}/api/prompt", json={"prompt": chain()})
        prompt_id = answer.json()["prompt_id"]
        wait_until(lambda: httpx.get(f"{server.url}/api/jobs/{prompt_id}").json()["status"] == "completed")
    with server:
        assert server.charge_total == pytest.approx(0.5)
    with EmbeddedServer(**options) as other:
        assert (other.charge_total, other.list_charges(prompt_id)) == (pytest.approx(0.5), {"3": pytest.approx(0.5)})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"prices": ["X"]}, "prices: found a list; allowed: a mapping of node classes such as {Flux2ProImageNode"),
        ({"prices": {"X": "3 EUR"}}, r"prices: X: must be an amount in dollars such as 0\.03 USD, or a badge"),
        ({"prices": {"X": {"engine": "lua", "expr": "1"}}}, "X: its price badge is written for 'lua', not jsonata"),
        ({"prices": {"X": {**BY_STEPS, "expr": "(1"}}}, "X: its price expression cannot be used: "),
        ({"prices": {"X": {**BY_STEPS, "expr": ""}}}, "X: its price expression cannot be used: "),
        ({"price_per_second": -1}, "price_per_second: must be an amount in dollars"),
        ({"tells_charges": "yes"}, "tells_charges: found 'yes', but true or false is needed"),
    ],
)
def test_a_mistake_in_prices_is_reported(keys, message):
    with pytest.raises(UsageError, match=message):
        Scenario.from_mapping(keys)


def test_prices_that_cannot_apply_are_refused():
    with pytest.raises(UsageError, match="prices: this server has no class 'ProbeSampla'; did you mean 'ProbeSampler'"):
        EmbeddedServer(nodes=probe_nodes(), faults=with_scenario(prices={"ProbeSampla": 1}))
    with pytest.raises(UsageError, match="balance: only the cloud dialect"):
        EmbeddedServer("v2", faults=with_scenario(balance="1 USD"))
