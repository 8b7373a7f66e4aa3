"""The workers of a cluster as the driver knows them: who is there, with which server, and how to ask them something."""

from __future__ import annotations

import asyncio
import platform
import pydoc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import sweeper
from sweeper.cluster import worker_rpc
from sweeper.cluster.worker_batch import LEASE
from sweeper.cluster.worker_plugin import NAME, Berth
from sweeper.errors import SweeperError, UsageError

if TYPE_CHECKING:
    from distributed import Client

    from sweeper.cluster.messages import Order, Seat

# Longer than a worker waits for us, so that whoever we give up on has given up on us.
_PATIENCE: Final = LEASE + 10.0


class GoneError(SweeperError):
    """A worker does not answer: it left the cluster, or died."""


async def identify(client: Client) -> dict[str, Any]:
    """What the scheduler says of itself and all its workers. Raises OSError when it does not answer."""
    if client.scheduler is None:
        raise OSError("the connection is closed")
    found: dict[str, Any] = await client.scheduler.identity(n_workers=-1)
    return found


class Fleet:
    """`seats`: the enlisted workers that can be used, by address. `resources`: what a worker must have of Dask's."""

    def __init__(self, client: Client, order: Order, resources: Mapping[str, float]) -> None:
        self.client, self.order, self.resources = client, order, resources
        self.seats: dict[str, Seat] = {}
        self.lost: dict[str, Seat] = {}  # by address: those that cannot be used, and why
        self.present: set[str] = set()
        self._seen: set[str] = set()
        self._looked = asyncio.Event()
        self.unsent: set[str] = set()  # jobs of an earlier driver that certainly never left a worker

    async def register(self, *, children: bool) -> None:
        """Give every worker, now and later, its berth. `children`: they are this process's own.

        Raises UsageError where versions differ.
        """
        await self.compare_versions()
        await self.client.register_plugin(Berth(deaf=children), name=NAME)

    async def compare_versions(self) -> None:
        """Raises UsageError that names the workers with another sweeper, or none."""
        found = await self.client.run(pydoc.locate, "sweeper.__version__", on_error="return")
        python = await self.client.run(platform.python_version, on_error="return")
        others = [
            f"{address}: {version if isinstance(version, str) else 'no sweeper'}"
            for address, version in sorted(found.items())
            if version != sweeper.__version__
        ]
        own = platform.python_version()
        others += [
            f"{address}: Python {version}"
            for address, version in sorted(python.items())
            if isinstance(version, str) and version.split(".")[:2] != own.split(".")[:2]
        ]
        if others:
            raise UsageError(
                f"this is sweeper {sweeper.__version__} on Python {own}, but the cluster "
                f"has other workers ({'; '.join(others)}): install the same on each"
            )

    async def refresh(self) -> tuple[list[Seat], list[Seat]]:
        """Look who is there: the seats that came and those that left since the last time. Raises GoneError when the
        scheduler does not answer.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                identity = await identify(self.client)
        except (OSError, TimeoutError) as error:
            raise GoneError(f"the Dask scheduler does not answer: {error}") from None
        workers: dict[str, Any] = identity["workers"]
        able = {address for address, worker in workers.items() if self._able(worker)}
        left = [self.seats.pop(address) for address in list(self.seats) if address not in able]
        for address in list(self.lost):
            if address not in able:
                del self.lost[address]
        self.present = able
        self._seen |= able
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()
        new = sorted(able - set(self.seats) - set(self.lost))
        found = await asyncio.gather(*(self._enlist(address) for address in new))
        return [seat for seat in found if seat is not None], left

    def forget(self) -> None:
        """Let the next `refresh` enlist every worker anew, as after the results folder was made."""
        self.seats.clear()
        self.lost.clear()

    def _able(self, worker: Mapping[str, Any]) -> bool:
        return worker.get("status") != "closing" and all(
            worker["resources"].get(name, 0) >= amount for name, amount in self.resources.items()
        )

    async def _enlist(self, address: str) -> Seat | None:
        try:
            seat: Seat = await self.call(worker_rpc.enlist, self.order, address=address)
        except (GoneError, KeyError):  # it left again, or its berth is still being made: next time
            return None
        self.unsent.update(seat.unsent)
        (self.lost if seat.problem else self.seats)[address] = seat
        return seat

    def at(self, place: str) -> list[tuple[str, str]] | None:
        """(address, URL) of the workers that can ask the server at that place; None where it died with its worker."""
        kind, _, url = place.partition(" ")
        if kind == "embedded":
            found = [(seat.address, seat.url) for seat in self.seats.values() if seat.place == place]
            return found or None
        if not url:  # the same server for everybody, which lives whether workers do or not
            return [(seat.address, place) for seat in self.seats.values()]
        return [(seat.address, url) for seat in self.seats.values() if seat.host == kind]

    async def _leaves(self, address: str) -> None:
        """Wait until the scheduler no longer knows that worker."""
        while address in self.present or address not in self._seen:
            await self._looked.wait()

    async def discharge(self, address: str) -> None:
        """Let no more groups go to that worker in this run."""
        seat = self.seats.pop(address, None)
        if seat is not None:
            self.lost[address] = seat
            try:
                await self.call(worker_rpc.discharge, address=address)
            except GoneError:
                return

    async def call(self, function: Callable[..., Any], *arguments: Any, address: str) -> Any:
        """Ask one worker. Raises GoneError when it does not answer, and what the function raises there."""
        asked = asyncio.ensure_future(self.client.run(function, *arguments, workers=[address], on_error="return"))
        left = asyncio.ensure_future(self._leaves(address))
        try:
            # A question to a process that was killed is not answered, and not refused either.
            await asyncio.wait((asked, left), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise GoneError(f"{address}: does not answer")
            found = asked.result()
        except (OSError, ValueError) as error:
            raise GoneError(f"{address}: {error}") from None
        finally:
            asked.cancel()
            left.cancel()
        answer = found.get(address)
        if isinstance(answer, SweeperError | KeyError):
            raise answer
        if isinstance(answer, Exception) or address not in found:
            raise GoneError(f"{address}: {answer}")
        return answer
