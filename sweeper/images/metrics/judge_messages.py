"""What a judge is sent and what it answers: pictures as data URLs, a request to an OpenAI-compatible API, its words.

`sweeper.running.judge_client` sends the requests.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from sweeper.images.metrics.measure import read_picture

YES, NO = "yes", "no"
LEFT, RIGHT, TIE = "left", "right", "tie"
UNCLEAR: Final = ""  # an answer that is none of the allowed words
MAX_SIDE: Final = 1024  # pixels; vision models scale larger pictures down, and a request stays below a megabyte

_JPEG_QUALITY: Final = 95
_THOUGHTS: Final = re.compile(r"\s*<think>.*?</think>", re.DOTALL)  # reasoning models may begin with them
_FENCE: Final = re.compile(r"\s*```(?:json)?\s*(\{.*\})\s*```\s*", re.DOTALL)
_FIRST_WORD: Final = re.compile(r"[\s\W_]*(\w+)")


def make_data_url(path: Path) -> str:
    """The first frame of a picture as a JPEG in a data URL, at most `MAX_SIDE` wide and high.

    Raises ImageError if the file cannot be read as a picture.
    """
    image = Image.fromarray(read_picture(path))
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def build_question(model: str, question: str, picture: str) -> dict[str, Any]:
    """The request about one picture, given as a data URL."""
    return _build_request(model, f"{question}\n\nAnswer with one word: yes or no.", [picture])


def build_comparison(model: str, question: str, first: str, second: str) -> dict[str, Any]:
    """The request about two pictures, given as data URLs. The answer is `left` for the first, `right` or `tie`."""
    text = (
        f"You see two pictures. The first is called left, the second right. {question}\n\n"
        "Answer with one word: left, right or tie."
    )
    return _build_request(model, text, [first, second])


def _build_request(model: str, text: str, pictures: Sequence[str]) -> dict[str, Any]:
    # Only these two keys are common to all servers and models: some refuse `temperature`, others `max_tokens`.
    parts = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
    return {"model": model, "messages": [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]}


def read_answer(content: Any, allowed: Collection[str]) -> str:
    """The word of `allowed` with which a message begins, or which is its JSON `{"answer": ...}`; else `UNCLEAR`.

    `content` is a text, or a list of parts with texts. `true` and `false` count as yes and no.
    """
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        return UNCLEAR
    text = _THOUGHTS.sub("", content, count=1).strip()
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced[1]
    if text.startswith("{"):
        try:
            answer = json.loads(text).get("answer")
        except (ValueError, RecursionError):
            return UNCLEAR
        text = (YES if answer else NO) if isinstance(answer, bool) else str(answer)
    word = _FIRST_WORD.match(text)
    found = word[1].casefold() if word is not None else ""
    return found if found in allowed else UNCLEAR
