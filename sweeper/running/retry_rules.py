"""Decides which failed jobs are worth another submission. Pure.

Worth it are failures that may well not repeat: a lost job, a full memory (once), a broken network connection of the
server itself. A node that failed on its inputs would fail again, so it is not paid for twice.
"""

from __future__ import annotations

import re
from typing import Final

from sweeper.comfy.protocol import JobState
from sweeper.running.work import WorkItem

_OUT_OF_MEMORY: Final = re.compile(r"out ?of ?memory|\boom|oom_?error", re.IGNORECASE)
# Comfy Cloud reports the first five, for its own failures; the others are what Python raises when its network fails.
_TRANSIENT: Final = re.compile(
    r"ModelDownloadError|ImageDownloadError|ServiceError|WebSocketError|DispatcherError|ConnectionError|ConnectionResetError|ConnectionAbortedError|"
    r"BrokenPipeError|ConnectTimeout|ReadTimeout|TimeoutError|RemoteDisconnected|IncompleteRead|ServiceUnavailable"
)


def is_worth_retrying(item: WorkItem, state: JobState) -> bool:
    """Whether to submit the item again after its job ended in this state. Counts the item's memory failures."""
    if is_out_of_memory(state):
        item.memory_failures += 1
        return item.memory_failures == 1
    return is_transient(state)


def is_out_of_memory(state: JobState) -> bool:
    """Whether the job ran out of memory. ComfyUI unloads its models then, so one retry may succeed."""
    text = f"{state.error_type or ''} {state.error or ''}"
    return state.state == "failed" and _OUT_OF_MEMORY.search(text) is not None


def is_transient(state: JobState) -> bool:
    """Whether the job failed for a reason that has nothing to do with its workflow."""
    return state.state == "failed" and _TRANSIENT.search(state.error_type or "") is not None
