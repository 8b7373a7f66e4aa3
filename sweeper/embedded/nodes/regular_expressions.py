"""Regular-expression nodes (nodes_string.py of ComfyUI 0.3.64), each evaluated in a process that can be killed.

Python's `re` takes exponential time for a pattern such as `^(a+)+$`, holds the interpreter's lock meanwhile, and cannot
be interrupted. Engines with linear time lack look-arounds and back-references, which workflows use. So `re` runs in
`regex_worker.py`, with a limit of time and memory, and ends as soon as the job is cancelled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.strings import MAX_LENGTH

MAX_SECONDS = 10.0
_MAX_MEMORY = 2 << 30  # bytes: a text of 100 MiB, the largest request body, with its copies
_CHECK_SECONDS = 0.05  # how often to look whether the job is cancelled
_WORKER = Path(__file__).with_name("regex_worker.py")
_ERRORS: dict[str, type[Exception]] = {
    "error": re.error,  # as PatternError is called before Python 3.13
    "PatternError": re.error,
    "IndexError": IndexError,
    "MemoryError": MemoryError,
    "OverflowError": OverflowError,
    "ValueError": ValueError,
}


def match(context: Context, *, string: str, regex_pattern: str, **flags: bool) -> NodeOutput:
    return NodeOutput((_evaluate(context, "search", flags, string=string, regex_pattern=regex_pattern),))


def extract(
    context: Context, *, string: str, regex_pattern: str, mode: str, group_index: int, **flags: bool
) -> NodeOutput:
    inputs = {"string": string, "regex_pattern": regex_pattern, "mode": mode, "group_index": group_index}
    return NodeOutput((_evaluate(context, "extract", flags, **inputs),))


def substitute(
    context: Context,
    *,
    string: str,
    regex_pattern: str,
    replace: str,
    case_insensitive: bool = True,
    multiline: bool = False,
    dotall: bool = False,
    count: int = 0,
) -> NodeOutput:
    flags = {"case_insensitive": case_insensitive, "multiline": multiline, "dotall": dotall}
    inputs = {"string": string, "regex_pattern": regex_pattern, "replace": replace, "count": count}
    return NodeOutput((_evaluate(context, "substitute", flags, **inputs),))


def _combine_flags(*, case_insensitive: bool, multiline: bool, dotall: bool) -> int:
    chosen = {re.IGNORECASE: case_insensitive, re.MULTILINE: multiline, re.DOTALL: dotall}
    return sum(int(flag) for flag, is_set in chosen.items() if is_set)


def _evaluate(context: Context, operation: str, flags: dict[str, bool], **inputs: Any) -> Any:
    """Run one operation of `regex_worker.py`, and return its value or raise its error."""
    limits = {"seconds": int(MAX_SECONDS) + 2, "memory": _MAX_MEMORY}
    inputs["flags"] = _combine_flags(**flags)
    request = {"operation": operation, "inputs": inputs, "max_length": MAX_LENGTH, "limits": limits}
    answer = _ask_worker(context, json.dumps(request).encode("ascii"), inputs["regex_pattern"])
    if "error" in answer:
        raise _ERRORS.get(answer["error"], RuntimeError)(answer["message"])
    return answer["value"]


def _ask_worker(context: Context, request: bytes, pattern: str) -> dict[str, Any]:
    """Start a worker, and return its answer.

    Raises RuntimeError after the time limit, and `Interrupted` if the job is cancelled.
    """
    # The request is in a file, because `communicate` does not go on sending an input after a timeout (Python 3.11).
    with tempfile.TemporaryFile() as source:
        source.write(request)
        source.seek(0)
        command = [sys.executable, "-I", "-S", str(_WORKER)]
        with subprocess.Popen(  # noqa: S603 - our own script; the pattern is data on its standard input
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                output = _wait_for_output(context, process, pattern)
            finally:
                process.kill()
    if not output:
        raise MemoryError(f"the pattern {pattern[:200]!r} needs too much memory on this text")
    answer: dict[str, Any] = json.loads(output)
    return answer


def _wait_for_output(context: Context, process: subprocess.Popen[bytes], pattern: str) -> bytes:
    deadline = time.monotonic() + MAX_SECONDS
    while True:
        try:
            return process.communicate(timeout=_CHECK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            context.check()
        if time.monotonic() > deadline:
            raise RuntimeError(  # not a TimeoutError, after which clients try again
                f"the pattern {pattern[:200]!r} took longer than {MAX_SECONDS:.0f} seconds on this text;"
                " simplify it, for example by removing a repetition inside a repetition"
            )
