"""`sweeper init`: from any workflow to an experiment that runs at once."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.embedded import node_classes
from sweeper.files import find_name_problem
from sweeper.loading.load import load
from sweeper.planning.plan import Plan
from tests.cli.test_template_ui_format import UI_WORKFLOW

IMG2IMG = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "2": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "ink.safetensors", "strength_model": 0.8, "strength_clip": 1, "model": ["1", 0],
            "clip": ["1", 1],
        },
    },
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": 'a "red" fox: {snow}', "clip": ["2", 1]}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["2", 1]}},
    "5": {"class_type": "LoadImage", "inputs": {"image": "my photo.png", "upload": "image"}},
    "6": {"class_type": "VAEEncode", "inputs": {"pixels": ["5", 0], "vae": ["1", 2]}},
    "7": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5, "steps": 4, "cfg": 1, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.6,
            "model": ["2", 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["6", 0],
        },
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["1", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
}  # fmt: skip
CUSTOM = {
    "1": {
        "class_type": "Efficient Loader",
        "inputs": {"ckpt_name": "a.safetensors", "positive": "a fox", "negative": "", "empty_latent_width": 512},
    },
    "2": {"class_type": "KSampler (Efficient)", "inputs": {"seed": 1, "steps": 9, "cfg": 7.5, "model": ["1", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 5], "filename_prefix": "x"}},
}


def save_json(value=IMG2IMG, name="w.json"):
    Path(name).write_text(json.dumps(value), "utf-8")
    return name


def make_picture(size=(64, 64)):
    data = io.BytesIO()
    Image.effect_noise(size, 50).save(data, "PNG")
    return data.getvalue()


def save_png(name="made.png"):
    info = PngInfo()
    info.add_text("prompt", json.dumps(IMG2IMG))
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


def save_request(name="request.json"):
    picture = f"data:image/png;base64,{base64.b64encode(make_picture()).decode()}"
    images = [{"name": "my photo.png", "image": picture}]
    return save_json({"input": {"workflow": IMG2IMG, "images": images}}, name)


def save_film(name, **tags):
    av = pytest.importorskip("av")
    with av.open(name, "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(tags)
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_image(Image.new("RGB", (32, 32)))
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    return name


def save_film_of_comfyui():
    return save_film("film.mp4", prompt=json.dumps(IMG2IMG), workflow='{"nodes": [], "links": []}')


def save_film_of_video_helper():
    return save_film("vhs.mp4", comment=json.dumps({"prompt": json.dumps(IMG2IMG)}))


def uncomment_each(path):
    """Yield the experiment with one commented axis after the other as a part of it."""
    lines = path.read_text("utf-8").splitlines()
    for index, line in enumerate(lines):
        if re.match(r"    # \w+: \[", line):
            yield line, "\n".join([*lines[:index], line.replace("# ", "", 1), *lines[index + 1 :]])


@pytest.mark.parametrize(
    "save",
    [save_json, save_png, save_request, save_film_of_comfyui, save_film_of_video_helper],
)
def test_an_img2img_workflow_becomes_an_experiment(sweeper, save):
    outcome = sweeper("init", "mine", "--from", save())
    assert outcome.code == 0, outcome.err
    experiment = load("mine/experiment.yaml")
    trials = list(Plan(experiment).written())
    assert len(trials) == 4
    assert [trial.params["steps"] for trial in trials] == [2, 2, 4, 4]
    assert {"prompt", "negative", "seed", "cfg", "denoise", "checkpoint", "lora", "strength_model", "image"} <= set(
        experiment.template.slots
    )
    assert "upload" not in experiment.template.slots
    with Image.open("mine/inputs/my-photo.png") as picture:
        assert picture.size == ((64, 64) if save is save_request else (512, 512))
    says_stand_in = "'my photo.png', which is not beside" in outcome.err
    assert says_stand_in == (save is not save_request)


def test_each_commented_axis_is_valid(sweeper):
    sweeper("init", "mine", "--from", save_json())
    path = Path("mine/experiment.yaml")
    names = []
    for line, text in uncomment_each(path):
        Path("mine/one.yaml").write_text(text, "utf-8")
        assert sweeper("validate", "mine/one.yaml").code == 0, line
        trials = list(Plan(load("mine/one.yaml")))
        names.append(line.split()[1].rstrip(":"))
        assert len(trials) == 4 * len({trial.params[names[-1]] for trial in trials})
        assert len(trials) > 4 or names[-1] in {"denoise", "filename_prefix"}
    assert names == [
        "prompt", "negative", "cfg", "sampler", "scheduler", "denoise", "checkpoint", "lora", "strength_model",
        "strength_clip", "filename_prefix",
    ]  # fmt: skip


def test_the_experiment_runs_on_the_embedded_server(sweeper):
    Path("my photo.png").write_bytes(make_picture())
    outcome = sweeper("init", "mine", "--from", save_json())
    assert outcome.err.splitlines()[-1] == "next: sweeper run mine/experiment.yaml --open"
    assert "stand-in" not in outcome.err
    assert Path("mine/inputs/my-photo.png").read_bytes() == Path("my photo.png").read_bytes()
    ran = sweeper("run", "mine/experiment.yaml", "--json")
    assert (ran.code, ran.json["succeeded"]) == (0, 4), ran.err
    assert len(list(Path("mine/results/mine/artifacts").glob("0003_steps-4_seed-*.png"))) == 1


def test_the_workflow_may_be_in_the_folder_already(sweeper):
    Path("mine").mkdir()
    save_json(IMG2IMG, "mine/w.json")
    outcome = sweeper("init", "mine", "--from", "mine/w.json", "--json")
    assert outcome.code == 0, outcome.err
    assert [Path(name).name for name in outcome.json["written"]] == ["experiment.yaml", "w.slots.yaml", "my-photo.png"]
    assert len(Plan(load("mine/experiment.yaml"))) == 4
    Path("mine/experiment.yaml").write_text("mine")
    assert "already contains experiment.yaml" in sweeper("init", "mine", "--from", "mine/w.json").err


def test_a_ui_workflow_and_its_choices_come_from_the_given_classes(sweeper):
    classes = node_classes()
    names = ["mine.safetensors", "other.safetensors", "third.safetensors", "fourth.safetensors"]
    classes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [names]
    save_json(classes, "info.json")
    outcome = sweeper("init", "d", "--from", save_json(UI_WORKFLOW, "ui.json"), "--object-info", "info.json")
    assert outcome.code == 0, outcome.err
    text = Path("d/experiment.yaml").read_text("utf-8")
    assert '# checkpoint: ["mine.safetensors", "other.safetensors", "third.safetensors"]' in text
    assert len(Plan(load("d/experiment.yaml"))) == 4
    assert "does not list" not in outcome.err
    classes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [["mine-v2.safetensors", "z.safetensors"]]
    save_json(classes, "info.json")
    outcome = sweeper("init", "e", "--from", "ui.json", "--object-info", "info.json")
    assert outcome.code == 0, outcome.err
    assert "the server does not list 'mine.safetensors' for `checkpoint`" in outcome.err
    assert "name one that it has, such as 'mine-v2.safetensors'" in outcome.err


def test_custom_nodes_run_by_stand_ins(sweeper):
    outcome = sweeper("init", "d", "--from", save_json(CUSTOM))
    assert outcome.code == 0
    assert "sweeper's own server lacks Efficient Loader, KSampler (Efficient): stand-ins run these" in outcome.err
    experiment = load("d/experiment.yaml")
    assert experiment.targets == ("embedded",)
    assert "steps: [4, 9]" in Path("d/experiment.yaml").read_text()
    assert sweeper("run", "d/experiment.yaml", "--limit", "2", "--json").json["succeeded"] == 2
    assert {"prompt", "negative", "seed", "steps", "cfg", "width", "checkpoint"} <= set(experiment.template.slots)
    assert sweeper("init", "e", "--from", "w.json", "--target", "http://gpu:8188").code == 3


IMAGE_NODES = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bicubic", "width": 64,
                                                "height": 48, "crop": "disabled"}},
    "3": {"class_type": "ImageBlur", "inputs": {"image": ["2", 0], "blur_radius": 1, "sigma": 1.0}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    "5": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
}  # fmt: skip


def test_every_input_that_an_output_needs_is_a_slot_and_a_line(sweeper):
    assert sweeper("init", "d", "--from", save_json(IMAGE_NODES)).code == 0
    slots = load("d/experiment.yaml").template.slots
    wanted = {f"{node_id}.{name}" for node_id, node in IMAGE_NODES.items() if node_id != "5"
              for name, value in node["inputs"].items() if not isinstance(value, list)}  # fmt: skip
    assert {str(address) for slot in slots.values() for address in slot.addresses} == wanted
    text = Path("d/experiment.yaml").read_text("utf-8")
    assert all(re.search(rf"^    (# )?{name}: ", text, re.MULTILINE) for name in slots)
    assert sweeper("run", "d/experiment.yaml", "--json").json["succeeded"] > 1


def test_a_seed_of_few_bits_gets_small_seeds(sweeper):
    few = {
        "Paid": {"input": {"required": {"seed": ["INT", {"min": 0, "max": 65535}]}}, "output": [], "output_node": True}
    }
    save_json(few, "info.json")
    graph = {"1": {"class_type": "Paid", "inputs": {"seed": 5}}}
    assert sweeper("init", "d", "--from", save_json(graph), "--object-info", "info.json").code == 0
    assert [trial.params["seed"] for trial in Plan(load("d/experiment.yaml"))] == [1, 2]


@pytest.mark.parametrize("output", ["SaveImage", "PreviewImage"])
def test_an_experiment_has_never_a_single_trial(sweeper, output):
    inputs = {"images": ["1", 0], **({"filename_prefix": "x"} if output == "SaveImage" else {})}
    graph = {"1": IMAGE_NODES["1"], "2": {"class_type": output, "inputs": inputs}}
    assert sweeper("init", "d", "--from", save_json(graph)).code == 0
    ran = sweeper("run", "d/experiment.yaml", "--json")
    assert (ran.code, ran.json["succeeded"]) == (0, 2), ran.err
    contents = {path.name: path.read_bytes() for path in Path("d/inputs").iterdir()}
    assert contents.keys() == {"photo.png", "photo-mirrored.png"}
    assert len({*contents.values()}) == 2  # or they would be one job


def test_two_passes_keep_plain_names_for_the_first(sweeper):
    second = {**IMG2IMG["7"], "inputs": {**IMG2IMG["7"]["inputs"], "latent_image": ["7", 0], "steps": 9}}
    decode = {**IMG2IMG["8"], "inputs": {**IMG2IMG["8"]["inputs"], "samples": ["10", 0]}}
    graph = {**IMG2IMG, "8": decode, "10": second}
    assert sweeper("init", "d", "--from", save_json(graph)).code == 0
    slots = load("d/experiment.yaml").template.slots
    assert [slots[name].default for name in ("steps", "steps_second")] == [4, 9]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"1": {"class_type": "X", "inputs": {}}}, "no node of this workflow has an input that can be a slot"),
        ({"input": {"images": []}}, "input"),
        ([], "w.json"),
    ],
)
def test_a_file_without_a_usable_workflow_is_refused(sweeper, value, message):
    outcome = sweeper("init", "d", "--from", save_json(value))
    assert outcome.code == 2
    assert message in outcome.err
    assert not Path("d").exists()


def test_a_film_without_workflow_is_refused(sweeper):
    outcome = sweeper("init", "d", "--from", save_film("plain.mp4"))
    assert (outcome.code, Path("d").exists()) == (2, False)
    assert "plain.mp4: this MP4 contains no workflow" in outcome.err


def test_a_stranger_cannot_have_other_files_copied(sweeper):
    Path("id_rsa").write_text("secret")
    Path("secret.png").write_text("secret")
    Path("sub").mkdir()
    for name in ("../secret.png", "id_rsa", "/etc/passwd"):
        graph = {**IMG2IMG, "5": {"class_type": "LoadImage", "inputs": {"image": name}}}
        folder = f"d{len(name)}"
        assert sweeper("init", folder, "--from", save_json(graph, "sub/w.json")).code == 0
        assert not [path for path in Path(folder).rglob("*") if path.is_file() and path.read_bytes() == b"secret"]


@pytest.mark.parametrize(
    "name", ["my photo (1).png", "..", "a:b?.webp", "\x1b[31m.png", "x" * 300 + ".png", "my film.mp4"]
)
def test_the_note_about_a_missing_file_says_where_to_put_it(sweeper, name):
    graph = {**IMG2IMG, "5": {"class_type": "LoadImage", "inputs": {"image": name}}}
    outcome = sweeper("init", "mine", "--from", save_json(graph))
    place = re.search(r" (?:is in|put it at) (inputs/\S+?)(?::| before)", outcome.err)[1]
    assert outcome.code == 0
    assert Path("mine", place).is_file() == (not name.endswith(".mp4"))
    assert place in Path("mine/experiment.yaml").read_text()


def test_names_of_devices_of_windows_become_other_names(sweeper):
    graph = json.loads(json.dumps(IMG2IMG))
    (loader,) = [node for node in graph.values() if node["class_type"] == "LoadImage"]
    loader["inputs"]["image"] = "aux.png"
    Path("nul.json").write_text(json.dumps(graph))
    assert sweeper("init", "COM1", "--from", "nul.json").code == 0
    names = {path.name for path in Path("COM1").rglob("*")}
    assert names >= {"file-nul.json", "file-nul.slots.yaml", "file-aux.png"}
    assert not [name for name in names if find_name_problem(name)]
    assert sweeper("run", "COM1/experiment.yaml", "--limit", "1").code == 0
    assert Path("COM1/results/sweep-COM1").is_dir()


def test_experiment_file_with_a_name_of_a_device_needs_another_name(sweeper):
    assert sweeper("init", "mine").code == 0
    text = Path("mine/experiment.yaml").read_text("utf-8")
    Path("mine/con.yaml").write_text("\n".join(line for line in text.splitlines() if not line.startswith("name:")))
    outcome = sweeper("validate", "mine/con.yaml")
    assert outcome.code == 2
    assert ": name: 'con' is a device on Windows" in outcome.err


def save_workflows(folder, **graphs):
    for name, graph in graphs.items():
        path = Path(folder, name.replace("__", "/") + ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(graph), "utf-8")


def change(node, **inputs):
    return {**IMG2IMG, node: {**IMG2IMG[node], "inputs": {**IMG2IMG[node]["inputs"], **inputs}}}


def save_classes(checkpoints, loras):
    classes = node_classes()
    classes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [checkpoints]
    classes["LoraLoader"]["input"]["required"]["lora_name"] = [loras]
    return save_json(classes, "info.json")


def test_each_workflow_of_a_folder_becomes_an_experiment_as_it_was_saved(sweeper):
    save_workflows("flows", a=IMG2IMG, more__b=change("7", steps=9), list=["no workflow"], **{".hidden__c": IMG2IMG})
    outcome = sweeper("init", "tests", "--each", "flows", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["experiments"] == [str(Path("tests", name, "experiment.yaml"))
                                                      for name in ("a", "more-b")]  # fmt: skip
    assert json.loads(outcome.out)["left_out"] == [
        {"workflow": str(Path("flows/list.json")), "reason": "is not a workflow"}
    ]
    (trial,) = Plan(load("tests/more-b/experiment.yaml")).written()
    assert (trial.params["steps"], trial.params["seed"], trial.params["denoise"]) == (9, 5, 0.6)
    assert sweeper("run", "tests/a/experiment.yaml").code == 0
    assert sweeper("init", "tests", "--each", "flows").code == 0  # nothing has changed


def test_each_workflow_gets_a_folder_of_its_own_whatever_its_name_is(sweeper):
    names = ["!!!", "---", "A", "a", "new\n::error::line", "bell\a\x1b[0m", os.fsdecode(b"\xff"), "folder.json/b"]
    save_workflows("flows", **{name.replace("/", "__"): IMG2IMG for name in names})
    outcome = sweeper("init", "tests", "--each", "flows", "--json")
    assert outcome.code == 0, outcome.err
    made = [Path(name) for name in json.loads(outcome.out)["experiments"]]
    assert {path.parent.parent for path in made} == {Path("tests")}
    assert len({path.parent.name.casefold() for path in made}) == len(names)
    assert sweeper("validate", *map(str, made)).code == 0
    assert {path.name for path in Path().iterdir()} >= {"tests", "flows"}
    assert not Path("tests-2").exists()


def test_a_link_to_itself_is_named_and_not_a_bug(sweeper):
    Path("flows").mkdir()
    Path("flows/loop.json").symlink_to("loop.json")
    for words in (["init", "tests", "--each", "flows"], ["validate", "flows/loop.json"]):
        outcome = sweeper(*words)
        assert (outcome.code, "loop.json: " in outcome.err) == (2, True), outcome.err


def test_a_workflow_whose_models_are_not_there_is_left_out(sweeper):
    save_workflows("flows", a=IMG2IMG, b=change("1", ckpt_name="gone.safetensors"), c=change("7", sampler_name="wrong"))
    info = save_classes(["sd15.safetensors"], ["ink.safetensors"])
    outcome = sweeper("init", "tests", "--each", "flows", "--object-info", info)
    assert outcome.code == 0, outcome.err
    assert f"{Path('flows/b.json')}: left out: node 1 (CheckpointLoaderSimple) ckpt_name: found" in outcome.err
    # A wrong value that is no model file is not hidden: whoever runs it is told.
    assert {path.name for path in Path("tests").iterdir()} == {"a", "c"}


def test_every_broken_workflow_is_named_and_nothing_is_written(sweeper):
    save_workflows("flows", a=IMG2IMG, b={**IMG2IMG, "3": {"class_type": "X", "inputs": {"text": ["77", 0]}}})
    Path("flows/c.json").write_text("{", "utf-8")
    outcome = sweeper("init", "tests", "--each", "flows")
    assert outcome.code == 2
    assert "b.json" in outcome.err
    assert "c.json" in outcome.err
    assert not Path("tests").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--each", "nowhere"], "is not a folder"),
        (["--each", "."], "has no workflow"),
        (["--each", ".", "--from", "x.json"], "--from and --each both say which workflows"),
    ],
)
def test_each_needs_a_folder_with_a_workflow(sweeper, words, message):
    outcome = sweeper("init", "tests", *words)
    assert (outcome.code, message in outcome.err) == (2, True)


def test_a_link_out_of_the_folder_is_no_workflow_of_it(sweeper):
    save_workflows("flows", a=IMG2IMG)
    save_json(name="outside.json")
    Path("flows/b.json").symlink_to(Path("outside.json").resolve())
    outcome = sweeper("init", "tests", "--each", "flows")
    assert outcome.code == 0
    assert "b.json: left out: is a link that leads out of the folder" in outcome.err
