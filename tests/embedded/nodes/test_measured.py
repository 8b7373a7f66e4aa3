"""Image and mask nodes against the pixels that a real ComfyUI 0.3.64 gave for the same inputs (data/measured.json).

`$a`, `$b` are two small RGBA pictures, `$am`, `$bm` their masks; pixels are 8-bit, as SaveImage wrote them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MEASURED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "measured.json").read_text("utf-8"))
# The order of sums in PyTorch's and NumPy's arithmetic differs in the last bit here, and SaveImage cuts off.
ROUNDED = {"PorterDuffImageComposite", "ImageCompositeMasked", "ImageRGBToYUV", "ImageYUVToRGB", "JoinImageWithAlpha"}


def pixels(entry: dict[str, Any]) -> Any:
    return np.frombuffer(bytes.fromhex(entry["pixels"]), np.uint8).reshape(entry["shape"])


def name_of(case: dict[str, Any]) -> str:
    settings = [str(value) for value in case["inputs"].values() if not str(value).startswith("$")]
    return "-".join([case["class"], str(case["output"]), *settings])


@pytest.mark.parametrize("case", MEASURED["cases"], ids=name_of)
def test_a_node_gives_the_pixels_of_a_real_server(case: dict[str, Any], context: Any) -> None:
    known = {}
    for name in "ab":
        Image.fromarray(pixels(MEASURED[name])).save(context.input_dir / f"{name}.png")
        known[f"${name}"], known[f"${name}m"] = context.run("LoadImage", image=f"{name}.png")
    inputs = {
        name: known.get(value, value) if isinstance(value, str) else value for name, value in case["inputs"].items()
    }
    found = context.run(case["class"], **inputs)
    found = found[case["output"]] if isinstance(found, tuple) else found
    written = np.clip(np.float32(255) * found[0], 0, 255).astype(np.uint8)
    expected = pixels(case)
    assert written.shape == expected.shape
    assert np.abs(written.astype(int) - expected).max() <= (1 if case["class"] in ROUNDED else 0)
