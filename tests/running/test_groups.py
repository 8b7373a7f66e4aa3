"""A name that stands for a list of targets: what it means, its mistakes, and where sweeper shows it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from contextlib import ExitStack

import pytest

import sweeper
from sweeper import embedded
from sweeper.cli import main
from sweeper.comfy.target import resolve_targets
from sweeper.errors import ExperimentError, UsageError
from sweeper.loading.load import check_targets
from sweeper.loading.targets_file import load_named_targets
from sweeper.running.run_events import RunStarted
from sweeper.running.stop_control import run_for_all
from tests import ROOT
from tests.few_classes import pick_classes

SWEEP = """template: txt2img.json
params: {steps: 1, width: 64, height: 64, prompt: a fox}
sweep: {grid: {seed: [1, 2, 3, 4, 5, 6]}}
"""
GPU_1, GPU_2, GPU_3 = (f"http://gpu-{number}:8188" for number in (1, 2, 3))


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("txt2img.json", "txt2img.slots.yaml"):
        shutil.copy(ROOT / "templates" / name, tmp_path)

    def write(text, name="e.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def use_file(write, monkeypatch):
    """A function that makes a text the user's targets file."""

    def use(text):
        monkeypatch.setenv("SWEEPER_TARGETS", str(write(text, "targets.yaml")))

    return use


@pytest.fixture
def farm():
    """Three servers, as the JSON of a list."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(embedded.EmbeddedServer(dialect="comfyui", nodes=pick_classes())) for _ in range(3)
        ]
        yield json.dumps([server.url for server in servers])


def _resolve(specs, **named):
    return [(target.name, target.group) for target in resolve_targets(specs, named=named, environ={})]


def test_name_of_a_list_is_all_of_its_targets():
    named = {"a": GPU_1, "farm": ["a", GPU_2, {"url": GPU_3, "name": "c"}]}
    assert _resolve("farm", **named) == [("a", "farm"), (GPU_2, "farm"), ("c", "farm")]


def test_list_in_a_list_belongs_to_the_outer_one():
    named = {"a": GPU_1, "b": GPU_2, "c": GPU_3, "inner": ["a", "b"], "outer": ["inner", "c"]}
    assert _resolve(["outer"], **named) == [("a", "outer"), ("b", "outer"), ("c", "outer")]


def test_target_of_two_lists_is_used_once():
    named = {"a": GPU_1, "b": GPU_2, "one": ["a", "b"], "two": ["b", "a"]}
    assert _resolve(["one", "two"], **named) == [("a", "one"), ("b", "one")]
    assert _resolve(["b", "one"], **named) == [("b", None), ("a", "one")]
    assert _resolve(["one", "b"], **named) == [("a", "one"), ("b", "one")]


def test_same_server_twice_in_a_list_is_a_mistake():
    with pytest.raises(UsageError, match="are the same server"):
        _resolve("farm", a=GPU_1, b=GPU_1, farm=["a", "b"])
    with pytest.raises(UsageError, match="a is given twice"):
        _resolve(["a", "a"], a=GPU_1)


def test_lists_that_double_at_each_level_are_walked_once():
    named = {f"level-{number}": [f"level-{number + 1}"] * 2 for number in range(200)} | {"level-200": [GPU_1]}
    assert _resolve("level-0", **named) == [(GPU_1, "level-0")]


def test_circle_of_a_program_ends():
    assert _resolve("one", one=["two", GPU_1], two=["one", GPU_2]) == [(GPU_2, "one"), (GPU_1, "one")]


def test_mistakes_in_lists_of_an_experiment_are_all_reported_where_they_are(write):
    file = write(
        SWEEP + f"target: farm\ntargets:\n  a: {GPU_1}\n  farm: [a, rest]\n"
        f"  rest: ['{GPU_2}/?x=1', {{url: '{GPU_3}', dialect: no}}, nobody, back]\n  back: [farm]\n  own: [own]\n"
        "  empty: []\n  deep: [[a]]\n  cloud: [a]\n  embedded: [a]\n"
    )
    with pytest.raises(ExperimentError) as caught:
        check_targets(sweeper.load(file), {})
    text = str(caught.value)
    for mistake in (
        "e.yaml:7: targets.farm[1]: the list rest leads back to farm, and a list cannot contain itself",
        "e.yaml:8: targets.rest[0]: the URL of gpu-2 must end with its path",
        "e.yaml:8: targets.rest[1].dialect: ",
        "e.yaml:8: targets.rest[3]: the list back leads back to rest",
        "e.yaml:9: targets.back[0]: the list farm leads back to back",
        "e.yaml:10: targets.own[0]: the list own leads back to own",
        "e.yaml:11: targets.empty: is empty",
        "e.yaml:12: targets.deep[0]: ",
        "e.yaml:13: targets.cloud: ",
        "e.yaml:14: targets.embedded: the name embedded is reserved",
    ):
        assert mistake in text
    file = write(SWEEP + f"target: farm\ntargets: {{farm: ['{GPU_1}', nobody]}}\n")
    with pytest.raises(
        ExperimentError, match=r"targets\.farm\[1\]: unknown name 'nobody'; allowed: embedded, cloud, farm"
    ):
        check_targets(sweeper.load(file), {})


def test_list_of_an_experiment_may_name_targets_of_the_user(write):
    experiment = sweeper.load(write(SWEEP + "target: farm\ntargets: {farm: [studio]}\n"))
    check_targets(experiment, {"studio": GPU_1})
    with pytest.raises(ExperimentError, match="unknown name 'studio'"):
        check_targets(experiment, {})


def test_mistakes_in_lists_of_the_targets_file_stop_only_who_uses_them(use_file):
    use_file(f"a: {GPU_1}\nfarm: [a, nobody, 5]\ncircle: [circle]\ngood: [a]\nempty: []\ncloud: [a]\n")
    named = load_named_targets()
    assert _resolve("good", **named) == [("a", "good")]
    for name, mistake in {
        "farm": r"targets.yaml:2: farm\[1\]: unknown name 'nobody'(.|\n)*farm\[2\]: 5 is neither a name",
        "circle": r"targets.yaml:3: circle\[0\]: the list circle leads back to circle",
        "empty": r"targets.yaml:5: empty: an empty list",
        "cloud": r"targets.yaml:6: cloud: the name cloud is reserved",
    }.items():
        with pytest.raises(UsageError, match=mistake):
            _resolve(name, **named)


# --- trust


@pytest.mark.parametrize(
    "targets", ["farm: [{url: 'URL', api_key_env: HOME}]", "x: [farm]\n  farm: [{url: 'URL', api_key_env: HOME}]"]
)
def test_variable_in_a_list_of_an_experiment_needs_trust(write, monkeypatch, tmp_path, capsys, targets):
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "trusted.json"))
    name = targets.partition(":")[0]
    write(SWEEP + f"target: {name}\ntargets:\n  {targets.replace('URL', GPU_1)}\n")
    assert main(["run", "e.yaml"]) == 2
    assert "targets.farm[0].api_key_env: sends the value of the environment variable HOME" in capsys.readouterr().err


def test_experiment_cannot_take_a_name_in_the_users_list_without_trust(write, use_file, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "trusted.json"))
    use_file(f"farm: [studio]\nstudio: {GPU_1}\n")
    write(SWEEP + f"targets: {{studio: {{url: '{GPU_2}', api_key_env: HOME}}}}\n")
    assert main(["run", "e.yaml", "--target", "farm"]) == 2
    assert "targets.studio.api_key_env: sends the value of the environment variable HOME" in capsys.readouterr().err


def test_key_of_the_cloud_in_a_list_goes_nowhere_else(write):
    file = write(SWEEP + f"target: farm\ntargets: {{farm: [{{url: '{GPU_1}', api_key_env: COMFY_CLOUD_API_KEY}}]}}\n")
    with pytest.raises(ExperimentError, match=r"targets\.farm\[0\]\.api_key_env: the key in COMFY_CLOUD_API_KEY"):
        check_targets(sweeper.load(file), {})


# --- what people see


def test_run_shows_one_line_for_a_list_at_its_start_and_its_end(write, farm, capsys):
    write(SWEEP + f"target: farm\ntargets: {{farm: {farm}}}\n")
    assert main(["run", "e.yaml", "--concurrency", "2"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("farm")] == [
        "farm: 3 targets, 6 at a time",
        "farm: 3 targets, 6 succeeded",
    ]
    assert not [line for line in lines if line.startswith("http")]


def test_problems_are_shown_by_target(write, farm, capsys):
    write(SWEEP + f"target: farm\ntargets: {{farm: {farm[:-1]}, 'http://127.0.0.1:9']}}\n")
    main(["run", "e.yaml", "--patience", "0"])
    lines = capsys.readouterr().err.splitlines()
    assert "farm: 3 targets, 6 succeeded" in lines
    assert [line for line in lines if line.startswith("http://127.0.0.1:9: ")]


def test_plan_and_doctor_name_the_list(write, farm, capsys):
    write(SWEEP + f"target: farm\ntargets: {{farm: {farm}}}\n")
    assert main(["plan", "e.yaml"]) == 0
    assert " on farm (3 targets)" in capsys.readouterr().out
    assert main(["doctor", "e.yaml"]) == 0
    out = capsys.readouterr().out
    assert [f"{url} (of farm): url {url}" in out for url in json.loads(farm)] == [True] * 3


def test_cluster_refuses_a_list_of_several_targets(write, capsys):
    pytest.importorskip("distributed")
    write(SWEEP + f"target: farm\ntargets: {{farm: ['{GPU_1}', '{GPU_2}']}}\n")
    assert main(["run", "e.yaml", "--dask", "local:1"]) == 2
    assert "a run on a Dask cluster has one target" in capsys.readouterr().err


# --- how fast


def test_targets_are_checked_at_the_same_time(write):
    """Eight servers whose answers take 0.25 s: 27 s if they are checked one after another, else 4 s."""
    faults = [embedded.Faults(latency=0.25) for _ in range(8)]
    times = []
    with ExitStack() as stack:
        servers = [
            stack.enter_context(embedded.EmbeddedServer(dialect="comfyui", faults=fault, nodes=pick_classes()))
            for fault in faults
        ]
        file = write(SWEEP + f"target: farm\ntargets: {{farm: {json.dumps([server.url for server in servers])}}}\n")
        began_at = time.monotonic()

        def note(event):
            if isinstance(event, RunStarted):
                times.append(time.monotonic() - began_at)

        assert sweeper.run(file, progress=note).succeeded == 6
    assert times[0] < 15


def test_error_of_one_of_several_calls_ends_the_others():
    ended = []

    async def call(number):
        try:
            await asyncio.sleep(0 if number == 3 else 60)
            raise UsageError(f"call {number}")
        finally:
            ended.append(number)

    with pytest.raises(UsageError, match="call 3"):
        asyncio.run(run_for_all(call, range(5)))
    assert sorted(ended) == [0, 1, 2, 3, 4]


def test_calls_for_all_are_few_at_once_and_in_order():
    running, most = 0, 0

    async def call(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (40 - number))
        running -= 1
        return number

    assert asyncio.run(run_for_all(call, range(40))) == list(range(40))
    assert most == 8
