"""The program that evaluates one regular expression, in a process of its own.

`regular_expressions.py` runs this file as a script and kills it when it takes too long. It reads a request from its
standard input, as JSON, and writes the result there as JSON. It imports only the standard library and starts in 20 ms.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any


def search(string: str, regex_pattern: str, flags: int) -> bool:
    """Whether the pattern occurs anywhere. An invalid pattern does not."""
    try:
        return re.search(regex_pattern, string, flags) is not None
    except re.error:
        return False


def extract(string: str, regex_pattern: str, flags: int, mode: str, group_index: int) -> str:
    """The first or all matches or groups, one a line. Empty if nothing matches or the pattern is invalid."""
    try:
        matches = list(re.finditer(regex_pattern, string, flags))
    except re.error:
        matches = []
    if mode.endswith(("Match", "Matches")):
        texts = [match.group(0) for match in matches]
    else:
        texts = [match.group(group_index) or "" for match in matches if len(match.groups()) >= group_index]
    return "\n".join(texts[:1] if mode.startswith("First") else texts)


def substitute(string: str, regex_pattern: str, flags: int, replace: str, count: int) -> str:
    """The text with every match, or the first `count`, replaced. Raises re.error for an invalid pattern."""
    return re.sub(regex_pattern, replace, string, count=count, flags=flags)


OPERATIONS: dict[str, Callable[..., bool | str]] = {"search": search, "extract": extract, "substitute": substitute}


def limit_resources(seconds: int, memory: int) -> None:
    """Limit the processor time and the bytes of this process, where the system can, in case nobody kills it."""
    try:
        import resource  # noqa: PLC0415 - Windows does not have it
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def evaluate(request: dict[str, Any]) -> dict[str, Any]:
    """{"value": ...}, or {"error": the name of the exception's class, "message": its text}."""
    try:
        value = OPERATIONS[request["operation"]](**request["inputs"])
    except Exception as problem:  # noqa: BLE001 - the node raises it again
        return {"error": type(problem).__name__, "message": str(problem)}
    if isinstance(value, str) and len(value) > request["max_length"]:
        message = f"the result has {len(value)} characters; at most {request['max_length']} are allowed"
        return {"error": "ValueError", "message": message}
    return {"value": value}


if __name__ == "__main__":
    with os.fdopen(0, "rb") as source, os.fdopen(1, "wb") as target:
        job = json.load(source)
        limit_resources(**job.pop("limits"))
        target.write(json.dumps(evaluate(job)).encode("ascii"))
