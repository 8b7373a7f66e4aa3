"""Every exception that sweeper raises on purpose, and the record of one mistake in an input file.

What a caller can do about it decides where a class stands:

SweeperError
├── InputError             fix what you wrote; nothing was submitted
│   ├── ExperimentError    ... in the experiment
│   ├── TemplateError      ... in the workflow template or its slots
│   └── UsageError         ... on the command line, in the environment, in an argument
├── ResultsError           the results folder cannot be used: held, unreadable, or of a newer sweeper
├── TargetError            the server cannot be reached or refuses us
│   ├── UnreachableError   no answer, or an answer that is no ComfyUI's
│   └── RefusedError       key rejected, out of credits, no subscription
├── JobError               the server took one job and it came to nothing; ends in that trial's row
│   ├── RejectedError      the server's validation said no
│   ├── ExecutionError     a node failed
│   └── LostError          the server no longer knows it
├── TransientError         this request may well succeed in a moment: the runner tries again
└── ImageError             pictures that cannot be read or compared

No class knows an exit code or prints: `sweeper.cli` turns these into text and codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class SweeperError(Exception):
    """Base of everything sweeper raises on purpose."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in an input: where it is, and what to do about it.

    `file` is as the user named it, `line` 1-based (0: unknown), `key` a dotted path such as `sweep.grid.steps[2]`.
    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.key, self.message) if part)


class InputError(SweeperError):
    """What the user wrote is wrong. `problems` holds every mistake found, in file order."""

    def __init__(self, problems: Iterable[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = Problem("", 0, "", problems)
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ExperimentError(InputError):
    """The experiment is wrong."""


class TemplateError(InputError):
    """The workflow template, or its slots, are wrong."""


class UsageError(InputError):
    """The command line, the environment or an argument is wrong."""


class ResultsError(SweeperError):
    """The results folder cannot be used: another run holds it, it cannot be read, a newer sweeper wrote it."""


class TargetError(SweeperError):
    """The server cannot be reached or refuses us; no later trial would fare better."""


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


class UnreachableError(TargetError):
    """The server at the target's URL does not respond, or not as ComfyUI or Comfy Cloud would."""

    def __init__(self, message: str, *, trouble: Trouble = Trouble.NOT_COMFYUI) -> None:
        super().__init__(message)
        self.trouble = trouble


class RefusedError(TargetError):
    """The server knows us and says no: key rejected, credits used up, subscription inactive. `account`: it is one of
    the last two, which its owner has to decide about; the others may be a gateway's word, and are one target's affair.
    """

    def __init__(self, message: str, *, is_account_problem: bool = False) -> None:
        super().__init__(message)
        self.is_account_problem = is_account_problem


class JobError(SweeperError):
    """One job came to nothing. `error_type` goes into the table beside the message."""

    @property
    def error_type(self) -> str:
        return type(self).__name__


class RejectedError(JobError):
    """The server's validation refused the workflow; sending it again cannot help."""


class ExecutionError(JobError):
    """A node failed while it ran."""


class LostError(JobError):
    """The server took the job and no longer knows it, as after a restart."""


# The words of the table's `error_type` for what the server has no word of its own for.
EXECUTION_ERROR: Final = ExecutionError.__name__
LOST_ERROR: Final = LostError.__name__
TIMED_OUT_ERROR: Final = "TimedOutError"  # this and the next are ends of a job that nobody has to be told by raising
CANCELLED_ERROR: Final = "CancelledError"


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
