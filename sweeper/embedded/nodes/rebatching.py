"""Lists of batches cut anew: RebatchImages and RebatchLatents, which take whole lists and give lists.

Semantics as ComfyUI 0.3.64's nodes_rebatch.py: pictures of two sizes never share a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.mask_ops import repeat_batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Latent = dict[str, Any]


def images(_context: Context, images: list[Array], batch_size: list[int]) -> NodeOutput:
    """Batches of `batch_size`, the last one of what is left. Raises ValueError for two sizes in one batch."""
    singles = [image[index : index + 1] for image in images for index in range(len(image))]
    step = batch_size[0]
    return NodeOutput(([np.concatenate(singles[start : start + step]) for start in range(0, len(singles), step)],))


def _list_items(latents: list[Latent]) -> list[tuple[Array, Array, int]]:
    """Sample [1, ...], mask [1, 1, H, W] and batch index of every item of every latent."""
    items: list[tuple[Array, Array, int]] = []
    for latent in latents:
        samples: Array = latent["samples"]
        sides = (len(samples), 1, samples.shape[-2] * 8, samples.shape[-1] * 8)
        mask = repeat_batch(latent.get("noise_mask", np.ones(sides, np.float32)), len(samples))
        indices = latent.get("batch_index") or range(len(items), len(items) + len(samples))
        for position, index in enumerate(indices):
            items.append((samples[position : position + 1], mask[position : position + 1], int(index)))
    return items


def latents(_context: Context, latents: list[Latent], batch_size: list[int]) -> NodeOutput:
    """Batches of `batch_size` with their masks and indices; a batch ends early where the size changes."""
    groups: list[list[tuple[Array, Array, int]]] = []
    for item in _list_items(latents):
        new = not groups or len(groups[-1]) == batch_size[0] or groups[-1][0][0].shape != item[0].shape
        if new:
            groups.append([])
        groups[-1].append(item)
    return NodeOutput(([_join(group) for group in groups],))


def _join(group: list[tuple[Array, Array, int]]) -> Latent:
    samples, masks, indices = zip(*group, strict=True)
    batch: Latent = {"samples": np.concatenate(samples), "batch_index": list(indices)}
    mask = np.concatenate(masks)
    if mask.mean() != 1:  # a mask that lets everything change is none
        batch["noise_mask"] = mask
    return batch
