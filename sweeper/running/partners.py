"""Partner nodes: those that call a paid third party, and the key that a submission must carry for them.

The key goes into `extra_data.api_key_comfy_org` (COMFY_API.md, "partner nodes") of workflows that have such nodes on
that server, and nowhere else. Which class is one, the server's object_info says (`api_node`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.nodes import NodeInfo
    from sweeper.template import Template

FIELD: Final = "api_key_comfy_org"


def equip(client: ComfyClient, template: Template, classes: NodeInfo, *, demanded: bool) -> None:
    """Let the client's submissions carry the partner key where the template has partner nodes.

    A class is no slot's to choose, so the template tells it for every trial. `demanded`: a key that is missing is told
    now, before anything is sent. Raises UsageError.
    """
    nodes = [
        f"{node_id} ({node['class_type']})"
        for node_id, node in template.graph.items()
        if (spec := classes.classes.get(node["class_type"])) is not None and spec.partner
    ]
    if not nodes:
        return
    target = client.target
    if target.partner_key is not None:
        client.extra_data = {FIELD: target.partner_key}
    elif demanded:
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
