"""Which ends of a job are worth another submission. Pure.

Only what may well go otherwise next time: a lost job, a full memory (once), a broken connection of the server's own.
A node that failed on its inputs will fail again, and is not paid for twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sweeper.comfy.retry import Backoff

if TYPE_CHECKING:
    from sweeper.comfy.protocol import JobState

# The wait before a job is submitted once more; the first retry has one submission behind it.
RESUBMIT_BACKOFF: Final = Backoff(base_wait=0.25, max_wait=30.0)

_OUT_OF_MEMORY: Final = re.compile(r"out ?of ?memory|\boom|oom_?error", re.IGNORECASE)
# COMFY_API.md names the two downloads; the others are what Python raises when the server's own network fails.
_TRANSIENT: Final = re.compile(
    r"ModelDownloadError|ImageDownloadError|ConnectionError|ConnectionResetError|ConnectionAbortedError|"
    r"BrokenPipeError|ConnectTimeout|ReadTimeout|TimeoutError|RemoteDisconnected|IncompleteRead|ServiceUnavailable"
)


def is_out_of_memory(state: JobState) -> bool:
    """Whether the job failed for want of memory: the server then unloads its models, so once more is worth it."""
    told = f"{state.error_type or ''} {state.error or ''}"
    return state.state == "failed" and _OUT_OF_MEMORY.search(told) is not None


def is_transient(state: JobState) -> bool:
    """Whether the job failed of something that has nothing to do with its workflow."""
    return state.state == "failed" and _TRANSIENT.search(state.error_type or "") is not None
