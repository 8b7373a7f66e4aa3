"""Write the first experiment for a workflow: two axes that run at once, and commented lines with more to try.

Pure functions from suggested slots to text. Each commented line is valid when its `#` is removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sweeper.loading.suggest_slots import Suggestion, quote_yaml
from sweeper.model.expressions import has_jinja
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.schemas.values import is_number

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
_FIRST_AXES: Final = ("cfg", "guidance", "denoise", "strength", "strength_model")  # if not steps


def choose_useful_slots(suggestions: Iterable[Suggestion]) -> tuple[Suggestion, ...]:
    """The slots that people sweep, or all if there are none. The first of each role gets its plain name."""
    suggestions = tuple(suggestions)
    useful = [slot for slot in suggestions if _is_useful(slot)] or list(suggestions)
    taken = {slot.name for slot in useful}
    named = []
    for slot in useful:
        if slot.role not in taken and slot.role:
            slot = replace(slot, name=slot.role)  # noqa: PLW2901 - the same slot under a better name
            taken.add(slot.role)
        named.append(slot)
    return tuple(named)


def render_experiment(
    name: str,
    *,
    title: str,
    template: str,
    target: tuple[str, str],
    slots: Sequence[Suggestion],
    files: Mapping[str, tuple[str, str]],
    choices: Mapping[str, Sequence[Any]],
) -> str:
    """The text of an experiment.

    `target`: its name, and a remark. `files`: for each slot of a file the path of a local one, relative to the
    experiment, and a remark. `choices`: what the server offers for a slot, if it is a list.
    """
    values_of = {slot.name: list(_propose_values(slot, choices.get(slot.name, ()))) for slot in slots}
    axes = {name: f"[{', '.join(map(_to_yaml, values))}]" for name, values in values_of.items() if values}
    active = _choose_active(slots)
    lines = [
        f"# {title} See what it does, then run it:",
        "#     sweeper plan experiment.yaml",
        f"#     sweeper run experiment.yaml       saves pictures and results.csv in results/{name}/",
        "# Run it again after a change: sweeper runs only the new trials.",
        f"name: {_to_plain_yaml(name)}",
        f"template: {_to_plain_yaml(template)}  # a slot that is not set here keeps the value in it",
        f"target: {_to_plain_yaml(target[0])}  # {target[1]}",
    ]
    lines += ["", "sweep:", "  grid:  # every combination"]
    lines += [f"    {slot}: [{quote_yaml(path)}]  # {remark}" for slot, (path, remark) in files.items()]
    for slot in active:
        is_seed = slot.role == "seed"
        values = "{seeds: 2}  # two seeds, the same in every run" if is_seed else axes[slot.name]
        lines.append(f"    {slot.name}: {values}")
    others = [slot for slot in slots if slot not in active and slot.name in axes]
    if others:
        lines.append("    # More to try: remove the `#` in front of a line, and change its values.")
    for slot in others:
        hint = _HINTS.get(slot.role)
        lines.append(f"    # {slot.name}: {axes[slot.name]}" + (f"  # {hint}" if hint else ""))
    lines += ["", "metrics: [brightness, sharpness]  # columns of the table, measured on the pictures"]
    return "\n".join(lines) + "\n"


def _is_useful(slot: Suggestion) -> bool:
    if slot.role in {"width", "height"}:  # of the picture; other nodes have a size too, which must fit to it
        words = slot.class_type.lower()
        return "latent" in words or "loader" in words
    return slot.type == "file" or slot.role in _USEFUL_ROLES or slot.role.startswith(("prompt_", "negative_"))


def _choose_active(slots: Sequence[Suggestion]) -> tuple[Suggestion, ...]:
    """A seed and one other axis, which are enough for a first grid: steps, if only one node has them."""
    seed = next((slot for slot in slots if slot.role == "seed" and isinstance(slot.value, int)), None)
    steps = [slot for slot in slots if slot.role == "steps"]
    numbers = [slot for slot in slots if slot.type != "file" and len(_propose_numbers(slot)) > 1]
    wanted = ("steps", *_FIRST_AXES) if len(steps) == 1 else _FIRST_AXES
    numbers.sort(key=lambda slot: wanted.index(slot.role) if slot.role in wanted else len(wanted))
    other = next(iter(numbers), None)
    if seed is None and other is None:
        other = next((slot for slot in slots if slot.type != "file"), None)
    return tuple(slot for slot in (other, seed) if slot is not None)


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
    yield from (value for value in others if value != slot.value and _is_allowed(slot, value))


def _propose_numbers(slot: Suggestion) -> list[Any]:
    """Values around the workflow's own, ascending; none if it is not a number, or a seed."""
    value = slot.value
    if not is_number(value) or slot.role == "seed":
        return []
    if slot.role in {"cfg", "guidance"} and value == 1:  # a distilled model
        found = [value, 1.5, 2.0]
    else:
        factors = _FACTORS.get(slot.role, _DEFAULT_FACTORS) if value else (1,)
        found = [_scale(slot, factor) for factor in factors]
    return sorted({number for number in found if number == value or _is_allowed(slot, number)})


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


def _is_allowed(slot: Suggestion, value: Any) -> bool:
    try:
        SlotSchema(slot.schema).normalise(value)
    except ValueRefusedError:
        return False
    return True


def _to_plain_yaml(text: str) -> str:
    is_plain = re.fullmatch(r"[A-Za-z][\w.-]*(?:://[\w.:-]+)?", text) and text.lower() not in {"true", "false", "null"}
    return text if is_plain else quote_yaml(text)


def _to_yaml(value: Any) -> str:
    return quote_yaml(value) if isinstance(value, str) else json.dumps(value)
