"""A pooled embedding to pictures: the scene of a prompt in each of several layouts at latent resolution, in YUV.

All of it is continuous in the embedding: a word with half the weight does half of what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array, SceneLayout, make_layout, paint, rasterise, smooth, wave
from sweeper.embedded.diffusion.vocabulary import BACKDROPS, HASHED, INDEX, SUBJECTS, yuv

# backdrop: sky above, sky at the horizon, ground far, ground near (sRGB)
_PALETTES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "land": ((70, 130, 200), (205, 220, 225), (120, 150, 105), (75, 105, 55)),
    "sea": ((60, 125, 200), (200, 220, 230), (75, 140, 170), (25, 80, 125)),
    "forest": ((130, 165, 160), (200, 210, 185), (65, 95, 65), (40, 62, 35)),
    "mountain": ((75, 125, 195), (215, 220, 230), (120, 130, 140), (80, 95, 75)),
    "city": ((95, 125, 170), (215, 205, 200), (120, 118, 125), (65, 66, 75)),
    "desert": ((90, 150, 205), (240, 215, 175), (225, 175, 110), (190, 125, 65)),
    "snow": ((125, 160, 205), (220, 226, 236), (226, 232, 241), (243, 245, 249)),
    "space": ((30, 24, 66), (82, 48, 120), (62, 38, 98), (26, 22, 58)),
    "room": ((150, 142, 136), (176, 166, 156), (150, 136, 122), (98, 82, 70)),
    "field": ((90, 155, 220), (215, 230, 230), (150, 180, 85), (85, 140, 50)),
}


class Words:
    """The pooled embedding by feature name, with the shares of the backdrops made to sum to one."""

    def __init__(self, features: Array) -> None:
        self.features = features
        raw = {name: max(self[name], 0.0) for name in BACKDROPS}
        raw["land"] += 0.15  # what there is when nothing is said
        total = sum(raw.values())
        self.shares = {name: value / total for name, value in raw.items()}

    def __getitem__(self, name: str) -> float:
        return float(self.features[INDEX[name]])

    def amount(self, name: str, most: float = 1.0) -> float:
        """A feature as an opacity, 0 .. most, rising smoothly to its limit."""
        return most * float(np.tanh(max(self[name], 0.0) / most * 1.2))


def compose(features: Array, height: int, width: int, layouts: Array) -> Array:
    """The scene of a pooled embedding [F] in each of the layouts [K, P]: [K, 3, h, w], Y about -0.5 .. 0.5, U and V."""
    words = Words(features)
    plan = make_layout(height, width, features[-HASHED:], layouts)
    horizon = plan.scale_parameter(0, -0.15, 0.5) + 0.8 * words.shares["room"] - 0.12 * words.shares["snow"]
    picture = _backdrop(words, plan, horizon)
    _sky(words, plan, horizon, picture)
    _ridges(words, plan, horizon, picture)
    _ground(words, plan, horizon, picture)
    draw_subjects(words, plan, horizon, picture)
    _weather(words, plan, horizon, picture)
    return _grade(words, plan, picture)


def _backdrop(words: Words, plan: SceneLayout, horizon: Array) -> Array:
    colours = np.zeros((4, 3), np.float32)
    for name in BACKDROPS:
        colours += np.array([yuv(colour) for colour in _PALETTES[name]], np.float32) * words.shares[name]
    tint = words.amount("tint") * 0.75
    if tint:
        target = np.array([words["tint_y"], words["tint_u"], words["tint_v"]], np.float32) / max(words["tint"], 1.0)
        strength = np.array([0.45, 0.6, 0.75, 0.6], np.float32)[:, None] * tint
        colours += (target - colours) * strength
    top, low, far, near = (colour[None, :, None, None] for colour in colours)
    height = (plan.y + 1) / (horizon + 1)
    depth = (plan.y - horizon) / (1.05 - horizon)
    sky = top + (low - top) * smooth(np.clip(height, 0, 1) ** 1.4)[:, None]
    ground = far + (near - far) * smooth(np.clip(depth, 0, 1) ** 0.8)[:, None]
    line = horizon + 0.03 * wave(plan, plan.x, 8, 3) * (1 - words.shares["sea"])
    edge = rasterise(line - plan.y, plan.pixel * (1 + 14 * words.shares["room"]))
    picture = sky + (ground - sky) * edge[:, None]
    return np.array(np.broadcast_to(picture, (*picture.shape[:2], plan.y.shape[1], plan.x.shape[2])), np.float32)


def _sky(words: Words, plan: SceneLayout, horizon: Array, picture: Array) -> None:
    above = rasterise(plan.y - horizon, plan.pixel)
    glow = words.amount("sunset")
    if glow:
        band = np.exp(-(((plan.y - horizon) / 0.45) ** 2)) * above * glow * 0.85
        paint(picture, band, yuv((245, 140, 70)))
    outdoors = 1 - words.shares["room"] - 0.6 * words.shares["space"]
    x, y = plan.scale_parameter(1, -0.8, 0.8), horizon - plan.scale_parameter(2, 0.12, 0.75)
    distance = np.hypot(plan.x - x, plan.y - y)
    sun = yuv((252, 232, 175)) if words["dark"] < 0.4 else yuv((235, 236, 240))
    halo = np.exp(-((distance / (0.32 + 0.2 * glow)) ** 2)) * above
    paint(picture, halo * 0.42 * outdoors, sun)
    paint(picture, rasterise(distance - plan.scale_parameter(3, 0.06, 0.13), plan.pixel) * above * outdoors, sun)
    cover = 0.28 * outdoors + 0.6 * words.amount("clouds")
    shape = wave(plan, plan.x * 1.3 + 0.5 * wave(plan, plan.y * 5, 12, 2), 14, 3)
    shape = shape * 0.6 + wave(plan, plan.y * 4.5 + 0.4 * shape, 18, 3) * 0.5
    white = yuv((244, 244, 246)) if words["dark"] < 0.4 else yuv((90, 92, 105))
    paint(picture, smooth((shape - 0.32 + 0.4 * cover) * 2.2) * above * min(cover, 1.0) * 0.8, white)
    nebula = words.shares["space"]
    if nebula > 0.05:
        cloud = smooth(wave(plan, plan.x * 1.6 + 1.3 * wave(plan, plan.y * 2, 21, 3), 24, 3) * 0.8 + 0.35)
        paint(picture, cloud * 0.55 * nebula, yuv((150, 50, 160)))
        other = smooth(wave(plan, plan.y * 2 + 1.1 * wave(plan, plan.x * 2, 27, 3), 30, 3) * 0.8 + 0.2)
        paint(picture, other * 0.45 * nebula, yuv((40, 120, 190)))


def _ridges(words: Words, plan: SceneLayout, horizon: Array, picture: Array) -> None:
    """Mountains, woods and roofs: three ranges behind each other, paler with distance."""
    sharp = words.shares["mountain"] + 0.35 * words.shares["snow"] + 0.25 * words.shares["land"]
    woods, roofs = words.shares["forest"] + 0.25 * words.shares["field"], words.shares["city"]
    outside = (1 - words.shares["room"]) * (1 - words.shares["space"])
    for layer in range(3):
        near = (layer + 1) / 3
        first = 3 + 11 * layer
        line = wave(plan, plan.x * 1.2, first, 4, 0.55)
        peaks = 0.5 * (1 - np.abs(wave(plan, plan.x * 1.5, first + 3, 3))) + 0.35 * line
        blocks = np.round(wave(plan, np.round(plan.x * 5) / 1.1, first + 5, 3, 0.9) * 3) / 3
        spikes = np.abs((plan.x * (7 + 3 * layer) + line * 2) % 1.0 - 0.5)
        height = 0.06 + 0.1 * line * (1 - near / 2)
        height = height + sharp * peaks * (0.95 - 0.5 * near) + roofs * (0.3 + 0.42 * blocks) * (0.55 + 0.45 * near)
        height = height + woods * (0.5 - 0.12 * near + 0.18 * line + (0.5 - spikes) * 0.34)
        height = height * plan.scale_parameter(36, 0.75, 1.2) * outside
        mask = rasterise(horizon - height - plan.y, plan.pixel) * rasterise(plan.y - horizon - 0.5, plan.pixel)
        present = min(1.0, 1.6 * (sharp + woods + roofs) + 0.25) * outside
        paint(picture, mask * present, _ridge_colour(words, near))
        if sharp > 0.1:
            caps = smooth((height - (0.34 - 0.1 * near)) * 4) * smooth((horizon - height * 0.72 - plan.y) * 9)
            paint(picture, mask * caps * min(sharp * 1.3, 1.0) * 0.8, yuv((238, 241, 246)))
        if roofs > 0.1:
            windows = (np.sin(plan.x * 34) > 0.1) & (np.sin(plan.y * 38) > 0.1)
            lit = yuv((255, 236, 170)) if words["dark"] > 0.3 else yuv((70, 80, 100))
            paint(picture, mask * windows * roofs * 0.9 * near, lit)


def _ridge_colour(words: Words, near: float) -> tuple[float, float, float]:
    bases = {"mountain": (92, 102, 125), "forest": (38, 76, 48), "city": (82, 84, 100), "snow": (160, 178, 202)}
    bases |= {"land": (84, 112, 90), "desert": (186, 130, 82), "field": (78, 122, 62), "sea": (90, 110, 120)}
    total = sum(np.array(yuv(rgb), np.float32) * words.shares[name] for name, rgb in bases.items())
    colour = total / max(sum(words.shares[name] for name in bases), 1e-3)
    haze = np.array(yuv((196, 206, 218)), np.float32)
    mixed = colour + (haze - colour) * (0.62 - 0.55 * near)
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def _ground(words: Words, plan: SceneLayout, horizon: Array, picture: Array) -> None:
    below = rasterise(horizon - plan.y, plan.pixel)
    depth = np.clip((plan.y - horizon) / (1 - horizon), 0.02, 1)
    sea = words.shares["sea"]
    if sea > 0.05:
        ripple = np.sin(9 / (depth + 0.12) + 1.6 * wave(plan, plan.x * (1 + 2 / (depth + 0.3)), 20, 3))
        paint(picture, below * smooth(ripple * 1.2 - 0.1) * 0.32 * min(sea * 1.6, 1.0), yuv((225, 238, 242)))
        path = np.exp(-(((plan.x - plan.scale_parameter(1, -0.8, 0.8)) / (0.1 + 0.25 * depth)) ** 2))
        paint(picture, below * path * smooth(ripple) * 0.5 * sea, yuv((252, 235, 190)))
    sand = words.shares["desert"] + 0.5 * words.shares["snow"]
    if sand > 0.05:
        dune = wave(plan, plan.x * 1.4 + depth * 3, 25, 2) + 0.8 * np.sin(depth * 9 + plan.x * 2)
        paint(picture, below * smooth(dune) * 0.3 * sand, yuv((120, 90, 95)))
    green = words.shares["field"] + words.shares["land"] * 0.6 + words.shares["forest"] * 0.5
    if green > 0.05:
        tufts = wave(plan, plan.x * 6 / (depth + 0.4), 28, 3, 0.8) + wave(plan, plan.y * 17, 31, 2)
        paint(picture, below * smooth(tufts - 0.1) * 0.34 * min(green, 1.0), yuv((48, 76, 34)))
        road = (
            np.abs(plan.x - plan.scale_parameter(33, -0.6, 0.6) * (1.2 - depth) - 0.2 * np.sin(depth * 4))
            - 0.03
            - 0.13 * depth
        )
        paint(picture, below * rasterise(road, plan.pixel) * 0.55 * words.shares["land"], yuv((205, 185, 150)))


def _weather(words: Words, plan: SceneLayout, horizon: Array, picture: Array) -> None:
    fog = words.amount("fog")
    if fog:
        bank = np.exp(-(((plan.y - horizon - 0.1) / 0.6) ** 2)) * (0.75 + 0.25 * wave(plan, plan.x * 1.5, 5, 3))
        paint(picture, bank * fog * 0.85, yuv((206, 212, 218)))
    rain = words.amount("rain")
    if rain:
        streak = np.sin((plan.x + plan.y * 0.25) * 60 + 3 * wave(plan, plan.y * 3, 9, 2))
        paint(picture, smooth(streak - 0.4) * 0.3 * rain, yuv((190, 200, 215)))


def _grade(words: Words, plan: SceneLayout, picture: Array) -> Array:
    """Light and style: night, warmth, contrast, saturation, vignette, paper."""
    dark = float(np.clip(words["dark"], -0.5, 1.3))
    y = picture[:, 0]
    if dark > 0:
        y[:] = (y + 0.5) * (1 - 0.55 * min(dark, 1.2)) - 0.5 + 0.03
        picture[:, 1] += 0.03 * dark
        picture[:, 2] -= 0.035 * dark
    else:
        y += (0.5 - y) * (-0.4 * dark)
    stars = words.amount("stars") * (1 - words.shares["room"])
    if stars:
        night = np.clip((plan.scale_parameter(0, -0.15, 0.5) + words.shares["space"] - plan.y) * 4, 0, 1)
        twinkle = np.sin(plan.x * 37 + 9 * wave(plan, plan.y * 9, 2, 3)) * np.sin(
            plan.y * 41 + 9 * wave(plan, plan.x * 9, 6, 3)
        )
        y += smooth((twinkle - 0.86) * 8) * 0.55 * stars * night
    flat = words.amount("flat", 1.5)
    if flat:
        steps = np.round(y * 6) / 6
        y += (steps - y) * min(0.7 * flat, 0.9)
    y[:] = y * float(np.exp(np.clip(words["contrast"], -1.5, 1.5)))
    # Each composition has its own hour of the day.
    y += plan.scale_parameter(4, -0.05, 0.05)
    warm = float(np.clip(words["warm"], -1.5, 1.5)) + plan.scale_parameter(5, -0.55, 0.55)
    picture[:, 1] -= 0.055 * warm
    picture[:, 2] += 0.05 * warm
    glow = words.amount("glow", 1.5)
    if glow:
        picture[:, 1] += glow * 0.06 * np.sin(plan.x * 2.2 + plan.scale_parameter(11, 0, 6.28))
        picture[:, 2] += glow * 0.09 * np.sin(plan.y * 3.1 + plan.scale_parameter(12, 0, 6.28))
    saturation = words["saturation"]
    picture[:, 1:] *= max(0.0, 1 + saturation) if saturation < 0 else 1 + 0.8 * float(np.tanh(saturation))
    # Dark colours cannot be as strong as light ones on a screen: keep hue where clipping would turn it.
    chroma = np.hypot(picture[:, 1], picture[:, 2])
    picture[:, 1:] *= np.minimum(1, (0.12 + 0.9 * np.clip(y + 0.5, 0, 1)) / np.maximum(chroma, 1e-6))[:, None]
    paper = words.amount("paper")
    if paper:
        edge = smooth((np.maximum(np.abs(plan.x) / np.abs(plan.x).max(), np.abs(plan.y)) - 0.72) * 3.6)
        paint(picture, np.broadcast_to(edge * 0.8 * paper, y.shape), yuv((240, 234, 220)))
        y += (0.42 - y) * 0.14 * paper
    return picture


# --- subjects: layers (signed distance, colour) in coordinates u (right) and v (down), about -1 .. 1 -----------------

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
    return reduce(np.minimum, shapes)


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
    if ears <= 0:
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
