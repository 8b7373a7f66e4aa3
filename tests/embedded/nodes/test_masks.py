"""Masks, compositing and padding: values computed by hand, and rules that hold for every mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sweeper.embedded.nodes import NODE_CLASSES

MASKS = arrays.arrays(np.float32, (1, 7, 9), elements=st.floats(0, 1, width=32))


class Bare:
    """The part of a context that these nodes use."""

    def check(self) -> None:
        pass


def run(kind: str, **inputs: Any) -> Any:
    values = NODE_CLASSES[kind].run(Bare(), **inputs).values
    return values[0] if len(values) == 1 else values


def mask(rows: list[list[float]]) -> Any:
    return np.array(rows, np.float32)[None]


def test_solid_and_inverted_masks_add_up_to_one() -> None:
    solid = run("SolidMask", value=0.25, width=3, height=2)
    assert solid.shape == (1, 2, 3)
    assert run("InvertMask", mask=solid).tolist() == [[[0.75] * 3] * 2]


def test_colour_matches_exactly_at_8_bits() -> None:
    image = np.array([[[[1, 0, 0.2], [1, 0, 0.21], [0.999, 0, 0.2]]]], np.float32)
    assert run("ImageColorToMask", image=image, color=0xFF0033).tolist() == [[[1, 0, 1]]]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", [0.5, 0.12, 0]),
        ("add", [1, 0.8, 0.4]),
        ("subtract", [0.5, 0, 0]),
        ("and", [0, 0, 0]),
        ("or", [1, 1, 0]),
        ("xor", [1, 1, 0]),
    ],
)
def test_masks_are_combined_by_each_operation(operation: str, expected: list[float]) -> None:
    under, over = mask([[1, 0.2, 0]]), mask([[0.5, 0.6, 0.4]])  # 0.5 rounds to even, to 0
    result = run("MaskComposite", destination=under, source=over, x=0, y=0, operation=operation)
    assert result[0, 0].tolist() == pytest.approx(expected)


def test_source_beyond_the_edge_is_cut() -> None:
    under = np.zeros((1, 2, 3), np.float32)
    result = run("MaskComposite", destination=under, source=np.ones((1, 5, 5), np.float32), x=1, y=1, operation="add")
    assert result[0].tolist() == [[0, 0, 0], [0, 1, 1]]
    assert not under.any()


@pytest.mark.parametrize(("tapered", "shape"), [(True, [[0, 1, 0], [1, 1, 1], [0, 1, 0]]), (False, [[1] * 3] * 3)])
def test_a_point_grows_to_a_diamond_or_a_square(tapered: bool, shape: list[list[int]]) -> None:
    point = np.zeros((1, 3, 3), np.float32)
    point[0, 1, 1] = 1
    assert run("GrowMask", mask=point, expand=1, tapered_corners=tapered)[0].tolist() == shape


@given(MASKS, st.integers(0, 4), st.booleans())
def test_growing_never_darkens_and_shrinking_is_growing_of_the_inverse(field: Any, by: int, tapered: bool) -> None:
    grown = run("GrowMask", mask=field, expand=by, tapered_corners=tapered)
    assert (grown >= field).all()
    shrunk = run("GrowMask", mask=1 - field, expand=-by, tapered_corners=tapered)
    assert np.array_equal(shrunk, 1 - grown)


def test_feathering_ramps_from_the_edges() -> None:
    result = run("FeatherMask", mask=np.ones((1, 1, 6), np.float32), left=2, top=0, right=2, bottom=0)
    # On the right ComfyUI counts -0, -1, so its first factor applies to the first column.
    assert result[0, 0].tolist() == pytest.approx([0.25, 1, 1, 1, 1, 1])


@given(MASKS, st.floats(0, 1, width=32))
def test_a_threshold_leaves_black_and_white(field: Any, value: float) -> None:
    assert np.array_equal(run("ThresholdMask", mask=field, value=value), field > value)


def test_picture_is_composited_through_a_mask() -> None:
    under, over = np.zeros((1, 2, 4, 3), np.float32), np.ones((1, 2, 2, 3), np.float32)
    inputs = {"destination": under, "source": over, "x": 1, "y": 0, "resize_source": False}
    result = run("ImageCompositeMasked", **inputs, mask=mask([[0.5, 1], [0, 0.25]]))
    assert result[0, :, :, 0].tolist() == [[0, 0.5, 1, 0], [0, 0, 0.25, 0]]
    assert run("ImageCompositeMasked", **{**inputs, "x": 3})[0, 0, :, 0].tolist() == [0, 0, 0, 1]
    assert run("ImageCompositeMasked", **{**inputs, "resize_source": True, "x": 0}).all()


def test_outpainting_pads_with_grey_and_masks_the_new_ground() -> None:
    image = np.ones((1, 8, 8, 3), np.float32)
    wide, grown = run("ImagePadForOutpaint", image=image, left=8, top=0, right=0, bottom=0, feathering=2)
    assert wide[0, 0, 7:9, 0].tolist() == [0.5, 1]
    assert grown[0, 3, 7:12].tolist() == [1, 1, 0.25, 0, 0]


@settings(max_examples=20)
@given(arrays.arrays(np.float32, (1, 3, 4, 3), elements=st.floats(0, 1, width=32)), MASKS)
def test_joining_and_splitting_an_alpha_are_inverse(image: Any, field: Any) -> None:
    alpha = field[:, :3, :4]
    colours, back = run("SplitImageWithAlpha", image=run("JoinImageWithAlpha", image=image, alpha=alpha))
    assert np.array_equal(colours, image)
    assert back == pytest.approx(alpha, abs=1e-6)


def test_pictures_are_stitched_with_a_gap_and_scaled_to_one_height() -> None:
    first, second = np.zeros((1, 4, 2, 3), np.float32), np.ones((1, 8, 8, 3), np.float32)
    inputs = {"image1": first, "image2": second, "spacing_width": 1, "spacing_color": "red"}
    result = run("ImageStitch", **inputs, direction="right", match_image_size=True)
    assert result.shape == (1, 4, 2 + 2 + 4, 3)
    assert result[0, 0, :, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert result[0, 0, 2].tolist() == [1, 0, 0]
    assert run("ImageStitch", **inputs, direction="up", match_image_size=False).shape == (1, 4 + 2 + 8, 8, 3)
