"""Fixtures for the embedded server: servers over probe nodes, each with a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sweeper.embedded import EmbeddedServer
from tests.embedded.clients import Cloud, Comfy
from tests.embedded.probes import Gate, probe_nodes


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def serve(gate: Gate) -> Iterator[Callable[..., Any]]:
    """Start a server over probe nodes: `serve("comfyui", cache="none")` gives a client of it."""
    with ExitStack() as stack:

        def start(dialect: str = "cloud", **options: Any) -> Any:
            options.setdefault("nodes", probe_nodes(gate))
            server = stack.enter_context(EmbeddedServer(dialect=dialect, **options))  # type: ignore[arg-type]
            client = Cloud(server, options.get("api_key")) if dialect != "comfyui" else Comfy(server)
            stack.callback(client.http.close)
            return client

        yield start
        gate.opened.set()


@pytest.fixture
def comfy(serve: Callable[..., Any]) -> Any:
    return serve("comfyui")


@pytest.fixture
def cloud(serve: Callable[..., Any]) -> Any:
    return serve("cloud")
