"""The live view over HTTP: who is let in, what is given out, and what a client that was cut off is told."""

from __future__ import annotations

import json
import re
import socket

import httpx
import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import ResultsError, UsageError
from sweeper.reporting.live import LiveView
from tests.reporting import painting
from tests.reporting.made_up_sweeps import Sweep

HOSTILE_HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:1", "", "[::2]"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("live") / "results"
    return Sweep({"steps": [1, 2, 3]}, ends={1: ("failed", ("E", "no"))}).write(out)


@pytest.fixture(scope="module")
def view(results):
    with LiveView(results) as view:
        yield view


@pytest.fixture(scope="module")
def guarded(results):
    with LiveView(results, host="0.0.0.0", token="secret") as view:
        port = view.url.rpartition(":")[2].partition("/")[0]
        yield f"http://127.0.0.1:{port}"


def test_the_page_its_data_its_files_and_its_thumbnails_are_served(view):
    assert "sweeper report" in httpx.get(view.url).text
    data = httpx.get(f"{view.url}data.json").json()
    assert data["trials"] == [0, 1, 2]
    for file in data["files"]:
        found = httpx.get(view.url + file["path"])
        assert (found.headers["content-type"], len(found.content)) == ("image/png", file["bytes"])
        assert "sandbox" in found.headers["content-security-policy"]
        assert httpx.get(view.url + file["thumb"]).headers["content-type"] == "image/webp"
    assert httpx.get(f"{view.url}data.js").text.startswith("globalThis.sweeper")


def test_of_results_that_cannot_be_written_nothing_stays_behind(tmp_path, monkeypatch):
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


@pytest.mark.parametrize(
    "path",
    [
        "sweeper.sqlite", "files/sweeper.sqlite", "files/..%2fsweeper.sqlite", "files/%2e%2e/sweeper.sqlite",
        "thumbs/index.json", "thumbs/..%2f..%2fsweeper.sqlite", "preview/7", "preview/x", "js/../../folder.py",
        "files/", "%2fetc%2fpasswd",
    ],
)  # fmt: skip
def test_nothing_else_is_given_out(view, path):
    assert httpx.get(view.url + path).status_code == 404


def test_every_answer_forbids_scripts_and_frames_of_others(view):
    for path in ("", "data.json", "nothing"):
        headers = httpx.get(view.url + path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_a_name_that_is_not_ours_is_refused_on_loopback(view, host):
    assert httpx.get(f"{view.url}data.json", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:9"])
def test_names_of_loopback_are_ours(view, host):
    assert httpx.get(view.url, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(view, method):
    assert httpx.request(method, view.url).status_code == 405


def test_on_loopback_there_is_no_token_and_the_port_is_the_folders_own(results, view):
    assert view.token is None
    assert "#" not in view.url
    with LiveView(results) as second:  # its port is taken
        assert second.url != view.url


@pytest.mark.parametrize("path", ["/data.json", "/data.js", "/events?since=0.0", "/files/picture-0.png", "/js/main.js"])
def test_without_the_token_nothing_of_the_run_is_told(guarded, path):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}, {"cookie": "sweeper-view=x"}):
        answer = httpx.get(guarded + path, headers=headers)
        assert answer.status_code == 401
        assert "made-up" not in answer.text


def test_the_token_opens_as_a_header_and_as_the_cookie_of_a_session(guarded):
    assert httpx.get(f"{guarded}/data.json", headers={"authorization": "Bearer secret"}).status_code == 200
    with httpx.Client(base_url=guarded) as client:
        assert client.post("/session", json={"token": "nearly"}).status_code == 403
        answer = client.post("/session", json={"token": "secret"})
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=strict" in answer.headers["set-cookie"]
        assert client.get("/data.json").status_code == 200
        for body in (b"", b"[]", b'{"token": 1}', b"x" * 5000):
            assert client.post("/session", content=body).status_code in (403, 413)


def test_two_views_on_one_machine_keep_their_cookies_apart(results, guarded):
    with LiveView(results, host="0.0.0.0", token="other") as view, httpx.Client() as client:
        other = f"http://127.0.0.1:{view.url.rpartition(':')[2].partition('/')[0]}"
        for address, token in ((guarded, "secret"), (other, "other")):
            assert client.post(f"{address}/session", json={"token": token}).status_code == 200
        assert [client.get(f"{address}/data.json").status_code for address in (guarded, other)] == [200, 200]


def test_a_token_in_the_query_opens_nothing(guarded):
    assert httpx.get(f"{guarded}/data.json?token=secret").status_code == 401


def test_a_foreign_name_is_refused_even_with_the_token(guarded):
    headers = {"authorization": "Bearer secret", "host": "evil.example"}
    assert httpx.get(f"{guarded}/data.json", headers=headers).status_code == 421


def test_a_token_is_made_where_none_is_given_and_stands_behind_the_hash(results):
    with LiveView(results, host="0.0.0.0") as one, LiveView(results, host="0.0.0.0") as other:
        assert len(one.token) >= 32
        assert one.token != other.token
        assert one.url.endswith(f"/#token={one.token}")


def test_a_port_that_is_taken_and_a_host_that_is_not_ours_are_told(results):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=re.escape(f"127.0.0.1:{port}: ")):
            LiveView(results, port=port)
    with pytest.raises(UsageError, match=r"host[.]invalid"):
        LiveView(results, host="host.invalid")


def test_a_folder_without_results_is_told_before_anything_is_served(tmp_path):
    with pytest.raises(ResultsError, match="no results here"):
        LiveView(tmp_path)
    with pytest.raises(ResultsError, match="no run 7 here"):
        LiveView(Sweep({"steps": [1]}).write(tmp_path / "r"), run="7")


def events(client, url, count, **more):
    """The first `count` events of a stream: (name, id, data)."""
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
    """Runs an experiment over some texts, or so many of its trials."""
    painter = painting.Painter()
    painter.go_on.set()
    with EmbeddedServer(nodes=painter.nodes) as server:

        def run(*texts, limit=None):
            return sweeper.run(painting.experiment(tmp_path, list(texts)), server.url, tmp_path / "out", limit=limit)

        yield run


def test_a_client_that_was_cut_off_gets_exactly_what_it_missed(painted, tmp_path):
    painted("a", "bad", "c", limit=1)
    with LiveView(tmp_path / "out") as view, httpx.Client(base_url=view.url, timeout=20) as client:
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


def test_a_run_of_another_plan_has_a_page_of_its_own(painted, tmp_path):
    painted("a")
    with LiveView(tmp_path / "out") as view, httpx.Client(base_url=view.url, timeout=20) as client:
        live = client.get("data.json").json()["live"]
        painted("a", "b")
        found = events(client, f"events?since={live['generation']}.{live['number']}", 9)
        assert found[-1][0] == "anew"
        assert client.get("data.json").json()["trials"] == [0, 1]


def test_a_stream_without_a_place_to_begin_is_refused(view):
    for since in ("", "?since=", "?since=1", "?since=-1.0", "?since=a.b", "?since=" + "9" * 40 + ".1"):
        assert httpx.get(f"{view.url}events{since}").status_code == 400
