"""Whether a plan may go to a target: its classes know every node and value, and partner nodes have their key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.errors import ExperimentError, UsageError
from sweeper.running.progress import Noticed

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweeper.comfy.client import ComfyClient
    from sweeper.planner import Plan
    from sweeper.running.options import Settings


async def admit(client: ComfyClient, plan: Plan, settings: Settings, report: Callable[[Noticed], None]) -> None:
    """Hold a plan against the target's node classes, if `settings.check`; let submissions carry the partner key they
    need; tell of a workflow that would save nothing.

    Raises ExperimentError for what would not run there, and UsageError where partner nodes have no key.
    """
    from sweeper.catalogue import classes_of  # noqa: PLC0415
    from sweeper.running.partners import equip  # noqa: PLC0415

    check = settings.check
    if not check and client.target.partner_key is None:
        return
    for fresh in (False, True):  # what was kept of the server may be old: models come and go
        classes = await classes_of(client, fresh=fresh)
        if classes is None:
            return
        try:
            equip(client, plan.experiment.template, classes, demanded=check)
        except UsageError:
            if fresh:
                raise
            continue
        if not check:
            return
        fit = plan.fit(classes)
        problems = fit.problems
        if not problems:  # its notes are told by `plan` and `validate`; a run has more to say
            for note in fit.unsaved if not settings.keep_temp else ():
                report(Noticed(str(note)))
            return
    name = client.target.name
    raise ExperimentError(
        replace(problem, message=f"{problem.message} (on {name}; --no-check sends it nevertheless)")
        for problem in problems
    )
