"""Write the first files for a workflow: the slots file, `name.slots.yaml` beside `name.json`, and an experiment.

The experiment has two axes that run at once, and commented lines with more to try.

Pure functions from suggested slots to text. Each commented line is valid when its `#` is removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from sweeper.loading.suggest_slots import Suggestion, list_inputs
from sweeper.model.expressions import has_jinja
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.template_check import UNCHECKED
from sweeper.model.slot_values import SlotSchema
from sweeper.model.template import ModelFile
from sweeper.model.workflow import Graph
from sweeper.schemas import make_editor_line
from sweeper.schemas.values import is_number
from sweeper.wording import shorten, to_one_line

_PLAIN: Final = re.compile(r"(?:\.\.?/)*[A-Za-z][\w./-]*(?:://[\w.:-]+)?")  # a text that needs no quotes
_NO_TEXTS: Final = frozenset(("true", "false", "null", "yes", "no", "on", "off"))  # of YAML 1.2, or of 1.1


def render_slots_file(
    workflow_name: str,
    graph: Graph,
    info: NodeInfo,
    suggestions: Iterable[Suggestion],
    *,
    models: Iterable[ModelFile] = (),
    unchecked: Sequence[str] = (),
) -> str:
    """Return the text of `name.slots.yaml` that declares these suggestions, with a comment on each, and the models.

    `unchecked` are the classes that were read by the file's own names.
    """
    lines = [
        make_editor_line("slots"),
        f"# The slots of {shorten(to_one_line(workflow_name))}: the names that experiments may set and sweep.",
        "# Rename them, delete what you never change; the workflow beside this file stays as it was exported.",
        "# A slot that an experiment does not give keeps the workflow's own value (shown behind each line).",
        "slots:",
    ]
    lines += [f"  {render_slot(suggestion)}" for suggestion in suggestions]
    if unchecked:
        lines += [f"# {UNCHECKED}. A server that has these classes checks them.", f"unchecked: {write_flow(unchecked)}"]
    return "\n".join([*lines, *_render_branches(graph, info), *_render_models(models)]) + "\n"


def render_slot(suggestion: Suggestion) -> str:
    """Return the line of the slots file that declares a slot, without its indentation."""
    fields = [f"at: {write_flow(suggestion.addresses) if suggestion.others else quote_yaml(suggestion.address)}"]
    if suggestion.schema is not None:
        fields.append(f"schema: {write_flow(suggestion.schema)}")
    if suggestion.is_default:
        fields.append(f"default: {json.dumps(suggestion.value, ensure_ascii=True)}")
    if suggestion.type == "file":
        fields.append("kind: file")
    node = suggestion.class_type
    if suggestion.title and suggestion.title != node:
        node = f"{node} '{suggestion.title}'"
    current = json.dumps(suggestion.value, ensure_ascii=False)
    if suggestion.type == "file":
        current = "a local file, given by the experiment"
    elif suggestion.is_default:
        current = "the class's default, for other branches"
    comment = ": ".join(shorten(to_one_line(text)) for text in (node, current))
    return f"{suggestion.name}: {{{', '.join(fields)}}}  # {comment}"


def _render_models(models: Iterable[ModelFile]) -> Iterator[str]:
    items = [{name: text for name, text in asdict(model).items() if text} for model in models]
    if items:
        yield "# The model files that the workflow names. `sweeper doctor` shows those that a server lacks."
        yield "models:"
    for item in items:
        yield f"  - {{{', '.join(f'{name}: {quote_yaml(text)}' for name, text in item.items())}}}"


def _render_branches(graph: Graph, info: NodeInfo) -> Iterator[str]:
    """Yield the lines that declare the dynamic combos whose options have different inputs."""
    by_address: dict[str, dict[str, dict[str, None]]] = {}
    for node_id, node in graph.items():
        spec = info.classes.get(node["class_type"])
        for combo in list_inputs(spec, node["inputs"]) if spec is not None else ():
            for option, branch in combo.branches.items():
                children = by_address.setdefault(f"{node_id}.{combo.name}", {}).setdefault(option, {})
                children.update((child.removeprefix(f"{combo.name}."), None) for child in branch)
    differing = {
        address: options
        for address, options in by_address.items()
        if any(set(children) != set(next(iter(options.values()))) for children in options.values())
    }
    if differing:
        yield "# Inputs that only some choices have; those of the other choices are left out of the workflow."
        yield "branches:"
    for address, options in differing.items():
        yield f"  {quote_yaml(address)}:"
        yield from (f"    {quote_yaml(option)}: {write_flow(list(children))}" for option, children in options.items())


def quote_yaml(text: str) -> str:
    """Write a double-quoted YAML scalar, with all unprintable characters escaped: YAML forbids more than JSON does."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)


def write_flow(value: Any) -> str:
    """Write a value on one line, texts without quotes if they need none."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXTS else quote_yaml(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{write_flow(str(key))}: {write_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(write_flow, value))}]"
    return json.dumps(value)


# What people sweep, by the role of a slot. Pictures to upload are added, because an experiment must give them.
_USEFUL_ROLES: Final = frozenset((
    "prompt", "negative", "seed", "steps", "cfg", "guidance", "sampler", "scheduler", "denoise", "width", "height",
    "checkpoint", "unet", "lora", "strength", "strength_model", "strength_clip", "lora_strength", "lora_model_strength",
    "lora_clip_strength", "model_strength", "clip_strength",
))  # fmt: skip
_HINTS: Final = {
    "prompt": "your own texts, as many as you like", "negative": "what to avoid", "checkpoint": "other model files",
    "unet": "other model files", "lora": "other LoRA files", "cfg": "how closely to follow the prompt",
    "denoise": "how much to change the picture",
}  # fmt: skip
_FAVOURITES: Final = (
    "euler", "dpmpp_2m", "dpmpp_2m_sde", "euler_ancestral", "heun", "normal", "karras", "simple", "beta",
)  # fmt: skip
_FACTORS: Final[Mapping[str, Sequence[float]]] = {
    "steps": (0.5, 1), "cfg": (0.6, 1, 1.4), "guidance": (0.6, 1, 1.4), "width": (1, 1.25), "height": (1, 1.25),
}  # fmt: skip
_DEFAULT_FACTORS: Final = (0.5, 0.75, 1)
_MAX_CHOICES: Final = 3
_MAX_SEED: Final = 2**32 - 1
_FIRST_AXES: Final = ("cfg", "guidance", "denoise", "strength", "strength_model")  # if not steps


def order_slots(suggestions: Iterable[Suggestion], needed: Collection[str]) -> tuple[Suggestion, ...]:
    """The slots of nodes that an output needs: those that people sweep, then the others.

    The first of each role gets its plain name.
    """
    found = [slot for slot in suggestions if any(address.partition(".")[0] in needed for address in slot.addresses)]
    found.sort(key=lambda slot: not is_useful(slot))
    taken = {slot.name for slot in found}
    named = []
    for slot in found:
        if slot.role not in taken and slot.role:
            slot = replace(slot, name=slot.role)  # noqa: PLW2901 - the same slot under a better name
            taken.add(slot.role)
        named.append(slot)
    return tuple(named)


def has_axis(slots: Iterable[Suggestion], choices: Mapping[str, Sequence[Any]]) -> bool:
    """Whether an experiment with these slots has two values to try for one of them, besides files."""
    return any(slot.role == "seed" or len([*_propose_values(slot, choices.get(slot.name, ()))]) > 1 for slot in slots)


def render_experiment(
    name: str,
    *,
    title: str,
    template: str,
    target: tuple[str, str],
    slots: Sequence[Suggestion],
    files: Mapping[str, tuple[Sequence[str], str]],
    choices: Mapping[str, Sequence[Any]],
    has_pictures: bool = True,
    keep_temp: bool = False,
    is_saved: bool = False,
    axis: str | None = None,
) -> str:
    """The text of an experiment.

    `target`: its name, and a remark. `files`: for each slot of a file the paths of local ones, relative to the
    experiment, and a remark. `choices`: what the server offers for a slot, if it is a list. `has_pictures`: it makes
    more than sounds. `keep_temp`: no node of the workflow saves its pictures. `is_saved`: one trial, with the values of
    the workflow, and no more to try. `axis`: the address of the one input that varies, if its slot can.
    """
    values_of = {slot.name: list(_propose_values(slot, choices.get(slot.name, ()))) for slot in slots}
    axes = {name: f"[{', '.join(map(_quote_text, values))}]" for name, values in values_of.items() if values}
    chosen = [slot for slot in slots if axis in slot.addresses and slot.name in {**axes, **files}]
    axes |= {slot.name: f"[{_quote_text(slot.value)}]" for slot in chosen}
    has_files = any(len(paths) > 1 for paths, _ in files.values())
    active = chosen if chosen or is_saved else _choose_active(slots, values_of, has_files=has_files)
    lines = [
        f"# {title} See what it does, then run it:",
        "#     sweeper plan experiment.yaml",
        f"#     sweeper run experiment.yaml       saves pictures and results.csv in results/{name}/",
        "# Run it again after a change: sweeper runs only the new trials.",
        f"name: {write_flow(name)}",
        f"template: {write_flow(template)}  # a slot that is not set here keeps the value in it",
        f"target: {write_flow(target[0])}  # {target[1]}",
    ]
    lines += ["", "sweep:", "  grid:  # every combination"] if files or not is_saved else []
    lines += [
        f"    {slot}: [{', '.join(map(quote_yaml, paths))}]  # {remark}" for slot, (paths, remark) in files.items()
    ]
    for slot in (slot for slot in active if slot.name not in files):
        values = axes[slot.name]
        if slot.role == "seed":  # `seeds` draws 32 bits; some partner nodes take fewer
            seeds = "{seeds: 2}" if SlotSchema(slot.schema).allows(_MAX_SEED) else "[1, 2]"
            values = f"{seeds}  # two seeds, the same in every run"
        lines.append(f"    {slot.name}: {values}")
    tried = () if is_saved else slots
    others = [slot for slot in tried if slot not in active and slot.name in axes and not slot.is_default]
    useful = list(filter(is_useful, others))
    heads = ("More to try: remove the `#` in front of a line, and change its values.", "All other inputs:")
    for head, group in zip(heads, (useful, [slot for slot in others if slot not in useful]), strict=True):
        lines += [f"    # {head}"] if group else []
        for slot in group:
            hint = _HINTS.get(slot.role)
            lines.append(f"    # {slot.name}: {axes[slot.name]}" + (f"  # {hint}" if hint else ""))
    if has_pictures:
        lines += ["", "metrics: [brightness, sharpness]  # columns of the table, measured on the pictures"]
    if keep_temp:
        lines.append("run: {keep_temp: true}  # no node of the workflow saves a file; this keeps what it shows")
    return "\n".join(lines) + "\n"


def is_useful(slot: Suggestion) -> bool:
    """Whether people often sweep an input."""
    if slot.role in {"width", "height"}:  # of the picture; other nodes have a size too, which must fit to it
        words = slot.class_type.lower()
        return "latent" in words or "loader" in words
    return slot.type == "file" or slot.role in _USEFUL_ROLES or slot.role.startswith(("prompt_", "negative_"))


def _choose_active(
    slots: Sequence[Suggestion], values_of: Mapping[str, Sequence[Any]], *, has_files: bool
) -> list[Suggestion]:
    """A seed and one other axis, which are enough for a first grid: steps, if only one node has them."""
    seed = next((slot for slot in slots if slot.role == "seed" and isinstance(slot.value, int)), None)
    steps = [slot for slot in slots if slot.role == "steps"]
    wanted = ("steps", *_FIRST_AXES) if len(steps) == 1 else _FIRST_AXES
    ranks = {role: rank for rank, role in enumerate(wanted)}

    def rank(slot: Suggestion) -> tuple[bool, bool, int]:
        return not is_useful(slot), not is_number(slot.value), ranks.get(slot.role, len(ranks))

    axes = sorted((slot for slot in slots if slot is not seed and len(values_of[slot.name]) > 1), key=rank)
    if seed is not None and axes and not is_number(axes[0].value):
        axes = []  # without other numbers, a seed is enough
    if seed is None and not axes and not has_files:
        axes = [slot for slot in slots if values_of[slot.name]]
    return [slot for slot in (next(iter(axes), None), seed) if slot is not None]


def _propose_values(slot: Suggestion, choices: Sequence[Any]) -> Iterator[Any]:
    """The values to try; none if a line for them cannot be valid."""
    numbers = _propose_numbers(slot)
    if numbers:
        yield from numbers
        return
    if slot.type == "file" or (isinstance(slot.value, str) and has_jinja(slot.value)):
        return
    yield slot.value
    others: Iterable[Any] = ()
    if isinstance(slot.value, bool):
        others = (not slot.value,)
    elif slot.role == "negative" or slot.role.startswith("negative_"):
        others = ("" if slot.value else "blurry, watermark",)
    elif slot.role == "prompt" or slot.role.startswith("prompt_"):
        others = (f"{slot.value.rstrip(' ,.')}, oil painting".lstrip(" ,"),)
    elif choices:
        known = [*(choice for choice in _FAVOURITES if choice in choices), *choices]
        others = [choice for choice in dict.fromkeys(known) if choice != slot.value][: _MAX_CHOICES - 1]
    yield from (value for value in others if value != slot.value and SlotSchema(slot.schema).allows(value))


def _propose_numbers(slot: Suggestion) -> list[Any]:
    """Values around the workflow's own, ascending; none if it is not a number, or a seed."""
    value = slot.value
    if not is_number(value) or slot.role == "seed":
        return []
    if slot.role in {"cfg", "guidance"} and value == 1:  # a distilled model
        found = [value, 1.5, 2.0]
    else:
        found = [_scale(slot, factor) for factor in _FACTORS.get(slot.role, _DEFAULT_FACTORS)] if value else [value, 1]
    return sorted({number for number in found if number == value or SlotSchema(slot.schema).allows(number)})


def _scale(slot: Suggestion, factor: float) -> float:
    value: float = slot.value
    if factor == 1:
        return value
    if slot.role in {"width", "height"}:
        return round(value * factor / 64) * 64
    scaled = round(value * factor, 2)
    # If the class is unknown, the number in the workflow says whether the input takes fractions.
    is_unknown = (slot.schema or {}).get("type") == ["integer", "number"]
    is_whole = slot.type == "integer" or (is_unknown and isinstance(value, int))
    return max(1, round(scaled)) if is_whole else scaled


def _quote_text(value: Any) -> str:
    return quote_yaml(value) if isinstance(value, str) else json.dumps(value)
