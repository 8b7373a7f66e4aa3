from __future__ import annotations

import pytest

from sweeper.statistics.ranking import rank
from sweeper.voting.vote_server import VoteServer
from tests.voting.folders import make_folder


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """A thousand take two seconds for each ranking; tests/statistics checks the intervals themselves."""
    monkeypatch.setitem(rank.__kwdefaults__, "resamples", 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("voting") / "results")


@pytest.fixture(scope="module")
def server(folder):
    with VoteServer(folder) as server:
        yield server
