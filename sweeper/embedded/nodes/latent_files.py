"""SaveLatent and LoadLatent: a latent on disk, in the safetensors format and with ComfyUI 0.3.64's names.

The format (github.com/huggingface/safetensors, "Format"): eight bytes, little-endian, the length of a JSON header;
the header, tensor name -> dtype, shape and offsets, and `__metadata__` of texts; then the numbers. What a VAE lost and
carries beside the latent here (`diffusion.vae`) is not saved, as no other program knew it.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.nodes.base import Context, Folders, NodeOutput
from sweeper.embedded.nodes.files import hash_file, make_metadata, resolve_input
from sweeper.embedded.nodes.output_naming import FileReserver

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Latent = dict[str, Any]

_TENSOR, _VERSION = "latent_tensor", "latent_format_version_0"
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}  # a BF16 is a F32's upper half, see `_decode_numbers`
_OLD_SCALE = 1 / 0.18215  # files without the version hold Stable Diffusion's latents before scaling
_MAX_HEADER_BYTES = 100 * 2**20  # the format's own limit, bytes


def serialize(samples: Array, metadata: dict[str, str]) -> bytes:
    """A file's bytes: the tensor, and an empty one whose name says the version."""
    data = np.ascontiguousarray(samples, "<f4").tobytes()
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    header[_TENSOR] = {"dtype": "F32", "shape": list(samples.shape), "data_offsets": [0, len(data)]}
    header[_VERSION] = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _decode_numbers(kind: str, data: bytes) -> Array:
    if kind == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if kind not in _KINDS:
        raise ValueError(f"latents are floats ({', '.join([*_KINDS, 'BF16'])}); this file holds {kind}")
    return np.frombuffer(data, _KINDS[kind]).astype(np.float32)


def read(path: Path) -> Array:
    """The latent of a file. Raises ValueError for what is no safetensors file, or one without a latent."""
    try:
        return _parse(path.read_bytes())
    except KeyError as problem:
        raise ValueError(f"{path.name}: a safetensors file without {problem}") from problem
    except (struct.error, TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"{path.name}: no latent of the safetensors format: {problem}") from problem


def _parse(content: bytes) -> Array:
    (length,) = struct.unpack_from("<Q", content)
    if length > min(len(content) - 8, _MAX_HEADER_BYTES):
        raise ValueError("its header is cut off")
    header = json.loads(content[8 : 8 + length])
    tensor = header[_TENSOR]
    start, end = tensor["data_offsets"]
    if not 0 <= start <= end <= len(content) - 8 - length:
        raise ValueError("its tensor is cut off")
    numbers = _decode_numbers(tensor["dtype"], content[8 + length + start : 8 + length + end])
    shape = [int(side) for side in tensor["shape"]]
    if math.prod(shape) != numbers.size:
        raise ValueError(f"{numbers.size} numbers are not {shape}")
    return numbers.reshape(shape) * np.float32(1.0 if _VERSION in header else _OLD_SCALE)


def save(context: Context, samples: Latent, filename_prefix: str) -> NodeOutput:
    """`<prefix>_00001_.latent` in the output folder. Raises Exception for a prefix that climbs out of it."""
    file = FileReserver(context.output_dir, filename_prefix, None, ".latent").reserve(0)
    with file.open_draft() as draft:
        draft.write_bytes(serialize(samples["samples"], make_metadata(context)))
    return NodeOutput(ui={"latents": [file.as_ui("output")]})


def load(context: Context, latent: str) -> NodeOutput:
    path = resolve_input(context, latent)
    if path is None:
        raise FileNotFoundError(f"Invalid latent file: {latent}")
    return NodeOutput(({"samples": read(path)},))


def check(context: Folders, latent: str) -> str | None:
    """VALIDATE_INPUTS: the file is there, below its folder."""
    return None if isinstance(latent, str) and resolve_input(context, latent) else f"Invalid latent file: {latent}"


def fingerprint(context: Folders, latent: str) -> str:
    return hash_file(context, latent)
