"""`sweeper template` with workflows in UI format: converted by node classes, or refused with every reason."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.embedded import EmbeddedServer, node_classes
from sweeper.loading.load import load, load_template
from sweeper.model.template import ModelFile
from sweeper.planning.plan import Plan

HEAD = (
    "this is ComfyUI's UI format; export it from ComfyUI with the menu Workflow > Export (API) "
    "(older versions: enable Dev mode in the settings, then Save (API Format))"
)


def make_node(node_id, kind, inputs=(), outputs=(), values=(), **more):
    return {
        "id": node_id, "type": kind, "mode": 0, "properties": {}, "widgets_values": list(values),
        "inputs": [{"name": name, "type": kind, "link": link} for name, kind, link in inputs],
        "outputs": [{"name": one, "type": one} for one in outputs], **more,
    }  # fmt: skip


UI_WORKFLOW = {
    "version": 0.4,
    "nodes": [
        make_node(4, "CheckpointLoaderSimple", outputs=["MODEL", "CLIP", "VAE"], values=["mine.safetensors"]),
        make_node(6, "CLIPTextEncode", [("clip", "CLIP", 1)], ["CONDITIONING"], ["a fox"], title="Words"),
        make_node(7, "CLIPTextEncode", [("clip", "CLIP", 2)], ["CONDITIONING"], ["blurry"]),
        make_node(5, "EmptyLatentImage", outputs=["LATENT"], values=[64, 64, 1]),
        make_node(
            3, "KSampler",
            [("model", "MODEL", 3), ("positive", "CONDITIONING", 4), ("negative", "CONDITIONING", 5),
             ("latent_image", "LATENT", 6)],
            ["LATENT"], [7, "randomize", 4, 8, "euler", "normal", 1],
        ),
        make_node(8, "VAEDecode", [("samples", "LATENT", 7), ("vae", "VAE", 8)], ["IMAGE"]),
        make_node(9, "SaveImage", [("images", "IMAGE", 9)], values=["x"]),
        make_node(10, "PreviewImage", [("images", "IMAGE", 10)], mode=2),
    ],
    "links": [
        [1, 4, 1, 6, 0, "CLIP"], [2, 4, 1, 7, 0, "CLIP"], [3, 4, 0, 3, 0, "MODEL"], [4, 6, 0, 3, 1, "CONDITIONING"],
        [5, 7, 0, 3, 2, "CONDITIONING"], [6, 5, 0, 3, 3, "LATENT"], [7, 3, 0, 8, 0, "LATENT"], [8, 4, 2, 8, 1, "VAE"],
        [9, 8, 0, 9, 0, "IMAGE"], [10, 8, 0, 10, 0, "IMAGE"],
    ],
}  # fmt: skip


def save(value=UI_WORKFLOW, name="ui.json"):
    Path(name).write_text(json.dumps(value, indent=1))
    return name


def save_png(name="ui.png", **texts):
    info = PngInfo()
    for key, text in (texts or {"workflow": json.dumps(UI_WORKFLOW)}).items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


def save_webp(name="ui.webp"):
    """Save a WebP as ComfyUI's SaveAnimatedWEBP does, with texts in the tags from 0x0110 down."""
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif[0x010F] = "workflow:" + json.dumps(UI_WORKFLOW)
    image.save(name, exif=exif)
    return name


def save_apng(name="moving.png"):
    """Save a PNG as ComfyUI's SaveAnimatedPNG does, with a `comf` chunk after the pixels."""
    info = PngInfo()
    info.add(b"comf", b"workflow\0" + json.dumps(UI_WORKFLOW).encode("latin-1"), after_idat=True)
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


@pytest.mark.parametrize("write", [save, save_png, save_webp, save_apng])
def test_ui_format_becomes_a_template_that_runs(sweeper, write):
    file = write()

    outcome = sweeper("template", "new", file, "-o", "t.json")

    assert (outcome.code, outcome.out) == (0, "")
    warned = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    line = 176 if write is save else 0
    where = f"{file}:{line}" if line else file
    assert warned == [f"warning: {where}: nodes[7]: left out, because muted: node 10 (PreviewImage)"]
    graph = json.loads(Path("t.json").read_text())
    assert graph["3"]["inputs"] == {
        "seed": 7, "steps": 4, "cfg": 8, "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
        "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
    }  # fmt: skip
    Path("e.yaml").write_text("template: t.json\nsweep: {grid: {steps: [1, 2]}}\n")
    assert sweeper("run", "e.yaml", "--json").json["succeeded"] == 2


def test_template_carries_the_models_that_the_file_lists(sweeper):
    url = "https://example.com/mine.safetensors"
    drawn = copy.deepcopy(UI_WORKFLOW)
    listed = [{"name": "mine.safetensors", "url": url, "directory": "checkpoints"}]
    drawn["nodes"][0]["properties"] = {"models": [*listed, {"name": 3}, "odd"]}
    drawn["models"] = [{"name": 'other "one".pth'}, *listed]

    assert sweeper("template", "new", save(drawn), "-o", "t.json").code == 0

    assert load_template("t.json").models == (
        ModelFile('other "one".pth'),
        ModelFile("mine.safetensors", "checkpoints", url),
    )
    Path("e.yaml").write_text("template: t.json\nsweep: {grid: {steps: [1, 2]}}\n")
    with EmbeddedServer("comfyui", strict_models=True) as server:
        outcome = sweeper("doctor", "e.yaml", "-t", server.url)
    assert outcome.code == 3
    assert f"; to get it: download {url} into its folder checkpoints\n" in outcome.err


def test_braces_in_a_saved_workflow_are_text(sweeper):
    drawn = copy.deepcopy(UI_WORKFLOW)
    text = "{{width}}" + "x" * 30_000
    drawn["nodes"][6]["widgets_values"] = [text]

    assert sweeper("template", "new", save(drawn), "-o", "t.json").code == 0

    template = load_template("t.json")
    assert "width" in template.slots  # of EmptyLatentImage, not of the text
    assert template.render({name: slot.default for name, slot in template.slots.items()})["9"]["inputs"] == {
        "filename_prefix": text, "images": ["8", 0],
    }  # fmt: skip


def test_slots_of_ui_format_have_types_limits_and_choices(sweeper):
    slots = {one["name"]: one for one in sweeper("template", "slots", save(), "--json").json}

    assert list(slots)[:6] == ["prompt", "negative", "seed", "steps", "cfg", "sampler"]
    assert (slots["prompt"]["value"], slots["prompt"]["title"]) == ("a fox", "Words")
    assert slots["steps"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 10000}
    assert slots["scheduler"]["schema"]["enum"][0] == "simple"
    assert "control_after_generate" not in slots


def test_slots_file_has_the_choices_and_is_valid(sweeper):
    sweeper("template", "new", save(), "-o", "t.json")

    slots = yaml.safe_load(Path("t.slots.yaml").read_text())["slots"]
    assert "heun" in slots["sampler"]["schema"]["enum"]
    assert load_template("t.json").slots["cfg"].default == 8.0
    Path("e.yaml").write_text("template: t.json\nsweep:\n  grid:\n    sampler: [euler, eulr]\n")
    assert sweeper("plan", "e.yaml").err.startswith("error: e.yaml:4: sweep.grid.sampler[1]: found 'eulr'")


def test_converted_workflow_replaces_the_ui_file_only_by_force(sweeper):
    save()
    before = Path("ui.json").read_bytes()

    outcome = sweeper("template", "new", "ui.json", "-o", "ui.json")

    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "error: ui.json: already exists; add --force to replace"
    assert Path("ui.json").read_bytes() == before


def test_every_conversion_problem_is_listed_with_instructions(sweeper):
    odd = {
        **UI_WORKFLOW,
        "nodes": [
            *UI_WORKFLOW["nodes"],
            make_node(11, "KSamplr", [("pixels", "IMAGE", 9)], values=[1]),
            make_node(12, "workflow>mine"),
        ],
    }
    file = save(odd)

    for command in (["slots", file], ["new", file, "-o", "x.json"], ["show", file]):
        outcome = sweeper("template", *command)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.splitlines() == [
            (
                f"error: ui.json:1: {HEAD}. 2 problems prevent the conversion here, by the embedded "
                "server's node classes (--target or --object-info gives others)"
            ),
            (
                "error: ui.json:191: nodes[8]: node 11 (KSamplr) is of a class that the server does not have (the "
                "nearest is KSampler), and the file does not name its 1 value; give a server that has it: --target URL"
            ),
            (
                "error: ui.json:208: nodes[9]: node 12 (workflow>mine) is a group node; convert it to nodes or to "
                "a subgraph in ComfyUI"
            ),
        ]
    assert not Path("x.json").exists()


def test_experiment_with_ui_format_gets_both_solutions(sweeper):
    save()
    Path("e.yaml").write_text("template: ui.json\n")

    outcome = sweeper("plan", "e.yaml")

    assert outcome.code == 2
    assert outcome.err == f"error: ui.json:1: {HEAD}, or convert it: `sweeper template new FILE -o x.json`\n"


# --- where node classes come from


OWN = {
    "MySampler": {
        "input": {"required": {"steps": ["INT", {"min": 2, "max": 9}], "mood": [["calm", "wild"]]}},
        "output": [],
        "output_node": True,
    }
}
CUSTOM_WORKFLOW = {"nodes": [make_node(1, "MySampler", values=[3, "calm"])], "links": [], "version": 0.4}


def test_node_classes_come_from_a_file(sweeper):
    save(CUSTOM_WORKFLOW)
    save(OWN, "info.json")

    slots = sweeper("template", "slots", "ui.json", "--object-info", "info.json", "--json").json

    assert [(one["name"], one["schema"]) for one in slots] == [
        ("steps", {"type": "integer", "minimum": 2, "maximum": 9}),
        ("mood", {"enum": ["calm", "wild"]}),
    ]
    refused = sweeper("template", "slots", "ui.json")
    assert "node 1 (MySampler) is of a class that the server does not have" in refused.err


def widget(name, kind, link=None, **more):
    return {"name": name, "type": kind, "link": link, "widget": {"name": name}, **more}


APP_ID = "e13112f7-3d09-4ae1-9e84-633a0627d945"


@pytest.mark.parametrize(
    "command", [("template", "new", "ui.json", "-o", "ui2.json"), ("init", "ui2", "--from", "ui.json")]
)
def test_inputs_of_the_app_mode_become_exactly_the_slots(sweeper, command):
    drawn = copy.deepcopy(UI_WORKFLOW)
    drawn["definitions"] = {"subgraphs": [{
        "id": "sub", "name": "Words", "inputs": [{"name": "words", "type": "STRING", "linkIds": [1, 2]}], "outputs": [],
        "inputNode": {"id": -10}, "outputNode": {"id": -20},
        "nodes": [{**make_node(node_id, "PreviewAny"), "inputs": [{"name": "source", "type": "*", "link": link}]}
                  for node_id, link in ((21, 11), (22, 12))]
        + [{**make_node(node_id, "StringConcatenate", outputs=["STRING"], values=["a", "b", ""]),
            "inputs": [widget("string_a", "STRING", node_id - 30)]} for node_id in (31, 32)],
        "links": [{"id": link, "origin_id": origin, "origin_slot": 0, "target_id": target, "target_slot": 0}
                  for link, origin, target in ((1, -10, 31), (2, -10, 32), (11, 31, 21), (12, 32, 22))],
    }]}  # fmt: skip
    drawn["nodes"].append({**make_node(20, "sub", values=["calm"]), "inputs": [widget("words", "STRING")]})
    drawn["nodes"][4]["inputs"].append(widget("cfg", "FLOAT", label="How strictly"))
    chosen = [["20", "words"], [3, "cfg"], [f"{APP_ID}:5:width", "width"], ["99", "gone"]]
    chosen.append([f"{APP_ID}:5:height", "How high", {}])
    drawn["extra"] = {"linearData": {"inputs": chosen, "outputs": ["9"]}}
    save(drawn)

    outcome = sweeper(*command)

    assert (outcome.code, "the author chose 'gone' of node 99 for the App mode, but it" in outcome.err) == (0, True)
    assert (
        "ui.json: the inputs that its author chose for the App mode become the slots; `sweeper template slots"
        in outcome.err
    )
    template = load_template("ui2.json" if command[0] == "template" else "ui2/ui.json")
    assert {name: [str(address) for address in slot.addresses] for name, slot in template.slots.items()} == {
        "words": ["20:31.string_a", "20:32.string_a"], "how_strictly": ["3.cfg"], "width": ["5.width"],
        "how_high": ["5.height"],
    }  # fmt: skip
    assert template.slots["words"].default == "calm"


def test_a_class_read_by_the_names_of_the_file_stays_marked(sweeper):
    maker = {**make_node(1, "Maker", outputs=["IMAGE"]), "widgets_values": {"mood": "calm", "size": 5}}
    save({"nodes": [maker, make_node(9, "SaveImage", [("images", "IMAGE", 1)], values=["x"])],
          "links": [[1, 1, 0, 9, 0, "IMAGE"]], "version": 0.4})  # fmt: skip
    made = sweeper("template", "new", "ui.json", "-o", "t.json")
    assert "ui.json: read by the file's own names; not checked: Maker; a server that has them checks" in made.err
    assert load_template("t.json").unchecked == ("Maker",)
    init = sweeper("init", "folder", "--from", "ui.json")
    assert "read by the file's own names; not checked: Maker" in init.err
    Path("e.yaml").write_text("template: t.json\nsweep: {grid: {size: [5, 6]}}\n")
    for command in ("validate", "plan"):
        assert "read by the file's own names; not checked: Maker; a target that has" in sweeper(command, "e.yaml").err
    with EmbeddedServer(
        "comfyui", object_info={"Maker": {"input": {"required": {"mood": [["wild"]]}}, "output": []}}
    ) as server:
        checked = sweeper("plan", "e.yaml", "--target", server.url).err
    assert "not checked" not in checked
    assert "node 1 (Maker) mood: found 'calm'" in checked


def test_value_outside_its_class_still_gives_a_valid_slots_file(sweeper):
    save({"1": {"class_type": "MySampler", "inputs": {"steps": 30, "mood": "angry"}}}, "w.json")
    save(OWN, "info.json")

    assert sweeper("template", "new", "w.json", "-o", "t.json", "--object-info", "info.json").code == 0

    assert load_template("t.json").slots["steps"].default == 30


def test_choices_keep_every_character_and_long_lists_are_omitted(sweeper):
    many = {"MySampler": {"input": {"required": {
        "mood": [["\N{FOX FACE}", "calm"]], "size": [[str(n) for n in range(101)]], "hue": [["r\xe9d\u2028", "b"]],
    }}, "output": [], "output_node": True}}  # fmt: skip
    save({"1": {"class_type": "MySampler", "inputs": {"mood": "\N{FOX FACE}", "size": "5", "hue": "b"}}}, "w.json")
    save(many, "info.json")

    assert sweeper("template", "new", "w.json", "-o", "t.json", "--object-info", "info.json").code == 0

    schemas = {name: slot.schema.rules for name, slot in load_template("t.json").slots.items()}
    assert schemas == {"mood": {"enum": ["\N{FOX FACE}", "calm"]}, "size": {}, "hue": {"enum": ["r\xe9d\u2028", "b"]}}


def test_node_classes_of_a_server_are_cached(sweeper, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save()
    with EmbeddedServer(dialect="comfyui") as server:
        assert sweeper("template", "slots", "ui.json", "--target", server.url).code == 0
        request_count = [request.path for request in server.seen.requests].count("/object_info")
        url = server.url
    assert request_count == 1
    assert sweeper("template", "slots", "ui.json", "--target", url).code == 0  # the server is no longer running


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "cloud"], 2, "error: target cloud: its key is expected in the environment variable "),
        (["--target", "http://127.0.0.1:9"], 3, "error: "),
        (["--target", "embeded"], 2, "error: target: unknown name 'embeded'; did you mean 'embedded'?"),
        (["--object-info", "nowhere.json"], 2, "error: nowhere.json: cannot be read: No such file or directory\n"),
        (["--object-info", "ui.json"], 2, "error: ui.json: this is not an object_info: a mapping of node classes"),
        (["--object-info", "torn.json"], 2, "error: torn.json: is not the JSON of an object_info: "),
        (["--object-info", "empty.json"], 2, "error: empty.json: describes no node class\n"),
        (
            ["--object-info", "info.json", "--target", "cloud"],
            2,
            "error: --target and --object-info both say where node classes come from; give one\n",
        ),
    ],
)
def test_unavailable_node_classes_are_an_error(sweeper, arguments, code, message):
    save()
    save({}, "empty.json")
    save(node_classes(), "info.json")
    Path("torn.json").write_text("{")

    outcome = sweeper("template", "new", "ui.json", "-o", "x.json", *arguments)

    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(message)
    assert not Path("x.json").exists()


# --- workflows inside other files


def test_api_format_in_a_picture_is_preferred(sweeper):
    graph = {"1": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}}}
    file = save_png(prompt=json.dumps(graph), workflow=json.dumps(UI_WORKFLOW))

    slots = sweeper("template", "slots", file, "--json").json

    assert [one["address"] for one in slots] == ["1.width", "1.height", "1.batch_size"]


def test_saved_request_is_unwrapped(sweeper, write):
    write("")
    graph = json.loads(Path("t.json").read_text())
    save({"client_id": "x", "prompt": graph}, "request.json")

    outcome = sweeper("template", "new", "request.json", "-o", "x.json")

    assert outcome.code == 0
    assert outcome.err.splitlines()[0] == (
        "warning: request.json:3: prompt: the file holds the workflow inside a `prompt` key; sweeper uses that workflow"
    )
    assert json.loads(Path("x.json").read_text()) == graph
    assert len(Plan(load(_write_experiment("x.json")))) == 1


def test_mistake_in_a_saved_request_has_its_line(sweeper):
    save({"prompt": {"1": {"class_type": "X", "inputs": {"a": ["2", 0]}}}}, "request.json")

    outcome = sweeper("template", "slots", "request.json")

    assert outcome.err.splitlines()[-1].startswith("error: request.json:6: 1.inputs.a: links to node 2")


def _write_experiment(template):
    Path("e.yaml").write_text(f"template: {template}\n")
    return "e.yaml"


# --- show


def test_show_describes_a_template(sweeper, write):
    write("")

    description = sweeper("template", "show", "t.json", "--json").json

    assert {key: description[key] for key in ("file", "description", "nodes", "outputs")} == {
        "file": "t.json", "description": "", "nodes": 7, "outputs": ["9"],
    }  # fmt: skip
    assert [slot["name"] for slot in description["slots"]] == ["prompt", "seed", "steps", "cfg"]
    assert description["slots"][1] == {
        "name": "seed", "addresses": ["3.seed"], "kind": "value", "required": False, "default": 5,
        "schema": {"type": "integer", "minimum": 0}, "description": "", "reaches": ["3", "8", "9"], "outputs": ["9"],
    }  # fmt: skip
    assert sweeper("template", "show", "t.json").out.splitlines() == [
        "t.json: 7 nodes, 4 slots",
        "outputs: 9 (SaveImage)",
        "",
        "slot    addresses  default  takes             reruns",
        "prompt  6.text     a fox    text, not empty   4 nodes",
        "seed    3.seed     5        integer >= 0      3 nodes",
        "steps   3.steps    4        integer 1 .. 100  3 nodes",
        "cfg     3.cfg      8        number            3 nodes",
    ]


def test_show_uses_class_schemas_and_marks_slots_without_output(sweeper, write):
    write("")
    graph = json.loads(Path("t.json").read_text())
    graph["20"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}}
    save(graph, "t.json")
    Path("t.slots.yaml").write_text(
        'description: two of them\nslots:\n  idle: {at: "20.batch_size", description: does nothing}\n'
        '  image: {at: "9.filename_prefix", kind: file}\n'
    )

    lines = sweeper("template", "show", "t.json").out.splitlines()
    assert lines[:3] == ["t.json: 8 nodes, 2 slots", "two of them", "outputs: 9 (SaveImage)"]
    assert lines[5].split("  ")[-2:] == ["1 node, no output", "does nothing"]
    assert "(must be given)  a local file" in lines[6]
    rows = {one["name"]: one for one in sweeper("template", "show", "t.json", "--json").json["slots"]}
    assert rows["idle"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 4096}
    assert (rows["idle"]["reaches"], rows["idle"]["outputs"]) == (["20"], [])
    assert (rows["image"]["kind"], rows["image"]["required"]) == ("file", True)


def test_show_without_slots_says_how_to_make_some(sweeper):
    assert sweeper("template", "show", save()).out.splitlines() == [
        "ui.json: 7 nodes, 0 slots",
        "outputs: 9 (SaveImage, 'Save Image')",
        "no slots yet: `sweeper template new` writes a slots file with every possible slot",
    ]
