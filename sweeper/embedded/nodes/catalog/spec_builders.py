"""How the catalogue spells a node class: short forms for the input specs of ComfyUI's object_info, and `Deferred`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sweeper.embedded.nodes.base import Combo, InputSpec, NodeClass

SIZE_MAX = 16384  # ComfyUI's MAX_RESOLUTION
SEED_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Deferred:
    """A function of `sweeper.embedded.nodes.<module>`, imported when it is first called (NumPy and Pillow with it)."""

    module: str
    function: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"sweeper.embedded.nodes.{self.module}"), self.function)(*args, **kwargs)


def link(kind: str) -> InputSpec:
    return kind, {}


def combo(options: tuple[str, ...], **more: Any) -> InputSpec:
    return list(options), more


def integer(default: int | None, low: int, high: int, step: int | None = None, **more: Any) -> InputSpec:
    return "INT", _number(default, low, high, step) | more


def number(default: float | None, low: float, high: float, step: float | None = None, **more: Any) -> InputSpec:
    return "FLOAT", _number(default, low, high, step) | more


def _number(default: Any, low: Any, high: Any, step: Any) -> dict[str, Any]:
    spec = {"default": default, "min": low, "max": high, "step": step}
    return {key: value for key, value in spec.items() if value is not None}


def seed() -> InputSpec:
    return integer(0, 0, SEED_MAX, control_after_generate=True)


def text(**more: Any) -> InputSpec:
    return "STRING", more


def node(
    name: str,
    run: tuple[str, str],
    category: str,
    inputs: Mapping[str, InputSpec],
    outputs: Mapping[str, str] | tuple[str, ...],
    *,
    title: str | None = "",
    optional: Mapping[str, InputSpec] | None = None,
    hidden: Mapping[str, str] | None = None,
    output_node: bool = False,
    fingerprint: tuple[str, str] | None = None,
    check: tuple[str, str] | None = None,
    combos: Mapping[str, Combo] | None = None,
    models: tuple[str, ...] = (),
    module: str = "nodes",
    v3: bool = False,
) -> NodeClass:
    """A node class. `outputs` maps names to types where they differ; `title` "" means the class's own name."""
    names = tuple(outputs)
    types = tuple(outputs.values()) if isinstance(outputs, Mapping) else outputs
    return NodeClass(
        name=name,
        display_name=name if title == "" else title,
        category=category,
        required=inputs,
        optional=optional or {},
        hidden=hidden or {},
        outputs=types,
        output_names=names,
        output_node=output_node,
        run=Deferred(*run),
        fingerprint=Deferred(*fingerprint) if fingerprint else None,
        check=Deferred(*check) if check else None,
        combos=combos or {},
        models=frozenset(models),
        python_module=module,
        v3=v3,
    )
