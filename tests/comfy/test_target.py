from __future__ import annotations

import dataclasses

import pytest

from sweeper.comfy.target import Target, normalised, resolve_targets
from sweeper.errors import UsageError


def one(spec, named=None, environ=None):
    (target,) = resolve_targets(spec, named=named, environ=environ or {})
    return target


def test_embedded_has_its_own_identity_and_no_url_yet():
    assert one("embedded") == Target("embedded", "", dialect="cloud")


def test_cloud_takes_its_key_from_the_environment():
    target = one("cloud", environ={"COMFY_CLOUD_API_KEY": " k1 "})
    assert (target.name, target.url, target.dialect, target.key) == ("cloud", "https://cloud.comfy.org", "cloud", "k1")


def test_the_cloud_by_its_url_is_the_same_target():
    assert one("https://Cloud.Comfy.org:443/", environ={"COMFY_CLOUD_API_KEY": "k"}).name == "cloud"


@pytest.mark.parametrize(
    ("written", "spelt"),
    [
        ("http://127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("HTTP://LocalHost:80/", "http://localhost"),
        ("https://gpu.example:443/comfy/", "https://gpu.example/comfy"),
        ("http://[::1]:8188/", "http://[::1]:8188"),
    ],
)
def test_a_url_has_one_spelling_which_is_its_identity(written, spelt):
    assert one(written).name == one(written).url == normalised(written) == spelt
    assert one(written).dialect is None


def test_a_mapping_says_everything():
    target = one(
        {"url": "http://gpu:8188", "dialect": "comfyui", "api_key_env": "K", "concurrency": 4, "name": "gpu"},
        environ={"K": "secret"},
    )
    assert target == Target("gpu", "http://gpu:8188", "comfyui", "K", 4)
    assert target.key == "secret"


def test_a_name_comes_from_the_users_targets():
    named = {"gpu": {"url": "http://gpu:8188", "concurrency": 2}, "lab": "http://lab:8188"}
    assert one("gpu", named) == Target("gpu", "http://gpu:8188", concurrency=2)
    assert one("lab", named).name == "lab"


def test_a_list_is_several_targets_in_order():
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
        ({"url": "http://x", "concurrency": True}, "target.concurrency: True"),
        ({"dialect": "cloud"}, "target.url: a mapping needs the `url`"),
        ({"url": "http://x", "name": " "}, "target.name"),
        ({"url": "http://x", "api_key_env": "NOPE"}, "environment variable NOPE, which is not set"),
        ({"url": "http://x", "api_key_env": 3}, "target.api_key_env"),
        ([], "an empty list"),
        ([7], "neither a name, nor a URL, nor a mapping"),
        (["http://x", "http://x/"], "http://x is given twice"),
        ("http://x/#frag", "take out what follows"),
    ],
)
def test_every_mistake_is_told_with_what_is_allowed(spec, message):
    with pytest.raises(UsageError) as caught:
        resolve_targets(spec, named={"gpu": "http://gpu"}, environ={})
    assert message in str(caught.value)


def test_a_target_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        one("embedded").url = "http://elsewhere"  # type: ignore[misc]
