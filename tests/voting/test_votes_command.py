from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import replace
from itertools import combinations

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.cli import main
from sweeper.cli.commands.vote import _describe
from sweeper.store import Store
from sweeper.store.votes import ANSWERS
from sweeper.tables.vote_pictures import write_metric
from sweeper.voting.ballot import Ballot
from sweeper.voting.vote_files import format_votes, merge_votes
from sweeper.voting.vote_server import VoteServer
from tests.reporting.made_up_searches import SearchSweep
from tests.reporting.made_up_sweeps import Sweep
from tests.voting.folders import SWEEP, hash_pixels, load, make_folder, prefer, vote


def invent(folder, count, *, voter="ana", seed=0, order=("euler", "heun", "ddim"), wrong=0.0):
    """Votes about different pairs by somebody who prefers these samplers in order, with a share of wrong answers."""
    pictures, _ = load(folder)
    (axis, *_) = pictures.axes
    draw, votes = random.Random(seed), []
    pairs = [pair for pair in combinations(range(len(pictures.all)), 2) if axis.separates(*pair)]
    for left, right in (draw.sample(pair, 2) for pair in draw.sample(pairs, count)):
        answer = prefer(list(order))(pictures, left, right)
        answer = draw.choice(ANSWERS) if draw.random() < wrong else answer
        votes.append(vote(pictures, left, right, answer, voter, answered=float(len(votes))))
    return votes


def store_votes(folder, votes):
    with Store.open(folder) as store:
        store.votes.add(*votes)
    pictures, stored = load(folder)
    with Store.open(folder) as store:
        write_metric(store, pictures, stored)


@pytest.fixture(scope="module")
def voted_folder(tmp_path_factory):
    sweep = replace(SWEEP, axes=SWEEP.axes | {"seed": [1, 2, 3, 4]})
    folder = make_folder(tmp_path_factory.mktemp("voted_folder") / "results", sweep)
    pictures, _ = load(folder)
    again = vote(pictures, 0, 8, "bad", shown=2.0)
    store_votes(folder, [*invent(folder, 24), again, vote(pictures, 0, 8, "tie", "bo")])
    return folder


def run(capsys, *arguments):
    code = main([str(one) for one in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_ranking_of_long_samplers_shows_the_words_that_differ(tmp_path, capsys):
    samplers = [
        f"{'a solver with many words ' * 12}of order {order} {'and more words ' * 12}" for order in ("one", "two")
    ]
    folder = make_folder(tmp_path / "results", Sweep({"sampler": samplers, "seed": list(range(12))}))
    store_votes(folder, invent(folder, 12, order=samplers))
    code, out, _ = run(capsys, "votes", folder)
    assert code == 0
    assert "sampler: …of order one and more… is better than …of order two and more…" in out
    assert samplers[0][:60] not in out


def test_ranking_says_in_words_which_values_are_better(voted_folder, capsys):
    code, out, err = run(capsys, "votes", voted_folder)
    assert code == 0
    assert "votes  25: ana 24, bo 1; 1 equal, 1 both bad" in out
    assert "1 votes are about pairs that the voter answered again; only the last one counts" in err
    assert "sampler: euler is better than heun, ddim" in out
    assert "sampler: heun is better than ddim" in out
    assert "undecided" not in out
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["euler", "heun", "ddim"]
    assert "agree  0%: 0 of 1 answers of two voters to the same pair" in out
    assert "fewer than 10 different prompts and seeds have votes" in err


def test_voter_who_always_presses_one_side_is_named(tmp_path, capsys):
    folder = make_folder(tmp_path / "results")
    pictures, _ = load(folder)
    stubborn = [vote(pictures, 0, 6, "right", "bo", id=str(number)) for number in range(12)]
    store_votes(folder, [*invent(folder, 18), *stubborn[:11]])
    assert "chose the" not in run(capsys, "votes", folder)[2]
    store_votes(folder, stubborn[11:])
    said = run(capsys, "votes", folder)[2]
    assert "bo chose the right picture in 12 of 12 votes, although the sides are drawn" in said
    assert json.loads(run(capsys, "votes", folder, "--json")[1])["one_sided"] == {"bo": {"right": 12}}


def test_voter_who_repeats_one_pair_says_no_more_than_once(tmp_path, capsys):
    once, often = (make_folder(tmp_path / name) for name in ("once", "often"))
    for folder, count in ((once, 1), (often, 400)):
        pictures, _ = load(folder)
        store_votes(folder, [vote(pictures, 0, 6, "left") for _ in range(count)])
    code, out, err = run(capsys, "votes", often)
    assert (code, out) == run(capsys, "votes", once)[:2]
    assert "is better than" not in out
    assert "399 votes are about pairs that the voter answered again" in err
    assert list(sweeper.results(often)["votes"].dropna()) == list(sweeper.results(once)["votes"].dropna())


def test_json_has_shares_with_intervals(voted_folder, capsys):
    data = json.loads(run(capsys, "votes", "list", voted_folder, "--json")[1])
    (axis,) = data["axes"]
    assert (data["votes"], data["voters"], axis["votes"]) == (25, {"ana": 24, "bo": 1}, 25)
    euler = axis["values"][0]
    assert 0 <= euler["low"] < euler["share"] < euler["high"] <= 1
    assert (euler["lost"], euler["bad"], euler["tied"]) == (0, 1, 1)
    assert axis["better"][0] == {"better": "euler", "worse": "heun"}


def test_single_pictures_are_ranked(voted_folder, capsys):
    rows = json.loads(run(capsys, "votes", voted_folder, "--pictures", "--json")[1])["pictures"]
    assert rows[0]["sampler"] == "euler"
    assert rows[-1]["sampler"] == "ddim"
    assert [row["share"] for row in rows] == sorted((row["share"] for row in rows), reverse=True)
    assert str(rows[0]["trial"]) in run(capsys, "votes", voted_folder, "--pictures")[1]


def test_votes_are_a_metric_of_the_table(voted_folder, capsys):
    frame = sweeper.results(voted_folder)
    means = frame.groupby("sampler")["votes"].mean()
    assert means["euler"] > means["heun"] > means["ddim"]
    assert "votes" in run(capsys, "results", voted_folder, "--by", "sampler")[1]
    assert run(capsys, "export", voted_folder, "-o", voted_folder / "table.csv")[0] == 0
    assert (voted_folder / "table.csv").read_text().splitlines()[0].endswith("brightness,votes")


def test_metric_follows_a_vote_and_its_undo(tmp_path):
    folder = make_folder(tmp_path / "results", Sweep({"sampler": ["a", "b"], "seed": [1]}, outputs=2))
    assert "votes" not in sweeper.results(folder).columns
    with VoteServer(folder, voter="ana") as server, httpx.Client(base_url=server.url) as client:
        shown = client.post("/next", json={}).json()
        shown = client.post("/next", json={"vote": shown["pair"]["id"], "answer": "left"}).json()
        assert shown["votes"] == 1
        client.get("/start")  # waits until the metric is written
        scores = sorted(sweeper.results(folder)["votes"])
        assert scores == pytest.approx([1 - scores[1], scores[1]])
        assert scores[1] > 0.6
        client.post("/undo", json={"vote": shown["last"]})
        client.get("/start")
        assert sweeper.results(folder)["votes"].isna().all()


def test_folder_without_votes_says_how_to_begin(tmp_path, capsys):
    folder = make_folder(tmp_path / "results")
    assert run(capsys, "votes", folder) == (0, "", f"no votes yet; start with `sweeper vote {folder}`\n")
    assert run(capsys, "votes", folder, "--axis", "samplr")[0] == 2


def test_export_and_import_merge_two_folders(tmp_path, capsys):
    one, other = (make_folder(tmp_path / name) for name in ("one", "other"))
    store_votes(one, invent(one, 5))
    store_votes(other, invent(other, 4, voter="bo", seed=1))
    file = tmp_path / "bo.jsonl"
    assert run(capsys, "votes", "export", other, "-o", file)[2] == f"wrote 4 votes to {file}\n"
    assert run(capsys, "votes", "import", one, file)[1] == f"{file}: 4 new votes, 0 known\n"
    assert run(capsys, "votes", "import", one, file, file)[1] == f"{file}: 0 new votes, 4 known\n"
    assert "ana 5, bo 4" in run(capsys, "votes", one)[1]
    assert sweeper.results(one)["votes"].notna().sum() > sweeper.results(other)["votes"].notna().sum()


def test_votes_about_pictures_that_are_not_here_are_counted(tmp_path, capsys):
    folder = make_folder(tmp_path / "results")
    (known, *_) = invent(folder, 1)
    file = tmp_path / "v.jsonl"
    file.write_text("".join(format_votes([known, replace(known, id="other", left_sha256="0" * 64)])))
    code, out, err = run(capsys, "votes", "import", folder, file)
    assert (code, out) == (0, f"{file}: 1 new votes, 0 known\n")
    assert "1 votes are about pictures that this folder does not have" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "maybe"}, "answer: expected one of left, right, tie, bad, not 'maybe'"),
        ({"left_sha256": "abc"}, "left_sha256: expected a SHA-256 of 64 hexadecimal digits, not 'abc'"),
        ({"voter": ""}, "voter: expected a text of 1 to 200 printable characters"),
        ({"shown": "now"}, "shown: expected seconds since 1970, not 'now'"),
        ({"undone": None}, "undone: expected true or false"),
        ({"more": 1}, "expected a JSON object with the keys id, voter, axis"),
    ],
)
def test_mistakes_in_a_file_are_named_by_line(tmp_path, capsys, change, message):
    folder = make_folder(tmp_path / "results", Sweep({"sampler": ["euler", "heun"], "seed": [1]}))
    (line,) = format_votes(invent(folder, 1))
    file = tmp_path / "v.jsonl"
    file.write_text(line + json.dumps(json.loads(line) | change) + "\n{]\n")
    code, _, err = run(capsys, "votes", "import", folder, file)
    assert code == 2
    assert f"{file}:2: not a vote: {message}" in err
    assert f"{file}:3: not a vote: " in err
    assert load(folder)[1] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 4000, "nested deeper than 100 levels"),
        ('{"id": ' + "9" * 5000 + "}", "a number of more than 4300 digits"),
        ('{"shown": NaN}', "NaN is not JSON"),
        ('{"shown": 1e400}', "1e400 is too large for a number"),
        ("[1", "the text ends before all brackets and braces are closed, column 3"),
    ],
)
def test_hostile_file_of_votes_is_refused(tmp_path, capsys, line, message):
    folder = make_folder(tmp_path / "results", Sweep({"sampler": ["euler", "heun"], "seed": [1]}))
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("".join(format_votes(invent(folder, 1))))
    bad.write_text(f"{line}\n" * 1000)
    code, _, err = run(capsys, "votes", "import", folder, good, bad)
    lines = err.splitlines()
    assert (code, len(lines)) == (2, 4)
    assert all(f"{bad}:{number}: not a vote: {message}" in text for number, text in enumerate(lines[:3], 1))
    assert "this and 996 more are the same mistake" in lines[3]
    assert load(folder)[1] == []


def test_files_of_votes_are_imported_all_or_none(tmp_path, capsys):
    folder = make_folder(tmp_path / "results")
    (one,) = invent(folder, 1)
    store_votes(folder, [one])
    files = [tmp_path / "new.jsonl", tmp_path / "changed.jsonl"]
    files[0].write_text("".join(format_votes(invent(folder, 2))))
    files[1].write_text("".join(format_votes([replace(one, answer="bad")])))
    assert run(capsys, "votes", "import", folder, *files)[0] == 2
    assert load(folder)[1] == [one]


def test_changed_vote_is_refused(tmp_path, capsys):
    folder = make_folder(tmp_path / "results")
    (one,) = invent(folder, 1)
    store_votes(folder, [one])
    file = tmp_path / "v.jsonl"
    file.write_text("".join(format_votes([*invent(folder, 2), replace(one, answer="bad")])))
    code, _, err = run(capsys, "votes", "import", folder, file)
    assert code == 2
    assert "was changed since it was exported, so nothing was imported" in err
    assert load(folder)[1] == [one]


def test_pictures_of_a_search_are_ranked(tmp_path, capsys):
    points = [{"sampler": name} for name in ("euler", "heun", "ddim")]
    search = SearchSweep([points], {"sharpness": lambda _: 1.0}, over={"seed": [1, 2, 3]})
    folder = search.write(tmp_path / "results")
    store_votes(folder, invent(folder, 9))
    code, out, _ = run(capsys, "votes", folder)
    assert code == 0
    assert "euler" in out


def test_own_column_named_votes_is_refused(tmp_path, capsys):
    folder = make_folder(tmp_path / "results", Sweep({"votes": [1, 2]}))
    code, _, err = run(capsys, "vote", folder)
    assert code == 2
    assert "the experiment has a column 'votes', which is the name of the metric of votes" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--between", "samplr"], "--between: there is no column 'samplr'; did you mean 'sampler'"),
        (["--where", "stps > 1"], "--where: "),
        (["--as", " "], "a voter's name has 1 to 60 printable characters"),
    ],
)
def test_mistakes_in_the_options_end_the_command(voted_folder, capsys, options, message):
    code, _, err = run(capsys, "vote", voted_folder, *options)
    assert code == 2
    assert message in err


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two copies of a folder, open."""
    folders = [make_folder(tmp_path_factory.mktemp("merged") / name) for name in ("one", "other")]
    with Store.open(folders[0]) as one, Store.open(folders[1]) as other:
        yield invent(folders[0], 8, wrong=0.5), one, other


@settings(max_examples=30)
@given(st.data())
def test_merge_does_not_depend_on_order_or_repetition(stores, data):
    votes, one, other = stores
    undone = [replace(vote, undone=True) for vote in votes]
    files = data.draw(st.lists(st.lists(st.sampled_from([*votes, *undone]), max_size=6), max_size=4))
    shuffled = [data.draw(st.permutations(file)) for file in data.draw(st.permutations([*files, *files[:1]]))]
    contents = []
    for store, sources in ((one, files), (other, shuffled)):
        store._database.execute("DELETE FROM votes")
        new = sum(merge_votes(store, source, store.path).new for source in sources)
        contents.append(sorted(store.votes.load(), key=lambda vote: vote.id))
        assert new == len(contents[-1])
    assert contents[0] == contents[1]
    assert {(v.id, v.undone) for v in contents[0]} == {
        (v.id, v.undone or any(w.id == v.id and w.undone for file in files for w in file))
        for file in files
        for v in file
    }


def test_votes_about_two_equal_pictures_do_not_count(tmp_path, capsys):
    folder = make_folder(tmp_path / "results")
    pictures, _ = load(folder)
    pairs = [(trial, trial + other) for trial in range(6) for other in (6, 12)]  # euler against heun, and against ddim
    store_votes(folder, [vote(pictures, *pair, "left") for pair in pairs])
    hash_pixels(folder, lambda row: f"{row.columns['prompt']} {row.columns['seed']} {row.columns['sampler'] == 'ddim'}")
    code, out, err = run(capsys, "votes", folder)
    assert code == 0
    assert "6 votes are about two equal pictures, which nobody can tell apart; not counted" in err
    assert "votes  6: ana 6" in out
    assert "euler is better than heun" not in out
    code, out, _ = run(capsys, "votes", folder, "--json")
    values = {value["value"]: value for value in json.loads(out)["axes"][0]["values"]}
    assert [(values[name]["won"], values[name]["lost"]) for name in ("euler", "heun", "ddim")] == [
        (6, 0),
        (0, 0),
        (0, 6),
    ]


def test_equal_pictures_share_one_number_of_votes(tmp_path):
    folder = hash_pixels(make_folder(tmp_path / "results"), lambda row: str(row.trial % 6 + 6 * (row.trial > 11)))
    pictures, _ = load(folder)
    store_votes(folder, [vote(pictures, 0, 12, "left")])
    with Store.open(folder, readonly=True) as store:
        numbers = [row.metrics.get("votes") for row in store.results()]
    assert numbers[0] == numbers[6] > 0.5 > numbers[12]  # the picture of trial 6 is that of trial 0


def test_vote_says_how_many_pictures_no_run_has_hashed(tmp_path):
    folder = make_folder(tmp_path / "results")
    with closing(Ballot(folder)) as ballot:
        assert ballot.summary["unhashed"] == 18
        assert "18 are compared by their files only" in _describe(ballot.summary)
    hash_pixels(folder, lambda row: str(row.trial))
    with closing(Ballot(folder)) as ballot:
        assert ballot.summary["unhashed"] == 0
        assert "compared by their files" not in _describe(ballot.summary)
