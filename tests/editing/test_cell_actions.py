"""*More like this* and *Revise this cell* of a served report: what they do, and for whom."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sweeper.cli import main
from sweeper.editing.cell_actions import CellActions, find_trial, write_similar
from sweeper.editing.open_server import OpenServer
from sweeper.reporting.live import LiveView
from sweeper.reporting.write_report import write_report
from sweeper.running.folder_lock import lock_folder
from tests.editing.conftest import EXPERIMENT
from tests.editing.test_runs import box  # noqa: F401 (a fixture)
from tests.waiting import wait_until

RESULTS = Path("mine/results/mine")
REVISION = {"trial": 1, "kind": "revise", "set": {"cfg": 4.5}}


@contextmanager
def serve(client: bool = True, **options) -> Iterator[tuple[httpx.Client, LiveView]]:
    """The report of the results, and a client that has its session."""
    cells = CellActions(OpenServer)
    with LiveView(RESULTS, on_cell=cells, **options) as view:
        base, _, token = view.session_url.partition("#token=")
        with httpx.Client(base_url=base, trust_env=False, timeout=60) as http:
            if client:
                assert http.post("session", json={"token": token}).json() == {"entered": True}
            yield http, view
    cells.close()


_finished: list[Path] = []  # a copy of the folder of `file`, once one has run


@pytest.fixture
def file(write, tmp_path_factory) -> Path:
    """An experiment of two trials that has run."""
    found = write(f"name: mine\n{EXPERIMENT}")
    if not _finished:
        assert main(["run", str(found), "--quiet"]) == 0
        _finished.append(shutil.copytree("mine", tmp_path_factory.mktemp("finished") / "mine"))
    shutil.copytree(_finished[0], "mine", dirs_exist_ok=True)
    return found


def read_statuses(http: httpx.Client) -> list[str]:
    data = http.get("data.json").json()
    return [data["statuses"][code] for code in data["status"]]


def test_more_like_this_is_an_experiment_beside_with_a_page(file):
    with serve() as (http, _):
        for number in (1, 2):
            answer = http.post("cell", json={"trial": 0, "kind": "more"}).json()
            made = file.with_name(f"mine-more-{number}.yaml")
            assert (Path(answer["file"]), answer["command"]) == (made, f"sweeper open {made}")
            assert f"name: mine-more-{number}\n" in made.read_text()
            base, _, token = answer["url"].partition("#token=")
            with httpx.Client(base_url=base, trust_env=False) as page:
                page.post("session", json={"token": token})
                assert page.get("state").json()["name"] == f"mine-more-{number}"


def test_revise_adds_a_trial_to_the_file_and_runs_only_that(file):
    file.write_text(file.read_text().replace("[2, 4]", "[2, 4, 6]"))  # a trial that has not run
    with serve() as (http, _):
        answer = http.post("cell", json=REVISION).json()
        assert (answer["trial"], answer["command"].startswith("sweeper run ")) == (3, True)
        wait_until(lambda: read_statuses(http) == ["succeeded", "succeeded", "pending", "succeeded"])
    assert "include:\n    - {steps: 4, cfg: 4.5}" in file.read_text()
    assert main(["export", str(file), "-o", "rows.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [(row["steps"], row["cfg"]) for row in rows] == [(2, 8.0), (4, 8.0), (6, 8.0), (4, 4.5)]


def test_it_needs_the_token_on_loopback_too_and_the_report_does_not(file):
    with serve(client=False) as (http, view):
        assert "#" not in view.url
        assert http.get("data.json").json()["live"]["can_act"] is False
        assert http.post("cell", json=REVISION).status_code == 401
        assert http.post("cell", json=REVISION, headers={"Authorization": "Bearer guessed"}).status_code == 401
        http.post("session", json={"token": view.session_url.partition("#token=")[2]})
        assert http.get("data.json").json()["live"]["can_act"] is True
    assert "include" not in file.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},  # a page from a disk, or in a sandbox
        {"Origin": "http://127.0.0.1:1"},  # of another program on this machine
        {"Origin": "http://evil.example", "Host": "evil.example"},  # DNS rebinding
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_no_page_of_another_origin_can_do_it(file, headers):
    with serve() as (http, _):
        content = json.dumps(REVISION)
        status = http.post("cell", content=content, headers={"Content-Type": "application/json", **headers}).status_code
    assert status in (403, 421)
    assert "include" not in file.read_text()


def test_visitors_from_elsewhere_cannot_do_it(file):
    with serve(host="0.0.0.0") as (http, _):
        assert http.get("data.json").json()["live"]["has_cells"] is False
        assert http.post("cell", json=REVISION).status_code == 405


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"trial": 99}, 422, "no such trial"),
        ({"trial": -1}, 422, "no such trial"),
        ({"trial": "1"}, 400, "does not have what"),
        ({"trial": 10**400}, 422, "no such trial"),
        ({"digest": "0" * 64}, 422, "has changed"),
        ({"kind": "delete"}, 400, "`kind`"),
        ({"set": {}}, 422, "choose an input"),
        ({"set": None}, 422, "choose an input"),
        ({"set": ["cfg"]}, 400, "does not have what"),
        ({"set": {"no": 1}}, 422, "'no' is not an input"),
        ({"set": {"cfg": "x"}}, 422, "cfg:"),
        ({"set": {"steps": 101}}, 422, "steps:"),
        ({"set": {"prompt": "x" * 3_000_000}}, 413, "too long"),
        ({"set": {"prompt": "x" * 90_000}}, 200, ""),
    ],
)
def test_a_wrong_wish_changes_nothing(file, change, status, words):
    before = file.read_text()
    with serve() as (http, _):
        response = http.post("cell", json=REVISION | change)
    assert (response.status_code, words in response.text) == (status, True), response.text
    assert (file.read_text() == before) == (status != 200)


def test_a_cell_is_revised_to_a_prompt_with_an_emoji(file):
    with serve() as (http, _):
        response = http.post("cell", json=REVISION | {"set": {"prompt": "a cat \U0001f600"}})
        assert response.status_code == 200, response.text
        wait_until(lambda: read_statuses(http)[2:] == ["succeeded"])


def test_only_the_trial_of_a_long_prompt_runs(file):
    prompt = "x" * 1500
    file.write_text(
        file.read_text() + f"  include: [{{steps: 4, prompt: '{prompt}'}}, {{steps: 4, prompt: {prompt[1:]}}}]\n"
    )
    with serve() as (http, _):
        answer = http.post("cell", json=REVISION | {"set": {"prompt": f"{prompt}y"}}).json()
        wait_until(lambda: read_statuses(http) == ["succeeded", "succeeded", "pending", "pending", "succeeded"])
    assert "prompt | length == 1501" in answer["command"]


@pytest.mark.parametrize("content", [b"[" * 50_000, b"{", b"[]", b'{"trial": NaN, "kind": "more"}'])
def test_what_is_no_wish_is_refused(file, content):
    with serve() as (http, _):
        headers = {"Content-Type": "application/json"}
        assert http.post("cell", content=content, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps: [2, 4]", "seed: [1]", "has changed since"),
        ("embedded", "embedded\nparams: {prompt: a cat}", "has changed since"),
        ("sweep:", "sweep: [", "can no longer be read"),
        ("template: t.json", "template: none.json", "can no longer be read"),
    ],
)
def test_a_file_that_changed_since_is_left_as_it_is(file, old, new, words):
    with serve() as (http, _):
        file.write_text(changed := file.read_text().replace(old, new))
        response = http.post("cell", json=REVISION | {"trial": 0})
    assert (response.status_code, words in response.text) == (422, True), response.text
    assert file.read_text() == changed


def test_while_a_run_goes_on_nothing_changes(file):
    before = file.read_text()
    with serve() as (http, _), lock_folder(RESULTS, now=1.0):
        response = http.post("cell", json=REVISION)
    assert (response.status_code, "goes on" in response.text) == (422, True)
    assert file.read_text() == before


def test_a_trial_that_costs_asks_first_and_runs_after_a_yes(box, write):  # noqa: F811
    file = write(f"name: mine\n{EXPERIMENT}".replace("embedded", "box"))
    assert main(["run", str(file), "--quiet", "--yes"]) == 0
    file.write_text((before := file.read_text()) + "run: {confirm_above: 1 USD}\n")
    before += "run: {confirm_above: 1 USD}\n"
    with serve() as (http, _):
        response = http.post("cell", json=REVISION)
        assert (response.status_code, file.read_text()) == (428, before)
        asked = response.json()
        assert "2" in asked["question"]
        assert http.post("cell", json={**REVISION, "confirmed": "Submit 1 job to box for 1.00 USD?"}).status_code == 428
        answer = http.post("cell", json={**REVISION, "confirmed": asked["question"]})
        assert answer.status_code == 200
        wait_until(lambda: read_statuses(http)[2:] == ["succeeded"])


def test_open_like_makes_the_same_experiment(file, capsys):
    made = write_similar(*find_trial(RESULTS, 1))
    with serve() as (http, _):
        again = Path(http.post("cell", json={"trial": 1, "kind": "more"}).json()["file"])
    without_seeds = [re.sub("seed: .*|more-[12]", "", path.read_text()) for path in (made, again)]
    assert without_seeds[0] == without_seeds[1]
    assert main(["open", str(RESULTS), "--like", "99"]) == 2
    assert "has no trial 99" in capsys.readouterr().err


# --- in the browser


@pytest.fixture
def page(browser) -> Iterator:
    context = browser.new_context(viewport={"width": 1200, "height": 800}, permissions=["clipboard-read"])
    yield context.new_page()
    context.close()


def read_clipboard(page) -> str:
    page.get_by_text("command copied").wait_for()
    return page.evaluate("navigator.clipboard.readText()")


def test_the_page_revises_a_cell_by_keyboard_and_opens_another_like_it(file, page):
    with serve(client=False) as (_, view):
        page.goto(view.session_url)
        page.locator(".cell").first.wait_for()
        assert page.url == view.url  # the browser's history has no token
        page.goto(f"{view.url}#trial=1")
        page.locator("#zoom[open]").wait_for()
        page.keyboard.press("v")
        page.get_by_label("Input").select_option("cfg")
        page.get_by_label("Value", exact=True).fill("many")
        page.keyboard.press("Enter")
        page.get_by_text("a number is needed, not many").wait_for()
        page.get_by_label("Value", exact=True).fill("4.5")
        page.keyboard.press("Enter")
        page.locator("#zoom[open] .zoom-head", has_text="trial 2").wait_for()
        page.locator("#zoom .stage img").nth(1).wait_for()  # both are shown
        assert "{steps: 4, cfg: 4.5}" in file.read_text()

        page.goto(f"{view.url}#trial=1")
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="More like this").click()
        opened.value.wait_for_load_state()
        assert opened.value.url.startswith("http://127.0.0.1:")
    assert file.with_name("mine-more-1.yaml").is_file()


def test_without_a_session_and_from_a_disk_the_buttons_copy_commands(file, page):
    with serve(client=False) as (_, view):
        page.goto(f"{view.url}#trial=1")
        page.get_by_role("button", name="Copy command: more like this").click()
        assert read_clipboard(page) == f"sweeper open {RESULTS} --like 1"
        page.goto(write_report(RESULTS).page.resolve().as_uri() + "#trial=1")
        page.get_by_role("button", name="Copy command: revise this cell").click()
        page.get_by_text("command copied").wait_for()
    assert "include" not in file.read_text()
