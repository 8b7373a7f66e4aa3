"""`sweeper template` on what the editor saves: converted by a server's node classes, or refused with every reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.embedded import EmbeddedServer, node_classes
from sweeper.loading.load import load, load_template
from sweeper.planning.plan import plan

HEAD = (
    "this is ComfyUI's UI format; export it from ComfyUI with the menu Workflow > Export (API) "
    "(older versions: enable Dev mode in the settings, then Save (API Format))"
)


def node(node_id, kind, inputs=(), outputs=(), values=(), **more):
    return {
        "id": node_id, "type": kind, "mode": 0, "properties": {}, "widgets_values": list(values),
        "inputs": [{"name": name, "type": kind, "link": link} for name, kind, link in inputs],
        "outputs": [{"name": one, "type": one} for one in outputs], **more,
    }  # fmt: skip


CANVAS = {
    "version": 0.4,
    "nodes": [
        node(4, "CheckpointLoaderSimple", outputs=["MODEL", "CLIP", "VAE"], values=["mine.safetensors"]),
        node(6, "CLIPTextEncode", [("clip", "CLIP", 1)], ["CONDITIONING"], ["a fox"], title="Words"),
        node(7, "CLIPTextEncode", [("clip", "CLIP", 2)], ["CONDITIONING"], ["blurry"]),
        node(5, "EmptyLatentImage", outputs=["LATENT"], values=[64, 64, 1]),
        node(
            3, "KSampler",
            [("model", "MODEL", 3), ("positive", "CONDITIONING", 4), ("negative", "CONDITIONING", 5),
             ("latent_image", "LATENT", 6)],
            ["LATENT"], [7, "randomize", 4, 8, "euler", "normal", 1],
        ),
        node(8, "VAEDecode", [("samples", "LATENT", 7), ("vae", "VAE", 8)], ["IMAGE"]),
        node(9, "SaveImage", [("images", "IMAGE", 9)], values=["x"]),
        node(10, "PreviewImage", [("images", "IMAGE", 10)], mode=2),
    ],
    "links": [
        [1, 4, 1, 6, 0, "CLIP"], [2, 4, 1, 7, 0, "CLIP"], [3, 4, 0, 3, 0, "MODEL"], [4, 6, 0, 3, 1, "CONDITIONING"],
        [5, 7, 0, 3, 2, "CONDITIONING"], [6, 5, 0, 3, 3, "LATENT"], [7, 3, 0, 8, 0, "LATENT"], [8, 4, 2, 8, 1, "VAE"],
        [9, 8, 0, 9, 0, "IMAGE"], [10, 8, 0, 10, 0, "IMAGE"],
    ],
}  # fmt: skip


def save(value=CANVAS, name="ui.json"):
    Path(name).write_text(json.dumps(value, indent=1))
    return name


def save_png(name="ui.png", **texts):
    info = PngInfo()
    for key, text in (texts or {"workflow": json.dumps(CANVAS)}).items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


def save_webp(name="ui.webp"):
    """As ComfyUI's SaveAnimatedWEBP does: the tags from 0x0110 down."""
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif[0x010F] = "workflow:" + json.dumps(CANVAS)
    image.save(name, exif=exif)
    return name


def save_apng(name="moving.png"):
    """As ComfyUI's SaveAnimatedPNG does: a chunk of its own behind the pixels."""
    info = PngInfo()
    info.add(b"comf", b"workflow\0" + json.dumps(CANVAS).encode("latin-1"), after_idat=True)
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


@pytest.mark.parametrize("write", [save, save_png, save_webp, save_apng])
def test_what_the_editor_saves_becomes_a_template_that_runs(sweeper, write):
    file = write()

    outcome = sweeper("template", "new", file, "-o", "t.json")

    assert (outcome.code, outcome.out) == (0, "")
    warned = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    line = 176 if write is save else 0
    where = f"{file}:{line}" if line else file
    assert warned == [f"warning: {where}: nodes[7]: node 10 (PreviewImage) is muted and left out"]
    graph = json.loads(Path("t.json").read_text())
    assert graph["3"]["inputs"] == {
        "seed": 7, "steps": 4, "cfg": 8, "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
        "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
    }  # fmt: skip
    Path("e.yaml").write_text("template: t.json\nsweep: {grid: {steps: [1, 2]}}\n")
    assert sweeper("run", "e.yaml", "--json").json["succeeded"] == 2


def test_its_slots_are_listed_with_types_limits_and_choices(sweeper):
    found = {one["name"]: one for one in sweeper("template", "slots", save(), "--json").json}

    assert list(found)[:6] == ["prompt", "negative", "seed", "steps", "cfg", "sampler"]
    assert (found["prompt"]["value"], found["prompt"]["title"]) == ("a fox", "Words")
    assert found["steps"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 10000}
    assert found["scheduler"]["schema"]["enum"][0] == "simple"
    assert "control_after_generate" not in found


def test_the_slots_file_holds_the_choices_and_binds(sweeper):
    sweeper("template", "new", save(), "-o", "t.json")

    slots = yaml.safe_load(Path("t.slots.yaml").read_text())["slots"]
    assert "heun" in slots["sampler"]["schema"]["enum"]
    assert load_template("t.json").slots["cfg"].default == 8.0
    Path("e.yaml").write_text("template: t.json\nsweep:\n  grid:\n    sampler: [euler, eulr]\n")
    assert sweeper("plan", "e.yaml").err.startswith("error: e.yaml:4: sweep.grid.sampler[1]: found 'eulr'")


def test_a_converted_workflow_never_replaces_the_editors_file_unasked(sweeper):
    save()
    before = Path("ui.json").read_bytes()

    outcome = sweeper("template", "new", "ui.json", "-o", "ui.json")

    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "error: ui.json: already exists; add --force to replace"
    assert Path("ui.json").read_bytes() == before


def test_everything_that_cannot_be_converted_is_named_with_the_way_to_export(sweeper):
    odd = {**CANVAS, "nodes": [*CANVAS["nodes"], node(11, "KSamplr"), node(12, "workflow>mine")]}
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
                "nearest is KSampler)"
            ),
            (
                "error: ui.json:200: nodes[9]: node 12 (workflow>mine) is a group node; convert it to nodes or to "
                "a subgraph in ComfyUI"
            ),
        ]
    assert not Path("x.json").exists()


def test_an_experiment_over_it_is_told_both_ways_out(sweeper):
    save()
    Path("e.yaml").write_text("template: ui.json\n")

    outcome = sweeper("plan", "e.yaml")

    assert outcome.code == 2
    assert outcome.err == f"error: ui.json:1: {HEAD}, or convert it: `sweeper template new FILE -o x.json`\n"


# --- whose classes


OWN = {
    "MySampler": {
        "input": {"required": {"steps": ["INT", {"min": 2, "max": 9}], "mood": [["calm", "wild"]]}},
        "output": [],
        "output_node": True,
    }
}
OWN_CANVAS = {"nodes": [node(1, "MySampler", values=[3, "calm"])], "links": [], "version": 0.4}


def test_classes_come_from_a_file(sweeper):
    save(OWN_CANVAS)
    save(OWN, "info.json")

    found = sweeper("template", "slots", "ui.json", "--object-info", "info.json", "--json").json

    assert [(one["name"], one["schema"]) for one in found] == [
        ("steps", {"type": "integer", "minimum": 2, "maximum": 9}),
        ("mood", {"enum": ["calm", "wild"]}),
    ]
    refused = sweeper("template", "slots", "ui.json")
    assert "node 1 (MySampler) is of a class that the server does not have" in refused.err


def test_a_value_that_the_class_would_refuse_does_not_make_a_slots_file_that_does_not_bind(sweeper):
    save({"1": {"class_type": "MySampler", "inputs": {"steps": 30, "mood": "angry"}}}, "w.json")
    save(OWN, "info.json")

    assert sweeper("template", "new", "w.json", "-o", "t.json", "--object-info", "info.json").code == 0

    assert load_template("t.json").slots["steps"].default == 30


def test_choices_keep_every_character_and_too_many_are_left_to_the_server(sweeper):
    many = {"MySampler": {"input": {"required": {
        "mood": [["\N{FOX FACE}", "calm"]], "size": [[str(n) for n in range(101)]], "hue": [["r\xe9d\u2028", "b"]],
    }}, "output": [], "output_node": True}}  # fmt: skip
    save({"1": {"class_type": "MySampler", "inputs": {"mood": "\N{FOX FACE}", "size": "5", "hue": "b"}}}, "w.json")
    save(many, "info.json")

    assert sweeper("template", "new", "w.json", "-o", "t.json", "--object-info", "info.json").code == 0

    schemas = {name: slot.schema.rules for name, slot in load_template("t.json").slots.items()}
    assert schemas == {"mood": {"enum": ["\N{FOX FACE}", "calm"]}, "size": {}, "hue": {"enum": ["r\xe9d\u2028", "b"]}}


def test_classes_come_from_a_server_and_are_kept(sweeper, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save()
    with EmbeddedServer(dialect="comfyui") as server:
        assert sweeper("template", "slots", "ui.json", "--target", server.url).code == 0
        asked = [request.path for request in server.seen.requests].count("/object_info")
        url = server.url
    assert asked == 1
    assert sweeper("template", "slots", "ui.json", "--target", url).code == 0  # nobody answers there any more


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "cloud"], 2, "error: target cloud: its key is expected in the environment variable "),
        (["--target", "http://127.0.0.1:9"], 3, "error: "),
        (["--target", "embeded"], 2, "error: target: unknown name 'embeded'; did you mean 'embedded'?"),
        (["--object-info", "nowhere.json"], 2, "error: nowhere.json: cannot be read: No such file or directory\n"),
        (["--object-info", "ui.json"], 2, "error: ui.json: this is not an object_info: a mapping of node classes"),
        (["--object-info", "torn.json"], 2, "error: torn.json: is not JSON: "),
        (["--object-info", "empty.json"], 2, "error: empty.json: describes no node class\n"),
        (
            ["--object-info", "info.json", "--target", "cloud"],
            2,
            "error: --target and --object-info both say where node classes come from; give one\n",
        ),
    ],
)
def test_classes_that_cannot_be_had_are_an_error_not_a_guess(sweeper, arguments, code, message):
    save()
    save({}, "empty.json")
    save(node_classes(), "info.json")
    Path("torn.json").write_text("{")

    outcome = sweeper("template", "new", "ui.json", "-o", "x.json", *arguments)

    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(message)
    assert not Path("x.json").exists()


# --- other wrappings


def test_the_api_format_in_a_picture_goes_before_the_editors(sweeper):
    graph = {"1": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}}}
    file = save_png(prompt=json.dumps(graph), workflow=json.dumps(CANVAS))

    found = sweeper("template", "slots", file, "--json").json

    assert [one["address"] for one in found] == ["1.width", "1.height", "1.batch_size"]


def test_a_request_to_a_server_is_unwrapped(sweeper, write):
    write("")
    graph = json.loads(Path("t.json").read_text())
    save({"client_id": "x", "prompt": graph}, "request.json")

    outcome = sweeper("template", "new", "request.json", "-o", "x.json")

    assert outcome.code == 0
    assert outcome.err.splitlines()[0] == (
        "warning: request.json:3: prompt: the file holds the workflow inside a `prompt` key; sweeper uses that workflow"
    )
    assert json.loads(Path("x.json").read_text()) == graph
    assert len(plan(load(_experiment("x.json")))) == 1


def test_a_mistake_inside_a_request_is_told_with_its_line(sweeper):
    save({"prompt": {"1": {"class_type": "X", "inputs": {"a": ["2", 0]}}}}, "request.json")

    outcome = sweeper("template", "slots", "request.json")

    assert outcome.err.splitlines()[-1].startswith("error: request.json:6: 1.inputs.a: links to node 2")


def _experiment(template):
    Path("e.yaml").write_text(f"template: {template}\n")
    return "e.yaml"


# --- show


def test_show_tells_what_a_template_is(sweeper, write):
    write("")

    shown = sweeper("template", "show", "t.json", "--json").json

    assert {key: shown[key] for key in ("file", "description", "nodes", "outputs")} == {
        "file": "t.json", "description": "", "nodes": 7, "outputs": ["9"],
    }  # fmt: skip
    assert [slot["name"] for slot in shown["slots"]] == ["prompt", "seed", "steps", "cfg"]
    assert shown["slots"][1] == {
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


def test_show_gives_a_slot_without_schema_its_class_s_and_tells_what_reaches_no_output(sweeper, write):
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


def test_show_of_a_workflow_without_slots_says_how_to_get_some(sweeper):
    assert sweeper("template", "show", save()).out.splitlines() == [
        "ui.json: 7 nodes, 0 slots",
        "outputs: 9 (SaveImage, 'Save Image')",
        "no slots yet: `sweeper template new` writes a slots file with every possible slot",
    ]
