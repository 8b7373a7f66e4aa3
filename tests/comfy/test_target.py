"""Resolving what users write to targets, with their keys."""

from __future__ import annotations

import dataclasses

import pytest

from sweeper.comfy import target
from sweeper.comfy.target import Target, resolve_targets
from sweeper.errors import UsageError
from sweeper.model.urls import normalise_url


def resolve_one(spec, named=None, environ=None):
    (target,) = resolve_targets(spec, named=named, environ=environ or {})
    return target


def test_embedded_target_has_no_url_yet():
    assert resolve_one("embedded") == Target("embedded", "", dialect="cloud", embedded=True)


def test_cloud_reads_its_key_from_the_environment():
    target = resolve_one("cloud", environ={"COMFY_CLOUD_API_KEY": " k1 "})
    assert (target.name, target.url, target.dialect, target.key) == ("cloud", "https://cloud.comfy.org", "cloud", "k1")


def test_cloud_reads_the_second_variable_if_only_that_is_set():
    both = {"COMFY_CLOUD_API_KEY": "first", "COMFY_API_KEY": "second"}
    assert resolve_one("cloud", environ=both).key == "first"
    target = resolve_one("cloud", environ={"COMFY_API_KEY": "second"})
    assert (target.key, target.key_source, target.keys) == ("second", "COMFY_API_KEY", ("second", "second"))
    with pytest.raises(UsageError, match="COMFY_CLOUD_API_KEY, which is not set; COMFY_API_KEY has none either"):
        resolve_one("cloud", environ={})
    elsewhere = {"url": "http://studio:8188", "api_key_env": "COMFY_CLOUD_API_KEY"}
    with pytest.raises(UsageError, match="COMFY_CLOUD_API_KEY, which is not set"):
        resolve_one(elsewhere, environ={"COMFY_API_KEY": "second"})


def test_clouds_url_is_the_target_cloud():
    assert resolve_one("https://Cloud.Comfy.org:443/", environ={"COMFY_CLOUD_API_KEY": "k"}).name == "cloud"


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("http://127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("HTTP://LocalHost:80/", "http://localhost"),
        ("https://gpu.example:443/comfy/", "https://gpu.example/comfy"),
        ("http://[::1]:8188/", "http://[::1]:8188"),
    ],
)
def test_url_is_normalised_and_identifies_the_target(written, normalised):
    assert resolve_one(written).name == resolve_one(written).url == normalise_url(written) == normalised
    assert resolve_one(written).dialect is None


def test_mapping_sets_every_field():
    target = resolve_one(
        {"url": "http://gpu:8188", "dialect": "comfyui", "api_key_env": "K", "concurrency": 4, "name": "gpu"},
        environ={"K": "secret"},
    )
    assert target == Target("gpu", "http://gpu:8188", "comfyui", "K", 4)
    assert target.key == "secret"


def test_name_is_looked_up_in_the_users_targets():
    named = {"gpu": {"url": "http://gpu:8188", "concurrency": 2}, "lab": "http://lab:8188"}
    assert resolve_one("gpu", named) == Target("gpu", "http://gpu:8188", concurrency=2)
    assert resolve_one("lab", named).name == "lab"


def test_list_gives_targets_in_order():
    targets = resolve_targets(["embedded", "http://a:1"], environ={})
    assert [target.name for target in targets] == ["embedded", "http://a:1"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpo", "unknown name 'gpo'; did you mean 'gpu'?"),
        ("ftp://x", "is not a URL of a server"),
        ("http://", "is not a URL of a server"),
        ("http://x:99999", "is not a URL"),
        ({"url": "http://x", "dialekt": "cloud"}, "target.dialekt: unknown key; did you mean 'dialect'?"),
        ({"url": "http://x", "dialect": "klaud"}, "target.dialect: 'klaud'; did you mean 'cloud'?"),
        ({"url": "http://x", "concurrency": 0}, "target.concurrency: 0 is not a whole number of at least 1"),
        ({"url": "http://x", "concurrency": True}, "target.concurrency: true"),
        ({"dialect": "cloud"}, "target.url: a mapping needs the `url`"),
        ({"url": "http://x", "name": " "}, "target.name"),
        ({"url": "http://x", "name": "embedded"}, "target.name: the name embedded is reserved for the embedded server"),
        (
            {"url": "http://x", "name": "Embedded "},
            "the name Embedded  is reserved for the embedded server",
        ),
        ({"url": "http://x", "name": "Cloud"}, "target.name: the name Cloud is reserved for https://cloud.comfy.org"),
        ({"url": 5, "name": "embedded"}, "target.name: the name embedded is reserved"),
        ({"url": "http://x", "api_key_env": "NOPE"}, "environment variable NOPE, which is not set"),
        ({"url": "http://x", "api_key_env": 3}, "target.api_key_env"),
        ({"url": "http://x", "api_key_env": "a-b"}, "target.api_key_env: give the name of an environment variable"),
        (
            {"url": "http://x", "api_key_command": "pass x"},
            "target.api_key_command: give the program and its arguments",
        ),
        ({"url": "http://x", "api_key_command": ["pass", 1]}, "target.api_key_command"),
        (
            {"url": "http://x", "api_key_env": "A", "api_key_command": ["pass"]},
            "give `api_key_env` or `api_key_command`, not both",
        ),
        ({"url": 7}, "target.url: `url` must be the URL"),
        ([], "an empty list"),
        ([7], "neither a name, nor a URL, nor a mapping"),
        (["http://x", "http://x/"], "http://x is given twice"),
        (
            ["http://127.0.0.1:8188", "http://LocalHost:8188/"],
            "http://localhost:8188 and http://127.0.0.1:8188 are the same",
        ),
        (
            ["http://[::1]:1/a", "http://localhost.:1/a"],
            "are the same server (http://localhost.:1/a); remove",
        ),
        (["gpu", {"url": "http://GPU:80", "name": "other"}], "other and gpu are the same server (http://gpu)"),
        (["cloud", {"url": "https://cloud.comfy.org", "name": "mine"}], "mine and cloud are the same server"),
        ("http://x/#frag", "remove everything from"),
    ],
)
def test_each_mistake_is_reported_with_what_is_allowed(spec, message):
    with pytest.raises(UsageError) as caught:
        resolve_targets(spec, named={"gpu": "http://gpu"}, environ={})
    assert message in str(caught.value)


def test_other_port_path_or_account_is_another_target():
    ports = ["http://127.0.0.1:1", "http://localhost:2", "http://localhost:2/b", "https://localhost:2"]
    assert len(resolve_targets(ports, environ={})) == 4
    accounts = ["cloud", {"url": "https://cloud.comfy.org", "api_key_env": "MINE", "name": "mine"}]
    targets = resolve_targets(accounts, environ={"COMFY_CLOUD_API_KEY": "a", "MINE": "b"})
    assert [target.key for target in targets] == ["a", "b"]


def test_mapping_with_clouds_url_may_be_named_cloud():
    spec = {"url": "https://cloud.comfy.org", "name": "cloud", "api_key_env": "MINE"}
    assert resolve_one(spec, environ={"MINE": "k"}) == resolve_one(
        "cloud", {"cloud": {"api_key_env": "MINE"}}, {"MINE": "k"}
    )


def test_target_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve_one("embedded").url = "http://elsewhere"  # type: ignore[misc]


def test_all_mistakes_of_all_targets_are_reported_at_once():
    with pytest.raises(UsageError) as caught:
        resolve_targets(["gpo", {"url": "ftp://x", "dialect": "klaud", "concurrency": 0}], environ={})
    assert sorted(problem.key for problem in caught.value.problems) == [
        "target", "target.concurrency", "target.dialect", "target.url",
    ]  # fmt: skip


def test_key_is_read_from_a_command():
    calls = []

    def keyring(words):
        calls.append(words)
        return "k"

    entry = {"url": "http://gpu:1", "api_key_command": ["pass", "show", "gpu"]}
    (target,) = resolve_targets("gpu", named={"gpu": entry}, environ={}, command=keyring)
    assert (target.key, target.key_source, calls) == ("k", "api_key_command", [("pass", "show", "gpu")])
    resolve_targets("gpu", named={"gpu": entry}, command=keyring)
    assert len(calls) == 1


@pytest.mark.parametrize("spec", ["cloud", "https://cloud.comfy.org/", {"url": "https://cloud.comfy.org"}])
def test_entry_cloud_configures_comfy_cloud_however_it_is_named(spec):
    named = {"cloud": {"api_key_env": "TEAM_KEY", "concurrency": 5}}
    target = resolve_one(spec, named, {"TEAM_KEY": "k", "COMFY_CLOUD_API_KEY": "other"})
    assert (target.name, target.url, target.key, target.concurrency) == ("cloud", "https://cloud.comfy.org", "k", 5)
    assert target.partner_key == "k"


def test_mapping_overrides_the_entry_cloud():
    named = {"cloud": {"api_key_command": ["pass", "cloud"], "concurrency": 5}}
    spec = {"url": "https://cloud.comfy.org", "api_key_env": "MINE", "concurrency": 1}
    target = resolve_one(spec, named, {"MINE": "m"})
    assert (target.key, target.key_source, target.concurrency) == ("m", "MINE", 1)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"cloud": "http://elsewhere"}, "target cloud.url: the name cloud is reserved for https://cloud.comfy.org"),
        ({"CLOUD": "http://elsewhere"}, "target CLOUD.url: the name CLOUD is reserved for https://cloud.comfy.org"),
        ({"Embedded": "http://x"}, "target Embedded: the name Embedded is reserved for the embedded server"),
        ({"embedded": "http://x"}, "target embedded: the name embedded is reserved for the embedded server"),
        ({"gpu": {"url": "http://x", "name": "other"}}, "target gpu.name: its name is already gpu"),
        ({"gpu": {"dialect": "cloud"}}, "target gpu.url: a mapping needs the `url`"),
    ],
)
def test_entry_with_a_reserved_or_second_name_is_rejected(named, message):
    with pytest.raises(UsageError) as caught:
        resolve_targets(next(iter(named)), named=named, environ={})
    assert str(caught.value).startswith(message)


def test_missing_partner_key_is_not_an_error():
    spec = {"url": "http://gpu:1", "partner_key_env": "PARTNER"}
    assert resolve_one(spec, environ={"PARTNER": "p"}).partner_key == "p"
    assert resolve_one(spec).partner_key is None
    assert "secret" not in repr(resolve_one(spec, environ={"PARTNER": "secret"}))


@pytest.mark.parametrize("url", ["https://my-app.run.comfy.app", "https://My-App.run.comfy.app:443/"])
def test_deployment_speaks_v2_and_has_the_key_of_comfy_cloud(url):
    target = resolve_one(url, environ={"COMFY_CLOUD_API_KEY": "k", "MINE": "m"})
    assert (target.name, target.dialect, target.key) == ("https://my-app.run.comfy.app", "v2", "k")
    assert target.partner_key is None  # nodes that its owner installed would see it
    assert resolve_one(url, environ={"COMFY_API_KEY": "second"}).key == "second"
    assert resolve_one({"url": url, "api_key_env": "MINE"}, environ={"MINE": "m"}).key == "m"
    entry = {"cloud": {"api_key_env": "MINE", "concurrency": 5}}
    target = resolve_one(url, entry, {"MINE": "m"})
    assert (target.key, target.concurrency, target.name) == ("m", None, "https://my-app.run.comfy.app")


@pytest.mark.parametrize(
    "url",
    [
        "http://my-app.run.comfy.app",
        "https://my-app.run.comfy.app:8443",
        "https://my-app.run.comfy.app/elsewhere",
        "https://run.comfy.app",
        "https://a.b.run.comfy.app",
        "https://my-app.run.comfy.app.evil.example",
        "https://my-apprun.comfy.app",
        "https://-.run.comfy.app",
    ],
)
def test_other_hosts_get_no_key_of_comfy_cloud(url):
    target = resolve_one(url, environ={"COMFY_CLOUD_API_KEY": "k"})
    assert (target.key, target.dialect) == (None, None)


def test_launch_on_all_gpus_is_a_target_for_each(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: x)'; echo 'GPU 3: NVIDIA B (UUID: y)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    target._list_gpus.cache_clear()
    found = resolve_targets({"launch": "ComfyUI", "gpus": "all", "name": "n"}, environ={})
    target._list_gpus.cache_clear()
    assert [(each.name, each.group, each.launch.device) for each in found] == [("n gpu 0", "n", 0), ("n gpu 3", "n", 3)]
    assert found[0].identity == found[1].identity
    assert not found[0].embedded
