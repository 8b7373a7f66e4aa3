"""`LiveView` serves the page of a results folder: start it, show its `url`, stop it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from sweeper.model.experiment import Experiment
from sweeper.reporting.live.app import make_app
from sweeper.reporting.live.check_follower import CheckFunction
from sweeper.reporting.live.follower import Follower
from sweeper.reporting.live.notifier import ChangeNotifier
from sweeper.serving.page_server import PageServer


class LiveView(PageServer):
    """Serves the page of a results folder and keeps it up to date; a context manager.

    Args:
        results: the folder; `experiment`: its plan is shown as long as nothing has run there.
        run: an earlier run instead of the latest.
        host, port, token: see `PageServer`.
        check: compares trials with the baseline, if there is one.

    Raises:
        ResultsError, InputError: there is nothing to show.
        UsageError: the address cannot be used.

    """

    def __init__(
        self,
        results: Path,
        *,
        experiment: Experiment | None = None,
        run: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        check: CheckFunction | None = None,
    ) -> None:
        self._notifier = ChangeNotifier()
        super().__init__(host, port, str(results.resolve()), token)
        try:
            self._follower = Follower(results, self._notifier.notify, run=run, experiment=experiment, check=check)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        self._follower.start()
        app = make_app(self._follower, self._notifier)
        self.start(app, writable=["/marks"], on_loop=self._notifier.bind)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._follower.stop()
        self._notifier.close()
        self.stop()
