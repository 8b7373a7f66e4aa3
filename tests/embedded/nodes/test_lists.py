"""Lists: a node runs once for each item, or gets whole lists if its class asks for them, and `ui` outputs are joined.

The numbers of files, runs and messages are those of a ComfyUI 0.3.64 for the same graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sweeper.embedded import EmbeddedServer
from tests.embedded.clients import Comfy


@pytest.fixture(scope="module")
def comfy() -> Iterator[Comfy]:
    with EmbeddedServer(dialect="comfyui") as server:
        client = Comfy(server)
        yield client
        client.http.close()


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def empty(count: int, color: int = 255, width: int = 16) -> dict[str, Any]:
    return node("EmptyImage", width=width, height=16, batch_size=count, color=color)


def files(entry: dict[str, Any], node_id: str, output: str = "images") -> list[str]:
    assert entry["status"]["status_str"] == "success", entry["status"]
    return [file["filename"] for file in entry["outputs"][node_id][output]]


def test_list_runs_a_node_for_each_item_and_joins_the_ui(comfy: Comfy) -> None:
    graph = {
        "1": empty(5),
        "2": node("RebatchImages", images=["1", 0], batch_size=2),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="five"),
    }
    entry = comfy.run(graph)
    assert files(entry, "4") == [f"five_{number:05}_.png" for number in range(1, 6)]
    # The second time nothing runs, and the old list of files is reported.
    again = comfy.run(graph)
    assert files(again, "4") == files(entry, "4")
    assert again["status"]["messages"][1][1]["nodes"] == ["1", "2", "3", "4"]


def test_the_shorter_of_two_lists_repeats_its_last_item(comfy: Comfy) -> None:
    graph = {
        "1": empty(3, 0),
        "2": node("RebatchImages", images=["1", 0], batch_size=1),
        "3": empty(2, 1),
        "4": node("RebatchImages", images=["3", 0], batch_size=1),
        "5": node("ImageBatch", image1=["2", 0], image2=["4", 0]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="pairs"),
    }
    assert len(files(comfy.run(graph), "6")) == 6


def test_failure_within_a_list_reports_all_input_items(comfy: Comfy) -> None:
    graph = {
        "1": empty(3),
        "2": node("RebatchImages", images=["1", 0], batch_size=1),
        "3": node("ImageBlend", image1=["2", 0], image2=["1", 0], blend_factor=0.5, blend_mode="normal"),
        "4": node("SaveImage", images=["3", 0], filename_prefix="never"),
    }
    comfy.server.faults.fail_nodes = {"ImageBlend"}
    kind, details = comfy.run(graph)["status"]["messages"][-1]
    assert kind == "execution_error"
    assert details["node_id"] == "3"
    assert {name: len(values) for name, values in details["current_inputs"].items()} == {
        "image1": 3, "image2": 1, "blend_factor": 1, "blend_mode": 1,
    }  # fmt: skip


def test_object_info_says_which_outputs_are_lists(comfy: Comfy) -> None:
    info = comfy.http.get("/object_info").json()
    lists = {name for name, declared in info.items() if any(declared["output_is_list"])}
    assert {"RebatchImages", "RebatchLatents", "ShuffleDataset"} <= lists
    assert "KSampler" not in lists
