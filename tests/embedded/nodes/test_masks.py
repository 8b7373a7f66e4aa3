"""Masks: values computed by hand."""

from __future__ import annotations

from typing import Any

from sweeper.embedded.nodes import NODE_CLASSES


class Bare:
    """The part of a context that these nodes use."""

    def check(self) -> None:
        pass


def run(kind: str, **inputs: Any) -> Any:
    values = NODE_CLASSES[kind].run(Bare(), **inputs).values
    return values[0] if len(values) == 1 else values


def test_solid_and_inverted_masks_add_up_to_one() -> None:
    solid = run("SolidMask", value=0.25, width=3, height=2)
    assert solid.shape == (1, 2, 3)
    assert run("InvertMask", mask=solid).tolist() == [[[0.75] * 3] * 2]
