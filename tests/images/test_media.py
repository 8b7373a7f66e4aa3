"""Films frame by frame, sounds sample by sample, texts by what they share: made here, and changed on purpose."""

from __future__ import annotations

import math
import wave
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from sweeper.errors import ImageError
from sweeper.images.compare import compare_files, compare_images, iter_frames, pixel_hash
from sweeper.images.media import Sound, iter_film_frames, measure_sound, read_film_rate, read_sound, text_ratio
from sweeper.model import picture_size
from sweeper.regression.match_files import match_files, parse_threshold
from tests.images import image_cases

av = pytest.importorskip("av", reason="reads films and sounds")

FRAMES = [image_cases.gradient(f"film {at}", 48, 64, 3) for at in range(5)]
RATE = 8000
TONE = 0.5 * np.sin(np.arange(RATE // 4) / 9.0)[:, None] * [1.0, 0.5]


def film(path, frames, *, rate=8, codec="ffv1", pixels="bgr0", sound=None):
    """Lossless by default; with `sound`, (samples, 2), a second stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate), width=64, height=48, pix_fmt=pixels)
        heard = container.add_stream("pcm_s16le", rate=RATE, layout="stereo") if sound is not None else None
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        if heard is not None:
            container.mux(heard.encode(audio(sound)))
            container.mux(heard.encode(None))
    return path


def audio(samples):
    levels = np.rint(samples * 32767).astype("<i2").reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(levels, format="s16", layout="stereo")
    frame.sample_rate = RATE
    return frame


def sound(path, samples, codec):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="stereo")
        container.mux(stream.encode(audio(samples)))
        container.mux(stream.encode(None))
    return path


def test_list_of_other_files_in_place_of_a_film_is_refused(tmp_path):
    film(tmp_path / "secret.mkv", FRAMES)
    tmp_path.joinpath("list.mp4").write_text("ffconcat version 1.0\nfile secret.mkv\n")
    for read in (read_film_rate, read_sound, pixel_hash, lambda path: list(iter_film_frames(path))):
        with pytest.raises(ImageError):
            read(tmp_path / "list.mp4")


def wav(path, samples, *, width=2, rate=RATE):
    levels = np.rint(samples * (2 ** (8 * width - 1) - 1))
    data = (levels + 128).astype(np.uint8) if width == 1 else levels.astype(f"<i{width}")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data.tobytes())
    return path


# --- films


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_film_is_compared_by_its_frames(tmp_path, suffix):
    a = film(tmp_path / f"a.{suffix}", FRAMES)
    changed = [frame.copy() for frame in FRAMES]
    changed[3][10:20, 10:20] ^= 0xFF
    b = film(tmp_path / f"b.{suffix}", changed)
    for found, frame in zip(iter_film_frames(a), FRAMES, strict=True):
        np.testing.assert_array_equal(found, frame)
    found = compare_files(a, b)
    assert found.state == "measured"
    assert found.metrics == compare_images(FRAMES[3], changed[3])  # the worst frame
    assert compare_images(a, b) == found.metrics
    assert compare_files(a, a).state == "same_bytes"


def test_film_in_two_containers_has_the_same_pixels_and_hash(tmp_path):
    a, b = film(tmp_path / "a.mkv", FRAMES), film(tmp_path / "b.avi", FRAMES)
    assert compare_files(a, b).state == "same_pixels"
    assert pixel_hash(a) == pixel_hash(b) != pixel_hash(film(tmp_path / "c.mkv", FRAMES[1:]))


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"), [("mp4", "mpeg4", "yuv420p"), ("webm", "libvpx-vp9", "yuv420p")]
)
def test_films_of_servers_are_read(tmp_path, suffix, codec, pixels):
    a = film(tmp_path / f"a.{suffix}", FRAMES, codec=codec, pixels=pixels)
    b = film(tmp_path / f"b.{suffix}", [255 - frame for frame in FRAMES], codec=codec, pixels=pixels)
    assert len(list(iter_film_frames(a))) == 5
    found = compare_files(a, b, metrics=["mae", "ssim"])
    assert found.state == "measured"
    assert found.metrics["mae"] > 20


def test_films_that_cannot_be_compared_have_a_state(tmp_path):
    a = film(tmp_path / "a.mkv", FRAMES)
    short, slow = film(tmp_path / "short.mkv", FRAMES[:3]), film(tmp_path / "slow.mkv", FRAMES, rate=4)
    for one, other, counts in ((a, short, (5, 3)), (short, a, (3, 5))):
        found = compare_files(one, other, metrics=["mae"])
        assert (found.state, found.metrics) == ("frames", {})
        assert found.reason == f"{one} has {counts[0]} frames, {other} has {counts[1]}"
    found = compare_files(a, slow, metrics=["mae"])
    assert (found.state, found.reason) == ("rate", f"{a} has 8 frames per second, {slow} has 4")
    told = match_files(a, short, {"mae": parse_threshold("<= 255")})
    assert (told.tier, told.reason) == ("frames", "frames: the accepted picture has 5 frames, today's has 3")


def test_broken_film_is_an_image_error(tmp_path):
    a = film(tmp_path / "a.mkv", FRAMES)
    bad = tmp_path / "bad.mkv"
    for content in (b"", b"no film", a.read_bytes()[:300]):
        bad.write_bytes(content)
        with pytest.raises(ImageError, match=r"bad\.mkv"):
            compare_files(a, bad, metrics=["mae"])


def test_film_with_another_sound_is_not_the_same(tmp_path):
    a, b = film(tmp_path / "a.mkv", FRAMES, sound=TONE), film(tmp_path / "b.mkv", FRAMES, sound=TONE * 0.9)
    mute = film(tmp_path / "c.mkv", FRAMES)
    assert compare_files(a, b).state == "same_pixels"
    found = match_files(a, b, {})
    assert (found.tier, found.passes) == ("beyond", False)
    assert found.reason.startswith("sound differs: by 0.05")
    assert match_files(a, b, {"sound_snr": parse_threshold(">= 19")}).tier == "within"  # a tenth less: 20 dB
    assert (
        match_files(a, b, {"ssim": parse_threshold(">= 0.9")}).tier == "beyond"
    )  # a bound of pictures says nothing of sound
    assert match_files(a, mute, {}).reason == "today's film has no sound"
    assert match_files(a, film(tmp_path / "d.avi", FRAMES, sound=TONE), {}).tier == "pixels"


# --- sounds


@pytest.mark.parametrize("width", [1, 2, 4])
def test_wav_samples_are_from_minus_one_to_one(tmp_path, width):
    found = read_sound(wav(tmp_path / "a.wav", TONE, width=width))
    assert found.rate == RATE
    np.testing.assert_allclose(found.samples, TONE, atol=1.1 / 2 ** (8 * width - 1))


@pytest.mark.parametrize(("suffix", "codec", "apart"), [("flac", "flac", 1e-4), ("mp3", "libmp3lame", 0.1)])
def test_sounds_of_every_format_are_read(tmp_path, suffix, codec, apart):
    found = read_sound(sound(tmp_path / f"a.{suffix}", TONE, codec))
    assert found.rate == RATE
    assert found.samples.shape[1] == 2
    near = min(np.abs(found.samples[at : at + len(TONE) - 500] - TONE[:-500]).mean() for at in range(500))
    assert near < apart


def test_changed_sound_has_its_own_thresholds(tmp_path):
    a, b = wav(tmp_path / "a.wav", TONE), wav(tmp_path / "b.wav", TONE * 0.99)
    found = match_files(a, b, {"ssim": parse_threshold(">= 0.5")})
    assert found.tier == "beyond"
    assert found.metrics["sound_snr"] == pytest.approx(40, abs=0.2)
    assert match_files(a, b, {"sound_snr": parse_threshold(">= 39")}).tier == "within"
    assert match_files(a, b, {"sound_max": parse_threshold("<= 0.001")}).reason.startswith("sound_max 0.005")
    assert match_files(a, wav(tmp_path / "c.wav", TONE[:-9]), {}).reason.startswith(
        "length: the accepted sound has 2000"
    )
    assert match_files(a, wav(tmp_path / "d.wav", TONE, rate=9000), {}).reason.startswith("rate: ")
    assert match_files(a, wav(tmp_path / "e.wav", TONE[:, :1]), {}).reason.startswith("channels: ")
    assert [match_files(a, tmp_path / f"{name}.wav", {}).tier for name in "cde"] == ["length", "rate", "channels"]
    (tmp_path / "f.wav").write_bytes(b"RIFFnothing")
    with pytest.raises(ImageError, match=r"f\.wav: cannot be read as a sound"):
        match_files(a, tmp_path / "f.wav", {})


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1.0))
@settings(max_examples=40)
def test_measures_of_sounds_follow_their_definition(seed, share):
    random = np.random.default_rng(seed)
    one, off = random.uniform(-0.5, 0.5, (50, 2)), random.uniform(-share, share, (50, 2))
    found = measure_sound(Sound(1, one), Sound(1, one + off))
    assert found["sound_mae"] <= found["sound_max"] <= share + 1e-12
    power = (one**2).sum() / ((one + off - one) ** 2).sum()
    assert found["sound_snr"] == pytest.approx(10 * math.log10(power))
    assert measure_sound(Sound(1, one), Sound(1, one.copy()))["sound_snr"] == math.inf


# --- texts

words = st.lists(st.sampled_from(["a ", "fox ", "runs\n", "över ", "it. "]), max_size=60).map("".join)


@given(words, words)
def test_text_ratio_is_symmetric_and_one_only_for_equal_texts(a, b):
    assert text_ratio(a, b) == text_ratio(b, a)
    assert 0 <= text_ratio(a, b) <= 1
    assert (text_ratio(a, b) == 1) == (a == b)


@pytest.mark.parametrize("length", [100, 3_000, 30_000])
def test_text_ratio_of_a_longer_text(length):
    numbers = [f"{number:04}\n" for number in range(length // 5)]
    longer = numbers + [f"x{number:03}\n" for number in range(length // 50)]
    assert text_ratio("".join(numbers), "".join(longer)) == pytest.approx(20 / 21, abs=0.03)


def test_text_needs_equal_lines_or_meets_its_threshold(tmp_path):
    a, b, c = (tmp_path / f"{name}.txt" for name in "abc")
    a.write_bytes(b"a red fox\nin snow\n")
    b.write_bytes(b"a red fox\r\nin snow")
    c.write_bytes(b"a red fox\nin rain\n")
    assert match_files(a, b, {}).tier == "pixels"
    assert match_files(a, c, {"ssim": parse_threshold(">= 0.1")}).reason == "text differs; 83.3% of it is the same"
    assert match_files(a, c, {"text_ratio": parse_threshold(">= 0.8")}).tier == "within"
    assert match_files(a, c, {"text_ratio": parse_threshold(">= 0.9")}).tier == "beyond"


def test_films_without_pyav_are_the_same_only_by_bytes(tmp_path, monkeypatch):
    a, b = film(tmp_path / "a.mkv", FRAMES), film(tmp_path / "b.mkv", FRAMES[::-1])
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert match_files(a, a, {}).tier == "bytes"
    with pytest.raises(ImageError, match="-m pip install av"):
        match_files(a, b, {})
    assert match_files(wav(tmp_path / "a.wav", TONE), wav(tmp_path / "b.wav", TONE), {}).tier == "bytes"
    with pytest.raises(ImageError, match="-m pip install av"):
        match_files(tmp_path / "a.wav", wav(tmp_path / "c.wav", TONE * 0.5), {})


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mkv"])
def test_frames_are_bounded_together(tmp_path, monkeypatch, name):
    path = tmp_path / name
    if path.suffix == ".mkv":
        film(path, FRAMES)
    else:
        first, *rest = map(Image.fromarray, FRAMES)
        first.save(path, save_all=True, append_images=rest)
    monkeypatch.setattr(picture_size, "MAX_FRAME_PIXELS", 4 * 64 * 48)
    with pytest.raises(ImageError, match=r"more than 12,288 pixels in all frames together"):
        list(iter_frames(path))
    monkeypatch.setattr(picture_size, "MAX_FRAME_PIXELS", 5 * 64 * 48)
    assert len(list(iter_frames(path))) == 5
