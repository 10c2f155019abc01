"""Rooms as people leave them: themes, windows, cluttered furniture, thin things, and the light of all that."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from threer.data.synthetic import assemblies, fittings, furniture
from threer.data.synthetic.assemblies import Assembly
from threer.data.synthetic.chance import Chance, Source
from threer.data.synthetic.furniture import Piece, Vector
from threer.data.synthetic.placing import Placed, Spot, free_spot, place, wall_spot
from threer.data.synthetic.room_style import RoomStyle
from threer.data.synthetic.scene import Light, Scene
from threer.data.synthetic.surfaces import draw_materials
from threer.data.synthetic.things import cable, scatter

FEWEST, MOST = 56, 352  # primitives of a room, with clutter 0 and 1
_FACES = ((-1, "wall"), (-1, "wall"), (-2, "ceiling"), (-3, "floor"), (-1, "wall"), (-1, "wall"))
_ACCENT = (-4, "wall")
_PATIENCE = 10  # pieces that find no place before a room counts as full
_TALL = 1.2  # metres: higher furniture hides what hangs behind it


def _simple(template: Callable[[Source], Piece]) -> Assembly:
    return lambda rng, fill: template(rng)


_sofa, _bed, _cabinet = (_simple(t) for t in (furniture.sofa, furniture.bed, furniture.cabinet))
_round, _stack, _lamp = (_simple(t) for t in (furniture.round_table, furniture.stack, furniture.lamp))

# theme -> (pieces against walls, pieces in the open)
_THEMES: dict[str, tuple[tuple[Assembly, ...], tuple[Assembly, ...]]] = {
    "office": (
        (assemblies.office_desk, assemblies.office_desk, assemblies.bookcase, assemblies.ladder_shelf, _cabinet),
        (assemblies.desk_row, assemblies.office_chair, assemblies.office_chair, assemblies.tall_plant, _round),
    ),
    "living": (
        (_sofa, assemblies.bookcase, _cabinet, assemblies.ladder_shelf, assemblies.bin_and_boxes),
        (
            assemblies.low_table,
            assemblies.arc_lamp,
            assemblies.tall_plant,
            assemblies.slat_chair,
            assemblies.dining,
        ),
    ),
    "kitchen": (
        (assemblies.kitchen, assemblies.kitchen, assemblies.ladder_shelf, _cabinet, assemblies.bin_and_boxes),
        (assemblies.dining, assemblies.slat_chair, assemblies.slat_chair, _round),
    ),
    "bedroom": (
        (_bed, assemblies.wardrobe, assemblies.office_desk, assemblies.bookcase, _cabinet),
        (assemblies.rack, assemblies.slat_chair, assemblies.arc_lamp, assemblies.low_table, _stack),
    ),
}
_ALL = tuple(tuple(piece for theme in _THEMES.values() for piece in theme[side]) for side in (0, 1))
_SIMPLE = (
    tuple(_simple(t) for t in furniture.WALL_PIECES),
    tuple(_simple(t) for t in furniture.FREE_PIECES),
)


class _Windows(NamedTuple):
    """Middles of the windows in the world, and the ceiling's lights: (x, z) and how far below it they end."""

    windows: list[Vector]
    lights: list[tuple[float, float]]
    below: float


def lived_in_scene(seed: int, style: RoomStyle) -> Scene:
    rng = Chance(seed)
    size = _size(rng) if style.varied else (rng.uniform(1.5, 3.6), rng.uniform(1.15, 1.7), rng.uniform(1.5, 3.6))
    fill = style.clutter * rng.uniform(0.4, 1.0)
    room = _Filling(rng, size, style, fill)
    room.build()
    room.furnish()
    room.decorate()
    keys = [part.material for part in room.parts]
    accent = int(rng.integers(12))
    keys += [_ACCENT if face == accent and key[1] == "wall" else key for face, key in enumerate(_FACES)]
    rows = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    arrays = np.random.default_rng(seed)
    drawn = draw_materials(arrays, list(rows), style)
    chosen = [rows[key] for key in keys]
    light = _light(arrays, size, style, _Windows(room.windows, room.lights, room.below))
    return Scene(size, room.parts, {name: values[chosen] for name, values in drawn.items()}, light)


def _size(rng: Chance) -> Vector:
    """Half sizes of small rooms, rooms, large rooms, open floors and corridors."""
    kind = rng.random()
    tall = rng.uniform(1.15, 1.7)
    for share, low, high in ((0.25, 1.1, 1.6), (0.65, 1.5, 2.6), (0.83, 2.4, 4.2), (0.91, 3.8, 6.0)):
        if kind < share:
            return rng.uniform(low, high), tall, rng.uniform(low, high)
    narrow, long = rng.uniform(0.75, 1.1), rng.uniform(2.5, 6.0)
    return (narrow, tall, long) if rng.random() < 0.5 else (long, tall, narrow)


class _Filling:
    """A room being filled. ``parts`` never exceeds the style's number of primitives."""

    def __init__(self, rng: Chance, size: Vector, style: RoomStyle, fill: float) -> None:
        self.rng, self.size, self.style, self.fill = rng, size, style, fill
        self.most = round(FEWEST + (MOST - FEWEST) * style.clutter)
        self.parts: list[Placed] = []
        self.taken: list[Spot] = []  # floor
        self.hung: list[list[tuple[float, float]]] = [[], [], [], []]  # what each wall shows, as stretches of it
        self.windows: list[Vector] = []
        self.lights: list[tuple[float, float]] = []
        self.below = 0.0
        self.number = 0
        self.corridor = max(size[0], size[2]) / min(size[0], size[2]) > 2.2

    def build(self) -> None:
        """Doors, windows, ceiling lights, pillars and partitions."""
        rng, style = self.rng, self.style
        if style.clutter > 0:
            self._add(Piece(tuple(fittings.baseboards(self.size)), (0.0, 0.0)), Spot(0, 0, 0, 0, 0))
            lights, self.lights, self.below = fittings.ceiling_lights(rng, self.size)
            self._add(Piece(tuple(lights), (0.0, 0.0)), Spot(0, 0, 0, 0, 0))
        for _ in range(int(rng.integers(1, 3)) + 2 * self.corridor):
            self._hang(fittings.door, keep_free=0.5)
        for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.85 else 0):
            spot = self._hang(fittings.window)
            if spot is not None:
                self.windows.append((spot.x - 0.25 * math.sin(spot.yaw), -0.2, spot.z + 0.25 * math.cos(spot.yaw)))
        if rng.random() < style.glare * 0.5:
            self._hang(fittings.mirror)
        if min(self.size[0], self.size[2]) > 2.2:
            area = self.size[0] * self.size[2]
            for fitting, most in ((fittings.pillar, area / 5), (fittings.partition, area / 4)):
                for _ in range(min(4, int(rng.random() * style.clutter * most))):
                    self._stand(fitting(rng, 2 * self.size[1], style.clutter), None)

    def furnish(self) -> None:
        """Pieces of a theme against walls and in the open, as many as floor and primitives allow."""
        rng = self.rng
        theme = list(_THEMES.values())[int(rng.integers(len(_THEMES)))] if rng.random() < 0.8 else _ALL
        area = 4 * self.size[0] * self.size[2]
        wanted = min(22.0, 5 + area / 2.5) * rng.uniform(0.6, 1.0)
        reserve = 20 * self.style.clutter
        standing = missed = 0
        while standing < wanted and missed < _PATIENCE and len(self.parts) <= self.most - reserve:
            on_wall = rng.random() < (0.9 if self.corridor else 0.6)
            rich = rng.random() < 1.5 * self.style.clutter
            choice = (theme if rich else _SIMPLE)[0 if on_wall else 1]
            piece = choice[int(rng.integers(len(choice)))](rng, self.fill)
            stands = self._stand(piece, int(rng.integers(4)) if on_wall else None)
            standing, missed = standing + stands, missed + (not stands)

    def decorate(self) -> None:
        """Things on walls and floor with what primitives are left."""
        rng, clutter = self.rng, self.style.clutter
        on_walls = (fittings.picture, fittings.picture, fittings.board, fittings.wall_shelf, fittings.clock)
        for _ in range(3 + round(5 * self.fill)):
            chosen = on_walls[int(rng.integers(len(on_walls)))] if clutter > 0 else fittings.picture
            self._hang(chosen)
        for _ in range(round(4 * self.fill)):
            x, z = (rng.uniform(-0.85, 0.85) * self.size[i] for i in (0, 2))
            things = cable(rng, 0, 0, 0, 0) if rng.random() < 0.4 else scatter(rng, 2, 0.25, 0.2, 0.0)
            self._add(Piece(tuple(things), (0.3, 0.3)), Spot(x, z, rng.uniform(-math.pi, math.pi), 0, 0))

    def _add(self, piece: Piece, spot: Spot) -> bool:
        if len(self.parts) + len(piece.parts) > self.most:
            return False
        self.parts += place(piece, spot.x, spot.z, spot.yaw, self.size[1], self.number)
        self.number += 1
        return True

    def _stand(self, piece: Piece, wall: int | None) -> bool:
        """The piece on free floor, at a wall or in the open; whether it fitted at one of a few places."""
        rng, size = self.rng, self.size
        for _ in range(4):
            if wall is None:
                spot = free_spot(rng, size, piece)
            else:
                spot = wall_spot(size, piece, wall, rng.uniform(-1, 1), rng.uniform(0.015, 0.05))
            inside = abs(spot.x) + spot.half_x <= size[0] and abs(spot.z) + spot.half_z <= size[2]
            if not inside or any(spot.meets(other, 0.03) for other in self.taken):
                continue
            covered = sum(4 * other.half_x * other.half_z for other in (*self.taken, spot))
            if covered > (0.4 if self.corridor else 0.5) * 4 * size[0] * size[2] or not self._add(piece, spot):
                return False
            self.taken.append(spot)
            if wall is not None and max(p.centre[1] + p.half[1] for p in piece.parts) > _TALL:
                along, half = (spot.x, spot.half_x) if wall < 2 else (spot.z, spot.half_z)
                self.hung[wall].append((along - half, along + half))
            return True
        return False

    def _hang(self, fitting: fittings.Fitting, keep_free: float = 0.0) -> Spot | None:
        """The fitting on a free stretch of a wall; ``keep_free`` metres of floor in front of it stay empty."""
        rng, size = self.rng, self.size
        piece = fitting(rng, 2 * size[1], self.fill)
        for _ in range(4):
            wall = int(rng.integers(4))
            if piece.footprint[0] > (size[0] if wall < 2 else size[2]) - 0.05:
                continue
            spot = wall_spot(size, piece, wall, rng.uniform(-1, 1), 0.0)
            along = spot.x if wall < 2 else spot.z
            low, high = along - piece.footprint[0], along + piece.footprint[0]
            if any(low < end and start < high for start, end in self.hung[wall]):
                continue
            if not self._add(piece, spot):
                return None
            self.hung[wall].append((low, high))
            if keep_free:
                across = (spot.half_x or keep_free, spot.half_z or keep_free)
                self.taken.append(Spot(spot.x, spot.z, 0.0, *across))
            return spot
        return None


def _light(rng: np.random.Generator, size: Vector, style: RoomStyle, seen: _Windows) -> Light:
    """A main lamp under a ceiling light or at a window, two fill lights, and ambient light."""
    lamp = (
        np.stack([rng.uniform(-0.7, 0.7, 3), -rng.uniform(0.3, 0.8, 3), rng.uniform(-0.7, 0.7, 3)], axis=1) * size
    )
    colour = 1 + rng.uniform(-0.2, 0.2, (3, 1)) * np.array([1.0, 0.1, -1.0])
    power = np.array([rng.uniform(1.2, 2.8), rng.uniform(0.15, 0.6), rng.uniform(0.1, 0.5)])
    daylight = bool(seen.windows) and rng.random() < 0.45
    if daylight:
        lamp[0] = seen.windows[int(rng.integers(len(seen.windows)))]
        colour[0] = 1 + rng.uniform(-0.05, 0.2) * np.array([-1.0, 0.0, 1.0])
        power[0] *= rng.uniform(1.0, 1.8)
    elif seen.lights:
        x, z = min(seen.lights, key=lambda at: at[0] ** 2 + at[1] ** 2)
        lamp[0] = (x, -size[1] + seen.below, z)
    else:
        lamp[0, 1] = -0.85 * size[1]
    if seen.windows and not daylight:
        lamp[1] = seen.windows[0]
    reach = max(1.0, math.hypot(size[0], size[2]) / 3)
    disc = rng.uniform(0.1, 0.45) if style.shadows == "soft" else 0.0
    ambient = rng.uniform(0.12, 0.4) * (1 + 0.1 * rng.uniform(-1, 1, 3))
    return Light(lamp, power[:, None] * colour, ambient, 0.35 / reach**2, disc)
