"""Signals that stop a run where the event loop has no handlers of signals, as on Windows."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from sweeper.running.stop_control import INTERRUPT, StopControl, stop_on_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends itself SIGUSR1 in the place of Ctrl-Break")


class WindowsLoop(asyncio.SelectorEventLoop):
    """An event loop without the methods that Windows lacks."""

    def add_signal_handler(self, *_: object) -> None:
        raise NotImplementedError

    def remove_signal_handler(self, _: int) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("number", ["SIGBREAK", "SIGINT"])
def test_a_signal_stops_and_a_second_one_cancels(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = {name: signal.getsignal(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGBREAK")}
    control = StopControl()

    async def run() -> None:
        async with asyncio.timeout(60):
            for is_reached in (lambda: control.reason == INTERRUPT, lambda: control.cancelling):
                changed = asyncio.Event()
                async with stop_on_signals(control):
                    with control.subscribe(changed.set):
                        os.kill(os.getpid(), getattr(signal, number))
                        await changed.wait()
                assert is_reached()

    with asyncio.Runner(loop_factory=WindowsLoop) as runner:
        runner.run(run())
    assert {name: signal.getsignal(getattr(signal, name)) for name in before} == before
