"""What a run asks its servers before the first job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import sweeper
from sweeper.comfy.client import ComfyClient
from sweeper.running import session


def test_server_tells_its_versions_while_the_plan_is_checked(
    experiment: Callable[..., Any], target: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_checking, check, found = asyncio.Event(), session.check_target, []

    async def check_target(*given: Any) -> Any:
        is_checking.set()
        return await check(*given)

    async def get_server_info(_: ComfyClient) -> dict[str, Any]:
        await asyncio.wait_for(is_checking.wait(), 60)  # it ends only if the check has begun
        found.append(True)
        return {"version": "7"}

    monkeypatch.setattr(session, "check_target", check_target)
    monkeypatch.setattr(ComfyClient, "get_server_info", get_server_info)
    run = sweeper.run(experiment(seed=[1]), target=target)
    assert (run.succeeded, found) == (run.trials, [True])
