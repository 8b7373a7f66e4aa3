"""Previews and the texts of nodes in the binary frames of an event stream."""

from __future__ import annotations

import json
import struct

from hypothesis import example, given
from hypothesis import strategies as st

from sweeper.comfy.event_stream import read_node_text, read_preview

JPEG = b"\xff\xd8\xff\xe0 a picture"
PNG = b"\x89PNG\r\n\x1a\n a picture"


def with_metadata(metadata, image=JPEG):
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return struct.pack(">II", 4, len(text)) + text + image


def test_preview_with_metadata_names_job_and_node():
    frame = with_metadata({"node_id": "3", "prompt_id": "abc", "image_type": "image/jpeg"})
    assert read_preview(frame) == ("abc", "3", JPEG)


def test_preview_without_metadata_has_only_the_picture():
    assert read_preview(struct.pack(">II", 1, 2) + PNG) == ("", "", PNG)


@given(st.binary(max_size=64))
@example(b"")
@example(struct.pack(">II", 3, 1) + b"3text")
@example(struct.pack(">II", 4, 2**32 - 1) + JPEG)
@example(with_metadata([]))
@example(with_metadata(b"[" * 2000))
@example(with_metadata({"prompt_id": 7}, b"<svg onload=alert(1)>"))
def test_invalid_frame_gives_none_and_no_error(frame):
    preview = read_preview(frame)
    assert preview is None or preview[2] in (frame[8:], JPEG) or frame.endswith(preview[2])


@given(st.text(), st.text(), st.binary())
def test_encoded_preview_is_read_back(prompt_id, node, rest):
    frame = with_metadata({"prompt_id": prompt_id, "node_id": node}, JPEG + rest)
    assert read_preview(frame) == (prompt_id, node, JPEG + rest)


@given(st.binary(max_size=64))
@example(b"\0\0\0\1")
@example(b"\xff\xff\xff\xff1")
@example(b"\0\0\0\3job\0\0\0\0")
def test_text_of_a_node_is_short_and_has_a_node(rest):
    text = read_node_text(struct.pack(">I", 3) + rest, {"job"})
    assert text is None or (text[1] and len(text[2]) <= len(rest))


@given(st.text(min_size=1, max_size=50), st.text())
def test_text_of_a_node_is_read_back(node, text):
    encoded = node.encode()
    frame = struct.pack(">II", 3, len(encoded)) + encoded + text.encode()
    assert read_node_text(frame, {"the job's"}) == ("", node, text)
    named = struct.pack(">II", 3, 3) + b"job" + frame[4:]
    assert read_node_text(named, {"job"}) == ("job", node, text)
    assert read_preview(frame) is None
