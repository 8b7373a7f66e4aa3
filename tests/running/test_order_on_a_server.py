"""The order of a plan on a server with a real cache: 3 model loads in the best order, 12 in the worst."""

from __future__ import annotations

import itertools
import json
import time

import httpx
import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from tests import ROOT
from tests.few_classes import pick_classes
from tests.running.servers import REAL

TEMPLATE = ROOT / "templates" / "txt2img.json"
AXES = {
    "checkpoint": [f"procedural-{name}.safetensors" for name in ("paint", "photo", "ink")],
    "prompt": ["a fox", "an owl"],
    "seed": {"seeds": 2},
}
# Free memory of 0 GiB is enough to keep all results, or 999,999 GiB are not there.
CACHES = {"lru 50": "lru 50", "lru 5": "lru 5", "none": "none", "ram 0": "ram", "ram 999999": "ram, last job only"}


def experiment(folder, axes, **more):
    file = folder / "e.yaml"
    fixed = {"steps": 1, "width": 64, "height": 64}
    grid = {name: AXES[name] for name in axes}
    file.write_text(json.dumps({"template": str(TEMPLATE), "params": fixed, "sweep": {"grid": grid}, **more}))
    return sweeper.load(file)


def one_at_a_time(server):
    """Two submissions in flight may arrive in either order, which is not what these tests are about."""
    return {"url": server.url, "concurrency": 1}


def test_any_written_order_gets_the_same_plan(tmp_path):
    for axes in itertools.permutations(AXES):
        order = sweeper.plan(experiment(tmp_path, axes)).order
        # The loads, the texts with the negative ones, the empty latent, and what makes and saves each picture.
        assert (order.axes, order.executions) == ((tuple(AXES),), 3 + 6 + 3 + 1 + 3 * 12)


@pytest.mark.parametrize("axes", [tuple(AXES), tuple(AXES)[::-1]], ids=" > ".join)
def test_the_plan_loads_three_models_and_encodes_six_texts(tmp_path, axes):
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        run = sweeper.run(experiment(tmp_path, axes), one_at_a_time(server), tmp_path / "out")
        counts = server.seen.nodes
    assert run.succeeded == 12
    # The negative text is encoded once for each model, by the clip that came with it.
    assert (counts["CheckpointLoaderSimple"], counts["CLIPTextEncode"], counts["KSampler"]) == (3, 6 + 3, 12)


def test_the_predicted_node_runs_are_what_the_server_counts(tmp_path):
    axes = ("seed", "prompt", "checkpoint")
    declared = experiment(tmp_path, axes, order="written")
    order = sweeper.plan(experiment(tmp_path, axes)).order
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        sweeper.run(declared, one_at_a_time(server), tmp_path / "written")
        written = sum(server.seen.nodes.values())
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        sweeper.run(experiment(tmp_path, axes), one_at_a_time(server), tmp_path / "auto")
        auto = sum(server.seen.nodes.values())
    assert (order.executions, order.written) == (auto, written)
    assert order.saved == written - auto > 20


def test_a_server_without_a_cache_gets_the_written_order(tmp_path):
    axes = ("seed", "prompt", "checkpoint")
    with EmbeddedServer(dialect="comfyui", cache="none", nodes=pick_classes()) as server:
        sweeper.run(experiment(tmp_path, axes), one_at_a_time(server), tmp_path / "out")
        assert server.seen.nodes["CheckpointLoaderSimple"] == 12
        first = [job["prompt"][2]["6"]["inputs"]["text"] for job in history(server)][:3]
    assert first == ["a fox"] * 3


def history(server):
    return list(httpx.get(f"{server.url}/history").json().values())


def test_the_plan_is_ordered_for_the_servers_cache(tmp_path, capsys):
    from sweeper.cli import main

    axes = ("seed", "prompt", "checkpoint")
    experiment(tmp_path, axes)
    ran = {}
    for cache, detected in CACHES.items():
        with EmbeddedServer(dialect="comfyui", cache=cache, nodes=pick_classes()) as server:
            command = [
                "plan",
                str(tmp_path / "e.yaml"),
                "--target",
                server.url,
                "--json",
                "--trust",
                "-o",
                str(tmp_path / cache),
            ]
            assert main(command) == 0
            order = json.loads(capsys.readouterr().out)["order"]
            sweeper.run(experiment(tmp_path, axes), one_at_a_time(server), tmp_path / cache)
            assert order["caching"] == detected
            assert order["executions"] == sum(server.seen.nodes.values()), cache
            ran[cache] = (order["axes"][0], server.seen.nodes["CheckpointLoaderSimple"])
    # Where everything is kept any order runs as few nodes. `lru` may drop results, so there the files decide.
    best = ["checkpoint", "prompt", "seed"]
    assert ran == {"lru 50": (best, 3), "lru 5": (best, 3), "none": ([*axes], 12), "ram 0": ([*axes], 3),
                   "ram 999999": (best, 3)}  # fmt: skip


# A loader, two users of it, and three nodes that write files, of which a temporary one is cached like any other.
CORE_NODES = {
    "1": {"class_type": "EmptyImage",
          "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": "{{ model }}"}},
    "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": "{{ text }}", "sigma": 1.0}},
    "3": {"class_type": "ImageQuantize", "inputs": {"image": ["2", 0], "colors": "{{ seed }}", "dither": "none"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "final"}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "blurred"}},
    "6": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}  # fmt: skip


@pytest.mark.skipif(not REAL, reason="SWEEPER_REAL_COMFYUI names no server")
@pytest.mark.parametrize("order", ["auto", "written"])
def test_the_plan_counts_what_a_real_server_executes(tmp_path, capsys, order):
    """Start the server with another option for its cache to test that one."""
    from sweeper.cli import main

    base = time.time_ns() % 2**23  # colours that the server has no results of
    grid = {"seed": [10, 20], "text": [1, 2, 3], "model": [base, base + 1, base + 2]}
    (tmp_path / "t.json").write_text(json.dumps(CORE_NODES))
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({"name": f"o{base}", "template": "t.json", "order": order, "sweep": {"grid": grid}}))
    assert main(["plan", str(file), "--target", REAL, "--json", "--trust"]) == 0
    planned = json.loads(capsys.readouterr().out)["order"]["executions"]
    assert sweeper.run(sweeper.load(file), {"url": REAL, "concurrency": 1}, tmp_path / "out").succeeded == 18
    executed = 0
    for entry in httpx.get(f"{REAL}/history?max_items=18", trust_env=False).json().values():
        messages = dict(entry["status"]["messages"])
        executed += len(entry["prompt"][2]) - len(messages["execution_cached"]["nodes"])
    assert executed == planned
