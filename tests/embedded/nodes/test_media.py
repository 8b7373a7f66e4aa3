"""Sounds and films: FFmpeg reads the files that nodes write, and nodes read them back."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import numpy as np
import pytest

from sweeper.embedded.nodes import NODE_CLASSES

av = pytest.importorskip("av")

RATE = 44100


def tone(frequency: float, seconds: float = 0.5, *, rate: int = RATE, channels: int = 2) -> dict[str, Any]:
    wave = 0.5 * np.sin(np.arange(round(seconds * rate)) * (2 * math.pi * frequency / rate))
    return {"waveform": np.repeat(wave[None, None], channels, axis=1).astype(np.float32), "sample_rate": rate}


def pitch(audio: dict[str, Any]) -> float:
    """The strongest frequency of the first channel, in Hz."""
    wave = audio["waveform"][0, 0]
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * audio["sample_rate"] / len(wave))


def run_ui(context: Any, kind: str, **inputs: Any) -> Any:
    return NODE_CLASSES[kind].run(context, **inputs).ui


SAVERS = {
    "SaveAudio": ({}, "flac", "flac", 44100),
    "SaveAudioMP3": ({"quality": "128k"}, "mp3", "mp3float", 44100),
    "SaveAudioOpus": ({"quality": "96k"}, "opus", "opus", 48000),
}


@pytest.mark.parametrize("kind", SAVERS)
def test_saved_sound_can_be_read_back(context: Any, kind: str) -> None:
    options, suffix, codec, rate = SAVERS[kind]
    context.extra_pnginfo = {"workflow": {"nodes": []}}
    ui = run_ui(context, kind, audio=tone(440), filename_prefix="audio/ComfyUI", **options)
    assert ui == {"audio": [{"filename": f"ComfyUI_00001_.{suffix}", "subfolder": "audio", "type": "output"}]}
    path = context.output_dir / "audio" / f"ComfyUI_00001_.{suffix}"
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec.name in {codec, codec.removesuffix("float")}
        tags = {**container.metadata, **container.streams.audio[0].metadata}  # opus keeps them on the stream
    assert json.loads({key.lower(): value for key, value in tags.items()}["prompt"]) == context.prompt
    (context.input_dir / path.name).write_bytes(path.read_bytes())
    loaded = context.run("LoadAudio", audio=path.name)
    assert loaded["sample_rate"] == rate
    assert loaded["waveform"].shape[:2] == (1, 2)
    assert pitch(loaded) == pytest.approx(440, abs=4)


def test_flac_keeps_every_sample_to_its_precision(context: Any) -> None:
    sound = tone(330)
    name = run_ui(context, "SaveAudio", audio=sound, filename_prefix="x")["audio"][0]["filename"]
    back = context.run("LoadAudio", audio=f"{name} [output]")
    assert np.abs(back["waveform"] - sound["waveform"]).max() < 2**-14


def test_a_preview_is_temporary(context: Any) -> None:
    (file,) = run_ui(context, "PreviewAudio", audio=tone(440))["audio"]
    assert file["type"] == "temp"
    assert (context.temp_dir / file["filename"]).is_file()


def test_missing_pyav_is_reported_with_the_package_to_install(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for kind, inputs in {
        "SaveAudio": {"audio": tone(440), "filename_prefix": "x"},
        "SaveWEBM": {"images": np.zeros((1, 16, 16, 3)), "filename_prefix": "x", "codec": "vp9", "fps": 8.0, "crf": 32},
    }.items():
        with pytest.raises(RuntimeError, match=r"pip install 'comfy-sweeper\[media\]'"):
            NODE_CLASSES[kind].run(context, **inputs)


def frames(count: int = 6, size: tuple[int, int] = (48, 32)) -> Any:
    """Pictures whose grey rises from frame to frame."""
    greys = np.linspace(0.2, 0.8, count, dtype=np.float32)
    return np.broadcast_to(greys[:, None, None, None], (count, size[1], size[0], 3)).copy()


@pytest.mark.parametrize(("codec", "name"), [("vp9", "vp9"), ("av1", "av1")])
def test_webm_has_the_requested_codec_and_frames(context: Any, codec: str, name: str) -> None:
    policy = getattr(os, "sched_getscheduler", int)
    before = policy(0)
    images = frames(size=(96, 64))  # AV1 needs at least 64 pixels
    ui = run_ui(context, "SaveWEBM", images=images, filename_prefix="w", codec=codec, fps=8.0, crf=20.0)
    assert ui == {"images": [{"filename": "w_00001_.webm", "subfolder": "", "type": "output"}], "animated": [True]}
    assert policy(0) == before  # this encoder makes its caller a real-time thread
    with av.open(str(context.output_dir / "w_00001_.webm")) as container:
        stream = container.streams.video[0]
        assert name in stream.codec.name or name in stream.codec.long_name.lower()
        assert (stream.width, stream.height, stream.average_rate) == (96, 64, 8)
        assert json.loads(container.metadata["PROMPT"]) == context.prompt
        greys = [float(frame.to_ndarray(format="rgb24").mean()) / 255 for frame in container.decode(video=0)]
    assert greys == pytest.approx(images.mean(axis=(1, 2, 3)).tolist(), abs=0.03)


def test_film_with_sound_can_be_read_back(context: Any) -> None:
    film = context.run("CreateVideo", images=frames(12), fps=12.0, audio=tone(440, 3.0))
    ui = run_ui(context, "SaveVideo", video=film, filename_prefix="video/%width%", format="auto", codec="auto")
    assert ui["images"] == [{"filename": "48_00001_.mp4", "subfolder": "video", "type": "output"}]
    saved = context.output_dir / "video" / "48_00001_.mp4"
    (context.input_dir / "film.mp4").write_bytes(saved.read_bytes())
    loaded = context.run("LoadVideo", file="film.mp4")
    images, audio, rate = context.run("GetVideoComponents", video=loaded)
    assert images.shape == (12, 32, 48, 3)
    assert images.mean(axis=(1, 2, 3)).tolist() == pytest.approx(frames(12).mean(axis=(1, 2, 3)).tolist(), abs=0.03)
    assert rate == 12.0
    assert pitch(audio) == pytest.approx(440, abs=4)
    # The sound is cut to the length of the pictures: one second of three (AAC rounds up to its frames).
    assert audio["waveform"].shape[-1] / RATE == pytest.approx(1.0, abs=0.06)


def test_mp4_is_copied_with_the_graph_added(context: Any) -> None:
    film = context.run("CreateVideo", images=frames(), fps=6.0)
    inputs = {"filename_prefix": "v", "format": "mp4", "codec": "h264"}
    run_ui(context, "SaveVideo", video=film, **inputs)
    (context.input_dir / "a.mp4").write_bytes((context.output_dir / "v_00001_.mp4").read_bytes())
    context.prompt = {"1": {"class_type": "LoadVideo", "inputs": {}}}
    loaded = context.run("LoadVideo", file="a.mp4")
    run_ui(context, "SaveVideo", video=loaded, **inputs)

    def packets(name: str) -> tuple[list[bytes], Any]:
        with av.open(str(context.output_dir / name)) as container:
            prompt = json.loads(container.metadata["prompt"])
            return [bytes(packet) for packet in container.demux(video=0)], prompt

    first, second = packets("v_00001_.mp4"), packets("v_00002_.mp4")
    assert first[0] == second[0]
    assert second[1] == context.prompt


def test_missing_or_silent_files_are_reported_by_name(context: Any) -> None:
    check = NODE_CLASSES["LoadAudio"].check
    assert check is not None
    assert check(context, audio="../secret.wav") == "Invalid audio file: ../secret.wav"
    assert NODE_CLASSES["LoadVideo"].check(context, file="no.mp4") == "Invalid video file: no.mp4"  # type: ignore[misc]
    film = context.run("CreateVideo", images=frames(), fps=6.0)
    run_ui(context, "SaveVideo", video=film, filename_prefix="mute", format="auto", codec="auto")
    with pytest.raises(ValueError, match="No audio stream"):
        context.run("LoadAudio", audio="mute_00001_.mp4 [output]")


def test_arithmetic_on_sounds(context: Any) -> None:
    low, high = tone(220), tone(880, 0.5, rate=22050, channels=1)
    joined = context.run("AudioConcat", audio1=low, audio2=high, direction="before")
    assert joined["sample_rate"] == RATE
    assert joined["waveform"].shape == (1, 2, RATE)
    first = context.run("TrimAudioDuration", audio=joined, start_index=0.02, duration=0.2)
    assert pitch(first) == pytest.approx(880, abs=6)
    last = context.run("TrimAudioDuration", audio=joined, start_index=-0.4, duration=9.0)
    assert pitch(last) == pytest.approx(220, abs=4)
    left, right = context.run("SplitAudioChannels", audio=joined)
    assert np.array_equal(left["waveform"], right["waveform"])
    with pytest.raises(ValueError, match="only one channel"):
        context.run("SplitAudioChannels", audio=high)
    with pytest.raises(ValueError, match="Start time"):
        context.run("TrimAudioDuration", audio=low, start_index=0.1, duration=0.0)
    halved = context.run("AudioAdjustVolume", audio=low, volume=-20)
    assert halved["waveform"] == pytest.approx(low["waveform"] / 10, abs=1e-6)
    louder = context.run("AudioMerge", audio1=low, audio2=low, merge_method="add")
    assert np.abs(louder["waveform"]).max() <= 1
    none = context.run("AudioMerge", audio1=low, audio2=low, merge_method="subtract")
    assert not none["waveform"].any()
    assert context.run("EmptyAudio", duration=0.5, sample_rate=8000, channels=1)["waveform"].shape == (1, 1, 4000)


def compose(context: Any, tags: str, *, seed: int = 1, family: str = "EmptyLatentAudio") -> dict[str, Any]:
    model, clip, vae = context.run("CheckpointLoaderSimple", ckpt_name="ace_step_v1_3.5b.safetensors")
    positive = context.run("TextEncodeAceStepAudio", clip=clip, tags=tags, lyrics="", lyrics_strength=1.0)
    negative = context.run("ConditioningZeroOut", conditioning=positive)
    latent = context.run(family, seconds=2.0, batch_size=1)
    inputs = {"seed": seed, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    sampled = context.run("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **inputs)
    return context.run("VAEDecodeAudio", samples=sampled, vae=vae)


@pytest.mark.parametrize(
    ("family", "samples"), [("EmptyLatentAudio", 44 * 2048), ("EmptyAceStepLatentAudio", 21 * 512 * 8)]
)
def test_latent_plays_for_its_duration(context: Any, family: str, samples: int) -> None:
    sound = compose(context, "a slow piano", family=family)
    assert sound["sample_rate"] == RATE
    assert sound["waveform"].shape == (1, 2, samples)
    assert 0.01 < float(sound["waveform"].std()) < 0.5
    assert float(np.abs(sound["waveform"]).max()) <= 1


def test_prompt_and_seed_change_the_sound(context: Any) -> None:
    one = compose(context, "a slow piano")["waveform"]
    assert np.array_equal(one, compose(context, "a slow piano")["waveform"])
    for other in (
        compose(context, "a bright forest")["waveform"],
        compose(context, "a slow piano", seed=2)["waveform"],
    ):
        assert float(np.abs(one - other).mean()) > 0.1 * float(np.abs(one).mean())


def test_encoded_and_decoded_sound_keeps_its_note(context: Any) -> None:
    vae = context.run("VAELoader", vae_name="pixel_space")
    for note in (220.0, 440.0):
        latent = context.run("VAEEncodeAudio", audio=tone(note, 2.0), vae=vae)
        assert pitch(context.run("VAEDecodeAudio", samples=latent, vae=vae)) == pytest.approx(note, abs=3)


def test_sound_changes_a_video(context: Any) -> None:
    model, clip, vae = context.run("CheckpointLoaderSimple", ckpt_name="wan.safetensors")
    sides = {name: context.run("CLIPTextEncode", clip=clip, text="a fox") for name in ("positive", "negative")}
    encoder = context.run("AudioEncoderLoader", audio_encoder_name="wav2vec2.safetensors")
    drawn = []
    for sound in (tone(220), tone(880, 0.5)):
        heard = context.run("AudioEncoderEncode", audio_encoder=encoder, audio=sound)
        size = {"width": 128, "height": 128, "length": 5, "batch_size": 1}
        positive, negative, latent = context.run(
            "WanSoundImageToVideo", vae=vae, audio_encoder_output=heard, **sides, **size
        )
        inputs = {"seed": 1, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        conditioned = {"positive": positive, "negative": negative, "latent_image": latent}
        drawn.append(context.run("KSampler", model=model, **conditioned, **inputs)["samples"])
    assert drawn[0].shape == (1, 4, 2, 16, 16)
    assert float(np.abs(drawn[0] - drawn[1]).mean()) > 0.02
