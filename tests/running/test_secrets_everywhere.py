"""Two keys and a server that echoes them in every response: no file, log, event, exception or other host gets one.

The keys have characters that JSON and URLs encode.
"""

from __future__ import annotations

import json
import logging
import traceback
from functools import partial
from urllib.parse import quote

import pytest

import sweeper
from sweeper.cli import main
from sweeper.comfy.protocol import KEY_HEADER
from sweeper.comfy.retry import RetryPolicy
from sweeper.errors import SweeperError, UsageError
from tests.running.echo_server import tattling

KEY = 'sk-live/0123+SECRET"\\one'
PARTNER = "comfyui-partner/SECRET+two"
ENVIRON = {"MY_KEY": KEY, "MY_PARTNER_KEY": PARTNER}
FORMS = [form for key in (KEY, PARTNER) for form in {key, quote(key), quote(key, safe=""), json.dumps(key)[1:-1]}]
TEMPLATE = {
    "1": {"class_type": "Paint", "inputs": {"text": "{{ text }}"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}

# Where the server talks too much, and what becomes of the trial then.
TRICKS = {
    "nowhere": "succeeded",
    "/api/prompt": "failed",
    "/api/user": "unreachable",
    "/api/view": "pending",  # its job stands; the next run asks for the files again
    "failure": "failed",
    "name": "succeeded",
    "redirect": "pending",  # as above: no request repeats our key, but the job was paid for
    "refused": "pending",
}


def leaks(texts):
    return [form for text in texts for form in FORMS if form in text]


def files_of(folder):
    return [path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def heard(caplog):
    """All log records of all libraries as text, with tracebacks."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "websockets", "websockets.client", "asyncio", "sweeper"):
        caplog.set_level(logging.DEBUG, logger=name)
    return lambda: [logging.Formatter().format(one) for one in caplog.records]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    hasty = partial(
        RetryPolicy, attempts=2, total_seconds=2.0, base_wait=0.01, max_wait=0.02
    )  # a server that says 500 will say it again
    monkeypatch.setattr("sweeper.comfy.client.RetryPolicy", hasty)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # it has no classes of another server at this port
    (tmp_path / "t.json").write_text(json.dumps(TEMPLATE))
    file = tmp_path / "e.yaml"
    file.write_text("template: t.json\nparams: {text: a}\nrun: {retries: 0}\n")
    return file


@pytest.mark.parametrize("trick", TRICKS)
def test_keys_that_a_server_echoes_appear_nowhere(trick, sweep, tmp_path, heard, capsys):
    out, events = tmp_path / "out", []
    with tattling(KEY, trick) as (tattler, foreign):
        target = {"url": tattler.url, "dialect": "cloud", "api_key_env": "MY_KEY", "partner_key_env": "MY_PARTNER_KEY"}
        try:
            ran = sweeper.run(sweep, target, out, environ=ENVIRON, progress=events.append, patience=0.1)
            ended = next(iter(sweeper.results(out)["status"]))
            said = [repr(ran), str(ran.error)]
        except SweeperError as error:
            ended = "unreachable"
            said = [str(error), repr(error), repr(error.args), *traceback.format_exception(error)]
        if out.exists():
            assert main(["report", str(out)]) == 0
            assert main(["export", str(out), "-o", str(tmp_path / "out" / "table.jsonl")]) == 0
            main(["results", str(out)])

    assert ended == TRICKS[trick]
    # The keys were really sent: one in its header, the other where partner nodes want it, and both to the target only.
    assert any(f"{KEY_HEADER}: {KEY}".lower() in sent.decode().lower() for sent in tattler.journal)
    if trick != "/api/user":
        assert any(json.dumps({"api_key_comfy_org": PARTNER})[1:-1].encode() in sent for sent in tattler.journal)
    assert (len(foreign.journal) > 0) == (trick in ("nowhere", "name", "refused"))
    assert leaks([sent.decode() for sent in foreign.journal]) == []
    assert leaks(files_of(tmp_path)) == []
    assert leaks([repr(event) for event in events]) == []
    assert leaks(said) == []
    assert leaks(heard()) == []
    streams = capsys.readouterr()
    assert leaks([streams.out, streams.err]) == []


def test_the_partner_key_is_not_sent_for_a_workflow_without_partner_nodes(tmp_path, sweep):
    (tmp_path / "t.json").write_text(
        json.dumps({**TEMPLATE, "1": {"class_type": "Paint2", "inputs": {"text": "{{ text }}"}}})
    )
    with tattling(KEY, "nowhere") as (tattler, _):
        target = {"url": tattler.url, "dialect": "cloud", "api_key_env": "MY_KEY", "partner_key_env": "MY_PARTNER_KEY"}
        sweeper.run(sweep, target, tmp_path / "out", environ=ENVIRON, check=False)
    assert any(b"POST /api/prompt" in sent for sent in tattler.journal)
    assert leaks([sent.decode() for sent in tattler.journal if b"api_key_comfy_org" in sent]) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give the target `partner_key_env: NAME`"),
        ({"partner_key_env": "NOT_SET"}, "the environment variable NOT_SET is not set"),
    ],
)
def test_a_missing_partner_key_is_reported_before_anything_is_sent(tmp_path, sweep, settings, said):
    with tattling(KEY, "nowhere") as (tattler, _):
        target = {"url": tattler.url, "dialect": "cloud", "api_key_env": "MY_KEY", "name": "mine", **settings}
        with pytest.raises(UsageError) as caught:
            sweeper.run(sweep, target, tmp_path / "out", environ=ENVIRON)
    assert "target mine: node 1 (Paint) calls a paid partner" in str(caught.value)
    assert said in str(caught.value)
    assert not any(b"POST" in sent for sent in tattler.journal)
    assert not (tmp_path / "out").exists()
