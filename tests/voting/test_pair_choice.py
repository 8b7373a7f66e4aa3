from __future__ import annotations

import time
from collections import Counter

import pytest

from sweeper.errors import UsageError
from sweeper.store import Store
from sweeper.tables.vote_pictures import VotePictures, list_answers
from sweeper.voting.pair_choice import PairChoice
from tests.reporting.made_up_sweeps import Sweep
from tests.tables.written_results import write_results
from tests.voting.folders import hash_pixels, load, make_folder, prefer, vote


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return load(make_folder(tmp_path_factory.mktemp("folder") / "results"))[0]


def make_choice(pictures, *between):
    return PairChoice(pictures, pictures.select_axes(between))


def choose(choice, votes, voter="ana", **more):
    return choice.choose(votes, voter, choice.fit([vote for vote in votes if vote.counts]), **more)


def ask(pictures, choice, count, answer, *, voter="ana", votes=()):
    """The votes of a voter who answers `count` pairs."""
    votes = list(votes)
    for _ in range(count):
        axis, one, other = choose(choice, votes, voter)
        votes.append(vote(pictures, one, other, answer(pictures, one, other), voter, axis=axis))
    return votes


def test_pictures_of_a_pair_differ_in_one_axis_only(pictures):
    choice = make_choice(pictures)
    assert choice.count == 18  # 3 pairs of samplers for 2 prompts and 3 seeds
    for one in ask(pictures, choice, 18, prefer(["euler", "heun", "ddim"])):
        left, right = (pictures.all[pictures.find(d, "")].row.columns for d in (one.left_digest, one.right_digest))
        assert {name for name in left if left[name] != right[name]} == {"sampler"}


def test_no_pair_comes_twice_before_all_were_answered(pictures):
    choice = make_choice(pictures)
    votes = ask(pictures, choice, 18, prefer(["euler", "heun", "ddim"]))
    assert len({one.pictures for one in votes}) == 18
    assert choose(choice, votes, "ana") is None
    assert choose(choice, votes, "bo") is not None
    axis, one, other = choose(choice, votes, "ana", again=True)
    again = [*votes, vote(pictures, one, other, "tie", axis=axis)]
    assert choose(choice, again, "ana", again=True)[1:] != (one, other)


def test_undone_vote_does_not_count(pictures):
    choice = make_choice(pictures)
    votes = ask(pictures, choice, 5, prefer(["euler", "heun", "ddim"]))
    undone = [*votes, vote(pictures, *choose(choice, votes, "ana")[1:], "left", undone=True)]
    assert choose(choice, undone, "ana") == choose(choice, votes, "ana")


def test_prompts_seeds_and_values_are_balanced(pictures):
    choice = make_choice(pictures)
    votes = ask(pictures, choice, 9, lambda *_: "tie")
    rows = [pictures.all[pictures.find(one.left_digest, one.left_sha256)].row for one in votes]
    assert max(Counter(row.columns["seed"] for row in rows).values()) <= 4
    assert max(Counter(row.columns["prompt"] for row in rows).values()) <= 5
    met = Counter(
        pictures.all[pictures.find(digest, "")].row.columns["sampler"]
        for one in votes
        for digest in (one.left_digest, one.right_digest)
    )
    assert set(met.values()) <= {5, 6, 7}


def test_values_whose_order_is_unknown_come_more_often(tmp_path):
    sweep = Sweep({"sampler": ["euler", "heun", "ddim", "lms"], "seed": list(range(30))}, size=(8, 8))
    pictures, _ = load(make_folder(tmp_path, sweep))
    choice = make_choice(pictures)

    def answer(pictures, left, right):  # euler and heun are equally good, and far better than the others
        names = [pictures.all[index].row.columns["sampler"] for index in (left, right)]
        good = [name in ("euler", "heun") for name in names]
        if good[0] == good[1]:
            return "left" if (left + right) % 2 else "right"
        return "left" if good[0] else "right"

    votes = ask(pictures, choice, 60, answer)
    asked = Counter(
        frozenset(
            pictures.all[pictures.find(digest, "")].row.columns["sampler"] for digest in (v.left_digest, v.right_digest)
        )
        for v in votes[20:]
    )
    unknown = asked[frozenset({"euler", "heun"})] + asked[frozenset({"ddim", "lms"})]
    assert unknown > 1.5 * (asked.total() / 3)  # two of six pairs of values


def test_one_pair_in_four_is_one_that_another_voter_answered(pictures):
    choice = make_choice(pictures)
    votes = ask(pictures, choice, 8, lambda *_: "tie")
    votes = ask(pictures, choice, 8, lambda *_: "tie", voter="bo", votes=votes)
    by_voter = {name: {one.pictures for one in votes if one.voter == name} for name in ("ana", "bo")}
    assert len(by_voter["ana"] & by_voter["bo"]) >= 2
    assert len(by_voter["ana"] | by_voter["bo"]) >= 12


def test_choice_depends_on_nothing_but_the_votes(pictures):
    votes = ask(pictures, make_choice(pictures), 6, lambda *_: "tie")
    assert choose(make_choice(pictures), votes) == choose(make_choice(pictures), votes)


def test_axes_that_vary_together_are_one(tmp_path):
    axes = {"sampler": ["euler", "heun"], "sampler.label": ["fast", "slow"], "cfg": [5, 7]}
    sweep = Sweep(axes, skip=frozenset({1, 2, 3, 4, 5, 6}))
    pictures, _ = load(make_folder(tmp_path, sweep))
    (axis,) = pictures.axes
    assert (axis.name, axis.columns, axis.values) == ("sampler", ("sampler", "cfg"), ("fast, 5", "slow, 7"))
    assert make_choice(pictures, "sampler.label").count == make_choice(pictures, "cfg").count == 1


def test_equal_pixels_are_not_offered_and_no_question_is_asked_twice(tmp_path):
    def look(row):  # euler and heun draw the same
        return str({**row.columns, "sampler": "ddim" if row.columns["sampler"] == "ddim" else "euler"})

    pictures, _ = load(hash_pixels(make_folder(tmp_path / "results"), look))
    choice = make_choice(pictures)
    assert (choice.count, choice.equal_count) == (6, 6)  # for each prompt and seed, ddim against the other picture
    (axis, *_) = pictures.axes
    older = vote(pictures, 0, 6, "left")  # of a sweeper that compared files
    assert not list_answers(pictures, axis, [older])
    assert not choice.has_pair(older)
    seen = ask(pictures, choice, 6, prefer(["euler", "heun", "ddim"]))
    assert choose(choice, seen) is None
    for each in seen:
        left, right = (pictures.all[pictures.find(d, "")].row for d in (each.left_digest, each.right_digest))
        assert look(left) != look(right)


def test_equal_files_are_left_out(tmp_path):
    pictures, _ = load(make_folder(tmp_path, Sweep({"sampler": ["a", "b"], "seed": [1, 2]}, distinct=1)))
    choice = make_choice(pictures)
    assert (choice.count, choice.equal_count) == (0, 2)
    assert choose(choice, [], "ana") is None


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (["samplr"], "--between: there is no column 'samplr'; did you mean 'sampler'"),
        (
            ["steps"],
            "--between steps: has one value among the 4 pictures; with several: sampler, seed",
        ),
    ],
)
def test_axis_that_cannot_be_compared_is_named(tmp_path, between, message):
    pictures, _ = load(make_folder(tmp_path, Sweep({"sampler": ["a", "b"], "seed": [1, 2], "steps": [8]})))
    with pytest.raises(UsageError) as refused:
        pictures.select_axes(between)
    assert message in str(refused.value)


def test_seeds_and_prompts_are_compared_only_on_request(tmp_path):
    axes = {"sampler": ["euler", "heun"], "prompt": ["a", "b"], "seed": [1, 2]}
    pictures, _ = load(make_folder(tmp_path / "one", Sweep(axes)))
    assert [axis.name for axis in pictures.select_axes([])] == ["sampler"]
    assert make_choice(pictures, "prompt").count == 4
    seeds, _ = load(make_folder(tmp_path / "other", Sweep({"seed": [1, 2, 3]})))
    with pytest.raises(UsageError, match="no axis to compare among the 3 pictures; give --between with one of: seed"):
        seeds.select_axes([])
    assert make_choice(seeds, "seed").count == 3


def test_results_without_pictures_say_what_is_missing(tmp_path):
    rows = [{"cfg": 1}, {"cfg": 2}]
    pictures, _ = load(write_results(tmp_path, rows, {"quality": [1.0, 2.0]}, failed=[0, 1]))
    with pytest.raises(UsageError, match="no successful trial has a picture to vote on; films, sounds and texts"):
        pictures.select_axes([])


def test_choice_among_thousands_of_trials_is_fast(tmp_path):
    axes = {"sampler": list("abcdefgh"), "cfg": [1, 2, 3, 4], "prompt": list("pqrst"), "seed": list(range(20))}
    folder = make_folder(tmp_path, Sweep(axes, size=(4, 4)))
    with Store.open(folder, readonly=True) as store:
        pictures = VotePictures(store)
    choice = make_choice(pictures)
    assert choice.count == 400 * 28 + 800 * 6
    votes = ask(pictures, choice, 5, lambda *_: "tie")
    start = time.process_time()
    ask(pictures, choice, 10, lambda *_: "left", votes=votes)
    assert time.process_time() - start < 1.0  # about 0.1 s on an idle core
