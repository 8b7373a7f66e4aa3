"""Latents on disk, checked with the safetensors package."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save

from sweeper.embedded.nodes import NODE_CLASSES
from sweeper.embedded.nodes.latent_files import read, serialize

FLOATS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=40)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=5, max_side=5), elements=FLOATS))
def test_safetensors_package_reads_our_files(tmp_path_factory: Any, samples: Any) -> None:
    path = tmp_path_factory.mktemp("latents") / "a.latent"
    path.write_bytes(serialize(samples, {"prompt": '{"1": "é"}'}))
    tensors = load_file(path)
    assert np.array_equal(tensors["latent_tensor"], samples)
    assert tensors["latent_format_version_0"].shape == (0,)
    assert np.array_equal(read(path), samples)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_files_of_the_safetensors_package_are_read(tmp_path: Path, kind: Any) -> None:
    samples = np.linspace(-3, 3, 4 * 5 * 6).reshape(1, 4, 5, 6).astype(kind)
    path = tmp_path / "a.latent"
    path.write_bytes(save({"latent_tensor": samples, "latent_format_version_0": np.zeros(0, np.float32)}))
    assert np.array_equal(read(path), samples.astype(np.float32))
    # Older files hold Stable Diffusion's latents before scaling.
    path.write_bytes(save({"latent_tensor": samples}))
    assert read(path) == pytest.approx(samples.astype(np.float32) / 0.18215, rel=1e-5)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    header = json.dumps({
        "latent_tensor": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "latent_format_version_0": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]},
    }).encode()  # fmt: skip
    path = tmp_path / "b.latent"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes.fromhex("803f00c0"))
    assert read(path).tolist() == [1.0, -2.0]


GOOD = serialize(np.zeros((1, 4, 2, 2), np.float32), {})


@pytest.mark.parametrize(
    "content",
    [
        b"", b"short", b"\xff" * 64, GOOD[:40], GOOD[:-8], struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2**63) + GOOD, GOOD.replace(b"F32", b"I64"), GOOD.replace(b"[1,4,2,2]", b"[1,4,2,3]"),
        GOOD.replace(b"[0,64]", b"[9,64]"), GOOD.replace(b"[0,64]", b"[64,0]"),
    ],
)  # fmt: skip
def test_file_that_is_not_a_latent_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.latent"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^bad\.latent: "):
        read(path)


def test_a_latent_is_saved_with_its_graph_and_loaded(context: Any) -> None:
    samples = np.random.default_rng(1).standard_normal((2, 4, 8, 8), dtype=np.float32)
    context.extra_pnginfo = {"workflow": {"nodes": []}}
    node = NODE_CLASSES["SaveLatent"]
    ui = node.run(context, samples={"samples": samples}, filename_prefix="latents/%width%").ui
    assert ui == {"latents": [{"filename": "0_00001_.latent", "subfolder": "latents", "type": "output"}]}
    saved = context.output_dir / "latents" / "0_00001_.latent"
    (context.input_dir / "mine.latent").write_bytes(saved.read_bytes())
    loader = NODE_CLASSES["LoadLatent"]
    assert loader.load_input_specs(context)[0]["latent"] == (["mine.latent"], {})
    assert np.array_equal(context.run("LoadLatent", latent="mine.latent")["samples"], samples)
    assert loader.check is not None
    assert loader.check(context, latent="mine.latent") is None
    assert loader.check(context, latent="../mine.latent") == "Invalid latent file: ../mine.latent"
    assert loader.fingerprint is not None
    before = loader.fingerprint(context, latent="mine.latent")
    (context.input_dir / "mine.latent").write_bytes(serialize(samples * 2, {}))
    assert loader.fingerprint(context, latent="mine.latent") != before
    context.save_metadata = False
    node.run(context, samples={"samples": samples}, filename_prefix="bare")
    assert b"__metadata__" not in (context.output_dir / "bare_00001_.latent").read_bytes()
