"""Furniture of many, often thin parts, with things on it. ``fill`` 0..1 is how much stands on it.

Axes as in ``furniture``: standing on y = 0, back towards -z.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from threer.data.synthetic.chance import Chance
from threer.data.synthetic.furniture import Part, Piece, box, cylinder, legs, sphere
from threer.data.synthetic.things import cable, rod, scatter, stems

Assembly = Callable[[Chance, float], Piece]


def _moved(parts: list[Part], x: float, z: float, about: bool = False) -> list[Part]:
    """Parts moved on the floor; ``about`` first turns them half round."""
    sign = -1.0 if about else 1.0
    turn = math.pi if about else 0.0
    return [
        p._replace(centre=(sign * p.centre[0] + x, p.centre[1], sign * p.centre[2] + z), yaw=p.yaw + turn)
        for p in parts
    ]


def _monitor(rng: Chance, x: float, y: float, z: float) -> list[Part]:
    wide = rng.uniform(0.22, 0.34)
    high, lift, yaw = wide * 0.57, rng.uniform(0.08, 0.16), rng.uniform(-0.25, 0.25)
    front = (x + 0.014 * math.sin(yaw), y + lift + high, z + 0.014 * math.cos(yaw))
    return [
        box(x, y + lift + high, z, wide, high, 0.014, "dark", yaw),
        box(*front, wide * 0.95, high * 0.92, 0.003, "screen", yaw),
        box(x, y + lift / 2 + 0.05, z - 0.025, 0.02, lift / 2 + 0.05, 0.008, "metal"),
        box(x, y + 0.006, z - 0.01, 0.11, 0.006, 0.08, "metal"),
    ]


def office_chair(rng: Chance, fill: float) -> Piece:
    seat, back = rng.uniform(0.43, 0.52), rng.uniform(0.2, 0.32)
    turn = rng.uniform(0, 1)
    parts = [
        box(0, seat, 0, 0.23, 0.035, 0.22, "seat"),
        Part("box", (0, seat + back + 0.1, -0.21), (0.21, back, 0.025), 0.0, "seat", -0.12),
        cylinder(0, seat / 2 + 0.04, 0, 0.022, seat / 2 - 0.06, "metal"),
    ]
    for i in range(5):
        yaw = turn + i * 2 * math.pi / 5
        parts.append(rod(0.14 * math.sin(yaw), 0.08, 0.14 * math.cos(yaw), 0.018, 0.14, yaw, "dark"))
        parts.append(sphere(0.27 * math.sin(yaw), 0.03, 0.27 * math.cos(yaw), 0.03, "dark"))
    if rng.random() < 0.6:
        for s in (-1, 1):
            parts.append(box(s * 0.25, seat + 0.2, 0, 0.025, 0.015, 0.12, "dark"))
            parts.append(box(s * 0.25, seat + 0.08, 0, 0.01, 0.12, 0.015, "dark"))
    return Piece(tuple(parts), (0.28, 0.28))


def slat_chair(rng: Chance, fill: float) -> Piece:
    half, seat = rng.uniform(0.19, 0.23), rng.uniform(0.43, 0.47)
    tall = rng.uniform(0.42, 0.52)
    parts = [box(0, seat, 0, half, 0.015, half, "top"), *legs(half, half, seat - 0.015, 0.016)]
    parts += [
        box(s * (half - 0.015), seat + tall / 2, -half + 0.02, 0.014, tall / 2, 0.014, "legs") for s in (-1, 1)
    ]
    if rng.random() < 0.5:
        slats = int(rng.integers(3, 6))
        for i in range(slats):
            y = seat + tall * (i + 1) / slats - 0.03
            parts.append(box(0, y, -half + 0.02, half - 0.02, 0.02, 0.007, "legs"))
    else:
        parts.append(box(0, seat + tall - 0.02, -half + 0.02, half, 0.025, 0.012, "legs"))
        for i in range(5):
            x = (i / 4 * 2 - 1) * (half - 0.05)
            parts.append(box(x, seat + tall / 2 - 0.02, -half + 0.02, 0.008, tall / 2 - 0.02, 0.008, "legs"))
    return Piece(tuple(parts), (half, half))


def office_desk(rng: Chance, fill: float) -> Piece:
    hx, hz, height = rng.uniform(0.6, 0.9), rng.uniform(0.35, 0.42), rng.uniform(0.7, 0.76)
    parts = [box(0, height - 0.014, 0, hx, 0.014, hz, "top"), *legs(hx - 0.03, hz - 0.03, height - 0.028, 0.022)]
    if rng.random() < 0.5:
        parts.append(box(0, height - 0.25, -hz + 0.03, hx - 0.06, 0.18, 0.008, "front"))
    if rng.random() < 0.6:
        side = rng.choice((-1.0, 1.0)) * (hx - 0.26)
        parts.append(box(side, 0.29, 0, 0.2, 0.27, 0.26))
        for i in range(3):
            parts.append(box(side, 0.12 + 0.17 * i, 0.262, 0.19, 0.075, 0.008, "front"))
            parts.append(box(side, 0.15 + 0.17 * i, 0.275, 0.06, 0.006, 0.006, "metal"))
    screens = int(rng.integers(1, 3))
    for i in range(screens):
        parts += _monitor(rng, (i - (screens - 1) / 2) * 0.62 + rng.uniform(-0.08, 0.08), height, -hz * 0.45)
    key = rng.uniform(-0.12, 0.12)
    parts.append(box(key, height + 0.01, hz * 0.4, 0.21, 0.01, 0.065, "keys", rng.uniform(-0.1, 0.1)))
    parts.append(box(key + 0.3, height + 0.014, hz * 0.4, 0.03, 0.014, 0.05, "dark"))
    parts += scatter(rng, 6 * fill, hx, hz * 0.8, height)
    if fill > 0.3:
        parts += cable(rng, rng.uniform(-0.3, 0.3), 0.0, -hz * 0.3, 0, 4)
        parts.append(rod(rng.uniform(-0.3, 0.3), height / 2, -hz + 0.02, 0.006, height / 2, 0, "dark", 0.02))
    return Piece(tuple(parts), (hx, hz))


def desk_row(rng: Chance, fill: float) -> Piece:
    """Two desks face to face with a screen between them, a chair at each."""
    parts, deep = [], 0.0
    for about in (False, True):
        piece = office_desk(rng, fill * 0.6)
        chair = office_chair(rng, fill)
        deep = max(deep, piece.footprint[1])
        away = 1 if not about else -1
        parts += _moved(list(piece.parts), 0.0, away * (piece.footprint[1] + 0.03), about)
        at = away * (2 * piece.footprint[1] + 0.3)
        parts += _moved(list(chair.parts), rng.uniform(-0.2, 0.2), at, not about)
    parts.append(box(0, 0.95, 0, 0.75, 0.25, 0.015, "partition"))
    return Piece(tuple(parts), (0.9, 2 * deep + 0.35))


def kitchen(rng: Chance, fill: float) -> Piece:
    """Counter with fronts and handles, tap, cupboards above."""
    units, hz, height = int(rng.integers(2, 5)), 0.3, rng.uniform(0.86, 0.94)
    hx = units * 0.3
    parts = [
        box(0, height / 2, -0.01, hx, height / 2 - 0.03, hz - 0.03),
        box(0, height - 0.015, 0, hx + 0.01, 0.018, hz, "top"),
        box(0, 0.05, hz - 0.06, hx, 0.05, 0.02, "dark"),
    ]
    upper = rng.random() < 0.7
    if upper:
        parts.append(box(0, 1.75, -hz + 0.16, hx, 0.33, 0.15))
    for i in range(units):
        x = (i + 0.5) * 0.6 - hx
        parts.append(box(x, height / 2 + 0.01, hz - 0.035, 0.29, height / 2 - 0.08, 0.01, "front"))
        parts.append(rod(x, height - 0.12, hz - 0.01, 0.008, 0.1, math.pi / 2, "metal"))
        if upper:
            parts.append(box(x, 1.75, -hz + 0.315, 0.29, 0.32, 0.01, "front"))
            parts.append(rod(x, 1.48, -hz + 0.34, 0.008, 0.08, math.pi / 2, "metal"))
    sink = rng.uniform(-0.5, 0.5) * hx
    parts.append(box(sink, height + 0.005, 0.02, 0.2, 0.003, 0.16, "metal"))
    parts.append(cylinder(sink, height + 0.12, -0.18, 0.014, 0.12, "metal"))
    parts.append(rod(sink, height + 0.23, -0.1, 0.011, 0.09, 0, "metal"))
    parts += scatter(rng, (2 + 2 * units) * fill, hx, hz * 0.9, height + 0.004)
    return Piece(tuple(parts), (hx + 0.01, hz))


def wardrobe(rng: Chance, fill: float) -> Piece:
    doors, hz, height = int(rng.integers(2, 4)), 0.29, rng.uniform(1.7, 2.15)
    hx = doors * 0.24
    parts = [box(0, height / 2, -0.01, hx, height / 2, hz - 0.02)]
    for i in range(doors):
        x = (i + 0.5) * 0.48 - hx
        parts.append(box(x, height / 2 + 0.02, hz - 0.02, 0.233, height / 2 - 0.05, 0.01, "front"))
        parts.append(box(x + 0.17, height * 0.52, hz, 0.008, 0.1, 0.012, "metal"))
    parts += scatter(rng, 2 * fill, hx, hz * 0.7, height)
    return Piece(tuple(parts), (hx, hz))


def bookcase(rng: Chance, fill: float) -> Piece:
    """Boards with single books, some leaning, and other things."""
    hx, hz, height = rng.uniform(0.35, 0.6), rng.uniform(0.13, 0.17), rng.uniform(0.8, 2.0)
    boards = max(2, round(height / 0.36))
    gap = (height - 0.06) / boards
    parts = [box(s * hx, height / 2, 0, 0.012, height / 2, hz) for s in (-1, 1)]
    if rng.random() < 0.6:
        parts.append(box(0, height / 2, -hz + 0.006, hx, height / 2, 0.006, "back"))
    for i in range(boards + 1):
        y = 0.04 + gap * i
        parts.append(box(0, y, 0, hx - 0.012, 0.01, hz))
        if i == boards:
            parts += scatter(rng, 2 * fill, hx, hz, y + 0.01, 900)
        elif rng.random() < 0.25:
            parts += [p for p in scatter(rng, 3 * fill, hx * 0.9, hz, y + 0.01, 100 * i) if p.half[1] < gap * 0.4]
        else:
            parts += _books(rng, fill, hx - 0.02, hz, y + 0.01, gap - 0.03, 100 * i)
    return Piece(tuple(parts), (hx + 0.012, hz))


def _books(rng: Chance, fill: float, half: float, deep: float, y: float, room: float, first: int) -> list[Part]:
    """Books from the left until ``fill`` of the board, thick enough to be seen."""
    parts, x, i = [], -half, 0
    end = half * (2 * min(1.0, fill * rng.uniform(0.5, 1.2)) - 1)
    while i < 12:
        thick, tall = rng.uniform(0.015, 0.045), rng.uniform(0.6, 0.95) * room / 2
        if x + 2 * thick > end:
            break
        lean = rng.uniform(0.0, 0.12) if rng.random() < 0.15 else 0.0
        z = -deep * 0.1 + rng.uniform(-0.02, 0.01)
        part = Part(
            "box", (x + thick, y + tall, z), (deep * 0.75, tall, thick), math.pi / 2, f"book{first + i}", lean
        )
        parts.append(part)
        x += 2 * thick + (tall * lean * 2 if lean else 0.001)
        i += 1
    return parts


def ladder_shelf(rng: Chance, fill: float) -> Piece:
    """Thin posts and boards, open on all sides."""
    hx, hz, height = rng.uniform(0.3, 0.5), rng.uniform(0.15, 0.2), rng.uniform(1.2, 1.9)
    parts = legs(hx, hz, height, 0.011, "metal")
    boards = int(rng.integers(3, 6))
    for i in range(boards):
        y = 0.12 + (height - 0.14) * i / (boards - 1)
        parts.append(box(0, y, 0, hx, 0.009, hz, "top"))
        parts += scatter(rng, 2.5 * fill, hx, hz, y + 0.009, 100 * i)
    return Piece(tuple(parts), (hx, hz))


def dining(rng: Chance, fill: float) -> Piece:
    """A table with chairs at two sides."""
    hx, hz, height = rng.uniform(0.45, 1.3), rng.uniform(0.38, 0.45), rng.uniform(0.72, 0.76)
    parts = [box(0, height - 0.015, 0, hx, 0.015, hz, "top"), *legs(hx, hz, height - 0.03, 0.028)]
    parts += scatter(rng, 8 * hx * fill, hx, hz, height)
    seats = max(1, int(hx / 0.4))
    for i in range(2 * seats):
        if rng.random() < 0.8:
            about = i % 2 == 1
            out = (hz + rng.uniform(0.0, 0.2)) * (1 if about else -1)
            x = ((i // 2 + 0.5) / seats * 2 - 1) * hx + rng.uniform(-0.06, 0.06)
            parts += _moved(list(slat_chair(rng, fill).parts), x, out, about)
    return Piece(tuple(parts), (hx, hz + 0.4))


def low_table(rng: Chance, fill: float) -> Piece:
    """On a rug, with a slatted board below."""
    hx, hz, height = rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.4), rng.uniform(0.35, 0.46)
    parts = [box(0, 0.006, 0, hx + 0.3, 0.006, hz + 0.3, "rug")]
    parts += [box(0, height - 0.012, 0, hx, 0.012, hz, "top"), *legs(hx, hz, height - 0.024, 0.016)]
    parts += [box(x * hx * 0.8, 0.12, 0, 0.02, 0.006, hz - 0.02, "legs") for x in (-1, -0.6, -0.2, 0.2, 0.6, 1)]
    parts += scatter(rng, 4 * fill, hx, hz, height)
    return Piece(tuple(parts), (hx + 0.1, hz + 0.1))


def rack(rng: Chance, fill: float) -> Piece:
    """A clothes stand: thin pole, arms, something hung on it."""
    height, turn = rng.uniform(1.5, 1.8), rng.uniform(0, math.pi)
    parts = [cylinder(0, 0.015, 0, 0.18, 0.015, "metal"), cylinder(0, height / 2, 0, 0.016, height / 2, "metal")]
    for i in range(4):
        yaw = turn + i * math.pi / 2
        at = (0.07 * math.sin(yaw), height - 0.06, 0.07 * math.cos(yaw))
        parts.append(rod(*at, 0.009, 0.09, yaw, "metal", 0.3))
        if rng.random() < fill * 0.7:
            hung = (0.13 * math.sin(yaw), height - 0.45, 0.13 * math.cos(yaw))
            parts.append(Part("box", hung, (0.17, rng.uniform(0.25, 0.4), 0.03), yaw, f"seat{i}", 0.05))
    return Piece(tuple(parts), (0.25, 0.25))


def arc_lamp(rng: Chance, fill: float) -> Piece:
    """A lamp on a thin bent stand."""
    height, reach = rng.uniform(1.4, 1.8), rng.uniform(0.25, 0.5)
    yaw = rng.uniform(-math.pi, math.pi)
    at = (reach * math.sin(yaw), reach * math.cos(yaw))
    parts = [
        cylinder(0, 0.015, 0, 0.15, 0.015, "metal"),
        cylinder(0, height / 2, 0, 0.012, height / 2, "metal"),
        rod(at[0] / 2, height, at[1] / 2, 0.01, reach / 2, yaw, "metal"),
        cylinder(
            at[0], height - 0.1, at[1], rng.uniform(0.09, 0.16), 0.08, "panel" if rng.random() < 0.5 else "pot"
        ),
    ]
    return Piece(tuple(parts), (0.3, 0.3))


def tall_plant(rng: Chance, fill: float) -> Piece:
    height = rng.uniform(0.18, 0.32)
    parts = [cylinder(0, height / 2, 0, rng.uniform(0.1, 0.17), height / 2, "pot")]
    parts += stems(rng, 0, height, 0, 4 + round(4 * fill), (0.18, 0.42), (0.05, 0.11), 0)
    return Piece(tuple(parts), (0.3, 0.3))


def bin_and_boxes(rng: Chance, fill: float) -> Piece:
    parts = [cylinder(-0.15, 0.15, 0.05, rng.uniform(0.1, 0.14), 0.15, "dark")]
    parts += scatter(rng, 2 + 2 * fill, 0.35, 0.2, 0.0)
    parts += cable(rng, 0.1, 0.0, 0.15, 0)
    return Piece(tuple(parts), (0.35, 0.25))
