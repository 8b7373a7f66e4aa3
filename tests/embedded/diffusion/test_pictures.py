"""Each axis of a sweep changes the picture as users of diffusion models expect."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.embedded.diffusion import models, vae
from sweeper.embedded.diffusion.models import encode, pool, weigh_words
from sweeper.embedded.diffusion.painter import Canvas, Guider, draw_layouts, find_hand, make_levels, paint
from sweeper.embedded.diffusion.scene import compose
from sweeper.embedded.diffusion.vocabulary import BACKDROPS, COLOURS, FEATURES, INDEX, SUBJECTS, WORDS
from sweeper.embedded.nodes import NODE_CLASSES
from tests import ROOT

LAYOUTS = draw_layouts(1, tuple(range(24)))
PAINT, PHOTO, INK = (f"procedural-{kind}.safetensors" for kind in ("paint", "photo", "ink"))


@lru_cache(maxsize=256)
def latent(
    prompt: str = "a red fox in the snow",
    *,
    negative: str = "",
    seed: int = 5,
    steps: int = 12,
    cfg: float = 6.0,
    sampler: str = "euler",
    scheduler: str = "normal",
    checkpoint: str = PAINT,
    side: int = 40,
) -> Any:
    model, clip = models.load_model(checkpoint), models.load_clip(checkpoint)
    guider = Guider(model, [[models.embed(clip, prompt), {}]], [[models.embed(clip, negative), {}]], cfg)
    canvas = Canvas(np.zeros((1, 4, side, side), np.float32), draw_layouts(seed, (0,)), seed, (0,))
    levels = make_levels(scheduler, steps, model.shift)
    return paint(guider, find_hand(sampler), levels, canvas, noisy=True, report=lambda *_: None)[0]


def picture(prompt: str = "a red fox in the snow", *, checkpoint: str = PAINT, **axes: Any) -> Any:
    return vae.decode(latent(prompt, checkpoint=checkpoint, **axes), models.load_vae(checkpoint))[0]


def apart(first: Any, other: Any) -> float:
    return float(np.abs(first - other).mean())


def chroma(image: Any) -> float:
    return float((image.max(axis=-1) - image.min(axis=-1)).mean())


def sharpness(image: Any) -> float:
    luma = image.mean(axis=-1)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())


AXES: list[dict[str, Any]] = [
    {}, {"sampler": "dpmpp_2m_sde", "seed": 2**64 - 1}, {"checkpoint": INK, "negative": "fog"}
]  # fmt: skip
SCRIPT = """
import hashlib, sys
sys.path.insert(0, {folder!r})
from tests.embedded.diffusion.test_pictures import AXES, picture
for axes in AXES:
    print(hashlib.sha256((picture(**axes) * 255).astype("uint8").tobytes()).hexdigest())
"""


def test_same_inputs_give_same_pixels_in_every_process() -> None:
    def hashes(hash_seed: str) -> list[str]:
        code = SCRIPT.format(folder=str(ROOT))
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        return done.stdout.split()

    here = [hashlib.sha256((picture(**axes) * 255).astype("uint8").tobytes()).hexdigest() for axes in AXES]
    assert hashes("1") == here


def test_few_steps_are_blurred_and_more_steps_converge() -> None:
    for sampler, scheduler in (("euler", "normal"), ("dpmpp_2m", "karras"), ("heun", "simple")):
        images = [picture(steps=steps, sampler=sampler, scheduler=scheduler) for steps in (2, 4, 8, 16, 32, 64)]
        moves = [apart(first, other) for first, other in pairwise(images)]
        assert moves[-1] < 0.5 * moves[0]
        assert moves[-1] < 0.03
    sharp = [sharpness(picture(steps=steps)) for steps in (2, 4, 8, 16)]
    assert sharp == sorted(sharp)


def test_cfg_adds_contrast_and_colour_step_by_step() -> None:
    scales = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0)
    latents = [latent(cfg=cfg)[0, :3] for cfg in scales]
    spread = [float(first.std()) for first in latents]
    assert spread == sorted(spread)
    assert spread[-1] > 2 * spread[0]  # burnt
    images = [picture(cfg=cfg) for cfg in scales]
    assert max(apart(first, other) for first, other in pairwise(images)) < 0.08  # no jumps
    assert chroma(images[5]) > 1.15 * chroma(images[0])


def test_cfg_keeps_the_composition_for_most_seeds() -> None:
    same_composition = 0
    for seed in range(12):
        low, high = latent(seed=seed, cfg=2.0)[0, 0], latent(seed=seed, cfg=12.0)[0, 0]
        same_composition += np.corrcoef(low.ravel(), high.ravel())[0, 1] > 0.8
    assert same_composition >= 11  # if two compositions are equally likely, guidance may decide


def test_seeds_choose_among_many_compositions() -> None:
    images = [picture(seed=seed) for seed in range(12)]
    pairs = [apart(first, other) for i, first in enumerate(images) for other in images[:i]]
    assert min(pairs) > 0.01
    assert np.mean(pairs) > 0.06


def test_each_sampler_and_scheduler_has_a_picture_of_its_own() -> None:
    specs = NODE_CLASSES["KSampler"].required
    for axis, names in (("sampler", specs["sampler_name"][0]), ("scheduler", specs["scheduler"][0])):
        drawn = [(picture(**{axis: name}, side=16) * 255).astype("uint8").tobytes() for name in names]
        assert len(set(drawn)) == len(names)


def test_samplers_differ_at_few_steps_and_agree_at_many() -> None:
    names = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", "uni_pc", "deis")
    few = [picture(steps=4, sampler=name, scheduler="karras") for name in names]
    many = [picture(steps=60, sampler=name, scheduler="karras") for name in names]

    def mean_distance(images: list[Any]) -> float:
        return float(np.mean([apart(first, other) for i, first in enumerate(images) for other in images[:i]]))

    assert mean_distance(many) < 0.6 * mean_distance(few)


def test_words_move_colour_and_light() -> None:
    red, blue = picture("a red house"), picture("a blue house")
    assert (red[..., 0] - red[..., 2]).mean() > (blue[..., 0] - blue[..., 2]).mean() + 0.005
    assert picture("a fox at night").mean() < picture("a fox").mean() - 0.1
    assert chroma(picture("a fox, pencil sketch")) < 0.5 * chroma(picture("a fox"))
    assert apart(picture("a fox"), picture("a lighthouse")) > 0.05
    assert apart(picture("zorblax"), picture("quandle")) > 0.02  # unknown words count as well
    assert sharpness(picture("a fox, blurry")) < sharpness(picture("a fox, sharp"))


def test_prompts_that_share_words_look_related() -> None:
    """The more words two prompts share, the more similar their pictures, over several seeds."""
    base = "a red fox in the snow"
    nearer = [base, "a brown fox in the snow", "a red wolf in the snow", "a wolf in a forest", "a city at night, neon"]
    bases = [picture(base, seed=seed) for seed in range(6)]
    means = [
        float(np.mean([apart(first, picture(text, seed=seed)) for seed, first in enumerate(bases)])) for text in nearer
    ]
    assert means[0] == 0
    assert means == sorted(means)
    assert means[2] < 0.3 * means[4]


def test_schedulers_give_related_pictures() -> None:
    few = [picture(scheduler=name, steps=6) for name in ("karras", "exponential", "sgm_uniform", "beta")]
    assert all(apart(first, other) > 0.004 for i, first in enumerate(few) for other in few[:i])
    many = [picture(scheduler=name, steps=60) for name in ("karras", "beta")]
    other_seed = picture(seed=6, steps=60)
    assert apart(*many) < 0.4 * apart(many[0], other_seed)


def test_larger_picture_shows_the_whole_scene() -> None:
    """Width and height set the shape of the canvas, and the scene fills it."""
    small, large = picture(side=24), picture(side=48)
    assert small.shape == (192, 192, 3)
    assert large.shape == (384, 384, 3)
    # Prompt, light and colours are the same, but it is not a crop of the same pixels.
    assert large.mean(axis=(0, 1)) == pytest.approx(small.mean(axis=(0, 1)), abs=0.12)
    assert apart(large[:192, :192], small) > 0.05


def test_negative_prompts_push_away() -> None:
    assert picture(negative="snow, bright").mean() < picture().mean()
    assert picture("a fox at night", negative="night, dark").mean() > picture("a fox at night").mean()
    # Without guidance a negative prompt has no effect.
    assert apart(picture(negative="night", cfg=1.0), picture(cfg=1.0)) == 0


def test_each_checkpoint_has_its_style_and_any_name_works() -> None:
    assert chroma(picture(checkpoint=INK)) < 0.6 * chroma(picture(checkpoint=PAINT))
    names = (PAINT, PHOTO, INK, "v1-5-pruned.safetensors", "sd_xl_base_1.0.safetensors", "dreamshaper_8.safetensors")
    images = [picture(checkpoint=name) for name in names]
    assert min(apart(first, other) for i, first in enumerate(images) for other in images[:i]) > 0.01


def test_decoding_inverts_encoding_less_so_with_distance() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.random((1, 64, 80, 3), dtype=np.float32)
    decoder = models.load_vae(PHOTO)
    samples, residue = vae.encode(pixels, decoder)
    assert samples.shape == (1, 4, 8, 10)
    assert np.allclose(vae.decode(samples, decoder, residue), pixels, atol=1e-5)
    errors = [
        apart(vae.decode(samples + np.float32(shift), decoder, residue), pixels) for shift in (0.0, 0.1, 0.3, 1.0)
    ]
    assert errors == sorted(errors)
    assert errors[-1] == pytest.approx(apart(vae.decode(samples + np.float32(1), decoder), pixels), abs=0.01)


def test_sides_are_cut_evenly_to_a_multiple_of_eight() -> None:
    pixels = np.zeros((1, 21, 19, 3), np.float32)
    pixels[:, 2:18, 1:17] = 1
    samples, _ = vae.encode(pixels, models.load_vae(PHOTO))
    assert samples.shape == (1, 4, 2, 2)
    assert np.allclose(samples[0, 0], 3)


def test_brackets_weigh_words_as_in_comfyui() -> None:
    assert weigh_words("a (fox:1.5) [in] ((snow))") == [
        ("a", 1.0),
        ("fox", 1.5),
        ("in", pytest.approx(1 / 1.1)),
        ("snow", pytest.approx(1.21)),
    ]
    assert weigh_words(r"\(fox\) (open") == [("fox", 1.0), ("open", 1.1)]
    half, whole = pool(encode("(fog:0.5)")), pool(encode("fog"))
    assert half[INDEX["fog"]] == pytest.approx(0.5 * whole[INDEX["fog"]])
    assert not encode("").any()
    assert encode("").shape == (1, 1, len(FEATURES))


@pytest.mark.parametrize("word", sorted(WORDS) + sorted(COLOURS))
def test_every_known_word_changes_features(word: str) -> None:
    features = pool(encode(word))
    named = np.abs(features[: INDEX["hash0"]])
    assert named.any()
    assert np.isfinite(features).all()


@pytest.mark.parametrize("word", [*SUBJECTS[:-1], *BACKDROPS[1:]])
def test_every_subject_and_backdrop_is_visible(word: str) -> None:
    """Compare a picture with one feature at full weight to the same picture without it."""
    features = pool(encode("a hill"))
    without = compose(features, 32, 40, LAYOUTS)
    named = features.copy()
    named[INDEX[word]] += 1
    changed = np.abs(compose(named, 32, 40, LAYOUTS) - without).max(axis=1) > 0.06
    assert changed.mean() > 0.02
    # Half the weight does less: scenes are continuous in the words.
    half = features.copy()
    half[INDEX[word]] += 0.02
    assert float(np.abs(compose(half, 32, 40, LAYOUTS) - without).mean()) < 0.02


@pytest.mark.parametrize(
    "prompt", ["rain", "neon city at night", "a flock of large birds", "tiny far dragon", "vector art"]
)
def test_weather_light_and_number_are_visible(prompt: str) -> None:
    plain, changed = (compose(pool(encode(text)), 32, 40, LAYOUTS) for text in ("a hill", f"a hill, {prompt}"))
    assert np.isfinite(changed).all()
    assert (np.abs(changed - plain).max(axis=1) > 0.06).mean() > 0.02


@given(st.text(max_size=60))
@settings(max_examples=50)
def test_any_text_is_a_picture(prompt: str) -> None:
    pictures = compose(pool(encode(prompt)), 8, 8, LAYOUTS)
    assert np.isfinite(pictures).all()
    assert np.abs(pictures).max() < 5


@given(st.dictionaries(st.sampled_from(FEATURES), st.floats(-1e4, 1e4, width=32), max_size=12))
@settings(max_examples=50)
def test_any_embedding_is_a_picture(values: dict[str, float]) -> None:
    """Weights, averages and LoRAs of strength 100 give embeddings that no words have."""
    features = np.zeros(len(FEATURES), np.float32)
    for name, value in values.items():
        features[INDEX[name]] = value
    assert np.isfinite(compose(features, 8, 8, LAYOUTS)).all()


def test_picture_that_needs_too_much_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a picture of 4104 x 4104 needs more memory .* up to 16 megapixels"):
        latent(side=513)


def test_decoders_differ_in_texture() -> None:
    clean = vae.decode(latent(), models.load_vae("pixel_space"))[0]
    for name in (PAINT, PHOTO, INK, "ae.safetensors"):
        assert 0.0005 < apart(vae.decode(latent(), models.load_vae(name))[0], clean) < 0.1
