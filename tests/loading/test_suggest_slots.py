"""Suggested slots of a workflow: names, types, and a slots file that works."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.loading.parse import parse_yaml
from sweeper.loading.starter_experiment import render_slots_file
from sweeper.loading.suggest_slots import choose_app_slots, suggest_slots
from sweeper.loading.template_builder import build_template
from sweeper.loading.ui_format.convert import AppInput
from sweeper.model.node_classes import NodeInfo
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.source import Source


def node(class_type, title=None, **inputs):
    return {"class_type": class_type, "inputs": inputs, **({"_meta": {"title": title}} if title is not None else {})}


TXT2IMG = {
    "3": node(
        "KSampler", "KSampler", seed=5, steps=20, cfg=8, sampler_name="euler", scheduler="normal", denoise=1,
        model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="x.safetensors"),
    "5": node("EmptyLatentImage", "Empty Latent Image", width=512, height=768, batch_size=1),
    "6": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="a fox", clip=["4", 1]),
    "7": node("CLIPTextEncode", "CLIP Text Encode (Prompt)", text="blurry", clip=["4", 1]),
    "8": node("VAEDecode", "VAE Decode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", "Save Image", filename_prefix="ComfyUI", images=["8", 0]),
}  # fmt: skip


NOTHING = NodeInfo({})


def names(graph):
    return {one.address: one.name for one in suggest_slots(graph, NOTHING)}


def build_suggested(graph, info=NOTHING):
    text = render_slots_file("x.json", graph, info, suggest_slots(graph, info))
    return build_template(Source("x.json", graph, dict), parse_yaml(text, "x.slots.yaml"))


def test_every_scalar_input_is_suggested_in_preferred_order():
    assert [(one.name, one.address, one.type, one.value) for one in suggest_slots(TXT2IMG, NOTHING)] == [
        ("prompt", "6.text", "string", "a fox"),
        ("negative", "7.text", "string", "blurry"),
        ("seed", "3.seed", "number", 5),
        ("steps", "3.steps", "number", 20),
        ("cfg", "3.cfg", "number", 8),
        ("sampler", "3.sampler_name", "string", "euler"),
        ("scheduler", "3.scheduler", "string", "normal"),
        ("denoise", "3.denoise", "number", 1),
        ("width", "5.width", "number", 512),
        ("height", "5.height", "number", 768),
        ("batch_size", "5.batch_size", "number", 1),
        ("checkpoint", "4.ckpt_name", "string", "x.safetensors"),
        ("filename_prefix", "9.filename_prefix", "string", "ComfyUI"),
    ]


def test_suggestions_have_titles_and_classes():
    one = suggest_slots(TXT2IMG, NOTHING)[-1]

    assert (one.class_type, one.title) == ("SaveImage", "Save Image")


def test_prompts_are_found_through_a_control_net():
    graph = {
        "1": node("CLIPTextEncode", text="good", clip=["9", 0]),
        "2": node("CLIPTextEncode", text="bad", clip=["9", 0]),
        "3": node("ControlNetApplyAdvanced", positive=["1", 0], negative=["2", 0], strength=1),
        "4": node("KSampler", positive=["3", 0], negative=["3", 1], seed=1),
        "9": node("CLIPLoader", clip_name="c"),
    }

    assert names(graph) == {
        "1.text": "prompt", "2.text": "negative", "3.strength": "strength", "4.seed": "seed", "9.clip_name": "clip",
    }  # fmt: skip


def test_a_prompt_is_found_through_a_guider_and_in_a_primitive():
    graph = {
        "1": node("PrimitiveStringMultiline", "What", value="a fox"),
        "2": node("CLIPTextEncode", text=["1", 0], clip=["8", 0]),
        "3": node("FluxGuidance", conditioning=["2", 0], guidance=3.5),
        "4": node("BasicGuider", conditioning=["3", 0], model=["8", 0]),
        "5": node("RandomNoise", noise_seed=4),
        "8": node("UNETLoader", unet_name="u"),
    }

    assert names(graph)["1.value"] == "prompt"
    assert names(graph)["5.noise_seed"] == "seed"


def test_an_encoder_with_several_texts_gives_several_prompts():
    graph = {
        "1": node("CLIPTextEncodeFlux", clip_l="a", t5xxl="b", guidance=3.5),
        "2": node("BasicGuider", conditioning=["1", 0]),
    }

    assert names(graph) == {"1.clip_l": "prompt_clip_l", "1.t5xxl": "prompt_t5xxl", "1.guidance": "guidance"}


def test_a_text_for_both_roles_is_the_prompt():
    graph = {
        "1": node("CLIPTextEncode", text="a"),
        "2": node("ConditioningZeroOut", conditioning=["1", 0]),
        "3": node("KSampler", positive=["1", 0], negative=["2", 0]),
    }

    assert names(graph) == {"1.text": "prompt"}


def test_equal_names_get_distinct_titles():
    graph = {"1": node("KSampler", "base", steps=1), "2": node("KSampler", "Hi-res fix", steps=2)}

    assert names(graph) == {"1.steps": "steps_base", "2.steps": "steps_hi_res_fix"}


def test_equal_names_get_node_ids_if_titles_are_equal():
    graph = {"1": node("KSampler", "KSampler", steps=1), "2:7": node("KSampler", "KSampler", steps=2)}

    assert names(graph) == {"1.steps": "steps_1", "2:7.steps": "steps_2_7"}


def merged(graph):
    return {one.name: [one.address, *one.others] for one in suggest_slots(graph, NOTHING)}


SDXL = {
    "1": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
    "2": node("CheckpointLoaderSimple", ckpt_name="sd_xl_refiner_1.0.safetensors"),
    "3": node("CLIPTextEncode", text="a fox", clip=["1", 1]),
    "4": node("CLIPTextEncode", text="blurry", clip=["1", 1]),
    "5": node("CLIPTextEncode", text="a fox", clip=["2", 1]),
    "6": node("CLIPTextEncode", text="ugly", clip=["2", 1]),
    "7": node("KSamplerAdvanced", noise_seed=5, steps=25, start_at_step=0, model=["1", 0], positive=["3", 0],
              negative=["4", 0]),
    "8": node("KSamplerAdvanced", noise_seed=0, steps=25, start_at_step=20, model=["2", 0], positive=["5", 0],
              negative=["6", 0], latent_image=["7", 0]),
}  # fmt: skip


def test_equal_inputs_of_twin_nodes_are_one_slot():
    assert merged(SDXL) == {
        "prompt": ["3.text", "5.text"],
        "steps": ["7.steps", "8.steps"],
        "negative_base": ["4.text"],
        "negative_refiner": ["6.text"],
        "seed_base": ["7.noise_seed"],
        "seed_refiner": ["8.noise_seed"],
        "start_at_step_base": ["7.start_at_step"],
        "start_at_step_refiner": ["8.start_at_step"],
        "checkpoint_base": ["1.ckpt_name"],
        "checkpoint_refiner": ["2.ckpt_name"],
    }


def test_a_slot_of_twin_nodes_writes_to_all_of_them():
    template = build_suggested(SDXL)
    rendered = template.render({name: slot.default for name, slot in template.slots.items()} | {"prompt": "an owl"})
    assert (rendered["3"]["inputs"]["text"], rendered["5"]["inputs"]["text"]) == ("an owl", "an owl")


def test_a_prompt_with_one_text_for_two_encoders_is_one_slot():
    graph = {
        "1": node("CLIPTextEncodeSDXL", text_g="a fox", text_l="a fox"),
        "2": node("CLIPTextEncode", text="a fox"),
        "3": node("KSampler", positive=["1", 0]),
        "4": node("KSampler", positive=["2", 0]),
    }
    assert merged(graph) == {"prompt": ["1.text_g", "1.text_l", "2.text"]}


def test_nodes_that_load_other_files_are_no_twins():
    graph = {
        "1": node("LoraLoader", lora_name="style/ink.safetensors", strength_model=1.0),
        "2": node("LoraLoader", lora_name="fox.safetensors", strength_model=1.0, model=["1", 0]),
    }
    assert merged(graph) == {
        "lora_ink": ["1.lora_name"], "lora_fox": ["2.lora_name"],
        "strength_model_ink": ["1.strength_model"], "strength_model_fox": ["2.strength_model"],
    }  # fmt: skip


def test_an_empty_text_for_both_roles_stays_two_slots():
    graph = {
        "1": node("CLIPTextEncode", text=""),
        "2": node("CLIPTextEncode", text=""),
        "3": node("KSampler", positive=["1", 0], negative=["2", 0]),
    }
    assert merged(graph) == {"prompt": ["1.text"], "negative": ["2.text"]}


def test_equal_names_get_the_place_or_the_use_of_the_node():
    chain = {"1": node("KSampler", denoise=1), "2": node("KSampler", denoise=0.5, latent_image=["1", 0])}
    assert merged(chain) == {"denoise_first": ["1.denoise"], "denoise_second": ["2.denoise"]}
    feeds = {"1": node("PrimitiveInt", value=5), "2": node("PrimitiveInt", value=6),
             "3": node("X", wide=["1", 0], tall=["2", 0])}  # fmt: skip
    assert merged(feeds) == {"value_wide": ["1.value"], "value_tall": ["2.value"]}


def test_a_primitive_is_named_by_its_title():
    assert names({"1": node("PrimitiveInt", "Frame count", value=3)}) == {"1.value": "frame_count"}


def test_reserved_names_are_not_suggested():
    graph = {"1": node("Gate", **{"if": 1, "status": "x", "3d": 2, "größe": 1, "é": 1, "日本": 4})}

    assert names(graph) == {
        "1.if": "gate_if", "1.status": "gate_status", "1.3d": "_3d", "1.größe": "groe", "1.é": "e",
        "1.日本": "input_gate",
    }  # fmt: skip


def test_inputs_with_jinja_are_not_suggested():
    assert names({"1": node("X", text="{{ prompt }}", seed=1)}) == {"1.seed": "seed"}


INFO = NodeInfo.from_object_info({
    "KSampler": {
        "input": {
            "required": {
                "seed": ["INT", {"min": 0, "max": 2**64 - 1}], "steps": ["INT", {"min": 1, "max": 10000}],
                "cfg": ["FLOAT", {"min": 0.0, "max": 100.0}], "sampler_name": [["euler", "heun"], {}],
            },
            "optional": {"note": ["STRING", {}]},
        }
    },
    "LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}},
    "Resize": {"input": {"required": {
        "region": ["BOUNDING_BOX", {"socketless": True}],
        "how": ["COMFY_DYNAMICCOMBO_V3", {"options": [
            {"key": "by width", "inputs": {"required": {"size": ["INT", {"min": 1}], "crop": ["BOOLEAN"]}}},
            {"key": "by area", "inputs": {"required": {
                "size": ["INT", {"min": 9}], "mode": [["x", "y"]], "like": ["IMAGE"], "no_default": ["INT"],
            }}},
            {"key": "like", "inputs": {"optional": {"mode": [["x", "y"]]}}},
        ]}],
        "same": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {}}, {"key": "b", "inputs": {}}]}],
    }}},
})  # fmt: skip


def test_limits_of_object_info_never_refuse_the_current_value():
    graph = {
        "3": node("KSampler", seed=7, steps=0, cfg=8, sampler_name="euler", note="n"),
        "4": node("LoadImage", image="a.png"),
    }

    assert {one.name: (one.type, one.schema) for one in suggest_slots(graph, INFO)} == {
        "seed": ("integer", {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}),
        "steps": ("integer", {"type": "integer", "maximum": 10000}),
        "cfg": ("number", {"type": "number", "minimum": 0.0, "maximum": 100.0}),
        "sampler": ("string", {"enum": ["euler", "heun"]}),
        "note": ("string", {"type": "string"}),
        "image": ("file", None),
    }


def test_the_slots_file_keeps_every_value():
    template = build_suggested(TXT2IMG)

    assert list(template.slots) == [one.name for one in suggest_slots(TXT2IMG, NOTHING)]
    assert template.render({name: slot.default for name, slot in template.slots.items()}) == TXT2IMG


def test_fields_that_no_class_declares_are_no_slots():
    fields = {"upload": "image", "audioUI": "", "control_after_generate": "fixed", "preview": "x", "previewMode": False}
    known = {"1": node("LoadImage", image="a.png", extra=1, **fields)}
    assert [one.name for one in suggest_slots(known, INFO)] == ["image"]
    unknown = {"1": node("Custom", image="a.png", extra=1, **fields)}
    assert [one.name for one in suggest_slots(unknown, INFO)] == ["image", "extra"]


def test_an_integer_on_an_unknown_class_may_be_any_number():
    seed = 2**64 - 1
    graph = {"1": node("Custom", size=7, seed=seed)}
    template = build_suggested(graph, NOTHING)
    assert {one.name: one.type for one in suggest_slots(graph, NOTHING)} == {"seed": "number", "size": "number"}
    for value in (7, 7.5):
        rendered = template.render({"size": template.slots["size"].schema.normalise(value), "seed": seed})
        assert repr(rendered["1"]["inputs"]) == repr({"size": value, "seed": seed})  # 7 stays 7, and the seed is exact


def test_a_dynamic_combo_can_be_swept_at_once():
    region = {"x": 0, "y": 0, "width": 8, "height": 8}
    graph = {"1": node("Resize", region=region, how="by width", same="a", **{"how.size": 4, "how.crop": True})}
    template = build_suggested(graph, INFO)
    found = {one.name: (one.type, one.value, one.is_default) for one in suggest_slots(graph, INFO)}
    assert found == {
        "region": ("object", region, False),
        "how": ("string", "by width", False),
        "same": ("string", "a", False),
        "how_size": ("integer", 4, False),
        "how_crop": ("boolean", True, False),
        "how_mode": ("string", "x", True),
    }
    assert template.slots["how"].schema.rules == {"enum": ["by width", "by area", "like"]}
    assert template.slots["how_size"].schema.rules == {"type": "integer"}  # both branches have it, with other limits
    assert template.slots["region"].schema.rules["properties"]["width"] == {"type": "integer", "minimum": 1}
    params = {name: slot.default for name, slot in template.slots.items()}
    assert template.render(params) == graph
    assert template.render({**params, "how": "by area"})["1"]["inputs"] == {
        "region": region, "how": "by area", "same": "a", "how.size": 4, "how.mode": "x",
    }  # fmt: skip


def test_a_picture_becomes_a_file_slot():
    assert build_suggested({"4": node("LoadImage", image="a.png")}).slots["image"].kind == "file"


texts = st.text(max_size=12)
scalars = st.one_of(texts, st.integers(0, 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
keys = st.one_of(st.sampled_from(["seed", "text", "value", *RESERVED_COLUMNS]), texts.filter(bool))
nodes = st.builds(
    lambda class_type, title, inputs: node(class_type, title, **inputs),
    st.sampled_from(["KSampler", "CLIPTextEncode", "日本"]),
    st.one_of(st.none(), texts),
    st.dictionaries(keys, scalars, max_size=4),
)


@given(st.dictionaries(st.sampled_from(["1", "2", "10", "3:4"]), nodes, min_size=1))
def test_any_workflow_gives_unique_names_and_a_slots_file_that_parses(graph):
    suggestions = suggest_slots(graph, NOTHING)

    assert len({suggestion.name for suggestion in suggestions}) == len(suggestions)
    assert all(suggestion.name.isidentifier() and suggestion.name not in RESERVED_COLUMNS for suggestion in suggestions)
    value = parse_yaml(render_slots_file("x.json", graph, NOTHING, suggestions), "x.slots.yaml").value
    assert list(value["slots"] or {}) == [suggestion.name for suggestion in suggestions]
    assert [rules["at"] for rules in (value["slots"] or {}).values()] == [
        [suggestion.address, *suggestion.others] if suggestion.others else suggestion.address
        for suggestion in suggestions
    ]


@pytest.mark.parametrize("break_", ["\n", "\u2028", "\x85", "\r\n"])
def test_a_title_cannot_end_its_comment(break_):
    graph = {"1": node("X", f"a{break_}evil: 1", seed=1)}
    text = render_slots_file("x.json", graph, NOTHING, suggest_slots(graph, NOTHING))

    assert list(parse_yaml(text, "x").value["slots"]) == ["seed"]


def make_rows(count):
    return {str(i): node("KSampler", "KSampler", seed=i, cfg=8.0) for i in range(count)}


def make_chain(count):
    links = ([str(i - 1), 0] for i in range(1, count))
    return {
        "0": node("CLIPTextEncode", text="a fox"),
        **{str(i): node("ControlNet", strength=1.0, positive=link) for i, link in enumerate(links, 1)},
    }


@pytest.mark.parametrize(
    "make",
    [make_rows, make_chain, lambda count: {chr(0x4E00 + i): node("X", seed=i) for i in range(count)}],
    ids=["equal names", "a chain of conditionings", "ids without letters"],
)
def test_time_grows_as_the_workflow_does(make):
    suggest_slots(make(10), NOTHING)  # imports
    start = time.process_time()
    suggest_slots(make(8_000), NOTHING)

    assert time.process_time() - start < 4  # 0.8 s on an idle machine; half a minute if each node looks at all others


def test_a_node_whose_id_has_a_dot_gets_no_slot():
    graph = {"a.b": node("EmptyImage", width=64), "2": node("SaveImage", images=["a.b", 0], filename_prefix="x")}
    assert [slot.address for slot in suggest_slots(graph, NOTHING)] == ["2.filename_prefix"]


def test_an_input_that_is_chosen_twice_for_the_app_mode_is_one_slot():
    chosen = [AppInput(("5.width",), "width"), AppInput(("5.width",), "width"), AppInput(("5.height",), "height")]
    slots = choose_app_slots(TXT2IMG, NOTHING, chosen)
    assert [(slot.name, slot.address) for slot in slots] == [("width", "5.width"), ("height", "5.height")]


def test_an_integer_that_no_float_can_hold_is_compared_with_the_limits():
    declared = {"Blur": {"input": {"required": {"radius": ["FLOAT", {"min": 0.0, "max": 9.0}]}}, "output": []}}
    (slot,) = suggest_slots({"1": node("Blur", radius=10**400)}, NodeInfo.from_object_info(declared))
    assert slot.schema == {"type": "number", "minimum": 0}
