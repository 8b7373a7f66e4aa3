"""Sounds for tests, encoded by PyAV."""

from __future__ import annotations

import io

import av
import numpy as np

_CODECS = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame"}
RATE = 44_100


def encode_sound(kind: str, seconds: float = 1.0) -> bytes:
    """A tone that is silent in its second half."""
    samples = (20_000 * np.sin(np.arange(int(RATE * seconds)) / 20)).astype(np.int16)
    samples[len(samples) // 2 :] = 0
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(_CODECS[kind], rate=RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return buffer.getvalue()
