"""Sends pictures and a question to a judge, an OpenAI-compatible API, and reads its answer.

The requests go through the client of targets, so the same rules hold: bounded answers, retries after 429 and 5xx, no
redirect, and no key in a message or log. Source of the format: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any, Final

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.protocol import Flow, ServerRequest, ServerResponse, is_redirect, read_error_message
from sweeper.comfy.retry import JUDGE_POLICY
from sweeper.comfy.target import Target, read_key_from_variable, validate_key
from sweeper.errors import ImageError, TransientError, UnreachableError, UsageError
from sweeper.images.metrics.judge_messages import (
    LEFT,
    RIGHT,
    TIE,
    UNCLEAR,
    Inquiry,
    build_comparison,
    read_answer,
)
from sweeper.model.experiment import CHAT_PATH, PROBABILITY, Judge
from sweeper.wording import shorten

_REFUSED_PICTURE: Final = (400, 413, 422)  # too large, or against the rules of the server
_MAX_REFUSED: Final = 3  # pictures without any answer; then the judge refuses the model or the question
_MAX_REASON: Final = 300  # characters of what the server says
# Tokens whose log-probabilities are asked for: the most that OpenAI and vLLM give by default, then what others give.
_TOPS: Final = (20, 5, 0)
_REFUSED_OPTION: Final = (400, 403, 422, 501)  # OpenAI's reasoning models and some servers refuse log-probabilities


class JudgeClient(ComfyClient):
    """The client of one judge; use it as a context manager within one event loop."""

    def __init__(self, judge: Judge) -> None:
        """Raises UsageError if the key is missing. The message continues after the metric's name."""
        super().__init__(Target(judge.name, judge.url, key=read_judge_key(judge)), retry_policy=JUDGE_POLICY)
        self.judge = judge
        self._tops: tuple[int, ...] = _TOPS  # the first is what the server is known to give, or is asked for first
        self._has_answered = False
        self._refused_pictures = 0

    def _build_headers(self) -> dict[str, str]:
        return {} if self.target.key is None else {"Authorization": f"Bearer {self.target.key}"}

    async def ask(self, inquiry: Inquiry, pictures: Sequence[str], *, sources: int = 0) -> str | float:
        """What `Inquiry.read` makes of the answer about pictures, which are data URLs.

        Raises ImageError if the judge refuses these, and UnreachableError if asking about others is in vain too.
        """
        tops = self._tops if inquiry.score == PROBABILITY else (0,)
        for position, top in enumerate(tops):
            body = inquiry.build(self.judge.model, pictures, sources=sources, top=top)
            choice = await self._complete(body, _REFUSED_OPTION if top else ())
            if choice:
                self._tops = tops[position:] if inquiry.score == PROBABILITY else self._tops
                return inquiry.read(choice)
        raise AssertionError  # the last request has no option to refuse

    async def judge_pair(self, question: str, left: str, right: str) -> str:
        """`LEFT`, `RIGHT` or `TIE` for two data URLs; `UNCLEAR` without an answer. Raises the errors of `ask`.

        A model may prefer a side. So it sees the pair in both orders, and if the answers differ, it is a tie.
        """
        words = (LEFT, RIGHT, TIE)
        bodies = (build_comparison(self.judge.model, question, *pair) for pair in ((left, right), (right, left)))
        choices = [await self._complete(body) for body in bodies]
        answer, other = (read_answer(choice["message"].get("content"), words) for choice in choices)
        if UNCLEAR in (answer, other):
            return UNCLEAR
        return answer if {answer, other} == {LEFT, RIGHT} else TIE

    async def _complete(self, body: dict[str, Any], allowed: Collection[int] = ()) -> dict[str, Any]:
        """The first choice of the answer; empty if the server refuses the request with one of the `allowed` states."""
        try:
            response = await self.run_flow(_request_completion(body))
            if response.status in allowed:
                return {}
            choice = _read_choice(response)
        except TransientError as error:
            raise UnreachableError(str(error)) from None
        except ImageError as error:
            self._refused_pictures += 1
            if self._has_answered or self._refused_pictures < _MAX_REFUSED:
                raise
            raise UnreachableError(str(error)) from None
        self._has_answered = True
        return choice


def read_judge_key(judge: Judge) -> str | None:
    """The key of a judge; None if it needs none. Raises UsageError as the client does."""
    if judge.key_env is None:
        return None
    key = read_key_from_variable(judge.key_env, os.environ)
    if key is None:
        raise UsageError(
            f"needs its key in the environment variable {judge.key_env}, which is not set; set it, or remove the judge"
        )
    return validate_key(key, f"the environment variable {judge.key_env}")


def _request_completion(body: dict[str, Any]) -> Flow[ServerResponse]:
    # Idempotent, because a repeated question costs at most one more answer.
    return (yield ServerRequest("POST", CHAT_PATH, body=body))


def _read_choice(response: ServerResponse) -> dict[str, Any]:
    """The first choice, with a message. Raises ImageError for a refused picture, and UnreachableError otherwise."""
    if is_redirect(response):
        raise UnreachableError(
            f"answers with a redirect (HTTP {response.status}) to {response.headers['location']}, which sweeper does "
            "not follow; write that address as `url` if you trust it"
        )
    if response.status != 200:
        reason = shorten(read_error_message(response), _MAX_REASON)
        kind = ImageError if response.status in _REFUSED_PICTURE else UnreachableError
        raise kind(f"the judge refuses the question (HTTP {response.status}): {reason}")
    try:
        choice = response.json_object()["choices"][0]
        if isinstance(choice, dict) and isinstance(choice["message"], dict):
            return choice
    except (KeyError, IndexError, TypeError):
        pass
    raise UnreachableError(f"this is no chat completion: {response.excerpt()!r}; check `url`")
