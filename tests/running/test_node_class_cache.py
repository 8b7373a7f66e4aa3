"""The node classes of servers: those of the workflow, cached for a day, fetched again before a plan is refused."""

from __future__ import annotations

import asyncio
import os

import pytest

import sweeper
from sweeper.comfy.target import Target
from sweeper.embedded import EmbeddedServer
from sweeper.errors import ExperimentError
from sweeper.planning.order import CLASSIC_CACHE, ServerCache
from sweeper.planning.plan import Plan
from sweeper.running.node_class_cache import fetch_classes, get_cache_mode, get_cached_classes, get_embedded_classes
from tests import ROOT
from tests.few_classes import pick_classes

EXPERIMENT = """template: t.json
params: {checkpoint: of-my-own.safetensors}
sweep: {grid: {sampler: [euler, SAMPLER], steps: [1, 2]}}
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["cloud", "comfyui"])
def server(request):
    with EmbeddedServer(dialect=request.param, nodes=pick_classes()) as server:
        yield server


def target_of(server, **settings):
    return Target(name=server.url, url=server.url, **settings)


NODES = [{"class_type": name, "inputs": {}} for name in ("KSampler", "SaveImage")]


def fetch(target):
    classes, models = asyncio.run(fetch_classes(target, NODES, None))
    assert models is None, "no plan names a model"
    return classes


def list_files(folder):
    """The cached classes: a file for each on a ComfyUI, one file for all of a server without the call for one."""
    return [file for file in folder.glob("cache/sweeper/servers/*/*.json*") if file.name != "server.json"]


def count_requests(server):
    return sum("/object_info" in request.path for request in server.seen.requests)


def experiment(folder, sampler):
    root = ROOT / "templates"
    for suffix in (".json", ".slots.yaml"):
        (folder / f"t{suffix}").write_text((root / f"txt2img{suffix}").read_text())
    (folder / "e.yaml").write_text(EXPERIMENT.replace("SAMPLER", sampler))
    return sweeper.load(folder / "e.yaml")


def test_node_classes_are_fetched_once_and_cached(server, tmp_path):
    first = fetch(target_of(server))
    again = fetch(target_of(server))
    assert first.classes.keys() == again.classes.keys() == {"KSampler", "SaveImage"}
    assert count_requests(server) == len(list_files(tmp_path)) == (2 if "comfyui" in repr(server) else 1)


def test_classes_older_than_a_day_are_not_used(server, tmp_path):
    fetch(target_of(server))
    for kept in list_files(tmp_path):
        os.utime(kept, (0, 0))
    assert get_cached_classes(target_of(server), NODES) is None


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"KSampler": {"sweeper_list": 9}}', '{"KSampler": 1}', "\x00"])
def test_a_broken_cache_gives_no_classes(server, tmp_path, text):
    fetch(target_of(server))
    for kept in list_files(tmp_path):
        kept.write_text(text)
    assert get_cached_classes(target_of(server), NODES) is None


def test_an_unreachable_server_gives_no_classes():
    reason = fetch(Target(name="nobody", url="http://127.0.0.1:9", dialect="comfyui"))
    assert reason.startswith("it does not respond: ")


def test_the_embedded_servers_classes_are_known_without_starting_it(server):
    known, fetched = get_embedded_classes(), fetch(target_of(server))
    assert {name: list(known.classes[name].inputs) for name in fetched.classes} == {
        name: list(spec.inputs) for name, spec in fetched.classes.items()
    }


def test_only_a_strict_embedded_server_rejects_unknown_model_names(tmp_path):
    declared = experiment(tmp_path, "heun")
    assert Plan(declared).fit(get_embedded_classes()).problems == ()
    with (
        EmbeddedServer(strict_models=True) as strict,
        pytest.raises(ExperimentError, match=r"'of-my-own\.safetensors'"),
    ):
        sweeper.run(declared, strict.url, tmp_path / "out")


def test_a_run_fetches_classes_again_before_it_refuses_a_plan(server, tmp_path):
    declared = experiment(tmp_path, "heun")
    sweeper.plan(declared, server.url)
    before = count_requests(server)
    for kept in list_files(tmp_path):
        kept.write_text(kept.read_text().replace('"heun"', '"gone"'))
    run = sweeper.run(declared, server.url, tmp_path / "out")
    assert run.succeeded == 4
    assert count_requests(server) == 2 * before


def test_a_wrong_value_is_reported_with_its_line_and_nothing_is_sent(server, tmp_path):
    match = (
        r"e\.yaml:3: sweep\.grid\.sampler\[1\]: node 3 \(KSampler\) sampler_name: found 'eulr'; did you mean 'euler'"
    )
    with pytest.raises(ExperimentError, match=match):
        sweeper.run(experiment(tmp_path, "eulr"), server.url, tmp_path / "out")
    assert server.seen.submits == 0


def test_another_server_at_the_same_url_is_queried_again():
    def connect_to(cache):
        with EmbeddedServer(dialect="comfyui", cache=cache, port=port) as server:
            fetch(target_of(server))
            return count_requests(server), get_cache_mode(target_of(server))

    with EmbeddedServer(dialect="comfyui") as first:
        port = int(first.url.rpartition(":")[2])
    assert connect_to("classic") == (2, CLASSIC_CACHE)
    assert connect_to("classic") == (0, CLASSIC_CACHE)
    assert connect_to("lru 7") == (2, ServerCache("lru", 7))


def test_the_cache_mode_of_an_unreachable_server_is_the_saved_one(server):
    target = target_of(server)
    fetch(target)
    server.stop()
    assert "KSampler" in fetch(target).classes
