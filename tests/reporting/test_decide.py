"""The view Decide: its choice comes from the answers of effects and votes, and leads to pictures and commands."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from sweeper.cli import main
from sweeper.reporting import page_answers
from sweeper.store import Store
from sweeper.store.votes import Mark, Vote
from sweeper.tables.vote_pictures import VotePictures, write_metric
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address

AXES = {"steps": [4, 8, 16], "sampler": ["euler", "heun"], "seed": [1, 2, 3]}
NUMBERS = {4: 20.0, 8: 40.0, 16: 40.2, "euler": 0.0, "heun": 5.0}  # what a value adds; a seed adds little
NOISE = [0.1, -0.1, 0.0, -0.1, 0.2]


@pytest.fixture
def results(tmp_path):
    """The results of a sweep whose metric is known: 8 steps are as good as 16, and `heun` is better than `euler`."""
    return measure(Sweep(AXES).write(tmp_path / "results"))


def measure(out):
    with Store.open(out) as store:
        for i, row in enumerate(list(store.results())):
            value = NUMBERS[row.columns["steps"]] + NUMBERS[row.columns["sampler"]] + NOISE[i % 5]
            store.cache_metrics([(sha256, "brightness", value) for sha256 in row.sha256])
    return out


def write(results, *options):
    assert main(["report", str(results), *options]) == 0
    return results / "report"


def read_chips(page):
    return page.locator(".decide aside .chip").all_inner_texts()


def test_first_view_shows_the_best_settings_and_the_grid_their_means(results, opened):
    page = opened(write(results))
    assert page.get_by_role("tab", selected=True).inner_text() == "Decide"
    assert read_chips(page) == ["steps 8", "sampler heun", "seed 1"]
    facts = page.locator(".facts li").all_inner_texts()
    assert "steps: 8 is as good as 16 for 50 % of the steps; they differ by 0.2" in facts[0].replace("\n", " ")
    assert "sampler: heun is better than euler, the next, by 5" in facts[1].replace("\n", " ")
    # A press on a value moves the picture and the address.
    page.get_by_role("button", name="euler", exact=False).first.click()
    assert read_chips(page) == ["steps 8", "sampler euler", "seed 1"]
    assert "choice=steps:8,sampler:euler,seed:1" in page.url
    address = f"#{page.url.partition('#')[2]}"
    change_address(page, "#x=steps&y=sampler")  # from before there was this view
    assert page.get_by_role("tab", selected=True).inner_text() == "Grid"
    change_address(page, address)
    assert read_chips(page) == ["steps 8", "sampler euler", "seed 1"]
    page.get_by_role("button", name="Compare with the best").click()
    assert page.locator("#zoom figcaption").count() == 2
    page.keyboard.press("Escape")
    page.get_by_label("Judged by").select_option("-brightness")
    assert read_chips(page) == ["steps 4", "sampler euler", "seed 1"]
    # The heads of the grid say the mean and how many are kept.
    change_address(page, "#view=grid&x=steps&y=sampler&colour=brightness")
    page.evaluate("sweeper.page.marks.set(0, { verdict: 'keep' })")
    heads = page.locator(".head").all_inner_texts()
    assert [head.replace("\n", " ") for head in heads] == [
        "steps 4 mean 22.5 · 1 kept",
        "steps 8 mean 42.5",
        "steps 16 mean 42.7",
    ]
    assert "mean" in page.locator(".side").first.inner_text()
    assert "1 kept" in page.locator(".row").first.get_attribute("aria-label")


def test_pictures_are_of_a_seed_without_accidents(opened, tmp_path):
    ends = {4: ("failed", ("E", "boom"))}  # 4 steps of `heun` with the second seed; with the first, it is black
    out = measure(Sweep(AXES, ends=ends).write(tmp_path / "results"))
    Image.new("RGB", (64, 48)).save(out / "artifacts" / "picture-3.png")
    assert read_chips(opened(write(out))) == ["steps 8", "sampler heun", "seed 3"]


def test_settings_and_more_seeds_are_copied(results, opened):
    file = write(results) / "data.js"
    file.write_text(file.read_text().replace('"more_seeds":0', '"more_seeds":2'))
    page = opened(results / "report", permissions=["clipboard-read", "clipboard-write"])

    def press(name):
        page.get_by_role("button", name=name).click()
        return page.evaluate("navigator.clipboard.readText()")

    page.get_by_role("button", name="Use these settings").click()
    looks = "item => [getComputedStyle(item).color, getComputedStyle(item).backgroundColor]"
    text, ground = page.get_by_role("button", name="Copy as options").evaluate(looks)
    assert (text == page.evaluate("getComputedStyle(document.body).color"), text != ground) == (True, True)
    assert press("Copy as options") == "--set steps=8 --set 'sampler=\"heun\"'"
    assert press("Copy as params") == 'params:\n  "steps": 8\n  "sampler": "heun"\n'
    assert "--set 'seed=[1, 2, 3, 4, 5]' --out" in press("Run 2 more seeds")


def test_votes_come_first_with_their_counts_and_what_is_undecided(results, opened):
    with Store.open(results) as store:
        sides = {row.columns["sampler"]: (row.digest, row.sha256[0]) for row in store.results() if row.trial in (6, 9)}
        votes = [Vote(f"v{n}", f"voter {n}", "sampler", *sides["heun"], *sides["euler"], n, n + 0.5, answer)
                 for n, answer in enumerate(["left", "left", "right"])]  # fmt: skip
        store.votes.add(*votes)
        write_metric(store, VotePictures(store), votes)
    page = opened(write(results))
    words = page.locator(".strips section").first.locator(".value .words").all_inner_texts()
    assert ["1 of 3" in text and "?" in text for text in words] == [True, False]
    assert "2 of 3" in words[1]
    assert page.locator(".facts .is-undecided").inner_text().endswith("heun has the most wins")
    change_address(page, "#view=plots&metric=votes")
    assert page.locator(".ranking tr").first.inner_text().split("\t")[-2:] == ["38 % · 1 of 3", "undecided"]


def test_marks_are_counted_and_the_kept_trial_comes_first(made, opened, tmp_path):
    out = Sweep(AXES).write(tmp_path / "results")
    with Store.open(out) as store:
        digests = [row.digest for row in store.results()]
        store.marks.add([Mark(digests[5], "keep", changed=1), Mark(digests[0], "reject", changed=1)])
    page = opened(made(Sweep(AXES)))
    assert page.get_by_role("tab", selected=True).inner_text() == "Decide"
    assert read_chips(page) == ["steps 4", "sampler heun", "seed 3"]
    assert "kept 1 of 2" in page.locator(".strips section").first.inner_text()


def test_report_says_if_there_are_too_many_trials_to_analyse(results, opened, monkeypatch):
    monkeypatch.setattr(page_answers, "_MAX_ANSWERED", 10)
    page = opened(write(results), "#view=plots&metric=brightness")
    said = page.locator(".plots section").first.inner_text()
    assert "18 trials are too many to analyse for this page; run `sweeper effects " in said


def test_first_mark_brings_decide_and_the_count_of_the_kept(made, opened):
    page = opened(made(Sweep({"steps": [4, 8], "cfg": [1]}, name="plain")), "#view=grid&x=steps&y=cfg")
    decide, head = page.get_by_role("tab", name="Decide"), page.locator(".head").first
    page.evaluate("sweeper.page.dataset.raw.answers = {}")
    page.locator("[role=grid]").focus()
    for key, shown in (("k", "steps 4 1 kept"), ("k", "steps 4")):
        page.keyboard.press(key)
        assert (head.inner_text().replace("\n", " "), decide.is_visible()) == (shown, "kept" in shown)


def test_data_have_each_value_of_the_answer_by_its_code(results):
    data = json.loads((write(results) / "data.json").read_text())
    highest, lowest = data["answers"]["by_metric"]["brightness"]["choices"]
    steps = next(axis for axis in highest["axes"] if axis["columns"] == ["steps"])
    assert [(value["cells"], value["verdict"]) for value in steps["values"]] == [
        ([0], "worse"), ([1], "equal"), ([2], "best"),
    ]  # fmt: skip
    assert all(value["low"] <= value["mean"] <= value["high"] for value in steps["values"])
    assert (highest["maximize"], lowest["maximize"]) == (True, False)


def test_width_and_height_that_vary_together_are_one_size(opened, tmp_path):
    axes, pairs = {"width": [64, 96], "height": [64, 48], "seed": [1, 2, 3]}, (("width", "height"),)
    sweep = Sweep(axes, skip=frozenset(range(3, 9)), together=pairs)
    out = sweep.write(tmp_path / "sizes")
    with Store.open(out) as store:
        rows = list(store.results())
        store.cache_metrics([(row.sha256[0], "brightness", row.columns["width"] + row.trial % 3) for row in rows])
    page = opened(write(out), "#view=decide")
    assert read_chips(page)[0].startswith("width x height ")
    assert re.match(r"width x height · \d+ % of the differences", page.locator(".strips h3").first.inner_text())
    assert re.search(r"^(64 x 64|96 x 48)$", page.locator(".decide aside .values").inner_text(), re.MULTILINE)
