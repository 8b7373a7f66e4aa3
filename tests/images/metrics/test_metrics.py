"""Metrics of one picture: values computed by hand, names that are refused, files that are not pictures."""

from __future__ import annotations

import math
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from sweeper.errors import ExperimentError, ImageError
from sweeper.images.compare import pixel_hash
from sweeper.images.metrics import registry
from sweeper.images.metrics.formulas import FORMULAS
from sweeper.images.metrics.measure import measure, measure_missing, read_picture
from sweeper.model.result import PIXEL_HASH


def value(name, picture):
    return measure(np.asarray(picture, dtype=np.uint8), registry.load_metrics([name]))[name]


def plain(red, green, blue, size=(5, 7)):
    return np.full((*size, 3), (red, green, blue))


def halves(size=8):
    picture = np.zeros((size, size, 3))
    picture[:, size // 2 :] = 255
    return picture


CHECKERED = np.repeat((np.indices((8, 8)).sum(axis=0) % 2 * 255)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("name", "picture", "expected"),
    [
        ("brightness", plain(255, 255, 255), 255.0),
        ("brightness", plain(255, 0, 0), 0.299 * 255),
        ("brightness", halves(), 127.5),
        ("contrast", plain(9, 200, 3), 0.0),
        ("contrast", halves(), 127.5),
        ("sharpness", plain(9, 200, 3), 0.0),
        # Inside a checkerboard each Laplacian is +-4 * 255.
        ("sharpness", CHECKERED, (4 * 255.0) ** 2),
        # Two columns beside the step have Laplacians of +-255, four have 0.
        ("sharpness", halves(), 255.0**2 * 2 / 6),
        ("colourfulness", plain(77, 77, 77), 0.0),
        # One colour has no spread: 0.3 times the length of (red - green, (red + green) / 2 - blue).
        ("colourfulness", plain(255, 0, 0), 0.3 * math.hypot(255, 127.5)),
        ("entropy", plain(1, 2, 3), 0.0),
        ("entropy", halves(), 1.0),
        ("edge_density", plain(1, 2, 3), 0.0),
        ("edge_density", halves(), 2 / 6),
        ("unique_colours", halves(), 2.0),
        ("unique_colours", [[[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]], 3.0),
    ],
)
def test_formula_gives_the_expected_value(name, picture, expected):
    assert value(name, picture) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "perceptual_hash"])
@given(picture=arrays.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))))
def test_every_metric_is_finite_and_ignores_mirroring(name, picture):
    assert math.isfinite(value(name, picture))
    assert value(name, picture[:, ::-1]) == pytest.approx(value(name, picture), abs=1e-6)


def test_every_built_in_name_has_a_formula():
    assert list(FORMULAS) == list(registry.FORMULA_NAMES)
    assert list(registry.load_metrics(FORMULAS)) == list(FORMULAS)


def test_perceptual_hash_is_the_text_that_imagehash_prints():
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)

    # By hand: a horizontal ramp has no vertical frequency, so only the first row of the 8 x 8 has coefficients; those
    # above the median 0 are the constant one and none else, as a ramp's odd cosines are negative.
    assert value("perceptual_hash", ramp) == "8000000000000000"
    assert value("perceptual_hash", ramp[:, ::-1]) == "d500000000000000"


@given(picture=arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_perceptual_hash_is_sixteen_hex_digits(picture):
    assert re.fullmatch("[0-9a-f]{16}", value("perceptual_hash", picture))


def test_unknown_name_is_reported_with_the_nearest():
    assert registry.find_unknown_metrics(["brightness", "sharpnes", "stats:mean"]) == [
        ("sharpnes", "unknown metric 'sharpnes' (your own is written module:function); did you mean 'sharpness'?")
    ]


def test_metric_listed_twice_is_reported():
    assert registry.find_unknown_metrics(["contrast", "contrast"]) == [
        ("contrast", "'contrast' is listed 2 times; list it once")
    ]


def test_all_bad_names_are_reported_at_once(write_module):
    write_module("needy_metrics", "def f(a, b, c): ...")

    with pytest.raises(ExperimentError) as caught:
        registry.load_metrics(["sharpnes", "no_such_module:f", "math:nothing", "math:pi", "needy_metrics:f"])

    assert str(caught.value).splitlines() == [
        "metric 'math:nothing' cannot be imported: module 'math' has no attribute 'nothing'",
        f"metric 'math:pi' cannot be imported: {math.pi} is not a function",
        "metric 'needy_metrics:f' cannot be imported: it must accept (picture) or (picture, params), but "
        "takes (a, b, c)",
        "metric 'no_such_module:f' cannot be imported: No module named 'no_such_module'; "
        "looked in the current folder and among installed packages",
        "unknown metric 'sharpnes' (your own is written module:function); did you mean 'sharpness'?",
    ]


def test_failing_import_is_reported_with_its_error(write_module):
    write_module("broken_metrics", "1 / 0")

    with pytest.raises(ExperimentError, match="'broken_metrics:f' cannot be imported: ZeroDivisionError: division"):
        registry.load_metrics(["broken_metrics:f"])


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write a module into the current folder. Each name can be used once."""
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    return write


def test_user_function_is_imported_from_the_current_folder(write_module):
    write_module("my_own_metrics", "def corner(picture):\n    return picture[0, 0, 0]\n")
    before = list(sys.path)

    assert value("my_own_metrics:corner", plain(7, 0, 0)) == 7.0
    assert sys.path == before


def test_only_the_named_module_comes_from_the_folder_first(write_module, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "modulefinder", raising=False)
    write_module("modulefinder", "raise RuntimeError('planted')")  # the name of a module of Python
    write_module("beside_metrics", "def green(picture):\n    return picture[0, 0, 1]\n")
    write_module("leading_metrics", "import modulefinder\nfrom beside_metrics import green\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "leading_metrics.py").write_text("raise RuntimeError('planted')")
    (elsewhere / "modulefinder.py").write_text("raise RuntimeError('planted')")
    monkeypatch.chdir(elsewhere)
    before = list(sys.path), list(sys.meta_path)

    (metric,) = registry.load_metrics(["leading_metrics:green"], tmp_path).values()

    assert measure(plain(0, 7, 0), {"m": metric}) == {"m": 7.0}
    assert (list(sys.path), list(sys.meta_path)) == before
    with pytest.raises(ExperimentError, match="module 'modulefinder' has no attribute 'f'"):
        registry.load_metrics(["modulefinder:f"])


def test_folder_without_init_is_a_package_of_metrics(write_module, tmp_path):
    (tmp_path / "own_scores").mkdir()
    write_module("own_scores/red", "def f(picture):\n    return picture[0, 0, 0]\n")
    write_module("own_scores/blue", "def f(picture):\n    return picture[0, 0, 2]\n")
    assert value("own_scores.red:f", plain(7, 0, 3)) == 7.0
    assert value("own_scores.blue:f", plain(7, 0, 3)) == 3.0


@pytest.mark.parametrize(
    ("signature", "reads"),
    [
        ("(picture)", False),
        ("(picture, params)", True),
        ("(a, b)", True),
        ("(picture, params=None)", True),
        ("(picture, weight=2.0)", False),
        ("(*pictures)", False),
    ],
)
def test_function_with_params_gets_those_of_the_trial(write_module, signature, reads):
    name = f"signed_metrics_{abs(hash(signature))}"
    write_module(name, f"def f{signature}:\n    return 'called'\n")

    (metric,) = registry.load_metrics([f"{name}:f"]).values()

    assert metric.reads_params == reads
    assert measure(np.zeros((1, 1, 3), np.uint8), {"m": metric}, {"steps": 4}) == {"m": "called"}


def test_version_of_a_function_is_its_source(write_module):
    write_module("first_metrics", "def f(picture):\n    return 1\n")
    write_module("second_metrics", "def f(picture):\n    return 2\n")
    measured = registry.load_metrics(["first_metrics:f", "second_metrics:f"])

    assert measured["first_metrics:f"].version != measured["second_metrics:f"].version


def test_package_adds_metrics_by_entry_point(write_module, tmp_path, monkeypatch):
    write_module("plugged_metrics", "def warmth(picture):\n    return float(picture[..., 0].mean())\n")
    info = tmp_path / "plugged_metrics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-metrics\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sweeper.metrics]\nwarmth = plugged_metrics:warmth\nstatus = plugged_metrics:warmth\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert value("warmth", plain(9, 0, 0)) == 9.0
    # An entry point with the name of a table column is ignored.
    assert [name for name, _ in registry.find_unknown_metrics(["warmth", "warmt", "status"])] == ["warmt", "status"]
    assert registry.find_unknown_metrics(["warmt"])[0][1].endswith("; did you mean 'warmth'?")


@pytest.mark.parametrize(
    ("result", "message"),
    [(lambda _: math.nan, "gave nan"), (lambda _: math.inf, "gave inf"), (lambda _: 1 / 0, "ZeroDivisionError")],
)
def test_metric_without_a_number_is_an_error_with_its_name(result, message):
    with pytest.raises(ImageError, match=f"metric 'mine' .*{message}"):
        measure(np.zeros((1, 1, 3), np.uint8), {"mine": registry.Metric(result, "")})


def test_pictures_of_every_mode_are_read_as_8_bit_rgb(tmp_path):
    levels = np.array([[0, 257, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.new("RGBA", (2, 1), (10, 20, 30, 0)).save(tmp_path / "alpha.png")
    Image.new("P", (2, 1), 0).save(tmp_path / "palette.png")

    assert read_picture(tmp_path / "deep.png").tolist() == [[[0] * 3, [1] * 3, [255] * 3]]
    assert read_picture(tmp_path / "alpha.png").tolist() == [[[10, 20, 30]] * 2]
    assert read_picture(tmp_path / "palette.png").shape == (1, 2, 3)


def test_each_file_is_measured_once_and_others_are_none(tmp_path):
    Image.new("RGB", (4, 4), (255, 255, 255)).save(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes(b"no picture")
    paths = [
        ("aa", tmp_path / "a.png"),
        ("aa", tmp_path / "a.png"),
        ("bb", tmp_path / "b.mp4"),
        ("cc", tmp_path / "b.mp4"),
    ]
    files = [registry.MetricInput(sha256, path) for sha256, path in paths]
    loaded = registry.load_metrics(["brightness", "contrast"])
    problems = {}

    measured = list(measure_missing(files, loaded, {"contrast": {"aa", "bb"}, "brightness": {"cc"}}, problems))

    assert measured == [
        ("aa", "brightness", pytest.approx(255.0)),
        ("bb", "brightness", None),
        ("cc", "contrast", None),
    ]
    assert problems == {}


def test_broken_picture_is_reported_and_missing_file_skipped(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    (tmp_path / "empty.PNG").touch()
    names = ("broken.png", "empty.PNG", "gone.png")
    problems = {}

    measured = measure_missing(
        [registry.MetricInput(name, tmp_path / name) for name in names],
        registry.load_metrics(["brightness"]),
        {},
        problems,
    )

    assert list(measured) == []
    assert problems == {
        "no metric can be computed because this cannot be read as a picture; check that it is complete": [
            tmp_path / "broken.png",
            tmp_path / "empty.PNG",
        ]
    }


def test_metric_that_reads_params_is_computed_once_per_trial(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    files = [registry.MetricInput("aa", tmp_path / "a.png", digest, {"steps": n}) for n, digest in enumerate("xyx")]
    loaded = {"steps_again": registry.Metric(lambda _, params: params["steps"], "", reads_params=True)}

    assert list(measure_missing(files, loaded, {}, {})) == [
        ("aa:x", "steps_again", 0.0),
        ("aa:y", "steps_again", 1.0),
    ]


def test_failing_metric_is_reported_and_others_are_kept(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    files = [registry.MetricInput(sha256, tmp_path / "a.png") for sha256 in ("aa", "bb")]
    functions = {"bad": lambda _: math.nan, "nothing": lambda _: None}
    loaded = {name: registry.Metric(function, "") for name, function in functions.items()}
    loaded |= registry.load_metrics(["brightness"])
    problems = {}

    measured = list(measure_missing(files, loaded, {}, problems))

    assert measured == [("aa", "brightness", 0.0), ("bb", "brightness", 0.0)]
    assert problems == {
        "metric 'bad' gave nan, which is not a finite number": [tmp_path / "a.png"] * 2,
        "metric 'nothing' failed: TypeError: it returned None; return a number or a text": [tmp_path / "a.png"] * 2,
    }


def test_file_is_decoded_once_for_metrics_and_the_hash_of_its_pixels(tmp_path, monkeypatch):
    text = PngInfo()
    text.add_text("workflow", "{}")
    picture = Image.effect_noise((64, 64), 50).convert("RGB")
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "text.png", pnginfo=text, compress_level=1)
    picture.save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "plain.png").read_bytes()[:1000])
    decoded, load_end = [], PngImageFile.load_end
    monkeypatch.setattr(PngImageFile, "load_end", lambda image: decoded.append(image) or load_end(image))
    files = [registry.MetricInput(name, tmp_path / name) for name in ("plain.png", "text.png", "broken.png")]
    loaded = registry.load_metrics(["brightness", "contrast", PIXEL_HASH])

    measured = {(key, name): value for key, name, value in measure_missing(files, loaded, {}, {})}

    assert len(decoded) == 2
    assert measured["plain.png", PIXEL_HASH] == measured["text.png", PIXEL_HASH] == pixel_hash(tmp_path / "text.png")
    assert measured["broken.png", PIXEL_HASH] is None
    assert ("text.png", "contrast") in measured


def test_hash_of_pixels_covers_all_frames_the_size_and_the_alpha(tmp_path):
    first, second, other = (Image.new("RGB", (4, 2), colour) for colour in ("red", "green", "blue"))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    first.save(tmp_path / "b.png", save_all=True, append_images=[other])
    first.save(tmp_path / "c.png")
    Image.new("RGB", (2, 4), "red").save(tmp_path / "d.png")
    first.convert("RGBA").save(tmp_path / "e.png")
    files = [registry.MetricInput(name, tmp_path / f"{name}.png") for name in "abcde"]
    hashes = [value for _, _, value in measure_missing(files, registry.load_metrics([PIXEL_HASH]), {}, {})]
    assert len(set(hashes)) == 5
    assert None not in hashes
