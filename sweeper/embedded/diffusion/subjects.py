"""The things that stand in a picture, drawn from signed distances: animals, towers, houses, trees, boats, ...

Each `_draw_*` gets local coordinates (u to the right, v down, about -1 .. 1 over the thing) and yields the layers it
is made of as (signed distance, colour).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array, SceneLayout, paint, rasterise, smooth, wave
from sweeper.embedded.diffusion.vocabulary import SUBJECTS, yuv

Colour = tuple[float, float, float]
Layer = tuple[Array, Colour]

_DARK, _LIGHT, _LAMP = yuv((38, 34, 38)), yuv((240, 236, 228)), yuv((255, 232, 150))


def _ellipse(u: Array, v: Array, cx: Any, cy: Any, rx: Any, ry: Any) -> Array:
    return np.asarray((np.hypot((u - cx) / rx, (v - cy) / ry) - 1) * np.minimum(rx, ry))


def _box(u: Array, v: Array, cx: Any, cy: Any, rx: Any, ry: Any) -> Array:
    return np.asarray(np.maximum(np.abs(u - cx) - rx, np.abs(v - cy) - ry))


def _triangle(u: Array, v: Array, cx: Any, top: Any, half: Any, height: Any) -> Array:
    """Upright, apex at (cx, top)."""
    down = (v - top) / height
    return np.asarray(np.maximum(np.abs(u - cx) - half * np.clip(down, 0, 1), np.maximum(top - v, v - top - height)))


def _line(u: Array, v: Array, a: tuple[Any, Any], b: tuple[Any, Any], radius: Any) -> Array:
    dx, dy = b[0] - a[0], b[1] - a[1]
    t = np.clip(((u - a[0]) * dx + (v - a[1]) * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
    return np.asarray(np.hypot(u - a[0] - t * dx, v - a[1] - t * dy) - radius)


def _join(*shapes: Array) -> Array:
    result = shapes[0]
    for shape in shapes[1:]:
        result = np.minimum(result, shape)
    return result


def _shade(colour: Colour, by: float) -> Colour:
    return colour[0] + by, colour[1] * (1 - abs(by)), colour[2] * (1 - abs(by))


def _animal(words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    ears, tail = words["ears"], words["tail"]
    legs, neck = float(np.clip(words["legs"], 0, 1.3)), float(np.clip(words["neck"], 0, 1.4))
    belly = 0.22 - 0.18 * legs
    body = _ellipse(u, v, 0.0, belly, 0.56, 0.3 - 0.05 * legs)
    hx, hy = 0.52, belly - 0.36 - 0.42 * neck
    length = 0.25 + 0.42 * legs
    limbs = [
        _line(u, v, (x, belly), (x + 0.03, belly + 0.22 + length), 0.085 - 0.02 * legs)
        for x in (-0.38, -0.2, 0.24, 0.4)
    ]
    throat = _line(u, v, (0.34, belly - 0.08), (hx, hy), 0.16)
    head = _ellipse(u, v, hx, hy, 0.25, 0.21)
    snout = _ellipse(u, v, hx + 0.25, hy + 0.07, 0.15, 0.09)
    swing = plan.scale_parameter(38, -0.35, 0.25)
    if tail > 0:
        end = (-0.62 - 0.28 * tail, belly - 0.15 + swing)
        tail_shape = _line(u, v, (-0.48, belly - 0.04), end, 0.05 + 0.11 * min(tail, 1.0))
        yield tail_shape, own
        yield _ellipse(u, v, end[0], end[1], 0.13 * min(tail, 1.0) + 0.01, 0.11), _LIGHT
    yield _join(*limbs), _shade(own, -0.14)
    shapes = [body, throat, head, snout]
    if ears > 0:
        rise = 0.15 + 0.22 * ears
        shapes += [_triangle(u, v, hx + dx, hy - 0.12 - rise, 0.1, rise + 0.1) for dx in (-0.13, 0.08)]
        yield _join(*shapes), own
    else:
        yield _join(*shapes), own
        yield _ellipse(u, v, hx - 0.13, hy - 0.02, 0.09, 0.17), _shade(own, -0.12)
    yield _ellipse(u, v, 0.18, belly + 0.17, 0.3, 0.1), _shade(own, 0.16)
    yield _ellipse(u, v, hx + 0.22, hy + 0.12, 0.13, 0.05), _LIGHT
    yield (
        _join(_ellipse(u, v, hx + 0.09, hy - 0.03, 0.045, 0.05), _ellipse(u, v, hx + 0.38, hy + 0.04, 0.045, 0.04)),
        _DARK,
    )


def _bird(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    flap = plan.scale_parameter(38, -0.55, 0.15)
    yield _line(u, v, (-0.4, 0.05), (-0.85, 0.2), 0.1), _shade(own, -0.1)
    yield _ellipse(u, v, 0.0, 0.0, 0.46, 0.25), own
    yield _ellipse(u, v, 0.42, -0.2, 0.2, 0.18), own
    yield _line(u, v, (-0.05, -0.08), (-0.3, flap - 0.25), 0.17), _shade(own, -0.16)
    yield _ellipse(u, v, 0.12, 0.1, 0.26, 0.11), _shade(own, 0.22)
    yield _line(u, v, (0.58, -0.18), (0.78, -0.13), 0.045), yuv((240, 170, 40))
    yield _ellipse(u, v, 0.48, -0.24, 0.04, 0.04), _DARK


def _fish(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    sway = plan.scale_parameter(38, -0.15, 0.15)
    tail = np.maximum(np.abs(v - sway) - np.clip(-0.4 - u, 0, 1) * 0.75, np.abs(u + 0.65) - 0.24)
    yield np.asarray(tail), _shade(own, -0.1)
    yield _triangle(u, v, -0.05, -0.5, 0.28, 0.35), _shade(own, -0.12)
    yield _ellipse(u, v, 0.05, 0.0, 0.58, 0.3), own
    yield _ellipse(u, v, 0.05, 0.14, 0.42, 0.12), _shade(own, 0.25)
    yield _ellipse(u, v, 0.4, -0.08, 0.06, 0.06), _DARK


def _person(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    skin = yuv((222, 170, 138))
    hair = yuv((60 + int(90 * plan.parameters[0, 41]), 42, 30))
    yield _join(_ellipse(u, v, 0, 0.82, 0.66, 0.42), _box(u, v, 0, 1.25, 0.66, 0.45)), own
    yield _ellipse(u, v, 0, 0.42, 0.2, 0.13), _shade(skin, -0.06)
    yield _ellipse(u, v, 0, -0.32, 0.37, 0.45), hair
    yield _line(u, v, (0.0, -0.1), (0.0, 0.35), 0.13), _shade(skin, -0.1)
    yield _ellipse(u, v, 0.0, -0.22, 0.28, 0.37), skin
    fringe = np.maximum(_ellipse(u, v, 0, -0.42, 0.33, 0.26), v + 0.36 + 0.1 * np.sin(u * 6))
    yield np.asarray(fringe), hair
    yield _join(*(_ellipse(u, v, x, -0.2, 0.055, 0.035) for x in (-0.11, 0.11))), _DARK
    yield _ellipse(u, v, 0, -0.01, 0.085, 0.028), yuv((176, 82, 76))


def _house(words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    yield _box(u, v, 0.35, -0.45, 0.08, 0.3), _shade(own, -0.25)
    yield _box(u, v, 0, 0.32, 0.6, 0.42), own
    yield _triangle(u, v, plan.scale_parameter(38, -0.1, 0.1), -0.62, 0.78, 0.55), yuv((150, 62, 48))
    lit = _LAMP if words["dark"] > 0.3 else yuv((90, 112, 135))
    yield _join(*(_box(u, v, x, 0.2, 0.11, 0.12) for x in (-0.34, 0.34))), lit
    yield _box(u, v, 0, 0.48, 0.12, 0.26), _shade(own, -0.32)


def _tower(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    yield _ellipse(u, v, 0.0, 1.05, 0.75, 0.24), yuv((88, 82, 78))
    width = 0.17 + 0.1 * (v + 0.6)
    shaft = np.maximum(np.abs(u) - width, np.abs(v - 0.2) - 0.8)
    yield np.asarray(shaft), own
    yield np.asarray(np.maximum(shaft, -np.sin(v * 7.5 + plan.scale_parameter(38, 0, 3)) * 0.12)), yuv((196, 52, 44))
    yield np.asarray(np.maximum(shaft, width * 0.35 - u)), _shade(own, -0.2)
    yield _box(u, v, 0, -0.66, 0.25, 0.045), _DARK
    yield _box(u, v, 0, -0.79, 0.13, 0.11), _LAMP
    yield _triangle(u, v, 0, -1.1, 0.19, 0.22), yuv((160, 46, 40))


def _tree(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    yield _line(u, v, (0, 1), (0.04, -0.1), 0.09), yuv((92, 66, 44))
    bumps = 0.06 * np.sin(np.arctan2(v + 0.3, u) * 7 + plan.scale_parameter(39, 0, 6))
    yield np.asarray(_ellipse(u, v, 0, -0.3, 0.58, 0.6) + bumps), own
    yield np.asarray(_ellipse(u, v, -0.15, -0.45, 0.3, 0.3) + bumps), _shade(own, 0.12)


def _flower(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    yield _line(u, v, (0, -0.2), (0.08, 1.05), 0.045), yuv((52, 118, 52))
    yield _ellipse(u, v, 0.24, 0.62, 0.22, 0.08), yuv((60, 132, 58))
    angle = np.arctan2(v + 0.3, u) + plan.scale_parameter(38, 0, 2)
    petals = np.round(plan.scale_parameter(39, 5, 9))
    yield np.asarray(np.hypot(u, v + 0.3) - 0.4 - 0.15 * np.cos(angle * petals)), own
    yield np.asarray(np.hypot(u, v + 0.3) - 0.24 - 0.1 * np.cos(angle * petals + 3)), _shade(own, 0.15)
    yield _ellipse(u, v, 0, -0.3, 0.14, 0.14), yuv((245, 200, 60))


def _boat(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    lean = plan.scale_parameter(38, -0.06, 0.06)
    yield _line(u, v, (0.02, 0.3), (0.02 + lean, -0.95), 0.03), _DARK
    yield _triangle(u - 0.3, v, lean - 0.16, -0.85, 0.42, 0.98), _LIGHT
    yield _triangle(u + 0.24, v, lean + 0.12, -0.62, 0.26, 0.78), _shade(_LIGHT, -0.12)
    yield np.asarray(np.maximum(np.abs(u) - 0.75 + 0.5 * np.clip(v - 0.25, 0, 1), np.abs(v - 0.42) - 0.17)), own


def _car(words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    yield _ellipse(u, v, plan.scale_parameter(38, -0.1, 0.05), 0.02, 0.48, 0.34), own
    yield _ellipse(u, v, -0.03, 0.02, 0.38, 0.24), yuv((150, 185, 205))
    yield _box(u, v, 0, 0.24, 0.82, 0.2), own
    yield _box(u, v, 0, 0.36, 0.82, 0.05), _shade(own, -0.2)
    yield _join(*(_ellipse(u, v, x, 0.44, 0.19, 0.19) for x in (-0.48, 0.48))), _DARK
    yield _join(*(_ellipse(u, v, x, 0.44, 0.08, 0.08) for x in (-0.48, 0.48))), yuv((170, 172, 176))
    yield _ellipse(u, v, 0.78, 0.2, 0.06, 0.06), _LAMP if words["dark"] > 0.3 else _LIGHT


def _fruit(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    yield _ellipse(u, v, 0.1, 0.66, 0.66, 0.12), yuv((70, 58, 50))
    dent = 0.05 * np.cos(np.arctan2(u, -v) * 2 + plan.scale_parameter(38, -0.4, 0.4))
    yield np.asarray(_ellipse(u, v, 0, 0.1, 0.58, 0.56) + dent), own
    yield _ellipse(u, v, -0.2, -0.12, 0.17, 0.13), _shade(own, 0.3)
    yield _line(u, v, (0, -0.4), (0.09, -0.68), 0.035), yuv((82, 60, 40))
    yield _ellipse(u, v, 0.26, -0.58, 0.18, 0.075), yuv((78, 140, 58))


def _orb(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    ball = np.hypot(u, v) - 0.62
    yield np.asarray(ball), own
    bands = np.sin(v * 7 + 1.2 * wave(plan, u * 2 + v, 22, 3))
    yield np.asarray(np.maximum(ball, 0.25 - bands * 0.4)), _shade(own, -0.14)
    yield np.asarray(np.maximum(ball, 0.58 - np.hypot(u + 0.3, v + 0.3))), _shade(own, -0.22)
    ring = np.abs(np.hypot(u, (v + 0.22 * u) * 3.4) - 0.95) - 0.07
    yield (
        np.asarray(np.maximum(ring, -np.maximum(ball, v + 0.22 * u)))
        + 0.25 * np.maximum(0.6 - plan.scale_parameter(39), 0),
        _LIGHT,
    )


def _thing(_words: Any, plan: SceneLayout, u: Array, v: Array, own: Colour) -> Iterator[Layer]:
    """An unknown word: a body of revolution or a star that its hash has shaped."""
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    lobes = np.round(plan.scale_parameter(40, 2, 7))
    outline = 0.5 + plan.scale_parameter(41, 0.02, 0.2) * np.cos(angle * lobes + plan.scale_parameter(42, 0, 6.28))
    outline = outline + plan.scale_parameter(43, 0, 0.12) * np.cos(
        angle * 2 * lobes + plan.scale_parameter(44, 0, 6.28)
    )
    yield np.asarray(radius - outline), own
    yield np.asarray(radius - outline * plan.scale_parameter(45, 0.55, 0.8)), _shade(own, 0.18)
    yield (
        np.asarray(radius - outline * plan.scale_parameter(46, 0.2, 0.5)),
        (-own[0] * 0.6, -own[1] * 0.8, own[2] * 0.6),
    )


_DRAWERS: dict[str, Callable[..., Iterator[Any]]] = {
    "animal": _animal, "bird": _bird, "fish": _fish, "person": _person, "house": _house, "tower": _tower,
    "tree": _tree, "flower": _flower, "boat": _boat, "car": _car, "fruit": _fruit, "orb": _orb, "thing": _thing,
}  # fmt: skip
# How high each stands in the picture (centre, against the horizon), and its size (half height).
_STANDS = {
    "animal": (0.42, 0.5), "bird": (-0.3, 0.34), "fish": (0.42, 0.42), "person": (0.0, 0.85), "house": (0.12, 0.46),
    "tower": (-0.2, 0.72), "tree": (-0.05, 0.66), "flower": (0.3, 0.62), "boat": (0.1, 0.5), "car": (0.4, 0.5),
    "fruit": (0.3, 0.5), "orb": (-0.32, 0.46), "thing": (0.12, 0.48),
}  # fmt: skip


def draw_subjects(words: Any, plan: SceneLayout, horizon: Array, picture: Array) -> None:
    """Draw what the prompt names, the heaviest last and in front; the hash of unknown words colours the rest."""
    named = [(words.amount(name), name) for name in SUBJECTS]
    named_weight = max(weight for weight, name in named if name != "thing")
    order = sorted((weight * (1 - 0.9 * named_weight if name == "thing" else 1.0), name) for weight, name in named)
    drawn = [(weight, name) for weight, name in order if weight > 0.02]
    size = plan.scale_parameter(34, 0.8, 1.15) * float(np.exp(0.55 * np.clip(words["size"], -1.4, 1.2)))
    for index, (weight, name) in enumerate(reversed(drawn[-3:])):
        side = plan.scale_parameter(35, -0.5, 0.5) * (1 - min(words.amount("symmetry"), 1.0)) + (-0.62, 0.62, 0.0)[
            index - 1
        ] * (index > 0)
        away, half = _STANDS[name]
        grown = half * size * (1.0 if index == 0 else 0.62)
        y = np.clip(np.minimum(horizon, 0.35) + away * size**0.5, -0.55, 0.66) + (0.06 * index)
        facing = np.where(plan.scale_parameter(37) > 0.5, 1.0, -1.0).astype(np.float32)
        copies = [(side, 1.0), (side - 0.75, 0.6), (side + 0.72, 0.5)] if words["many"] > 0.5 else [(side, 1.0)]
        for offset, shrink in reversed(copies):
            u, v = (plan.x - offset) * facing / (grown * shrink), (plan.y - y) / (grown * shrink)
            layers = _DRAWERS[name](words, plan, u, v, _own_colour(words))
            if name not in ("bird", "orb", "thing"):
                shadow = _ellipse(u, v, 0.15, 0.95, 0.9, 0.16)
                paint(picture, smooth(-shadow * 6 + 0.2) * 0.35 * weight, _DARK)
            for distance, colour in layers:
                paint(picture, rasterise(np.asarray(distance * grown * shrink), plan.pixel) * weight, colour)


def _own_colour(words: Any) -> tuple[float, float, float]:
    """The subject's colour, or for unnamed things one that their hash chooses."""
    share = words["subject_colour"]
    hue = 3.1 + float(words.features[-1] * 2 + words.features[-2])
    fallback = np.array([-0.05 + 0.12 * np.sin(hue * 2), 0.22 * np.cos(hue), 0.24 * np.sin(hue)])
    named = np.array([words["subject_y"], words["subject_u"], words["subject_v"]]) / max(share, 1e-3)
    mixed = fallback + (named - fallback) * min(share * 2.9, 1.0)
    return float(mixed[0]), float(mixed[1]), float(mixed[2])
