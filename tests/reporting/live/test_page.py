"""The page of a run in another process, in a real browser without a reload."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace

import httpx
import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.model.money import PRICED, Amount, Charge
from sweeper.model.result import PIXEL_HASH
from sweeper.reporting.live import LiveView
from sweeper.store import Store, records
from sweeper.store.records import JobEnd, JobRecord
from tests.platforms import needs_signals
from tests.reporting import painting
from tests.reporting.made_up_searches import SearchSweep
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import choose_axis, press_in_menu, read_all

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def visit(lend_pages):
    """Open an address; what the page writes to the console or throws fails the test."""
    trouble = []
    hear = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
        "dialog": lambda dialog: (trouble.append(dialog.message), dialog.dismiss()),
    }
    with lend_pages(hear) as lend:

        def go(url, selector="#view > *"):
            page = lend(viewport={"width": 1200, "height": 800})
            page.goto(url)
            page.wait_for_selector(selector)
            return page

        yield go
    assert [text for text in trouble if not text.startswith("Failed to load resource")] == []


@pytest.fixture
def start(python):
    """`sweeper run` in a process of its own, which is ended with the test."""
    processes = []

    def go(experiment, out, server, *more):
        command = [python, "-m", "sweeper", "run", str(experiment.file), "--out", str(out)]
        command += ["--target", server.url, *more]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield go
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


def states(page):
    found = read_all(page, "#view .cell", "cells => cells.map(c => [c.dataset.trial, c.classList[1]])")
    return {int(trial): state for trial, state in found}


# For what servers send: states, progress and previews. The rest of the page depends on the run and not on its server.
each_dialect = pytest.mark.parametrize("painter", ["cloud", "comfyui", "v2"], indirect=True)


@pytest.fixture
def painter(request):
    painter = painting.Painter()
    dialect = getattr(request, "param", "comfyui")
    workers = 1 if dialect == "comfyui" else 2
    with EmbeddedServer(dialect=dialect, nodes=painter.nodes, workers=workers) as server:
        painter.server = server
        yield painter
        painter.go_on.set()


@each_dialect
def test_cells_show_preview_then_picture_or_reason(painter, visit, start, tmp_path):
    experiment = painting.experiment(tmp_path / "project", ["a fox", f"bad {EVIL}", "a lighthouse"])
    out = tmp_path / "results"
    with LiveView(out, experiment=experiment) as view:
        page = visit(view.url)
        page.evaluate("window.stillThere = true")
        assert states(page) == dict.fromkeys(range(3), "pending")
        run = start(experiment, out, painter.server)
        page.wait_for_selector(".cell.running .preview")
        page.wait_for_function("() => document.querySelector('.cell.running .preview').naturalWidth > 0")
        step = "() => document.querySelector('.cell.running:has(.preview)').title.includes('step 3 of 10')"
        page.wait_for_function(step)  # which may come after the preview
        assert "running: 0 of 3 done" in page.locator(".counts").inner_text()
        assert page.get_by_role("progressbar", name="Trials done").get_attribute("max") == "3"
        painter.go_on.set()
        page.wait_for_function("() => document.querySelectorAll('.cell.succeeded img').length === 2")
        page.wait_for_selector('.cell.failed[data-trial="1"]')
        run.communicate(timeout=60)
        page.wait_for_function("() => document.querySelector('.counts').textContent.includes('finished ')")
        assert f"out of paint for bad {EVIL}" in page.locator('[data-trial="1"]').inner_text()
        pictures = "() => [...document.querySelectorAll('.cell.succeeded img')].every(i => i.naturalWidth > 0)"
        page.wait_for_function(pictures)
        assert page.evaluate("window.stillThere") is True
    page.wait_for_function("() => document.querySelector('.counts').textContent.includes('has ended')")
    assert not (out / "live").exists()


def test_what_is_stored_later_appears_on_the_open_page(visit, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(Store, "end_run", lambda *_, **__: None)
        sweep = Sweep({"steps": [4, 8], "seed": [1, 2, 3]}, ends={5: ("pending", None)})
        out = sweep.write(tmp_path / "results")
    with Store.open(out) as store, LiveView(out) as view:
        page = visit(view.url)
        decide, counts = page.get_by_role("tab", name="Decide"), page.locator(".counts")

        # The hashes of the pixels bring the name of an axis that changed no picture.
        assert page.locator(".accidents p").count() == 0
        hashes = [(row.sha256[0], str(row.columns["seed"])) for row in store.results() if row.sha256]
        store.cache_metrics([(sha256, PIXEL_HASH, pixels) for sha256, pixels in hashes])
        page.wait_for_function(
            "() => document.querySelector('.accidents p')?.textContent.startsWith('steps: both values')"
        )

        # A job that is charged brings the cost.
        assert "spent" not in counts.inner_text()
        charge = Charge("7", "FluxProNode", Amount.exactly(0.25), PRICED)
        line = "text => document.querySelector('.counts').textContent.includes(text)"
        digest = list(store.results())[5].digest
        job = JobRecord("job6", 1, "embedded", digest, digest, 1, "p1", records.SUBMITTED, 1.0)
        store.record_intent(job, charges=[charge])
        page.wait_for_function(line, arg="kept 0.00 USD of 0.25 USD spent")
        store.record_finished("job6", JobEnd(records.SUCCEEDED, charges=[charge]))
        page.wait_for_function(line, arg="kept 0.25 USD of 0.25 USD spent")
        assert page.evaluate("sweeper.page.dataset.column('cost').numbers") == [None] * 5 + [0.25]
        assert page.evaluate("sweeper.page.dataset.column('cost_kind').label(5)") == "priced"

        # The end of the run brings its hour and what the numbers say.
        assert (decide.is_visible(), "not running" in counts.inner_text()) == (False, True)
        store.end_run(store.runs()[0].id, now=1_000_060.0, stopped_by=None)
        decide.wait_for()
        assert "finished " in counts.inner_text()
        decide.click()
        assert page.get_by_label("Judged by").input_value() == "brightness"
        assert "finished " in visit(view.url).locator(".counts").inner_text()


def test_a_run_changes_shared_and_filtered_cells_and_later_pages_show_it(painter, visit, start, tmp_path):
    experiment = painting.experiment(tmp_path / "project", ["a fox", "a hut", "bad"])
    with LiveView(tmp_path / "results", experiment=experiment) as view:
        shared = visit(f"{view.url}#x=&y=")
        failed = visit(f"{view.url}#where=status%20%3D%3D%20'failed'")
        assert shared.locator(".badge").inner_text() == "+2"
        painter.go_on.set()
        start(experiment, tmp_path / "results", painter.server).communicate(timeout=60)
        shared.wait_for_function("() => document.querySelector('.badge').textContent === '+2 · 1 failed'")
        failed.wait_for_function("() => document.querySelectorAll('.cell.failed').length === 1")
        assert failed.locator("#view .cell[data-trial]").count() == 1

        later = visit(view.url, ".cell.succeeded")
        shown = "() => { const all = [...document.querySelectorAll('.cell.succeeded img')];"
        shown += " return all.length === 2 && all.every(i => i.complete && i.naturalWidth > 0); }"
        later.wait_for_function(shown)
        choose_axis(later, "Y axis", "text")
        later.wait_for_function(shown)

        # The preview of an ended trial is not an error; that of a number without a trial is one.
        ask = """number => new Promise(answered => {
            const image = Object.assign(new Image(), {src: `preview/${number}?1`});
            image.onload = image.onerror = answered; }).then(event => event.type)"""
        with later.expect_response("**/preview/1?1") as answer:
            assert later.evaluate(ask, 1) == "error"
        assert answer.value.status == 204
        with later.expect_console_message() as told:
            later.evaluate(ask, 3)
        assert told.value.location["url"].endswith("preview/3?1")


def test_unwatched_run_writes_no_live_files(painter, start, tmp_path):
    experiment = painting.experiment(tmp_path / "project", ["a fox"])
    painter.go_on.set()
    run = start(experiment, tmp_path / "results", painter.server)
    assert run.wait(timeout=60) == 0
    run.communicate(timeout=60)
    assert not (tmp_path / "results/live").exists()


@needs_signals
def test_run_view_serves_until_it_is_stopped(painter, visit, start, tmp_path):
    experiment = painting.experiment(tmp_path / "project", ["a fox"])
    run = start(experiment, tmp_path / "results", painter.server, "--view", "--json")
    address = next(line for line in run.stderr if line.startswith("view")).split()[1]
    page = visit(address)
    url = address.partition("#token=")[0]
    assert page.url == url
    painter.go_on.set()
    page.wait_for_selector(".cell.succeeded img")
    assert next(line for line in run.stderr if "Ctrl-C stops it" in line)
    assert httpx.get(f"{url}data.json").json()["statuses"][0] == "succeeded"
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 0
    assert '"succeeded": 1' in out


def test_page_logs_in_with_the_token_after_the_hash(visit, tmp_path):
    experiment = painting.experiment(tmp_path / "project", ["a fox"])
    with LiveView(tmp_path / "results", experiment=experiment, host="0.0.0.0", token="open sesame") as view:
        port = view.url.rpartition(":")[2].partition("/")[0]
        page = visit(f"http://127.0.0.1:{port}/#token=open%20sesame", ".cell")
        assert page.url == f"http://127.0.0.1:{port}/"
        assert page.evaluate("document.cookie") == ""
        stranger = visit(f"http://127.0.0.1:{port}/#token=guess", "#message.shown")
        assert "not the token" in stranger.locator("#message").inner_text()
        stranger.get_by_label("The token").fill("open sesame")
        stranger.get_by_role("button", name="Enter").click()
        stranger.wait_for_selector(".cell")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_run_is_not_shown_as_running(painter, visit, start, tmp_path):
    experiment = painting.experiment(tmp_path / "project", ["a fox", "a lighthouse"])
    out = tmp_path / "results"
    with LiveView(out, experiment=experiment) as view:
        page = visit(view.url)
        run = start(experiment, out, painter.server)
        page.wait_for_selector(".cell.running .preview")
        run.kill()
        run.communicate(timeout=60)
        page.wait_for_function("() => !document.querySelector('.cell.running')")
        assert states(page) == dict.fromkeys(range(2), "pending")


def test_comment_row_and_focus_survive_run_updates(painter, visit, start, tmp_path):
    """A dialog that is rebuilt with each step of a job would send the typed letters to the page as keys."""
    experiment = painting.experiment(tmp_path / "project", ["a fox", "bad", "a hut"])
    out = tmp_path / "results"
    with LiveView(out, experiment=experiment) as view:
        start(experiment, out, painter.server)
        table = visit(f"{view.url}#view=table", ".trow.running")
        table.locator(".scroller.table").focus()
        table.keyboard.press("ArrowDown")
        page = visit(view.url, ".cell.running .preview")
        page.locator(".cell.running").first.click()
        page.keyboard.press("c")
        page.keyboard.type("a comment ")
        page.evaluate("window.box = document.activeElement; window.reason = document.querySelector('.outcome .reason')")
        painter.go_on.set()
        page.wait_for_selector("#zoom .stage img:not(.preview)", state="attached")
        page.keyboard.type("that is kept")
        assert page.evaluate("document.activeElement === window.box && window.box.isConnected")
        assert not page.evaluate("window.reason.isConnected")  # the changed part was replaced
        assert page.locator("#zoom textarea").input_value() == "a comment that is kept"
        page.reload()  # as after another run: the comment is kept although the field still has the focus
        page.wait_for_selector("dialog[open]")
        page.wait_for_function("() => document.querySelector('#zoom textarea').value === 'a comment that is kept'")

        table.wait_for_selector(".tbody .trow.failed.current")
        table.wait_for_function("() => document.querySelectorAll('.tbody .trow.succeeded').length === 2")
        assert table.evaluate("document.activeElement.matches('.scroller.table')")


def test_reload_after_another_run_keeps_the_trial_and_waits_for_the_field(painter, visit, start, tmp_path):
    experiment = painting.experiment(tmp_path / "project", ["a hut", "a barn"])
    out = tmp_path / "results"
    painter.go_on.set()
    with LiveView(out, experiment=experiment) as view:
        page = visit(view.url)
        page.evaluate("window.stillThere = true")
        page.locator('[data-trial="0"]').click()
        grown = painting.experiment(tmp_path / "project", ["a fox", "a hut", "a barn"])
        start(grown, out, painter.server).communicate(timeout=60)
        page.wait_for_function("() => !window.stillThere && document.querySelector('#zoom .stage img')")
        assert page.locator("#zoom .zoom-head .dim").inner_text() == "trial 1"
        assert "a hut" in page.locator("#zoom .tables").inner_text()

        # The user is in the field of a comment when the next run begins.
        page.evaluate("window.stillThere = true; location.hash = '#trial=0'")
        page.wait_for_function("() => document.querySelector('#zoom .zoom-head .dim').textContent === 'trial 0'")
        page.keyboard.press("c")
        start(grown, out, painter.server, "--set", "text=a hat").communicate(timeout=60)
        page.wait_for_function("() => document.getElementById('message').textContent.includes('another run')")
        page.keyboard.type("still here")
        assert page.evaluate("window.stillThere")
        page.locator("#zoom textarea").blur()
        page.wait_for_function("() => !window.stillThere && document.querySelector('#zoom .stage img')")
        assert "a hat" in page.locator("#zoom .tables").inner_text()


def test_search_grows_on_the_open_page_without_a_reload(visit, tmp_path):
    rounds = [[], [{"cfg": 9.0, "sampler": "euler"}, {"cfg": 3.0, "sampler": "heun"}], [{"cfg": 6.0, "sampler": "lcm"}]]
    measures = {"sharpness": lambda point: 10 - abs(point["cfg"] - 6)}
    begun, grown = SearchSweep(rounds[:2], measures), SearchSweep(rounds, measures)
    out = begun.write(tmp_path / "results")
    with LiveView(out) as view:
        page = visit(f"{view.url}#hide=cfg:9")
        page.evaluate("globalThis.isSamePage = true")
        with Store.open(out) as store, store.transaction():
            run = store.latest_run_id()
            assert store.extend_run(run, replace(grown.layout, value_order={"cfg": (2, 4, 0)})) == 4
            grown.add(store, run, grown.points[2:], 4)
        page.wait_for_selector('.slices .mark[data-point="3"]')
        assert "sharpness 10" in page.locator(".best button").first.inner_text()
        assert page.evaluate("isSamePage && sweeper.page.dataset.size") == 6
        assert page.evaluate("sweeper.page.getState().hidden.cfg") == [2]  # it was 0
        assert page.evaluate("sweeper.page.dataset.column('cfg').values") == [3, 6, 9]
        page.get_by_role("tab", name="Grid").click()
        press_in_menu(page, "View", "Axes and values…")
        assert "cfg (3)" in page.get_by_label("X axis", exact=True).inner_text()
        page.get_by_role("button", name="Done").click()
        page.locator('.cell[data-trial="4"]').click()
        page.locator("#zoom").get_by_role("button", name="Keep").click()
        assert page.evaluate("sweeper.page.marks.count()") == 1


def test_page_of_a_search_that_has_not_begun_waits_for_points(visit, project, tmp_path):
    search = {"maximize": "brightness", "trials": 4, "space": {"width": {"from": 8, "to": 32, "step": 8}}}
    file = project(sweep=None, search=search)
    with LiveView(tmp_path / "results", experiment=sweeper.load(file)) as view:
        page = visit(view.url)
        assert page.locator("#view .empty").inner_text() == "No point has an objective yet."
