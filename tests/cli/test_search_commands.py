"""The other commands on an experiment with a search: the best points, checks before a run, runs, pages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import sweeper as library
from sweeper.model.search_columns import Objective, SearchColumns
from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout
from tests.cli.conftest import SLOTS, TXT2IMG

SEARCH = {
    "maximize": "brightness",
    "trials": 8,
    "batch": 2,
    "space": {"cfg": {"from": 1, "to": 9}, "steps": [1, 2]},
    "over": {"seed": [1, 2]},
}
SWEEP = {"grid": {"cfg": [2, 3], "seed": [1, 2]}}
NO_SWEEP = (
    "error: shop.yaml:1: search: there is no `sweep:` beside it, which a run needs; `sweeper search shop.yaml` runs "
    "the search\n"
)
TOO_LARGE = (
    "shop.yaml:1: search.space.cfg: node 3 (KSampler) cfg: found 900.0, but at most 100.0 is needed (on embedded)"
)


@pytest.fixture
def written(write):
    """A function that writes an experiment with these sections."""
    return lambda **sections: write(json.dumps({"template": "t.json", **sections}))


@pytest.fixture(scope="module")
def search_folder(tmp_path_factory):
    """A folder with a search that has ended, and then a run of the sweep in the same file."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "t.json").write_text(json.dumps(TXT2IMG))
    (folder / "t.slots.yaml").write_text(SLOTS)
    file = folder / "shop.yaml"
    file.write_text(json.dumps({"template": "t.json", "search": SEARCH, "sweep": SWEEP}))
    library.search(file)
    library.run(file)
    return folder


@pytest.fixture
def copy_of_search(search_folder):
    """A copy of that folder as the working folder."""
    shutil.copytree(search_folder, Path.cwd(), dirs_exist_ok=True)


def test_best_points_are_those_of_the_latest_search(sweeper, copy_of_search):
    outcome = sweeper("results", "shop.yaml", "--best", 2)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["brightness", "cfg", "steps", "round", "trials", "succeeded"]
    assert [line[1:] for line in lines[1:]] == [
        ["8.239", "2", "2", "4,", "5", "2"],
        ["6.775", "1", "1", "2,", "3", "2"],
    ]
    points = sweeper("results", "results/shop", "--best", 99, "--json").json
    assert [point["trials"] for point in points] == [[4, 5], [2, 3], [0, 1], [6, 7]]
    assert sweeper("results", "results/shop", "--json", "--best").json == points
    rows = sweeper("results", "shop.yaml", "--run", 1, "--json").json
    assert [point["objectives"] for point in points] == [
        {"brightness": next(row["objective"] for row in rows if row["trial"] in point["trials"])} for point in points
    ]


def test_filter_leaves_points_with_a_trial_that_passes(sweeper, copy_of_search):
    points = sweeper("results", "shop.yaml", "--best", 9, "--where", "cfg > 5 and seed == 1", "--json").json
    assert [point["trials"] for point in points] == [[4, 5], [2, 3]]
    outcome = sweeper("results", "shop.yaml", "--best", 9, "--where", "cfg > 50")
    assert (outcome.out, outcome.err) == ("", "--where: cfg > 50 matches none of the 8 trials\n")


def test_options_that_do_not_go_with_best_are_refused_together(sweeper, copy_of_search):
    given = ["--by", "cfg", "--pivot", "cfg,steps,seed", "--sort", "cfg", "--columns", "cfg", "--limit", 3]
    outcome = sweeper("results", "shop.yaml", "--best", 3, *given)
    assert outcome.code == 2
    for message in (
        "--best: cannot be combined with --by; give one",
        "--best: cannot be combined with --pivot; give one",
        "--sort: --best sorts the points itself",
        "--columns: --best has columns of its own",
        "--limit: --best N says how many points to show",
    ):
        assert f"error: {message}" in outcome.err.splitlines()


def test_best_points_of_a_sweep_do_not_exist(sweeper, copy_of_search):
    outcome = sweeper("results", "shop.yaml", "--best", 3, "--run", 2)
    assert (outcome.code, outcome.out, outcome.err) == (
        2, "", "error: --best: this run is not a search, so it has no points; `sweeper results results/shop --sort "
        "-brightness --limit 3` shows its trials with most brightness\n",
    )  # fmt: skip


def write_points(out, points, objectives, *, stop_early=False):
    """A results folder of a search without a server. `points`: for each value of cfg, the metrics of its trials."""
    metrics = tuple(objective.metric for objective in objectives)
    search = SearchColumns(objectives, ("cfg",), ("seed",), stop_early)
    rows = [(cfg, seed, values) for cfg, trials in points.items() for seed, values in enumerate(trials)]
    with Store.open(out) as store:
        with store.transaction():
            layout = TableLayout("shop", ("cfg", "seed"), ("cfg", "seed"), metrics, search=search)
            run = store.create_run(layout, file="shop.yaml", targets=["embedded"], now=1.0)
            columns = [{"cfg": cfg, "seed": seed} for cfg, seed, _ in rows]
            store.add_trials(run, [(i, f"{i:064}", one, {**one, "round": 1}) for i, one in enumerate(columns)])
        for index, (_, _, values) in enumerate(rows):
            job, digest = f"job{index}", f"{index:064}"
            store.record_intent(JobRecord(job, run, "embedded", digest, "s" * 64, 1, job, "intent", 1.0))
            file = Artifact("9", "images", 0, f"artifacts/{index}.png", digest, 10, "a.png")
            store.record_finished(
                job, JobEnd("failed" if values is None else "succeeded", artifacts=[file] if values else [])
            )
            store.cache_metrics([(digest, *pair) for pair in zip(metrics, values or (), strict=False)])
        store.end_run(run, now=2.0, stopped_by=None)


def test_best_points_of_several_objectives_are_the_pareto_front(sweeper):
    objectives = (Objective("sharpness"), Objective("noise", maximize=False))
    points = {1: [(5.0, 3.0)], 2: [(9.0, 6.0)], 3: [(5.0, 4.0)], 4: [(1.0, 1.0)], 5: [None]}
    write_points("results/shop", points, objectives)
    outcome = sweeper("results", "results/shop", "--best", 2)
    assert outcome.out.splitlines() == [
        "2 of the 3 points of the Pareto front, which no other point beats in all of sharpness, noise",
        "",
        "sharpness  noise  cfg  round  trials  succeeded",
        "        9      6    2      1       1          1",
        "        5      3    1      1       0          1",
    ]
    points = sweeper("results", "results/shop", "--best", 9, "--json").json
    assert [point["values"]["cfg"] for point in points] == [2, 1, 4]


@pytest.mark.parametrize(("stop_early", "best"), [(True, [2, 1]), (False, [3, 2, 1])])
def test_point_stopped_early_is_not_among_the_best(sweeper, stop_early, best):
    points = {1: [(1.0,), (2.0,)], 2: [(3.0,), None], 3: [(9.0,)]}
    write_points("results/shop", points, (Objective("sharpness"),), stop_early=stop_early)
    found = sweeper("results", "results/shop", "--best", 5, "--json").json
    assert [point["values"]["cfg"] for point in found] == best
    assert [point["succeeded"] for point in found][-2:] == [1, 2]


def test_validate_checks_every_value_of_a_search(sweeper, written):
    outcome = sweeper("validate", written(search=SEARCH))
    assert (outcome.code, outcome.out) == (0, "shop.yaml: experiment is valid, a search of cfg, steps\n")
    outcome = sweeper("validate", written(search=SEARCH, sweep=SWEEP))
    assert outcome.out == "shop.yaml: experiment is valid, 4 trials and a search of cfg, steps\n"
    (report,) = sweeper("validate", "shop.yaml", "--json").json
    assert (report["trials"], report["search"]) == (4, ["cfg", "steps"])
    wrong = {**SEARCH, "space": {"cfg": {"from": 1, "to": 900}}}
    for sections in ({"search": wrong}, {"search": wrong, "sweep": SWEEP}):
        outcome = sweeper("validate", written(**sections))
        assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {TOO_LARGE}\n")


def test_space_with_more_points_than_a_counter_holds_is_checked(sweeper, written):
    space = {"cfg": {"from": 1, "to": 9}, "prompt": [f"prompt {number}" for number in range(3000)]}
    space |= {f"axis_{letter}": {"from": 0, "to": 9999, "step": 1} for letter in "abcd"}
    where = "axis_a + axis_b + axis_c + axis_d < 20000"
    outcome = sweeper("validate", written(search={**SEARCH, "space": space, "where": where}))
    assert (outcome.code, outcome.err) == (0, "")
    assert sweeper("search", "shop.yaml", "--preview", "--json").json["round_jobs"] == 4


def test_doctor_checks_every_value_of_a_search(sweeper, written):
    assert "  has what the search of shop.yaml needs\n" in sweeper("doctor", written(search=SEARCH)).out
    outcome = sweeper("doctor", written(search=SEARCH, sweep=SWEEP))
    assert "  has what the 4 trials and the search of shop.yaml need\n" in outcome.out
    outcome = sweeper("doctor", written(search={**SEARCH, "space": {"cfg": {"from": 1, "to": 900}}}))
    assert (outcome.code, TOO_LARGE.removesuffix(" (on embedded)") in outcome.err) == (3, True)


@pytest.mark.parametrize(
    "command",
    [("plan",), ("run",), ("run", "--dry-run"), ("run", "--rehearse"), ("check",), ("calibrate",)],
    ids=" ".join,
)
def test_command_that_needs_a_sweep_names_the_search(sweeper, written, command):
    outcome = sweeper(*command, written(search=SEARCH))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.endswith(NO_SWEEP)
    assert not Path("results").exists()


def test_renamed_search_is_not_compared_with_the_sweep(sweeper, written):
    seeds = {"seed": {"seeds": 2}}
    sections = {"search": {**SEARCH, "over": seeds}, "sweep": {"grid": {"cfg": [2], **seeds}}}
    sweeper("run", written(**sections), "-q")
    outcome = sweeper("search", written(name="other", **sections), "--preview")
    assert (outcome.code, outcome.err) == (0, "")


def test_runs_say_which_of_them_is_a_search(sweeper, copy_of_search):
    runs = sweeper("runs", "shop.yaml", "--json").json
    assert [(run["trials"], run["search"]) for run in runs] == [(8, True), (4, False)]
    header, first, second = sweeper("runs", "shop.yaml").out.splitlines()
    assert (header.split()[-1], first.split()[-1], second.split()[-1]) == ("search", "yes", "0")


def test_pictures_of_a_search_become_a_baseline(sweeper, copy_of_search):
    outcome = sweeper("accept", "shop.yaml", "--run", 1, "--json")
    assert (outcome.code, outcome.json["counts"]) == (0, {"new": 8})
    assert sweeper("check", "results/shop", "--json").json["ok"] is False  # the latest run is the sweep
