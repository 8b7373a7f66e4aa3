"""Reading what clients send besides JSON bodies: multipart forms, and queries with choices, flags and lists.

Everything that does not fit raises `RefusedError` with 400 (413 for a body beyond the limit).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sweeper.embedded.http_helpers import RequestRefusedError, bad_request, read_body, read_integer

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form with one file."""

    texts: list[tuple[str, str]]  # in order; a name may come more than once
    filename: str
    content_type: str
    data: bytes

    def get(self, name: str) -> str | None:
        """The last text field of this name."""
        return next((value for key, value in reversed(self.texts) if key == name), None)


async def read_form(request: Request, field: str) -> Form:
    """The form whose file is called `field`."""
    body = await read_body(request)  # whole, so that a form without a declared length has its limit too

    async def stream_body() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream_body(), max_files=8, max_fields=64).parse()
    except (MultiPartException, ValueError, KeyError) as problem:
        raise RequestRefusedError(bad_request(f"Not a multipart form: {problem}")) from problem
    try:
        file = form.get(field)
        if not isinstance(file, UploadFile):
            raise RequestRefusedError(bad_request(f"The form needs a file field called {field!r}."))
        texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        return Form(texts, file.filename or "", file.content_type or "", await file.read())
    finally:
        await form.close()


def read_choice(request: Request, name: str, choices: tuple[str, ...], default: str) -> str:
    """One of some words out of the query."""
    word = request.query_params.get(name, default)
    if word not in choices:
        raise RequestRefusedError(bad_request(f"{name!r} takes {', '.join(choices)}, not {word!r}."))
    return word


def read_flag(request: Request, name: str, *, default: bool) -> bool:
    """`true` or `false` out of the query."""
    return read_choice(request, name, ("true", "false"), "true" if default else "false") == "true"


def read_bounded(request: Request, name: str, default: int, minimum: int, maximum: int | None = None) -> int:
    """An integer between bounds out of the query."""
    number = read_integer(request, name, default)
    if number is None or number < minimum or (maximum is not None and number > maximum):
        bounds = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
        raise RequestRefusedError(bad_request(f"{name!r} must be {bounds}."))
    return number


def read_words(request: Request, name: str) -> list[str]:
    """Words separated by commas out of the query."""
    return [word for text in request.query_params.getlist(name) for word in text.split(",") if word]
