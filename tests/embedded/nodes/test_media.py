"""Sounds and films: FFmpeg reads the files that nodes write, and nodes read them back."""

from __future__ import annotations

import json
import math
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


def test_saved_sound_can_be_read_back(context: Any) -> None:
    context.extra_pnginfo = {"workflow": {"nodes": []}}
    ui = run_ui(context, "SaveAudio", audio=tone(440), filename_prefix="audio/ComfyUI")
    assert ui == {"audio": [{"filename": "ComfyUI_00001_.flac", "subfolder": "audio", "type": "output"}]}
    path = context.output_dir / "audio" / "ComfyUI_00001_.flac"
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec.name == "flac"
        tags = container.metadata
    assert json.loads({key.lower(): value for key, value in tags.items()}["prompt"]) == context.prompt
    (context.input_dir / path.name).write_bytes(path.read_bytes())
    loaded = context.run("LoadAudio", audio=path.name)
    assert loaded["sample_rate"] == RATE
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
    with pytest.raises(RuntimeError, match="-m pip install av"):
        run_ui(context, "SaveAudio", audio=tone(440), filename_prefix="x")


def frames(count: int = 6, size: tuple[int, int] = (48, 32)) -> Any:
    """Pictures whose grey rises from frame to frame."""
    greys = np.linspace(0.2, 0.8, count, dtype=np.float32)
    return np.broadcast_to(greys[:, None, None, None], (count, size[1], size[0], 3)).copy()


def test_film_with_sound_can_be_read_back(context: Any) -> None:
    film = context.run("CreateVideo", images=frames(12), fps=12.0, audio=tone(440, 3.0))
    ui = run_ui(context, "SaveVideo", video=film, filename_prefix="video/film", format="auto", codec="auto")
    assert ui["images"] == [{"filename": "film_00001_.mp4", "subfolder": "video", "type": "output"}]
    saved = context.output_dir / "video" / "film_00001_.mp4"
    (context.input_dir / "film.mp4").write_bytes(saved.read_bytes())
    loaded = context.run("LoadVideo", file="film.mp4")
    images, audio, rate, bits, space = context.run("GetVideoComponents", video=loaded)
    assert images.shape == (12, 32, 48, 3)
    assert images.mean(axis=(1, 2, 3)).tolist() == pytest.approx(frames(12).mean(axis=(1, 2, 3)).tolist(), abs=0.03)
    assert (rate, bits, space) == (12.0, 8, "sRGB")
    assert pitch(audio) == pytest.approx(440, abs=4)
    # The sound is cut to the length of the pictures: one second of three (AAC rounds up to its frames).
    assert audio["waveform"].shape[-1] / RATE == pytest.approx(1.0, abs=0.06)


def test_film_of_ten_bits_stays_one(context: Any) -> None:
    film = context.run("CreateVideo", images=frames(), fps=6.0, bit_depth=10)
    run_ui(context, "SaveVideo", video=film, filename_prefix="deep", format="auto", codec="auto")
    loaded = context.run("LoadVideo", file="deep_00001_.mp4 [output]")
    assert context.run("GetVideoComponents", video=loaded)[3] == 10


def test_saved_film_carries_the_graph_of_its_own_job(context: Any) -> None:
    film = context.run("CreateVideo", images=frames(), fps=6.0)
    inputs = {"filename_prefix": "v", "format": "mp4", "codec": "h264"}
    run_ui(context, "SaveVideo", video=film, **inputs)
    (context.input_dir / "a.mp4").write_bytes((context.output_dir / "v_00001_.mp4").read_bytes())
    context.prompt = {"1": {"class_type": "LoadVideo", "inputs": {}}}
    loaded = context.run("LoadVideo", file="a.mp4")
    run_ui(context, "SaveVideo", video=loaded, **inputs)

    with av.open(str(context.output_dir / "v_00002_.mp4")) as container:
        assert json.loads(container.metadata["prompt"]) == context.prompt
        assert sum(1 for _ in container.decode(video=0)) == len(frames())


def test_missing_or_silent_files_are_reported_by_name(context: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"Invalid audio file: \.\./secret.wav"):
        context.run("LoadAudio", audio="../secret.wav")
    with pytest.raises(FileNotFoundError, match=r"Invalid video file: no\.mp4"):
        context.run("LoadVideo", file="no.mp4")
    film = context.run("CreateVideo", images=frames(), fps=6.0)
    run_ui(context, "SaveVideo", video=film, filename_prefix="mute", format="auto", codec="auto")
    with pytest.raises(ValueError, match="No audio stream"):
        context.run("LoadAudio", audio="mute_00001_.mp4 [output]")
