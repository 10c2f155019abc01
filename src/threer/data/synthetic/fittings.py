"""What belongs to the building: windows, blinds, doors, mirrors, radiators, ceiling lights, pillars, partitions.

Axes as in ``furniture``; wall fittings have their back at the wall and no depth to stand on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from threer.data.synthetic.chance import Chance
from threer.data.synthetic.furniture import Part, Piece, Vector, box, cylinder, sphere
from threer.data.synthetic.things import rod, scatter

Fitting = Callable[[Chance, float, float], Piece]  # (rng, height of the room, clutter)


def _bars(hx: float, low: float, high: float, z: float, thick: float, deep: float, role: str) -> list[Part]:
    """A rectangular frame of four bars."""
    y = (low + high) / 2
    upright = [box(s * hx, y, z, thick, (high - low) / 2 + thick, deep, role) for s in (-1, 1)]
    return upright + [box(0, end, z, hx, thick, deep, role) for end in (low, high)]


def window(rng: Chance, height: float, clutter: float) -> Piece:
    """Glowing pane, frame and bars, sill; often blinds, and a radiator below."""
    hx = rng.uniform(0.4, 0.95)
    low = rng.uniform(0.75, 1.0)
    high = min(height - 0.12, low + rng.uniform(0.9, 1.4))
    parts = [box(0, (low + high) / 2, 0.008, hx, (high - low) / 2, 0.008, "window")]
    parts += _bars(hx, low, high, 0.025, 0.025, 0.025, "white")
    for i in range(int(rng.integers(0, 3))):
        parts.append(box((i * 2 - 1) * hx / 3, (low + high) / 2, 0.02, 0.018, (high - low) / 2, 0.02, "white"))
    parts.append(box(0, low - 0.03, 0.08, hx + 0.05, 0.012, 0.08, "white"))
    if rng.random() < 0.55 * clutter:
        parts += _blinds(rng, hx, low, high)
    elif rng.random() < 0.5 * clutter:
        parts += [box(s * hx, height / 2, 0.1, 0.16, height / 2 - 0.12, 0.03, "cover") for s in (-1, 1)]
        parts.append(rod(0, height - 0.1, 0.1, 0.011, hx + 0.2, math.pi / 2, "metal"))
    if rng.random() < 0.6 * clutter:
        parts += _radiator(rng, min(hx, 0.6), low - 0.1)
    if rng.random() < 0.5 * clutter:
        parts += scatter(rng, 2 * clutter, hx, 0.03, low - 0.018)
    return Piece(tuple(parts), (hx + 0.08, 0.0))


def _blinds(rng: Chance, hx: float, low: float, high: float) -> list[Part]:
    """Slats over the upper part of a window, and their cords."""
    bottom = low + rng.choice((0.02, 0.25, 0.5)) * (high - low)
    slats = round((high - bottom) / rng.uniform(0.06, 0.1))
    tilt = rng.uniform(0.2, 1.2)
    parts = []
    for i in range(slats):
        y = bottom + (high - bottom) * (i + 0.5) / slats
        parts.append(Part("box", (0, y, 0.085), (hx - 0.01, 0.002, 0.024), 0.0, "blinds", tilt))
    parts.append(box(0, bottom, 0.085, hx - 0.01, 0.01, 0.015, "blinds"))
    return parts + [
        box(s * hx * 0.7, (bottom + high) / 2, 0.085, 0.003, (high - bottom) / 2, 0.003) for s in (-1, 1)
    ]


def _radiator(rng: Chance, hx: float, top: float) -> list[Part]:
    fins, low = int(rng.integers(6, 13)), 0.12
    step = 2 * hx / fins
    y, half = (top + low) / 2, (top - low) / 2
    parts = [box(-hx + step * (i + 0.5), y, 0.075, step * 0.32, half, 0.035, "white") for i in range(fins)]
    parts += [rod(0, end, 0.075, 0.016, hx, math.pi / 2, "white") for end in (low + 0.04, top - 0.04)]
    return [*parts, cylinder(hx + 0.03, low / 2 + 0.02, 0.075, 0.012, low / 2 + 0.02, "white")]


def door(rng: Chance, height: float, clutter: float) -> Piece:
    tall, hx = min(2.02, height - 0.06), rng.uniform(0.38, 0.46)
    side = rng.choice((-1.0, 1.0)) * (hx - 0.07)
    parts = [
        box(0, tall / 2, 0.01, hx, tall / 2, 0.01, "front"),
        *[box(s * (hx + 0.04), tall / 2 + 0.02, 0.018, 0.04, tall / 2 + 0.02, 0.018, "white") for s in (-1, 1)],
        box(0, tall + 0.04, 0.018, hx, 0.04, 0.018, "white"),
        rod(side * 0.92, 1.0, 0.06, 0.01, 0.055, math.pi / 2, "metal"),
        cylinder(side, 1.0, 0.03, 0.012, 0.03, "metal")._replace(tilt=math.pi / 2),
    ]
    if rng.random() < 0.5:
        parts += [box(0, tall * f, 0.022, hx * 0.7, tall * 0.17, 0.006, "front") for f in (0.28, 0.72)]
    return Piece(tuple(parts), (hx + 0.08, 0.0))


def picture(rng: Chance, height: float, clutter: float) -> Piece:
    hx, hy = rng.uniform(0.12, 0.5), rng.uniform(0.12, 0.45)
    y = min(height - hy - 0.1, rng.uniform(1.3, 1.7))
    parts = [box(0, y, 0.008, hx, hy, 0.008, "picture")]
    if rng.random() < 0.7:
        parts += _bars(hx, y - hy, y + hy, 0.014, rng.uniform(0.008, 0.02), 0.014, "legs")
    return Piece(tuple(parts), (hx + 0.02, 0.0))


def mirror(rng: Chance, height: float, clutter: float) -> Piece:
    hx, hy = rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.8)
    y = min(height - hy - 0.1, rng.uniform(1.1, 1.5))
    parts = [box(0, y, 0.01, hx, hy, 0.01, "mirror"), *_bars(hx, y - hy, y + hy, 0.018, 0.018, 0.018, "legs")]
    return Piece(tuple(parts), (hx + 0.03, 0.0))


def board(rng: Chance, height: float, clutter: float) -> Piece:
    """A whiteboard with a rail."""
    hx, hy = rng.uniform(0.5, 0.95), rng.uniform(0.4, 0.6)
    y = min(height - hy - 0.1, 1.45)
    parts = [box(0, y, 0.01, hx, hy, 0.01, "board"), *_bars(hx, y - hy, y + hy, 0.015, 0.012, 0.015, "metal")]
    parts.append(box(0, y - hy - 0.02, 0.05, hx * 0.6, 0.008, 0.04, "metal"))
    notes = [(rng.uniform(-0.8, 0.8) * hx, y + rng.uniform(-0.7, 0.7) * hy) for _ in range(round(5 * clutter))]
    parts += [box(nx, ny, 0.022, 0.06, 0.07, 0.0015, f"paper{i}") for i, (nx, ny) in enumerate(notes)]
    return Piece(tuple(parts), (hx + 0.03, 0.0))


def wall_shelf(rng: Chance, height: float, clutter: float) -> Piece:
    hx, parts = rng.uniform(0.3, 0.7), []
    for i in range(int(rng.integers(1, 3))):
        y = 1.3 + 0.36 * i
        parts.append(box(0, y, 0.11, hx, 0.012, 0.11, "top"))
        parts += [box(s * hx * 0.7, y - 0.06, 0.06, 0.008, 0.05, 0.06, "metal") for s in (-1, 1)]
        parts += [
            p._replace(centre=(p.centre[0], p.centre[1], p.centre[2] + 0.11))
            for p in scatter(rng, 5 * clutter, hx, 0.06, y + 0.012, 100 * i)
        ]
    return Piece(tuple(parts), (hx, 0.0))


def clock(rng: Chance, height: float, clutter: float) -> Piece:
    radius, y = rng.uniform(0.1, 0.2), min(height - 0.3, rng.uniform(1.7, 2.1))
    parts = [
        Part("cylinder", (0, y, 0.02), (radius, 0.02, radius), 0.0, "metal", math.pi / 2),
        Part("cylinder", (0, y, 0.025), (radius * 0.9, 0.017, radius * 0.9), 0.0, "white", math.pi / 2),
        box(0, y + radius * 0.3, 0.045, 0.008, radius * 0.3, 0.002, "dark"),
        box(radius * 0.35, y, 0.045, radius * 0.35, 0.006, 0.002, "dark"),
    ]
    return Piece(tuple(parts), (radius, 0.0))


def baseboards(size: Vector) -> list[Part]:
    """Along the four walls, in the room's axes."""
    sides = [box(s * (size[0] - 0.006), 0.04, 0, 0.006, 0.04, size[2], "white") for s in (-1, 1)]
    return sides + [box(0, 0.04, s * (size[2] - 0.006), size[0], 0.04, 0.006, "white") for s in (-1, 1)]


def ceiling_lights(rng: Chance, size: Vector) -> tuple[list[Part], list[tuple[float, float]], float]:
    """Panels in a grid, tubes, or globes on thin cords; where (x, z) they are; how far down they reach."""
    height = 2 * size[1]
    across = [max(1, min(4, round(2 * half / rng.uniform(1.8, 2.8)))) for half in (size[0], size[2])]
    spots = [
        (((i + 0.5) / across[0] * 2 - 1) * size[0], ((j + 0.5) / across[1] * 2 - 1) * size[2])
        for i in range(across[0])
        for j in range(across[1])
    ]
    kind = rng.random()
    parts: list[Part] = []
    drop, wide = rng.uniform(0.25, 0.6), rng.uniform(0.08, 0.18)
    below = 0.06 if kind < 0.4 else 0.14 if kind < 0.65 else drop + 2 * wide
    for x, z in spots:
        if kind < 0.4:
            parts.append(box(x, height - 0.008, z, 0.3, 0.008, 0.3, "panel"))
        elif kind < 0.65:
            parts.append(box(x, height - 0.03, z, 0.07, 0.03, 0.62, "white"))
            parts.append(rod(x, height - 0.075, z, 0.018, 0.58, 0, "panel"))
        else:
            parts.append(cylinder(x, height - drop / 2, z, 0.006, drop / 2, "dark"))
            parts.append(sphere(x, height - drop, z, wide, "panel"))
    return parts, spots, below


def pillar(rng: Chance, height: float, clutter: float) -> Piece:
    half = rng.uniform(0.12, 0.28)
    if rng.random() < 0.3:
        return Piece((cylinder(0, height / 2, 0, half, height / 2, "wall"),), (half, half))
    parts = (
        box(0, height / 2, 0, half, height / 2, half, "wall"),
        box(0, 0.04, 0, half + 0.012, 0.04, half + 0.012, "white"),
    )
    return Piece(parts, (half, half))


def partition(rng: Chance, height: float, clutter: float) -> Piece:
    """A free-standing wall of several panels on feet, or a full one."""
    if rng.random() < 0.4:
        hx = rng.uniform(0.5, 1.2)
        parts = [box(0, height / 2, 0, hx, height / 2, 0.05, "wall")]
        parts += [
            p._replace(centre=(p.centre[0], p.centre[1], p.centre[2] + 0.05))
            for p in picture(rng, height, clutter).parts
        ]
        return Piece(tuple(parts), (hx, 0.1))
    panels, high = int(rng.integers(1, 4)), rng.uniform(0.6, 0.9)
    hx = panels * 0.45
    parts = []
    for i in range(panels):
        x = (i + 0.5) * 0.9 - hx
        parts.append(box(x, high + 0.06, 0, 0.44, high - 0.02, 0.02, "partition"))
        parts.append(box(x, 0.015, 0, 0.02, 0.015, 0.2, "metal"))
    parts += [box(i * 0.9 - hx, high + 0.03, 0, 0.012, high + 0.03, 0.024, "metal") for i in range(panels + 1)]
    return Piece(tuple(parts), (hx, 0.2))
