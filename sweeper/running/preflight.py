"""Checks a plan against a target before anything is submitted: node classes, values, and the key for partner nodes.

Partner nodes call a paid third party and need a key of their own. ComfyUI reads it from the submission's
`extra_data.api_key_comfy_org`. We send it only with workflows that have partner nodes on that server, which marks
them by `api_node` in its object_info.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sweeper.comfy.runpod import MAX_RUN_BYTES, describe_size
from sweeper.comfy.target import Target
from sweeper.errors import ExperimentError, Problem, UsageError
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.graph_check import STAND_IN_MEANING, find_graph_problems
from sweeper.model.target_spec import is_comfy_platform
from sweeper.model.template import Address, Template
from sweeper.planning.model_inputs import list_nodes
from sweeper.planning.plan import Plan
from sweeper.running.node_class_cache import ClassSource, get_classes, get_embedded_classes
from sweeper.running.run_events import Event, Notice
from sweeper.running.settings import EffectiveSettings
from sweeper.schemas.values import KeyPath
from sweeper.wording import count_things, join_names

PARTNER_KEY_FIELD: Final = "api_key_comfy_org"


async def find_classes(client: ClassSource, plan: Plan) -> NodeInfo | None:
    """The classes of a plan's workflow on a connected target; None if they are not known."""
    classes = await get_classes(client, list_nodes(plan))
    return None if isinstance(classes, str) else classes


async def check_target(
    client: ClassSource,
    plan: Plan,
    settings: EffectiveSettings,
    report: Callable[[Event], None],
    gone: dict[int, tuple[str, str]],
) -> NodeInfo | None:
    """Check a plan against the target's node classes, if `settings.check`; attach the partner key if it is needed.

    Returns these classes; None, and reports why, if they are not known. Adds the trials that the run must leave out to
    `gone`: by index, the name of the target and the reason.

    Raises ExperimentError for what would not run on the target, and for a workflow that would leave no file; UsageError
    if partner nodes have no key. Checks nothing if the target does not return its classes; then
    it gets the partner key that the user named for it, because nothing shows whether the workflow needs it.
    """
    problems: Sequence[Problem] = ()
    refusal: UsageError | None = None

    def check(classes: NodeInfo) -> bool:
        nonlocal problems, refusal
        problems, refusal = (), None
        try:
            attach_partner_key(client, plan.experiment.template, classes, required=settings.check)
        except UsageError as error:
            refusal = error
        if settings.check:
            fit = plan.fit(classes)  # `plan` and `validate` show its notes, which would only be noise here
            problems = fit.problems or (() if settings.keep_temp else fit.unsaved)
        return refusal is None and not problems

    if (note := describe_large_files(plan, client.target)) is not None:
        report(Notice(f"{client.target.name}: {note}"))
    # A budget needs the prices of today.
    classes = await get_classes(client, list_nodes(plan), check, fresh=settings.budget is not None)
    if isinstance(classes, str):
        if client.target.partner_key_env is not None and client.target.partner_key is not None:
            client.extra_data = {PARTNER_KEY_FIELD: client.target.partner_key}
        if settings.check:
            report(Notice(f"{client.target.name}: the plan was not checked: {classes}"))
        return None
    if refusal is not None:
        raise refusal
    left_out = find_gone(plan, classes, problems, settings.may_be_gone, client.target) if problems else {}
    if not problems or left_out:
        gone |= {index: (client.target.name, reason) for index, reason in left_out.items()}
        return classes
    name = client.target.name
    raise ExperimentError(
        replace(problem, message=f"{problem.message} (on {name}; --no-check submits it nevertheless)")
        for problem in problems
    )


def describe_large_files(plan: Plan, target: Target) -> str | None:
    """Say which trials have files that RunPod does not accept in one submission; None if all fit, or elsewhere."""
    paths = [fact.path for fact in plan.experiment.files.values()] if target.dialect == "runpod" else []
    sizes = {path: path.stat().st_size * 4 // 3 for path in paths if path.exists()}  # as Base64
    if sum(sizes.values()) <= MAX_RUN_BYTES:
        return None
    sums = (sum(sizes.get(path, 0) for path in {file.path for file in plan.files(trial)}) for trial in plan.written())
    large = [size for size in sums if size > MAX_RUN_BYTES]
    return f"{count_things(len(large), 'trial')}: {describe_size(max(large))}" if large else None


def find_gone(
    plan: Plan, classes: NodeInfo, problems: Sequence[Problem], may_be_gone: Collection[int], target: Target
) -> dict[int, str]:
    """The trials that a target refuses only because it offers less than it did: by index, the reason.

    A server may no longer offer an option of a partner's node; Comfy Cloud also a class, which nobody can install.
    Empty if a trial has another mistake, or is none of `may_be_gone`; then `problems` are to be raised, as for any run.
    """
    gone: dict[int, str] = {}
    explained: set[str] = set()
    for trial in plan.written() if may_be_gone else ():
        graph = plan.workflow(trial)
        uploaded = [Address(file.node, file.input) for file in plan.files(trial)]
        found = find_graph_problems(graph, classes, uploaded=uploaded)
        reasons = [_describe_gone(graph[str(path[0])], path, classes, target) if path else "" for path, _ in found]
        if not all(reasons) or (reasons and trial.index not in may_be_gone):
            return {}
        explained.update(message.partition(";")[0] for _, message in found)
        if reasons:
            gone[trial.index] = "; ".join(dict.fromkeys(reasons))
    return gone if explained.issuperset(problem.message.partition(";")[0] for problem in problems) else {}


def _describe_gone(node: Mapping[str, Any], path: KeyPath, classes: NodeInfo, target: Target) -> str:
    """Say what a node uses that the target no longer offers; empty for any other mistake."""
    class_type = node["class_type"]
    spec = classes.classes.get(class_type)
    if spec is None:
        return f"{target.name} no longer offers the class {class_type}" if is_comfy_platform(target.url) else ""
    name = str(path[2]).partition(".")[0] if len(path) > 2 else ""  # the option decides which inputs are below it
    value = node["inputs"].get(name)
    options = [*(spec.inputs[name].choices or spec.inputs[name].branches)] if name in spec.inputs else []
    if not (spec.is_partner and options and isinstance(value, str) and value not in options):
        return ""
    return f"{target.name} no longer offers {name} '{value}' of {class_type}; it has {join_names(options, value)}"


def describe_stand_ins(template: Template, object_info: Mapping[str, Any] | None) -> str | None:
    """Say which nodes of a template stand-ins run on the embedded server; None if it has all of their classes.

    `object_info`: the classes that the server was told of. A name that none of them has may be a typo.
    """
    own = get_embedded_classes(template.graph.values())
    names = []
    for class_type in sorted({node["class_type"] for node in template.graph.values()}):
        if class_type in own.classes and not own.classes[class_type].is_stand_in:
            continue
        is_known = class_type in own.classes or class_type in (object_info or {})
        nearest = None if is_known else own.find_misspelt(class_type)
        names.append(f"{class_type} (did you mean '{nearest}'?)" if nearest else class_type)
    return f"stand-ins run {join_names(names)}: {STAND_IN_MEANING}" if names else None


def attach_partner_key(client: ClassSource, template: Template, classes: NodeInfo, *, required: bool) -> None:
    """Make the client send the partner key with every submission, if the template has partner nodes.

    The template decides for all trials, because slots cannot change the class of a node. Stand-ins on the embedded
    server call nobody. Raises UsageError if `required` and the key is missing.
    """
    nodes = [
        f"{node_id} ({node['class_type']})"
        for node_id, node in template.graph.items()
        if (spec := classes.classes.get(node["class_type"])) is not None and spec.is_partner
    ]
    target = client.target
    if not nodes or target.embedded:
        return
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
            f"{missing} (--no-check submits the workflow without)"
        )
