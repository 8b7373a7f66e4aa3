"""`sweeper.show`: the page inside a notebook, in a real Chromium."""

from __future__ import annotations

import pytest

import sweeper
from sweeper.errors import ResultsError, UsageError
from tests import ROOT

HOSTILE = "</script><script>parent.reached = 1</script>'><img src=x onerror=alert(1)>"
EXPERIMENT = f"""
template: {ROOT / "templates/txt2img.json"}
params: {{width: 64, height: 64}}
sweep:
  grid: {{prompt: ["{HOSTILE}", a fox], steps: [1, 2], seed: [1, 2]}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    (folder / "mine.yaml").write_text(EXPERIMENT, encoding="utf-8")
    return sweeper.run(folder / "mine.yaml", target="embedded")


@pytest.fixture
def notebook(browser):
    """Open a page that contains the HTML of a value, as a notebook does. Requests and errors fail the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    trouble = []

    def visit(value):
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(("data:", "blob:")) or trouble.append(request.url))
        page.set_content(f"<!DOCTYPE html><body>{value._repr_html_()}")
        frame = next(frame for frame in page.frames if frame.url.startswith("about:srcdoc"))
        frame.wait_for_selector("#view > *")
        return page, frame

    yield visit
    context.close()
    assert trouble == []


def read_state(frame):
    return frame.evaluate("sweeper.page.getState()")


def wait_for_pictures(frame, count):
    """Wait until so many pictures are loaded."""
    frame.wait_for_function(
        "count => [...document.querySelectorAll('#view img')].filter((one) => one.naturalWidth).length === count",
        arg=count,
        timeout=60_000,
    )


def test_the_page_opens_with_these_axes_and_its_pictures(run, notebook):
    shown = sweeper.show(run, x="seed", y="steps")
    page, frame = notebook(shown)
    state = read_state(frame)
    assert (state["view"], state["x"], state["y"]) == ("grid", "seed", "steps")
    wait_for_pictures(frame, 8)
    assert page.evaluate("globalThis.reached") is None
    assert str(run.out / "notebook/index.html") in page.inner_text("small")
    assert repr(shown) == f"<page of 8 trials; open it in a browser: {run.out / 'notebook/index.html'}>"


def test_a_trial_opens_with_its_file_and_closes_inside_the_page(run, notebook):
    page, frame = notebook(sweeper.show(run))
    frame.locator(".cell").first.click()
    frame.wait_for_function(
        "[...document.querySelectorAll('#zoom img')].some((one) => one.src.startsWith('data:image/png'))"
    )
    page.keyboard.press("Escape")
    frame.wait_for_selector("#zoom", state="hidden")
    frame.fill("input[type=search], #bar input", "steps == 2")  # typing replaces the address
    wait_for_pictures(frame, 4)
    assert frame.url.startswith("about:srcdoc")


def test_a_selection_of_the_table_shows_these_trials(run, notebook):
    table = sweeper.results(run.out)
    shown = sweeper.show(table[table["steps"] == 2].sort_values("seed"), view="gallery")
    _, frame = notebook(shown)
    assert shown.trials == 4
    assert read_state(frame)["view"] == "gallery"
    assert frame.evaluate("sweeper.page.dataset.raw.trials") == sorted(table[table["steps"] == 2]["trial"])


def test_large_results_show_thumbnails_and_larger_ones_a_path(run, notebook, monkeypatch):
    files = sum(path.stat().st_size for path in (run.out / "artifacts").iterdir())
    monkeypatch.setattr("sweeper.reporting.notebook.MAX_BYTES", files - 1)
    shown = sweeper.show(run)
    assert "data:image/png" not in shown.markup
    page, frame = notebook(shown)
    wait_for_pictures(frame, 8)
    frame.locator(".cell").first.click()
    frame.wait_for_function("[...document.querySelectorAll('#zoom img')].some((one) => one.naturalWidth)")
    assert page.inner_text("small").startswith("These are thumbnails. The full page: ")

    monkeypatch.setattr("sweeper.reporting.notebook.MAX_BYTES", 100)
    markup = sweeper.show(run)._repr_html_()
    assert "<iframe" not in markup
    assert f"<code>sweeper report {run.out} --open</code>" in markup


def test_wrong_arguments_are_reported_with_what_is_allowed(run, tmp_path):
    table = sweeper.results(run.out)
    with pytest.raises(UsageError, match="x='sed': there is no such axis; did you mean 'seed'"):
        sweeper.show(run, x="sed")
    with pytest.raises(UsageError, match=r"view='search': there is no such view; views: grid, gallery, table"):
        sweeper.show(run, view="search")
    with pytest.raises(UsageError, match="has no rows"):
        sweeper.show(table[table["steps"] > 9])
    with pytest.raises(UsageError, match="takes a run, a results folder"):
        sweeper.show(table["steps"])
    with pytest.raises(UsageError, match=r"pass the rows of the original: table\[table\['trial'\]"):
        sweeper.show(table.merge(table[["trial"]], on="trial"))
    with pytest.raises(ResultsError):
        sweeper.show(tmp_path / "nothing")
