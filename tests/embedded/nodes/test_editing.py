"""More image nodes and text nodes, compared to values computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(11)


@pytest.mark.parametrize(
    ("kind", "inputs", "size"),
    [
        ("ImageScaleToTotalPixels", {"megapixels": 0.01}, (145, 72)),
        ("ImageScaleToTotalPixels", {"megapixels": 0.01, "resolution_steps": 16}, (144, 80)),
    ],
)
def test_picture_is_scaled_to_the_requested_size(
    kind: str, inputs: dict[str, Any], size: tuple[int, int], context: Any
) -> None:
    result = context.run(kind, image=np.zeros((1, 20, 40, 3), np.float32), upscale_method="area", **inputs)
    assert (result.shape[2], result.shape[1]) == size


def test_sizes_batches_and_turns(context: Any) -> None:
    image = RNG.random((3, 4, 6, 3), dtype=np.float32)
    assert context.run("GetImageSize", image=image) == (6, 4, 3)
    assert np.array_equal(context.run("ImageFromBatch", image=image, batch_index=1, length=9), image[1:])
    assert np.array_equal(context.run("ImageFromBatch", image=image, batch_index=-1, length=9), image[-1:])
    assert len(context.run("RepeatImageBatch", image=image, amount=2)) == 6
    flipped = context.run("ImageFlip", image=image, flip_method="y-axis: horizontally")
    assert np.array_equal(flipped, image[:, :, ::-1])


def test_text_nodes(context: Any) -> None:
    assert context.run("StringConcatenate", string_a="a", string_b="b", delimiter=", ") == "a, b"
    assert context.run("StringReplace", string="a fox", find="fox", replace="cat") == "a cat"


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("EmptyImage", {"width": 16384, "height": 16384, "batch_size": 4096, "color": 0}),
        ("RepeatImageBatch", {"amount": 2**24}),
        ("ImageScale", {"upscale_method": "bilinear", "width": 16384, "height": 16384, "crop": "disabled"}),
    ],
)
def test_too_large_a_picture_is_refused(kind: str, inputs: dict[str, Any], context: Any) -> None:
    image = {} if kind == "EmptyImage" else {"image": np.zeros((1, 4, 4, 3), np.float32)}
    with pytest.raises(ValueError, match="the most is 268"):
        context.run(kind, **image, **inputs)
