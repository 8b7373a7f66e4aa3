"""Searches by votes: rounds that wait for `sweeper vote`, the pairs that it shows, and what the votes say of points."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import pairwise

import pytest

import sweeper
from sweeper.cli import main
from sweeper.store import Store
from sweeper.tables.vote_pictures import VotePictures, count_votes_needed, review_points, write_metric
from sweeper.voting.pair_choice import PairChoice
from sweeper.voting.vote_server import VoteServer
from tests import ROOT
from tests.voting.folders import SEARCH, answer_all, load, vote

SPACE = {"cfg": {"from": 1, "to": 12}, "sampler": ["euler", "dpmpp_2m", "dpmpp_sde"]}


def write_experiment(folder, **search):
    folder.mkdir(exist_ok=True)
    section = {"maximize": "votes", "trials": 36, "batch": 6, "space": SPACE, "over": {"seed": {"seeds": 2}}} | search
    section = {key: value for key, value in section.items() if value is not None}
    facts = {"name": "e", "template": str(ROOT / "templates" / "txt2img.json"), "search": section}
    (folder / "e.yaml").write_text(json.dumps({**facts, "params": {"width": 16, "height": 16, "steps": 2}}))
    return folder / "e.yaml"


def run_json(*arguments):
    out = StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments), "--json"])
    return code, json.loads(out.getvalue())


def prefer(row):
    """The planted preference: a cfg near 8, and then dpmpp_2m."""
    return -abs(row.columns["cfg"] - 8) + (row.columns["sampler"] == "dpmpp_2m")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The results folder of a search with a voter after each round, and what each command said."""
    folder = tmp_path_factory.mktemp("story")
    file, out, said = write_experiment(folder), folder / "results", []
    for _ in range(4):
        said.append(run_json("search", file, "--out", out, "--trust", "--quiet"))
        with VoteServer(out, voter="ana") as server:
            answer_all(server.url, out, prefer)
    return out, said


def test_each_round_waits_for_votes(story):
    _, said = story
    assert [code for code, _ in said] == [0, 0, 0, 0]
    ends = [(end["ended_by"], end["rounds"], end["trials"], end["votes_needed"]) for _, end in said]
    assert ends == [("votes", 1, 12, 15), ("votes", 2, 24, 15), ("votes", 3, 36, 15), ("trials", 3, 36, 0)]


def test_search_finds_what_the_voter_prefers(story):
    out, said = story
    rows = sweeper.results(out)
    likes = -(rows["cfg"] - 8).abs() + (rows["sampler"] == "dpmpp_2m")
    means = likes.groupby(rows["round"]).mean()
    assert means[3] > max(means[1], means[2])
    best = said[-1][1]["best"][0]["values"]
    assert likes[(rows["cfg"] == best["cfg"]) & (rows["sampler"] == best["sampler"])].max() >= likes.quantile(0.9)


def test_pair_is_two_points_on_the_same_combination(story):
    out, _ = story
    pictures, votes = load(out)
    rows = {picture.row.digest: picture.row for picture in pictures.all}
    for one in votes:
        left, right = (rows[digest].columns for digest in (one.left_digest, one.right_digest))
        assert one.axis == "point"
        assert left["seed"] == right["seed"]
        assert (left["cfg"], left["sampler"]) != (right["cfg"], right["sampler"])
    assert {rows[one.left_digest].columns["seed"] for one in votes} == {row.columns["seed"] for row in rows.values()}


def test_all_rows_of_a_point_have_its_share(story):
    out, _ = story
    rows = sweeper.results(out)
    assert (rows["votes"] == rows["objective"]).all()
    assert rows.groupby(["cfg", "sampler"])["votes"].nunique().eq(1).all()
    assert rows["votes"].mean() == pytest.approx(0.5, abs=0.01)  # the refit keeps shares comparable


def test_ranking_lists_points_with_their_values(story, capsys):
    out, said = story
    (axis,) = run_json("votes", out)[1]["axes"]
    best = said[-1][1]["best"][0]["values"]
    first = max(axis["values"], key=lambda one: one["share"])
    assert (axis["axis"], axis["columns"], axis["votes"]) == ("point", ["cfg", "sampler"], 45)
    assert first["cells"] == [best["cfg"], best["sampler"]]
    assert first["value"] == f"cfg {best['cfg']}, sampler {best['sampler']}"
    assert main(["votes", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"the best is {first['value']}: surely better than" in printed
    assert main(["votes", str(out), "--pictures", "--axis", "cfg"]) == 0


def test_votes_move_to_a_copy_of_the_search(story, tmp_path, capsys):
    out, _ = story
    shutil.copytree(out, tmp_path / "copy")
    with Store.open(tmp_path / "copy") as store:
        store._database.execute("DELETE FROM votes")
        write_metric(store, VotePictures(store), [])
    assert (
        run_json("search", out.parent / "e.yaml", "--out", tmp_path / "copy", "--trust", "-q")[1]["votes_needed"] == 45
    )
    assert main(["votes", "export", str(out), "-o", str(tmp_path / "v.jsonl")]) == 0
    assert main(["votes", "import", str(tmp_path / "copy"), str(tmp_path / "v.jsonl")]) == 0
    assert sweeper.results(tmp_path / "copy")["objective"].tolist() == sweeper.results(out)["objective"].tolist()


def test_search_says_what_to_do_and_goes_on_by_both_objectives(tmp_path, capsys):
    file = write_experiment(tmp_path / "e", maximize=["votes", "sharpness"], trials=4, batch=2, over=None)
    out = tmp_path / "out"
    arguments = ["search", str(file), "--out", str(out), "--trust"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "2 trials of 2 points in 1 round; it needs about 1 vote to go on" in said
    assert f"vote    sweeper vote {out} --open\nthen    the same `sweeper search` again" in said
    assert main([*arguments, "--preview"]) == 0
    assert "waits   it needs about 1 vote to go on" in capsys.readouterr().out
    with VoteServer(out, voter="ana") as server:
        assert server.summary["needed"] == 1
        answer_all(server.url, out, prefer)
        assert main(arguments) == 0  # the search goes on while the page is open
        assert "4 trials of 4 points in 2 rounds; it needs about 5 votes to go on" in capsys.readouterr().out
    with VoteServer(out, voter="ana") as server:
        answer_all(server.url, out, prefer)
    end = run_json(*arguments)[1]
    assert end["ended_by"] == "trials"
    assert all(one["objectives"].keys() == {"votes", "sharpness"} for one in end["best"])


def test_votes_of_an_earlier_grid_count(tmp_path):
    file = write_experiment(tmp_path / "e", trials=4, batch=2)
    grid = {"cfg": [4, 8], "sampler": ["euler", "dpmpp_2m"], "seed": {"seeds": 2}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "sweep": {"grid": grid}}))
    out = tmp_path / "out"
    assert main(["run", str(file), "--out", str(out), "--trust", "-q"]) == 0
    pictures, _ = load(out)
    cfgs = [picture.row.columns["cfg"] for picture in pictures.all]
    (axis,) = pictures.get_axes(["cfg"], "--axis")
    pairs = [(one, other) for one in range(len(cfgs)) for other in range(len(cfgs)) if axis.separates(one, other)]
    with Store.open(out) as store:
        store.votes.add(*[vote(pictures, *pair, "left", axis="cfg") for pair in pairs if cfgs[pair[0]] == 8])
    end = run_json("search", file, "--out", out, "--trust", "-q")[1]
    assert (end["ended_by"], end["trials"], end["votes_needed"]) == ("votes", 4, 5)
    rows = sweeper.results(out)
    shares = rows[rows["round"] == 0].groupby(["cfg", "sampler"])["votes"].mean()
    assert shares[8, "dpmpp_2m"] > 0.5 > shares[4, "dpmpp_2m"]
    assert rows[rows["round"] == 1]["votes"].isna().all()


def test_voting_on_a_selection_keeps_the_shares_of_all(tmp_path):
    folder = SEARCH.write(tmp_path)
    with Store.open(folder) as store:
        store.votes.add(*ask(load(folder)[0], 4, lambda *_: "left"))
    for select in (lambda: None, lambda: [16, 20, 24]):  # the first picture of the first three points of round 1
        with VoteServer(folder, voter="ana", select=select) as server:
            assert server.summary["needed"] == 6
        assert sweeper.results(folder)["votes"].notna().sum() == 16


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return load(SEARCH.write(tmp_path_factory.mktemp("made_up") / "results"))[0]


def ask(pictures, count, answer, votes=()):
    """The votes of a voter who answers `count` pairs."""
    votes, choice = list(votes), PairChoice(pictures, pictures.select_axes([]))
    for _ in range(count):
        axis, one, other = choice.choose(votes, "ana", choice.fit(votes))
        votes.append(vote(pictures, one, other, answer(pictures, one, other), axis=axis))
    return votes


def count_votes(pictures, votes):
    """How many votes are about each point."""
    sides = [digest for one in votes for digest in (one.left_digest, one.right_digest)]
    return Counter(pictures.points.value_of[pictures.find(digest, "")] for digest in sides)


def test_points_of_an_earlier_grid_come_last(made_up):
    votes = ask(made_up, 24, lambda *_: "tie")
    assert count_votes(made_up, votes).keys() == {4, 5, 6, 7}
    known = vote(made_up, 0, 4, "left", axis="point")  # two points of the grid, of which the first two have a vote now
    later = ask(made_up, 12, lambda *_: "tie", [known])
    assert count_votes(made_up, later).keys() == {0, 1, 4, 5, 6, 7}


def test_each_new_point_soon_has_a_vote(made_up):
    votes = ask(made_up, 4, lambda *_: "left")
    assert count_votes(made_up, votes).keys() >= {4, 5, 6, 7}  # the points that the search asked for
    assert review_points(made_up, made_up.points, votes).lacking == set()


def test_needed_votes_fall_to_zero_and_stay_there(made_up):
    votes = ask(made_up, 15, lambda *_: "tie")
    needed = [count_votes_needed(made_up, votes[:count]) for count in range(len(votes) + 1)]
    assert needed[0] == 10
    assert all(later in (before - 1, before) for before, later in pairwise(needed))
    assert needed[-1] == 0


def test_good_points_are_compared_more_often(made_up):
    cfgs = [picture.row.columns["cfg"] for picture in made_up.all]
    votes = ask(made_up, 14, lambda _, one, other: "left" if cfgs[one] > cfgs[other] else "right")
    counts = count_votes(made_up, votes)
    assert counts[7] + counts[6] > counts[4] + counts[5]  # a cfg of 8 and 6.25, and one of 2 and 3.5


def test_point_that_nobody_can_compare_does_not_hold_up_the_search(tmp_path):
    one = load(replace(SEARCH, rounds=[[], SEARCH.rounds[1][:1]]).write(tmp_path / "one"))[0]
    assert count_votes_needed(one, []) == 0
    with pytest.raises(sweeper.SweeperError, match="there is no axis to compare among the 4 pictures"):
        one.select_axes([])
    with Store.open(tmp_path / "one") as store:
        write_metric(store, one, [])
    two = load(replace(SEARCH, rounds=[[], SEARCH.rounds[1][:2]], over={"seed": [1]}).write(tmp_path / "two"))[0]
    assert count_votes_needed(two, []) == 1  # there is no second pair


def test_search_by_another_metric_waits_for_no_votes(tmp_path):
    pictures = load(replace(SEARCH, objectives=(("brightness", True),)).write(tmp_path))[0]
    assert count_votes_needed(pictures, []) is None
    assert [axis.name for axis in pictures.select_axes([])] == ["point"]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"stop_early": True}, "search.stop_early: people vote on whole points, so a search by votes stops none early"),
        ({"space": {"votes": [1, 2], **SPACE}}, "an axis of a search cannot be named 'votes'"),
    ],
)
def test_what_does_not_go_with_votes_is_refused(tmp_path, capsys, search, message):
    assert main(["search", str(write_experiment(tmp_path / "e", **search)), "--trust"]) == 2
    assert message in capsys.readouterr().err
