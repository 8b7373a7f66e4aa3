"""The vote page in a real Chromium: by keyboard, mouse and touch, by two people, and with a server that dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import defaultdict
from contextlib import closing
from importlib.resources import files
from itertools import accumulate

import pytest

from sweeper.store import Store
from sweeper.voting.ballot import Ballot
from sweeper.voting.vote_server import VoteServer
from tests.reporting.made_up_sweeps import Sweep
from tests.voting.folders import SEARCH, load, make_folder
from tests.waiting import read_line, wait_until

AXE = """async () => {
    const found = (await axe.run(document, { resultTypes: ['violations'], preload: false })).violations;
    return found.flatMap(({ id, nodes }) => nodes.map(one => [id, one.target.join(' '), one.failureSummary])); }"""
READY = "() => document.body.dataset.pair && !document.getElementById('pictures').ariaBusy"
NEXT = "before => document.body.dataset.pair !== before && !document.getElementById('pictures').ariaBusy"


@pytest.fixture
def visit(lend_pages):
    """Open the page as a voter; what the page writes to the console or throws fails the test."""
    trouble = []
    hear = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
    }
    with lend_pages(hear) as lend:

        def go(url, voter, **options):
            page = lend(**{"viewport": {"width": 1000, "height": 700}, **options})
            page.goto(url)
            page.get_by_label("Your name").fill(voter)
            page.keyboard.press("Enter")
            page.wait_for_function(READY)
            return page

        yield go
    assert [text for text in trouble if not text.startswith("Failed to load resource")] == []


def answer(page, act):
    """Do something that answers, and wait for the next pair. Returns the id of the pair that it answered."""
    before = page.evaluate("() => document.body.dataset.pair")
    act()
    page.wait_for_function(NEXT, arg=before)
    return before


def load_answers(folder, voter):
    """The answers of a voter that count, by the id of the vote."""
    return {vote.id: vote.answer for vote in load(folder)[1] if vote.voter == voter and vote.counts}


def test_keyboard_and_mouse_answer_undo_and_zoom(folder, server, visit):
    page = visit(server.url, "kim")
    given = {
        answer(page, lambda key=key: page.keyboard.press(key)): word
        for key, word in {
            "ArrowLeft": "left", "ArrowRight": "right", "ArrowUp": "tie", "ArrowDown": "bad", "Space": "tie"
        }.items()
    }  # fmt: skip
    assert load_answers(folder, "kim") == given
    last = list(given)[-1]
    shown = page.evaluate("() => [...document.querySelectorAll('.picture img')].map(image => image.naturalWidth)")
    assert shown == [64, 64]
    answer(page, lambda: page.keyboard.press("u"))
    assert load_answers(folder, "kim") == {one: word for one, word in given.items() if one != last}
    (again,) = [vote for vote in load(folder)[1] if vote.id == page.evaluate("() => document.body.dataset.pair")]
    assert again.pictures == next(vote.pictures for vote in load(folder)[1] if vote.id == last)
    answer(page, lambda: page.keyboard.press("Backspace"))
    answer(page, lambda: page.keyboard.press("ArrowLeft"))
    by_keyboard = load_answers(folder, "kim")
    assert len(by_keyboard) == 4
    assert page.get_by_role("status").inner_text() == "4 of 18"

    zoom_both_by_mouse(page)
    given = {answer(page, page.locator(".picture").nth(1).click): "right"}
    for name, word in (("Left", "left"), ("Equal", "tie"), ("Both bad", "bad")):
        given[answer(page, page.get_by_role("group").get_by_role("button", name=name).click)] = word
    assert load_answers(folder, "kim") == by_keyboard | given
    answer(page, page.get_by_role("button", name="Undo").click)
    assert len(load_answers(folder, "kim")) == 4 + 3


def zoom_both_by_mouse(page):
    """By the wheel, a drag, which moves the pictures and does not vote, and a key, which takes it back."""
    transforms = "() => [...document.querySelectorAll('.picture img')].map(image => getComputedStyle(image).transform)"
    page.locator(".picture").first.hover(position={"x": 40, "y": 40})
    page.mouse.wheel(0, -400)
    page.wait_for_function("() => document.getElementById('zoom').ariaPressed === 'true'")
    zoomed = page.evaluate(transforms)
    assert zoomed[0] == zoomed[1] != ""
    page.mouse.down()
    page.mouse.move(300, 300, steps=3)
    page.mouse.up()
    moved = page.evaluate(transforms)
    assert moved[0] == moved[1] != zoomed[0]
    page.keyboard.press("z")
    assert page.evaluate(transforms)[0] == "matrix(1, 0, 0, 1, 0, 0)"


def test_page_says_how_many_votes_a_search_needs(tmp_path, visit):
    with VoteServer(SEARCH.write(tmp_path)) as server:
        page = visit(server.url, "sue")
        status = page.get_by_role("status")
        assert status.inner_text() == "0 of 112; the search needs about 10 more"
        for _ in range(9):
            answer(page, lambda: page.keyboard.press("ArrowLeft"))
        assert status.inner_text() == "9 of 112; the search needs one more"
        answer(page, lambda: page.keyboard.press("ArrowLeft"))
        assert status.inner_text() == "10 of 112; enough for the search to go on"


def test_touch_answers_by_tap_and_swipe_and_zooms_by_two_fingers(folder, server, visit):
    page = visit(server.url, "tia", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    devtools = page.context.new_cdp_session(page)

    def touch(*steps):
        for kind, points in steps:
            touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            devtools.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": touches})

    def pinch(first, both, moved):
        touch(("Start", first), ("Start", both), ("Move", moved), ("End", moved[:1]), ("End", []))

    def swipe(dx, dy):
        touch(("Start", [(190, 300)]), ("Move", [(190 + dx, 300 + dy)]), ("End", []))

    def read_scale():
        matrix = "() => new DOMMatrix(getComputedStyle(document.querySelectorAll('.picture img')[1]).transform).a"
        return page.evaluate(matrix)

    # Two fingers zoom and do not vote.
    boxes = [page.locator(".picture").nth(index).bounding_box() for index in range(2)]
    top, bottom = (box["y"] + box["height"] / 2 for box in boxes)
    pinch([(180, top)], [(180, top), (210, top)], [(150, top), (240, top)])
    assert read_scale() == pytest.approx(3, abs=0.1)
    pinch([(100, top)], [(100, top), (280, bottom)], [(180, top), (190, top + 10)])
    assert read_scale() == 1
    assert load_answers(folder, "tia") == {}

    given = {answer(page, page.locator(".picture").nth(1).tap): "right"}
    for way, word in (((0, -120), "left"), ((4, 120), "right"), ((-120, 0), "tie"), ((120, 5), "bad")):
        given[answer(page, lambda way=way: swipe(*way))] = word
    assert load_answers(folder, "tia") == given


def test_two_people_vote_at_once_and_end(tmp_path, visit):
    folder = make_folder(tmp_path / "results")
    with VoteServer(folder) as server:
        pages = {name: visit(server.url, name) for name in ("ana", "bo")}
        for _ in range(17):
            for page in pages.values():
                answer(page, lambda page=page: page.keyboard.press("ArrowLeft"))
        pages["ana"].keyboard.press("ArrowLeft")
        pages["ana"].get_by_text("You answered all 18 pairs").wait_for()
        pages["ana"].get_by_role("button", name="Answer them again").click()
        pages["ana"].wait_for_function(READY)
        assert [len(load_answers(folder, name)) for name in ("ana", "bo")] == [18, 17]
    by_voter = [{vote.pictures for vote in load(folder)[1] if vote.voter == name and vote.counts} for name in pages]
    assert [len(pairs) for pairs in by_voter] == [18, 17]
    with Store.open(folder, readonly=True) as store:
        assert "votes" in store.layout().metrics


def test_axe_finds_nothing_on_wide_and_dark_narrow_screens(tmp_path, browser):
    folder = make_folder(tmp_path / "results", Sweep({"sampler": ["euler", "heun"], "prompt": ["a fox"]}))
    with VoteServer(folder, host="0.0.0.0", token="sesame") as server, browser.new_context(bypass_csp=True) as context:
        server.report_url = server.url
        page = context.new_page()
        found = {}

        def look(name):
            page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
            for theme, width in (("light", 1440), ("dark", 390)):
                page.emulate_media(color_scheme=theme)
                page.set_viewport_size({"width": width, "height": 800})
                found[name, theme] = page.evaluate(AXE)

        page.goto(f"http://127.0.0.1:{server.url.rpartition(':')[2].partition('/')[0]}/")
        look("login")
        page.get_by_label("The token").fill("sesame")
        page.keyboard.press("Enter")
        page.get_by_label("Your name").fill("ana")
        look("name")
        page.keyboard.press("Enter")
        page.wait_for_function(READY)
        page.get_by_role("button", name="Keys").click()
        page.keyboard.press("ArrowLeft")  # no vote behind the list
        look("keys")
        assert page.locator("#progress").inner_text().startswith("0 of")
        page.keyboard.press("Escape")
        look("pair")
        page.keyboard.press("z")
        page.keyboard.press("ArrowLeft")
        page.get_by_text("too few to tell any two").wait_for()
        look("done")
    assert {place: problems for place, problems in found.items() if problems} == {}


def test_nothing_tells_the_setting_of_a_picture(folder, server, visit, browser):
    """Neither addresses, headers, bodies nor the page have a setting, a file name, a digest or a hash."""
    page = visit(server.url, "sly")
    seen = []
    page.on("response", lambda response: seen.extend([response]))
    for key in ("ArrowLeft", "ArrowRight"):
        answer(page, lambda key=key: page.keyboard.press(key))
    pictures, votes = load(folder)
    secrets = {"euler", "heun", "ddim", "artifacts", "picture-"}
    secrets |= {text for picture in pictures.all for text in (picture.sha256[:16], picture.row.digest[:16])}
    texts = [page.content()]
    for response in seen:
        texts += [response.url, str(response.all_headers()), response.body().decode("latin-1")]
    assert len(seen) == 2 + 4
    assert [secret for secret in secrets if any(secret in text for text in texts)] == []
    assert not any({"last-modified", "etag", "content-disposition"} & {*one.all_headers()} for one in seen)
    ids = [re.search(r"picture/(.{36})/(left|right)", one.url)[1] for one in seen if "/picture/" in one.url]
    assert all(vote_id in {vote.id for vote in votes} for vote_id in ids)


def start(python, folder, port=0):
    command = [python, "-m", "sweeper", "vote", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, read_line(process.stdout).strip()


def test_vote_survives_kill_of_the_server_and_reload_of_the_page(python, tmp_path, visit):
    folder = make_folder(tmp_path / "results")
    process, url = start(python, folder)
    try:
        page = visit(url, "ana")
        first = answer(page, lambda: page.keyboard.press("ArrowLeft"))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert load_answers(folder, "ana") == {first: "left"}  # the page was told that it is stored
        second = page.evaluate("() => document.body.dataset.pair")
        page.keyboard.press("ArrowRight")
        page.get_by_role("alert").get_by_text("Your vote is kept here").wait_for()
        process, again = start(python, folder, int(url.strip("/").rpartition(":")[2]))
        assert again == url
        page.wait_for_function(NEXT, arg=second)
        assert load_answers(folder, "ana") == {first: "left", second: "right"}
        # The server stores a vote, and dies before the page hears of it: the page sends it again, and it counts once.
        third = page.evaluate("() => document.body.dataset.pair")
        page.route("**/next", lambda route: (route.fetch(), route.abort(), page.unroute("**/next")))
        answer(page, lambda: page.keyboard.press("ArrowUp"))
        given = {first: "left", second: "right", third: "tie"}
        assert load_answers(folder, "ana") == given
        # The page sends a vote after a reload, too.
        fourth = page.evaluate("() => document.body.dataset.pair")
        page.wait_for_function("() => [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        page.route("**/next", lambda route: route.abort())
        page.keyboard.press("ArrowLeft")
        page.get_by_role("alert").get_by_text("Your vote is kept here").wait_for()
        page.reload()
        page.wait_for_function("() => document.getElementById('name').value === 'ana'")  # the page remembers it
        page.unroute("**/next")  # not earlier, because the page would send the vote before the reload
        page.keyboard.press("Enter")
        wait_until(lambda: load_answers(folder, "ana") == given | {fourth: "left"})
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.mark.parametrize(("size", "names"), [((320, 40), ["upper", "lower"]), ((40, 320), ["left", "right"])])
def test_answers_are_named_by_where_the_pictures_are(tmp_path, visit, size, names):
    folder = make_folder(tmp_path / "results", Sweep({"sampler": ["euler", "heun"], "seed": [*range(6)]}, size=size))
    with VoteServer(folder) as server:
        page = visit(server.url, "ana")
        boxes = [page.get_by_label(f"The {name} picture is better").bounding_box() for name in names]
        axis, keys = ("y", ["ArrowUp", "ArrowDown"]) if names[0] == "upper" else ("x", ["ArrowLeft", "ArrowRight"])
        assert boxes[0][axis] < boxes[1][axis]
        assert page.get_by_role("group").get_by_role("button").all_inner_texts()[0].lower().endswith(names[0])
        given = [answer(page, lambda key=key: page.keyboard.press(key)) for key in keys]
    assert load_answers(folder, "ana") == dict(zip(given, ("left", "right"), strict=True))


def test_ranking_is_shown_at_the_end_unless_it_is_hidden(tmp_path, visit):
    folder = make_folder(tmp_path / "results", Sweep({"sampler": ["euler", "heun"], "seed": [*range(12)]}))
    with VoteServer(folder) as server:
        page = visit(server.url, "ana")
        pictures, _ = load(folder)
        for _ in range(8):
            shown = page.evaluate("() => document.body.dataset.pair")
            vote = next(vote for vote in load(folder)[1] if vote.id == shown)
            left = pictures.all[pictures.find(vote.left_digest, vote.left_sha256)].row.columns["sampler"]
            answer(page, lambda left=left: page.keyboard.press("ArrowLeft" if left == "euler" else "ArrowRight"))
        finish(page)
        page.get_by_text("sampler: euler is better than heun").wait_for()
        assert page.locator("#ranking tr").first.inner_text().split("\t")[::3] == ["euler", "8 of 8 won"]
        go_on(page)
    with VoteServer(folder, hides_ranking=True) as server:
        page = visit(server.url, "ana")
        finish(page)
        assert page.locator("#ranking").inner_text() == ""
        go_on(page)


def finish(page):
    page.get_by_role("button", name="Finish").click()
    page.get_by_text("You answered 8 of 12 pairs").wait_for()


def go_on(page):
    page.get_by_role("button", name="Go on").click()
    page.wait_for_function("() => !document.getElementById('voting').hidden")


def test_sides_of_two_values_are_balanced_and_cannot_be_foreseen(tmp_path):
    folder = make_folder(tmp_path / "results", Sweep({"sampler": ["euler", "heun", "ddim"], "seed": [*range(8)]}))
    with closing(Ballot(folder)) as ballot:
        for voter in ("ana", "bo", "cy"):
            state = ballot.serve_next(voter)
            while state["pair"]:
                state = ballot.serve_next(voter, answered=(state["pair"]["id"], "tie"))
    pictures, votes = load(folder)
    orders = defaultdict(list)  # by voter and values: whether the first value was left, again and again
    for vote in votes:
        values = [
            pictures.all[pictures.find(*side)].row.columns["sampler"]
            for side in ((vote.left_digest, vote.left_sha256), (vote.right_digest, vote.right_sha256))
        ]
        orders[vote.voter, *sorted(values)].append(1 if values == sorted(values) else -1)
    assert [len(order) for order in orders.values()] == [8] * 9
    assert max(abs(lead) for order in orders.values() for lead in accumulate(order)) == 2
    seconds = {order[start] == order[start + 1] for order in orders.values() for start in (0, 2, 4, 6)}
    assert seconds == {True, False}  # the second of two is not always the first reversed
    assert len({tuple(order) for order in orders.values()}) > 3
