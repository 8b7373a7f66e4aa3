"""Conditionings that say where, when and after which pictures: areas, masks, control, vision, references.

The options that these nodes write are ComfyUI's own names where it has them; `diffusion.conditions` reads them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion import hints
from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.hints import ControlNet, Hint, Reference, VisionOutput
from sweeper.embedded.diffusion.models import Clip, Model, Vae, embed
from sweeper.embedded.diffusion.names import check_name
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.conditioning import with_options
from sweeper.embedded.nodes.mask_ops import to_planes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.diffusion.guidance import Conditioning

    Array = NDArray[Any]
    Latent = dict[str, Any]


def _append_option(conditioning: Conditioning, name: str, entry: Any) -> Conditioning:
    """One more entry in a tuple among the options."""
    return [[rows, {**old, name: (*old.get(name, ()), entry)}] for rows, old in conditioning]


def with_reference(conditioning: Conditioning, reference: Reference) -> Conditioning:
    return _append_option(conditioning, "references", reference)


def with_vision(conditioning: Conditioning, vision: VisionOutput, strength: float) -> Conditioning:
    """One more row of embedding: what a vision model saw in the first picture, times `strength`."""
    row = (vision.rows[:1] * np.float32(strength))[:, None]
    return [[np.concatenate([rows, row], axis=1), dict(options)] for rows, options in conditioning]


def set_area(
    _context: Context, *, conditioning: Conditioning, width: int, height: int, x: int, y: int, strength: float
) -> NodeOutput:
    area = (height // 8, width // 8, y // 8, x // 8)
    return NodeOutput((with_options(conditioning, area=area, strength=strength, set_area_to_bounds=False),))


def set_area_share(
    _context: Context, *, conditioning: Conditioning, width: float, height: float, x: float, y: float, strength: float
) -> NodeOutput:
    area = ("percentage", height, width, y, x)
    return NodeOutput((with_options(conditioning, area=area, strength=strength, set_area_to_bounds=False),))


def set_area_share_of_video(
    _context: Context,
    *,
    conditioning: Conditioning,
    width: float,
    height: float,
    temporal: float,
    x: float,
    y: float,
    z: float,
    strength: float,
) -> NodeOutput:
    area = ("percentage", temporal, height, width, z, y, x)
    return NodeOutput((with_options(conditioning, area=area, strength=strength, set_area_to_bounds=False),))


def set_strength(_context: Context, conditioning: Conditioning, strength: float) -> NodeOutput:
    return NodeOutput((with_options(conditioning, strength=strength),))


def set_mask(
    _context: Context, conditioning: Conditioning, mask: Array, strength: float, set_cond_area: str
) -> NodeOutput:
    bounds = set_cond_area != "default"
    masked = with_options(conditioning, mask=to_planes(mask), mask_strength=strength, set_area_to_bounds=bounds)
    return NodeOutput((masked,))


def set_range(_context: Context, conditioning: Conditioning, start: float, end: float) -> NodeOutput:
    return NodeOutput((with_options(conditioning, start_percent=start, end_percent=end),))


def pair_combine(
    _context: Context,
    positive_A: Conditioning,
    negative_A: Conditioning,
    positive_B: Conditioning,
    negative_B: Conditioning,
) -> NodeOutput:
    return NodeOutput((positive_A + positive_B, negative_A + negative_B))


def load_control(_context: Context, control_net_name: str) -> NodeOutput:
    return NodeOutput((hints.load_control(control_net_name),))


def load_control_for(_context: Context, model: Any, control_net_name: str) -> NodeOutput:
    """A control model kept as a difference to `model`; procedural ones need none."""
    return NodeOutput((hints.load_control(control_net_name),))


def set_control_type(_context: Context, control_net: ControlNet, type: str) -> NodeOutput:
    return NodeOutput((hints.retype_control(control_net, type),))


def with_hint(conditioning: Conditioning, hint: Hint) -> Conditioning:
    return _append_option(conditioning, "hints", hint)


def apply_control(
    _context: Context, conditioning: Conditioning, control_net: ControlNet, image: Array, strength: float
) -> NodeOutput:
    if strength == 0:
        return NodeOutput((conditioning,))
    return NodeOutput((with_hint(conditioning, Hint(control_net, image, strength)),))


def apply_control_advanced(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    image: Array,
    strength: float,
    start_percent: float,
    end_percent: float,
    vae: Vae | None = None,  # hints are read as pictures, not as latents
) -> NodeOutput:
    if strength == 0:
        return NodeOutput((positive, negative))
    hint = Hint(control_net, image, strength, start_percent, end_percent)
    return NodeOutput((with_hint(positive, hint), with_hint(negative, hint)))


def apply_control_inpaint(context: Context, *, mask: Array, image: Array, **rest: Any) -> NodeOutput:
    """The hint is the picture; `mask` is the inpainting's, which the latent's noise mask brings about."""
    if to_planes(mask).shape[0] < 1:
        raise ValueError("the mask is empty")
    return apply_control_advanced(context, image=image, **rest)


def load_vision(_context: Context, clip_name: str) -> NodeOutput:
    check_name(clip_name)
    return NodeOutput((VisionModel(clip_name),))


class VisionModel:
    """CLIP_VISION: only its name, which makes it look a little otherwise than others."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<procedural vision model {self.name!r}>"


def look(_context: Context, clip_vision: VisionModel, image: Array, crop: str) -> NodeOutput:
    return NodeOutput((hints.look(image, clip_vision.name, crop=crop == "center"),))


def unclip(
    _context: Context,
    conditioning: Conditioning,
    clip_vision_output: VisionOutput,
    strength: float,
    noise_augmentation: float,
) -> NodeOutput:
    """The picture as part of the prompt; noise on it weakens what is taken over."""
    if strength == 0:
        return NodeOutput((conditioning,))
    return NodeOutput((with_vision(conditioning, clip_vision_output, strength * (1 - noise_augmentation)),))


def load_style(_context: Context, style_model_name: str) -> NodeOutput:
    check_name(style_model_name)
    return NodeOutput((VisionModel(style_model_name),))


def apply_style(
    _context: Context,
    *,
    conditioning: Conditioning,
    style_model: VisionModel,  # it hands the row on as it is
    clip_vision_output: VisionOutput,
    strength: float,
    strength_type: str,  # both ways of weakening a row come to the same in a sum
) -> NodeOutput:
    return NodeOutput((with_vision(conditioning, clip_vision_output, strength),))


def load_gligen(_context: Context, gligen_name: str) -> NodeOutput:
    check_name(gligen_name)
    return NodeOutput((VisionModel(gligen_name),))


def gligen_box(
    _context: Context,
    *,
    conditioning_to: Conditioning,
    clip: Clip,
    gligen_textbox_model: VisionModel,  # every name grounds its boxes alike
    text: str,
    width: int,
    height: int,
    x: int,
    y: int,
) -> NodeOutput:
    """The text drawn within its box, beside what the conditioning asks for: an entry with an area."""
    area = (height // 8, width // 8, y // 8, x // 8)
    return NodeOutput(([*conditioning_to, [embed(clip, text), {"area": area, "strength": 4.0}]],))


def reference_latent(_context: Context, conditioning: Conditioning, latent: Latent | None = None) -> NodeOutput:
    """An edit model's picture: most of it stays, the prompt changes the rest."""
    if latent is None or latent["samples"].ndim != 4 or latent["samples"].shape[1] != 4:
        return NodeOutput((conditioning,))
    return NodeOutput((with_reference(conditioning, Reference(latent["samples"], 0.6)),))


def load_patch(_context: Context, name: str) -> NodeOutput:
    """MODEL_PATCH: a control model or a reader of styles, whichever the node that it goes to makes of it."""
    return NodeOutput((hints.load_control(name),))


def control_model(
    _context: Context,
    *,
    model: Model,
    model_patch: ControlNet,
    vae: Vae,  # hints are read as pictures, not as latents
    image: Array,
    strength: float,
    mask: Array | None = None,  # an inpainting's; the latent's noise mask brings it about
) -> NodeOutput:
    """QwenImageDiffsynthControlnet: a hint for every prompt that the model is given."""
    if strength == 0:
        return NodeOutput((model,))
    return NodeOutput((replace(model, held=(*model.held, {"hints": Hint(model_patch, image, strength)})),))


def style_model(
    _context: Context,
    model: Model,
    model_patch: ControlNet,
    clip_vision_output: VisionOutput,
) -> NodeOutput:
    """USOStyleReference: what was seen in a picture beside every prompt, at half weight."""
    features = clip_vision_output.rows[0] * np.float32(0.5)
    return NodeOutput((replace(model, held=(*model.held, {"features": features})),))


def load_photomaker(_context: Context, photomaker_model_name: str) -> NodeOutput:
    check_name(photomaker_model_name)
    return NodeOutput((VisionModel(photomaker_model_name),))


def encode_photomaker(_context: Context, photomaker: VisionModel, image: Array, clip: Clip, text: str) -> NodeOutput:
    """The text, and at its word "photomaker" what was seen in the picture; without that word the text alone."""
    words = text.split()
    encoded: Conditioning = [[embed(clip, " ".join(word for word in words if word != "photomaker")), {}]]
    if "photomaker" in words:
        encoded = with_vision(encoded, hints.look(image, photomaker.name, crop=True), 0.5)
    return NodeOutput((encoded,))


def edit_instruction(
    _context: Context, positive: Conditioning, negative: Conditioning, pixels: Array, vae: Vae
) -> NodeOutput:
    """InstructPixToPix: both sides are told the picture; sampling starts from an empty latent of its size."""
    samples, _ = coder.encode(pixels, vae)
    reference = Reference(samples, 0.6)
    sides = with_reference(positive, reference), with_reference(negative, reference)
    return NodeOutput((*sides, {"samples": np.zeros_like(samples)}))


def upscale_conditioning(
    _context: Context,
    *,
    images: Array,
    positive: Conditioning,
    negative: Conditioning,
    scale_ratio: float,
    noise_augmentation: float,
) -> NodeOutput:
    """SD_4XUpscale: the picture holds all but what `noise_augmentation` loosens."""
    samples, _ = coder.encode(images, Vae("upscaler", (0.0, 0.0, 0.0, 0.0)))
    reference = Reference(samples, 0.95 * (1 - noise_augmentation))
    height, width = (max(1, round(side * scale_ratio)) for side in images.shape[1:3])
    latent = {"samples": np.zeros((len(images), 4, height // 4, width // 4), np.float32), "pixels": (width, height)}
    sides = with_reference(positive, reference), with_reference(negative, reference)
    return NodeOutput((*sides, latent))
