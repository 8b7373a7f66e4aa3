"""The first value `(none)` of an axis of model files: its nodes run with strength 0, or are bypassed."""

from __future__ import annotations

import copy

import pytest

import sweeper
from sweeper.errors import ExperimentError
from sweeper.loading.model_axes import describe_off, find_bypass_links, find_nodes_to_bypass
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.template_check import check_template
from tests.experiment_files import node, write

GRAPH = {
    "1": node("CheckpointLoaderSimple", ckpt_name="base.safetensors"),
    "2": node(
        "LoraLoader", model=["1", 0], clip=["1", 1], lora_name="b.safetensors", strength_model=0.8, strength_clip=1
    ),
    "3": node("CLIPTextEncode", text="a fox", clip=["2", 1]),
    "4": node("KSampler", model=["2", 0], positive=["3", 0], seed=1),
}
SLOTS = {"lora": {"at": "2.lora_name"}, "strength": {"at": "2.strength_model"}, "prompt": {"at": "3.text"}}
FORM = {"models": "loras/*", "none": True}
FILES = ["a.safetensors", "b.safetensors"]
PLAIN = {  # a loader without a strength
    **GRAPH, "2": node("LoraPlain", model=["1", 0], clip=["1", 1], lora_name="b.safetensors"),
}  # fmt: skip


def make(folder, grid, graph=GRAPH, slots=SLOTS, listed=FILES, **more):
    file = write(folder, {"name": "e", "template": "t.json", "sweep": {"grid": grid}, **more}, graph, slots)
    return sweeper.plan(sweeper.load(file, overrides={"loras/*": listed}))


def inputs(plan, node_id="2"):
    return [plan.workflow(trial)[node_id]["inputs"] for trial in plan.written()]


def test_none_sets_every_strength_to_zero_and_names_a_file_that_exists(tmp_path):
    plan = make(tmp_path, {"lora": FORM})
    none, *others = inputs(plan)
    assert none == GRAPH["2"]["inputs"] | {"strength_model": 0.0, "strength_clip": 0, "lora_name": "b.safetensors"}
    assert [found["lora_name"] for found in others] == FILES
    assert {found["strength_model"] for found in others} == {0.8}
    assert [trial.axes["lora"] for trial in plan.written()] == ["(none)", *FILES]
    assert inputs(make(tmp_path, {"lora": FORM}, listed=["a.safetensors"]))[0]["lora_name"] == "a.safetensors"
    assert describe_off(plan.experiment.template, "lora") == (
        "(none) of lora: node 2 (LoraLoader) with strength_model, strength_clip 0"
    )


def test_other_trials_have_the_digests_that_they_have_without_none(tmp_path):
    digests = [trial.digest for trial in make(tmp_path, {"lora": FORM}).written()]
    assert digests[1:] == [trial.digest for trial in make(tmp_path, {"lora": FILES}).written()]
    assert digests[1:] == [trial.digest for trial in make(tmp_path, {"lora": {"models": "loras/*"}}).written()]


def test_none_is_one_job_for_all_swept_strengths(tmp_path):
    plan = make(tmp_path, {"lora": FORM, "strength": [0.5, 1.0]})
    trials = list(plan.written())
    assert trials[0].digest == trials[1].digest
    assert len({trial.digest for trial in trials}) == 5
    assert [found["strength_model"] for found in inputs(plan)] == [0.0, 0.0, 0.5, 1.0, 0.5, 1.0]


def test_where_exclude_and_include_know_none(tmp_path):
    more = {"where": "lora != '(none)'", "include": [{"lora": "(none)", "prompt": "a cat"}]}
    sweep = {"grid": {"lora": FORM, "prompt": ["a fox", "a cat"]}, "exclude": [{"lora": "b.safetensors"}], **more}
    plan = make(tmp_path, {}, sweep=sweep)
    assert [(trial.axes["lora"], trial.axes["prompt"]) for trial in plan.written()] == [
        ("a.safetensors", "a fox"), ("a.safetensors", "a cat"), ("(none)", "a cat"),
    ]  # fmt: skip


def test_none_is_number_zero_in_every_column_of_numbers(tmp_path):
    plan = make(tmp_path, {"lora": FORM}, listed=["x-step20.pt", "x-step3.pt"])
    assert [trial.columns["lora.step"] for trial in plan.written()] == [0, 3, 20]


def make_links(**outputs):
    """The classes of PLAIN that a bypass needs, where LoraPlain has these outputs."""
    return {
        "LoraPlain": {"input": {"required": {"model": ["MODEL"], "clip": ["CLIP"], "lora_name": [FILES]}},
                      "output": outputs.get("output", ["MODEL", "CLIP"])},
        "KSampler": {"input": {"required": {"model": ["MODEL"]}}, "output": ["LATENT"]},
    }  # fmt: skip


def test_node_without_a_strength_is_bypassed(tmp_path):
    template = sweeper.load_template(write(tmp_path, {}, PLAIN, {"lora": SLOTS["lora"]}).with_name("t.json"))
    nodes = find_nodes_to_bypass(template, "lora")
    links = find_bypass_links(template, nodes, NodeInfo.from_object_info(make_links()))
    assert links == {"3.clip": ["1", 1], "4.model": ["1", 0]}
    plan = make(tmp_path, {"lora": FORM}, PLAIN, {"lora": SLOTS["lora"]}, {"files": FILES, "links": links})
    none, first, _ = (plan.workflow(trial) for trial in plan.written())
    assert (none["3"]["inputs"]["clip"], none["4"]["inputs"]["model"]) == (["1", 1], ["1", 0])
    assert (first["3"]["inputs"]["clip"], first["4"]["inputs"]["model"]) == (["2", 1], ["2", 0])
    assert describe_off(plan.experiment.template, "lora") == "(none) of lora: node 2 (LoraPlain) bypassed"


def test_bypassed_node_is_connected_in_the_other_trials(tmp_path):
    classes = {
        "CheckpointLoaderSimple": {"input": {}, "output": ["MODEL", "CLIP"]},
        "CLIPTextEncode": {"input": {"required": {"clip": ["CLIP"]}}, "output": ["CONDITIONING"]},
        **make_links(),
    }
    classes["KSampler"] |= {"output_node": True}
    info, links = NodeInfo.from_object_info(classes), {"3.clip": ["1", 1], "4.model": ["1", 0]}
    plan = make(tmp_path, {"lora": FORM}, PLAIN, {"lora": SLOTS["lora"]}, {"files": FILES, "links": links})
    notes = [message for _, message in check_template(plan.experiment.template, info).notes]
    assert [message for message in notes if "connected" in message or "no effect" in message] == []


def test_two_bypassed_nodes_in_a_row_pass_the_link_of_the_first(tmp_path):
    graph = copy.deepcopy(PLAIN)
    graph["5"] = node("LoraPlain", model=["2", 0], clip=["2", 1], lora_name="b.safetensors")
    graph["4"]["inputs"]["model"] = ["5", 0]
    slots = {"lora": {"at": ["2.lora_name", "5.lora_name"]}}
    template = sweeper.load_template(write(tmp_path, {}, graph, slots).with_name("t.json"))
    links = find_bypass_links(template, find_nodes_to_bypass(template, "lora"), NodeInfo.from_object_info(make_links()))
    assert links == {"3.clip": ["1", 1], "4.model": ["1", 0]}


@pytest.mark.parametrize(
    ("graph", "slots", "says"),
    [
        (
            PLAIN,
            {"lora": SLOTS["lora"]},
            "node 2 (LoraPlain) has no `strength`, and no input that its server would pass on",
        ),
        (GRAPH, {"prompt": SLOTS["prompt"]}, "`none: true` needs the slot of an input, which 'lora' is not"),
    ],
)
def test_none_that_cannot_be_switched_off_is_a_mistake(tmp_path, graph, slots, says):
    with pytest.raises(ExperimentError) as caught:
        make(tmp_path, {"lora": FORM}, graph, slots)
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("sweep.grid.lora", 1)
    assert says in problem.message


def test_class_without_an_input_of_the_type_has_no_link(tmp_path):
    template = sweeper.load_template(write(tmp_path, {}, PLAIN, {"lora": SLOTS["lora"]}).with_name("t.json"))
    info = NodeInfo.from_object_info(make_links(output=["MODEL", "VAE"]))
    assert find_bypass_links(template, find_nodes_to_bypass(template, "lora"), info) == {"4.model": ["1", 0]}


def test_search_takes_files_in_the_order_of_their_numbers(tmp_path):
    from sweeper.planning.searching.search_plan import SearchSpace

    search = {"maximize": "sharpness", "trials": 5, "space": {"lora": FORM, "prompt": ["a", "b"]}}
    file = write(tmp_path, {"template": "t.json", "search": search, "metrics": ["sharpness"]}, GRAPH, SLOTS)
    experiment = sweeper.load(file, overrides={"loras/*": ["x-step20.pt", "x-step3.pt"]})
    space = SearchSpace(experiment, experiment.search)
    assert [space.is_ordered(index) for index in (0, 1)] == [True, False]


@pytest.mark.parametrize("listed", [3, "a", {"files": "a"}, {"files": [1]}, {}, {"files": FILES, "links": [1]}])
def test_list_of_another_shape_is_a_mistake_and_no_crash(tmp_path, listed):
    if isinstance(listed, dict) and "links" in listed:
        assert len(make(tmp_path, {"lora": FORM}, listed=listed)) == 3
        return
    with pytest.raises(
        ExperimentError, match=r"no file among the given ones|files loras/\* of a server|nobody|a server"
    ):
        make(tmp_path, {"lora": FORM}, listed=listed)
