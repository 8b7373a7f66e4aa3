"""The execution cache: which nodes run again when something changes, as measured on a real ComfyUI."""

from __future__ import annotations

import itertools

import pytest

from tests.embedded.probes import chain, waiting

ALL = {"1": 1, "2": 1, "3": 1, "4": 1, "9": 1}
POLICIES = ["classic", "lru 5", "lru 50", "none", "ram 0", "ram 999999"]


def renumber():
    names = {"1": "a", "2": "b", "3": "c", "4": "d", "9": "e"}
    graph = {}
    for node_id, node in chain().items():
        inputs = {
            name: [names[value[0]], value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        graph[names[node_id]] = {"class_type": node["class_type"], "inputs": inputs, "_meta": {"title": node_id}}
    return graph


def unknown(node):
    graph = chain()
    graph[node]["inputs"]["unknown"] = 1
    return graph


CHANGES = {
    "nothing": (chain(), ""),
    "filename_prefix": (chain(prefix="other"), "9"),
    "an unknown input on the output": (unknown("9"), "9"),
    "seed": (chain(seed=1), "349"),
    "cfg": (chain(cfg=8), "349"),
    "text": (chain(text="other"), "2349"),
    "model": (chain(model="beta"), "12349"),
    "an unknown input on the loader": (unknown("1"), "12349"),
    "other node ids and titles": (renumber(), ""),
}


@pytest.mark.parametrize("policy", ["classic", "lru 5", "lru 50"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_nodes_and_those_downstream_run_again(serve, policy, change):
    comfy = serve("comfyui", cache=policy)
    assert comfy.count_executed(chain()) == ALL
    graph, again = CHANGES[change]
    assert comfy.count_executed(graph) == dict.fromkeys(again, 1)


def test_all_nodes_run_again_without_cache(serve):
    comfy = serve("comfyui", cache="none")
    assert comfy.count_executed(chain()) == ALL
    assert comfy.count_executed(chain()) == ALL


@pytest.mark.parametrize(
    ("policy", "foreign", "again"),
    [("classic", 1, ALL), ("lru 5", 1, {}), ("lru 5", 2, ALL), ("lru 50", 2, {})],
)
def test_other_prompts_in_between_evict_results_of_small_caches(serve, policy, foreign, again):
    comfy = serve("comfyui", cache=policy)
    comfy.run(chain())
    for index in range(foreign):
        comfy.run(chain(model="beta", text=f"foreign {index}"))
    assert comfy.count_executed(chain()) == again


@pytest.mark.parametrize("policy", ["classic", "lru 5"])
def test_rejected_prompt_in_between_evicts_nothing(serve, policy):
    comfy = serve("comfyui", cache=policy)
    comfy.run(chain())
    assert comfy.http.post("/prompt", json={"prompt": chain(sampler="nope")}).status_code == 400
    assert comfy.count_executed(chain()) == {}


@pytest.mark.parametrize(("policy", "again"), [("classic", {"4": 1, "9": 1}), ("lru 50", {})])
def test_failing_prompt_in_between_keeps_shared_results(serve, policy, again):
    comfy = serve("comfyui", cache=policy)
    comfy.run(chain())
    assert comfy.run(chain(fail=True))["status"]["status_str"] == "error"
    assert comfy.count_executed(chain()) == again


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("ABABABAB", {"classic": 8, "lru 5": 5, "lru 50": 2, "none": 8, "ram 0": 2, "ram 999999": 8}),
        ("AAAABBBB", {"classic": 2, "lru 5": 2, "lru 50": 2, "none": 8, "ram 0": 2, "ram 999999": 2}),
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_two_alternating_models_load_as_often_as_measured(serve, policy, models, expected):
    comfy = serve("comfyui", cache=policy)
    for seed, model in enumerate(models):
        comfy.run(chain(model={"A": "alpha", "B": "beta"}[model], seed=seed))
    assert comfy.server.seen.nodes["ProbeLoader"] == expected[policy]


# Executions of loader and encoder. `ram` was measured on ComfyUI 0.33.0, with memory to keep everything and without.
ORDERS = {
    order: dict(zip(POLICIES, counts, strict=True))
    for order, counts in {
        "model text seed": ((3, 9), (3, 9), (3, 9), (36, 36), (3, 9), (3, 9)),
        "text model seed": ((9, 9), (9, 9), (3, 9), (36, 36), (3, 9), (9, 9)),
        "model seed text": ((3, 36), (3, 36), (3, 9), (36, 36), (3, 9), (3, 36)),
        "seed text model": ((36, 36), (36, 36), (3, 9), (36, 36), (3, 9), (36, 36)),
    }.items()
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("order", ORDERS)
def test_order_of_a_sweep_decides_how_many_nodes_run(serve, policy, order):
    comfy = serve("comfyui", cache=policy)
    values = {"model": ["alpha", "beta", "gamma"], "text": ["a", "b", "c"], "seed": [0, 1, 2, 3]}
    names = order.split()
    for combination in itertools.product(*(values[name] for name in names)):
        cell = dict(zip(names, combination, strict=True))
        # Past HTTP, which would take most of the time of this test.
        graph = chain(steps=1, prefix="-".join(map(str, combination)), **cell)
        _, answer = comfy.server._service.submit({"prompt": graph})
    comfy.wait_for_end(answer["prompt_id"])
    nodes = comfy.server.seen.nodes
    assert (nodes["ProbeLoader"], nodes["ProbeEncode"]) == ORDERS[order][policy]
    assert (nodes["ProbeSampler"], nodes["ProbeSave"]) == (36, 36)


def chains(shared):
    graph = {}
    for index, (model, text, seed) in enumerate(itertools.product(["alpha", "beta", "gamma"], "abc", range(4))):
        loader, encoder = (f"m{model}", f"t{model}{text}") if shared else (f"m{index}", f"t{index}")
        single = chain(model=model, text=text, seed=seed, steps=1, prefix=f"p{index}")
        names = {"1": loader, "2": encoder, "3": f"s{index}", "4": f"f{index}", "9": f"o{index}"}
        for old, node in single.items():
            node["inputs"] = {
                name: [names[value[0]], 0] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            graph[names[old]] = node
    return graph


@pytest.mark.parametrize(
    ("policy", "shared", "expected"),
    [
        ("classic", True, (3, 9)), ("classic", False, (3, 9)), ("lru 5", False, (3, 9)),
        ("none", True, (3, 9)), ("none", False, (36, 36)),
    ],
)  # fmt: skip
def test_equal_nodes_of_one_prompt_run_once(serve, policy, shared, expected):
    comfy = serve("comfyui", cache=policy)
    entry = comfy.run(chains(shared))
    assert len(entry["outputs"]) == 36
    nodes = comfy.server.seen.nodes
    assert (nodes["ProbeLoader"], nodes["ProbeEncode"]) == expected


def test_two_equal_output_nodes_write_one_file_and_both_report_it(comfy):
    graph = chain()
    graph["10"] = graph["9"]
    outputs = comfy.run(graph)["outputs"]
    assert outputs["9"] == outputs["10"]
    assert comfy.server.seen.nodes["ProbeSave"] == 1


def test_cached_result_keeps_the_id_of_the_node_that_ran(comfy):
    comfy.run(chain())
    entry = comfy.run(renumber())
    assert set(entry["outputs"]) == {"e"}
    assert entry["meta"]["e"]["node_id"] == "9"


def test_file_with_changed_content_runs_again(comfy):
    graph = {
        "1": {"class_type": "ProbeFile", "inputs": {"file": "a.txt"}},
        "9": {"class_type": "ProbeSave", "inputs": {"images": ["1", 0], "filename_prefix": "f"}},
    }
    file = comfy.server.folders.input_dir / "a.txt"
    file.write_text("one")
    assert comfy.count_executed(graph) == {"1": 1, "9": 1}
    file.write_text("one")
    assert comfy.count_executed(graph) == {}
    file.write_text("two")
    assert comfy.count_executed(graph) == {"1": 1, "9": 1}
    assert "is_changed" not in comfy.run(graph)["prompt"][2]["1"]


def test_failing_fingerprint_lets_the_node_run_and_report_it(comfy, gate):
    graph = {
        "1": {"class_type": "ProbeFile", "inputs": {"file": "a.txt"}},
        "9": {"class_type": "ProbeSave", "inputs": {"images": ["1", 0], "filename_prefix": "f"}},
    }
    (comfy.server.folders.input_dir / "a.txt").write_text("one")
    comfy.submit(waiting())
    assert gate.entered.wait(60)
    prompt_id = comfy.submit(graph)
    (comfy.server.folders.input_dir / "a.txt").unlink()
    gate.opened.set()
    event, data = comfy.wait_for_end(prompt_id)["status"]["messages"][-1]
    assert (event, data["exception_type"], data["node_id"]) == ("execution_error", "FileNotFoundError", "1")
