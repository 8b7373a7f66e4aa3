"""The report that `sweeper vote` serves beside its page, and that a stranger's page there cannot vote."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import HTMLResponse

from sweeper.serving.hosting import ServerThread, base_url, bind
from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd
from tests.platforms import needs_signals
from tests.voting.folders import load, make_folder
from tests.waiting import read_line, wait_until

pytestmark = needs_signals

# Everything by which a page may send to another origin, or read from it. Returns what it could read.
ATTACK = """async ([origin, vote]) => {
    const read = [], body = JSON.stringify({ voter: 'ana', vote, answer: 'left' });
    const attempt = async (name, act) => { try { if (await act()) read.push(name); } catch {} };
    const get = async (path, options) =>
       (await fetch(`${origin}/${path}`, { credentials: "include", referrerPolicy: "no-referrer", ...options })).text();
    const kinds = ['application/json', 'text/plain', 'application/x-www-form-urlencoded'];
    for (const mode of ['cors', 'no-cors', 'same-origin']) {
        for (const path of ['next', 'undo', 'ranking'])
            for (const kind of kinds)
                await attempt(`post ${path} ${kind} ${mode}`, () =>
                    get(path, { method: 'POST', mode, body, headers: { 'Content-Type': kind } }));
        for (const path of ['start', 'ranking', `picture/${vote}/left`, ''])
            await attempt(`get ${path} ${mode}`, () => get(path, { mode }));
    }
    for (const type of kinds)
        await attempt('beacon', () => { navigator.sendBeacon(`${origin}/next`, new Blob([body], { type })); });
    const load = (tag, path) => new Promise((resolve) => {
        const node = document.createElement(tag);
        node.onload = () => resolve(tag !== 'iframe' || node.contentDocument !== null);
        node.onerror = () => resolve(false);
        node.src = `${origin}/${path}`;
        document.body.append(node);
    });
    await attempt('img', () => load('img', `picture/${vote}/left`));
    await attempt('script', () => load('script', 'page.js'));
    await attempt('iframe', () => load('iframe', ''));
    await attempt('websocket', () => new Promise((resolve) => {
        const socket = new WebSocket(`${origin.replace('http', 'ws')}/next`);
        socket.onopen = () => resolve(true);
        socket.onerror = () => resolve(false);
    }));
    for (const enctype of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
        const [form, frame, field] = ['form', 'iframe', 'input'].map((tag) => document.createElement(tag));
        frame.name = enctype;
        [field.name, field.value] = [`${body.slice(0, -1)},"x":"`, '"}'];
        Object.assign(form, { action: `${origin}/next`, method: 'POST', enctype, target: enctype }).append(field);
        document.body.append(frame, form);
        await new Promise((resolve) => { frame.onload = resolve; form.submit(); });
    }
    const other = window.open(origin);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await attempt('window', () => other.document.body.innerHTML);
    return read;
}"""


@contextmanager
def vote_command(python: str, folder: Path, *options: str) -> Iterator[str]:
    """Serve the page as a user does. Gives its address, at a loopback name."""
    command = [python, "-m", "sweeper", "vote", str(folder), *options]
    environment = {
        **os.environ,
        "SWEEPER_VOTE_TOKEN": "sesame-sesame-sesame-1",
        "SWEEPER_VIEW_TOKEN": "owner-owner-owner-own1",
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            url = urlsplit(read_line(process.stdout).strip())
            yield url._replace(netloc=f"127.0.0.1:{url.port}").geturl()
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors


def add_page(folder: Path) -> str:
    """Make a page of a stranger one of the artifacts; returns its name."""
    content = b"<script>document.title = 'run'; fetch('/marks', {method: 'POST'})</script><title>quiet</title>"
    path = folder / "artifacts/stranger.html"
    path.write_bytes(content)
    page = Artifact("10", "images", 0, f"artifacts/{path.name}", hashlib.sha256(content).hexdigest(), len(content), "x")
    with Store.open(folder) as store:
        job = next(store.jobs())
        ended = JobEnd("succeeded", started=2.0, ended=2.5, artifacts=(*store.artifacts(job.id), page))
        store.record_finished(job.id, ended)
    return path.name


def finish(page, url: str, voter: str) -> str:
    """Vote once, finish, and return the address of the report that the page links to."""
    page.goto(url)
    page.get_by_label("Your name").fill(voter)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.body.dataset.pair && !document.getElementById('pictures').ariaBusy")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.getElementById('progress').textContent.startsWith('1 of')")
    page.wait_for_function("() => !document.getElementById('pictures').ariaBusy")

    def end() -> str:
        page.get_by_role("button", name="Finish").click()
        link = page.get_by_role("link", name="The report")
        page.get_by_text("has all pictures").wait_for(timeout=60_000)
        if link.count():
            return link.get_attribute("href")
        page.get_by_role("button", name="Go on").click()  # the report is still being made
        page.wait_for_function("() => !document.getElementById('voting').hidden")
        return ""

    return wait_until(end)


@pytest.mark.parametrize("options", [(), ("--host", "0.0.0.0")], ids=["loopback", "token"])
def test_a_strangers_page_in_the_report_cannot_vote(tmp_path, browser, python, options):
    folder = make_folder(tmp_path / "results")
    name = add_page(folder)
    attacker = ServerThread([(listener := bind("127.0.0.1", 0), HTMLResponse("<body>"))], {}, lambda _loop: None)
    attacker.start()
    with vote_command(python, folder, *options) as url, browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        report = finish(page, url, "ana")
        assert "sesame" not in report
        assert "owner" not in report
        assert ("#token=" in report) == bool(options)
        origins = {key: f"http://{urlsplit(where).netloc}" for key, where in (("vote", url), ("report", report))}
        page.goto(report)
        page.get_by_role("tab").first.wait_for()
        assert len(context.cookies()) == (2 if options else 0)
        given = load(folder)[1]
        (shown,) = (vote for vote in given if vote.answer is None)
        # As if a script of a stranger ran in the report, and then on any other server of this machine. In a tab of its
        # own, at an address without a script of ours, nothing loads the page again in between.
        page = context.new_page()
        for origin in (origins["report"], base_url(listener)):
            page.goto(f"{origin}/page.css")
            assert page.evaluate(ATTACK, [origins["vote"], shown.id]) == []
        assert load(folder)[1] == given
        # The stranger's page itself, which a browser saves and does not show.
        response = context.request.get(f"{origins['report']}/files/{name}")
        assert response.headers["content-disposition"] == "attachment"
        assert "sandbox" in response.headers["content-security-policy"]
        # A voter sees the report, and can change nothing by it.
        marks = {given[0].left_digest: {"verdict": "reject", "changed": 1}}
        headers = {"origin": origins["report"]}
        assert context.request.post(f"{origins['report']}/marks", data=marks, headers=headers).status == 403
        with Store.open(folder, readonly=True) as store:
            assert store.marks.load() == []
    attacker.stop()


def test_tokens_of_the_vote_page_and_of_its_report_do_not_cross(tmp_path, browser, python):
    folder = make_folder(tmp_path / "results")
    with vote_command(python, folder, "--host", "0.0.0.0") as url, browser.new_context() as context:
        report = urlsplit(finish(context.new_page(), url, "ana"))
        vote = urlsplit(url)
        own, other = "sesame-sesame-sesame-1", report.fragment.removeprefix("token=")
        for server, right, wrong in ((vote, own, other), (report, other, own)):
            path = f"http://{server.netloc}/{'start' if server is vote else 'data.json'}"
            for token, status in ((right, 200), (wrong, 401), ("owner-owner-owner-own1", 401)):
                assert httpx.get(path, headers={"authorization": f"Bearer {token}"}).status_code == status
        (cookie,) = context.cookies()  # of the vote page; browsers send it to every port of this host
        sent = {cookie["name"]: cookie["value"]}
        assert httpx.get(f"http://{vote.netloc}/start", cookies=sent).status_code == 200
        assert httpx.get(f"http://{report.netloc}/data.json", cookies=sent).status_code == 401


def test_hidden_ranking_serves_no_report(tmp_path, browser, python):
    folder = make_folder(tmp_path / "results")
    options = ("--hide-ranking", "--as", "ana")
    with vote_command(python, folder, *options) as url, httpx.Client(base_url=url, timeout=60) as client:
        client.post("/next", json={})
        assert client.post("/ranking", json={}).status_code == 404
        assert not (folder / "report").exists()
