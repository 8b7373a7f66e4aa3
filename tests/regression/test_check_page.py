"""The page of a check in a real browser: the report of the run, opened on what is not the same as accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from tests.reporting.page_actions import press_in_menu, read_all


@pytest.fixture
def open_page(lend_pages):
    """Open a page from disk. The test fails if the page logs to the console, throws, or uses the network."""
    trouble = []
    hear = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
        "request": lambda one: trouble.append(one.url) if not one.url.startswith(("file:", "blob:")) else None,
    }
    with lend_pages(hear) as lend:

        def visit(file: Path):
            page = lend(viewport={"width": 1200, "height": 800})
            page.goto(file.resolve().as_uri())
            page.wait_for_selector("#view > *")
            return page

        yield visit
    assert trouble == []


def list_trials(page):
    return read_all(page, "#view .cell[data-trial]", "cells => cells.map(one => Number(one.dataset.trial))")


def test_accept_takes_what_was_kept_on_the_page(shop, command, open_page):
    shop.write(steps=(3, 5, 7))
    assert command("run", "shop.yaml", "-q").code == 0
    assert command("accept", "results/shop").code == 0
    shop.rewire(cfg=2.0)
    assert command("check", "shop.yaml", "--html", "page", "--attribute", "-q").code == 1
    page = open_page(Path("page/index.html"))
    assert sorted(list_trials(page)) == [0, 1, 2]
    severities = page.evaluate(
        "sweeper.page.getSortedRows().map(row => sweeper.page.dataset.column('check_severity').value(row))"
    )
    assert severities == sorted(severities, reverse=True)
    page.locator("#view .cell").first.click()
    assert page.locator("#zoom figcaption").all_inner_texts()[0] == "Accepted"
    assert "cfg 7 -> 2 in node 3 (KSampler)" in page.locator("#zoom .outcome").inner_text()
    kept = list_trials(page)[:2]
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        press_in_menu(page, "Marks", "Accept the kept (file of cases)")
    download.value.save_as("accepted.txt")
    assert command("accept", "results/shop-check", "--cases", "accepted.txt", "--yes").code == 0
    states = {one.trial: one.state for one in sweeper.check("results/shop-check", "baselines/shop")}
    assert states == {trial: "same" if trial in kept else "changed" for trial in range(3)}


def test_page_shows_all_if_nothing_changed_and_forgets_older_marks(shop, command, open_page):
    assert command("run", "shop.yaml", "-q").code == 0
    assert command("accept", "results/shop").code == 0
    assert command("check", "shop.yaml", "--html", "page", "-q").code == 0
    page = open_page(Path("page/index.html"))
    assert sorted(list_trials(page)) == [0, 1]
    page.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    assert command("check", "shop.yaml", "--html", "page", "-q").code == 0
    for _ in range(10):  # a browser may read for the new page before it has written for the old one
        page.reload()
        page.wait_for_selector(".cell")
    assert page.locator(".cell.keep").count() == 0


def test_check_without_a_baseline_says_so_on_the_page(shop, command, open_page):
    assert command("check", "shop.yaml", "--html", "page", "-q").code == 1
    page = open_page(Path("page/index.html"))
    page.get_by_role("button", name="causes").click()
    assert "There is no baseline: nothing was compared." in page.locator("#bar .causes").inner_text()


def test_answers_become_a_command_and_causes_group_the_cases(shop, command, open_page):
    shop.write(steps=(3, 5, 7))
    assert command("run", "shop.yaml", "-q").code == 0
    assert command("accept", "results/shop").code == 0
    shop.rewire(cfg=2.0)
    assert command("check", "shop.yaml", "--html", "page", "-q").code == 1
    page = open_page(Path("page/index.html"))
    assert all("steps" in caption or caption in "357" for caption in page.locator("#view .caption").all_inner_texts())
    page.get_by_text("causes").click()
    page.wait_for_selector(".causes button")
    causes = page.locator(".causes button").all_inner_texts()
    counts = [int(text.split()[0]) for text in causes]
    assert sum(counts) == 3
    assert all("pixels differ" in text for text in causes)
    page.locator(".causes button").first.click()
    assert len(list_trials(page)) == counts[0]
    page.evaluate("location.hash = '#trial=0&with=accepted&mode=side'")
    page.get_by_role("button", name="Accept change").click()
    page.evaluate("location.hash = '#trial=1&with=accepted&mode=side'")
    page.get_by_role("button", name="It is a bug").click()
    answers = page.locator("#zoom .answers")
    assert answers.inner_text().split("\n")[-1] == "1 bug"
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    answers.get_by_role("button", name="Copy the command that accepts 1").click()
    assert page.evaluate("window.copied") == "sweeper accept results/shop-check --where 'steps == 3'"


def test_versions_are_the_columns_of_the_grid(shop, command, open_page):
    assert command("run", "shop.yaml", "-q").code == 0
    assert command("accept", "results/shop").code == 0
    shop.rewire(cfg=2.0)
    with EmbeddedServer("comfyui") as first, EmbeddedServer("comfyui") as second:
        places = ("--comfyui", f"0.33={first.url}", "--comfyui", f"master={second.url}")
        assert command("check", "shop.yaml", *places, "--html", "page", "-q").code == 1
    page = open_page(Path("page/index.html"))
    assert sorted(list_trials(page)) == [0, 1, 2, 3]
    words = page.locator("#view").inner_text().split()
    assert [words[words.index(version) - 1] for version in ("0.33", "master")] == ["comfyui", "comfyui"]
    assert page.locator("#view .cell").first.inner_text().strip().endswith("changed")
    page.locator("#view .cell").first.click()
    page.get_by_role("button", name="Beside the accepted").click()
    assert page.locator("#zoom figcaption").all_inner_texts()[0] == "Accepted"
