"""A work item: one trial to execute in a run, what this run tried so far, and whether another submission is worth it.

A failure that may not happen again is worth it: a lost job, a full memory (once), a broken network connection of the
server itself. A node that failed on its inputs would fail again, so it is not paid for twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sweeper.comfy.protocol import JobState
from sweeper.model.trial import Trial
from sweeper.store.records import FAILED, OPEN_STATES, JobRecord


@dataclass(slots=True)
class WorkItem:
    """One digest to execute, by the first trial that has it; trials with the same digest share the result.

    `job`: the last submission that matters, if any. `submissions`: how many this run made. `never_submitted`: the
    store has no submission of this digest, so it need not be queried.
    """

    trial: Trial
    job: JobRecord | None = None
    submissions: int = 0
    memory_failures: int = 0
    consecutive_failures: int = 0  # failed attempts to reach the target about this item
    first_failure_at: float | None = None  # when they began, by the event loop's clock
    ended_job: str | None = None  # the id of the last job that the target was seen to have ended
    finished: bool = False  # its result rows are final for this run
    never_submitted: bool = False
    known_losses: int = 0  # `Uploads.losses` of the target when the item's files were last uploaded

    @property
    def open_job(self) -> JobRecord | None:
        """The last job, if it may still be on its server."""
        return self.job if self.job is not None and self.job.state in OPEN_STATES else None

    @property
    def pinned_to(self) -> str | None:
        """The target that may still have this item's job, so that no other may execute the item."""
        return self.open_job.target if self.open_job is not None else None

    def reset_failures(self) -> None:
        """Forget earlier failures, because the target was seen to process the job.

        Not if the job had ended before: what fails since then are its files, and no job runs after its end.
        """
        if self.job is None or self.job.id != self.ended_job:
            self.consecutive_failures, self.first_failure_at = 0, None


# PyTorch's allocators for CUDA, HIP and MPS say the first; that for the CPU says "can't allocate memory" on Linux and
# "not enough memory" on Windows. The others are from NumPy, C++, cuDNN, cuBLAS, Intel, Metal, DirectML and errno 12.
_OUT_OF_MEMORY: Final = re.compile(
    r"out[ _]?of[ _]?(\w+[ _])?memory|\boom|oom_?error|memoryerror|bad_alloc|alloc_failed|exceed\w* allowed memory|"
    r"(can(no|['\u2019])t|could ?(not|n['\u2019]t)|unable to|fail(ed)? to) allocate\b.{0,40}?(memory|bytes|[kmg]i?b\b)|"
    r"(not enough|insufficient) ([\w-]+ )?(video )?memory|invalid buffer size|paging file is too small",
    re.IGNORECASE,
)
# Comfy Cloud reports the first five, for its own failures; the others are what Python raises when its network fails.
_TRANSIENT: Final = re.compile(
    r"ModelDownloadError|ImageDownloadError|ServiceError|WebSocketError|DispatcherError|ConnectionError|ConnectionResetError|ConnectionAbortedError|"
    r"BrokenPipeError|ConnectTimeout|ReadTimeout|TimeoutError|RemoteDisconnected|IncompleteRead|ServiceUnavailable"
)


def is_worth_retrying(item: WorkItem, job: JobState | JobRecord) -> bool:
    """Whether to submit the item again after its job ended in this state. Counts the item's memory failures."""
    if is_out_of_memory(job):
        item.memory_failures += 1
        return item.memory_failures == 1
    return may_pass(job)


def is_out_of_memory(job: JobState | JobRecord) -> bool:
    """Whether the job ran out of memory. ComfyUI unloads its models then, so one retry may succeed."""
    text = f"{job.error_type or ''} {job.error or ''}"
    return job.state == FAILED and _OUT_OF_MEMORY.search(text) is not None


def may_pass(job: JobState | JobRecord) -> bool:
    """Whether a job failed for a reason that may pass: out of memory, or nothing to do with its workflow."""
    return is_out_of_memory(job) or (job.state == FAILED and _TRANSIENT.search(job.error_type or "") is not None)
