"""The results folder: beside the experiment file wherever the user stands, and of one experiment only."""

from __future__ import annotations

from pathlib import Path

import pytest

PLAIN = "template: t.json\nsweep: {grid: {seed: [1, 2]}}\nparams: {prompt: a}\n"


@pytest.fixture
def project_experiment(sweeper, write, monkeypatch):
    """An experiment `my project/shop.yaml`, which has run from its own folder."""
    Path("my project").mkdir()
    monkeypatch.chdir("my project")
    assert sweeper("run", write(PLAIN), "--target", "embedded").code == 0
    monkeypatch.chdir("..")
    return "my project/shop.yaml"


def test_the_same_experiment_from_another_folder_submits_nothing(sweeper, project_experiment, monkeypatch):
    project = Path.cwd()
    assert sweeper("run", project_experiment, "--json").json["submitted"] == 0
    monkeypatch.chdir("my project")
    run = sweeper("run", str(project / project_experiment), "--json").json
    assert (run["submitted"], Path(run["out"])) == (0, project / "my project/results/shop")
    assert not Path("../results").exists()


def test_commands_print_the_folder_as_the_user_would_name_it(sweeper, project_experiment):
    assert "my project/results/shop/results.csv" in sweeper("run", project_experiment).out
    assert "my project/results/shop/report/index.html" in sweeper("report", project_experiment).out


@pytest.mark.parametrize("command", [("results",), ("runs",), ("report",), ("export", "-o", "-", "--format", "csv")])
def test_commands_find_the_results_by_the_experiment_file(sweeper, project_experiment, command):
    name, *options = command
    assert sweeper(name, project_experiment, *options).code == 0


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_second_experiment_of_that_name_is_refused(sweeper, write, command):
    assert sweeper("run", write(PLAIN), "--target", "embedded").code == 0
    before = Path("results/shop/results.csv").read_bytes()
    write("name: shop\n" + PLAIN.replace("[1, 2]", "[3]"), name="other.yaml")
    refused = sweeper(command, "other.yaml")
    assert refused.code == 2
    assert "results/shop: contains the results of shop.yaml, and other.yaml would replace their table" in refused.err
    assert "give other.yaml another `name` than 'shop', or name another folder with --out" in refused.err
    assert Path("results/shop/results.csv").read_bytes() == before
    assert sweeper("run", "other.yaml", "--out", "mine").code == 0


def test_a_renamed_experiment_file_keeps_its_results(sweeper, write):
    assert sweeper("run", write("name: shop\n" + PLAIN), "--target", "embedded").code == 0
    Path("shop.yaml").rename("sale.yaml")
    assert sweeper("run", "sale.yaml", "--json").json["submitted"] == 0


@pytest.mark.parametrize(
    ("folder", "name"), [("my-sweep", "my-sweep"), ("Zwei Füchse", "Zwei-F-chse"), ("狐", "first-sweep")]
)
def test_init_names_the_experiment_after_the_folder(sweeper, folder, name):
    assert sweeper("init", folder).code == 0
    text = (Path(folder) / "experiment.yaml").read_text("utf-8")
    assert f"\nname: {name}\n" in text
    assert f"results/{name}/" in text
    assert sweeper("run", f"{folder}/experiment.yaml", "--limit", "1").code == 0
    assert Path(folder, "results", name, "results.csv").is_file()
