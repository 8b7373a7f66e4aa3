"""The inputs of a template for the page: what each takes, its value, and which come first."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.editing.read_workflow import iter_inputs
from sweeper.loading.starter_experiment import is_useful
from sweeper.loading.suggest_slots import Suggestion
from sweeper.model.node_classes import InputSpec, NodeInfo
from sweeper.model.template import MISSING, Template
from sweeper.wording import to_one_line

_GROUPS: Final = ("app", "often", "other")
_MAX_CHOICES: Final = 200  # in one answer
_MAX_TITLE: Final = 150  # characters
_PLACE: Final = re.compile(r"(?:sweep(?:\[\d+\])?\.(?:grid|(?:zip|include|exclude)\[\d+\])|params|slots)\.")


@dataclass(frozen=True, slots=True)
class PageInputs:
    """The inputs as the page gets them, in its order, and by address the choices of those that have a list.

    `suggestions` are those that are no slots yet, `names` those of the slots.
    """

    rows: tuple[Mapping[str, Any], ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    suggestions: tuple[Suggestion, ...] = ()
    names: tuple[str, ...] = ()

    def find_choices(self, address: str, text: str) -> dict[str, Any]:
        """The first choices of an input that contain each word of a text, and how many do."""
        words = text.lower().split()
        choices = self.choices.get(address, ())
        found = [choice for choice in choices if all(word in str(choice).lower() for word in words)]
        return {"values": found[:_MAX_CHOICES], "total": len(found)}


def list_page_inputs(template: Template, info: NodeInfo, own_slots: Collection[str] | None = None) -> PageInputs:
    """List all inputs that can be swept: first the author's own choice, then what people sweep, then the others.

    The author chose if the slots file leaves out something that people sweep: in the App mode of ComfyUI, or by hand.
    `own_slots`: those of the author (None: all). Others stay where they were before the page made them slots.
    """
    own = {name: slot for name, slot in template.slots.items() if own_slots is None or name in own_slots}
    found = list(iter_inputs(template.graph, info.with_any_model(), own))
    is_chosen = any(is_useful(suggestion) and not is_slot for suggestion, is_slot in found)
    rows, choices = [], {}
    for suggestion, is_slot in found:
        group = "app" if is_slot and is_chosen else "often" if is_useful(suggestion) else "other"
        declared = _find_declaration(template, info, suggestion.address)
        row = _describe(template, suggestion, declared, group=group, is_slot=is_slot)
        rows.append(row)
        if declared is not None and declared.choices and row["type"] != "file":
            choices[suggestion.address] = declared.choices
    rows.sort(key=lambda row: _GROUPS.index(row["group"]))
    suggestions = tuple(suggestion for suggestion, is_slot in found if not is_slot)
    return PageInputs(tuple(rows), choices, suggestions, tuple(template.slots))


def _find_declaration(template: Template, info: NodeInfo, address: str) -> InputSpec | None:
    node_id, _, name = address.partition(".")
    node = template.graph[node_id]
    spec = info.classes.get(node["class_type"])
    return None if spec is None else spec.resolve_inputs(node["inputs"]).get(name)


def _describe(
    template: Template, suggestion: Suggestion, declared: InputSpec | None, *, group: str, is_slot: bool
) -> dict[str, Any]:
    slot = template.slots.get(suggestion.name) if is_slot else None
    options = {} if declared is None else declared.options
    is_file = suggestion.type == "file" if slot is None else slot.kind != "value"
    has_list = declared is not None and declared.choices is not None and not is_file
    return {
        "address": suggestion.address,
        "slot": suggestion.name if is_slot else None,
        "node": suggestion.address.partition(".")[0],
        # A stranger's title may be megabytes, each of them in every input of its node, or turn the text around it.
        "title": to_one_line((suggestion.title or suggestion.class_type)[:_MAX_TITLE]),
        "class": suggestion.class_type[:_MAX_TITLE],
        "role": suggestion.role or suggestion.name,
        "group": group,
        "type": "file" if is_file else suggestion.type,
        "schema": None if suggestion.schema is None else dict(suggestion.schema),
        "step": options.get("step"),
        "value": suggestion.value if slot is None or slot.default is MISSING else slot.default,
        "multiline": options.get("multiline") is True,
        "choices": len(declared.choices or ()) if has_list and declared is not None else None,
        "model": declared is not None and declared.names_model,
    }


def find_problem_slot(key: str, names: Iterable[str]) -> str | None:
    """The axis, fixed value or slot where the page shows a problem with this key, such as `sweep.grid.steps[2]`."""
    match = _PLACE.match(key)
    rest = key[match.end() :] if match else ""
    found = [name for name in names if rest == name or rest.startswith((f"{name}.", f"{name}["))]
    return max(found, key=len, default=None)
