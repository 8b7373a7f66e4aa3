"""The graph check finds everything that the embedded server refuses, and accepts a real `object_info`.

SWEEPER_OBJECT_INFO names a file with the response of a real server to `GET /object_info`. Without it, the tests with a
real server are skipped.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from sweeper.embedded import EmbeddedServer
from sweeper.loading.load import load_template
from sweeper.model.node_classes import NodeInfo, check_template, find_graph_problems
from sweeper.model.template import MISSING
from tests import ROOT
from tests.model.node_classes.small_object_info import find_problems

TEMPLATES = sorted(ROOT.joinpath("templates").glob("*.json"))
REAL = os.environ.get("SWEEPER_OBJECT_INFO", "")
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 1, "sigma": 1.0}},
    "3": {
        "class_type": "ImageBlend",
        "inputs": {"image1": ["1", 0], "image2": ["2", 0], "blend_factor": 0.5, "blend_mode": "normal"},
    },
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
}
VALUES = [
    0, 1, 8, 4.9, -1, "7", "x", "", True, None, {"__value__": 4}, {"a": 1}, ["1", 0], ["9", 0], ["1", 5], ["1", -1],
    [1, 0], ["1", "0"], [1, 2, 3], [], 10**30, "normal", "nope", ["4", 0], ["3", 0],
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with (
        EmbeddedServer(dialect="comfyui") as embedded,
        httpx.Client(base_url=embedded.url, timeout=60, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def info(server: httpx.Client) -> NodeInfo:
    return NodeInfo.from_object_info(server.get("/object_info").json())


def mutations(count: int) -> Iterator[dict[str, Any]]:
    choose = random.Random(7)
    for _ in range(count):
        graph = copy.deepcopy(GRAPH)
        for _ in range(choose.choice([1, 1, 2, 3])):
            node_id = choose.choice(list(graph))
            inputs = graph[node_id]["inputs"]
            match choose.randrange(8):
                case 0 if inputs:
                    del inputs[choose.choice(list(inputs))]
                case 1:
                    inputs["undeclared"] = choose.choice(VALUES)
                case 2:
                    graph[node_id]["class_type"] = choose.choice(["Nope", "ImageInvert", "PreviewImage"])
                case 3 if len(graph) > 1:
                    del graph[node_id]
                case _ if inputs:
                    inputs[choose.choice(list(inputs))] = choose.choice(VALUES)
        yield graph


def test_the_check_finds_everything_that_the_server_refuses(server: httpx.Client, info: NodeInfo) -> None:
    assert find_graph_problems(GRAPH, info) == []
    refused = 0
    for graph in mutations(150):
        answer = server.post("/prompt", json={"prompt": graph})
        if answer.status_code != httpx.codes.OK or answer.json()["node_errors"]:
            refused += 1
            assert find_graph_problems(graph, info), f"the server says {answer.text} to {json.dumps(graph)}"
    assert refused > 60, "the mutations are too tame to show anything"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_shipped_templates_fit_the_embedded_server(path: Path, info: NodeInfo) -> None:
    problems = problems_with_defaults(path, info.with_any_model())
    assert [message for message in problems if not message.startswith("stand-ins run ModelSamplingFlux")] == []


def problems_with_defaults(path: Path, info: NodeInfo) -> list[str]:
    template = load_template(path)
    check = check_template(template, info)
    params = {name: "a.png" if slot.default is MISSING else slot.default for name, slot in template.slots.items()}
    found = find_problems(check, params)
    assert sorted(map(repr, found)) == sorted(map(repr, check.check_rendered(params)))
    return [message for _, message in (*found, *check.ignored, *check.notes)]


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    if not REAL or not Path(REAL).is_file():
        pytest.skip("SWEEPER_OBJECT_INFO names no file")
    answer: dict[str, Any] = json.loads(Path(REAL).read_text("utf-8"))
    return answer


def test_every_input_of_a_real_server_has_a_schema_or_is_a_link(real: dict[str, Any]) -> None:
    info = NodeInfo.from_object_info(real)
    assert set(info.classes) == set(real)
    for name, declared in real.items():
        spec = info.classes[name]
        groups = declared["input"]
        assert set(spec.inputs) == {*groups.get("required", {}), *groups.get("optional", {})}
        assert len(spec.outputs) == len(declared["output"])
        assert spec.is_output == declared["output_node"]
        for one in spec.inputs.values():
            if one.schema is not None:
                Draft202012Validator.check_schema(dict(one.schema))
            else:
                assert one.kind == "link"


def test_the_defaults_of_real_classes_are_valid(real: dict[str, Any]) -> None:
    info = NodeInfo.from_object_info({name: {**declared, "output_node": True} for name, declared in real.items()})
    wrong: list[str] = []
    for name, spec in info.classes.items():
        values = {
            one.name: one.choices[0] if one.choices and one.default is MISSING else one.default
            for one in spec.inputs.values()
            if one.kind == "widget" and (one.choices or one.default is not MISSING)
        }
        values = {key: {"__value__": value} if isinstance(value, list) else value for key, value in values.items()}
        problems = find_graph_problems({"1": {"class_type": name, "inputs": values}}, info)
        wrong += [message for path, message in problems if len(path) > 2]  # the others are missing inputs
    assert wrong == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_shipped_templates_fit_a_real_server_with_their_models(path: Path, real: dict[str, Any]) -> None:
    problems = problems_with_defaults(path, NodeInfo.from_object_info(real).with_any_model())
    assert [message for message in problems if "vae_name" not in message] == []
