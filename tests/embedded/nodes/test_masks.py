"""Masks, compositing and padding: values computed by hand, and rules that hold for every mask."""

from __future__ import annotations

from typing import Any

import numpy as np
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


def test_picture_is_composited_through_a_mask() -> None:
    under, over = np.zeros((1, 2, 4, 3), np.float32), np.ones((1, 2, 2, 3), np.float32)
    inputs = {"destination": under, "source": over, "x": 1, "y": 0, "resize_source": False}
    result = run("ImageCompositeMasked", **inputs, mask=mask([[0.5, 1], [0, 0.25]]))
    assert result[0, :, :, 0].tolist() == [[0, 0.5, 1, 0], [0, 0, 0.25, 0]]
    assert run("ImageCompositeMasked", **{**inputs, "x": 3})[0, 0, :, 0].tolist() == [0, 0, 0, 1]
    assert run("ImageCompositeMasked", **{**inputs, "resize_source": True, "x": 0}).all()
