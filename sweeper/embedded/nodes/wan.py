"""Wan's video conditionings with controls, subjects, sounds and characters: what each ties a video to.

Shapes, outputs and frame counts are ComfyUI 0.3.64's. What the real networks learn of a pose, a face or a voice is not
here: a control video and a pose video are hints, frame by frame; pictures are references; a sound moves nothing but is
heard as light (see `sound.listen`). Where the real node appends frames to be trimmed, so does this.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion import hints
from sweeper.embedded.diffusion.hints import Hint, Reference, VisionOutput
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.nodes import video
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.conditioning_extras import with_hint, with_reference, with_vision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.diffusion.guidance import Conditioning

    Array = NDArray[Any]
    Latent = dict[str, Any]
    Sides = tuple[Conditioning, Conditioning]

_CONTROL = "procedural-control-video"  # read by itself: lines where it is mostly dark, shades otherwise


def _with_control(sides: Sides, frames: Array | None, length: int, latents: int, strength: float = 1.0) -> Sides:
    """Both sides hinted by a control video: one of its pictures for each latent frame, the last one repeated."""
    if frames is None or strength == 0 or not len(frames):
        return sides
    indices = np.minimum(np.arange(latents) * 4, min(length, len(frames)) - 1)
    hint = Hint(hints.load_control(_CONTROL), frames[indices, ..., :3], strength)
    return with_hint(sides[0], hint), with_hint(sides[1], hint)


def _make_subject(vae: Vae, picture: Array, width: int, height: int, weight: float = 0.5) -> Reference:
    """A picture that all frames have in common: what is on it, not where."""
    return Reference(video.encode_picture(picture[:1], vae, width, height), weight)


def _with_sound(sides: Sides, heard: VisionOutput | None) -> Sides:
    """The positive side with what was heard."""
    return sides if heard is None else (with_vision(sides[0], heard, 0.3), sides[1])


def control(
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
    start_image: Array | None = None,
    ref_image: Array | None = None,
    control_video: Array | None = None,
) -> NodeOutput:
    """WanFunControlToVideo and Wan22FunControlToVideo."""
    latent = video.empty_wan(width, height, length, batch_size)
    sides = _with_control((positive, negative), control_video, length, latent["samples"].shape[2])
    references = video.make_references(vae, width, height, length, start_image, None)
    if ref_image is not None:
        references.append(_make_subject(vae, ref_image, width, height))
    sides = video.with_references(sides, references)
    if clip_vision_output is not None:
        sides = with_vision(sides[0], clip_vision_output, 0.5), sides[1]
    return NodeOutput((*sides, latent))


def vace(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    strength: float,
    control_video: Array | None = None,
    control_masks: Array | None = None,
    reference_image: Array | None = None,
) -> NodeOutput:
    """Where the mask is black the control video stays, elsewhere it is a hint; the reference is one frame in front."""
    extra = 0 if reference_image is None else 1
    latent = video.empty_wan(width, height, length + 4 * extra, batch_size)
    frames = latent["samples"].shape[2]
    sides: Sides = (positive, negative)
    references = []
    if reference_image is not None:
        references.append(_make_subject(vae, reference_image, width, height))
    if control_video is not None:
        control_frames = np.concatenate([control_video[:1]] * extra + [control_video])
        if control_masks is None:
            sides = _with_control(sides, control_frames, length + extra, frames, strength)
        else:
            indices = np.minimum(np.arange(frames) * 4, len(control_frames) - 1)
            unmasked = 1 - control_masks.reshape(-1, *control_masks.shape[-2:])
            where = unmasked[np.minimum(indices, len(unmasked) - 1)]
            latents = video.encode_picture(control_frames[indices], vae, width, height)
            references.append(Reference(latents, min(strength, 1.0), where=where))
    return NodeOutput((*video.with_references(sides, references), latent, extra))


def phantom(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    images: Array | None = None,
) -> NodeOutput:
    """Subjects for the positive and the first negative; the second negative (negative_img_text) knows none."""
    latent = video.empty_wan(width, height, length, batch_size)
    if images is None:
        return NodeOutput((positive, negative, negative, latent))
    pictures = images[:length]
    subjects = [
        _make_subject(vae, pictures[i : i + 1], width, height, 0.5 / len(pictures)) for i in range(len(pictures))
    ]
    return NodeOutput((*video.with_references((positive, negative), subjects), negative, latent))


def _condition_on_sound(
    sides: Sides,
    vae: Vae,
    latent: Latent,
    length: int,
    heard: VisionOutput | None,
    ref: Array | None,
    control_of: Array | None,
) -> tuple[Conditioning, Conditioning, Latent]:
    width, height = latent["pixels"]
    sides = _with_control(_with_sound(sides, heard), control_of, length, latent["samples"].shape[2])
    if ref is not None:
        sides = video.with_references(sides, [_make_subject(vae, ref, width, height)])
    return (*sides, latent)


def sound(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    audio_encoder_output: VisionOutput | None = None,
    ref_image: Array | None = None,
    control_video: Array | None = None,
    ref_motion: Array | None = None,
) -> NodeOutput:
    sides: Sides = (positive, negative)
    if ref_motion is not None and len(ref_motion):
        sides = video.with_references(sides, video.make_references(vae, width, height, length, ref_motion[-1:], None))
    latent = video.empty_wan(width, height, length, batch_size)
    return NodeOutput(_condition_on_sound(sides, vae, latent, length, audio_encoder_output, ref_image, control_video))


def sound_extended(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    length: int,
    video_latent: Latent,
    audio_encoder_output: VisionOutput | None = None,
    ref_image: Array | None = None,
    control_video: Array | None = None,
) -> NodeOutput:
    """Goes on from the last frame of `video_latent`."""
    samples: Array = video_latent["samples"]
    width, height = video_latent.get("pixels", (samples.shape[-1] * 8, samples.shape[-2] * 8))
    sides: Sides = (positive, negative)
    if samples.shape[1] == 4:
        sides = video.with_references(sides, [Reference(samples[:, :, -1], 1.0, 0, video.REACH)])
    latent = video.empty_wan(width, height, length, len(samples))
    return NodeOutput(_condition_on_sound(sides, vae, latent, length, audio_encoder_output, ref_image, control_video))


def humo(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    audio_encoder_output: VisionOutput | None = None,
    ref_image: Array | None = None,
) -> NodeOutput:
    """The negative side is not told the picture, as in the real node."""
    latent = video.empty_wan(width, height, length, batch_size)
    sides = _with_sound((positive, negative), audio_encoder_output)
    if ref_image is not None:
        sides = with_reference(sides[0], _make_subject(vae, ref_image, width, height)), sides[1]
    return NodeOutput((*sides, latent))


def track(
    context: Context,
    *,
    tracks: str,
    temperature: float,  # how sharply points pull: here nothing is moved along a track
    topk: int,
    **inputs: Any,
) -> NodeOutput:
    """The start picture holds as in WanImageToVideo; tracks are read, and move nothing in a procedural scene."""
    try:
        parsed = json.loads(tracks.replace("'", '"'))
    except ValueError as problem:
        raise ValueError(f"tracks is not JSON: {problem}") from problem
    if not isinstance(parsed, list):
        raise TypeError(f"tracks is a list of tracks, each a list of points; not {type(parsed).__name__}")
    return video.wan(context, **inputs)


def animate(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    batch_size: int,
    continue_motion_max_frames: int,
    video_frame_offset: int,
    clip_vision_output: VisionOutput | None = None,
    reference_image: Array | None = None,
    face_video: Array | None = None,  # faces have no expression here
    pose_video: Array | None = None,
    background_video: Array | None = None,
    character_mask: Array | None = None,
    continue_motion: Array | None = None,
) -> NodeOutput:
    """A character in place of another. Outputs beside the video: latent frames and pictures to trim, next offset."""
    known_frames = 0
    sides: Sides = (positive, negative)
    if continue_motion is not None:
        motion = continue_motion[-continue_motion_max_frames:]
        video_frame_offset = max(0, video_frame_offset - len(motion))
        known_frames = (len(motion) - 1) // 4 + 1
        sides = video.with_references(sides, video.make_references(vae, width, height, length, motion[-1:], None))
    latent = video.empty_wan(width, height, length + 4, batch_size)  # one latent frame in front for the reference
    frames = latent["samples"].shape[2]
    references = [] if reference_image is None else [_make_subject(vae, reference_image, width, height)]
    if pose_video is not None:
        sides = _with_control(sides, pose_video[video_frame_offset:], length, frames)
    if background_video is not None and len(background_video) > video_frame_offset:
        behind = background_video[video_frame_offset:]
        where = None if character_mask is None else 1 - character_mask.reshape(-1, *character_mask.shape[-2:])[:1]
        latents = video.encode_picture(behind[np.minimum(np.arange(frames) * 4, len(behind) - 1)], vae, width, height)
        references.append(Reference(latents, 0.8, where=where))
    sides = video.with_references(sides, references)
    if clip_vision_output is not None:
        sides = with_vision(sides[0], clip_vision_output, 0.5), sides[1]
    return NodeOutput((*sides, latent, 1, max(0, known_frames * 4 - 3), video_frame_offset + length))
