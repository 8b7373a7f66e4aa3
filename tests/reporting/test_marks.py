"""Marks travel: saved and loaded as a file, given to `sweeper report`, and kept in the folder by the live page."""

from __future__ import annotations

import json
import random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.cli import main
from sweeper.errors import ResultsError
from sweeper.reporting.live import LiveView
from sweeper.reporting.live.follower import Follower
from sweeper.store import Store
from sweeper.store.votes import Mark, merge_marks
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import open_menu, press_in_menu
from tests.waiting import wait_until

SWEEP = Sweep({"steps": [1, 2, 3]})
MARK = "([row, mark]) => sweeper.page.marks.set(row, mark)"
READ = "[0, 1, 2].map(row => Object.values(sweeper.page.marks.get(row)))"


def load_marks(out):
    with Store.open(out, readonly=True) as store:
        return {mark.digest: (mark.verdict, mark.stars, mark.comment) for mark in store.marks.load()}


def test_marks_are_saved_loaded_and_shown_by_the_report(made, opened, browser, tmp_path, capsys):
    first = opened(made(SWEEP))
    first.evaluate(MARK, [0, {"verdict": "keep", "comment": "like <b>this</b>"}])
    first.evaluate(MARK, [1, {"stars": 4}])
    open_menu(first, "Marks")
    with first.expect_download() as download:
        first.get_by_role("button", name="Send marks (file)").click()
    file = tmp_path / "marks.json"
    download.value.save_as(file)
    assert main(["report", str(tmp_path / "results"), "--marks", str(file)]) == 0
    second = opened(tmp_path / "results" / "report")  # another browser, with marks of its own
    expected = [["keep", 0, "like <b>this</b>"], ["", 4, ""], ["", 0, ""]]
    assert second.evaluate(READ) == expected
    second.evaluate(MARK, [0, {"verdict": "reject"}])  # newer than the file
    second.evaluate(MARK, [2, {"stars": 1}])
    press_in_menu(second, "Marks", "Open marks…")
    second.locator("input[type=file]").set_input_files(file)
    second.wait_for_function("() => document.querySelector('#message').textContent.startsWith('0 of 2 marks')")
    assert second.evaluate(READ) == [["reject", 0, "like <b>this</b>"], ["", 4, ""], ["", 1, ""]]
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"sweeper_marks": 1, "marks": null}')
    second.locator("input[type=file]").set_input_files(wrong)
    second.wait_for_function(
        "() => document.querySelector('#message').textContent.includes('not a file of saved marks')"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nope", "a value cannot begin with nope"),
        ("{}", "this is not a file of marks; the page writes one with `Marks > Send marks`"),
        ('{"sweeper_marks": 1, "marks": {"x": {}}}', "'x' must be the digest of a trial, with a mark"),
        (json.dumps({"sweeper_marks": 1, "marks": {"a" * 64: {"stars": 9}}}), "0 to 5 stars"),
    ],
)
def test_wrong_file_of_marks_is_refused(tmp_path, capsys, text, told):
    out = SWEEP.write(tmp_path / "results")
    (tmp_path / "marks.json").write_text(text)
    assert main(["report", str(out), "--marks", str(tmp_path / "marks.json")]) == 2
    assert told in capsys.readouterr().err
    assert not (out / "report").exists()


def test_live_page_writes_marks_into_the_folder_and_shows_them_to_others(browser, tmp_path):
    out = SWEEP.write(tmp_path / "results")
    with LiveView(out) as view:
        pages = [browser.new_context().new_page() for _ in range(2)]
        for page in pages:
            page.goto(f"{view.url}#view=grid")
            page.wait_for_selector(".cell[data-trial]")
        here, there = pages
        here.evaluate(MARK, [1, {"verdict": "keep"}])
        there.wait_for_selector('.cell.keep[data-trial="1"]')
        wait_until(lambda: list(load_marks(out).values()) == [("keep", 0, "")])
        there.evaluate(MARK, [1, {"verdict": "", "comment": "no"}])
        here.wait_for_function("() => !document.querySelector('.cell.keep')")
        wait_until(lambda: list(load_marks(out).values()) == [("", 0, "no")])
        digest = next(iter(load_marks(out)))
        answers = [
            httpx.post(f"{view.url}marks", json={digest: {"stars": 9}}),
            httpx.post(f"{view.url}marks", json={digest: {"stars": 2}}, headers={"origin": "http://evil.example"}),
            httpx.post(f"{view.url}marks", json={digest: {"stars": 2, "changed": 1}}),  # older than what is there
        ]
        assert [answer.status_code for answer in answers] == [400, 403, 204]
    assert load_marks(out) == {digest: ("", 0, "no")}
    for page in pages:
        page.context.close()


def test_mark_is_sent_again_when_the_view_is_back(browser, tmp_path):
    out = SWEEP.write(tmp_path / "results")
    with LiveView(out) as view:
        port = int(view.url.rstrip("/").rpartition(":")[2])
        page = browser.new_context().new_page()
        page.goto(f"{view.url}#view=grid")
        page.wait_for_selector(".cell[data-trial]")
    page.evaluate(MARK, [0, {"stars": 3}])  # nobody listens now
    with LiveView(out, port=port):
        wait_until(lambda: list(load_marks(out).values()) == [("", 3, "")])
        page.wait_for_function("() => document.querySelector('.counts').textContent.includes('finished')")
    page.context.close()


def test_page_says_why_the_folder_takes_no_marks(browser, tmp_path, monkeypatch):
    def refuse(follower, marks):
        raise ResultsError("the folder is not writable")

    monkeypatch.setattr(Follower, "store_marks", refuse)
    with LiveView(SWEEP.write(tmp_path / "results")) as view:
        page = browser.new_context().new_page()
        page.goto(f"{view.url}#view=grid")
        page.wait_for_selector(".cell[data-trial]")
        page.evaluate(MARK, [0, {"stars": 3}])
        told = "the mark is kept in this browser only: the folder is not writable"
        page.wait_for_function("told => document.querySelector('#message').textContent === told", arg=told)
        page.context.close()


MARKS = st.lists(
    st.builds(
        Mark,
        st.sampled_from(["a" * 64, "b" * 64]),
        st.sampled_from(["", "keep"]),
        st.integers(0, 5),
        changed=st.integers(1, 9),
    ),
    unique_by=lambda mark: (mark.digest, mark.changed),
)


@given(MARKS, st.randoms())
def test_marks_merge_in_any_order_and_any_number_of_times(marks: list[Mark], shuffle: random.Random):
    shuffled = [*marks, *marks[:2]]
    shuffle.shuffle(shuffled)
    cut = len(shuffled) // 2
    merged = {*merge_marks(marks)}
    assert {*merge_marks(merge_marks(shuffled[:cut]), shuffled[cut:])} == merged
