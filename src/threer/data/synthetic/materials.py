"""What plain rooms are made of: a palette, and a material for each role of each piece."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np

from threer.data.synthetic.textures import COUNT, STYLES

Key = tuple[int, str]  # the number of a piece and a role in it
_COLUMNS = ("texture", "picked", "shades", "leaves", "tile", "turn", "offset", "gloss", "glow")
_LEAVES = np.array([[0.2, 0.4, 0.15], [0.35, 0.5, 0.2], [0.1, 0.25, 0.1]])  # sRGB


def linear(srgb: np.ndarray) -> np.ndarray:
    return np.asarray(srgb, dtype=np.float64) ** 2.2


def from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Hue, saturation, value, each [n] in 0..1, to RGB [n, 3]."""
    turn = np.stack([hue, hue - 1 / 3, hue + 1 / 3], axis=1)
    wave = np.clip(np.abs((turn % 1) * 6 - 3) - 1, 0, 1)
    return np.asarray(np.clip(value[:, None] * (1 - saturation[:, None] * (1 - wave)), 0.02, 1))


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Five sRGB colours [5, 3]: two light and calm, one dark, two free.

    Most rooms are furnished as people do, in off-white, grey and wood with an accent; the others in any colours.
    """
    if rng.random() < 0.65:
        hues = rng.uniform([0.05, 0.05, 0.0, 0.05, 0.0], [0.15, 0.65, 1.0, 0.1, 1.0])
        saturation = rng.uniform([0.02, 0.02, 0.05, 0.25, 0.3], [0.15, 0.12, 0.3, 0.55, 0.8])
        value = rng.uniform([0.75, 0.45, 0.12, 0.35, 0.35], [0.95, 0.85, 0.35, 0.7, 0.8])
        return from_hsv(hues, saturation, value)
    hue = rng.random()
    hues = (hue + np.array([0.0, 0.04, 0.08, 0.5, 0.33]) + rng.normal(0, 0.04, 5)) % 1
    saturation = np.array([0.12, 0.2, 0.45, 0.6, 0.5]) * rng.uniform(0.3, 1.3, 5)
    value = np.array([0.88, 0.75, 0.3, 0.65, 0.55]) * rng.uniform(0.75, 1.1, 5)
    return from_hsv(hues, saturation, value)


# role -> (texture styles to draw from, smallest and largest tile in metres); others draw from _ANY
_STYLES_OF = {
    "wall": (("plain", "noise", "plain", "bricks", "stripes", "speckle"), (0.5, 2.0)),
    "floor": (("wood", "checker", "bricks", "noise", "cells"), (0.6, 2.0)),
    "ceiling": (("plain", "noise", "speckle"), (0.8, 2.0)),
    "legs": (("plain", "wood"), (0.3, 1.0)),
    "top": (("wood", "plain", "noise"), (0.4, 1.2)),
    "body": (("wood", "plain", "noise", "stripes"), (0.3, 1.2)),
    "seat": (("plain", "noise", "checker", "stripes"), (0.15, 0.6)),
    "leaves": (("cells", "blobs", "noise"), (0.15, 0.4)),
    "screen": (("glyphs", "plain"), (0.4, 0.8)),
    "picture": (("blobs", "cells", "noise", "checker", "glyphs"), (0.3, 1.0)),
    "window": (("plain",), (1.0, 2.0)),
}
_ANY = (STYLES, (0.15, 0.8))
_GLOW = {"screen": 0.7, "window": 1.6}
_WALL_WEIGHTS = (0.45, 0.35, 0.05, 0.1, 0.05)
_GLOSS = ((0.5, 0.0), (0.85, 0.05), (1.0, 0.3))  # share of materials up to here, their gloss


class PlainMaterials:
    """Draws a material per key and remembers it, so that the four legs of a table match."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.palette = _palette(rng)
        self.known: dict[Key, int] = {}
        self.drawn: list[tuple[object, ...]] = []

    def get(self, key: Key) -> int:
        """Row of the key's material in ``columns``."""
        if key not in self.known:
            self.known[key] = len(self.drawn)
            self.drawn.append(self._draw(key[1]))
        return self.known[key]

    def columns(self, rows: list[int]) -> dict[str, np.ndarray]:
        """The materials of the rows, an array [len(rows), ...] for each property."""
        drawn = dict(zip(_COLUMNS, (np.array(column) for column in zip(*self.drawn, strict=True)), strict=True))
        shades, leaves = 0.8 + (1.15 - 0.8) * drawn.pop("shades"), drawn.pop("leaves")[:, None, None]
        srgb = (self.palette[drawn.pop("picked")] * shades[:, :, None]).clip(0.03, 0.95)
        drawn["colours"] = linear(np.where(leaves > 0, _LEAVES * leaves, srgb))
        return {name: column[rows] for name, column in drawn.items()}

    def _draw(self, role: str) -> tuple[object, ...]:
        """A value for each of ``_COLUMNS``."""
        rng = self.rng
        styles, (small, large) = _STYLES_OF.get(role, _ANY)
        style = STYLES.index(styles[int(rng.integers(len(styles)))])
        repeat = int(rng.integers(COUNT // len(STYLES)))
        if role in ("wall", "ceiling"):
            picked = [_weighted(_WALL_WEIGHTS, x) for x in rng.random(3).tolist()]
        else:
            picked = self._three_different()
        shades = rng.random(3)
        leaves = rng.uniform(0.7, 1.3) if role == "leaves" else 0.0
        tile = small + (large - small) * rng.random()
        turn, offset, chance = int(rng.integers(4)) * math.pi / 2, rng.random(2), rng.random()
        gloss = next(value for share, value in _GLOSS if chance < share)
        glow = _GLOW.get(role, 0.0)
        return repeat * len(STYLES) + style, picked, shades, leaves, tile, turn, offset, gloss, glow

    def _three_different(self) -> list[int]:
        """Three of five colours, as ``Generator.choice`` without replacement draws them, at a tenth of the cost."""
        picked: list[int] = []
        while len(picked) < 3:
            weights = [0.0 if i in picked else 0.2 for i in range(5)]
            fresh = [_weighted(weights, x) for x in self.rng.random(3 - len(picked)).tolist()]
            picked += dict.fromkeys(fresh)
        return picked


def _weighted(weights: tuple[float, ...] | list[float], chance: float) -> int:
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return bisect_right([s / total for s in sums], chance)
