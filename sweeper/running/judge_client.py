"""Sends pictures and a question to a judge, an OpenAI-compatible API, and reads its answer.

The requests go through the client of targets, so the same rules hold: bounded answers, retries after 429 and 5xx, no
redirect, and no key in a message or log. Source of the format: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, Final

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.protocol import Flow, ServerRequest, ServerResponse, is_redirect, read_error_message
from sweeper.comfy.retry import JUDGE_POLICY
from sweeper.comfy.target import Target, read_key_from_variable, validate_key
from sweeper.errors import ImageError, TransientError, UnreachableError, UsageError
from sweeper.images.metrics.judge_messages import (
    LEFT,
    NO,
    RIGHT,
    TIE,
    UNCLEAR,
    YES,
    build_comparison,
    build_question,
    read_answer,
)
from sweeper.model.experiment import CHAT_PATH, Judge
from sweeper.wording import shorten

_REFUSED_PICTURE: Final = (400, 413, 422)  # too large, or against the rules of the server
_MAX_REFUSED: Final = 3  # pictures without any answer; then the judge refuses the model or the question
_MAX_REASON: Final = 300  # characters of what the server says


class JudgeClient(ComfyClient):
    """The client of one judge; use it as a context manager within one event loop."""

    def __init__(self, judge: Judge) -> None:
        """Raises UsageError if the key is missing. The message continues after the metric's name."""
        super().__init__(Target(judge.name, judge.url, key=read_judge_key(judge)), retry_policy=JUDGE_POLICY)
        self.judge = judge
        self._has_answered = False
        self._refused_pictures = 0

    def _build_headers(self) -> dict[str, str]:
        return {} if self.target.key is None else {"Authorization": f"Bearer {self.target.key}"}

    async def ask(self, question: str, picture: str) -> str:
        """`YES`, `NO` or `UNCLEAR` for a picture, which is a data URL.

        Raises ImageError if the judge refuses this picture, and UnreachableError if asking about others is in vain too.
        """
        return await self._complete(build_question(self.judge.model, question, picture), (YES, NO))

    async def judge_pair(self, question: str, left: str, right: str) -> str:
        """`LEFT`, `RIGHT` or `TIE` for two data URLs; `UNCLEAR` without an answer. Raises the errors of `ask`.

        A model may prefer a side. So it sees the pair in both orders, and if the answers differ, it is a tie.
        """
        words = (LEFT, RIGHT, TIE)
        answer = await self._complete(build_comparison(self.judge.model, question, left, right), words)
        other = await self._complete(build_comparison(self.judge.model, question, right, left), words)
        if UNCLEAR in (answer, other):
            return UNCLEAR
        return answer if {answer, other} == {LEFT, RIGHT} else TIE

    async def _complete(self, body: dict[str, Any], allowed: Collection[str]) -> str:
        try:
            response = await self.run_flow(_request_completion(body))
            message = _read_message(response)
        except TransientError as error:
            raise UnreachableError(str(error)) from None
        except ImageError as error:
            self._refused_pictures += 1
            if self._has_answered or self._refused_pictures < _MAX_REFUSED:
                raise
            raise UnreachableError(str(error)) from None
        self._has_answered = True
        return read_answer(message, allowed)


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


def _read_message(response: ServerResponse) -> Any:
    """The content of the first choice. Raises ImageError for a refused picture, and UnreachableError otherwise."""
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
        return response.json_object()["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise UnreachableError(f"this is no chat completion: {response.excerpt()!r}; check `url`") from None
