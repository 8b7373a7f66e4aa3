"""What a judge is sent and what it answers: pictures as data URLs, a request to an OpenAI-compatible API, its words.

`sweeper.running.ask_judges` sends the requests. No text of an answer is kept, because it may repeat a key.

Log-probabilities are those of https://platform.openai.com/docs/api-reference/chat/object: `logprobs.content` has the
tokens of the answer, each with its `top_logprobs`. vLLM answers so (vllm-project/vllm, protocol.py; -9999 means never),
llama.cpp since ggml-org/llama.cpp#10783, and Ollama since 0.12.11 (ollama/ollama#16117). Older ones leave the request
unanswered or answer in the form of the older API (abetlen/llama-cpp-python#1787); that counts as none.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from numpy.typing import NDArray
from PIL import Image

from sweeper.images.decoding import decode_frames, open_bytes, read_bytes
from sweeper.images.media import is_film, iter_film_frames
from sweeper.images.metrics.measure import read_picture
from sweeper.model.experiment import PROBABILITY, SCALE, YES_NO

YES, NO = "yes", "no"
LEFT, RIGHT, TIE = "left", "right", "tie"
UNCLEAR: Final = ""  # an answer that is none of the allowed words
REFUSED: Final = "refused"  # stored in place of an answer
_SAMPLES: Final = (YES, NO, UNCLEAR)  # what an answer without log-probabilities is stored as
MAX_MARK: Final = 5  # of the scale, which begins at 1
MAX_SIDE: Final = 1024  # pixels; vision models scale larger pictures down, and a request stays below a megabyte

_THOUGHTS: Final = re.compile(r"\s*<think>.*?</think>", re.DOTALL)  # reasoning models may begin with them
_FENCE: Final = re.compile(r"\s*```(?:json)?\s*(\{.*\})\s*```\s*", re.DOTALL)
_FIRST_WORD: Final = re.compile(r"[\s\W_]*(\w+)")
_WORDS: Final = re.compile(r"\w+")
_MARK: Final = re.compile(r"[\s*_\"'(\[]*(\d+(?:\.\d+)?)(?!\w|[.,]\d)(?:\s*(?:/|of|out of)\s*(\d+))?")
_SPACE_OF_TOKENS: Final = "\u0120"  # how GPT-2's tokenizer writes a space, if a server passes it on
_MAX_WORDS: Final = 5  # of an answer without a yes or no; a longer one is prose
_MAX_TOKENS: Final = 20  # in which a right answer is written
_MAX_CHANCE: Final = 1.001  # of a token, which a server may have rounded
_NUMBERS: Final = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
]  # fmt: skip


def make_data_url(path: Path) -> str:
    """The first frame of a picture as a JPEG in a data URL, at most `MAX_SIDE` wide and high.

    Raises ImageError if the file cannot be read as a picture.
    """
    return _encode(read_picture(path))


def make_frame_urls(path: Path, count: int) -> list[str]:
    """`count` frames of a film or an animation, evenly spaced, as data URLs; all if it has fewer. Raises ImageError.

    It is decoded twice: not every film says how many frames it has, and they need not fit into the memory.
    """
    total = math.fsum(1 for _ in _iter_frames(path))
    if total == 1 and not is_film(path):
        return [make_data_url(path)]
    wanted = {int((index + 0.5) * total / count) for index in range(count)}
    return [_encode(frame) for index, frame in enumerate(_iter_frames(path)) if index in wanted]


def _iter_frames(path: Path) -> Iterator[NDArray[Any]]:
    if is_film(path):
        return iter_film_frames(path)
    return (frame[:, :, :3] for frame in decode_frames(open_bytes(read_bytes(path), str(path)), str(path)))


def _encode(picture: NDArray[Any]) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=95)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question as a judge gets it: the right answer in lower case, and how it is scored."""

    question: str
    right: str
    score: str

    @property
    def _is_closed(self) -> bool:
        return self.right in (YES, NO)

    @property
    def marks(self) -> tuple[str, ...]:
        """What distinguishes its answers from those to the same question in another form."""
        if self.score == SCALE:
            return (SCALE,)
        return () if self.score == YES_NO and self._is_closed else (self.score, self.right)

    @property
    def unclear(self) -> str:
        """What an answer is that does not count."""
        if self.score == SCALE:
            return f"not a number from 1 to {MAX_MARK}"
        words = "neither yes nor no" if self._is_closed else "empty or too long"
        return f"{words}, or with impossible log-probabilities" if self.score == PROBABILITY else words

    def build(self, model: str, pictures: Sequence[str], *, sources: int = 0, top: int = 0) -> dict[str, Any]:
        """The request about pictures, given as data URLs; the first `sources` of them are what an edit began with.

        `top`: of how many tokens the log-probabilities are asked for.
        """
        count = len(pictures) - sources
        seen = "the result" if count == 1 else f"{count} frames of the film"
        given = "the source picture" if sources == 1 else f"{sources} source pictures"
        start = f"You see {f'{given}, then ' if sources else ''}{seen}. " if len(pictures) > 1 else ""
        if self.score == SCALE:
            end = f"Answer with one number, from 1 (worst) to {MAX_MARK} (best)."
        elif self._is_closed:
            end = "Answer with one word: yes or no."
        else:
            end = "Answer in one word." if " " not in self.right else "Answer in a few words."
        request = _build_request(model, f"{start}{self.question}\n\n{end}", pictures)
        return {**request, "logprobs": True, "top_logprobs": top} if top else request

    def read(self, choice: Mapping[str, Any]) -> str | float:
        """What the store keeps of an answer: a mark, a probability, `YES` or `NO`, or `UNCLEAR`.

        If the right answer is neither yes nor no, `YES` stands for it and `NO` for another short one.
        """
        content = choice["message"].get("content")
        if self.score == SCALE:
            return read_mark(content)
        word = read_answer(content, (YES, NO)) if self._is_closed else self._compare(_read_text(content))
        probability = read_probability(choice, self.right) if self.score == PROBABILITY and word else None
        return word if probability is None else probability

    def _compare(self, text: str) -> str:
        words, wanted = _spell(text).split(), _spell(self.right).split()
        if not words or len(words) > _MAX_WORDS + len(wanted):
            return UNCLEAR
        return YES if words[: len(wanted)] == wanted else NO

    def is_complete(self, answers: Sequence[str | float], repeats: int) -> bool:
        """Whether no more answers are needed: a probability counts for all."""
        has_probability = self.score == PROBABILITY and any(answer not in _SAMPLES for answer in answers)
        return has_probability or len(answers) >= repeats

    def compute_number(self, answers: Sequence[str | float]) -> float | None:
        """The number of a question, from 0 to 1 or a mark; None without a clear answer."""
        numbers = [answer for answer in answers if isinstance(answer, float)]
        if self.score != SCALE and not numbers:
            good = NO if self.right == NO else YES
            numbers = [float(answer == good) for answer in answers if answer in (YES, NO)]
        return fmean(numbers) if numbers else None


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
    word = _FIRST_WORD.match(_read_text(content))
    found = word[1].casefold() if word is not None else ""
    return found if found in allowed else UNCLEAR


def read_mark(content: Any) -> str | float:
    """The mark with which a message begins, such as `4`, `4.5` or `4/5`; `UNCLEAR` if it is not on the scale."""
    found = _MARK.match(_read_text(content))
    is_clear = found and 1 <= float(found[1]) <= MAX_MARK and found[2] in (None, str(MAX_MARK))
    return float(found[1]) if found and is_clear else UNCLEAR


def read_probability(choice: Mapping[str, Any], right: str) -> str | float | None:
    """The probability, 0-1, that a model gives to an answer: the sum over the first tokens that spell it.

    VQAScore (Lin et al. 2024) and GenEval 2's Soft-TIFA (Kamath et al. 2025) do so. If the model writes it in several
    tokens, their product counts too. None without log-probabilities; `UNCLEAR` if they are not logarithms.
    """
    try:
        tokens = [(str(each["token"]), math.exp(each["logprob"]), each["top_logprobs"])
                  for each in choice["logprobs"]["content"]]  # fmt: skip
        first = max((index for index, token in enumerate(tokens) if "</think>" in token[0]), default=-1) + 1
        while not _spell(tokens[first][0]):
            first += 1
        chances = {str(top["token"]): math.exp(top["logprob"]) for top in tokens[first][2]}
    except (KeyError, TypeError, IndexError, OverflowError):
        return None
    answer = tokens[first : first + _MAX_TOKENS]
    if not all(0 <= chance <= _MAX_CHANCE for chance in (*chances.values(), *(chance for _, chance, _ in answer))):
        return UNCLEAR  # also for NaN
    wanted, spelt, product = _spell(right), "", 1.0
    total = math.fsum(chance for text, chance in chances.items() if _spell(text) == wanted)  # 0.0, not 0, if none does
    for text, chance, _ in answer:
        spelt, product = spelt + text, product * chance
        if _spell(spelt) == wanted and text != spelt:
            total += product
            break
    return min(1.0, total) if chances else None


def _spell(text: str) -> str:
    """A token, or several, as the words of an answer are compared."""
    words = _WORDS.findall(text.replace(_SPACE_OF_TOKENS, " ").casefold())
    return " ".join(str(_NUMBERS.index(word)) if word in _NUMBERS else word for word in words)


def _read_text(content: Any) -> str:
    """The text of a message without its thoughts; that of `answer` if it is JSON with this key; "" if there is none."""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        return ""
    text = _THOUGHTS.sub("", content, count=1).strip()
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced[1]
    if text.startswith("{"):
        try:
            answer = json.loads(text).get("answer")
        except (ValueError, RecursionError):
            return ""
        text = (YES if answer else NO) if isinstance(answer, bool) else str(answer)
    return text
