"""Validation by POST /prompt: the error types, messages and conversions of a real ComfyUI."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.embedded.probes import MODELS, chain


def post(comfy, graph, **fields):
    answer = comfy.http.post("/prompt", json={"prompt": graph, **fields})
    return answer.status_code, answer.json()


def edit(node, **inputs):
    graph = chain()
    graph[node]["inputs"].update(inputs)
    return graph


def without(node, name):
    graph = chain()
    del graph[node]["inputs"][name]
    return graph


@pytest.mark.parametrize(
    ("graph", "node_id", "message", "named"),
    [
        ({**chain(), "3": {"class_type": "Nope"}}, "3", "Node 'Nope' not found. The custom", ("Nope", "Nope")),
        ({**chain(), "3": {"class_type": "Nope", "_meta": {"title": "My node"}}}, "3", "Node 'My node' not found.",
         ("Nope", "My node")),
        ({**chain(), "3": {"inputs": {}}}, "3", "Node 'ID #3' has no class_type. The workflow", (None, None)),
        ({**chain(), "3": "a node"}, "3", "Node 'ID #3' has no class_type.", (None, None)),
        ({"last_node_id": 9, "nodes": [], "links": []}, "last_node_id", "Node 'ID #last_node_id' has", (None, None)),
    ],
)  # fmt: skip
def test_node_without_a_known_class_is_refused(comfy, graph, node_id, message, named):
    status, body = post(comfy, graph)
    assert (status, body["node_errors"]) == (400, {})
    error = body["error"]
    assert (error["type"], error["details"]) == ("missing_node_type", f"Node ID '#{node_id}'")
    assert error["message"].startswith(message)
    assert error["extra_info"] == {"node_id": node_id, "class_type": named[0], "node_title": named[1]}


@pytest.mark.parametrize("graph", [{}, {"1": {"class_type": "ProbeLoader", "inputs": {"model_name": "alpha"}}}])
def test_graph_without_outputs_is_refused(comfy, graph):
    error = {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}
    assert post(comfy, graph) == (400, {"error": error, "node_errors": {}})


def only_error(comfy, graph, node):
    status, body = post(comfy, graph)
    assert status == 400
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert body["error"]["message"] == "Prompt outputs failed validation"
    assert set(body["node_errors"]) == {node}
    entry = body["node_errors"][node]
    assert entry["dependent_outputs"] == ["9"]
    (error,) = entry["errors"]
    return error


@pytest.mark.parametrize(
    ("node", "graph", "kind", "details"),
    [
        ("3", without("3", "seed"), "required_input_missing", "seed"),
        ("3", without("3", "cond"), "required_input_missing", "cond"),
        ("3", edit("3", steps=0), "value_smaller_than_min", "steps"),
        ("3", edit("3", seed=2**64), "value_bigger_than_max", "seed"),
        ("3", edit("3", sampler_name="Euler"), "value_not_in_list",
         "sampler_name: 'Euler' not in ['euler', 'heun', 'dpmpp_2m']"),
        ("3", edit("3", cond=["1", 0]), "return_type_mismatch",
         "cond, received_type(PROBE_MODEL) mismatch input_type(PROBE_COND)"),
        ("3", edit("3", cond=["1", 0, 0]), "bad_linked_input", "cond"),
        ("3", edit("3", steps="7.5"), "invalid_input_type",
         "steps, 7.5, invalid literal for int() with base 10: '7.5'"),
        ("3", edit("3", steps=None), "invalid_input_type", None),
        ("3", edit("3", cfg="abc"), "invalid_input_type", None),
        ("3", edit("3", cfg="nan"), "invalid_input_type", "cfg, nan, not a finite number"),
        ("3", edit("3", model=["99", 0]), "exception_during_inner_validation", "'99'"),
        ("3", edit("3", model=[1, 0]), "exception_during_inner_validation", "1"),
        ("3", edit("3", model=["1", 7]), "exception_during_inner_validation", "tuple index out of range"),
        ("3", edit("3", model=["1", "0"]), "exception_during_inner_validation", None),
        ("3", edit("3", model=[["1"], 0]), "exception_during_inner_validation", "unhashable type: 'list'"),
        ("1", {**chain(), "1": {"class_type": "ProbeLoader"}}, "exception_during_inner_validation", "'inputs'"),
        ("9", {**chain(), "9": {"class_type": "ProbeSave"}}, "exception_during_validation", "'inputs'"),
        ("1", edit("1", model_name="../../etc/passwd"), "value_not_in_list", None),
        ("1", edit("1", model_name="/etc/passwd"), "value_not_in_list", None),
        ("1", edit("1", model_name="c:\\models\\a"), "value_not_in_list", None),
        ("1", edit("1", model_name=3), "value_not_in_list", None),
    ],
)  # fmt: skip
def test_single_errors_have_comfyuis_type_and_details(comfy, node, graph, kind, details):
    error = only_error(comfy, graph, node)
    assert error["type"] == kind
    if details is not None:
        assert error["details"] == details


def test_error_contains_received_value_and_input_config(comfy):
    error = only_error(comfy, edit("3", steps=0), "3")
    assert error == {
        "type": "value_smaller_than_min",
        "message": "Value 0 smaller than min of 1",
        "details": "steps",
        "extra_info": {
            "input_name": "steps",
            "input_config": ["INT", {"default": 8, "min": 1, "max": 1000}],
            "received_value": 0,
        },
    }
    error = only_error(comfy, edit("3", model=["99", 0]), "3")
    assert error["extra_info"]["input_name"] == "image"  # as in ComfyUI, those of the downstream node
    assert error["extra_info"]["linked_node"] == ["3", 0]


def test_errors_of_all_reachable_nodes_are_reported_together(comfy):
    graph = edit("3", steps=0, seed=-1, sampler_name="nope")
    graph["4"]["inputs"].pop("fail")
    graph["unreached"] = {"class_type": "ProbeLoader", "inputs": {}}
    _, body = post(comfy, graph)
    assert {node: len(entry["errors"]) for node, entry in body["node_errors"].items()} == {"3": 3, "4": 1}
    assert body["error"]["details"] == ""


def test_details_contain_the_errors_of_the_output_node(comfy):
    _, body = post(comfy, without("9", "filename_prefix"))
    assert body["error"]["details"] == "Required input is missing: filename_prefix"


@pytest.mark.parametrize("strict", [False, True])
def test_unknown_models_are_accepted_unless_strict(serve, strict):
    comfy = serve("comfyui", strict_models=strict)
    status, _ = post(comfy, edit("1", model_name="sub/mine.safetensors"))
    assert status == (400 if strict else 200)
    assert post(comfy, edit("1", model_name=MODELS[0]))[0] == 200


def test_history_holds_the_converted_values(comfy):
    graph = chain()
    kinds = {"text": 123, "whole": 7.9, "flag": "false"}
    graph["k"] = {"class_type": "ProbeKinds", "inputs": kinds}
    graph["9"]["inputs"]["images"] = ["k", 0]
    entry = comfy.run(graph)
    assert entry["prompt"][2]["k"]["inputs"] == {"text": "123", "whole": 7, "flag": True}
    graph["k"]["inputs"] = {"text": None, "whole": "7", "flag": ""}
    assert comfy.run(graph)["prompt"][2]["k"]["inputs"] == {"text": "None", "whole": 7, "flag": False}
    graph["k"]["inputs"] = {"text": {"__value__": ["a", "b"]}, "whole": True, "flag": 1}
    assert comfy.run(graph)["prompt"][2]["k"]["inputs"] == {"text": "['a', 'b']", "whole": 1, "flag": True}


def test_unknown_inputs_and_newer_combos_are_not_checked(comfy):
    graph = edit("1", unknown={"deep": [1, 2, 3]})
    graph["1"]["_meta"] = {"title": "a"}
    graph["1"]["colour"] = "red"
    graph["c"] = {"class_type": "ProbeCombo", "inputs": {"mode": "nope"}}
    graph["10"] = {"class_type": "ProbeSave", "inputs": {"images": ["c", 0], "filename_prefix": "c"}}
    entry = comfy.run(graph)
    assert entry["status"]["status_str"] == "success"
    assert entry["prompt"][2] == graph


def test_missing_file_is_refused_with_the_message_of_its_class(comfy):
    graph = {
        "1": {"class_type": "ProbeFile", "inputs": {"file": "nope.png"}},
        "9": {"class_type": "ProbeSave", "inputs": {"images": ["1", 0], "filename_prefix": "f"}},
    }
    error = only_error(comfy, graph, "1")
    assert (error["type"], error["details"]) == (
        "custom_validation_failed",
        "file - Invalid text file: nope.png",
    )
    (comfy.server.folders.input_dir / "nope.png").write_text("now it is there")
    assert comfy.run(graph)["status"]["status_str"] == "success"


def test_cycle_is_refused_with_its_nodes(comfy):
    graph = chain()
    graph["5"] = {"class_type": "ProbeFail", "inputs": {"image": ["6", 0], "fail": False}}
    graph["6"] = {"class_type": "ProbeFail", "inputs": {"image": ["5", 0], "fail": False}}
    graph["9"]["inputs"]["images"] = ["6", 0]
    status, body = post(comfy, graph)
    assert (status, body["error"]["type"]) == (400, "prompt_outputs_failed_validation")
    assert set(body["node_errors"]) == {"5", "6"}
    for node_id, entry in body["node_errors"].items():
        (error,) = entry["errors"]
        assert (error["type"], error["details"]) == (
            "dependency_cycle",
            "6 (ProbeFail) -> 5 (ProbeFail) -> 6 (ProbeFail)",
        )
        assert error["extra_info"] == {"node_id": node_id, "cycle_nodes": ["6", "5"]}
    graph["5"]["inputs"]["image"] = ["4", 0]
    assert comfy.run(graph)["status"]["status_str"] == "success"


def long_chain(length):
    graph = chain()
    source = "4"
    for index in range(length):
        graph[f"n{index}"] = {"class_type": "ProbeFail", "inputs": {"image": [source, 0], "fail": False}}
        source = f"n{index}"
    graph["9"]["inputs"]["images"] = [source, 0]
    return graph


def test_chain_of_hundreds_of_nodes_runs_of_a_thousand_is_refused(comfy):
    assert comfy.run(long_chain(500))["status"]["status_str"] == "success"
    assert post(comfy, long_chain(1000))[0] == 400
    assert comfy.run(chain())["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    "graph",
    [
        edit("2", zz=["99", 0]),
        edit("2", zz=["1", 5]),
        edit("2", zz=["1", 0.5]),
        {**chain(), "far": {"class_type": "ProbeLoader"}},
        {**chain(), "far": {"class_type": "ProbeLoader", "inputs": "none"}},
    ],
)
def test_graphs_that_kill_a_real_server_are_refused(comfy, graph):
    status, body = post(comfy, graph)
    assert (status, body["error"]["type"]) == (400, "invalid_prompt")
    assert comfy.run(chain())["status"]["status_str"] == "success"


def test_cycle_through_unknown_inputs_fails_when_it_runs(comfy):
    graph = edit("1", zz=["2", 0])
    event, data = comfy.run(graph)["status"]["messages"][-1]
    assert (event, data["exception_type"]) == ("execution_error", "graph.DependencyCycleError")
    assert data["node_id"] in {"1", "2"}
    assert comfy.run(chain())["status"]["status_str"] == "success"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=5), child, max_size=3),
    max_leaves=6,
)
LINKS = st.lists(st.sampled_from(["1", "2", "3", "4", "9", "99", 1, -1, 0, 0.5]), min_size=2, max_size=2)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_no_graph_causes_a_500_or_stops_the_worker(comfy, data):
    graph = chain(steps=1)
    for node, name in data.draw(
        st.lists(st.tuples(st.sampled_from(list(graph)), st.sampled_from(["model", "image", "steps", "fail", "new"])))
    ):
        graph[node]["inputs"][name] = data.draw(JSON | LINKS)
    if data.draw(st.booleans()):
        graph[data.draw(st.sampled_from(list(graph)))] = data.draw(JSON)
    answer = comfy.http.post("/prompt", json={"prompt": graph})
    assert answer.status_code in {200, 400}
    if answer.status_code == 200:
        comfy.wait_for_end(answer.json()["prompt_id"])
    assert comfy.http.get("/prompt").json()["exec_info"]["queue_remaining"] == 0
