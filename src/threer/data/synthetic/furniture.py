"""Furniture templates: each returns the parts of one piece, standing on y = 0 with its back towards -z.

Local axes: x right, y up from the floor, z forward (towards the room). Metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from threer.data.synthetic.chance import Source

Kind = Literal["box", "cylinder", "sphere"]
Vector = tuple[float, float, float]


class Part(NamedTuple):
    """One primitive of a piece.

    centre  (x, y up, z) in the piece's axes
    half    half sizes; a cylinder's axis is y (radius, half height, radius), a sphere has three equal ones
    yaw     turn about the vertical, radians
    role    parts of one role share their material
    tilt    turn about the part's x after the yaw, radians
    """

    kind: Kind
    centre: Vector
    half: Vector
    yaw: float = 0.0
    role: str = "body"
    tilt: float = 0.0


class Piece(NamedTuple):
    """Parts and the half size (x, z) of the floor they need."""

    parts: tuple[Part, ...]
    footprint: tuple[float, float]


def box(
    x: float, y: float, z: float, hx: float, hy: float, hz: float, role: str = "body", yaw: float = 0.0
) -> Part:
    return Part("box", (x, y, z), (hx, hy, hz), yaw, role)


def cylinder(x: float, y: float, z: float, radius: float, half_height: float, role: str = "body") -> Part:
    return Part("cylinder", (x, y, z), (radius, half_height, radius), 0.0, role)


def sphere(x: float, y: float, z: float, radius: float, role: str = "body") -> Part:
    return Part("sphere", (x, y, z), (radius, radius, radius), 0.0, role)


def clutter(rng: Source, count: int, half_x: float, half_z: float, height: float) -> list[Part]:
    """Small things on a surface of half size (half_x, half_z) at ``height``: books, mugs, balls, boxes, bottles."""
    parts = []
    for i in range(count):
        x, z = rng.uniform(-0.8, 0.8) * half_x, rng.uniform(-0.7, 0.7) * half_z
        yaw = rng.uniform(-0.6, 0.6)
        role = f"thing{i}"
        match rng.integers(5):
            case 0:
                hy = rng.uniform(0.015, 0.05)
                parts.append(box(x, height + hy, z, rng.uniform(0.08, 0.14), hy, rng.uniform(0.06, 0.1), role, yaw))
            case 1:
                hy = rng.uniform(0.04, 0.07)
                parts.append(cylinder(x, height + hy, z, rng.uniform(0.035, 0.05), hy, role))
            case 2:
                radius = rng.uniform(0.04, 0.09)
                parts.append(sphere(x, height + radius, z, radius, role))
            case 3:
                hy = rng.uniform(0.06, 0.16)
                parts.append(box(x, height + hy, z, rng.uniform(0.05, 0.12), hy, rng.uniform(0.05, 0.1), role, yaw))
            case _:
                hy = rng.uniform(0.1, 0.16)
                parts.append(cylinder(x, height + hy, z, rng.uniform(0.03, 0.04), hy, role))
    return parts


def legs(hx: float, hz: float, height: float, thickness: float, role: str = "legs") -> list[Part]:
    return [
        box(sx * (hx - thickness), height / 2, sz * (hz - thickness), thickness, height / 2, thickness, role)
        for sx in (-1, 1)
        for sz in (-1, 1)
    ]


def table(rng: Source) -> Piece:
    hx, hz, height = rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.5), rng.uniform(0.42, 0.76)
    top = box(0, height - 0.02, 0, hx, 0.02, hz, "top")
    parts = [top, *legs(hx, hz, height - 0.04, 0.025), *clutter(rng, int(rng.integers(2, 5)), hx, hz, height)]
    return Piece(tuple(parts), (hx, hz))


def round_table(rng: Source) -> Piece:
    radius, height = rng.uniform(0.3, 0.5), rng.uniform(0.5, 0.75)
    parts = [
        cylinder(0, height - 0.02, 0, radius, 0.02, "top"),
        cylinder(0, height / 2 - 0.02, 0, 0.04, height / 2 - 0.02, "legs"),
        cylinder(0, 0.015, 0, radius * 0.6, 0.015, "legs"),
        *clutter(rng, 2, radius * 0.6, radius * 0.6, height),
    ]
    return Piece(tuple(parts), (radius, radius))


def chair(rng: Source) -> Piece:
    half, seat = rng.uniform(0.19, 0.24), rng.uniform(0.42, 0.48)
    back = rng.uniform(0.18, 0.26)
    parts = [
        box(0, seat - 0.02, 0, half, 0.025, half, "seat"),
        box(0, seat + back + 0.03, -half + 0.02, half, back, 0.02, "seat"),
        *legs(half, half, seat - 0.04, 0.018),
    ]
    return Piece(tuple(parts), (half, half))


def shelf(rng: Source) -> Piece:
    hx, hz, height = rng.uniform(0.3, 0.55), rng.uniform(0.13, 0.18), rng.uniform(1.0, 1.9)
    boards = int(rng.integers(3, 5))
    parts = [box(s * hx, height / 2, 0, 0.015, height / 2, hz) for s in (-1, 1)]
    parts.append(box(0, height / 2, -hz + 0.01, hx, height / 2, 0.01, "back"))
    for i in range(boards):
        y = 0.05 + (height - 0.07) * i / (boards - 1)
        parts.append(box(0, y, 0, hx - 0.015, 0.012, hz))
        if i < boards - 1:
            gap = (height - 0.07) / (boards - 1)
            length, tall = rng.uniform(0.3, 0.8) * hx, rng.uniform(0.25, 0.42) * gap
            side = rng.uniform(-1, 1) * (hx - 0.02 - length)
            parts.append(box(side, y + 0.012 + tall, -0.02, length, tall, hz * 0.7, f"books{i}"))
    return Piece(tuple(parts), (hx + 0.015, hz))


def sofa(rng: Source) -> Piece:
    hx, hz = rng.uniform(0.6, 0.95), rng.uniform(0.36, 0.44)
    parts = [
        box(0, 0.2, 0.05, hx - 0.1, 0.2, hz - 0.05),
        box(0, 0.42, -hz + 0.1, hx, 0.36, 0.1),
        *[box(s * (hx - 0.08), 0.29, 0.05, 0.08, 0.29, hz - 0.05) for s in (-1, 1)],
        *[
            Part(
                "box",
                (s * hx * 0.45, 0.54, -hz + 0.28),
                (0.19, 0.16, 0.06),
                rng.uniform(-0.2, 0.2),
                "cushion",
                -0.3,
            )
            for s in (-1, 1)
        ],
    ]
    return Piece(tuple(parts), (hx, hz))


def cabinet(rng: Source) -> Piece:
    hx, hz, height = rng.uniform(0.3, 0.7), rng.uniform(0.18, 0.28), rng.uniform(0.5, 1.2)
    parts = [box(0, height / 2, -0.01, hx, height / 2, hz - 0.01)]
    for s in (-1, 1):
        parts.append(box(s * hx * 0.5, height / 2, hz - 0.01, hx * 0.46, height * 0.45, 0.01, "door"))
        parts.append(sphere(s * hx * 0.1, height * 0.55, hz + 0.01, 0.018, "knob"))
    parts += clutter(rng, int(rng.integers(1, 4)), hx, hz, height)
    return Piece(tuple(parts), (hx, hz + 0.02))


def stack(rng: Source) -> Piece:
    """Boxes on top of each other, each turned a little."""
    parts, height, half = [], 0.0, rng.uniform(0.18, 0.32)
    for i in range(int(rng.integers(2, 4))):
        hy = rng.uniform(0.1, 0.2)
        parts.append(
            box(0, height + hy, 0, half, hy, half * rng.uniform(0.7, 1), f"box{i}", rng.uniform(-0.4, 0.4))
        )
        height += 2 * hy
        half *= rng.uniform(0.75, 0.95)
    return Piece(tuple(parts), (0.42, 0.42))


def desk(rng: Source) -> Piece:
    hx, hz, height = rng.uniform(0.55, 0.8), rng.uniform(0.3, 0.38), rng.uniform(0.7, 0.76)
    screen = rng.uniform(0.2, 0.32)
    parts = [
        box(0, height - 0.02, 0, hx, 0.02, hz, "top"),
        *[box(s * (hx - 0.03), height / 2 - 0.02, 0, 0.02, height / 2 - 0.02, hz * 0.9) for s in (-1, 1)],
        box(0, height + 0.1 + screen * 0.6, -hz * 0.4, screen, screen * 0.6, 0.015, "frame"),
        box(0, height + 0.1 + screen * 0.6, -hz * 0.4 + 0.015, screen * 0.94, screen * 0.55, 0.004, "screen"),
        cylinder(0, height + 0.06, -hz * 0.4 - 0.02, 0.03, 0.06, "frame"),
        box(0, height + 0.012, hz * 0.35, 0.2, 0.012, 0.07, "frame"),
        *clutter(rng, 2, hx * 0.9, hz * 0.4, height),
    ]
    return Piece(tuple(parts), (hx, hz))


def lamp(rng: Source) -> Piece:
    height, radius = rng.uniform(1.2, 1.6), rng.uniform(0.14, 0.2)
    parts = [
        cylinder(0, 0.015, 0, 0.14, 0.015, "legs"),
        cylinder(0, height / 2, 0, 0.015, height / 2, "legs"),
        cylinder(0, height + 0.1, 0, radius, 0.13, "screen"),
    ]
    return Piece(tuple(parts), (radius, radius))


def plant(rng: Source) -> Piece:
    height = rng.uniform(0.2, 0.35)
    parts = [cylinder(0, height / 2, 0, rng.uniform(0.12, 0.18), height / 2, "pot")]
    for _ in range(5):
        turn, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.19)
        reach = rng.uniform(0.05, 0.17)
        y = height + rng.uniform(0.1, 0.5)
        parts.append(sphere(reach * math.cos(turn), y, reach * math.sin(turn), radius, "leaves"))
    return Piece(tuple(parts), (0.3, 0.3))


def bed(rng: Source) -> Piece:
    hx, hz = rng.uniform(0.45, 0.8), 1.0
    parts = [
        box(0, 0.14, 0, hx, 0.14, hz, "legs"),
        box(0, 0.38, 0.02, hx - 0.02, 0.1, hz - 0.04, "cover"),
        box(0, 0.45, -hz + 0.03, hx, 0.45, 0.03, "legs"),
        box(-hx * 0.4, 0.53, -hz + 0.3, 0.24, 0.06, 0.16, "cushion", rng.uniform(-0.2, 0.2)),
        box(hx * 0.4, 0.53, -hz + 0.3, 0.24, 0.06, 0.16, "cushion", rng.uniform(-0.2, 0.2)),
    ]
    return Piece(tuple(parts), (hx, hz))


WALL_PIECES: tuple[Callable[[Source], Piece], ...] = (shelf, sofa, cabinet, desk, cabinet, shelf, bed)
FREE_PIECES: tuple[Callable[[Source], Piece], ...] = (
    table,
    chair,
    stack,
    round_table,
    lamp,
    plant,
    chair,
)
