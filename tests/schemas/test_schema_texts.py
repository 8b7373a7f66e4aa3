"""The schemas are a manual: each key has a description, its true default and examples that work."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

import sweeper
from sweeper.images.metrics.registry import METRIC_NAMES
from sweeper.model.experiment import RunSettings
from sweeper.model.launch_spec import LAUNCH_CHECKS
from sweeper.model.money import COMFY_CREDITS_PER_USD
from sweeper.schemas import find_schema_problems, load_schema
from tests import ROOT
from tests.schemas.subschemas import find_description, iter_keys, iter_subschemas

NAMES = ("experiment", "slots", "workflow", "lock", "scenario")
EXPERIMENT = load_schema("experiment")
DEFINITIONS = EXPERIMENT["$defs"]
FORMS = {
    "range": ("from", "to"),
    **{name: (name,) for name in ("seeds", "lines", "csv", "jsonl", "files", "models", "choices", "replace")},
}
TEMPLATE = {"template": "templates/txt2img.json"}
LIKENESS = {"likeness": "inputs/*.png", "model": "inputs/a.png"}
JUDGE = {"question": "Is it?", "url": "http://127.0.0.1:1/v1", "model": "m"}
SEARCH = {"maximize": "sharpness", "trials": 60, "space": {"cfg": {"from": 1, "to": 12}}}


@pytest.mark.parametrize("name", NAMES)
def test_each_key_has_a_description_that_states_its_default(name):
    schema = load_schema(name)
    for path, part in iter_keys(schema):
        text = find_description(schema, part)
        assert text.endswith("."), path
        if "default" in part:
            default = part["default"]
            assert f"Default: {default if isinstance(default, str) else json.dumps(default)}." in text, path


@pytest.mark.parametrize("name", NAMES)
def test_each_form_with_keys_has_a_title(name):
    for path, part in iter_subschemas(load_schema(name)):
        is_form = "properties" in part and part.get("additionalProperties") is False
        if is_form and path[-1:] != ("then",):
            assert part.get("title"), path


@pytest.mark.parametrize("name", NAMES)
def test_examples_and_snippets_are_valid(name):
    schema = load_schema(name)
    Draft7Validator.check_schema(schema)  # the program trusts that its own schemas are schemas
    Draft202012Validator.check_schema(schema)
    validator = Draft7Validator(schema)
    count = 0
    for path, part in iter_subschemas(schema):
        examples = [*part.get("examples", ()), *(snippet["body"] for snippet in part.get("defaultSnippets", ()))]
        for example in examples + ([part["default"]] if "default" in part else []):
            errors = [error.message for error in validator.evolve(schema=part).iter_errors(example)]
            assert errors == [], path
            count += 1
    assert count > 3


URL = "http://127.0.0.1:8188"
# Where a key is used: the experiment for an example of the key, by the path of its schema.
EXPERIMENTS = {
    (): lambda key, example: {key: example},
    ("$defs", "run"): lambda key, example: {"run": {key: example}},
    ("$defs", "thresholds"): lambda key, example: {"checks": {key: example}},
    ("$defs", "judge"): lambda key, example: {"metrics": ["sharpness", {"judge": make_judge(key, example)}]},
    ("$defs", "likeness"): lambda key, example: {"metrics": [{key: example, **LIKENESS}]},
    ("$defs", "search"): lambda key, example: {"search": {**SEARCH, key: example}},
    ("$defs", "block"): lambda key, example: {"sweep": {"grid": {"steps": [4, 8]}, key: example}},
    ("$defs", "block", "properties", "sample"): lambda key, example: {
        "sweep": {"grid": {"steps": [4, 8]}, "sample": {"n": 1, key: example}}
    },
    ("$defs", "settings"): lambda key, example: {"target": {**choose_server(key), key: example}},
    ("$defs", "settings", "properties", "price"): lambda key, example: {
        "target": {"url": URL, "price": {"per_job": "0.01 USD", key: example}}
    },
}


def choose_server(key):
    if key in ("worker", "launch"):
        return {}
    return {"launch": "ComfyUI"} if key in LAUNCH_CHECKS else {"url": URL}


def make_judge(key, example):
    """Return a judge with an example of a key. The template has no slot with a file that could go along."""
    judge = {**JUDGE, **({key: example} if key != "pictures" else {})}
    return {name: value for name, value in judge.items() if name != "question" or key != "questions"}


def make_experiment(path, example):
    """Return an experiment with an example of the part at `path`; None for a part of a form of values."""
    if path == ("$defs", "values"):
        base = {"params": {"anything": "a fox"}} if "replace" in example else {}
        return {**base, "derive": {"prompt": "{{ anything }}"}, "sweep": {"grid": {"anything": example}}}
    is_key = path[-2:-1] == ("properties",) and path[:-2] in EXPERIMENTS
    return {"metrics": ["sharpness"], **EXPERIMENTS[path[:-2]](path[-1], example)} if is_key else None


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "inputs").mkdir()
    for name in ("txt2img.json", "txt2img.slots.yaml"):
        shutil.copy(ROOT / "templates" / name, tmp_path / "templates" / name)
    (tmp_path / "styles.txt").write_text("oil painting\nphoto\n")
    (tmp_path / "prompts.csv").write_text("text\na red fox\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a red fox"}\n')
    (tmp_path / "inputs/a.png").write_bytes(b"not looked into")
    return tmp_path


def load(folder, experiment):
    file = folder / "e.yaml"
    file.write_text(json.dumps({**TEMPLATE, **experiment}))
    return sweeper.load(file)


def test_examples_can_be_loaded(folder):
    count = 0
    for path, part in iter_subschemas(EXPERIMENT):
        for example in [*part.get("examples", ()), *(one["body"] for one in part.get("defaultSnippets", ()))]:
            experiment = make_experiment(path, example)
            if experiment is not None:
                load(folder, experiment)
                count += 1
    assert count > 70


def fill_defaults(part, value):
    return {key: one["default"] for key, one in part["properties"].items() if "default" in one} | value


def test_defaults_are_those_of_the_program(folder):
    plain = {
        "metrics": ["sharpness", {"judge": JUDGE}],
        "sweep": {"grid": {"cfg": {"from": 1, "to": 9, "count": 3}}, "sample": {"n": 2}},
        "search": SEARCH,
        "run": {},
    }
    full = fill_defaults(EXPERIMENT, plain) | {
        "metrics": ["sharpness", {"judge": fill_defaults(DEFINITIONS["judge"], JUDGE)}],
        "sweep": {
            "grid": {"cfg": fill_defaults(DEFINITIONS["range"], plain["sweep"]["grid"]["cfg"])},
            "sample": fill_defaults(DEFINITIONS["block"]["properties"]["sample"], {"n": 2}),
        },
        "search": fill_defaults(DEFINITIONS["search"], SEARCH),
        "run": fill_defaults(DEFINITIONS["run"], {}),
    }
    assert full != plain
    loaded = [replace(load(folder, one), template=None) for one in (plain, full)]  # templates have no equality
    assert loaded[0] == loaded[1]
    settings = {field.name for field in fields(RunSettings)}
    assert full["run"].keys() == {name for name in settings if getattr(RunSettings(), name) is not None}
    assert DEFINITIONS["run"]["properties"].keys() == settings
    price = DEFINITIONS["settings"]["properties"]["price"]["properties"]
    assert price["credits_per_usd"]["default"] == COMFY_CREDITS_PER_USD
    assert load_schema("slots")["$defs"]["slot"]["properties"]["kind"]["default"] == "value"


def test_every_metric_and_form_of_values_is_offered():
    metrics = EXPERIMENT["properties"]["metrics"]["items"]["defaultSnippets"]
    assert sorted(snippet["body"] for snippet in metrics) == sorted(METRIC_NAMES)
    bodies = [snippet["body"] for snippet in DEFINITIONS["values"]["defaultSnippets"]]
    for form, keys in FORMS.items():
        offered = {key for body in bodies if all(key in body for key in keys) for key in body}
        assert offered >= DEFINITIONS[form]["properties"].keys() - {"key", "columns"}, form


def list_files():
    """The experiments of the tests of messages, nearly all of which have a mistake, and those that sweeper ships."""
    for file in sorted((ROOT / "tests/loading/messages").glob("*.txt")):
        for section in file.read_text("utf-8").split("\n--- e.yaml\n")[1:]:
            try:
                yield yaml.safe_load(section.split("\n--- ")[0])
            except (yaml.YAMLError, ValueError):
                continue
    yield from (yaml.safe_load(file.read_text("utf-8")) for file in sorted((ROOT / "experiments").glob("*.yaml")))


def test_both_drafts_accept_the_same_experiments():
    # Other editors read the schema by draft 7, which ignores what stands beside a $ref; sweeper reads it by 2020-12.
    verdicts = []
    for value in list_files():
        verdict = Draft7Validator(EXPERIMENT).is_valid(value)
        assert Draft202012Validator(EXPERIMENT).is_valid(value) == verdict, value
        assert (find_schema_problems("experiment", value) == []) == verdict or not isinstance(value, dict), value
        verdicts.append(verdict)
    assert verdicts.count(True) > 6
    assert verdicts.count(False) > 20


def test_schemas_are_ready_for_schemastore():
    entries = json.loads((ROOT / ".github/schemastore.json").read_text("utf-8"))
    assert [set(entry) for entry in entries] == [{"name", "description", "fileMatch", "url"}] * 2
    for name, entry, file in zip(("experiment", "slots"), entries, ("fox.sweeper.yaml", "fox.slots.yaml"), strict=True):
        schema = load_schema(name)
        assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"  # what SchemaStore asks for
        assert schema["$id"] == entry["url"]
        assert entry["url"].endswith(f"/main/sweeper/schemas/{name}.schema.json")
        references = [part["$ref"] for _, part in iter_subschemas(schema) if "$ref" in part]
        assert all(reference.startswith("#/$defs/") for reference in references)
        assert any(fnmatch(file, pattern) for pattern in entry["fileMatch"])
        assert not any(fnmatch(other, one) for other in ("compose.yaml", "a.yml") for one in entry["fileMatch"])


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_has_only_texts_beside_it(name):
    for path, part in iter_subschemas(load_schema(name)):
        if "$ref" in part:
            assert part.keys() <= {"$ref", "title", "description", "examples", "doNotSuggest"}, path


def test_shipped_slots_files_name_their_schema():
    files = sorted(Path(ROOT / "templates").glob("*.slots.yaml"))
    assert files
    for file in files:
        first = file.read_text("utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=../sweeper/schemas/slots.schema.json"
