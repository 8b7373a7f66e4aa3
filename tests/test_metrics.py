"""Metrics of one picture: values that can be told by hand, names that are refused, files that are no pictures."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sweeper import metrics
from sweeper.errors import ExperimentError, ImageError


def value(name, picture):
    return metrics.measure(np.asarray(picture, dtype=np.uint8), metrics.load_metrics([name]))[name]


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
def test_a_metric_has_the_value_that_its_formula_gives(name, picture, expected):
    assert value(name, picture) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("name", metrics.METRIC_NAMES)
@given(picture=arrays.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))))
def test_every_metric_is_finite_and_does_not_care_for_mirroring(name, picture):
    assert math.isfinite(value(name, picture))
    assert value(name, picture[:, ::-1]) == pytest.approx(value(name, picture), abs=1e-6)


def test_every_name_has_a_function():
    assert list(metrics.load_metrics(metrics.METRIC_NAMES)) == list(metrics.METRIC_NAMES)


def test_an_unknown_name_is_told_with_the_nearest_and_without_numpy():
    assert metrics.unknown_metrics(["brightness", "sharpnes", "stats:mean"]) == [
        ("sharpnes", "unknown metric 'sharpnes'; did you mean 'sharpness'?; your own is written module:function")
    ]


def test_all_bad_names_are_told_at_once():
    with pytest.raises(ExperimentError) as caught:
        metrics.load_metrics(["sharpnes", "no_such_module:f", "math:nothing", "math:pi"])

    assert str(caught.value) == (
        "unknown metric 'sharpnes'; did you mean 'sharpness'?; your own is written module:function; "
        "metric 'no_such_module:f' cannot be imported: No module named 'no_such_module'; "
        "metric 'math:nothing' cannot be imported: module 'math' has no attribute 'nothing'; "
        "metric 'math:pi' cannot be imported: 'pi' is not a function"
    )


def test_a_function_of_the_user_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_own_metrics.py").write_text("def corner(picture):\n    return picture[0, 0, 0]\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)

    assert value("my_own_metrics:corner", plain(7, 0, 0)) == 7.0
    assert sys.path == before


@pytest.mark.parametrize(
    ("result", "said"),
    [(lambda _: math.nan, "gave nan"), (lambda _: math.inf, "gave inf"), (lambda _: 1 / 0, "ZeroDivisionError")],
)
def test_a_metric_that_gives_no_number_is_an_error_with_its_name(result, said):
    with pytest.raises(ImageError, match=f"metric 'mine' .*{said}"):
        metrics.measure(np.zeros((1, 1, 3), np.uint8), {"mine": result})


def test_pictures_of_every_mode_are_read_as_8_bit_rgb(tmp_path):
    levels = np.array([[0, 257, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.new("RGBA", (2, 1), (10, 20, 30, 0)).save(tmp_path / "alpha.png")
    Image.new("P", (2, 1), 0).save(tmp_path / "palette.png")

    assert metrics.read_picture(tmp_path / "deep.png").tolist() == [[[0] * 3, [1] * 3, [255] * 3]]
    assert metrics.read_picture(tmp_path / "alpha.png").tolist() == [[[10, 20, 30]] * 2]
    assert metrics.read_picture(tmp_path / "palette.png").shape == (1, 2, 3)


def test_each_file_is_measured_once_and_what_is_no_picture_is_none(tmp_path):
    Image.new("RGB", (4, 4), (255, 255, 255)).save(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes(b"no picture")
    files = [("aa", tmp_path / "a.png"), ("aa", tmp_path / "a.png"), ("bb", tmp_path / "b.mp4"), ("cc", tmp_path)]
    wanted = metrics.load_metrics(["brightness", "contrast"])
    problems: list[str] = []

    found = list(metrics.missing_metrics(files, wanted, {"contrast": {"aa", "bb"}, "brightness": {"cc"}}, problems))

    assert found == [("aa", "brightness", pytest.approx(255.0)), ("bb", "brightness", None), ("cc", "contrast", None)]
    assert problems == []


def test_a_metric_that_fails_is_told_and_the_others_still_count(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    wanted = {"bad": lambda _: math.nan, **metrics.load_metrics(["brightness"])}
    problems: list[str] = []

    found = list(metrics.missing_metrics([("aa", tmp_path / "a.png")], wanted, {}, problems))

    assert found == [("aa", "brightness", 0.0)]
    assert problems == [f"{tmp_path / 'a.png'}: metric 'bad' gave nan, which is no finite number"]
