"""A key in a wrong position is refused, and never repeated on a stream or in a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from tests.few_classes import pick_classes

KEY = "sk-live-0123456789-SECRET"

URLS = [
    f"https://user:{KEY}@cloud.example", f"https://{KEY}@cloud.example/x", f"https://cloud.example/?token={KEY}",
    f"https://cloud.example/#{KEY}", f"http://{KEY}@", f"ftp://a:{KEY}@b", f"https://a:{KEY}@b:99999",
]  # fmt: skip
ENTRIES = [
    {"url": "https://cloud.example", "api_key": KEY},
    {"url": "https://cloud.example", "X-API-Key": KEY},
    {"url": "https://cloud.example", "token": KEY},
    {"url": "https://cloud.example", "headers": {"Authorization": f"Bearer {KEY}"}},
    {"url": "https://cloud.example", "api_key_env": KEY},
    {"url": "https://cloud.example", "api_key_env": KEY.replace("-", "")},
    {"url": "https://cloud.example", "partner_key_env": KEY},
    *({"url": url} for url in URLS),
]
COMMANDS = [
    [sys.executable, "-c", f"import sys; print('{KEY}'); sys.exit('{KEY}')"],
    ["no-such-program", KEY],
    [sys.executable, "-c", f"print('{KEY}\\x00{KEY}')"],
]


def join_streams(outcome):
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") or '"problem"' in outcome.out
    files = [path.read_bytes().decode("utf-8", "replace") for path in Path("results").rglob("*") if path.is_file()]
    return "".join([outcome.out, outcome.err, *files])


@pytest.mark.parametrize("command", ["run", "plan", "doctor"])
@pytest.mark.parametrize("url", URLS)
def test_key_in_a_url_on_the_command_line_is_not_repeated(sweeper, write, command, url):
    experiment = write("template: t.json\nsweep: {grid: {seed: [1]}}\nparams: {prompt: a}\n")
    assert KEY not in join_streams(sweeper(command, experiment, "--target", url))


@pytest.mark.parametrize("entry", ENTRIES, ids=json.dumps)
def test_key_in_targets_file_or_experiment_is_not_repeated(sweeper, write, tmp_path, monkeypatch, entry):
    body = {"template": "t.json", "sweep": {"grid": {"seed": [1]}}, "params": {"prompt": "a"}}
    ours = write(json.dumps({**body, "target": entry}), "ours.yaml")
    named = write(json.dumps({**body, "target": "mine", "targets": {"mine": entry}}), "named.yaml")
    plain = write(json.dumps(body))
    texts = [
        join_streams(sweeper("run", ours, "--trust")),
        join_streams(sweeper("run", named, "--trust")),
        join_streams(sweeper("doctor", ours, "--trust")),
    ]
    (tmp_path / "targets.yaml").write_text(json.dumps({"mine": entry}))
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))
    texts += [
        join_streams(sweeper("run", plain, "-t", "mine")),
        join_streams(sweeper("doctor", "-t", "mine", "--json")),
    ]
    assert not [text for text in texts if KEY in text or KEY.replace("-", "") in text]


@pytest.mark.parametrize("words", COMMANDS)
def test_failed_key_command_is_reported_without_its_output(sweeper, write, tmp_path, monkeypatch, words):
    plain = write("template: t.json\nsweep: {grid: {seed: [1]}}\nparams: {prompt: a}\n")
    entry = {"url": "http://127.0.0.1:9", "api_key_command": words}
    (tmp_path / "targets.yaml").write_text(json.dumps({"mine": entry}))
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))
    text = join_streams(sweeper("run", plain, "-t", "mine"))
    assert text.startswith("error: target mine: ")
    assert "`api_key_command`" in text
    assert KEY not in text
    assert sweeper("plan", plain, "-t", "mine").code == 0  # planning opens no keyring


def test_key_command_in_an_experiment_is_never_run(sweeper, write):
    marker = Path("made").absolute()
    entry = {"url": "http://127.0.0.1:9", "api_key_command": [sys.executable, "-c", f"open({str(marker)!r}, 'w')"]}
    body = {"template": "t.json", "params": {"prompt": "a", "seed": 1}}
    for target in ({"target": entry}, {"target": [entry]}, {"target": "mine", "targets": {"mine": entry}}):
        outcome = sweeper("run", write(json.dumps({**body, **target})))
        assert outcome.code == 2
        assert "api_key_command: give a command only in your own targets file" in outcome.err
    assert not marker.exists()


def test_key_from_a_command_works_and_is_in_no_file(sweeper, write, tmp_path, monkeypatch):
    plain = write("template: t.json\nsweep: {grid: {seed: [1, 2]}}\nparams: {prompt: a}\n")
    keyring = [sys.executable, "-c", f"print('{KEY}'); print('a second line')"]
    with EmbeddedServer(api_key=KEY, nodes=pick_classes()) as server:
        (tmp_path / "targets.yaml").write_text(json.dumps({"mine": {"url": server.url, "api_key_command": keyring}}))
        monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))
        outcome = sweeper("run", plain, "-t", "mine")
        report = sweeper("doctor", "-t", "mine", "--json")
    assert outcome.code == 0
    assert report.json["targets"][0]["key"] == "from api_key_command"
    files = [path.read_bytes() for path in Path("results").rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not [data for data in files if KEY.encode() in data]
    assert KEY not in outcome.out + outcome.err + report.out + report.err


def test_key_command_runs_nothing_in_the_current_folder(sweeper, write, tmp_path, monkeypatch):
    plain = write("template: t.json\nsweep: {grid: {seed: [1]}}\nparams: {prompt: a}\n")
    Path("keyring.py").write_text("open('made', 'w')")
    entry = {"url": "http://127.0.0.1:9", "api_key_command": [sys.executable, "-m", "keyring", "get", "comfy", "key"]}
    (tmp_path / "targets.yaml").write_text(json.dumps({"mine": entry}))
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # as in a container without a home folder
    assert "'python" in join_streams(sweeper("run", plain, "-t", "mine"))
    assert not Path("made").exists()
