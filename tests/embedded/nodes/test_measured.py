"""Image and mask nodes give the pixels of a real ComfyUI 0.3.64 for the same inputs (data/measured.json).

`$a` and `$b` are two small RGBA pictures, `$am` and `$bm` their masks. Pixels are 8-bit, as SaveImage wrote them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MEASURED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "measured.json").read_text("utf-8"))


def pixels(entry: dict[str, Any]) -> Any:
    return np.frombuffer(bytes.fromhex(entry["pixels"]), np.uint8).reshape(entry["shape"])


def name_of(case: dict[str, Any]) -> str:
    settings = [str(value) for value in case["inputs"].values() if not str(value).startswith("$")]
    return "-".join([case["class"], str(case["output"]), *settings])


@pytest.mark.parametrize("case", MEASURED["cases"], ids=name_of)
def test_node_gives_the_pixels_of_a_real_server(case: dict[str, Any], context: Any) -> None:
    values = {}
    for name in "ab":
        Image.fromarray(pixels(MEASURED[name])).save(context.input_dir / f"{name}.png")
        values[f"${name}"], values[f"${name}m"] = context.run("LoadImage", image=f"{name}.png")
    inputs = {
        name: values.get(value, value) if isinstance(value, str) else value for name, value in case["inputs"].items()
    }
    result = context.run(case["class"], **inputs)
    result = result[case["output"]] if isinstance(result, tuple) else result
    written = np.clip(np.float32(255) * result[0], 0, 255).astype(np.uint8)
    expected = pixels(case)
    assert written.shape == expected.shape
    assert np.array_equal(written, expected)
