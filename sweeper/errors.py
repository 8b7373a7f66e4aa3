"""Every exception that sweeper raises on purpose, and the record of one mistake in an input file.

The classes are grouped by what a caller can do:

SweeperError
├── InputError             fix the input; nothing was submitted
│   ├── ExperimentError    ... the experiment
│   ├── TemplateError      ... the workflow template or its slots
│   └── UsageError         ... the command line, the environment or an argument
├── ResultsError           the results folder cannot be used: in use, unreadable, or of another version
├── TargetError            the server cannot be reached or refuses our requests
│   ├── UnreachableError   no response, or one that is not from ComfyUI
│   └── RefusedError       key rejected, out of credits, no subscription
├── JobError               one job failed; the row of its trial has the error
│   ├── RejectedError      the server refused the workflow
│   ├── ExecutionError     a node failed
│   └── LostError          the server no longer knows the job
├── TransientError         the request may succeed soon, so the runner retries it
└── ImageError             pictures cannot be read or compared

No class prints or has an exit code; `sweeper.cli` turns errors into text and codes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from sweeper.wording import shorten

# The name of sweeper's distribution, for pip. On PyPI, `sweeper` is an unrelated program.
DISTRIBUTION: Final = "comfy-sweeper"


class SweeperError(Exception):
    """The base class of every exception that sweeper raises on purpose.

    `may_be_accepted`: of a submission. The answer is not the server's own, so the server may have accepted the job.
    """

    may_be_accepted = False


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in an input: its location, and a message that says what to do.

    `file` is the path as the user wrote it, `line` is 1-based (0: unknown), `key` is a path such as
    `sweep.grid.steps[2]`.
    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.key, self.message) if part)


MAX_PROBLEMS: Final = 200  # of one file that sweeper explains, because it shows only some of them
MAX_EXAMPLES: Final = 20  # of one mistake, if an explanation is slow
ALSO_WRONG: Final = "is wrong too"  # the message of those after them
MAX_OF_A_KIND: Final = 3  # that are shown if there are more than one more
_MAX_LINES: Final = 20
_INDEX: Final = re.compile(r"\[\d+\]")
_QUOTED_OR_NUMBER: Final = re.compile(r"'[^']*'|[-+]?\d[\w.,+-]*")


def summarise_problems(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the problems to show: about 20 at most, each a short text.

    Of more than four problems of one kind, the first three stay, and a line that counts the others. A kind has one key
    up to its indexes and one message up to its values. If that leaves too many, a kind has one mapping around its key,
    and if that does, one message under any key.
    """
    shown: list[Problem] = []
    for get_place in (_get_key, lambda key: _get_key(key).rpartition(".")[0], lambda _: ""):
        shown = _summarise_kinds(problems, get_place)
        if len(shown) <= _MAX_LINES:
            break
    if len(shown) > _MAX_LINES:
        shown[_MAX_LINES:] = [Problem("", 0, "", "and more mistakes; mend these first")]
    return tuple(
        replace(problem, key=shorten(problem.key, 200), message=shorten(problem.message, 600)) for problem in shown
    )


def _summarise_kinds(problems: Iterable[Problem], get_place: Callable[[str], str]) -> list[Problem]:
    kinds: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        shape = _QUOTED_OR_NUMBER.sub("", problem.message).partition(";")[0]  # without its values and its advice
        kinds.setdefault((problem.file, get_place(problem.key), shape), []).append(problem)
    shown: list[Problem] = []
    for same in kinds.values():
        others = same[MAX_OF_A_KIND + 1 :]
        shown += same[:MAX_OF_A_KIND] if others else same
        if others:
            fourth = same[MAX_OF_A_KIND]
            shown.append(replace(fourth, message=f"this and {len(others):,} more are the same mistake"))
    return shown


def _get_position(problem: Problem) -> tuple[str, int, str, str]:
    """Return the sort key: `steps[9]` comes before `steps[10]`."""
    key = _INDEX.sub(lambda index: index[0].rjust(12), problem.key)
    return problem.file, problem.line, key, problem.message


def _get_key(key: str) -> str:
    return _INDEX.sub("[]", key)


class InputError(SweeperError):
    """The user's input is wrong. `problems` has every mistake, sorted by file and line; the text only a summary."""

    def __init__(self, problems: Iterable[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = Problem("", 0, "", problems)
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems), key=_get_position))
        super().__init__("\n".join(str(problem) for problem in summarise_problems(self.problems)))


class ExperimentError(InputError):
    """The experiment is wrong."""


class TemplateError(InputError):
    """The workflow template, or its slots, are wrong."""


class UsageError(InputError):
    """The command line, the environment or an argument is wrong."""


class ResultsError(SweeperError):
    """The results folder cannot be used: another run uses it, it is unreadable, or another version wrote it."""


class TargetError(SweeperError):
    """The server cannot be reached or refuses our requests, so that other trials would fail there too."""


class Trouble(Enum):
    """Why a server cannot be used. `sweeper doctor` suggests a next step for each."""

    REFUSED = auto()  # the machine answered that nothing listens at that port
    NO_CONNECTION = auto()  # no connection for another reason, such as an unknown host name
    BAD_CERTIFICATE = auto()  # its TLS certificate is not trusted
    NO_TLS = auto()  # an https:// URL, but the port does not speak TLS
    TIMEOUT = auto()  # no response in time
    DROPPED = auto()  # the connection ended before the response was complete
    NOT_COMFYUI = auto()  # a response that neither ComfyUI nor Comfy Cloud gives
    REDIRECTED = auto()  # a redirect to another address
    SERVER_ERROR = auto()  # the server responded with 429 or 5xx
    TOO_LARGE = auto()  # the response is larger than any honest one, so that another one would be too


class UnreachableError(TargetError):
    """The server at the target's URL does not respond, or not as ComfyUI or Comfy Cloud would."""

    def __init__(self, message: str, *, trouble: Trouble = Trouble.NOT_COMFYUI) -> None:
        super().__init__(message)
        self.trouble = trouble


class RefusedError(TargetError):
    """The server refuses our requests: the key is rejected, the credits are used up, or the subscription is inactive.

    `is_account_problem`: the credits or the subscription, which the owner of the account must settle; other refusals
    concern only one target. `is_final`: it is the server's own refusal, and not that of a gateway which restarts.
    `is_key_problem`: it refuses the key, or this client.
    """

    def __init__(
        self, message: str, *, is_account_problem: bool = False, is_final: bool = False, is_key_problem: bool = False
    ) -> None:
        super().__init__(message)
        self.is_account_problem, self.is_key_problem = is_account_problem, is_key_problem
        self.is_final = is_account_problem or is_final


class JobError(SweeperError):
    """One job failed. `error_type` goes into the table beside the message."""

    @property
    def error_type(self) -> str:
        return type(self).__name__


class RejectedError(JobError):
    """The server refused the workflow. Sending it again cannot help."""


class ExecutionError(JobError):
    """A node failed while it ran."""


class LostError(JobError):
    """The server accepted the job and no longer knows it, for example after a restart."""


# Values of `error_type` in the table for errors that the server does not name itself.
EXECUTION_ERROR: Final = ExecutionError.__name__
LOST_ERROR: Final = LostError.__name__
UNANSWERED_ERROR: Final = "UnansweredError"  # of a submission that the server may still accept; never raised
TIMED_OUT_ERROR: Final = "TimedOutError"  # never raised, as the next
CANCELLED_ERROR: Final = "CancelledError"
GONE_ERROR: Final = "GoneError"  # of a trial that a check leaves out, because its server offers less now; never raised

DEADLY_ERROR: Final = "DeadlyError"  # of a trial during which its server died again and again; never raised

# PyTorch's allocators for CUDA, HIP and MPS say the first; that for the CPU says "can't allocate memory" on Linux and
# "not enough memory" on Windows. The others are from NumPy, C++, cuDNN, cuBLAS, Intel, Metal, DirectML and errno 12.
OUT_OF_MEMORY: Final = re.compile(
    r"out[ _]?of[ _]?(\w+[ _])?memory|\boom|oom_?error|memoryerror|bad_alloc|alloc_failed|exceed\w* allowed memory|"
    r"(can(no|['\u2019])t|could ?(not|n['\u2019]t)|unable to|fail(ed)? to) allocate\b.{0,40}?(memory|bytes|[kmg]i?b\b)|"
    r"(not enough|insufficient) ([\w-]+ )?(video )?memory|invalid buffer size|paging file is too small",
    re.IGNORECASE,
)

# Characters of an error message that the store, the table and the events keep. PyTorch's longest takes about 3,000.
MAX_MESSAGE_LENGTH: Final = 4000


class TransientError(SweeperError):
    """A request failed, but a retry may succeed: a dropped connection, 429, 5xx.

    `retry_after`: the wait in seconds that the server asked for. `sent`: False if the request certainly never reached
    the server.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        sent: bool = True,
        trouble: Trouble = Trouble.SERVER_ERROR,
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.retry_after = retry_after
        self.sent = sent


class ImageError(SweeperError):
    """A picture cannot be read, or two pictures cannot be compared."""
