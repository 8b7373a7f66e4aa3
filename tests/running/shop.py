"""A server with a partner node that is not real: a class with a price, which it counts when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeper.embedded import EmbeddedServer
from sweeper.embedded.faults import Faults, Scenario
from sweeper.model.money import Amount
from sweeper.store import FILE_NAME, Store
from sweeper.store.database import is_blank
from sweeper.store.job_charges import JobCharge
from tests.running.conftest import NODES

KEY_VARIABLE = "SHOP_KEY"
PRICE = 0.03  # of one execution of Paint, in US dollars, with a seed below 100
BADGE = {
    "engine": "jsonata",
    "expr": '{"type": "usd", "usd": widgets.seed > 99 ? 0.5 : 0.03}',
    "depends_on": {"widgets": [{"name": "seed", "type": "INT"}], "inputs": [], "input_groups": []},
}


class Shop(EmbeddedServer):
    """A server whose node Paint costs money, as much as `badge` says. `scenario`: fields of its scenario."""

    def __init__(self, dialect: Any = "cloud", badge: Any = BADGE, cache: str = "classic", **scenario: Any) -> None:
        faults = Faults(scenario=Scenario(prices={"Paint": badge}, **scenario))
        super().__init__(dialect, nodes=NODES, faults=faults, cache=cache)
        self.faults.retry_after = 0.0

    @property
    def sold(self) -> int:
        """How often the node ran."""
        return self.seen.nodes["Paint"]

    def target(self, **more: Any) -> dict[str, Any]:
        """This server as a target. Set the environment variable KEY_VARIABLE, as a partner node needs a key."""
        keys = {"partner_key_env": KEY_VARIABLE} if more.pop("has_key", True) else {}
        return {"url": self.url, "dialect": self.settings.dialect, "name": f"shop-{self.url[-5:]}", **keys, **more}


def load_charges(out: Path) -> tuple[list[JobCharge], Amount]:
    """The charges in a results folder, and their sum."""
    if is_blank(out / FILE_NAME):  # the run was killed while it created the store
        return [], Amount()
    with Store.open(out, readonly=True) as store:
        return list(store.charges.iter_all()), store.charges.load_spent()
