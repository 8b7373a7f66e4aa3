"""Each change of the page as an edit of the file: what it says afterwards is loaded, and the rest stays."""

from __future__ import annotations

import pytest

from sweeper.editing.document import apply_changes, describe_document
from sweeper.editing.edit_yaml import parse_text
from sweeper.errors import UsageError
from sweeper.loading.suggest_slots import Suggestion

TEXT = """\
name: mine
template: t.json  # mine
params:
  negative: ''  # nothing
  width: 512
sweep:
  grid:  # every combination
    steps: [8, 20]  # few
    cfg:
      - 4
      - 7  # usual
    seed: {seeds: 2}
  zip:
    - {height: [512, 768], text: [a, b]}
    - denoise: [0.5, 1]  # noise
      sampler: [euler, heun]
  where: steps > 1
metrics: [sharpness]
"""


def change(text, *changes):
    return apply_changes(text, None, changes)[0]


def read(text):
    return parse_text(text).value


def test_an_axis_gets_other_values_where_it_stands():
    assert change(TEXT, {"set": "axis", "name": "steps", "value": {"from": 1, "to": 9, "step": 2}}) == TEXT.replace(
        "[8, 20]", "{from: 1, to: 9, step: 2}"
    )
    assert change(TEXT, {"set": "axis", "name": "sampler", "value": ["euler", "dpmpp_2m"]}) == TEXT.replace(
        "heun", "dpmpp_2m"
    )


def test_a_new_axis_is_the_last_of_the_grid_and_no_fixed_value():
    changed = change(TEXT, {"set": "axis", "name": "width", "value": [512, 640]})
    assert changed == TEXT.replace("  width: 512\n", "").replace("seeds: 2}\n", "seeds: 2}\n    width: [512, 640]\n")


def test_an_axis_that_replaces_words_keeps_the_text_in_params():
    changed = change(TEXT, {"set": "axis", "name": "negative", "value": {"replace": "a", "with": ["b", "c"]}})
    assert read(changed)["params"]["negative"] == ""


def test_bundles_and_labels_are_written_as_in_the_grammar():
    value = [{"label": label, "set": {"width": 512, "height": 768}} for label in ("portrait", "wide", "other")]
    changed = change(TEXT, {"set": "axis", "name": "format", "value": value})
    assert (
        "    format:\n      - {label: portrait, set: {width: 512, height: 768}}\n      - {label: wide, set: " in changed
    )


def test_an_axis_becomes_fixed_and_none():
    assert "  width: 512\n  steps: 9\nsweep:\n  grid:  # every combination\n    cfg:" in (
        change(TEXT, {"set": "fixed", "name": "steps", "value": 9})
    )
    assert change(TEXT, {"set": "none", "name": "steps"}) == TEXT.replace("    steps: [8, 20]  # few\n", "")
    assert change(TEXT, {"set": "none", "name": "width"}) == TEXT.replace("  width: 512\n", "")
    assert change(TEXT, {"set": "none", "name": "unknown"}) == TEXT


def test_nothing_empty_stays_that_the_schema_refuses():
    text = "template: t.json\nparams: {a: 1}\nsweep:\n  zip:\n    - {b: [1]}\n"
    changed = change(text, {"set": "none", "name": "a"}, {"set": "none", "name": "b"})
    assert changed == "template: t.json\n"
    assert change(changed, {"set": "axis", "name": "b", "value": [1]}).endswith("sweep:\n  grid:\n    b: [1]\n")


def test_two_axes_are_zipped_with_their_comments_and_unzipped():
    zipped = change(TEXT, {"set": "zip", "name": "steps", "with": "cfg"})
    assert "    - cfg:\n        - 4\n        - 7  # usual\n      steps: [8, 20]  # few\n" in zipped
    assert read(zipped)["sweep"]["zip"][2] == {"cfg": [4, 7], "steps": [8, 20]}
    unzipped = change(zipped, {"set": "unzip", "name": "steps"})
    assert read(unzipped) == read(TEXT)
    assert "    seed: {seeds: 2}\n    steps: [8, 20]  # few\n    cfg:\n      - 4\n      - 7  # usual\n" in unzipped


def test_an_axis_joins_a_zip_group_in_either_style():
    joined = change(
        TEXT, {"set": "zip", "name": "seed", "with": "height"}, {"set": "zip", "name": "cfg", "with": "sampler"}
    )
    assert "    - {height: [512, 768], text: [a, b], seed: {seeds: 2}}\n" in joined
    with pytest.raises(UsageError, match="only be edited as YAML"):  # its comment has no place in brackets
        change(TEXT, {"set": "zip", "name": "steps", "with": "height"})
    assert "      sampler: [euler, heun]\n      cfg:\n        - 4\n        - 7  # usual\n" in joined
    moved = change(TEXT.replace("  # noise", ""), {"set": "zip", "name": "denoise", "with": "text"})
    assert read(moved)["sweep"]["zip"] == [{"height": [512, 768], "text": ["a", "b"], "denoise": [0.5, 1]}]
    assert read(moved)["sweep"]["grid"]["sampler"] == ["euler", "heun"]


def test_axes_change_their_order():
    moved = change(TEXT, {"set": "move", "name": "seed", "before": "cfg"})
    assert list(read(moved)["sweep"]["grid"]) == ["steps", "seed", "cfg"]
    assert list(read(change(TEXT, {"set": "move", "name": "steps", "before": None}))["sweep"]["grid"])[-1] == "steps"
    assert list(read(change(TEXT, {"set": "move", "name": "steps", "before": "text"}))["sweep"]["grid"])[-1] == "steps"
    moved = change(TEXT, {"set": "move", "name": "sampler", "before": "denoise"})
    assert list(read(moved)["sweep"]["zip"][1]) == ["sampler", "denoise"]
    with pytest.raises(UsageError, match="take the axis out of its group first"):
        change(TEXT, {"set": "move", "name": "sampler", "before": "steps"})


def test_conditions_and_other_keys_are_set_and_removed():
    assert change(TEXT, {"set": "where", "value": "cfg > 4"}) == TEXT.replace("steps > 1", '"cfg > 4"')
    assert change(TEXT, {"set": "where", "value": None}) == TEXT.replace("  where: steps > 1\n", "")
    budget = {"set": "key", "path": ["run", "budget"], "value": "5 USD"}
    changed = change(TEXT, budget, {"set": "key", "path": ["target"], "value": "cloud"})
    assert changed == TEXT + 'run:\n  budget: "5 USD"\ntarget: cloud\n'
    assert change(changed, {**budget, "value": None}, {"set": "key", "path": ["target"], "value": None}) == TEXT


@pytest.mark.parametrize(
    "wrong",
    [
        {"set": "axis", "name": "a", "value": 1}, {"set": "zip", "name": "steps", "with": "none"}, {"set": "axes"}, {},
        {"set": "unzip", "name": "width"}, {"set": "key", "path": [], "value": 1},
        {"set": "key", "path": ["name", {}], "value": 1}, {"set": "key", "path": ["a"] * 3000, "value": 1},
        {"set": "axis", "address": "9.x", "value": [1]},
        {"set": "key", "path": ["name", "x"], "value": 1}, {"set": "move", "name": "steps", "before": 3},
    ],
)  # fmt: skip
def test_a_wrong_change_is_refused(wrong):
    with pytest.raises(UsageError):
        change(TEXT, wrong)


def test_a_sweep_of_blocks_is_shown_but_not_changed():
    text = "template: t.json\nsweep:\n  - grid: {a: [1]}\n  - grid: {a: [2]}\n"
    shown = describe_document(text)
    assert (shown["blocks"], shown["axes"]) == (2, [])
    assert shown["other"] == [{"key": "sweep", "yaml": "- grid: {a: [1]}\n- grid: {a: [2]}", "line": 2}]
    with pytest.raises(UsageError, match="only be edited as YAML"):
        change(text, {"set": "axis", "name": "b", "value": [1]})
    assert "params:\n  b: 1\n" in change(text, {"set": "fixed", "name": "b", "value": 1})


def test_an_input_becomes_a_slot_with_its_line_in_the_slots_file():
    suggestion = Suggestion("cfg", "3.cfg", "KSampler", "", "number", 7, {"type": "number", "minimum": 0})
    added = {"set": "axis", "address": "3.cfg", "value": [4, 7]}
    slots = "# head\nslots:\n  steps: {at: 3.steps}  # first\n# models\nmodels: []\n"
    text, changed = apply_changes(TEXT, slots, [added], [suggestion])
    line = '  cfg: {at: "3.cfg", schema: {type: number, minimum: 0}}  # KSampler: 7\n'
    assert changed == slots.replace("# first\n", f"# first\n{line}")
    assert read(text)["sweep"]["grid"]["cfg"] == [4, 7]
    assert apply_changes(text, changed, [added], [suggestion]) == (text, changed)  # it is one by now
    _, made = apply_changes(TEXT, "slots:\n  cfg: {at: 4.cfg}\n", [added], [suggestion])
    assert made.endswith('\n  cfg_2: {at: "3.cfg", schema: {type: number, minimum: 0}}  # KSampler: 7\n')
    _, made = apply_changes(TEXT, None, [added], [suggestion])
    assert made.endswith('slots:\n  cfg: {at: "3.cfg", schema: {type: number, minimum: 0}}  # KSampler: 7\n')
    with pytest.raises(UsageError, match="only be edited as YAML"):
        apply_changes(TEXT, '{"slots": {"a": {"at": "1.a"}}}', [added], [suggestion])


def test_the_page_gets_axes_fixed_values_and_the_rest_as_yaml():
    text = TEXT.replace("metrics", "derive: {b: x}\nrun:\n  budget: 5\nmetrics").replace(
        "  where", "  exclude: [{steps: 8}]\n  where"
    )
    shown = describe_document(text)
    assert (shown["name"], shown["template"], shown["target"], shown["budget"]) == ("mine", "t.json", None, "5 USD")
    assert [(axis["name"], axis["zip"], axis["line"]) for axis in shown["axes"]] == [
        ("steps", None, 8), ("cfg", None, 9), ("seed", None, 12), ("height", 0, 14), ("text", 0, 14),
        ("denoise", 1, 15), ("sampler", 1, 16),
    ]  # fmt: skip
    assert shown["axes"][1]["yaml"] == "- 4\n- 7"
    assert shown["fixed"][0] == {"name": "negative", "value": "", "yaml": "''", "line": 4}
    assert shown["where"] == "steps > 1"
    assert [(other["key"], other["yaml"]) for other in shown["other"]] == [
        ("derive", "{b: x}"), ("run", "budget: 5"), ("metrics", "[sharpness]"), ("sweep.exclude", "[{steps: 8}]"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- 1",
        "sweep: 3",
        "sweep:\n  grid: [1]\n  zip: {a: 1}",
        "params: 7\nrun: x",
        "sweep: {zip: [1, {a: 2}]}",
    ],
)
def test_a_file_with_mistakes_is_described_as_far_as_it_can_be_read(text):
    assert describe_document(text)["name"] is None


def test_files_of_a_server_and_json_lines_are_axes_of_the_page():
    text = "sweep: {grid: {lora: {models: loras/x-*, none: true}, prompt: {jsonl: p.jsonl, column: prompt}}}\n"
    axes = describe_document(text)["axes"]
    assert {axis["name"]: axis["value"] for axis in axes} == {
        "lora": {"models": "loras/x-*", "none": True},
        "prompt": {"jsonl": "p.jsonl", "column": "prompt"},
    }
