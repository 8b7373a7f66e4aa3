"""The message about the end of a run, search or check: what it says, who gets it, and what happens without a taker."""

from __future__ import annotations

import http.server
import json
import logging
import shutil
import threading
import time
from dataclasses import dataclass, field

import pytest
import yaml

import sweeper
from sweeper import embedded
from sweeper.cli import main
from sweeper.errors import ExperimentError, UnreachableError, UsageError
from sweeper.model.money import CURRENCY
from sweeper.model.urls import parse_notify_url
from sweeper.running import notify
from sweeper.running.run_events import JobSubmitted, Notice
from sweeper.running.stop_control import StopControl
from tests import ROOT
from tests.few_classes import pick_classes

SECRET = "T000-B000-s3cr3tOfAWebhook"
PROMPT = "a red fox that nobody else may see"
EXPERIMENT = {
    "name": "foxes",
    "template": "txt2img.json",
    "params": {"steps": 1, "width": 64, "height": 64, "prompt": PROMPT},
    "sweep": {"grid": {"seed": [1, 2]}},
}
SEARCH = {
    **{key: value for key, value in EXPERIMENT.items() if key != "sweep"},
    "metrics": ["sharpness"],
    "search": {"maximize": "sharpness", "space": {"seed": {"from": 1, "to": 50}}, "trials": 4, "batch": 2},
}


@dataclass
class Inbox:
    """What a server of messages got. `status`, `headers` and `body` are its answer; `delay`: seconds before it."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    delay: float = 0.0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def messages(self):
        return [json.loads(content) for _, _, content in self.requests]

    @property
    def message(self):
        (message,) = self.messages
        return message


@pytest.fixture
def inbox():
    box = Inbox()
    has_ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            content = self.rfile.read(int(self.headers["content-length"]))
            box.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, content))
            has_ended.wait(box.delay)
            self.send_response(box.status)
            for name, value in {**box.headers, "content-length": str(len(box.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(box.body)

        def log_message(self, *_):
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        box.url = f"http://127.0.0.1:{server.server_port}/{SECRET}"
        yield box
        has_ended.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(notify, "_SECONDS", 0.5)
    monkeypatch.setattr(notify, "_RETRY_SECONDS", 0.01)


@pytest.fixture
def write(tmp_path, monkeypatch):
    (tmp_path / "private-project").mkdir()
    for name in ("txt2img.json", "txt2img.slots.yaml"):
        shutil.copy(ROOT / "templates" / name, tmp_path / "private-project")
    monkeypatch.chdir(tmp_path / "private-project")

    def write(value=EXPERIMENT, **settings):
        path = tmp_path / "private-project" / "e.yaml"
        path.write_text(yaml.safe_dump({**value, **settings}))
        return path

    return write


def test_end_of_a_run_is_posted_with_its_counts_and_nothing_private(write, inbox):
    file = write(run={"notify": inbox.url})
    sweeper.run(file, out="first folder")
    message = inbox.message
    assert 0 < message.pop("seconds") < 60
    counts = {"trials": 2, "submitted": 2, "succeeded": 2, "failed": 0, "cancelled": 0, "pending": 0, "reused": 0}
    words = {"name": "foxes", "kind": "run", "status": "succeeded", "reason": None, "results": "first folder"}
    assert message == counts | words
    assert "private-project" not in str(inbox.requests)
    assert PROMPT not in str(inbox.requests)


def test_cost_is_posted_with_its_currency(write, inbox):
    with embedded.EmbeddedServer(dialect="cloud", nodes=pick_classes()) as server:
        target = {"url": server.url, "name": "priced", "price": {"per_job": "0.25 USD"}}
        sweeper.run(write(), target=target, notify=inbox.url)
    assert (inbox.message["cost"], inbox.message["currency"]) == (0.5, CURRENCY)


def test_option_replaces_the_url_of_the_experiment(write, inbox):
    sweeper.run(write(run={"notify": "http://127.0.0.1:9/nobody"}), notify=inbox.url)
    assert inbox.message["status"] == "succeeded"


def test_empty_option_posts_nothing(write, inbox):
    sweeper.run(write(run={"notify": inbox.url}), notify="")
    assert inbox.requests == []


def test_failed_trial_makes_the_status_failed(write, inbox):
    faults = embedded.Faults(fail_nodes={"KSampler"})
    with embedded.EmbeddedServer(dialect="cloud", faults=faults, nodes=pick_classes()) as server:
        sweeper.run(write(), target=server.url, notify=inbox.url, retries=0)
    assert (inbox.message["status"], inbox.message["failed"]) == ("failed", 2)


def test_interrupted_run_is_posted_as_stopped(write, inbox):
    control = StopControl()

    def stop(event):
        if isinstance(event, JobSubmitted):
            control.stop()

    sweeper.run(write(), notify=inbox.url, control=control, progress=stop, concurrency=1)
    assert (inbox.message["status"], inbox.message["reason"]) == ("stopped", "interrupt")


def test_budget_that_ends_a_run_is_posted_as_its_reason(write, inbox):
    with embedded.EmbeddedServer(dialect="cloud", nodes=pick_classes()) as server:
        target = {"url": server.url, "name": "priced", "price": {"per_job": "0.25 USD"}}
        sweeper.run(write(), target=target, notify=inbox.url, budget="0.30 USD")
    assert (inbox.message["status"], inbox.message["reason"]) == ("stopped", "budget")


def test_error_that_ends_a_run_is_posted_by_its_class(write, inbox):
    with pytest.raises(UnreachableError):
        sweeper.run(write(), target="http://127.0.0.1:9", notify=inbox.url)
    assert (inbox.message["status"], inbox.message["reason"]) == ("failed", "UnreachableError")
    assert "trials" not in inbox.message


def test_search_posts_one_message_at_its_end(write, inbox):
    pytest.importorskip("optuna")
    sweeper.search(write(SEARCH, run={"notify": inbox.url}))
    assert (inbox.message["kind"], inbox.message["status"], inbox.message["trials"]) == ("search", "succeeded", 4)


def test_check_with_attribute_posts_one_message(write, inbox):
    file = write(run={"notify": inbox.url})
    sweeper.run(file, notify="")
    sweeper.accept(file.parent / "results" / "foxes")
    write({**EXPERIMENT, "params": {**EXPERIMENT["params"], "cfg": 2}}, run={"notify": inbox.url})
    assert not sweeper.check(file, attribute=True).ok
    assert (inbox.message["kind"], inbox.message["status"]) == ("check", "failed")
    assert inbox.message["results"] == "foxes-check"


def test_check_of_a_results_folder_posts_nothing(write, inbox):
    file = write(run={"notify": inbox.url})
    sweeper.run(file, notify="")
    sweeper.accept(file.parent / "results" / "foxes")
    assert sweeper.check(file.parent / "results" / "foxes").ok
    assert inbox.requests == []


def test_rehearsal_posts_nothing(write, inbox, monkeypatch):
    file = write(run={"notify": inbox.url})
    assert main(["run", str(file), "--rehearse", "--trust", "--notify", inbox.url]) == 0
    assert inbox.requests == []


@pytest.fixture
def distrusted(tmp_path, monkeypatch):
    """The file of what is trusted, which does not exist yet."""
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "trusted.json"))
    return tmp_path / "trusted.json"


@pytest.mark.parametrize("command", ["run", "check"])
def test_commands_post_to_the_address_of_the_user_without_trust(write, inbox, command, distrusted):
    main([command, str(write()), "--notify", inbox.url])
    assert inbox.message["kind"] == command


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_address_of_an_experiment_needs_trust(write, inbox, command, distrusted, capsys):
    assert main([command, str(write(run={"notify": inbox.url}))]) == 2
    shown = capsys.readouterr().err
    assert "run.notify: posts how its runs end to 127.0.0.1:" in shown
    assert SECRET not in shown
    assert inbox.requests == []


def test_trust_of_one_address_is_not_trust_of_another_on_its_host(write, inbox, distrusted, capsys):
    assert main(["trust", str(write(run={"notify": inbox.url}))]) == 0
    assert main(["run", "e.yaml"]) == 0
    write(run={"notify": f"{inbox.url}-of-a-stranger"})
    assert main(["run", "e.yaml"]) == 2
    assert len(inbox.requests) == 1
    assert SECRET not in distrusted.read_text() + capsys.readouterr().err


# --- the formats


@pytest.mark.parametrize(
    ("url", "shape"),
    [
        ("https://ntfy.sh/topic", "ntfy"),
        ("https://ntfy.example.com/topic", "ntfy"),
        ("https://hooks.slack.com/services/T/B/x", "slack"),
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://example.com/hooks.slack.com", "json"),
        ("https://hooks.slack.com.example.com/x", "json"),
        ("https://example.com/x?format=slack&thread=1", "slack"),
        ("https://ntfy.sh/topic?format=json", "json"),
    ],
)
def test_host_or_parameter_decides_the_format(url, shape):
    address = parse_notify_url(url)
    assert address.format == shape
    assert "format" not in address.url
    assert url.replace("format=slack&", "").replace("?format=json", "") == address.url


def test_ntfy_gets_a_text_with_a_title(write, inbox):
    sweeper.run(write(), notify=f"{inbox.url}?format=ntfy&priority=low")
    ((path, headers, content),) = inbox.requests
    assert path == f"/{SECRET}?priority=low"
    assert headers["title"] == "sweeper run foxes: succeeded"
    assert content.startswith(b"2 trials, 2 succeeded, 0 failed, 0 cancelled, 0 pending, 0 reused, 2 submitted, ")
    assert content.endswith(b" s, results in foxes")


@pytest.mark.parametrize(("shape", "key"), [("slack", "text"), ("discord", "content")])
def test_chat_services_mention_nobody_whom_a_name_names(write, inbox, shape, key):
    evil = write().parent / "<!channel> @everyone\n<@123> & co"
    sweeper.run(write(), notify=f"{inbox.url}?format={shape}", out=evil)
    text = inbox.message[key]
    assert "@everyone" not in text
    assert "<@1" not in text
    assert text.count("\n") == 1
    if shape == "slack":
        assert "&lt;!channel&gt;" in text
        assert "&amp; co" in text
        assert "<" not in text
    else:
        assert inbox.message["allowed_mentions"] == {"parse": []}


def test_name_with_line_breaks_adds_no_header(write, inbox):
    experiment = sweeper.load(write())
    object.__setattr__(experiment, "name", "fox\r\nActions: view, x, http://x \u00e9")
    sweeper.run(experiment, notify=f"{inbox.url}?format=ntfy", out="out")
    ((_, headers, _),) = inbox.requests
    assert headers["title"] == "sweeper run fox Actions: view, x, http://x ?: succeeded"
    assert "actions" not in headers


# --- an address that is wrong, and a server that does not take the message


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"file:///etc/{SECRET}", "is not the URL of a server"),
        (f"ftp://example.com/{SECRET}", "is not the URL of a server"),
        (SECRET, "is not the URL of a server"),
        (f"http://[::1/{SECRET}", "is not the URL of a server"),
        (f"http://example.com:99999/{SECRET}", "is not the URL of a server"),
        (f"http://example.com/{SECRET}\nHost: x", "is not the URL of a server"),
        (f"https://user:{SECRET}@example.com/x", "has a user or password inside the URL"),
        (
            f"https://example.com/{SECRET}?format=xml",
            "has the unknown format 'xml'; allowed: json, ntfy, slack, discord",
        ),
        (f"https://example.com/{SECRET}?format=slak", "did you mean 'slack'?"),
    ],
)
def test_wrong_address_is_refused_with_its_line_and_not_shown(write, url, reason, capsys, tmp_path):
    file = write(run={"notify": url})
    with pytest.raises(ExperimentError) as caught:
        sweeper.load(file)
    assert reason in str(caught.value)
    assert "e.yaml:" in str(caught.value)
    assert "run.notify" in str(caught.value)
    with pytest.raises(UsageError, match="notify: ") as refused:
        sweeper.run(write(), notify=url)
    assert main(["run", str(write()), "--notify", url]) == 2
    assert SECRET not in str(caught.value) + str(refused.value) + capsys.readouterr().err
    assert not (file.parent / "results").exists()


def _run(write, url):
    events = []
    run = sweeper.run(write(), notify=url, progress=events.append)
    return run, [event.message for event in events if isinstance(event, Notice)]


def test_server_that_refuses_connections_is_one_warning(write):
    run, notices = _run(write, f"http://127.0.0.1:9/{SECRET}")
    assert run.succeeded == 2
    assert notices == ["the end of this run was not posted to 127.0.0.1:9: 127.0.0.1:9: Connection refused"]


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "-.example", "127.0.0.1:1", "[::1]:1", "nowhere.invalid"])
def test_host_that_cannot_be_reached_fails_no_run(write, host):
    run, notices = _run(write, f"http://{host}/{SECRET}")
    assert run.succeeded == 2
    assert len(notices) == 1
    assert SECRET not in notices[0]


def test_server_that_never_answers_is_tried_twice(write, inbox):
    inbox.delay = 60
    began_at = time.monotonic()
    run, notices = _run(write, inbox.url)
    assert run.succeeded == 2
    assert [notice.rpartition(": ")[2] for notice in notices] == ["no answer within 0.5 s"]
    assert len(inbox.requests) == 2
    assert time.monotonic() - began_at < 20


@pytest.mark.parametrize(("status", "requests"), [(500, 2), (429, 2), (403, 1)])
def test_refusal_is_one_warning_and_only_a_temporary_one_is_repeated(write, inbox, status, requests):
    inbox.status, inbox.body = status, SECRET.encode()
    run, notices = _run(write, inbox.url)
    assert run.succeeded == 2
    assert notices == [f"the end of this run was not posted to {inbox.url.split('/')[2]}: HTTP {status}"]
    assert len(inbox.requests) == requests


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(write, inbox, status):
    inbox.status, inbox.headers = status, {"location": f"{inbox.url}/elsewhere"}
    _, notices = _run(write, inbox.url)
    assert len(inbox.requests) == 1
    assert f"HTTP {status}, a redirect, which sweeper does not follow" in notices[0]


def test_answer_of_ten_megabytes_is_not_read(write, inbox):
    inbox.body = bytes(10_000_000)
    run, notices = _run(write, inbox.url)
    assert (run.succeeded, notices) == (2, [])


def test_proxy_of_the_environment_is_used(write, inbox, monkeypatch):
    monkeypatch.setenv("http_proxy", inbox.url.rpartition("/")[0])
    monkeypatch.setenv("no_proxy", "")
    sweeper.run(write(), notify="http://messages.example/topic")
    assert [path for path, _, _ in inbox.requests] == ["http://messages.example/topic"]


def test_second_interrupt_ends_the_wait_for_a_server(write, inbox, monkeypatch):
    monkeypatch.setattr(notify, "_SECONDS", 60.0)
    inbox.delay = 60
    control = StopControl()
    threading.Thread(target=_stop_when_asked, args=(inbox, control), daemon=True).start()
    began_at = time.monotonic()
    events = []
    assert sweeper.run(write(), notify=inbox.url, control=control, progress=events.append).succeeded == 2
    assert time.monotonic() - began_at < 30
    assert [event.message[-18:] for event in events if isinstance(event, Notice)] == ["it was interrupted"]


def _stop_when_asked(inbox, control):
    while not inbox.requests:
        time.sleep(0.01)
    control.stop()


def test_url_stands_in_no_file_log_report_or_repr(write, inbox, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "sweeper"):
        caplog.set_level(logging.DEBUG, logger=name)
    inbox.status = 500
    file = write(run={"notify": inbox.url, "retries": 1})
    experiment = sweeper.load(file)
    events = []
    run = sweeper.run(file, progress=events.append, out="out")
    assert main(["report", "out"]) == 0
    written = [path.read_bytes() for path in (file.parent / "out").rglob("*") if path.is_file()]
    assert len(inbox.requests) == 2
    assert not any(SECRET.encode() in content for content in written)
    texts = [repr(experiment), repr(run), repr(events), *(record.getMessage() for record in caplog.records)]
    assert not any(SECRET in text for text in texts)
