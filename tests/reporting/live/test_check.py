"""The live view with a baseline: each cell shows its state of the check as soon as it is known."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import sweeper
from sweeper.cli import main
from sweeper.errors import ResultsError
from sweeper.regression.accept import plan_acceptance
from sweeper.regression.check import make_live_check
from sweeper.reporting.live import LiveView
from sweeper.running.folder_lock import lock_itself
from tests.reporting.page_actions import open_menu
from tests.waiting import read_line, wait_until

TEMPLATE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def write(widths, colour):
    slots = {name: {"at": f"1.{name}"} for name in ("width", "color")}
    Path("t.json").write_text(json.dumps(TEMPLATE))
    Path("t.slots.yaml").write_text(json.dumps({"slots": slots}))
    what = {"name": "e", "template": "t.json", "derive": {"color": colour}, "sweep": {"grid": {"width": widths}}}
    Path("e.yaml").write_text(json.dumps(what))


@pytest.fixture
def accepted(tmp_path, monkeypatch, capsys):
    """Two accepted pictures; then the experiment changes the colour of one and adds a third. No run is left."""
    monkeypatch.chdir(tmp_path)
    write([8, 16], "{{ 1 * width }}")
    assert main(["run", "e.yaml"]) == 0
    assert main(["accept", "results/e", "--yes"]) == 0
    shutil.rmtree("results")
    write([8, 16, 24], "{{ 8 if width == 8 else 16711680 }}")
    capsys.readouterr()


@pytest.fixture
def view(python):
    """The address of `sweeper view e.yaml` in a process of its own."""
    command = [python, "-m", "sweeper", "view", "e.yaml"]
    processes = []

    def start():
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ))
        return read_line(processes[-1].stdout).strip()

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.fixture
def visit(lend_pages):
    trouble = []
    hear = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
    }
    with lend_pages(hear) as lend:

        def go(url):
            page = lend(viewport={"width": 1200, "height": 800})
            page.goto(url)
            page.wait_for_selector("#view > *")
            return page

        go.trouble = trouble
        yield go
    assert trouble == []


def wait_for_states(page):
    """Wait until every cell shows its expected state."""
    words = ["= same", "≠ changed", "+ new"]
    page.wait_for_function(
        "words => words.every((word, n) => "
        "document.querySelector(`[data-trial='${n}'] .verdict`)?.textContent === word)",
        arg=words,
    )


def test_cells_show_check_states_while_the_run_goes_on(accepted, view, visit):
    url = view()
    page = visit(url)
    page.evaluate("window.stillThere = true")
    assert page.locator(".verdict").all_inner_texts() == ["? not compared"] * 3
    assert main(["run", "e.yaml"]) == 0
    wait_for_states(page)
    assert page.evaluate("window.stillThere") is True
    open_menu(page, "Marks")
    page.get_by_label("Show", exact=True).select_option("check != 'same'")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 2")
    page.locator('[data-trial="1"]').click()
    page.get_by_role("button", name="Beside the accepted").click()
    page.wait_for_function("() => document.querySelectorAll('.stage figure img').length === 2")
    page.wait_for_function("() => [...document.querySelectorAll('.stage img')].every(i => i.naturalWidth > 0)")
    assert "mean change (of 255)" in page.locator("dialog[open]").inner_text()
    wait_for_states(visit(url))  # a page that is opened later has the states in its data
    assert_only_accepted_pictures_are_served(url)


def assert_only_accepted_pictures_are_served(url):
    """Of the baseline's files."""
    data = httpx.get(f"{url}data.json").json()
    shown = [file["path"] for file in data["files"] if file.get("accepted")]
    assert len(shown) == 2
    for path in shown:
        answer = httpx.get(url + path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert "sandbox" in answer.headers["content-security-policy"]
    for path in ("accepted/manifest.json", "accepted/..%2fmanifest.json", "accepted/x.png"):
        assert httpx.get(url + path).status_code == 404


def test_results_of_a_check_open_on_what_is_not_the_same(accepted, visit):
    folder = Path("results/e-check")
    assert main(["check", "e.yaml"]) == 1
    with LiveView(folder, check=make_live_check(folder, None, None)) as live:
        page = visit(live.url)
        page.wait_for_function("() => document.querySelectorAll('.cell').length === 2")
        assert page.locator(".cell .verdict").all_inner_texts() == ["≠ changed", "+ new"]
        assert page.get_by_role("tab", selected=True).inner_text() == "Gallery"
    assert main(["report", str(folder)]) == 0
    assert json.loads((folder / "report/data.json").read_text())["check"]["is_review"]


def test_live_header_counts_states_and_lists_missing_cases(accepted, view, visit):
    write([8, 24], "{{ 8 if width == 8 else 16711680 }}")
    page = visit(view())
    counts = page.locator(".counts")
    assert "2 not compared" in " ".join(counts.inner_text().split())
    assert main(["run", "e.yaml"]) == 0
    page.wait_for_function("() => /1 same\\s+1 new/.test(document.querySelector('.counts').innerText)")
    assert "1 same 1 new" in " ".join(counts.inner_text().split())
    page.get_by_role("button", name="1 missing").click()
    assert page.locator(".missing li").all_inner_texts() == ["width=16 [2]"]


def test_page_reports_an_unreadable_baseline_and_needs_none(accepted, view, visit):
    assert main(["run", "e.yaml"]) == 0
    (manifest,) = Path("baselines/e").glob("manifest*")
    manifest.write_text("{")
    page = visit(view())
    page.wait_for_function(
        "() => document.querySelector('.counts').textContent.includes('cannot be compared with the baseline')"
    )
    shutil.rmtree("baselines")
    assert visit(view()).locator(".verdict").count() == 0


@pytest.fixture
def live(accepted, capsys):
    """A live view of three trials (same, changed, new), its POST /accept, and what the page shows of a trial."""
    assert main(["run", "e.yaml"]) == 0
    folder = Path("results/e")
    with LiveView(folder, check=make_live_check(folder, None, None)) as view:

        def post(trial, seen=None, **options):
            body = {"trial": trial, "seen": list_seen(trial) if seen is None else seen}
            headers = {"content-type": "application/json", **options.get("headers", {})}
            return httpx.post(f"{view.url}accept", **{"json": body, **options, "headers": headers})

        def list_seen(trial):
            data = httpx.get(f"{view.url}data.json").json()
            accepted = [data["files"][one["file"]]["path"] for one in data["check"]["accepted"][trial]]
            return [*accepted, *(data["files"][index]["sha256"] for index in data["outputs"][trial])]

        post.list_seen = list_seen
        wait_until(lambda: read_states(view.url) == ["same", "changed", "new"])
        yield view.url, post


def read_states(url):
    check = httpx.get(f"{url}data.json").json()["check"]["columns"][0]
    return [check["values"][code] for code in check["of"]]


def read_manifest():
    return Path("baselines/e/manifest.json").read_bytes()


def test_accept_on_the_page_changes_one_case_of_the_baseline(live):
    url, post = live
    before = json.loads(read_manifest())["cases"]
    assert post(1).status_code == 204
    wait_until(lambda: read_states(url) == ["same", "same", "new"])
    after = json.loads(read_manifest())["cases"]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]
    assert post(2).status_code == 204
    assert len(json.loads(read_manifest())["cases"]) == 3
    assert sweeper.check("results/e").ok


def test_accept_refuses_what_the_page_did_not_show(live):
    _, post = live
    seen, before = post.list_seen(1), read_manifest()
    assert post(1, [seen[0], "0" * 64]).status_code == 422
    assert post(1, []).status_code == 422
    assert post(2, seen).status_code == 422
    assert (post(99, []).status_code, post(0).status_code) == (422, 422)  # no such trial; nothing to accept
    assert read_manifest() == before
    [shown] = [path for path in Path("baselines/e").glob("*.png") if "16" in path.name]
    shown.write_bytes(Path(next(Path("baselines/e").glob("*8*.png"))).read_bytes())  # since the page showed it
    answer = post(1, seen)
    assert (answer.status_code, "has changed since the page showed it" in answer.text) == (422, True)
    assert read_manifest() == before


def test_two_presses_at_once_accept_once(live):
    _, post = live
    seen = post.list_seen(1)
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda _: post(1, seen).status_code, range(4)))
    assert sorted(codes) == [204, 422, 422, 422]


def test_accept_is_refused_while_another_process_accepts(live):
    _, post = live
    with lock_itself(Path("baselines/e")):
        answer = post(1)
    assert (answer.status_code, "another process is accepting" in answer.text) == (503, True)
    assert post(1).status_code == 204


HOSTILE = [
    (403, {"headers": {"origin": "http://evil.example"}}),
    (403, {"headers": {"origin": "null"}}),
    (403, {"headers": {"content-type": "text/plain"}}),
    (421, {"headers": {"host": "evil.example"}}),
    (413, {"content": b"[" * 3_000_000, "json": None}),
    (400, {"content": b"{", "json": None}),
    (400, {"json": {"trial": "1", "seen": []}}),
    (400, {"json": {"trial": True, "seen": []}}),
    (422, {"json": {"trial": -1, "seen": []}}),
    (422, {"json": {"trial": 1, "seen": ["../../e.yaml"]}}),
    (422, {"json": {"trial": 10**300, "seen": []}}),
]


def test_hostile_acceptances_are_refused(live):
    _, post = live
    before = read_manifest()
    assert [(post(1, **options).status_code, options) for _, options in HOSTILE] == HOSTILE
    assert read_manifest() == before


def test_accept_takes_only_post_and_not_from_other_machines(live):
    url, post = live
    for method in ("GET", "PUT", "OPTIONS", "DELETE"):
        assert httpx.request(method, f"{url}accept").status_code in (404, 405)
    assert httpx.get(f"{url}data.json").json()["live"]["can_accept"] is True
    folder = Path("results/e")
    with LiveView(folder, check=make_live_check(folder, None, None), host="0.0.0.0", token="t" * 30) as view:
        other = f"http://127.0.0.1:{view.url.rpartition(':')[2].partition('/')[0]}/"
        headers = {"authorization": f"Bearer {'t' * 30}"}
        assert httpx.get(f"{other}data.json", headers=headers).json()["live"]["can_accept"] is False
        body = {"trial": 1, "seen": post.list_seen(1)}
        assert httpx.post(f"{other}accept", json=body, headers=headers).status_code == 405


def test_accept_notices_a_baseline_that_changed_in_the_meantime(live):
    planned = plan_acceptance("results/e", cases=["width=16 [2]"])
    _, post = live
    assert post(2).status_code == 204
    with pytest.raises(ResultsError, match="has changed in the meantime"):
        planned.apply()


def test_the_page_accepts_a_change_keeps_a_bug_and_says_why_not(live, visit):
    url, _ = live
    page = visit(url)
    page.locator('[data-trial="1"]').click()
    page.keyboard.press("s")
    page.get_by_role("button", name="Beside the accepted").click()
    assert page.locator("#zoom figcaption b").all_inner_texts() == ["Accepted", "Now"]
    shown = page.evaluate("sweeper.page.dataset.files(1)[0].sha256")
    page.evaluate("sweeper.page.dataset.files(1)[0].sha256 = 'another'")
    page.get_by_role("button", name="Accept change").click()
    page.wait_for_function("() => document.querySelector('#message').innerText.startsWith('not accepted: this trial')")
    refusal = visit.trouble.pop()  # the words after the number are those of Python
    assert refusal.startswith("Failed to load resource: the server responded with a status of 422")
    page.evaluate("shown => { sweeper.page.dataset.files(1)[0].sha256 = shown; }", shown)
    page.get_by_role("button", name="Accept change").click()
    page.wait_for_function("() => document.querySelector('#message').innerText === 'trial 1 is accepted'")
    page.wait_for_function("() => document.querySelector('#zoom .answers') === null")  # it is the same now
    assert "check: same" in page.locator("#zoom .outcome").inner_text()
    page.keyboard.press("Escape")
    page.locator('[data-trial="2"]').click()
    page.get_by_role("button", name="It is a bug").click()
    assert page.locator("#zoom .answers").inner_text().split("\n")[-1] == "1 bug"
    assert [len(json.loads(read_manifest())["cases"]), page.evaluate("sweeper.page.marks.get(2).verdict")] == [
        2,
        "reject",
    ]
    page.wait_for_function("() => sweeper.page.marks.unsent.size === 0")
