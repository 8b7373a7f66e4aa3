from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from sweeper.images.metrics.judge_messages import MAX_SIDE, make_data_url, read_answer


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("yes", "yes"),
        (" No, there are two.", "no"),
        ("**Yes**", "yes"),
        ('"No"', "no"),
        ('{"answer": "yes", "why": "one fox"}', "yes"),
        ('{"answer": false}', "no"),
        ('```json\n{"answer": "No"}\n```', "no"),
        ("<think>It may be no, or yes.</think>\n\nYes", "yes"),
        ([{"type": "text", "text": "yes"}], "yes"),
        ("Not sure", ""),
        ("There is one, so yes", ""),
        ("yesterday", ""),
        ('{"verdict": "yes"}', ""),
        ('{"answer": 1}', ""),
        ("{yes", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_only_a_first_word_or_a_json_answer_counts(content, answer):
    assert read_answer(content, ("yes", "no")) == answer


def test_large_picture_is_sent_small_enough(tmp_path):
    Image.new("RGBA", (3000, 1500), (10, 200, 30, 255)).save(tmp_path / "a.png")
    head, _, data = make_data_url(tmp_path / "a.png").partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (MAX_SIDE, MAX_SIDE // 2)
        red, green, blue = image.convert("RGB").getpixel((9, 9))
    assert max(abs(red - 10), abs(green - 200), abs(blue - 30)) < 4
