"""Whether a plan may go to a target: its classes know every node and value, and partner nodes have their key.

Partner nodes call a paid third party; a submission must carry a key for them. The key goes into
`extra_data.api_key_comfy_org` of workflows that have such nodes on that server, and nowhere else. Which class is one,
the server's object_info says (`api_node`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sweeper.errors import ExperimentError, UsageError
from sweeper.running.run_events import Notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweeper.comfy.client import ComfyClient
    from sweeper.model.node_classes import NodeInfo
    from sweeper.model.template import Template
    from sweeper.planning.plan import Plan
    from sweeper.running.settings import EffectiveSettings


PARTNER_KEY_FIELD: Final = "api_key_comfy_org"


async def check_target(
    client: ComfyClient, plan: Plan, settings: EffectiveSettings, report: Callable[[Notice], None]
) -> None:
    """Hold a plan against the target's node classes, if `settings.check`; let submissions carry the partner key they
    need; tell of a workflow that would save nothing.

    Raises ExperimentError for what would not run there, and UsageError where partner nodes have no key.
    """
    from sweeper.running.node_class_cache import get_classes  # noqa: PLC0415

    check = settings.check
    if not check and client.target.partner_key is None:
        return
    for fresh in (False, True):  # what was kept of the server may be old: models come and go
        classes = await get_classes(client, fresh=fresh)
        if classes is None:
            return
        try:
            attach_partner_key(client, plan.experiment.template, classes, required=check)
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
                report(Notice(str(note)))
            return
    name = client.target.name
    raise ExperimentError(
        replace(problem, message=f"{problem.message} (on {name}; --no-check sends it nevertheless)")
        for problem in problems
    )


def attach_partner_key(client: ComfyClient, template: Template, classes: NodeInfo, *, required: bool) -> None:
    """Let the client's submissions carry the partner key where the template has partner nodes.

    A class is no slot's to choose, so the template tells it for every trial. `demanded`: a key that is missing is told
    now, before anything is sent. Raises UsageError.
    """
    nodes = [
        f"{node_id} ({node['class_type']})"
        for node_id, node in template.graph.items()
        if (spec := classes.classes.get(node["class_type"])) is not None and spec.is_partner
    ]
    if not nodes:
        return
    target = client.target
    if target.partner_key is not None:
        client.extra_data = {PARTNER_KEY_FIELD: target.partner_key}
    elif required:
        variable = target.partner_key_env
        missing = (
            f"the environment variable {variable} is not set"
            if variable
            else "give the target `partner_key_env: NAME`, the environment variable that holds it"
        )
        raise UsageError(
            f"target {target.name}: node {', '.join(nodes)} calls a paid partner, which needs a key of its own: "
            f"{missing} (--no-check sends the workflow without)"
        )
