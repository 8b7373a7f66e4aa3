"""`ServerThread`: connections that arrive while it stops."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from email.utils import parsedate_to_datetime

import httpx
from starlette.responses import PlainTextResponse

from sweeper.embedded.hosting import ServerThread, base_url, bind


def test_connection_accepted_while_stopping_is_closed():
    loops, holding, release, stop_requested = [], threading.Event(), threading.Event(), threading.Event()
    listener = bind("127.0.0.1", 0)
    hosting = ServerThread([(listener, PlainTextResponse("here"))], {}, loops.append)
    hosting.start()
    response = httpx.get(base_url(listener))
    assert response.text == "here"
    assert abs(parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()) < 60  # as real servers do
    (loop,) = loops
    tell = loop.call_soon_threadsafe

    def hold():
        holding.set()
        release.wait(10)

    def tell_and_stop(*call):
        handle = tell(*call)
        stop_requested.set()
        return handle

    tell(hold)
    assert holding.wait(10)
    loop.call_soon_threadsafe = tell_and_stop
    stopping = threading.Thread(target=hosting.stop)
    with socket.create_connection(listener.getsockname(), timeout=10) as late:
        stopping.start()
        assert stop_requested.wait(10)
        release.set()  # the next round both accepts and stops
        with contextlib.suppress(ConnectionResetError):
            assert late.recv(1) == b""
    stopping.join(10)
    assert not stopping.is_alive()
