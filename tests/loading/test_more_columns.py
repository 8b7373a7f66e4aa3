"""Axes with more columns: the fields beside a prompt in JSON lines and CSV files, and numbers in names of models."""

from __future__ import annotations

import json
import time

import pytest

import sweeper
from sweeper.errors import ExperimentError
from sweeper.loading.load import load_partial
from sweeper.loading.read_scope import ReadScope, find_project
from tests.experiment_files import make_plan, node, write

GRAPH = {"1": node("A", text="a fox", steps=4, lora="x.safetensors")}
SLOTS = {"prompt": {"at": "1.text"}, "steps": {"at": "1.steps"}, "lora": {"at": "1.lora"}}
ROWS = [
    {"prompt": "two foxes", "skill": "counting", "id": 7, "vqa_list": [["How many?", "2"]]},
    {"prompt": "a red cube", "skill": "colour", "id": 8, "level": 0.5},
]
JSONL = {"p.jsonl": "".join(json.dumps(row) + "\r\n\n" for row in ROWS)}
FORM = {"jsonl": "p.jsonl", "column": "prompt"}


def plan_rows(folder, form, files=JSONL, axis="prompt", **more):
    plan = make_plan(folder, {"sweep": {"grid": {axis: form}}, **more}, GRAPH, SLOTS, files)
    return [trial.columns for trial in plan.written()]


def refuse(folder, form, files=JSONL, **more):
    with pytest.raises(ExperimentError) as caught:
        plan_rows(folder, form, files, **more)
    return [str(problem) for problem in caught.value.problems]


def test_fields_of_json_lines_are_columns_and_keep_their_types(tmp_path):
    assert plan_rows(tmp_path, FORM) == [
        {**ROWS[0], "level": None},
        {"prompt": "a red cube", "skill": "colour", "id": 8, "vqa_list": None, "level": 0.5},
    ]
    assert plan_rows(tmp_path, FORM | {"columns": ["id"]})[0] == {"prompt": "two foxes", "id": 7}


def test_csv_gives_all_other_columns_if_asked_and_numbers_as_numbers(tmp_path):
    files = {"p.csv": "text,id,level,code,mixed,\nfox,7,0.5,007,1,x\ncat,12,,001,two\n"}
    form = {"csv": "p.csv", "column": "text"}
    assert plan_rows(tmp_path, form, files) == [{"prompt": "fox"}, {"prompt": "cat"}]
    assert plan_rows(tmp_path, form | {"columns": "all"}, files) == [
        {"prompt": "fox", "id": 7, "level": 0.5, "code": "007", "mixed": "1"},
        {"prompt": "cat", "id": 12, "level": None, "code": "001", "mixed": "two"},
    ]
    assert plan_rows(tmp_path, form | {"columns": ["level"]}, files)[0] == {"prompt": "fox", "level": 0.5}


def test_where_and_derive_read_the_other_fields_by_their_names(tmp_path):
    sweep = {"grid": {"prompt": FORM}, "where": "skill == 'counting' and vqa_list[0][1] == '2'"}
    plan = make_plan(tmp_path, {"sweep": sweep, "derive": {"steps": "{{ id }}"}}, GRAPH, SLOTS, JSONL)
    assert [(trial.params["prompt"], trial.params["steps"]) for trial in plan] == [("two foxes", 7)]


def test_a_judge_may_ask_by_another_field(tmp_path):
    judge = {"judge": {"question": "Is it {{ skill }}?", "url": "http://127.0.0.1:1/v1", "model": "m"}}
    assert len(plan_rows(tmp_path, FORM, metrics=[judge])) == 2
    judge["judge"]["question"] = "Is it {{ skil }}?"
    assert refuse(tmp_path, FORM, metrics=[judge])[0].endswith("which is not a slot; did you mean 'skill'?")


@pytest.mark.parametrize(
    ("field", "what"),
    [("steps", "a slot"), ("status", "a column of every table"), ("sharpness", "a metric"), ("mood", "in `derive`"),
     ("prompt.label", "a column of labels"), ("other", "an axis"), ("fixed", "in `params`")],
)  # fmt: skip
def test_a_field_with_the_name_of_something_else_is_a_mistake(tmp_path, field, what):
    more = {"derive": {"mood": "{{ other }}{{ fixed }}", "lora": "{{ mood }}"}, "params": {"fixed": 1}}
    sweep = {"grid": {"other": [1, 2], "prompt": FORM}}
    files = {"p.jsonl": json.dumps({"prompt": "a", field: 1}) + "\n"}
    found = refuse(tmp_path, FORM, files, metrics=["sharpness"], **more, sweep=sweep)
    place = f"{tmp_path}/e.yaml:1: sweep.grid.prompt: its column '{field}' is also {what}; rename it in the file, or"
    assert [line for line in found if line.startswith(place)], found


def test_two_axes_with_one_more_column_are_a_mistake(tmp_path):
    sweep = {"grid": {"prompt": FORM, "lora": {"csv": "c.csv", "column": "a", "columns": "all"}}}
    found = refuse(tmp_path, FORM, {**JSONL, "c.csv": "a,skill\nx,y\n"}, sweep=sweep)
    assert "sweep.grid.lora: its column 'skill' is also a column of 'prompt'" in found[0]


def test_two_hundred_other_fields_are_enough(tmp_path):
    files = {"p.jsonl": "".join(json.dumps({"prompt": "a", f"f{i}": i}) + "\n" for i in range(300))}
    assert "has 300 more columns; name those to keep" in refuse(tmp_path, FORM, files)[0]
    names = {"p.jsonl": json.dumps({"prompt": "a", "two\nlines": 1})}
    assert "its column 'two\\nlines' has no name of a column" in refuse(tmp_path, FORM, names)[0]


def test_five_thousand_rows_are_read_in_a_second(tmp_path):
    rows = [{**ROWS[0], "prompt": f"{n} foxes", "id": n} for n in range(5_000)]
    files = {"p.jsonl": "\n".join(map(json.dumps, rows))}
    write(tmp_path, {"name": "e", "template": "t.json", "sweep": {"grid": {"prompt": FORM}}}, GRAPH, SLOTS, files)
    start = time.process_time()
    plan = sweeper.plan(sweeper.load(tmp_path / "e.yaml"))
    assert [trial.columns["id"] for trial in plan.written()] == list(range(5_000))
    assert time.process_time() - start < 3


def test_of_many_wrong_lines_the_first_three_are_shown_and_the_others_counted(tmp_path):
    with pytest.raises(ExperimentError) as caught:
        plan_rows(tmp_path, FORM, {"p.jsonl": '{"prompt": 1}\n' + '{"prompt": \n' * 5_000})
    *shown, last = str(caught.value).split("\n")
    assert [line.partition(": is not JSON")[0] for line in shown] == [f"p.jsonl:{line}" for line in (2, 3, 4)]
    assert last == "p.jsonl:5: this and 4,996 more are the same mistake"


def test_json_lines_outside_of_the_project_need_trust_and_are_not_opened(tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text("not JSON: hunter2")
    sweep = {"grid": {"prompt": {**FORM, "jsonl": "../secret.jsonl"}}}
    file = write(tmp_path / "project", {"template": "t.json", "sweep": sweep}, GRAPH, SLOTS)
    partial = load_partial(file, scope=ReadScope(find_project(file)))
    (need,) = partial.needs
    assert need.grants == (f"read {secret}",)
    assert "hunter2" not in str(partial.problems)


def plan_models(folder, form, files, axis="lora", graph=GRAPH):
    experiment = {"name": "e", "template": "t.json", "sweep": {"grid": {axis: form}}}
    file = write(folder, experiment, graph, SLOTS)
    return sweeper.plan(sweeper.load(file, overrides={form["models"]: files}))


def test_numbers_in_names_are_columns_in_natural_order(tmp_path):
    files = [
        "mychar-step00000100.safetensors",
        "mychar-e2-step20.safetensors",
        "mychar-step3.safetensors",
        "other-1.pt",
    ]
    plan = plan_models(tmp_path, {"models": "loras/mychar-*"}, files)
    assert [trial.columns for trial in plan.written()] == [
        {"lora": "mychar-e2-step20.safetensors", "lora.epoch": 2, "lora.step": 20},
        {"lora": "mychar-step3.safetensors", "lora.epoch": None, "lora.step": 3},
        {"lora": "mychar-step00000100.safetensors", "lora.epoch": None, "lora.step": 100},
    ]


def test_where_reads_the_numbers_in_names(tmp_path):
    files = ["x-step10.pt", "x-step2.pt", "x-step30.pt"]
    condition = "lora.step > 2 and lora.endswith('.pt') and box.w == 3 and '.step' not in prompt.lower()"
    more = {"sweep": {"grid": {"lora": {"models": "loras/x-*"}}, "where": condition}, "params": {"box": {"w": 3}}}
    file = write(tmp_path, {"name": "e", "template": "t.json", **more}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"loras/x-*": files}))
    assert [trial.columns["lora.step"] for trial in plan] == [10, 30]
    file.write_text(file.read_text().replace("lora.step > 2", "lora.step > 'a'"))
    with pytest.raises(ExperimentError, match=r"only two numbers.*with lora.step = 2"):
        len(sweeper.plan(sweeper.load(file, overrides={"loras/x-*": files})))


@pytest.mark.parametrize(
    ("pattern", "name", "columns"),
    [
        ("loras/mychar-*", "mychar-000014.safetensors", {"lora.number": 14}),
        ("loras/flux1-a-*", "flux1-a-000014.safetensors", {"lora.number": 14}),
        ("loras/mychar-step*", "mychar-step2.safetensors", {"lora.step": 2}),
        ("loras/*", "v1.5.ckpt", {"lora.v": 1.5}),
        ("loras/sdxl/run_*", "sdxl\\run_epoch_3.pt", {"lora.epoch": 3}),
        ("loras/x-*", "x-" + "9" * 40 + ".pt", {}),
        ("loras/x-*", "x-last.safetensors", {}),
    ],
)
def test_the_word_before_a_number_names_its_column(tmp_path, pattern, name, columns):
    (trial,) = plan_models(tmp_path, {"models": pattern}, [name, "loras/unmatched"])
    assert trial.columns == {"lora": name, **columns}


def test_strange_names_of_a_server_are_no_values(tmp_path):
    lies = ["x-1\n.pt", "x-../../etc", "../x-1.pt", "/x-1.pt", "x-\u202e2.pt", "deep/x-1.pt", "x-3.pt"]
    assert [trial.params["lora"] for trial in plan_models(tmp_path, {"models": "loras/x-*"}, lies)] == ["x-3.pt"]
