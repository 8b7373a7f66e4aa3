"""`sweeper.plan` from Python: what it finds with a target, and without."""

from __future__ import annotations

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from tests.experiment_files import node, write

GRAPH = {
    "1": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "2": node("KSamplr", latent_image=["1", 0], steps=1),
    "3": node("SaveImage", images=["2", 0], filename_prefix="a"),
}


def test_plan_with_a_target_finds_all_mistakes_at_once(tmp_path):
    body = {"template": "t.json", "params": {"stps": 4}, "sweep": {"grid": {"steps": [1, "two"]}}}
    file = write(tmp_path, body, GRAPH, {"steps": {"at": "2.steps", "schema": {"type": "integer"}}})
    with EmbeddedServer(dialect="comfyui") as server, pytest.raises(sweeper.SweeperError) as caught:
        sweeper.plan(file, target=server.url)
    text = str(caught.value)
    assert "'stps' is neither a slot of the template nor used" in text
    assert "sweep.grid.steps[1]" in text
    assert "KSamplr" in text


def test_plan_of_a_loaded_experiment_is_checked_against_a_target(tmp_path):
    body = {"template": "t.json", "sweep": {"grid": {"steps": [1, 2]}}}
    experiment = sweeper.load(write(tmp_path, body, GRAPH, {"steps": {"at": "2.steps", "schema": {"type": "integer"}}}))
    assert len(sweeper.plan(experiment)) == 2
    with EmbeddedServer(dialect="comfyui") as server, pytest.raises(sweeper.SweeperError, match="KSamplr"):
        sweeper.plan(experiment, target=server.url)
