"""A judge: a vision model behind an OpenAI-compatible API that answers a question about each picture with yes or no."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sweeper.model.expressions import compile_text, has_jinja

DEFAULT_REPEATS: Final = 3
CHAT_PATH: Final = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Judge:
    """One judge of an experiment, which is the metric `name`: the share, 0-1, of yes over `repeats` answers.

    `question` is Jinja2 over the slots of the trial. `url` is the address of the API, without `CHAT_PATH`. `key_env` is
    the environment variable with the key; None for a server without one. `price`: what one question costs, in
    micro-dollars; None if nobody said.
    """

    name: str
    question: str
    url: str
    model: str
    key_env: str | None = None
    repeats: int = DEFAULT_REPEATS
    price: int | None = None

    @property
    def reads_params(self) -> bool:
        """Whether the question differs from trial to trial."""
        return has_jinja(self.question)

    @property
    def version(self) -> str:
        """What a value depends on besides the picture. Values of another version are measured again."""
        return _hash([self.model, self.question, self.repeats])

    def render_question(self, params: Mapping[str, Any]) -> str:
        """The question about a picture of a trial. Raises ExpressionError."""
        return str(compile_text(self.question).evaluate(params)) if self.reads_params else self.question

    def name_answers(self, question: str) -> str:
        """The name under which the store caches the model's answers to a question, which are paid for."""
        return f"answers {_hash([self.model, question])}"  # the space keeps it apart from the names of metrics


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
