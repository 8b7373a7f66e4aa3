"""The live view over HTTP: access, what it serves, and the stream of changes."""

from __future__ import annotations

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import ResultsError, UsageError
from sweeper.reporting.live import LiveView
from sweeper.store import Store
from tests.reporting import painting
from tests.reporting.made_up_sweeps import Sweep
from tests.waiting import wait_until

HOSTILE_HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:1", "", "[::2]"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("live") / "results"
    return Sweep({"steps": [1, 2, 3]}, ends={1: ("failed", ("E", "no"))}).write(out)


@pytest.fixture(scope="module")
def view(results):
    with LiveView(results) as view:
        yield view


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr("sweeper.serving.access.WRONG_TOKEN_SECONDS", 0.0)


@pytest.fixture(scope="module")
def guarded(results):
    with LiveView(results, host="0.0.0.0", token="secret") as view:
        port = view.url.rpartition(":")[2].partition("/")[0]
        yield f"http://127.0.0.1:{port}"


def test_page_data_files_and_thumbnails_are_served(view):
    assert "sweeper report" in httpx.get(view.url).text
    data = httpx.get(f"{view.url}data.json").json()
    assert data["trials"] == [0, 1, 2]
    for file in data["files"]:
        found = httpx.get(view.url + file["path"])
        assert (found.headers["content-type"], len(found.content)) == ("image/png", file["bytes"])
        assert "sandbox" in found.headers["content-security-policy"]
        assert httpx.get(view.url + file["thumb"]).headers["content-type"] == "image/webp"
    assert httpx.get(f"{view.url}data.js").text.startswith("globalThis.sweeper")


def test_read_only_results_leave_no_temporary_files(tmp_path, monkeypatch):
    folder = Sweep({"steps": [1, 2]}).write(tmp_path / "results")
    (folder / "report").write_text("no folder")
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(aside))
    with LiveView(folder) as view:
        assert len(list(aside.glob("sweeper-view-*"))) == 1
        file = httpx.get(f"{view.url}data.json").json()["files"][0]
        assert httpx.get(view.url + file["thumb"]).headers["content-type"] == "image/webp"
    assert list(aside.iterdir()) == []
    with pytest.raises(ResultsError, match="no run 7"):
        LiveView(folder, run="7")
    assert list(aside.iterdir()) == []


@pytest.mark.parametrize("link", ["report", "report/thumbs"])
def test_thumbnails_are_not_written_where_a_link_leads(tmp_path, link):
    folder = Sweep({"steps": [1, 2]}).write(tmp_path / "results")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(elsewhere)
    with LiveView(folder) as view:
        file = httpx.get(f"{view.url}data.json").json()["files"][0]
        assert httpx.get(view.url + file["thumb"]).status_code == 200
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "sweeper.sqlite", "files/sweeper.sqlite", "files/..%2fsweeper.sqlite", "files/%2e%2e/sweeper.sqlite",
        "thumbs/index.json", "thumbs/..%2f..%2fsweeper.sqlite", "preview/7", "preview/x", "js/../../folder.py",
        "files/", "%2fetc%2fpasswd", "preview/" + "9" * 5000, "preview/-1", "preview/%C2%B2", "files/%00",
    ],
)  # fmt: skip
def test_unknown_paths_are_not_found(view, path):
    assert httpx.get(view.url + path).status_code == 404


def test_every_response_forbids_foreign_scripts_and_frames(view):
    for path in ("", "data.json", "nothing"):
        headers = httpx.get(view.url + path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_loopback_refuses_foreign_host_names(view, host):
    assert httpx.get(f"{view.url}data.json", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:9"])
def test_loopback_names_are_accepted(view, host):
    assert httpx.get(view.url, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_get_and_head_are_allowed(view, method):
    assert httpx.request(method, view.url).status_code == 405


def test_loopback_needs_no_token_and_uses_the_folders_port(results, view):
    assert view.token is None
    assert "#" not in view.url
    with LiveView(results) as second:  # its port is taken
        assert second.url != view.url


@pytest.mark.parametrize("path", ["/data.json", "/data.js", "/events?since=0.0", "/files/picture-0.png", "/js/main.js"])
def test_nothing_is_served_without_the_token(guarded, path):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}, {"cookie": "sweeper-view=x"}):
        answer = httpx.get(guarded + path, headers=headers)
        assert answer.status_code == 401
        assert "made-up" not in answer.text


def test_token_works_as_header_and_as_cookie(guarded):
    assert httpx.get(f"{guarded}/data.json", headers={"authorization": "Bearer secret"}).status_code == 200
    with httpx.Client(base_url=guarded) as client:
        assert client.post("/session", json={"token": "nearly"}).status_code == 403
        answer = client.post("/session", json={"token": "secret"})
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=strict" in answer.headers["set-cookie"]
        assert client.get("/data.json").status_code == 200
        for body in (b"", b"[]", b'{"token": 1}', b"x" * 5000):
            assert client.post("/session", content=body).status_code in (403, 413)
        for body in (b"[" * 4000, b'{"token":' + b"9" * 4000 + b"}", b'{"token": NaN}', b'{"token": "\\ud800"}'):
            assert client.post("/session", content=body).status_code == 403


def test_wrong_tokens_wait_and_right_ones_do_not(guarded, monkeypatch):
    monkeypatch.setattr("sweeper.serving.access.WRONG_TOKEN_SECONDS", 1.0)
    wrong = {"headers": {"authorization": "Bearer wrong"}}
    with ThreadPoolExecutor(3) as pool:
        started = time.monotonic()
        waiting = [pool.submit(httpx.get, f"{guarded}/data.json", **wrong) for _ in range(2)]
        waiting.append(pool.submit(httpx.post, f"{guarded}/session", json={"token": "wrong"}))
        assert httpx.get(f"{guarded}/data.json", headers={"authorization": "Bearer secret"}).status_code == 200
        assert not any(answer.done() for answer in waiting)
        assert [answer.result().status_code for answer in waiting] == [401, 401, 403]
        assert time.monotonic() - started > 1


def test_any_token_works_as_a_cookie(results):
    token = 'a "b"; c\\d é'
    with LiveView(results, host="0.0.0.0", token=token) as view, httpx.Client() as client:
        address = f"http://127.0.0.1:{view.url.rpartition(':')[2].partition('/')[0]}"
        assert client.post(f"{address}/session", json={"token": token}).status_code == 200
        assert client.get(f"{address}/data.json").status_code == 200


def test_long_cookie_takes_no_time(guarded):
    started = time.process_time()
    cookie = 'a="' + "\\" * 15_000 + '"'
    assert httpx.get(f"{guarded}/data.json", headers={"cookie": cookie}).status_code == 401
    assert time.process_time() - started < 0.5  # http.cookies needs more than a second


def test_two_views_use_different_cookies(results, guarded):
    with LiveView(results, host="0.0.0.0", token="other") as view, httpx.Client() as client:
        other = f"http://127.0.0.1:{view.url.rpartition(':')[2].partition('/')[0]}"
        for address, token in ((guarded, "secret"), (other, "other")):
            assert client.post(f"{address}/session", json={"token": token}).status_code == 200
        assert [client.get(f"{address}/data.json").status_code for address in (guarded, other)] == [200, 200]


def test_token_in_the_query_is_ignored(guarded):
    assert httpx.get(f"{guarded}/data.json?token=secret").status_code == 401


def test_foreign_host_name_is_refused_even_with_a_token(guarded):
    headers = {"authorization": "Bearer secret", "host": "evil.example"}
    assert httpx.get(f"{guarded}/data.json", headers=headers).status_code == 421


def test_missing_token_is_made_and_follows_the_hash(results):
    with LiveView(results, host="0.0.0.0") as one, LiveView(results, host="0.0.0.0") as other:
        assert len(one.token) >= 32
        assert one.token != other.token
        assert one.url.endswith(f"/#token={one.token}")


def test_view_reports_a_taken_port_and_a_foreign_host(results):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=re.escape(f"127.0.0.1:{port}: ")):
            LiveView(results, port=port)
    with pytest.raises(UsageError, match=r"host[.]invalid"):
        LiveView(results, host="host.invalid")


def test_view_refuses_a_folder_without_results(tmp_path):
    with pytest.raises(ResultsError, match="no results here"):
        LiveView(tmp_path)
    with pytest.raises(ResultsError, match="no run 7 here"):
        LiveView(Sweep({"steps": [1]}).write(tmp_path / "r"), run="7")


HOSTILE_MARKS = {
    "nested": "[" * 4000,
    "nested objects": '{"a":' * 700,
    "digits": f'{{"{"a" * 64}": {{"stars": {"9" * 3900}}}}}',
    "NaN": f'{{"{"a" * 64}": {{"changed": NaN}}}}',
    "infinite": f'{{"{"a" * 64}": {{"stars": 1e400}}}}',
    "not UTF-8": b'{"\xff": 1}',
    "long comment": json.dumps({"a" * 64: {"comment": "x" * 1001, "changed": 1}}),
}


@pytest.mark.parametrize("body", HOSTILE_MARKS.values(), ids=HOSTILE_MARKS)
def test_hostile_marks_are_refused(view, body):
    answer = httpx.post(f"{view.url}marks", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_marks_of_unknown_trials_are_refused(results, view):
    with Store.open(results, readonly=True) as store:
        own, _, _ = next(store.iter_trials())
    mark = {"stars": 5, "changed": 1}
    for marks in ({"a" * 64: mark}, {own: mark, "a" * 64: mark}):
        answer = httpx.post(f"{view.url}marks", json=marks)
        assert (answer.status_code, answer.text) == (422, "the folder has no such trial")
    with Store.open(results, readonly=True) as store:
        assert store.marks.load() == []
    # A page cuts a comment after 1,000 units of UTF-16, which may be in the middle of an emoji.
    cut = f'{{"{own}": {{"comment": "\\ud83d", "changed": 1}}}}'
    assert httpx.post(f"{view.url}marks", content=cut, headers={"content-type": "application/json"}).status_code == 204
    with Store.open(results, readonly=True) as store:
        assert [mark.comment for mark in store.marks.load()] == ["?"]


def test_marks_for_a_deleted_folder_are_refused_and_make_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeper.reporting.live.follower._HEARTBEAT_SECONDS", 0.1)
    folder = Sweep({"steps": [1, 2]}).write(tmp_path / "results")
    with Store.open(folder, readonly=True) as store:
        digest, _, _ = next(store.iter_trials())
    with LiveView(folder) as view:
        wait_until((folder / "live").is_dir)
        folder.rename(tmp_path / "moved")
        answer = httpx.post(f"{view.url}marks", json={digest: {"stars": 5, "changed": 1}})
        assert (answer.status_code, "put the folder back" in answer.text) == (410, True)
        time.sleep(1)  # the view still looks for changes
        assert not folder.exists()
        (tmp_path / "moved").rename(folder)
        assert httpx.post(f"{view.url}marks", json={digest: {"stars": 5, "changed": 1}}).status_code == 204


@pytest.mark.parametrize("origin", ["http://[", "null", "http://[v1.]", "https://evil.example"])
def test_marks_from_foreign_or_broken_origins_are_refused(view, origin):
    assert httpx.post(f"{view.url}marks", json={}, headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("path", ["", "events", "marks", "nothing"])
def test_websockets_are_refused(view, path):
    with pytest.raises(InvalidStatus) as refused, connect(view.url.replace("http", "ws") + path):
        pass
    assert refused.value.response.status_code == 403


def events(client, url, count, **more):
    """The first `count` events of a stream, each as (name, id, data)."""
    found = []
    with client.stream("GET", url, **more) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
                continue
            if "data" in event:
                found.append((event["event"], event.get("id"), json.loads(event["data"])))
            event = {}
            if len(found) == count:
                return found
    return found


@pytest.fixture
def painted(tmp_path):
    """Run an experiment over some texts, or only some of its trials."""
    painter = painting.Painter()
    painter.go_on.set()
    with EmbeddedServer(nodes=painter.nodes) as server:

        def run(*texts, limit=None):
            return sweeper.run(painting.experiment(tmp_path, list(texts)), server.url, tmp_path / "out", limit=limit)

        yield run


def test_reconnecting_client_gets_exactly_the_missed_changes(painted, tmp_path):
    painted("a", "bad", "c", limit=1)
    with LiveView(tmp_path / "out") as view, httpx.Client(base_url=view.url, timeout=60) as client:
        live = client.get("data.json").json()["live"]
        painted("a", "bad", "c")
        rows = {}
        since = f"{live['generation']}.{live['number']}"
        while len(rows) < 2 or rows[2]["status"] != 0:
            ((name, since, data),) = events(client, "events", 1, headers={"last-event-id": since})
            assert name == "change"
            rows |= {row["row"]: row for row in data["rows"]}
        assert sorted(rows) == [1, 2]
        assert rows[1]["error"].endswith("out of paint for bad")
        assert rows[2]["files"][0]["kind"] == "image"
        assert client.get(rows[2]["files"][0]["thumb"]).status_code == 200


def test_run_of_another_plan_reloads_the_page(painted, tmp_path):
    painted("a")
    with LiveView(tmp_path / "out") as view, httpx.Client(base_url=view.url, timeout=60) as client:
        live = client.get("data.json").json()["live"]
        painted("a", "b")
        found = events(client, f"events?since={live['generation']}.{live['number']}", 9)
        assert found[-1][0] == "anew"
        assert client.get("data.json").json()["trials"] == [0, 1]


def test_a_running_trial_shows_its_earlier_result_and_that_it_runs(tmp_path):
    painter = painting.Painter()
    painter.go_on.set()
    experiment = painting.experiment(tmp_path, ["a", "b"])
    with EmbeddedServer(nodes=painter.nodes) as server:
        sweeper.run(experiment, server.url, tmp_path / "out")
    painter.go_on.clear()
    with (
        LiveView(tmp_path / "out") as view,
        EmbeddedServer(nodes=painter.nodes) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        ended = pool.submit(sweeper.run, experiment, server.url, tmp_path / "out", per_target=True)
        try:
            wait_until(lambda: httpx.get(f"{view.url}data.json").json()["live"]["flight"])
            data = httpx.get(f"{view.url}data.json").json()
        finally:
            painter.go_on.set()
        assert [data["statuses"][status] for status in data["status"]] == ["succeeded"] * 2
        assert (data["live"]["about"]["run"], len(data["files"])) == (2, 2)
        assert ended.result(60).succeeded == 2


def test_event_stream_requires_since(view):
    for since in ("", "?since=", "?since=1", "?since=-1.0", "?since=a.b", "?since=" + "9" * 40 + ".1"):
        assert httpx.get(f"{view.url}events{since}").status_code == 400
