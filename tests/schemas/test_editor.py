"""What an editor shows: the YAML language server of VS Code, Neovim, Emacs and others reads our schemas."""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from sweeper.images.metrics.registry import METRIC_NAMES
from sweeper.schemas import find_schema_file, load_schema, make_editor_line
from tests import ROOT
from tests.schemas.language_server import LanguageServer, find_missing_part
from tests.schemas.subschemas import find_description, iter_keys

MISSING = find_missing_part()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

EXPERIMENT = load_schema("experiment")
DEFINITIONS = EXPERIMENT["$defs"]
EVERY_KEY = """
name: every-key
description: Each key that an experiment can have
template: templates/txt2img.json
target:
  url: http://127.0.0.1:8188
  dialect: comfyui
  api_key_env: KEY
  partner_key_env: KEY
  concurrency: 2
  name: studio
  price: {per_second: 0.01 USD, per_hour: 1 USD, per_job: 1 USD, nodes: {A: 1 USD}, credits_per_usd: 211}
targets:
  cloud: {concurrency: 5}
  dask: {worker: "http://127.0.0.1:8188"}
  local: {launch: ../ComfyUI, python: python3, gpus: all, args: [], env: {A: b}, keep: true, patience: 9,
    max_memory: 9 GB}
params: {negative: blurry}
derive: {prompt: "a {{ animal }}"}
sweep:
  - grid:
      a: {from: 1, to: 2, step: 1}
      b: {from: 1, to: 2, count: 2, scale: log}
      c: {seeds: 3, key: foxes}
      d: {lines: styles.txt}
      e: {csv: prompts.csv, column: text, columns: all}
      j: {jsonl: prompts.jsonl, column: prompt, columns: [skill]}
      k: {models: "loras/mychar-*", none: true}
      f: {files: "*.png"}
      g: {choices: "{a|b}"}
      i: {replace: a, with: [a, b]}
      h: [{label: one, value: 1}, {label: two, set: {width: 512}}]
    zip: [{width: [512], height: [512]}]
    exclude: [{a: 1}]
    include: [{a: 1}]
    where: a > 0
    sample: {n: 1, seed: 2}
search:
  maximize: sharpness
  minimize: entropy
  trials: 10
  budget: 5 USD
  until: no better for 15 trials
  space: {cfg: {from: 1, to: 12}}
  over: {seed: {seeds: 2}}
  where: cfg > 2
  batch: 8
  method: tpe
  seed: 1
  stop_early: true
order: written
metrics:
  - sharpness
  - judge: {question: "Is it?", url: "http://127.0.0.1:1/v1", model: m, key_env: KEY, repeats: 5, price: 0.1 USD,
      name: fox, score: yes-no, mean: arithmetic, pictures: [image], frames: 8, reference: A fox.}
  - judge: {questions: ["Is it?"], url: "http://127.0.0.1:1/v1", model: m}
  - {likeness: "refs/*.png", model: m.onnx, name: face}
checks:
  psnr: ">= 43"
  ssim: ">= 0.98"
  ms_ssim: ">= 0.99"
  mae: "<= 1.2"
  max_abs: "<= 10"
  differing: "<= 0"
  ciede2000: "<= 1"
  phash: "<= 4"
  windowed: "<= 0"
  lpips: "<= 0.1"
  clip: ">= 0.9"
  sound_snr: ">= 60"
  sound_mae: "<= 0"
  sound_max: "<= 0"
  text_ratio: ">= 1"
  overrides: [{where: steps < 4, ssim: ">= 0.9"}]
run:
  concurrency: 2
  retries: 2
  timeout: 600
  patience: 300
  keep_temp: true
  per_target: true
  max_trials: 100
  confirm_above: 5 USD
  budget: 20 USD
  max_failures: 10%
  out: s3://bucket/folder
  notify: https://ntfy.sh/my-topic
"""
EVERY_KEY_OF_SLOTS = """
description: Each key that a slots file can have
unchecked: [VHS_VideoCombine]
models: [{name: a.safetensors, folder: checkpoints, url: "https://example.com/a"}]
slots:
  image: {at: {node: "1", input: image}, description: a picture, schema: {type: string}, kind: file}
  mask: {kind: mask, of: image}
  cfg: {at: [{title: KSampler, input: cfg}, {class: KSampler, input: cfg}], default: 7}
branches:
  4.resize_type: {scale width: [width]}
"""


class _Catalog(BaseHTTPRequestHandler):
    """SchemaStore with our entries, whose addresses lead to the files of this checkout."""

    def do_GET(self):
        entries = json.loads((ROOT / ".github/schemastore.json").read_text("utf-8"))
        for entry in entries:
            entry["url"] = find_schema_file(entry["url"].rpartition("/")[2].partition(".")[0]).as_uri()
        content = json.dumps({"schemas": entries}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Catalog) as catalog:
        threading.Thread(target=catalog.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{catalog.server_port}/catalog.json"
        try:
            settings = {"schemaStore": {"enable": True, "url": url}}
            with LanguageServer(tmp_path_factory.mktemp("editor"), settings) as language_server:
                yield language_server
        finally:
            catalog.shutdown()


@pytest.fixture
def open_document(server):
    """A function that opens a document with the line that `sweeper init` writes, and returns its URI."""

    def open_text(text, name="experiment"):
        return server.open(f"document-{next(_NUMBERS)}.yaml", f"{make_editor_line(name)}\n{text}")

    return open_text


_NUMBERS = itertools.count()


@pytest.fixture
def complete(server, open_document):
    """A function that returns what the editor offers at the bar in a text."""

    def complete_text(text, name="experiment"):
        before, after = text.split("|")
        line = before.count("\n") + 1
        return server.complete(open_document(before + after, name), line, len(before.rpartition("\n")[2]))

    return complete_text


def list_offered(part):
    """The keys of a schema that an editor offers."""
    return {key for key, one in part["properties"].items() if not one.get("doNotSuggest")}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("|\n", EXPERIMENT),
        ("template: a.json\nr|\n", EXPERIMENT),
        ("template: a.json\nrun:\n  |\n", DEFINITIONS["run"]),
        ("template: a.json\nsweep:\n  |\n", DEFINITIONS["block"]),
        ("template: a.json\nsweep:\n  - grid: {a: [1]}\n    |\n", DEFINITIONS["block"]),
        ("template: a.json\nsearch:\n  |\n", DEFINITIONS["search"]),
        ("template: a.json\ntarget:\n  |\n", DEFINITIONS["settings"]),
        ("template: a.json\ntargets:\n  studio:\n    |\n", DEFINITIONS["settings"]),
        ("template: a.json\nmetrics:\n  - judge:\n      |\n", DEFINITIONS["judge"]),
        ("template: a.json\nsweep: {grid: {steps: {from: 1, to: 4, st|ep: 1}}}\n", DEFINITIONS["range"]),
        ("template: a.json\nchecks:\n  |\n", DEFINITIONS["thresholds"]),
    ],
)
def test_keys_are_completed_with_their_descriptions(complete, text, part):
    offered = complete(text)
    written = {word for word in ("template", "retries", "grid", "from", "to") if f"{word}:" in text}
    wanted = list_offered(part) - written
    assert offered.keys() >= wanted
    for key in wanted:
        assert offered[key]["documentation"].startswith(find_description(EXPERIMENT, part["properties"][key])), key
    assert not offered.keys() & (part["properties"].keys() - list_offered(part) - {"overrides"})


def test_forms_of_values_are_completed(complete):
    labels = {snippet["label"] for snippet in DEFINITIONS["values"]["defaultSnippets"]}
    for cursor in (" |", "\n      |"):
        offered = complete(f"template: a.json\nsweep:\n  grid:\n    steps:{cursor}\n")
        assert offered.keys() >= labels
        assert "from: 4" in offered["{from, to, step}"]["textEdit"]["newText"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("target: |\n", {"embedded", "cloud", "http://127.0.0.1:8188"}),
        ("order: |\n", {"auto", "written"}),
        ("metrics: [|]\n", set(METRIC_NAMES)),
        ("metrics:\n  - |\n", {*METRIC_NAMES, "judge"}),
        ("run: {timeout: |}\n", {"600", "3600"}),
        ("search:\n  space: {a: [1]}\n  method: |\n", {"auto", "random", "qmc", "tpe", "gp", "nsga2"}),
        ("checks:\n  overrides:\n    - |\n", {"where", "ssim"}),
    ],
)
def test_values_are_completed(complete, text, wanted):
    assert complete(f"template: a.json\n{text}").keys() >= wanted


def test_keys_of_slots_files_are_completed(complete):
    slot = load_schema("slots")["$defs"]["slot"]
    assert complete("slots:\n  prompt:\n    |\n", "slots").keys() >= slot["properties"].keys()
    assert complete("slots:\n  prompt: {kind: |}\n", "slots").keys() >= {"value", "file", "mask"}


def iter_key_positions(node):
    """Yield the line and the column of each key of a parsed YAML document."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.start_mark.line, key.start_mark.column
            yield from iter_key_positions(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from iter_key_positions(item)


@pytest.mark.parametrize(("name", "text"), [("experiment", EVERY_KEY), ("slots", EVERY_KEY_OF_SLOTS)])
def test_hover_shows_the_description_of_every_key(server, open_document, name, text):
    schema = load_schema(name)
    uri = open_document(text, name)
    assert server.wait_for_diagnostics(uri) == []
    shown = [server.hover(uri, line + 1, column + 1) for line, column in iter_key_positions(yaml.compose(text))]
    for path, part in iter_keys(schema):
        description = find_description(schema, part)
        if "not" not in part:
            assert any(description in one for one in shown), path


# Each text has one unknown key.
MISSPELT = {
    "stps": "template: a.json\nstps: 4\n",
    "patence": "template: a.json\nrun:\n  retries: 1\n  patence: 3\n",
    "gird": "template: a.json\nsweep:\n  gird: {steps: [4]}\n",
    "stp": "template: a.json\nsweep:\n  - grid: {steps: {from: 4, to: 8, stp: 1}}\n",
    "valeu": "template: a.json\nsweep: {grid: {cfg: [{label: a, valeu: 4}]}}\n",
    "mehtod": "template: a.json\nsearch:\n  space: {cfg: [1]}\n  mehtod: tpe\n",
    "juge": "template: a.json\nmetrics: [{juge: {}}]\n",
    "ssmi": "template: a.json\nchecks:\n  ssmi: '>= 1'\n",
    "concurency": "template: a.json\ntarget: [{url: 'http://a', concurency: 2}]\n",
}


def test_an_unknown_key_has_a_red_line(server, open_document):
    uris = {key: open_document(text) for key, text in MISSPELT.items()}
    for key, uri in uris.items():
        diagnostics = server.wait_for_diagnostics(uri)
        (found,) = [one for one in diagnostics if one["message"] == f"Property {key} is not allowed."]
        before = MISSPELT[key].partition(key)[0]
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2])
        assert found["severity"] == 1
        assert found["range"] == {
            "start": {"line": line, "character": column}, "end": {"line": line, "character": column + len(key)},
        }  # fmt: skip


def find_key(text, key):
    """Return the position of a key of the outermost mapping."""
    return next((index, 1) for index, line in enumerate(text.splitlines()) if line.startswith(f"{key}:"))


def test_shipped_files_have_no_red_lines(server):
    # Their line names the schema by a path that begins at their own folder.
    files = [*sorted((ROOT / "experiments").glob("*.yaml")), *sorted((ROOT / "templates").glob("*.slots.yaml"))]
    texts = {server.open(str(file), text): text for file in files if (text := file.read_text("utf-8"))}
    assert len(texts) > 8
    for uri, text in texts.items():
        assert server.wait_for_diagnostics(uri) == [], uri
        assert "A sentence for people" in server.hover(uri, *find_key(text, "description")), uri


def test_schemastore_finds_files_without_a_line(server):
    texts = {
        "fox.sweeper.yaml": "template: a.json\nstps: 4\n",
        "fox.slots.yaml": "slots: {a: {att: 1}}\n",
        "compose.yaml": "services: {}\n",
    }
    uris = [server.open(name, text) for name, text in texts.items()]
    found = [[one["message"] for one in server.wait_for_diagnostics(uri)] for uri in uris]
    assert found == [["Property stps is not allowed."], ["Property att is not allowed."], []]
