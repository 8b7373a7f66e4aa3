"""Latents of other families: videos, Stable Cascade, and what ties a video to a picture.

An empty latent has the shape that the family's real one has; since the procedural models draw at factor 8 in 4
channels, it also carries "pixels", the size it stands for, and a video's "frame_step", the frames per latent frame.
A start or end picture is a `Reference` that loses its hold over some frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.hints import Reference, VisionOutput, look
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.vocabulary import FEATURES
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.conditioning_extras import with_reference, with_vision
from sweeper.embedded.nodes.pictures import resize_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.diffusion.guidance import Conditioning

    Array = NDArray[Any]
    Latent = dict[str, Any]

REACH = 6.0  # latent frames over which a start picture's hold falls to 1/e


def _make_empty(shape: tuple[int, ...], width: int, height: int, step: int = 1) -> Latent:
    return {"samples": np.zeros(shape, np.float32), "pixels": (width, height), "frame_step": step}


def _make_empty_video(size: tuple[int, int, int], batch: int, *, channels: int, step: int, factor: int = 8) -> Latent:
    """`size` is width, height, frames."""
    width, height, length = size
    shape = (batch, channels, (length - 1) // step + 1, height // factor, width // factor)
    return _make_empty(shape, width, height, step)


def hunyuan(_context: Context, width: int, height: int, length: int, batch_size: int = 1) -> NodeOutput:
    """EmptyHunyuanLatentVideo, Wan's too: 4 frames a latent frame."""
    return NodeOutput((_make_empty_video((width, height, length), batch_size, channels=16, step=4),))


def empty_wan(width: int, height: int, length: int, batch_size: int) -> Latent:
    return _make_empty_video((width, height, length), batch_size, channels=16, step=4)


def ltxv(_context: Context, width: int, height: int, length: int, batch_size: int = 1) -> NodeOutput:
    return NodeOutput((_make_empty_video((width, height, length), batch_size, channels=128, step=8, factor=32),))


def mochi(_context: Context, width: int, height: int, length: int, batch_size: int = 1) -> NodeOutput:
    return NodeOutput((_make_empty_video((width, height, length), batch_size, channels=12, step=6),))


def cosmos(_context: Context, width: int, height: int, length: int, batch_size: int = 1) -> NodeOutput:
    return NodeOutput((_make_empty_video((width, height, length), batch_size, channels=16, step=8),))


def hunyuan_image(_context: Context, width: int, height: int, batch_size: int = 1) -> NodeOutput:
    return NodeOutput((_make_empty((batch_size, 64, height // 32, width // 32), width, height),))


def chroma_radiance(_context: Context, width: int, height: int, batch_size: int = 1) -> NodeOutput:
    """Pixels are this family's latents."""
    return NodeOutput((_make_empty((batch_size, 3, height, width), width, height),))


def cascade(_context: Context, width: int, height: int, compression: int, batch_size: int = 1) -> NodeOutput:
    stage_c = _make_empty((batch_size, 16, height // compression, width // compression), width, height)
    stage_b = _make_empty((batch_size, 4, height // 4, width // 4), width, height)
    return NodeOutput((stage_c, stage_b))


def cascade_encode(_context: Context, image: Array, vae: Vae, compression: int) -> NodeOutput:
    """The picture as stage C's latent; these models have one factor, whatever the compression."""
    samples, _ = coder.encode(image, vae)
    height, width = image.shape[1:3]
    stage_b = _make_empty((len(image), 4, (height // 8) * 2, (width // 8) * 2), width // 8 * 8, height // 8 * 8)
    return NodeOutput(({"samples": samples}, stage_b))


def cascade_prior(_context: Context, conditioning: Conditioning, stage_c: Latent) -> NodeOutput:
    """Stage B keeps what stage C composed."""
    samples: Array = stage_c["samples"]
    if not np.any(samples) or samples.shape[1] != 4:
        return NodeOutput((conditioning,))
    return NodeOutput((with_reference(conditioning, Reference(samples, 0.9)),))


def cascade_larger(_context: Context, image: Array, vae: Vae) -> NodeOutput:
    """StableCascade_SuperResolutionControlnet: the encoded picture as the control's, and empty latents of its size."""
    samples, _ = coder.encode(image, vae)
    height, width = image.shape[1:3]
    stage_c = _make_empty((len(image), 16, height // 16, width // 16), width, height)
    stage_b = _make_empty((len(image), 4, height // 2, width // 2), width, height)
    return NodeOutput((np.ascontiguousarray(np.moveaxis(samples, 1, -1)), stage_c, stage_b))


def encode_picture(image: Array, vae: Vae, width: int, height: int) -> Array:
    return coder.encode(resize_image(image, width, height, "bilinear", centre=True), vae)[0]


def with_references(
    sides: tuple[Conditioning, Conditioning], references: list[Reference]
) -> tuple[Conditioning, Conditioning]:
    positive, negative = sides
    for reference in references:
        positive, negative = with_reference(positive, reference), with_reference(negative, reference)
    return positive, negative


def make_references(
    vae: Vae, width: int, height: int, length: int, start: Array | None, end: Array | None
) -> list[Reference]:
    """What a first and a last picture hold a video of 4 frames a latent frame to."""
    last = (length - 1) // 4
    pictures = ((start, 0, 0), (end, last, -1))
    return [
        Reference(
            encode_picture(image[which : which + 1] if which == 0 else image[-1:], vae, width, height),
            1.0,
            frame,
            REACH,
        )
        for image, frame, which in pictures
        if image is not None
    ]


def wan(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    clip_vision_output: VisionOutput | None = None,
    clip_vision_start_image: VisionOutput | None = None,
    clip_vision_end_image: VisionOutput | None = None,
    start_image: Array | None = None,
    end_image: Array | None = None,
    camera_conditions: Any = None,  # the procedural scenes are flat: there is no camera to move
) -> NodeOutput:
    """WanImageToVideo and its relatives with a first, a last picture, or both."""
    references = make_references(vae, width, height, length, start_image, end_image)
    for vision in (clip_vision_output, clip_vision_start_image, clip_vision_end_image):
        if vision is not None:
            positive = with_vision(positive, vision, 0.5)
    return NodeOutput(
        (*with_references((positive, negative), references), empty_wan(width, height, length, batch_size))
    )


def camera(
    _context: Context,
    *,
    camera_pose: str,
    width: int,
    height: int,
    length: int,
    speed: float = 1.0,
    fx: float = 0.5,
    fy: float = 0.5,
    cx: float = 0.5,
    cy: float = 0.5,
) -> NodeOutput:
    """A camera's path, handed on with the size of the video."""
    return NodeOutput(((camera_pose, speed, fx, fy, cx, cy), width, height, length))


def image_to_latent(
    _context: Context,
    *,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    step: int,
    start_image: Array | None = None,
    end_image: Array | None = None,
) -> NodeOutput:
    """A latent whose first and last frames are given and masked from noise."""
    latent = _make_empty_video((width, height, length), batch_size, channels=16, step=step)
    if start_image is None and end_image is None:
        return NodeOutput((latent,))
    frames = latent["samples"].shape[2]
    samples = np.zeros((batch_size, 4, frames, height // 8, width // 8), np.float32)
    mask = np.ones((batch_size, 1, frames, 1, 1), np.float32)
    for image, index in ((start_image, 0), (end_image, frames - 1)):
        if image is not None:
            samples[:, :, index] = encode_picture(image[:1], vae, width, height)[0]
            mask[:, :, index] = 0
    return NodeOutput(({"samples": samples, "noise_mask": mask, "frame_step": step},))


def wan22_latent(context: Context, **inputs: Any) -> NodeOutput:
    return image_to_latent(context, step=4, **inputs)


def cosmos_latent(context: Context, **inputs: Any) -> NodeOutput:
    return image_to_latent(context, step=8, **inputs)


def cosmos2_latent(context: Context, **inputs: Any) -> NodeOutput:
    return image_to_latent(context, step=4, **inputs)


def hunyuan_i2v(
    _context: Context,
    *,
    positive: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    guidance_type: str,
    start_image: Array | None = None,
) -> NodeOutput:
    """v1 concatenates the picture (a firm hold), v2 and custom replace the first frame or refer to it."""
    latent = _make_empty_video((width, height, length), batch_size, channels=16, step=4)
    if start_image is None:
        return NodeOutput((positive, latent))
    reach = REACH if guidance_type.startswith("v1") else REACH / 2
    reference = Reference(encode_picture(start_image[:1], vae, width, height), 1.0, 0, reach)
    return NodeOutput((with_reference(positive, reference), latent))


def ltxv_i2v(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    image: Array,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    strength: float,
) -> NodeOutput:
    """The first latent frame is the picture, kept by `strength`."""
    frames = (length - 1) // 8 + 1
    samples = np.zeros((batch_size, 4, frames, height // 8, width // 8), np.float32)
    samples[:, :, 0] = encode_picture(image[:1], vae, width, height)[0]
    mask = np.ones((batch_size, 1, frames, 1, 1), np.float32)
    mask[:, :, 0] = 1.0 - strength
    reference = Reference(samples[:1, :, 0], strength, 0, REACH)
    sides = with_reference(positive, reference), with_reference(negative, reference)
    return NodeOutput((*sides, {"samples": samples, "noise_mask": mask, "frame_step": 8}))


def ltxv_guide(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    latent: Latent,
    image: Array,
    frame_idx: int,
    strength: float,
) -> NodeOutput:
    """Hold the video to a picture at one frame. Here a reference does it; no frames are appended to be cropped."""
    samples: Array = latent["samples"]
    width, height = latent.get("pixels", (samples.shape[-1] * 8, samples.shape[-2] * 8))
    frames = samples.shape[2]
    frame = frame_idx if frame_idx >= 0 else max((frames - 1) * 8 + 1 + frame_idx, 0)
    reference = Reference(encode_picture(image[:1], vae, width, height), strength, (frame + 7) // 8, REACH)
    return NodeOutput((with_reference(positive, reference), with_reference(negative, reference), latent))


def pass_three(_context: Context, positive: Conditioning, negative: Conditioning, latent: Latent) -> NodeOutput:
    """LTXVCropGuides: nothing was appended, so nothing is cropped."""
    return NodeOutput((positive, negative, latent))


def _encode_vision(image: Array, clip_vision: Any) -> Conditioning:
    return [[look(image, clip_vision.name, crop=True).rows[:1, None], {}]]


def _make_sides(vision: Conditioning, **options: Any) -> tuple[Conditioning, Conditioning]:
    zero = np.zeros((1, 1, len(FEATURES)), np.float32)
    return [[rows, {**old, **options}] for rows, old in vision], [[zero, dict(options)]]


def svd(
    _context: Context,
    *,
    clip_vision: Any,
    init_image: Array,
    vae: Vae,
    width: int,
    height: int,
    video_frames: int,
    motion_bucket_id: int,
    fps: int,
    augmentation_level: float,
) -> NodeOutput:
    """Stable Video Diffusion: a batch that is a video; more motion or noise on the picture loosens its hold sooner."""
    sides = _make_sides(_encode_vision(init_image, clip_vision), motion_bucket_id=motion_bucket_id, fps=fps)
    hold = 1 / (1 + augmentation_level)
    reach = 1.5 * video_frames * 127 / max(motion_bucket_id, 1)
    reference = Reference(encode_picture(init_image[:1], vae, width, height), hold, 0, reach)
    conditioned = with_references(sides, [reference])
    return NodeOutput((*conditioned, _make_empty((video_frames, 4, height // 8, width // 8), width, height)))


def sv3d(
    _context: Context,
    *,
    clip_vision: Any,
    init_image: Array,
    vae: Vae,
    width: int,
    height: int,
    video_frames: int,
    elevation: float,
) -> NodeOutput:
    """A batch that goes once around the thing on the picture: held by it at both ends, least at its back."""
    sides = _make_sides(_encode_vision(init_image, clip_vision), elevation=elevation)
    hold = 0.9 / (1 + abs(elevation) / 90)
    picture = encode_picture(init_image[:1], vae, width, height)
    ends = [Reference(picture, hold, frame, max(video_frames / 4, 1)) for frame in (0, max(video_frames, 2) - 1)]
    conditioned = with_references(sides, ends)
    return NodeOutput((*conditioned, _make_empty((video_frames, 4, height // 8, width // 8), width, height)))


def zero123_batched(
    _context: Context,
    *,
    clip_vision: Any,
    init_image: Array,
    vae: Vae,
    width: int,
    height: int,
    batch_size: int,
    elevation: float,
    azimuth: float,
    elevation_batch_increment: float,
    azimuth_batch_increment: float,
) -> NodeOutput:
    """Views from one angle after another, all from the same noise."""
    sides = _make_sides(_encode_vision(init_image, clip_vision))
    steps = np.arange(batch_size, dtype=np.float32)
    away = np.abs(elevation + steps * elevation_batch_increment) + np.abs(azimuth + steps * azimuth_batch_increment)
    strength = 1 / (1 + 2 * away / 180)
    pictures = np.repeat(encode_picture(init_image[:1], vae, width, height), batch_size, axis=0)
    where = np.ones((batch_size, 1, 1), np.float32) * strength[:, None, None].astype(np.float32)
    conditioned = with_references(sides, [Reference(pictures, 0.9, where=where)])
    latent = _make_empty((batch_size, 4, height // 8, width // 8), width, height)
    return NodeOutput((*conditioned, {**latent, "batch_index": [0] * batch_size}))


def hunyuan_refiner(
    _context: Context, positive: Conditioning, negative: Conditioning, latent: Latent, noise_augmentation: float
) -> NodeOutput:
    """Both sides are held to the latent, less so the more noise is on it; sampling starts from an empty one."""
    samples: Array = latent["samples"]
    fresh = np.zeros((len(samples), 32, *samples.shape[-3:]), np.float32)
    out: Latent = {"samples": fresh, "pixels": latent.get("pixels", (samples.shape[-1] * 8, samples.shape[-2] * 8))}
    out["frame_step"] = latent.get("frame_step", 4)
    if samples.ndim != 5 or samples.shape[1] != 4:
        return NodeOutput((positive, negative, out))
    frames = np.moveaxis(samples, 2, 1).reshape(-1, 4, *samples.shape[-2:])
    conditioned = with_references((positive, negative), [Reference(frames, 0.95 * (1 - noise_augmentation))])
    return NodeOutput((*conditioned, out))


def zero123(
    _context: Context,
    *,
    clip_vision: Any,
    init_image: Array,
    vae: Vae,
    width: int,
    height: int,
    batch_size: int,
    elevation: float,
    azimuth: float,
) -> NodeOutput:
    """A view of the thing on the picture from elsewhere: the further it is turned, the less of the picture holds."""
    sides = _make_sides(_encode_vision(init_image, clip_vision))
    away = (abs(elevation) + abs(azimuth)) / 180
    reference = Reference(encode_picture(init_image[:1], vae, width, height), 0.9 / (1 + 2 * away))
    conditioned = with_references(sides, [reference])
    return NodeOutput((*conditioned, _make_empty((batch_size, 4, height // 8, width // 8), width, height)))
