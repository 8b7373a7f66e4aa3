"""`sweeper compare --verdict`: on results whose truth is planted, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweeper.cli import main
from sweeper.model.result import PIXEL_HASH
from sweeper.model.search_columns import Objective, SearchColumns
from sweeper.store import Store
from tests.tables.written_results import make_grid, write_results

PROMPTS, SEEDS = ["a fox", "a lighthouse", "a teapot", "an owl", "a boat", "a hill"], [1, 2, 3, 4]


def plant(rows, seed=0, **effects):
    """Metrics whose new checkpoint differs by an effect; prompts, seeds and noise make them vary by about 10."""
    rng = np.random.default_rng(seed)
    metrics = {}
    for name, effect in effects.items():
        base = {value: rng.normal(0, 7) for value in (*PROMPTS, *SEEDS)}
        metrics[name] = [
            100 + base[row["prompt"]] + base[row["seed"]] + effect * (row["checkpoint"] == "new") + rng.normal(0, 0.5)
            for row in rows
        ]
    return metrics


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """One folder with an axis `checkpoint`."""
    rows = make_grid(checkpoint=["old", "mid", "new"], prompt=PROMPTS, seed=SEEDS)
    effects = {"aesthetic": 6.0, "entropy": -4.0, "contrast": 0.1, "steady": 0.0}
    return write_results(tmp_path_factory.mktemp("swept") / "results", rows, plant(rows, **effects))


@pytest.fixture
def compare(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main(["compare", *map(str, arguments)])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


def judge(compare, *arguments):
    code, out, err = compare(*arguments, "--verdict", "--json")
    assert err == ""
    answer = json.loads(out)
    return code, answer, {one["metric"]: one["verdict"] for one in answer["metrics"]}


def test_planted_differences_of_an_axis_get_the_right_words(swept, compare):
    code, answer, words = judge(compare, swept, "--axis", "checkpoint=old,new", "--minimize", "contrast")
    assert words == {"aesthetic": "better", "entropy": "lower", "contrast": "equivalent", "steady": "equivalent"}
    assert (code, answer["verdict"], answer["matched_pairs"]) == (1, "undecided", 24)
    aesthetic = answer["metrics"][0]
    assert aesthetic["low"] < 6 < aesthetic["high"]
    assert aesthetic["difference"] == pytest.approx(aesthetic["new"] - aesthetic["old"])
    assert 1 < aesthetic["margin"] < 3


def test_exit_code_says_whether_anything_may_be_worse(swept, compare):
    axis = ("--axis", "checkpoint=old,new")
    assert judge(compare, swept, *axis, "--minimize", "entropy")[0] == 0
    code, answer, words = judge(compare, swept, *axis, "--metric", "entropy,contrast", "--maximize", "entropy")
    assert (code, answer["verdict"], words["entropy"]) == (1, "worse", "worse")
    code, answer, _ = judge(compare, swept, "--axis", "checkpoint=old,mid")
    assert (code, answer["verdict"]) == (0, "equivalent")


def test_margin_decides_what_counts(swept, compare):
    small = ("--axis", "checkpoint=old,new", "--metric", "contrast", "--margin")
    assert judge(compare, swept, *small, "contrast=3")[2] == {"contrast": "equivalent"}
    _, answer, words = judge(compare, swept, *small, "contrast=0.3")
    assert words == {"contrast": "undecided"}
    assert 0 < answer["metrics"][0]["reach"] < 1
    wide = ("--axis", "checkpoint=old,new", "--metric", "aesthetic", "--margin", "aesthetic=20")
    assert judge(compare, swept, *wide)[2] == {"aesthetic": "equivalent"}


def test_words_come_first_and_name_the_next_step(swept, compare):
    code, out, _ = compare(swept, "--axis", "checkpoint=old,new", "--verdict", "--margin", "steady=0.01")
    assert code == 1
    words, table = out.split("\n\n")
    first, aesthetic, entropy, contrast, steady = words.splitlines()
    assert first == "undecided on these 6 prompts: checkpoint new against old, over 24 matched pairs (prompt 6, seed 4)"
    interval = r"\d\.\d+ \(\d\.\d+ to \d\.\d+\) on these 6 prompts(; for other prompts: \d| and for other prompts)"
    assert re.match(rf"  aesthetic: better\. new is higher than old in 24 of 24 pairs, by {interval}", aesthetic)
    assert entropy.startswith("  entropy: lower. old is higher than new in 24 of 24 pairs, by ")
    assert entropy.endswith("; is that better? Give --maximize entropy or --minimize entropy")
    assert re.search(r"\) on these 6 prompts; that is within the margin of [\d.]+$", contrast)
    assert steady.startswith("  steady: undecided. ")
    assert "; with 4 more seeds, differences above 0." in steady
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [
        ["aesthetic", "better"], ["entropy", "lower"], ["contrast", "equivalent"], ["steady", "undecided"],
    ]  # fmt: skip


@pytest.fixture
def two_folders(tmp_path):
    """An old and a new checkpoint in folders of their own. The new one has another prompt, and cfg as an axis."""
    old = make_grid(checkpoint=["old"], prompt=PROMPTS, seed=SEEDS)
    new = make_grid(checkpoint=["new"], prompt=[*PROMPTS[1:], "a car"], seed=SEEDS, lora=["ink", "oil"])
    values = plant([*old, *make_grid(checkpoint=["new"], prompt=PROMPTS, seed=SEEDS)], aesthetic=5.0)["aesthetic"]
    by_cell = dict(zip([(row["prompt"], row["seed"]) for row in old], values[len(old) :], strict=True))
    scores = [by_cell.get((row["prompt"], row["seed"]), 0.0) + (row["lora"] == "oil") for row in new]
    return (
        write_results(tmp_path / "before", old, {"aesthetic": values[: len(old)], "own": [1.0] * len(old)}),
        write_results(tmp_path / "after", new, {"aesthetic": scores}),
    )


def test_two_folders_are_matched_by_what_they_have_in_common(two_folders, compare):
    code, answer, words = judge(compare, *two_folders)
    assert (code, words, answer["matched_pairs"]) == (0, {"aesthetic": "better"}, 20)
    assert answer["metrics"][0]["difference"] == pytest.approx(5.5, abs=0.6)
    assert answer["notes"] == [
        "checkpoint is not matched: before has old and after has new",
        "lora is not matched: after has ink, oil alone; the mean over them is compared",
        "4 of 24 trials of before match none of after",
        "8 of 48 trials of after match none of before",
        "own is a metric of before alone, so it is not judged",
    ]


def test_other_seeds_on_each_side_are_refused(tmp_path, compare):
    rows = {name: make_grid(prompt=PROMPTS, seed=seeds) for name, seeds in (("a", [1, 2]), ("b", [3, 4]))}
    folders = [write_results(tmp_path / name, own, {"entropy": list(range(12))}) for name, own in rows.items()]
    code, _, err = compare(*folders, "--verdict")
    assert code == 2
    assert (
        "seed: a and b have no value in common, so a difference may be due to the seeds; run both with the same" in err
    )
    own_seeds = [{**row, "seed": 100 * number + index} for number in (1, 2) for index, row in enumerate(rows["a"])]
    halves = [{"checkpoint": "old"}] * 12 + [{"checkpoint": "new"}] * 12
    mixed = [{**half, **row} for half, row in zip(halves, own_seeds, strict=True)]
    folder = write_results(tmp_path / "own", mixed, {"entropy": list(range(12)) + list(range(1, 25, 2))})
    _, answer, _ = judge(compare, folder, "--axis", "checkpoint=old,new")
    assert answer["matched_pairs"] == 6


def test_same_pictures_are_equivalent_and_equal_numbers_say_nothing(tmp_path, compare):
    rows = make_grid(prompt=PROMPTS, seed=SEEDS)
    same = write_results(tmp_path / "one", rows, {"contrast": list(range(24))})
    code, answer, words = judge(compare, same, same)
    assert (code, words) == (0, {"contrast": "equivalent"})
    assert answer["metrics"][0]["note"] == "The pictures of all 24 pairs are equal"
    other = write_results(tmp_path / "other", rows, {"contrast": list(range(24))}, runs=2)  # other files
    assert judge(compare, same, other)[2] == {"contrast": "undecided"}
    for folder in (same, other):
        with Store.open(folder) as store:
            store.cache_metrics([(row.sha256[0], PIXEL_HASH, str(row.trial)) for row in store.results()])
    assert judge(compare, same, other)[2] == {"contrast": "equivalent"}
    constant = make_grid(checkpoint=["a", "b"], prompt=PROMPTS)
    folder = write_results(tmp_path / "two", constant, {"share": [1.0] * 12})
    code, answer, words = judge(compare, folder, "--axis", "checkpoint=a,b")
    assert (code, words) == (1, {"share": "undecided"})
    assert answer["metrics"][0]["note"].startswith("All 6 pairs are equal")
    code, answer, words = judge(compare, folder, "--axis", "checkpoint=a,b", "--margin", "share=0.5")
    assert (code, words) == (0, {"share": "equivalent"})
    out = compare(folder, "--axis", "checkpoint=a,b", "--margin", "share=0.5", "--verdict")[1]
    assert (
        "share: equivalent. b and a are equal on average: 0 on these 6 prompts; that is within the margin of 0.5" in out
    )


@pytest.mark.parametrize(("margin", "word"), [("0.5", "equivalent"), ("0.1", "higher")])
def test_equal_differences_are_held_against_the_margin(tmp_path, compare, margin, word):
    rows = make_grid(checkpoint=["a", "b"], prompt=PROMPTS)
    folder = write_results(tmp_path / "r", rows, {"share": [1.0] * 6 + [1.25] * 6})
    assert judge(compare, folder, "--axis", "checkpoint=a,b", "--margin", f"share={margin}")[2] == {"share": word}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--axis", "chekpoint=old,new"], "--axis: there is no axis 'chekpoint'; did you mean 'checkpoint'?"),
        (["--axis", "checkpoint=old,nwe"], "no trial has checkpoint 'nwe'; did you mean 'new'?"),
        (["--axis", "checkpoint=old,old"], "give two different values"),
        (["--axis", "checkpoint"], "write NAME=OLD,NEW"),
        (["--axis", "checkpoint=old"], "write two values, --axis checkpoint=OLD,NEW; there are old, mid, new"),
        (["--axis", "checkpoint=old,new", "--metric", "entrop"], "--metric: there is no metric 'entrop'; did you mean"),
        (["--axis", "checkpoint=old,new", "--margin", "entropy=0"], "with a number above 0, such as sharpness=2"),
        (["--axis", "checkpoint=old,new", "--over", "sed"], "--over: there is no axis 'sed'; did you mean 'seed'?"),
        (["--axis", "checkpoint=old,new", "--over", "checkpoint"], "--over: 'checkpoint' is also in --axis"),
        (
            ["--axis", "checkpoint=old,new", *["--margin", "entropy=1", "--margin", "entropy=2"]],
            "has the margin 1 already",
        ),
        ([], "one RUN only"),
    ],
)
def test_wrong_options_end_with_code_2_and_the_next_step(swept, compare, arguments, message):
    code, out, err = compare(swept, *arguments, "--verdict")
    assert (code, out) == (2, "")
    assert message in err


def test_mistakes_in_several_options_are_reported_at_once(swept, compare):
    options = ["--axis=checkpoint=old,nwe", "--margin=entropy", "--margin=entrop=1", "--metric=x", "--over=sed,prmpt"]
    code, _, err = compare(swept, *options, "--verdict")
    assert code == 2
    for start in (
        "--axis ",
        "--margin entropy:",
        "--margin: ",
        "--metric: ",
        "--over: there is no axis 'sed'",
        "--over: there is no axis 'prmpt'",
    ):
        assert f"error: {start}" in err


def test_numbers_of_an_axis_are_found_in_any_form(tmp_path, compare):
    folder = write_results(tmp_path / "r", make_grid(cfg=[3.0, 7.5], seed=SEEDS), {"entropy": list(range(8))})
    answers = [judge(compare, folder, "--axis", f"cfg={values}")[1] for values in ("3,7.5", "3.0,7.50")]
    assert [answer["matched_pairs"] for answer in answers] == [4, 4]
    assert {answer["old"] for answer in answers} == {"3"}  # as `sweeper effects` shows it


def test_search_is_judged_only_where_its_points_match(tmp_path, compare):
    points = [("euler", 3.1), ("heun", 7.2), ("euler", 5.5), ("heun", 9.9)]
    rows = [
        {"sampler": sampler, "cfg": cfg, "prompt": prompt, "round": 1} for sampler, cfg in points for prompt in PROMPTS
    ]
    search = SearchColumns((Objective("entropy"),), ("sampler", "cfg"), ("prompt",))
    folder = write_results(tmp_path / "r", rows, {"entropy": list(range(24))}, search=search)
    words = judge(compare, folder, "--axis", f"prompt={PROMPTS[0]},{PROMPTS[1]}")[2]
    assert list(words) == ["entropy"]  # neither the round nor the objective of a point
    code, _, err = compare(folder, "--axis", "sampler=euler,heun", "--verdict")
    assert code == 2
    assert "cfg: the search tried no value of it for both euler and heun, so a difference may be due to cfg" in err
    assert f"run: sweeper effects {folder} --axis sampler" in err


def test_options_of_a_verdict_need_verdict(swept, compare):
    code, _, err = compare(swept, swept, "--metric", "entropy", "--html", "x")
    assert code == 2
    assert "--metric and --html: this belongs to a verdict; add --verdict" in err


def test_numbers_near_the_largest_float_give_no_verdict(tmp_path, compare):
    rows = make_grid(checkpoint=["old", "new"], prompt=PROMPTS)
    folder = write_results(tmp_path / "r", rows, {"huge": [1e300 * index for index in range(12)]})
    _, answer, words = judge(compare, folder, "--axis", "checkpoint=old,new")
    assert words == {"huge": "undecided"}
    assert answer["metrics"][0]["note"] == "The numbers are too large to compute with"


def test_results_of_one_pair_give_no_verdict(tmp_path, compare):
    folder = write_results(tmp_path / "r", make_grid(checkpoint=["a", "b"]), {"contrast": [1.0, 2.0]})
    code, answer, words = judge(compare, folder, "--axis", "checkpoint=a,b")
    assert (code, words) == (1, {"contrast": "undecided"})
    assert answer["metrics"][0]["note"] == "There is only one matched pair; a verdict needs several"


def test_markdown_and_page_show_the_pairs_that_differ_most(swept, compare, tmp_path):
    with Store.open(swept, readonly=True) as store:
        for number, (path, _) in enumerate(store.files()):
            (swept / path).parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 16), (number, 99, 9)).save(swept / path)
    comment, page = tmp_path / "comment.md", tmp_path / "page" / "verdict.html"
    compare(swept, "--axis", "checkpoint=old,new", "--verdict", "--markdown", comment, "--html", page)
    text = comment.read_text("utf-8")
    assert text.startswith("### ❌ undecided on these 6 prompts: checkpoint new against old, over 24 matched pairs")
    assert len(re.findall(r"^\| prompt=a", text, flags=re.MULTILINE)) == 6
    assert len(text) < 6000
    html = page.read_text("utf-8")
    assert html.count("<figure") == 12
    assert html.count('<img src="data:image/jpeg;base64,') == 12
    assert not re.search(r"src=\"(?!data:)|href=|<script", html)
    assert list(page.parent.iterdir()) == [page]


def test_where_chooses_what_a_verdict_compares(swept, compare, capsys):
    options = [swept, "--axis", "checkpoint=old,new", "--metric", "contrast"]
    _, whole, _ = judge(compare, *options)
    _, answer, _ = judge(compare, *options, "--where", f"seed == {SEEDS[0]}")
    assert (whole["matched_pairs"], answer["matched_pairs"]) == (24, 6)
    assert answer["notes"][0] == f"only the trials with seed == {SEEDS[0]}"
    for condition, says in (("sed == 1", "there is no column 'sed'"), ("seed == 99", "matches none of the")):
        assert main(["compare", *map(str, options), "--verdict", "--where", condition]) == 2
        assert says in capsys.readouterr().err
    assert main(["compare", str(swept), str(swept), "--where", "seed == 1"]) == 2
    assert "--where: this belongs to a verdict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"), [("", "this is a folder; name a file"), ("file/r.md", "is a file, and a folder")]
)
def test_report_that_cannot_be_written_is_one_sentence(swept, tmp_path, capsys, name, says):
    (tmp_path / "file").write_text("")
    options = ["--axis", "checkpoint=old,new", "--verdict", "-o"]
    file = tmp_path / name if name else ""
    assert main(["compare", str(swept), *options, str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert main(["compare", str(swept), *options, str(tmp_path / "new" / "r.md")]) == 1
    assert capsys.readouterr().err == f"report {tmp_path / 'new' / 'r.md'}\n"


def test_page_and_comment_show_texts_only_as_text(tmp_path, compare):
    evil = "<img src=x onerror=alert(1)>|`x`"
    rows = make_grid(checkpoint=["a", evil], prompt=["<b>", "|", "c"], seed=[1, 2, 3])
    folder = write_results(tmp_path / "r", rows, {"contrast": list(np.random.default_rng(1).normal(0, 1, len(rows)))})
    page, comment = tmp_path / "v.html", tmp_path / "v.md"
    compare(folder, "--axis", f"checkpoint=a,{evil}", "--verdict", "--html", page, "--markdown", comment)
    assert "<img" not in page.read_text("utf-8")
    assert "<b>" not in page.read_text("utf-8")
    assert not re.search(r"(?<!\\)<(img|b)", comment.read_text("utf-8"))
    assert Path(page).stat().st_size < 50_000
