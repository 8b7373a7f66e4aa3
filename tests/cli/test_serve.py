"""`sweeper serve` in a new process, and `sweeper doctor` checking it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import ROOT
from tests.platforms import needs_signals
from tests.waiting import read_line

KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def run_server(python):
    """A function that starts `sweeper serve`; with it: the process and the URL."""

    @contextmanager
    def run(*options, **variables):
        env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        command = [python, "-m", "sweeper", "serve", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
            try:
                yield process, read_line(process.stdout).strip()
            finally:
                process.kill()

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@needs_signals
def test_first_line_is_the_base_url_and_a_signal_stops_it(run_server, number):
    with run_server("--dialect", "comfyui") as (process, url):
        with urllib.request.urlopen(f"{url}/system_stats") as answer:
            assert answer.status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

    assert url.startswith("http://127.0.0.1:")
    assert (process.returncode, out) == (0, "")
    assert err == "serving the comfyui dialect; Ctrl-C stops it\n"


def test_serve_simulates_a_scenario(run_server, sweeper):
    Path("busy.yaml").write_text("error_rate: 1\n")
    with run_server("--dialect", "comfyui", "--scenario", "busy.yaml") as (_, url):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/system_stats")
        caught.value.close()

    assert caught.value.code == 503


def test_serve_has_the_classes_of_another_server(run_server, sweeper):
    declared = {"Mine": {"input": {"required": {"amount": ["INT", {"default": 1}]}}, "output": ["IMAGE"]}}
    Path("info.json").write_text(json.dumps(declared))
    with (
        run_server("--dialect", "comfyui", "--object-info", "info.json") as (_, first),
        run_server("--dialect", "comfyui", "--like", first) as (_, url),
        urllib.request.urlopen(f"{url}/object_info/Mine") as answer,
    ):
        assert json.load(answer)["Mine"] == {**declared["Mine"], "sweeper_stand_in": True}
    assert "--like and --object-info both" in sweeper("serve", "--like", first, "--object-info", "info.json").err
    assert sweeper("serve", "--like", "http://127.0.0.1:1").code == 3


def ask_for_user(url, key=None):
    request = urllib.request.Request(f"{url}/api/user", headers={} if key is None else {"X-API-Key": key})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


@pytest.mark.parametrize("way", ["variable", "file", "option"])
@needs_signals
def test_serve_requires_the_key_that_it_was_given(run_server, tmp_path, way):
    (tmp_path / "key").write_text(f"{KEY}\nnot this\n")
    options = {
        "variable": ["--api-key-env", "THE_KEY"],
        "file": ["--api-key-file", str(tmp_path / "key")],
        "option": ["--api-key", KEY],
    }[way]

    with run_server(*options, THE_KEY=KEY) as (process, url):
        answers = [ask_for_user(url), ask_for_user(url, "wrong"), ask_for_user(url, KEY)]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)

    assert answers == [401, 401, 200]
    assert KEY not in err
    warning = "warning: --api-key shows the key to everyone who lists this machine's processes; use --api-key-env NAME"
    assert err.startswith(warning) == (way == "option")
    assert (KEY in " ".join(process.args)) == (way == "option")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--api-key-env", "NOT_SET"],
            "--api-key-env: the environment variable 'NOT_SET' is not set; set it to the key",
        ),
        (["--api-key-file", "none"], "--api-key-file: cannot read none: No such file or directory"),
        (["--api-key-file", "empty"], "the key from empty is empty"),
        (["--api-key-file", "/dev/zero"], "the key from /dev/zero contains unprintable characters"),
        (["--api-key", ""], "the key from --api-key is empty"),
        (["--api-key-file", "empty", "--api-key-env", "X"], "--api-key-env and --api-key-file: give one of them"),
    ],
)
def test_serve_does_not_start_without_the_promised_key(sweeper, options, message):
    Path("empty").write_text("\n")

    outcome = sweeper("serve", *options)

    assert (outcome.code, outcome.out) == (2, "")
    assert f"error: {message}" in outcome.err


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        (
            ["--scenario", "s.yaml"], "latncy: 1\n",
            "error: s.yaml:1: latncy: unknown key 'latncy'; did you mean 'latency'?\n",
        ),
        (["--scenario", "nowhere.yaml"], "", "error: nowhere.yaml: there is no such file; files there: s.yaml\n"),
        (
            ["--scenario", "s.yaml", "--workers", "2"], "concurrency: 3\n",
            "error: --workers and `concurrency` of s.yaml both say how many jobs run at once; give one\n",
        ),
        (
            ["--dialect", "comfyui", "--workers", "2"], "",
            "error: --workers: a ComfyUI runs one job at a time; use the cloud dialect or v2\n",
        ),
    ],
)  # fmt: skip
def test_conflicting_serve_options_exit_2(sweeper, options, text, message):
    Path("s.yaml").write_text(text)

    outcome = sweeper("serve", *options)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(message)


def test_port_in_use_exits_2(run_server, sweeper):
    with run_server() as (_, url):
        outcome = sweeper("serve", "--port", url.rpartition(":")[2])

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: cannot listen on 127.0.0.1:")


def test_doctor_describes_a_server_and_never_shows_the_key(run_server, sweeper, monkeypatch, tmp_path):
    (tmp_path / "config/sweeper").mkdir(parents=True)
    with run_server("--api-key-env", "MY_KEY", MY_KEY=KEY) as (_, url):
        targets = tmp_path / "config/sweeper/targets.yaml"
        targets.write_text(f"mine: {{url: '{url}', api_key_env: MY_KEY}}\n")
        monkeypatch.setenv("MY_KEY", KEY)
        good = sweeper("doctor", "--target", "mine", "--json")
        people = sweeper("doctor", "--target", "mine")
        monkeypatch.setenv("MY_KEY", "wrong")
        bad = sweeper("doctor", "--target", "mine", "--json")

    assert good.code == 0
    (report,) = good.json["targets"]
    assert report == {
        "target": "mine", "ok": True, "url": url, "key": "from MY_KEY", "dialect": "cloud", "version": None,
        "cache": None, "upload_limit": 104857600, "balance_usd": None, "max_jobs": 1,
    }  # fmt: skip
    assert f"mine: url {url}, dialect cloud, uploads up to 100 MiB, key accepted (from MY_KEY)" in people.out
    assert bad.code == 3
    assert bad.json["targets"][0]["ok"] is False
    assert "key" in bad.json["targets"][0]["problem"]
    assert all(KEY not in text for outcome in (good, people, bad) for text in (outcome.out, outcome.err))


def test_doctor_shows_version_and_cache_mode_of_a_comfyui(run_server, sweeper):
    with run_server("--dialect", "comfyui") as (_, url):
        (report,) = sweeper("doctor", "--target", url, "--json").json["targets"]

    assert (report["ok"], report["dialect"], report["key"], report["cache"]) == (True, "comfyui", None, "classic")
    assert report["version"]


def test_doctor_without_a_target_checks_the_embedded_server(sweeper):
    outcome = sweeper("doctor", "--json")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["targets"][0]["target"] == "embedded"
    assert outcome.json["targets"][0]["ok"] is True
    assert outcome.json["python"] == ".".join(map(str, sys.version_info[:3]))


def test_doctor_exits_with_the_worst_code_of_its_targets(sweeper):
    outcome = sweeper("doctor", "-t", "embedded", "-t", "http://127.0.0.1:9", "-t", "nobody", "--json")

    assert outcome.code == 3
    assert [target["ok"] for target in outcome.json["targets"]] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "not a targets file: write a mapping of names to URLs or mappings"),
        ("mine: 3", "targets.yaml:1: mine: a target is a URL or a mapping with `url`"),
        ("mine: [", "is not YAML"),
        ("mine: {url: 'http://x', key: abc}", "do not write a key into a file"),
    ],
)
def test_wrong_targets_file_is_reported(sweeper, tmp_path, monkeypatch, text, message):
    (tmp_path / "targets.yaml").write_text(text)
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))

    outcome = sweeper("doctor", "--target", "mine", "--json")

    assert outcome.code == 2
    assert message in outcome.json["targets"][0]["problem"]


def test_missing_targets_file_is_reported(sweeper, monkeypatch):
    monkeypatch.setenv("SWEEPER_TARGETS", "nowhere.yaml")

    outcome = sweeper("doctor", "--json")

    assert outcome.code == 2
    assert outcome.json["targets_file"] == "nowhere.yaml: there is no such file; $SWEEPER_TARGETS names it"
    assert [report["ok"] for report in outcome.json["targets"]] == [True]


def test_doctor_lists_packages_if_verbose_and_missing_ones_always(sweeper, tmp_path, monkeypatch):
    info = tmp_path / "site" / "comfy_sweeper-9.9.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: comfy-sweeper\nVersion: 9.9\n"
        "Requires-Dist: click>=8.1.7\nRequires-Dist: never-made>=1\n"
        "Requires-Dist: pyarrow>=15; extra == 'parquet'\nRequires-Dist: pytest>=8.2; extra == 'test'\n"
        "Requires-Dist: gone-too>=2; (sys_platform != 'none') and extra == 'media'\n"
        "Requires-Dist: uvloop; (sys_platform == 'none') and extra == 'fast'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    diagnosis = sweeper("doctor", "--json").json
    packages = diagnosis["packages"]
    people, verbose = sweeper("doctor"), sweeper("doctor", "--verbose").out

    assert list(packages) == ["click", "never-made", "pyarrow", "gone-too"]
    assert diagnosis["extras"] == {"parquet": [], "media": ["gone-too>=2"]}
    assert "extras: parquet\n" in people.out
    assert f'without the extra media: {sys.executable} -m pip install "gone-too>=2"\n' in people.out
    assert packages["click"] == version("click")
    assert packages["never-made"] is None
    assert any(line.split() == ["never-made", "missing"] for line in verbose.splitlines())
    assert "pyarrow" not in people.out + people.err
    assert people.err.startswith("warning: the package 'never-made', which sweeper requires, is not installed; run: ")
