"""Hosting: what happens to connections that come while it ends."""

from __future__ import annotations

import contextlib
import socket
import threading

import httpx
from starlette.responses import PlainTextResponse

from sweeper.embedded.hosting import ServerThread, base_url, bind


def test_a_connection_accepted_in_the_round_in_which_it_stops_is_closed():
    loops, held, release, asked = [], threading.Event(), threading.Event(), threading.Event()
    listener = bind("127.0.0.1", 0)
    hosting = ServerThread([(listener, PlainTextResponse("here"))], {}, loops.append)
    hosting.start()
    assert httpx.get(base_url(listener)).text == "here"
    (loop,) = loops
    tell = loop.call_soon_threadsafe

    def hold():
        held.set()
        release.wait(10)

    def told(*call):
        handle = tell(*call)
        asked.set()
        return handle

    tell(hold)
    assert held.wait(10)
    loop.call_soon_threadsafe = told
    stopping = threading.Thread(target=hosting.stop)
    with socket.create_connection(listener.getsockname(), timeout=10) as late:
        stopping.start()
        assert asked.wait(10)
        release.set()  # the next round both accepts and stops
        with contextlib.suppress(ConnectionResetError):
            assert late.recv(1) == b""
    stopping.join(10)
    assert not stopping.is_alive()
