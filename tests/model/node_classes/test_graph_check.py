"""Problems and notes of graphs, and valid graphs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sweeper.model.node_classes import NodeInfo, find_graph_problems
from sweeper.model.template import Address
from tests.model.node_classes.small_object_info import OBJECT_INFO, find_graph_notes, of, small_info, workflow

INFO = small_info()


def sentences(graph: Any, **options: Any) -> list[str]:
    return [message for _, message in find_graph_problems(graph, INFO, **options)]


BRANCHES = " (to sweep 'format', list under `branches` in the slots file which inputs each choice has)"


def test_a_valid_workflow_has_no_problems_and_no_notes() -> None:
    assert find_graph_problems(workflow(), INFO) == []
    assert find_graph_notes(workflow(), INFO) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n3_sampler_name": "eulr"}, "node 3 (Sampler) sampler_name: found 'eulr'; did you mean 'euler'?"),
        ({"n3_sampler_name": "Euler"}, "node 3 (Sampler) sampler_name: found 'Euler'; did you mean 'euler'?"),
        ({"n3_sampler_name": 1}, "node 3 (Sampler) sampler_name: found 1; allowed: euler, heun, dpmpp_2m"),
        ({"n3_steps": 0}, "node 3 (Sampler) steps: found 0, but at least 1 is needed"),
        ({"n3_cfg": 100.5}, "node 3 (Sampler) cfg: found 100.5, but at most 100.0 is needed"),
        ({"n3_seed": 2**64}, f"node 3 (Sampler) seed: found {2**64}, but at most {2**64 - 1} is needed"),
        ({"n3_seed": -1}, "node 3 (Sampler) seed: found -1, but at least 0 is needed"),
        ({"n3_steps": 4.9}, "node 3 (Sampler) steps: found 4.9, but an integer is needed"),
        ({"n3_steps": "7.5"}, "node 3 (Sampler) steps: found '7.5', but an integer is needed"),
        ({"n3_steps": True}, "node 3 (Sampler) steps: found true, but an integer is needed"),
        ({"n3_steps": None}, "node 3 (Sampler) steps: found nothing, but an integer is needed"),
        ({"n3_cfg": "6,5"}, "node 3 (Sampler) cfg: found '6,5', but a number is needed"),
        ({"n3_cfg": "inf"}, "node 3 (Sampler) cfg: found 'inf', but a number is needed"),
        ({"n3_cfg": "100.5"}, "node 3 (Sampler) cfg: found 100.5, but at most 100.0 is needed"),
        ({"n3_tiled": "false"}, "node 3 (Sampler) tiled: found 'false', but true or false is needed"),
        ({"n3_tiled": 2}, "node 3 (Sampler) tiled: found 2, but true or false is needed"),
        ({"n6_text": True}, "node 6 (Encode) text: found true, but text is needed"),
        ({"n6_text": None}, "node 6 (Encode) text: found nothing, but text is needed"),
        ({"n6_text": {"a": 1}}, "node 6 (Encode) text: found a mapping (a), but text is needed"),
        ({"n8_vae": "ae"}, "node 8 (Decode) vae: found 'ae', but a link to a VAE output is needed"),
        ({"n9_images": None}, "node 9 (Save) images: found nothing, but a link to an IMAGE output is needed"),
        ({"n3_model": ["4", 1]},
         "node 3 (Sampler) model: links to output 1 of node 4 (Loader), which is CLIP; MODEL is needed"),
        ({"n3_model": ["4", 3]},
         "node 3 (Sampler) model: links to output 3 of node 4 (Loader), which has 3 outputs, counted from 0"),
        ({"n3_model": ["4", -1]},
         "node 3 (Sampler) model: links to output -1 of node 4 (Loader), which has 3 outputs, counted from 0"),
        ({"n3_latent_image": ["99", 0]},
         "node 3 (Sampler) latent_image: links to node 99, which is not in the workflow; its nodes: 3, 4, 5, 6, 8, 9"),
        ({"n3_model": [4, 0]}, ('node 3 (Sampler) model: [4, 0] is not a link; a link is written ["node id", output], '
         'a list as a value {"__value__": [...]}')),
        ({"n3_model": ["4", "0"]}, ('node 3 (Sampler) model: ["4", "0"] is not a link; a link is written '
         '["node id", output], a list as a value {"__value__": [...]}')),
        ({"n3_steps": [1, 2, 3]}, ("node 3 (Sampler) steps: found a list of 3, which the server reads as a broken "
         'link; a link is written ["node id", output], a list as a value {"__value__": [...]}')),
        ({"n3_zz": ["99", 0]}, ("node 3 (Sampler) zz: links to node 99, which is not in the workflow; its nodes: 3, 4, "
         "5, 6, 8, 9; for an undeclared input that stops the server")),
        ({"n3_zz": ["4", 0]}, ("node 3 (Sampler) zz: Sampler has no such input, so its link makes the node fail; "
         "its inputs: model, seed, steps, cfg, sampler_name, positive, latent_image, tiled, denoise")),
        ({"n4": of("Loadr")}, "node 4: the server has no class 'Loadr'; did you mean 'Loader'? If it is a custom node, "
         "install it on that server"),
        ({"n4": of("Efficient Loader")}, "node 4: the server has no class 'Efficient Loader'; if it is a custom node, "
         "install it on that server, else update the server"),
        ({"n6": of("Encode", text="a fox")}, "node 6 (Encode): the required input 'clip' is missing"),
        ({"n5_width": {"__value__": 8}}, "node 5 (Latent) width: found 8, but at least 16 is needed"),
        ({"n3_positive": ["6", 0], "n6_clip": ["3", 0]},
         "node 6 (Encode) clip: links to output 0 of node 3 (Sampler), which is LATENT; CLIP is needed"),
    ],
)  # fmt: skip
def test_graph_problems(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in sentences(workflow(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"n3_seed": 2**64 - 1},
        {"n3_steps": 20.0},  # an integer for JSON Schema and for the server
        {"n3_cfg": 8},  # JavaScript writes 8.0 so
        {"n3_steps": "7", "n3_cfg": "6.5", "n3_tiled": 1, "n6_text": 5},  # the server converts these without a loss
        {"n3_denose": 0.5},
        {"n5_width": 130},  # `step` is not enforced
        {"n6_text": ""},
        {"n6_text": {"__value__": "a fox"}},
        {"n3_tiled": False},
        {"n7": of("Number", value=9), "n3_steps": ["7", 0]},  # a widget converted to an input
        {"n7": of("PickSampler"), "n3_sampler_name": ["7", 0]},  # an output of the same list
        {"n7": of("Switch", anything=["8", 0], any_02=["5", 0]), "n9_images": ["7", 0]},  # "*" matches every type
        {"n7": of("Show", source="text")},
        {"n7": of("Show", source=["4", 2])},
        {"n7": of("Either", value=0.5), "n3_cfg": ["7", 0]},  # unions with a common member
        {"n7": of("Either", value=3)},
        {"n7": of("Row", image_1=["8", 0], image_2=["8", 0], count=2), "n9_images": ["7", 0]},
        {"n7": of("Batch", **{"images.image0": ["8", 0], "images.image1": ["8", 0]}), "n9_images": ["7", 0]},
        {"n7": of("SaveAs", images=["8", 0], format="png", **{"format.depth": "8"})},
        {"n7": of("SaveAs", images=["8", 0], format="png", **{"format.depth": "8", "format.quality": 3})},
        {"n7": of("Batch", **{"images.image0": ["8", 0], "images.image1": ["8", 0], "images.image2": ["8", 0]})},
        {"n7": of("Resize", input=["8", 0]), "n9_images": ["7", 0]},
        {"n7": of("Pick", on=True, a=["8", 0], b=["5", 0]), "n9_images": ["7", 0]},  # one of its types fits
        {"n7": of("Pick", on=True, a=["8", 0], b="text"), "n9_images": ["7", 0]},
        {
            "n7": of("Pick", on=True, a=["10", 0], b=["8", 0]),
            "n10": of("Pick", on=False, a=["7", 0], b=["8", 0]),
            "n9_images": ["8", 0],
        },  # a cycle that no output reaches
        {"n7": of("Crop", image=["8", 0], region={"x": 3}), "n9_images": ["7", 0]},
        {"n7": of("Blend", image=["8", 0], mode="normal", mask=None), "n9_images": ["7", 0]},
        {"n7": of("CustomCombo", choice="mine", index=1, option1="mine"), "n6_text": ["7", 0]},
        {"n7": of("Paint", color="#fff"), "n9_images": ["7", 0]},
        {"n7": of("Forced", steps=4), "n3_latent_image": ["7", 0]},
        {"n7": of("Tags", tags={"__value__": ["a", "b"]}), "n6_text": ["7", 0]},
        {"n9_prompt": {"a": 1}},  # a hidden input
        {"n7": of("LoadImage", image="sea.png"), "n9_images": ["7", 0]},
        {"n7": of("LoadImage", image="sub/a.png"), "n9_images": ["7", 0]},
        {"n7": of("LoadImage", image="up.png [output]"), "n9_images": ["7", 0]},
    ],
)
def test_valid_graphs_have_no_problems(changes: dict[str, Any]) -> None:
    assert sentences(workflow(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n7": of("Blend", image=["8", 0], mode="multipli"), "n9_images": ["7", 0]},
         "node 7 (Blend) mode: found 'multipli'; did you mean 'multiply'?"),
        ({"n7": of("PickOther"), "n3_sampler_name": ["7", 0]}, ("node 3 (Sampler) sampler_name: links to output 0 of "
         "node 7 (PickOther), which is a choice of options; one of its options is needed")),
        ({"n3_sampler_name": ["4", 0]}, ("node 3 (Sampler) sampler_name: links to output 0 of node 4 (Loader), "
         "which is MODEL; one of its options is needed")),
        ({"n7": of("Empty", lora_name="a.safetensors"), "n3_model": ["7", 0]}, ("node 7 (Empty) lora_name: found "
         "'a.safetensors', but the server offers nothing to choose from here: its list is empty")),
        ({"n7": of("LoadImage", image="see.png"), "n9_images": ["7", 0]},
         "node 7 (LoadImage) image: found 'see.png', which is not on the server; did you mean 'sea.png'?"),
        ({"n7": of("LoadImage", image=""), "n9_images": ["7", 0]}, "node 7 (LoadImage) image: is empty"),
        ({"n7": of("Either", value=-1), "n3_cfg": ["7", 0]},
         "node 7 (Either) value: found -1, but at least 0 is needed"),
        ({"n7": of("Either", value="x"), "n3_cfg": ["7", 0]},
         "node 7 (Either) value: found 'x', but an integer or a number is needed"),
        ({"n7": of("Batch", **{"images.image0": ["8", 0]}), "n9_images": ["7", 0]},
         "node 7 (Batch): the required input 'images.image1' is missing"),
        ({"n7": of("Batch", **{"images.image0": ["4", 0], "images.image1": ["8", 0]}), "n9_images": ["7", 0]},
         "node 7 (Batch) images.image0: links to output 0 of node 4 (Loader), which is MODEL; IMAGE is needed"),
        ({"n7": of("SaveAs", images=["8", 0], format="gif")},
         "node 7 (SaveAs) format: found 'gif'; allowed: png, jpeg"),
        ({"n7": of("SaveAs", images=["8", 0], format="jpeg")},
         "node 7 (SaveAs): the required input 'format.quality' is missing; format 'jpeg' needs it" + BRANCHES),
        ({"n7": of("SaveAs", images=["8", 0], format="jpeg", **{"format.qualty": 5})},
         (f"node 7 (SaveAs): the required input 'format.quality' is missing; format 'jpeg' needs it{BRANCHES}; "
          "found 'format.qualty', which the class does not have")),
        ({"n7": of("SaveAs", images=["8", 0])}, "node 7 (SaveAs): the required input 'format' is missing"),
        ({"n7": of("SaveAs", images=["8", 0], format=["8", 0])},
         "node 7 (SaveAs) format: found a link, but the server needs the value here; write one of: png, jpeg"),
        ({"n7": of("SaveAs", images=["8", 0], format={"__value__": "png"}, **{"format.depth": "8"})},
         "node 7 (SaveAs) format: found a mapping (__value__); allowed: png, jpeg"),
        ({"n7": of("SaveAs", images=["8", 0], format="jpeg", **{"format.quality": 5, "format.depth": ["5", 0]})},
         ("node 7 (SaveAs) format.depth: belongs to format 'png', which is not chosen, so its link makes the node "
          "fail; leave it out, or list under `branches` in the slots file which inputs each choice has")),
        ({"n7": of("Batch", **{"images.image0": ["8", 0], "images.image1": ["8", 0], "images.image12": ["8", 0]}),
          "n9_images": ["7", 0]}, ("node 7 (Batch) images.image12: Batch has no such input, so its link makes the node "
         "fail; did you mean 'images.image1'?")),
        ({"n7": of("Batch", **{"images.image0": ["8", 0], "images.image1": None}), "n9_images": ["7", 0]},
         "node 7 (Batch) images.image1: found nothing, but a link to an IMAGE output is needed"),
        ({"n7": of("Resize", input=["5", 0]), "n9_images": ["7", 0]},
         "node 7 (Resize) input: links to output 0 of node 5 (Latent), which is LATENT; IMAGE,MASK is needed"),
        ({"n7": of("Pick", on=True, a=["4", 0], b=["5", 0]), "n9_images": ["7", 0]},
         "node 9 (Save) images: links to output 0 of node 7 (Pick), which is MODEL,LATENT; IMAGE is needed"),
        ({"n7": of("Crop", image=["8", 0], region={"x": 0.5}), "n9_images": ["7", 0]},
         "node 7 (Crop) region: x: found 0.5, but an integer is needed"),
        ({"n7": of("SaveAs", images=["8", 0], format="jpeg", **{"format.quality": 500})},
         "node 7 (SaveAs) format.quality: found 500, but at most 100 is needed"),
        ({"n7": of("Tags", tags={"__value__": ["a", "c"]}), "n6_text": ["7", 0]},
         "node 7 (Tags) tags: found 'c'; allowed: a, b"),
    ],
)  # fmt: skip
def test_newer_input_types_are_checked(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in sentences(workflow(**changes))


def test_all_problems_are_found_with_their_paths() -> None:
    graph = workflow(n3_steps=0, n3_sampler_name="x", n5_width="wide", n9_images=["99", 0])
    graph["8"] = of("Nothing")
    everything = {
        ("3", "inputs", "sampler_name"),
        ("3", "inputs", "steps"),
        ("5", "inputs", "width"),
        ("8", "class_type"),
        ("9", "inputs", "images"),
    }
    assert {path for path, _ in find_graph_problems(graph, INFO)} == everything
    graph["9"]["inputs"]["images"] = ["8", 0]
    graph["8"]["inputs"] = {"samples": ["3", 0]}
    assert {path for path, _ in find_graph_problems(graph, INFO)} == everything - {("9", "inputs", "images")}


def test_a_workflow_without_an_output_is_a_problem() -> None:
    graph = workflow()
    del graph["9"]
    assert sentences(graph) == [
        "no node is an output (SaveImage, PreviewImage, ...), so the server would have nothing to run"
    ]
    assert sentences({})[0].startswith("no node is an output")


def test_a_cycle_is_a_problem_if_an_output_depends_on_it() -> None:
    row = of("Row", image_1=["11", 0], count=1)
    graph = workflow(n10=row, n11=of("Row", image_1=["10", 0], count=1))
    assert sentences(graph) == []
    graph["9"]["inputs"]["images"] = ["10", 0]
    assert sentences(graph) == ["these nodes link in a cycle: 10 -> 11 -> 10"]


def test_nodes_that_no_output_depends_on_give_only_notes() -> None:
    graph = workflow(n20=of("Latent", width="wide"))
    assert sentences(graph) == []
    assert [message for _, message in find_graph_notes(graph, INFO)] == [
        "node 20 (Latent): not connected to an output node, so it will not run",
        "node 20 (Latent): the required input 'height' is missing",
        "node 20 (Latent) width: found 'wide', but an integer is needed",
    ]
    graph["20"]["class_type"] = "Nothing"
    assert sentences(graph)[0].startswith("node 20: the server has no class 'Nothing'")


def test_an_undeclared_literal_gives_only_a_note() -> None:
    graph = workflow(n3_stepz=4, n3_other="image", n3_upload="image")  # `upload` is a field of ComfyUI's page
    assert sentences(graph) == []
    assert find_graph_notes(graph, INFO) == [
        (
            ("3", "inputs", "stepz"),
            "node 3 (Sampler) stepz: Sampler has no such input, so the server ignores it",
        ),
        (
            ("3", "inputs", "other"),
            "node 3 (Sampler) other: Sampler has no such input, so the server ignores it",
        ),
    ]
    assert find_graph_notes(workflow(n3_denose=0.5), INFO)[0][1] == (
        "node 3 (Sampler) denose: Sampler has no such input, so the server ignores it; did you mean 'denoise'?"
    )


def test_an_uploaded_file_may_be_missing_on_the_server() -> None:
    graph = workflow(n7=of("LoadImage", image="new.png"), n9_images=["7", 0])
    assert sentences(graph) != []
    assert sentences(graph, uploaded=[Address("7", "image")]) == []
    assert sentences(workflow(n3_model="new.png"), uploaded=[Address("3", "model")]) != []
    assert sentences(workflow(n3_steps="new.png"), uploaded=[Address("3", "steps")]) == [
        "node 3 (Sampler) steps: found a file, but INT is needed"
    ]


def test_a_file_for_an_empty_list_should_be_a_file_slot() -> None:
    empty = copy.deepcopy(OBJECT_INFO)
    empty["LoadImage"]["input"]["required"]["image"][0] = []
    graph = workflow(n7=of("LoadImage", image="a.png"), n9_images=["7", 0])
    assert [message for _, message in find_graph_problems(graph, NodeInfo.from_object_info(empty))] == [
        "node 7 (LoadImage) image: found 'a.png', but the server has no file for this input yet; give it as a file slot"
    ]


def test_an_unknown_class_with_a_dangling_link_has_two_problems() -> None:
    assert sentences(workflow(n7=of("Nothing", image=["99", 0])))[1] == (
        "node 7 (Nothing) image: links to node 99, which is not in the workflow; its nodes: 3, 4, 5, 6, 8, 9, 7"
    )


def test_a_number_too_large_for_a_float_is_refused() -> None:
    info = NodeInfo.from_object_info({**OBJECT_INFO, "Number": {**OBJECT_INFO["Number"], "output_node": True}})
    float_input = copy.deepcopy(OBJECT_INFO)
    float_input["Number"]["input"]["required"]["value"] = ["FLOAT", {}]
    float_input["Number"]["output_node"] = True
    graph = {"1": of("Number", value=10**400)}
    assert find_graph_problems(graph, info) == []
    assert "too large for a number" in find_graph_problems(graph, NodeInfo.from_object_info(float_input))[0][1]


def test_an_integer_that_a_float_rounds_beyond_the_limit_is_refused() -> None:
    """As ComfyUI 0.33.0 does for its PrimitiveFloat, whose limit is 2**63 - 1."""
    float_input = copy.deepcopy(OBJECT_INFO)
    float_input["Number"]["input"]["required"]["value"] = ["FLOAT", {"max": 2**63 - 1}]
    float_input["Number"]["output_node"] = True
    info = NodeInfo.from_object_info(float_input)
    assert find_graph_problems({"1": of("Number", value=2**63 - 1025)}, info) == []
    assert "but at most" in find_graph_problems({"1": of("Number", value=2**63 - 2)}, info)[0][1]


def test_a_chain_of_thousands_of_nodes_is_checked() -> None:
    graph: dict[str, Any] = {"0": of("Row", image_1="x", count=1)}
    for index in range(1, 5000):
        graph[str(index)] = of("Row", image_1=[str(index - 1), 0], count=1)
    graph["save"] = of("Save", images=["4999", 0], filename_prefix="x")
    assert [path for path, _ in find_graph_problems(graph, INFO)] == [("0", "inputs", "image_1")]


def test_the_check_does_not_change_the_graph() -> None:
    graph = workflow(n3_steps={"__value__": 3})
    before = copy.deepcopy(graph)
    find_graph_problems(graph, INFO)
    find_graph_notes(graph, INFO)
    assert graph == before


def test_embedded_server_takes_the_default_of_a_missing_input() -> None:
    embedded = NodeInfo.from_object_info(OBJECT_INFO, is_embedded=True)
    graph = workflow()
    del graph["3"]["inputs"]["steps"]
    message = "node 3 (Sampler): the required input 'steps' is missing"
    assert sentences(graph) == [message]
    assert find_graph_problems(graph, embedded) == []
    notes = [sentence for _, sentence in find_graph_notes(graph, embedded)]
    assert notes == [f"{message}; the embedded server takes 20, a ComfyUI refuses it"]
    graph["3"]["inputs"]["step"] = 20
    assert [sentence for _, sentence in find_graph_problems(graph, embedded)] == [
        f"{message}; found 'step', which the class does not have"
    ]
