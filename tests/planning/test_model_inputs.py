"""Which inputs name model files follows from the server's lists and folders, whatever the classes are called."""

from __future__ import annotations

import json

import pytest

import sweeper
from sweeper.model.model_facts import ModelKey
from sweeper.model.node_classes import NodeInfo
from sweeper.planning.model_inputs import PlanModels, may_name_models

FOLDERS = {
    "loras": {"a.safetensors", "style/b.safetensors"},
    "vae": {"v.pt"},
    "vae_approx": {"taesd.pth", "other.pth"},
    "empty": set(),
}


def combo(*names):
    return {"input": {"required": {"name": (list(names), {})}}, "output": ["MODEL"], "output_node": False}


INFO = NodeInfo.from_object_info(
    {
        "Stack": combo("None", "a.safetensors", "style/b.safetensors"),
        "Decoder": combo("v.pt", "pixel_space", "taesd"),
        "Mode": combo("fast.v2", "slow.v1"),
        "Upload": {"input": {"required": {"name": (["a.safetensors", "style/b.safetensors"], {"image_upload": True})}},
                   "output": ["IMAGE"], "output_node": False},
        "Several": {"input": {"required": {"name": ("COMBO", {"options": ["a.safetensors", "style/b.safetensors"],
                                                              "multiselect": True})}},
                    "output": ["MODEL"], "output_node": False},
        "Save": {"input": {"required": {"model": ("MODEL", {})}}, "output": [], "output_node": True},
    }
)  # fmt: skip


@pytest.fixture
def make(tmp_path):
    def make(kind, value, sweep=None, *, is_used=True, slots=""):
        graph = {"1": {"class_type": kind, "inputs": {"name": value}}}
        if is_used:
            graph["2"] = {"class_type": "Save", "inputs": {"model": ["1", 0]}}
        else:
            graph |= {"3": {"class_type": "Mode", "inputs": {"name": "fast.v2"}},
                      "2": {"class_type": "Save", "inputs": {"model": ["3", 0]}}}  # fmt: skip
        (tmp_path / "w.json").write_text(json.dumps(graph))
        body = {"name": "e", "template": "w.json", **({"sweep": {"grid": sweep}} if sweep else {})}
        (tmp_path / "e.yaml").write_text(json.dumps(body))
        return sweeper.plan(sweeper.load(tmp_path / "e.yaml"))

    return make


def names_of(plan):
    models = PlanModels(plan, INFO, FOLDERS)
    used = [[str(key) for key in models.list_keys(trial)] for trial in plan.written()]
    assert {name for names in used for name in names} <= {str(key) for key in models.list_all_keys()}
    return used


def test_options_beside_the_files_name_no_file(make):
    assert names_of(make("Stack", "{{ l }}", {"l": ["None", "a.safetensors"]})) == [[], ["loras/a.safetensors"]]
    assert names_of(make("Decoder", "taesd")) == [[]]
    assert names_of(make("Decoder", "v.pt")) == [["vae/v.pt"]]


def test_name_that_an_expression_builds_is_found(make):
    plan = make("Stack", "{{ 'style/' if s else '' }}{{ l }}.safetensors", {"l": ["a", "b"], "s": [False, True]})
    assert names_of(plan) == [["loras/a.safetensors"], [], [], ["loras/style/b.safetensors"]]


def test_inputs_of_other_kinds_and_unused_nodes_do_not_count(make):
    assert names_of(make("Upload", "a.safetensors")) == [[]]
    assert names_of(make("Mode", "fast.v2")) == [[]]
    assert names_of(make("Stack", "a.safetensors", is_used=False)) == [[]]


def test_several_chosen_files_all_count(make):
    assert names_of(make("Several", ["style/b.safetensors", "a.safetensors"])) == [
        ["loras/a.safetensors", "loras/style/b.safetensors"]
    ]


def test_equal_folders_are_both_compared(make):
    plan = make("Stack", "a.safetensors")
    models = PlanModels(plan, INFO, FOLDERS | {"copies": FOLDERS["loras"]})
    assert models.list_all_keys() == (ModelKey("copies", "a.safetensors"), ModelKey("loras", "a.safetensors"))


def test_workflow_without_files_asks_no_server(make):
    assert may_name_models(make("Stack", "a.safetensors"), INFO)
    assert not may_name_models(make("Save", "x"), NodeInfo.from_object_info({"Save": combo("euler", "ddim")}))
