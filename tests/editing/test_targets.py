"""What the page learns from the server of a target, and what it sends there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sweeper import embedded
from tests.editing.conftest import EXPERIMENT, serve

NAMES = [f"styles/painted-{index:04}.safetensors" for index in range(9_000)]


@pytest.fixture
def server():
    """A ComfyUI with 9,000 checkpoints. Gives its address, and the requests that it got."""
    loader = embedded.node_classes()["CheckpointLoaderSimple"]
    required = {"ckpt_name": [["x.safetensors", *NAMES], {}]}
    described = {"CheckpointLoaderSimple": {**loader, "input": {"required": required}}}
    with serve({"/object_info/CheckpointLoaderSimple": described}) as served:
        yield served


def test_model_files_are_those_of_the_target(open_page, write, server):
    url, _ = server
    page = open_page(write(EXPERIMENT.replace("embedded", url)))
    state = page.follow()
    row = next(row for row in state["inputs"] if row["address"] == "4.ckpt_name")
    assert (row["choices"], row["model"]) == (9_001, True)
    assert len(page.http.get("state").content) < 50_000  # the names come on demand
    found = page.http.get("choices", params={"address": "4.ckpt_name", "filter": "painted-89"}).json()
    assert (len(found["values"]), found["total"]) == (100, 100)
    found = page.http.get("choices", params={"address": "4.ckpt_name", "filter": ""}).json()
    assert (len(found["values"]), found["total"]) == (200, 9_001)

    began = time.monotonic()
    page.edit({"set": "axis", "address": "4.ckpt_name", "value": ["x.safetensors", NAMES[7]]})
    assert time.monotonic() - began < 20
    state = page.follow()
    assert (state["plan"]["trials"], state["problems"]) == (4, [])
    page.edit({"set": "axis", "name": "checkpoint", "value": ["none.safetensors"]})
    (problem,) = page.follow()["problems"]
    assert problem["slot"] == "checkpoint"
    assert f"(on {url})" in problem["text"]


def test_all_model_files_that_match_are_the_values_of_an_axis(open_page, write):
    files = [{"name": f"mine-{step}.safetensors", "pathIndex": 0, "size": 9, "modified": 1} for step in (10, 9)]
    with serve({"/experiment/models/checkpoints": files}) as (url, _):
        page = open_page(write(EXPERIMENT.replace("embedded", url)))
        page.follow()
        page.edit({"set": "axis", "address": "4.ckpt_name", "value": {"models": "checkpoints/mine-*"}})
        state = page.follow()
    assert state["problems"] == []
    assert state["plan"]["axes"] == {"steps": 2, "checkpoint": 2}


@pytest.mark.parametrize("given", [None, "box"])
def test_the_plan_sends_a_key_only_to_a_target_of_the_command(open_page, write, server, given, monkeypatch):
    url, seen = server
    targets = Path("targets.yaml").absolute()
    targets.write_text(f"box: {{url: '{url}', api_key_env: MY_KEY}}\n")
    monkeypatch.setenv("SWEEPER_TARGETS", str(targets))
    monkeypatch.setenv("MY_KEY", "key-of-mine")
    page = open_page(write(EXPERIMENT.replace("embedded", "box")), target=given)
    state = page.follow()
    assert state["problems"] == []
    assert any("key-of-mine" in head for _, head in seen) == (given is not None)
    assert any("its key is sent only if you give the target by --target" in note for note in state["notes"]) == (
        given is None
    )
    page.edit({"set": "axis", "name": "steps", "value": [1]})
    page.follow()
    assert any("key-of-mine" in head for _, head in seen) == (given is not None)
    if given is not None:  # what the page chooses, the command did not give
        page.edit({"set": "key", "path": ["target"], "value": "embedded"})
        assert page.follow()["command"] == "sweeper run mine/experiment.yaml"
        assert page.state["target"] == "embedded"
