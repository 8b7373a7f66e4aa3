"""The client: which requests it retries, one upload per content, complete downloads. A function plays the server."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from random import Random

import httpx
import pytest

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import download
from sweeper.comfy.protocol import JobOutput, JobSubmission
from sweeper.comfy.retry import RetryPolicy
from sweeper.comfy.target import Target
from sweeper.errors import LostError, RejectedError, TransientError, UnreachableError

URL = "http://127.0.0.1:1/base"
QUICK = RetryPolicy(attempts=4, total_seconds=5.0, base_wait=0.0, max_wait=0.0)
OUTPUT = JobOutput("9", "images", 0, "a.png", "sub", "output")
PICTURE = bytes(range(256)) * 40


def using(handler, dialect, act, key=None):
    """Run `act(client)` against a server that is the function `handler(request)`."""

    async def go():
        target = Target("t", URL, dialect, key=key)
        async with ComfyClient(target, httpx.MockTransport(handler), retry_policy=QUICK, random=Random(1)) as client:
            return await act(client)

    return asyncio.run(go())


class Script:
    """A handler that gives its answers in turn, repeats the last one, and records the requests."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer


def drop(request):
    raise httpx.ReadError("reset", request=request)


def refuse(request):
    raise httpx.ConnectError("refused", request=request)


# --- retries


def test_poll_is_retried_and_gives_up_after_the_last_attempt():
    script = Script(drop, httpx.Response(502), httpx.Response(200, text="<html>"), httpx.Response(200, json={}))
    state = using(script, "comfyui", lambda client: client.get_job("x"))
    assert (state.state, len(script.requests)) == ("underway", 4)
    for answer in (drop, httpx.Response(502), httpx.Response(200, text='{"half')):
        script = Script(answer)
        with pytest.raises(TransientError):
            using(script, "comfyui", lambda client: client.get_job("x"))
        assert len(script.requests) == 4


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
RETRY_AFTER = [
    ({"Retry-After": "20"}, 20.0),
    ({"Retry-After": "Wed, 21 Oct 2026 07:28:45 GMT", "Date": DATE}, 45.0),
    ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": DATE}, None),
    ({"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, 600.0),
    ({"Retry-After": "86400"}, 600.0),
    ({"Retry-After": "0"}, None),
    ({"Retry-After": "soon", "Date": DATE}, None),
    ({"Retry-After": "-5"}, None),
    ({"Retry-After": "inf"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_and_reported(headers, seconds, status):
    script = Script(httpx.Response(status, headers=headers, text="slow down"), httpx.Response(200, json={}))
    reported = []

    async def act(client):
        def report(*wait):
            reported.append(wait)
            client.retry_waiter.cut_short()  # the test does not wait for 20 seconds

        client.retry_waiter.on_wait = report
        return await client.get_job("x")

    assert using(script, "comfyui", act).state == "underway"
    assert len(script.requests) == 2
    assert reported == ([] if seconds is None else [(seconds, f"HTTP {status}: slow down")])


def test_retry_after_does_not_count_towards_the_total_time():
    script = Script(*[httpx.Response(429, headers={"Retry-After": "0.2"})] * 3, httpx.Response(200, json={}))
    times = []

    async def act(client):
        client.retry_policy = RetryPolicy(attempts=4, total_seconds=0.3, base_wait=0.0, max_wait=0.0)
        started = asyncio.get_running_loop().time()
        await client.get_job("x")
        times.append(asyncio.get_running_loop().time() - started)

    using(script, "comfyui", act)
    assert times[0] >= 0.6


def test_download_obeys_retry_after():
    script = Script(
        httpx.Response(503, headers={"Retry-After": "0.3"}), httpx.Response(200, stream=httpx.ByteStream(PICTURE))
    )
    started = time.monotonic()
    assert download_output(script) == PICTURE
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("answer", [drop, httpx.Response(500), httpx.Response(200, text="{")])
def test_submission_is_never_retried(answer):
    script = Script(answer)
    with pytest.raises(TransientError) as caught:
        using(script, "cloud", lambda client: client.submit(JobSubmission("j", {})))
    assert caught.value.sent
    assert len(script.requests) == 1


def test_refused_connection_reports_that_nothing_was_sent():
    with pytest.raises(TransientError) as caught:
        using(Script(refuse), "cloud", lambda client: client.submit(JobSubmission("j", {})))
    assert not caught.value.sent


def test_unreachable_target_is_reported_by_name():
    with pytest.raises(UnreachableError, match=r"^t: cannot be reached: ConnectError: refused"):
        using(Script(refuse), "comfyui", lambda client: client.connect())


def test_unknown_dialect_is_probed_once():
    async def act(client):
        server = await client.connect()
        await client.connect()
        return server, client.target.dialect

    system = {"system": {"argv": ["main.py", "--cache-none"], "comfyui_version": "0.3.64"}, "devices": []}
    script = Script(httpx.Response(200, json=system))
    server, dialect = using(script, None, act)
    assert (dialect, server.version, server.arguments) == ("comfyui", "0.3.64", ("main.py", "--cache-none"))
    assert [request.url.path for request in script.requests] == [
        "/base/system_stats",
        *["/base/system_stats", "/base/api/jobs/cancel"] * 2,
    ]


def test_call_that_a_server_does_not_have_is_not_repeated():
    script = Script(httpx.Response(501))
    with pytest.raises(TransientError):
        using(script, "comfyui", lambda client: client.get_job("x"))
    assert len(script.requests) == 1


def test_big_integers_and_lone_surrogates_are_sent_unchanged():
    script = Script(httpx.Response(200, json={"prompt_id": "p"}))
    graph = {"1": {"class_type": "X", "inputs": {"seed": 2**64 - 1, "text": "half \ud83d"}}}
    using(script, "cloud", lambda client: client.submit(JobSubmission("j", graph)))
    assert json.loads(script.requests[0].content) == {"prompt": graph}


# --- uploads


def test_equal_files_are_uploaded_once_and_get_the_servers_name(tmp_path):
    first, second = tmp_path / "A.PNG", tmp_path / "b.png"
    first.write_bytes(PICTURE)
    second.write_bytes(PICTURE)
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    script = Script(httpx.Response(200, json={"name": "a (1).png", "subfolder": "in", "type": "input"}))

    async def act(client):
        return await asyncio.gather(*(client.uploads.ensure_uploaded(path, sha256) for path in (first, second, first)))

    assert using(script, "comfyui", act) == ["in/a (1).png"] * 3
    (request,) = script.requests
    assert f'filename="sweeper-{sha256[:16]}.png"'.encode() in request.content
    assert PICTURE in request.content


def test_file_changed_since_planning_is_not_uploaded(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"other")
    script = Script(httpx.Response(200, json={"name": "x"}))
    with pytest.raises(RejectedError, match="changed since"):
        using(script, "comfyui", lambda client: client.uploads.ensure_uploaded(file, "0" * 64))
    with pytest.raises(RejectedError, match="No such file"):
        using(script, "comfyui", lambda client: client.uploads.ensure_uploaded(tmp_path / "gone.png", "0" * 64))
    assert script.requests == []


@pytest.mark.parametrize(
    ("dialect", "answer", "uploads"),
    [
        ("comfyui", httpx.Response(200, headers={"Content-Length": str(len(PICTURE))}), False),
        ("comfyui", httpx.Response(200, headers={"Content-Length": "3"}), True),
        ("comfyui", httpx.Response(404), True),
        ("comfyui", httpx.Response(500), True),
        ("cloud", httpx.Response(302, headers={"Location": "https://files.example/a"}), False),
        ("cloud", httpx.Response(404), True),
        ("cloud", httpx.ReadTimeout("late"), True),
    ],
)
def test_earlier_upload_is_reused_if_the_server_still_has_it(tmp_path, dialect, answer, uploads):
    file = tmp_path / "a.png"
    file.write_bytes(PICTURE)
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    script = Script(answer, httpx.Response(200, json={"name": "new.png"}))
    notes = []

    async def act(client):
        client.uploads.preload({sha256: ("in/old.png", len(PICTURE))}, lambda *note: notes.append(note))
        return await client.uploads.ensure_uploaded(file, sha256)

    assert using(script, dialect, act) == ("new.png" if uploads else "in/old.png")
    assert dict(script.requests[0].url.params) == {"filename": "old.png", "subfolder": "in", "type": "input"}
    assert len(script.requests) == 1 + uploads
    assert notes == ([(sha256, "new.png", len(PICTURE))] if uploads else [])


# --- downloads


def broken(content, length, **headers):
    """An answer whose body ends too early, as after a dropped connection."""

    async def body():
        yield content[:length]
        raise httpx.ReadError("reset")

    return lambda _: httpx.Response(200, headers={"Content-Length": str(len(content)), **headers}, content=body())


def serve_ranges(content, etag='"v1"'):
    def answer(request):
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        if start and request.headers.get("if-range") == etag:
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}", "ETag": etag}
            return httpx.Response(206, headers=headers, stream=httpx.ByteStream(content[start:]))
        return httpx.Response(200, headers={"ETag": etag}, stream=httpx.ByteStream(content))

    return answer


class Received(io.BytesIO):
    def restart(self):
        self.seek(0)
        self.truncate()


def download_output(script, dialect="comfyui", key=None):
    file = Received()
    result = using(script, dialect, lambda client: download(client, OUTPUT, file), key)
    assert result.sha256 == hashlib.sha256(file.getvalue()).hexdigest()
    assert result.bytes == len(file.getvalue())
    return file.getvalue()


def test_dropped_download_is_resumed():
    script = Script(broken(PICTURE, 5000, ETag='"v1"'), serve_ranges(PICTURE))
    assert download_output(script) == PICTURE
    assert script.requests[1].headers["range"] == "bytes=5000-"


def test_file_changed_during_download_is_downloaded_from_the_start():
    script = Script(broken(PICTURE, 5000, ETag='"v1"'), serve_ranges(PICTURE[::-1], '"v2"'))
    assert download_output(script) == PICTURE[::-1]


def test_download_without_a_strong_etag_is_not_resumed():
    script = Script(broken(PICTURE, 5000, ETag='W/"v1"'), serve_ranges(PICTURE))
    assert download_output(script) == PICTURE
    assert "range" not in script.requests[1].headers


def test_wrong_content_range_restarts_the_download():
    wrong = httpx.Response(206, headers={"Content-Range": "bytes 7-9/10"}, stream=httpx.ByteStream(b"xyz"))
    script = Script(broken(PICTURE, 5000, ETag='"v1"'), wrong, serve_ranges(PICTURE))
    assert download_output(script) == PICTURE


def test_signed_url_is_fetched_without_the_key_and_renewed():
    def storage(number):
        return lambda _: httpx.Response(302, headers={"Location": f"https://storage.example/f?sig={number}"})

    script = Script(storage(1), httpx.Response(403), storage(2), httpx.Response(200, stream=httpx.ByteStream(PICTURE)))
    assert download_output(script, "cloud", key="k-secret") == PICTURE
    hosts = [(request.url.host, "x-api-key" in request.headers) for request in script.requests]
    assert hosts == [("127.0.0.1", True), ("storage.example", False)] * 2
    assert script.requests[0].url.params["subfolder"] == "sub"


def test_storage_redirects_are_followed_without_the_key():
    script = Script(
        httpx.Response(302, headers={"Location": "/elsewhere"}),
        httpx.Response(307, headers={"Location": "https://b.example/f"}),
        httpx.Response(200, stream=httpx.ByteStream(PICTURE)),
    )
    assert download_output(script, "cloud", key="k-secret") == PICTURE
    assert ["x-api-key" in request.headers for request in script.requests] == [True, False, False]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "javascript:1", "http://[bad"])
def test_redirect_to_a_non_http_url_is_not_followed(location):
    script = Script(httpx.Response(302, headers={"Location": location}))
    with pytest.raises(TransientError):
        download_output(script, "cloud")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
def test_gateway_page_is_not_stored_as_a_picture(kind):
    page = httpx.Response(200, headers={"Content-Type": kind}, stream=httpx.ByteStream(b"<html>log in</html>"))
    script = Script(page, httpx.Response(200, stream=httpx.ByteStream(PICTURE)))
    assert download_output(script) == PICTURE


def test_missing_file_is_lost_and_a_failing_server_ends_the_download():
    with pytest.raises(LostError, match=r"does not serve the file 'a.png' \(HTTP 404\)"):
        download_output(Script(httpx.Response(404)))
    script = Script(httpx.Response(500))
    with pytest.raises(TransientError, match=r"a\.png: HTTP 500"):
        download_output(script)
    assert len(script.requests) == 4


async def _cookies_seen() -> list[str | None]:
    seen: list[str | None] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        return httpx.Response(200, json={}, headers={"Set-Cookie": "node=7"} if len(seen) == 1 else {})

    target = Target("sticky", "http://127.0.0.1:9", dialect="comfyui")
    async with ComfyClient(target, httpx.MockTransport(serve)) as client:
        for _ in range(3):
            await client.models.get_object_info()
    return seen


def test_client_returns_load_balancer_cookies():
    assert asyncio.run(_cookies_seen()) == [None, "node=7", "node=7"]
