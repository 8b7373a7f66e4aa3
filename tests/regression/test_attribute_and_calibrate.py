"""Attribution and calibration, on servers with nodes that change their pictures or add noise on purpose."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.app_comfyui import CommonRoutes
from sweeper.embedded.faults import Faults, Scenario
from sweeper.embedded.nodes import NodeClass, NodeOutput, make_node_class
from sweeper.errors import UsageError
from sweeper.regression.check import BOTH, NOT_REPRODUCIBLE, SERVER_DRIFTED, WORKFLOW_CHANGED
from sweeper.store import Store

GRAPH = {
    "1": {"class_type": "Paint", "inputs": {"level": "{{ level }}", "tint": 0}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@contextmanager
def serve_nodes(
    *,
    shift: int = 0,
    sigma: float | Mapping[int, float] = 0.0,
    pixels: int = 0,
    prices: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """A server that paints a grey level plus tint plus shift, plus normal noise with the deviation `sigma`.

    `pixels`: how many of the first row are black.
    """
    random = np.random.default_rng(7)

    def paint(context: Any, level: int, tint: int) -> NodeOutput:
        deviation = sigma if isinstance(sigma, float) else sigma[level]
        noise = random.normal(0.0, deviation, (64, 64, 3)) if deviation else 0.0
        picture = np.clip(np.rint(np.full((64, 64, 3), level + tint + shift) + noise), 0, 255)
        picture[0, :pixels] = 0
        return NodeOutput((picture,))

    count = itertools.count()

    def keep(context: Any, images: Any, filename_prefix: str) -> NodeOutput:
        name = f"{next(count)}.png"
        folder = context.output_dir
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.astype(np.uint8)).save(folder / name)
        return NodeOutput((), {"images": [{"filename": name, "subfolder": "", "type": "output"}]})

    def hum(context: Any, images: Any, filename_prefix: str) -> NodeOutput:
        """The picture as a sound: the pixels 0 to 255 as samples from -1 to 1."""
        name = f"{next(count)}.wav"
        context.output_dir.mkdir(parents=True, exist_ok=True)
        with wave.open(str(context.output_dir / name), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", "NONE"))
            file.writeframes(np.rint((images.ravel() / 127.5 - 1) * 32767).astype("<i2").tobytes())
        return NodeOutput((), {"audio": [{"filename": name, "subfolder": "", "type": "output"}]})

    def node(name: str, required: dict[str, Any], outputs: tuple[str, ...], run: Any) -> NodeClass:
        record = {"input": {"required": required}, "output": list(outputs), "output_node": not outputs}
        return make_node_class(name, record, run)

    number = ("INT", {"default": 0, "min": 0, "max": 255})
    nodes = [
        node("Paint", {"level": number, "tint": number}, ("IMAGE",), paint),
        node("Keep", {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {})}, (), keep),
        node("Hum", {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {})}, (), hum),
    ]
    faults = Faults(scenario=Scenario(prices=prices or {}))
    with EmbeddedServer(nodes={one.name: one for one in nodes}, faults=faults) as server:
        yield server.url


@pytest.fixture
def grey(shop):
    def write(*, tint: int = 0, levels: tuple[int, ...] = (100, 160)) -> Any:
        graph = json.loads(json.dumps(GRAPH))
        graph["1"]["inputs"]["tint"] = tint
        (shop.folder / "shop.json").write_text(json.dumps(graph))
        shop.file.write_text(json.dumps({"template": "shop.json", "sweep": {"grid": {"level": list(levels)}}}))
        return shop.file

    with serve_nodes() as url:
        sweeper.run(write(), target=url, out="results/shop")
    sweeper.accept("results/shop")
    return write


@pytest.mark.parametrize(
    ("tint", "shift", "sigma", "verdict"),
    [
        (0, 9, 0.0, SERVER_DRIFTED),
        (9, 0, 0.0, f"{WORKFLOW_CHANGED}: tint 0 -> 9 in node 1 (Paint)"),
        (9, 20, 0.0, f"{BOTH}: tint 0 -> 9 in node 1 (Paint)"),
    ],
    ids=["server", "workflow", "both"],
)
def test_attribution_finds_the_planted_cause(grey, tint, shift, sigma, verdict):
    with serve_nodes(shift=shift, sigma=sigma) as url:
        found = sweeper.check(grey(tint=tint), target=url, attribute=True)
    assert [one.state for one in found] == ["changed", "changed"]
    assert {one.verdict for one in found} == {verdict}


def test_attribution_names_the_option_of_the_server_that_differs(grey, monkeypatch):
    argv = CommonRoutes._build_argv
    monkeypatch.setattr(CommonRoutes, "_build_argv", lambda self: [*argv(self), "--deterministic"])
    with serve_nodes(shift=9) as url:
        found = sweeper.check(grey(), target=url, attribute=True)
    assert {item.verdict for item in found} == {
        f"{SERVER_DRIFTED}; on the server: option --deterministic none -> given"
    }


def test_a_small_drift_comes_with_the_checks_that_would_hold(grey, command):
    with serve_nodes(pixels=1) as url:
        file = grey()
        found = command("check", file, "--target", url, "-q")
        assert found.code == 1
        checks = yaml.safe_load(found.out.split("`checks: ")[1].split("`")[0])
        assert set(checks) == {"mae", "windowed"}
        experiment = json.loads(file.read_text())
        file.write_text(json.dumps({**experiment, "checks": checks}))
        assert sweeper.check(file, target=url).ok
    with serve_nodes(pixels=2) as url:  # twice as much violates them, so other numbers are proposed
        notes = sweeper.check(file, target=url).list_notes()
        assert [note.startswith("The changes are small.") for note in notes][-1]
    with serve_nodes(shift=9) as url:
        assert not any("would hold" in note for note in sweeper.check(file, target=url).list_notes())


def test_attribution_and_calibration_are_charged_for_what_they_run(grey, monkeypatch):
    monkeypatch.setenv("PAINT_KEY", "a secret")
    depends_on = {"widgets": [{"name": "tint", "type": "INT"}], "inputs": [], "input_groups": []}
    expr = '{"type": "usd", "usd": widgets.tint > 0 ? 0.05 : 0.01}'
    with serve_nodes(prices={"Paint": {"engine": "jsonata", "expr": expr, "depends_on": depends_on}}) as url:
        target = {"url": url, "partner_key_env": "PAINT_KEY", "name": "paint"}
        sweeper.check(grey(tint=9), target=target, attribute=True)  # the accepted workflows have no tint
        sweeper.calibrate(grey(tint=9), 2, target=target, budget=0.17)
    spent = []
    for folder in ("results/shop-check", "results/shop-check-attribution", "results/shop-calibrate"):
        with Store.open(folder, readonly=True) as store:
            spent.append(store.charges.load_spent().high)
    assert spent == [100_000, 20_000, 150_000]


def test_server_that_gives_the_accepted_picture_again_is_not_reproducible(grey):
    file = grey()
    with serve_nodes(shift=9) as url:
        sweeper.check(file, target=url)
    with serve_nodes() as url:
        comparisons = sweeper.check("results/shop-check", "baselines/shop", target=url, attribute=True)
    assert {one.verdict for one in comparisons} == {NOT_REPRODUCIBLE}


def test_accepted_workflow_that_no_longer_runs_is_server_drift(grey):
    with serve_nodes(shift=9) as url:
        assert not sweeper.check(grey(), target=url).ok
    with EmbeddedServer() as server:  # it has no node class Paint
        comparisons = sweeper.check("results/shop-check", "baselines/shop", target=server.url, attribute=True)
    assert all(one.verdict.startswith(f"{SERVER_DRIFTED}: it no longer runs") for one in comparisons)


def test_calibrate_measures_the_planted_noise_within_a_tenth(grey):
    sigma = 4.0
    with serve_nodes(sigma=sigma) as url:
        found = sweeper.calibrate(grey(), 4, target=url)
        # |a - b| of two normal variables: 2 sigma / sqrt(pi); rounding to whole levels adds 1/12 to the variance.
        expected = 2 * math.sqrt(sigma**2 + 1 / 12) / math.sqrt(math.pi)
        assert len(found.cases) == 2
        for one in found.cases:
            noise = {item.measure: item for item in one.noise}
            assert noise["mae"].mean == pytest.approx(expected, rel=0.1)
            # PSNR measures the same noise: its root mean square is sigma times the square root of two.
            rms = 255 * 10 ** (-noise["psnr"].mean / 20)
            assert rms == pytest.approx(math.sqrt(2 * (sigma**2 + 1 / 12)), rel=0.1)
            assert noise["mae"].effect == pytest.approx(60, rel=0.1)
            assert one.is_checkable
            assert all(item.threshold.is_met_by(item.worst) for item in one.noise if item.threshold)
        assert "mae" in found.checks


def test_calibrate_measures_the_noise_of_sounds(shop):
    graph = {**GRAPH, "2": {**GRAPH["2"], "class_type": "Hum"}}
    (shop.folder / "shop.json").write_text(json.dumps(graph))
    shop.file.write_text(json.dumps({"template": "shop.json", "sweep": {"grid": {"level": [100, 160]}}}))
    with serve_nodes(sigma=4.0) as url:
        found = sweeper.calibrate(shop.file, 3, target=url)
    expected = 2 * math.sqrt(4.0**2 + 1 / 12) / math.sqrt(math.pi) / 127.5
    for one in found.cases:
        noise = {item.measure: item for item in one.noise}
        assert set(noise) == {"sound_snr", "sound_mae"}
        assert noise["sound_mae"].mean == pytest.approx(expected, rel=0.1)
    assert set(found.checks) == {"sound_snr", "sound_mae"}


def test_calibrate_proposes_nothing_if_noise_hides_the_effect(grey):
    with serve_nodes(sigma=12.0) as url:
        found = sweeper.calibrate(grey(levels=(100, 101)), 3, target=url)
    assert not any(one.is_checkable for one in found.cases)
    assert found.checks == {}


def test_calibrate_says_which_cases_the_checks_may_miss_a_change_of(grey, command):
    with serve_nodes(sigma={20: 0.0, 100: 1.0, 180: 9.0}) as url:
        file = grey(levels=(20, 100, 180))
        checks = sweeper.calibrate(file, 4, target=url).checks
        calibrated = command("calibrate", file, "--repeats", "3", "--target", url, "-q")
        written = yaml.safe_load(calibrated.out[calibrated.out.index("checks:") :])["checks"]
        assert written.keys() == checks.keys()
        assert "they may miss a change of 1 case with less noise; write `overrides`" in calibrated.err
        sweeper.run(file, target=url, out="results/noisy")
        sweeper.accept("results/noisy", yes=True)
        experiment = json.loads(file.read_text())
        file.write_text(json.dumps({**experiment, "checks": checks}))
        assert sweeper.check(file, target=url).ok


def test_stable_server_needs_no_checks(grey, command):
    with serve_nodes() as url:
        outcome = command("calibrate", grey(), "--repeats", "2", "--target", url, "-q")
    assert outcome.code == 0
    assert "No checks are needed" in outcome.out


def test_calibrate_refuses_a_single_repeat(shop):
    with pytest.raises(UsageError, match="less than 2"):
        sweeper.calibrate(shop.file, 1)


def test_compare_lists_the_cases_of_two_runs(grey, command):
    with serve_nodes() as url:
        sweeper.run(grey(tint=5, levels=(100, 200)), target=url, out="results/other")
    outcome = command("compare", "results/shop", "results/other")
    assert outcome.code == 1
    assert outcome.out.endswith("1 changed, 1 gone, 1 new, 0 same\n")
    assert command("compare", "results/shop", "results/shop@1").code == 0


def test_attribution_reads_no_file_outside_the_project(grey, tmp_path_factory):
    Path(".git").mkdir()  # this folder is the project
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    secret.write_text("secret")
    manifest = Path("baselines/shop/manifest.json")
    value = json.loads(manifest.read_text())
    for case in value["cases"]:
        sha256 = hashlib.sha256(secret.read_bytes()).hexdigest()
        case["accepted"][0]["inputs"] = {"1.level": {"file": str(secret), "sha256": sha256}}
    manifest.write_text(json.dumps(value))
    with serve_nodes(shift=9) as url:
        found = sweeper.check(grey(), target=url, attribute=True)
    assert all(one.verdict.startswith(f"unknown: the input file {secret} is outside of the project") for one in found)
