"""Columns that tell more of the values of an axis: they group, filter and order, and are no axes of their own."""

from __future__ import annotations

import csv
import io
import json

import pytest

import sweeper
from sweeper.cli import main
from sweeper.store.records import TableLayout
from sweeper.tables.effect_axes import find_effect_axes
from tests.running.studio import GRAPH
from tests.tables.written_results import write_results

SKILLS = ("counting", "counting", "colour", "colour", "space", "space")
ROWS = [
    {"prompt": f"{number} foxes", "skill": skill, "id": number, "vqa_list": [["How many?", str(number)]]}
    for number, skill in enumerate(SKILLS)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of six prompts, two seeds and two numbers of steps."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "w.json").write_text(json.dumps(GRAPH))
    (folder / "w.slots.yaml").write_text("slots: {prompt: {at: 3.text}, seed: {at: 5.seed}, steps: {at: 5.steps}}\n")
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    grid = "{prompt: {jsonl: p.jsonl, column: prompt}, seed: [1, 2], steps: [1, 2]}"
    file = folder / "e.yaml"
    file.write_text(f"template: w.json\nmetrics: [brightness]\nsweep: {{grid: {grid}}}\n")
    return sweeper.run(file).out


@pytest.fixture
def ask(folder, capsys):
    def run(*words):
        assert main([words[0], str(folder), *words[1:]]) in (0, 1)  # 1: the verdict is that they differ
        return capsys.readouterr().out

    return run


def test_results_are_grouped_and_filtered_by_another_field(ask):
    groups = json.loads(ask("results", "--by", "skill", "--json"))
    assert [(group["skill"], group["trials"]) for group in groups] == [("counting", 8), ("colour", 8), ("space", 8)]
    rows = json.loads(ask("results", "--where", "skill == 'counting' and steps == 1 and id > 0", "--json"))
    assert [row["prompt"] for row in rows] == ["1 foxes", "1 foxes"]


def test_lists_stay_values_and_are_json_text_in_tables(ask, folder):
    (row, *_) = csv.DictReader(io.StringIO(ask("export", "-o", "-", "--format", "csv")))
    assert json.loads(row["vqa_list"]) == ROWS[0]["vqa_list"]
    assert main(["export", str(folder), "-o", str(folder / "x.parquet")]) == 0
    trial = next(iter(sweeper.plan(folder.parent.parent / "e.yaml").written()))
    assert trial.columns["vqa_list"] == ROWS[0]["vqa_list"]
    assert json.loads(sweeper.results(folder)["vqa_list"][0]) == ROWS[0]["vqa_list"]


def test_prompts_with_other_fields_are_still_replicates(ask):
    said = ask("effects")
    assert "differences are over prompt (6) and seed (2)" in said
    assert "skill" not in said
    assert "vary together" not in said
    verdict = ask("compare", "--axis", "steps=1,2", "--verdict")
    assert "over 12 matched pairs (prompt 6, seed 2)" in verdict


def test_effects_compare_groups_of_prompts_by_the_means_of_each_prompt(ask, folder):
    said = ask("effects", "--axis", "skill")
    assert (
        "each value of skill has values of prompt of its own, so the means of its values of prompt are compared" in said
    )
    answer = json.loads(ask("effects", "--axis", "skill", "--json"))
    (effect,) = answer["metrics"][0]["effects"]
    assert {pair["value"] for pair in effect["comparisons"]} == {"counting", "colour"}
    means = sweeper.results(folder).groupby(["skill", "prompt"])["brightness"].mean()
    means = means.groupby("skill").mean()
    for pair in effect["comparisons"]:
        assert pair["difference"] == pytest.approx(means[pair["value"]] - means[pair["other"]])


def test_numbers_in_names_of_files_order_an_axis():
    names = ["(none)", "x-step500.pt", "x-step1000.pt"]
    rows = [
        sweeper.Result(index, {"lora": name, "lora.step": step, "seed": seed}, {"seed": seed}, str(index), "succeeded")
        for index, (name, step, seed) in enumerate(
            (name, at * 500, seed) for at, name in enumerate(names) for seed in (1, 2)
        )
    ]
    layout = TableLayout("e", ("lora", "lora.step", "seed"), ("seed",), extras={"lora.step": "lora"})
    lora, seed = find_effect_axes(rows, layout, (), ()).axes
    assert (lora.columns, lora.numbers, seed.is_replicate) == (("lora",), (0, 500, 1000), True)


def test_effects_name_the_numbers_with_which_a_metric_falls(tmp_path, capsys):
    steps = {f"x-step{step}.pt": step for step in (900, 1000, 2000, 10000)}  # in another order as texts
    rows = [{"lora": name, "lora.step": step, "seed": seed} for name, step in steps.items() for seed in (1, 2, 3)]
    numbers = [100 - row["lora.step"] / 1000 + row["seed"] for row in rows]
    folder = write_results(tmp_path / "r", rows, {"contrast": numbers}, extras={"lora.step": "lora"})
    assert main(["effects", str(folder), "--metric", "contrast"]) == 0
    assert "lora: falls with lora.step, by 0.001 for 1 more; x-step900.pt is higher than" in capsys.readouterr().out
    assert main(["effects", str(folder), "--metric", "contrast", "--json"]) == 0
    (effect,) = json.loads(capsys.readouterr().out)["metrics"][0]["effects"]
    assert effect["slope_of"] == "lora.step"


def test_page_has_the_other_fields_as_columns_with_their_types(folder, capsys):
    assert main(["report", str(folder)]) == 0
    text = (folder / "report" / "index.html").read_text("utf-8") if (folder / "report").is_dir() else ""
    assert '"skill"' in text or any('"skill"' in path.read_text() for path in (folder / "report").glob("*.js*"))
