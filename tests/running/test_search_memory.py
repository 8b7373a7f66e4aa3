"""What a search makes of the rows that are in its results folder: its own, those of sweeps, and outdated ones."""

from __future__ import annotations

import shutil

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import ExperimentError
from sweeper.running.run_events import RoundPlanned
from tests.running.conftest import NODES, TEMPLATE
from tests.running.searches import describe_rows, find_broken_promises, load_rows, write_search
from tests.running.servers import REAL

pytestmark = pytest.mark.skipif(bool(REAL), reason="this test needs nodes that only our server has")
SWEEP = {"sweep": {"grid": {"seed": [409, 1, 2], "text": ["a fox", "a house", "a tree"]}}}
PREFIXED = {**TEMPLATE, "2": {**TEMPLATE["2"], "inputs": {**TEMPLATE["2"]["inputs"], "filename_prefix": "other"}}}


class Folder:
    """A results folder, with a server that counts the jobs which each step costs."""

    def __init__(self, server, folder):
        self.server, self.project, self.out = server, folder / "project", folder / "out"
        self.target = {"url": server.url, "dialect": "cloud", "name": "probe-server", "concurrency": 2}

    def search(self, *, options=None, progress=None, **search):
        """Search with these changes; return the result and how many jobs the server got."""
        return self._count(lambda: sweeper.search(write_search(self.project, **search), self.target, self.out,
                                                  progress=progress, **(options or {})))  # fmt: skip

    def run(self, **changes):
        return self._count(lambda: sweeper.run(write_search(self.project, **changes), self.target, self.out))

    def _count(self, execute):
        before = self.server.seen.accepted
        return execute(), self.server.seen.accepted - before

    def seeds(self):
        """(seed, text, round) of each row."""
        return [(row.params["seed"], row.params["text"], row.metrics["round"]) for row in load_rows(self.out)]


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(dialect="cloud", nodes=NODES) as server:
        yield server


@pytest.fixture
def folder(server, tmp_path):
    return Folder(server, tmp_path)


def test_a_search_goes_on_where_an_earlier_one_ended(folder, tmp_path):
    for trials, jobs in ((2, 2), (5, 2), (8, 4), (4, 0)):
        result, sent = folder.search(trials=trials)
        assert (result.ended_by, sent) == ("trials", jobs)
    assert find_broken_promises(folder.out) == []
    found = describe_rows(folder.out)
    assert [row[5]["round"] for row in found] == [1, 1, 2, 2, 3, 3, 3, 3]
    folder.out = shutil.move(folder.out, tmp_path / "moved")
    assert folder.search()[1] == 0
    assert describe_rows(folder.out) == found


def test_rows_of_a_sweep_are_evidence_that_is_not_paid_twice(folder):
    first, _ = folder.search(trials=4)
    (run, _), (second, jobs) = folder.run(body=SWEEP), folder.search(body=SWEEP)
    assert (first.trials, run.submitted, second.trials, jobs) == (4, 7, 8, 4)
    assert find_broken_promises(folder.out, has_other_rows=True) == []
    rounds = {(seed, text): number for seed, text, number in folder.seeds()}
    assert rounds[1, "a fox"] == rounds[2, "a house"] == 0
    assert rounds[409, "a fox"] == 1  # the search had asked for it before the sweep did
    assert sorted(rounds.values()) == [0] * 4 + [1] * 4 + [2] * 4
    third, jobs = folder.search(body=SWEEP, trials=12, over={"text": ["a fox", "a house", "a tree"]})
    assert (third.trials, jobs) == (12, 3)  # of the four first points, one has its tree from the sweep


def test_new_combinations_are_tried_on_earlier_points_first(folder):
    folder.search(trials=4)
    more = {"text": ["a fox", "a house", "a tree"]}
    result, jobs = folder.search(trials=10, over=more)
    assert (result.points, result.trials, jobs) == (3, 9, 5)  # one more trial would not be a whole point
    trees = [number for _, text, number in folder.seeds() if text == "a tree"]
    assert trees == [1, 1, 2]
    fewer, jobs = folder.search(trials=3, over={"text": ["a tree"]})
    assert (fewer.points, fewer.trials, jobs) == (3, 3, 0)


def test_only_points_of_the_space_count(folder):
    first, _ = folder.search()
    seeds = {point.values["seed"] for point in first.best}
    narrow, jobs = folder.search(space={"seed": {"from": 0, "to": 600}})
    inside = [seed for seed in seeds if seed <= 600]
    assert (len(inside), narrow.trials, jobs) == (3, 8, 2)
    wide, jobs = folder.search(space={"seed": {"from": 0, "to": 5000}}, trials=12)
    assert (wide.trials, jobs) == (12, 2)  # those outside of the narrow space count again
    assert seeds < {seed for seed, _, _ in folder.seeds()}
    listed, jobs = folder.search(space={"seed": [409, 753, 1]}, trials=20)
    assert (listed.ended_by, listed.points, jobs) == ("exhausted", 3, 2)
    assert folder.search(space={"seed": [409, 753, 1, 2]}, trials=20)[1] == 2
    with pytest.raises(ExperimentError, match="no point of the space was found for which this is true"):
        folder.search(space={"seed": [1]}, where="seed > 1")


def test_rows_count_for_an_axis_that_is_new(folder):
    folder.search(trials=4, over=None, batch=4)
    space = {"seed": {"from": 0, "to": 999}, "text": [{"label": "f", "value": "a fox"}, "a house"]}
    result, jobs = folder.search(trials=8, over=None, space=space)
    assert (result.trials, jobs) == (8, 4)
    space["text"][0]["label"] = "fox"
    result, jobs = folder.search(trials=8, over=None, space=space)
    assert (result.trials, jobs) == (8, 0)  # another label is the same work


def test_rows_of_another_template_do_not_count_until_it_returns(folder):
    first, _ = folder.search(trials=4, method="random")
    other, jobs = folder.search(trials=4, template=PREFIXED)
    assert (other.trials, jobs) == (4, 4)
    again, jobs = folder.search(trials=6)
    assert (again.trials, jobs) == (6, 2)
    assert {point.values["seed"] for point in first.best} < {seed for seed, _, _ in folder.seeds()}


def test_a_folder_without_rows_of_the_space_is_as_good_as_new(folder):
    rounds = []

    def watch(event):
        if isinstance(event, RoundPlanned):
            rounds.append(event.number)
            assert len(rounds) < 5

    folder.run(body={"sweep": {"grid": {"seed": [5000]}}})
    result, jobs = folder.search(progress=watch)
    assert (result.trials, jobs, rounds) == (8, 8, [1, 2])


def test_another_metric_method_or_seed_goes_on_with_the_same_rows(folder):
    folder.search(trials=4)
    result, jobs = folder.search(trials=6, maximize=None, minimize="contrast")
    assert (result.trials, jobs, len(result.best[0].objectives)) == (6, 2, 1)
    result, jobs = folder.search(trials=8, maximize=["brightness", "contrast"], method="random", seed=7)
    assert (result.trials, jobs, len(result.best[0].objectives)) == (8, 2, 2)
    assert find_broken_promises(folder.out) == []
