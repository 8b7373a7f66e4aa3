"""`VoteServer` serves the vote page of a results folder: start it, show its `url`, stop it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sweeper.serving.page_server import PageServer
from sweeper.voting.ballot import Ballot
from sweeper.voting.vote_app import WRITABLE_PATHS, make_vote_app


class VoteServer(PageServer):
    """Serves the page on which people vote; a context manager.

    Args:
        results, between, select: see `Ballot`.
        voter: the name of everybody who votes; None: the page asks for it.
        host, port, token: see `PageServer`.

    Raises:
        UsageError, ResultsError: there is nothing to vote on, or the address cannot be used.

    """

    def __init__(
        self,
        results: Path,
        *,
        between: Sequence[str] = (),
        select: Callable[[], Collection[int] | None] = lambda: None,
        voter: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
    ) -> None:
        super().__init__(host, port, f"vote {results.resolve()}", token)
        # SQLite's connections belong to one thread.
        self._ballot_thread = ThreadPoolExecutor(1, thread_name_prefix="sweeper-vote")
        try:
            self._ballot = self._ballot_thread.submit(lambda: Ballot(results, between=between, select=select)).result()
            self.summary: dict[str, Any] = self._ballot_thread.submit(lambda: self._ballot.summary).result()
        except BaseException:
            self._ballot_thread.shutdown()
            self.close()
            raise
        self._voter = voter

    def __enter__(self) -> Self:
        self.start(make_vote_app(self._ballot, self._ballot_thread, self._voter), writable=WRITABLE_PATHS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._ballot_thread.submit(self._ballot.close)
        self._ballot_thread.shutdown()
