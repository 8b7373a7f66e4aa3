"""The metric `sampling_s`, on a server whose sampler loads a model before its first step."""

from __future__ import annotations

import time

import pytest
import yaml

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NodeOutput, make_node_class

LOAD, STEP = 0.4, 0.02  # seconds

TEMPLATE = """
{"1": {"class_type": "Load", "inputs": {}},
 "2": {"class_type": "Denoise", "inputs": {"model": ["1", 0], "sigmas": ["1", 1], "steps": "{{ steps }}", "seed": "{{ seed }}"}},
 "3": {"class_type": "Tiles", "inputs": {"latent": ["2", 0], "shade": "{{ shade }}"}}}
"""  # noqa: E501
SLOTS = """
slots:
  steps: {schema: {type: integer}, default: 4}
  seed: {schema: {type: integer}, default: 0}
  shade: {schema: {type: integer}, default: 0}
"""


def _denoise(context, model, sigmas, steps, seed):
    time.sleep(LOAD)
    for step in range(steps):
        time.sleep(STEP)
        context.progress(step + 1, steps)
    return NodeOutput((seed,))


def _save_tiles(context, latent, shade):
    from PIL import Image

    for step in range(3):
        time.sleep(STEP)
        context.progress(step + 1, 3)
    path = context.output_dir / f"{latent}-{shade}.png"
    Image.new("RGB", (8, 8), (latent, shade, 0)).save(path)
    return NodeOutput((), {"images": [{"filename": path.name, "subfolder": "", "type": "output"}]})


def _node(name, required, outputs, run):
    record = {"input": {"required": required}, "output": list(outputs), "output_node": not outputs}
    return make_node_class(name, record, run)


INTEGER = ("INT", {})
NODES = {
    "Load": _node("Load", {}, ("MODEL", "SIGMAS"), lambda context: NodeOutput(("model", ()))),
    # Not named a sampler, but it gives a latent picture of a model and sigmas.
    "Denoise": _node(
        "Denoise",
        {"model": ("MODEL", {}), "sigmas": ("SIGMAS", {}), "steps": INTEGER, "seed": INTEGER},
        ("LATENT",),
        _denoise,
    ),
    "Tiles": _node("Tiles", {"latent": ("LATENT", {}), "shade": INTEGER}, (), _save_tiles),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The rows of a sweep that have the metric, which is named after the run."""
    folder = tmp_path_factory.mktemp("sampling")
    (folder / "template.json").write_text(TEMPLATE)
    (folder / "template.slots.yaml").write_text(SLOTS)
    experiment = {"template": "template.json", "sweep": {"grid": {"steps": [4, 1], "seed": [1, 2], "shade": [0, 9]}}}
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(experiment))
    with EmbeddedServer(dialect="comfyui", nodes=NODES) as server:
        assert sweeper.run(file, server.url, folder / "out").succeeded == 8
        file.write_text(yaml.safe_dump({**experiment, "metrics": ["sampling_s"]}))
        assert sweeper.run(file, server.url, folder / "out").submitted == 0
    return sweeper.results(folder / "out").dropna(subset="sampling_s")


def test_steps_count_without_the_loading_before_the_first(table):
    # On a busy machine, the events of a whole job may be missing.
    assert 1 <= len(table) <= 2
    assert (table["sampling_s"] > 0).all()
    assert (table["sampling_s"] < table["ran_s"] - LOAD / 2).all()


def test_single_step_and_cached_sampler_have_no_time(table):
    assert set(table["steps"]) == {4}
    assert table["seed"].is_unique
