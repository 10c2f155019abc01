"""What richly furnished rooms are made of: every material of a room drawn at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from threer.data.synthetic.materials import Key, from_hsv, linear
from threer.data.synthetic.room_style import RoomStyle
from threer.data.synthetic.textures import COUNT, STYLES

MOST_GLOW = 9.0


class _Family(NamedTuple):
    """Base colours (ranges of hue, saturation, value) and how shiny."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]
    gloss: tuple[float, float] = (0.0, 0.1)
    sheen: tuple[float, float] = (0.0, 0.0)


class _Role(NamedTuple):
    """Families and texture styles to draw from, tile range in metres, how often a photograph, how much two tones.

    contrast  0..1 how far the texture's colours lie apart
    """

    families: tuple[str, ...]
    styles: tuple[str, ...] = ("plain",)
    tile: tuple[float, float] = (0.2, 1.0)
    photographed: float = 0.0
    contrast: float = 0.25


_FAMILIES = {
    "paint": _Family((0.0, 1.0), (0.02, 0.3), (0.6, 0.95)),
    "warm": _Family((0.04, 0.16), (0.03, 0.25), (0.7, 0.97)),
    "white": _Family((0.05, 0.2), (0.0, 0.08), (0.8, 0.97), (0.0, 0.15), (0.0, 0.15)),
    "wood": _Family((0.05, 0.11), (0.25, 0.65), (0.3, 0.85), (0.0, 0.25), (0.0, 0.3)),
    "metal": _Family((0.5, 0.65), (0.0, 0.1), (0.25, 0.8), (0.3, 0.8), (0.3, 0.8)),
    "dark": _Family((0.0, 1.0), (0.0, 0.2), (0.06, 0.25), (0.1, 0.4), (0.1, 0.5)),
    "grey": _Family((0.0, 1.0), (0.0, 0.12), (0.25, 0.7)),
    "cloth": _Family((0.0, 1.0), (0.05, 0.6), (0.15, 0.75), (0.0, 0.02)),
    "vivid": _Family((0.0, 1.0), (0.35, 0.95), (0.3, 0.95), (0.0, 0.4), (0.0, 0.4)),
    "green": _Family((0.2, 0.36), (0.4, 0.8), (0.2, 0.6), (0.0, 0.2)),
    "clay": _Family((0.02, 0.08), (0.3, 0.7), (0.4, 0.8)),
    "glass": _Family((0.4, 0.6), (0.0, 0.3), (0.15, 0.4), (0.6, 0.9), (0.7, 1.0)),
    "lit": _Family((0.5, 0.7), (0.05, 0.7), (0.35, 0.95), (0.1, 0.2), (0.2, 0.4)),
    "lamp": _Family((0.08, 0.16), (0.0, 0.25), (0.9, 1.0)),
    "sky": _Family((0.52, 0.62), (0.0, 0.25), (0.85, 1.0)),
}

_PRINT = ("glyphs", "blobs", "cells", "noise", "stripes", "checker")
_ROLES = {
    "wall": _Role(
        ("warm", "warm", "paint", "white"),
        ("plain", "plain", "noise", "speckle", "bricks", "stripes"),
        (0.5, 2.5),
        0.4,
        0.1,
    ),
    "floor": _Role(
        ("wood", "wood", "grey", "warm", "cloth"),
        ("wood", "wood", "noise", "speckle", "checker"),
        (0.6, 2.5),
        0.55,
        0.2,
    ),
    "ceiling": _Role(("white", "white", "warm"), ("plain", "plain", "speckle", "noise"), (0.6, 2.0), 0.1, 0.08),
    "top": _Role(("wood", "wood", "white", "grey", "dark"), ("wood", "plain", "noise", "speckle"), (0.4, 1.2), 0.3),
    "body": _Role(("wood", "white", "grey", "wood", "paint"), ("wood", "plain", "noise"), (0.3, 1.2), 0.25),
    "front": _Role(("wood", "white", "paint", "grey"), ("plain", "wood"), (0.3, 1.0), 0.15, 0.15),
    "legs": _Role(("metal", "dark", "wood"), ("plain", "wood")),
    "metal": _Role(("metal", "metal", "dark")),
    "dark": _Role(("dark",), ("plain", "speckle"), (0.1, 0.3)),
    "white": _Role(("white",), contrast=0.08),
    "seat": _Role(
        ("cloth", "cloth", "dark", "grey"), ("noise", "speckle", "plain", "checker", "stripes"), (0.1, 0.5), 0.15
    ),
    "keys": _Role(("dark", "white", "grey"), ("checker", "glyphs"), (0.06, 0.12), contrast=0.7),
    "paper": _Role(("white",), ("glyphs", "glyphs", "plain"), (0.15, 0.3), contrast=0.7),
    "book": _Role(("vivid", "cloth", "dark", "white"), ("plain", "stripes", "glyphs"), (0.1, 0.4), contrast=0.6),
    "leaves": _Role(("green",), ("cells", "blobs", "noise"), (0.08, 0.4), contrast=0.5),
    "pot": _Role(("clay", "white", "grey", "dark"), ("plain", "noise")),
    "screen": _Role(("lit", "lit", "dark"), ("glyphs", "plain", "blobs"), (0.3, 0.8), contrast=0.8),
    "picture": _Role(("vivid", "paint", "cloth", "green"), _PRINT, (0.25, 1.0), 0.35, 0.9),
    "mirror": _Role(("glass",)),
    "glass": _Role(("glass",)),
    "window": _Role(("sky",), ("plain", "plain", "blobs"), (0.6, 1.5), 0.0, 0.3),
    "panel": _Role(("lamp",)),
    "blinds": _Role(("white", "warm", "grey", "wood"), contrast=0.05),
    "partition": _Role(("grey", "cloth", "paint", "warm"), ("speckle", "noise", "plain"), (0.2, 0.6), 0.2, 0.15),
    "board": _Role(("white",), ("plain", "glyphs"), (0.6, 1.2), contrast=0.5),
    "rug": _Role(("cloth", "vivid"), _PRINT, (0.3, 1.2), 0.1, 0.6),
    "cover": _Role(("cloth", "white", "paint"), ("noise", "stripes", "checker", "cells"), (0.2, 0.8), 0.1, 0.4),
}
_ANY = _Role(
    ("vivid", "white", "grey", "dark", "wood", "cloth", "metal"), ("plain", "plain", *_PRINT), (0.08, 0.4), 0.1, 0.5
)
_GLOW = {"screen": 0.8, "window": 6.0, "panel": 4.0}


def role_of(name: str) -> str:
    """The role of a name such as ``book7``: a number at the end only tells materials of one role apart."""
    return name.rstrip("0123456789")


def draw_materials(rng: np.random.Generator, keys: Sequence[Key], style: RoomStyle) -> dict[str, np.ndarray]:
    """Materials of K keys: an array [K, ...] for each property, as ``Rooms`` describes them."""
    count = len(keys)
    names = [role_of(name) for _, name in keys]
    roles = [_ROLES.get(name, _ANY) for name in names]
    pick = rng.random((count, 4)).tolist()
    families = [_FAMILIES[r.families[int(p[0] * len(r.families))]] for r, p in zip(roles, pick, strict=True)]
    drawn = [STYLES.index(r.styles[int(p[1] * len(r.styles))]) for r, p in zip(roles, pick, strict=True)]
    repeats = COUNT // len(STYLES)
    texture = np.array([int(p[2] * repeats) * len(STYLES) + d for p, d in zip(pick, drawn, strict=True)])
    tile = _within(rng, np.array([r.tile for r in roles]))
    colours = _colours(rng, families, np.array([r.contrast for r in roles]))

    bank = len(style.photographs)
    if bank:
        shown = np.array([p[3] < r.photographed for r, p in zip(roles, pick, strict=True)])
        texture = np.where(shown, COUNT + rng.integers(bank, size=count), texture)
        tile = np.where(shown, np.maximum(tile, 0.3), tile)

    gloss = _within(rng, np.array([f.gloss for f in families]))
    sheen = _within(rng, np.array([f.sheen for f in families])) * style.glare
    polished = (rng.random(count) < 0.3) & np.isin(names, ("floor", "top", "front"))
    sheen = np.where(polished, np.maximum(sheen, 0.6 * style.glare), sheen)
    glow = np.array([_GLOW.get(name, 0.0) for name in names]) * rng.uniform(0.5, MOST_GLOW / 6, count)
    off = rng.random(count) < 0.35
    glow = np.where(off & (np.array(names) == "screen"), 0.0, glow)
    return {
        "texture": texture,
        "colours": colours,
        "tile": tile,
        "turn": rng.integers(4, size=count) * (math.pi / 2),
        "offset": rng.random((count, 2)),
        "gloss": gloss,
        "glow": glow,
        "sheen": sheen,
        "mirror": np.where(np.array(names) == "mirror", 0.92, 0.0),
    }


def _within(rng: np.random.Generator, bounds: np.ndarray) -> np.ndarray:
    """One value in each range of [K, 2]."""
    return np.asarray(bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * rng.random(len(bounds)))


def _colours(rng: np.random.Generator, families: Sequence[_Family], contrast: np.ndarray) -> np.ndarray:
    """Three linear colours a material [K, 3, 3]: the base, a darker or lighter one, one of another hue."""
    ranges = np.array([f[:3] for f in families])  # [K, 3, 2]
    hue, saturation, value = (_within(rng, ranges[:, i]) for i in range(3))
    shift = rng.uniform(-1, 1, (2, len(families))) * contrast
    turn = rng.normal(0, 0.35, (2, len(families))) * contrast
    tones = [from_hsv(hue, saturation, value)]
    for i in range(2):
        lifted = np.clip(value * (1 + shift[i]), 0.04, 1)
        tones.append(from_hsv(hue + turn[i], np.clip(saturation * (1 + shift[i] * 0.5), 0, 1), lifted))
    return linear(np.stack(tones, axis=1).clip(0.03, 0.95))
