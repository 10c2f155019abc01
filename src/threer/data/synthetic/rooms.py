"""Rooms: what stands where, of which material, lit by what; sampled from a seed and stacked into tensors.

World axes follow the camera's: x right, y **down**, z forward; the room's centre is the origin. Metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from threer.data.synthetic import furniture
from threer.data.synthetic.furniture import Part, Piece
from threer.data.synthetic.room_style import PLAIN, RoomStyle
from threer.data.synthetic.textures import COUNT, STYLES

BOX, CYLINDER, SPHERE = 0, 1, 2
KINDS = {"box": BOX, "cylinder": CYLINDER, "sphere": SPHERE}
MAX_PARTS = 56
ROOM_FACES = 6  # -x, +x, ceiling, floor, -z, +z: the order of faces in every material table
LIGHTS = 3


@dataclass(frozen=True, eq=False)
class Rooms:
    """S rooms. P = MAX_PARTS primitives each (``radius`` 0 where unused), M = P + 6 materials, room faces last.

    size       [S, 3] half sizes of the room (x, y, z)
    kind       [S, P] int64 BOX, CYLINDER or SPHERE
    centre     [S, P, 3]; rotation [S, P, 3, 3] world from local; half [S, P, 3] half sizes
    radius     [S, P] of the bounding sphere
    texture    [S, M] int64 index into the texture bank
    colours    [S, M, 3, 3] three linear RGB colours that the texture's channels mix
    tile       [S, M] metres one texture tile covers;  turn [S, M] radians, offset [S, M, 2] in tiles
    gloss      [S, M] specular strength;  glow [S, M] emitted share of the colour
    lamp       [S, 3, 3] positions of the point lights;  power [S, 3, 3] their linear RGB
    ambient    [S, 3] linear RGB
    """

    size: Tensor
    kind: Tensor
    centre: Tensor
    rotation: Tensor
    half: Tensor
    radius: Tensor
    texture: Tensor
    colours: Tensor
    tile: Tensor
    turn: Tensor
    offset: Tensor
    gloss: Tensor
    glow: Tensor
    lamp: Tensor
    power: Tensor
    ambient: Tensor

    def __len__(self) -> int:
        return len(self.size)

    def to(self, device: str | torch.device) -> Rooms:
        return Rooms(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def stack_rooms(rooms: Sequence[Rooms]) -> Rooms:
    """Rooms of several batches as one batch."""
    return Rooms(**{f.name: torch.cat([getattr(r, f.name) for r in rooms]) for f in fields(Rooms)})


@dataclass(frozen=True)
class _Placed:
    """A part in the world: R maps its local axes to the world's."""

    kind: int
    centre: np.ndarray
    rotation: np.ndarray
    half: tuple[float, float, float]
    material: tuple[int, str]


def sample_room(seed: int, style: RoomStyle = PLAIN) -> Rooms:
    """One furnished, textured and lit room (S = 1) for a seed."""
    rng = np.random.default_rng(seed)
    size = np.array([rng.uniform(1.5, 3.6), rng.uniform(1.15, 1.7), rng.uniform(1.5, 3.6)])
    placed = _furnish(rng, size)
    placed += _wall_things(rng, size)
    placed = placed[:MAX_PARTS]
    return _to_tensors(rng, size, placed)


def _furnish(rng: np.random.Generator, size: np.ndarray) -> list[_Placed]:
    """Pieces against walls and in the open, not overlapping, leaving room to walk."""
    placed: list[_Placed] = []
    taken: list[tuple[float, float, float, float]] = []  # x, z, half x, half z
    wanted = int(rng.integers(6, 10))
    for number in range(40):
        if len(taken) >= wanted or len(placed) > MAX_PARTS - 14:
            break
        on_wall = rng.random() < 0.67
        templates = furniture.WALL_PIECES if on_wall else furniture.FREE_PIECES
        piece = templates[int(rng.integers(len(templates)))](rng)
        spot = _wall_spot(rng, size, piece) if on_wall else _free_spot(rng, size, piece)
        x, z, yaw, half_x, half_z = spot
        inside = abs(x) + half_x <= size[0] and abs(z) + half_z <= size[2]
        if not inside or any(
            abs(x - ox) < half_x + ohx + 0.04 and abs(z - oz) < half_z + ohz + 0.04 for ox, oz, ohx, ohz in taken
        ):
            continue
        if sum(4 * hx * hz for _, _, hx, hz in taken) + 4 * half_x * half_z > 0.45 * 4 * size[0] * size[2]:
            continue
        taken.append((x, z, half_x, half_z))
        placed += [_place(part, x, z, yaw, size[1], number) for part in piece.parts]
    return placed


def _wall_spot(
    rng: np.random.Generator, size: np.ndarray, piece: Piece
) -> tuple[float, float, float, float, float]:
    """(x, z, yaw, half extent x, half extent z) with the back at one of the four walls."""
    wide, deep = piece.footprint
    wall = int(rng.integers(4))
    along = rng.uniform(-1, 1)
    gap = rng.uniform(0.005, 0.04)
    if wall == 0:
        return along * max(size[0] - wide, 0), -size[2] + deep + gap, 0.0, wide, deep
    if wall == 1:
        return along * max(size[0] - wide, 0), size[2] - deep - gap, math.pi, wide, deep
    if wall == 2:
        return -size[0] + deep + gap, along * max(size[2] - wide, 0), math.pi / 2, deep, wide
    return size[0] - deep - gap, along * max(size[2] - wide, 0), -math.pi / 2, deep, wide


def _free_spot(
    rng: np.random.Generator, size: np.ndarray, piece: Piece
) -> tuple[float, float, float, float, float]:
    reach = math.hypot(*piece.footprint) * 0.9
    x, z = rng.uniform(-1, 1, 2) * np.maximum(size[[0, 2]] - reach - 0.02, 0)
    return float(x), float(z), rng.uniform(-math.pi, math.pi), reach, reach


def _rotation(yaw: float, tilt: float) -> np.ndarray:
    """[3, 3] world (y down) from part axes (y up): tilt about x, then yaw, then half a turn about z."""
    cy, sy, cx, sx = math.cos(yaw), math.sin(yaw), math.cos(tilt), math.sin(tilt)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return np.asarray(np.diag([-1.0, -1.0, 1.0]) @ about_y @ about_x)


def _place(part: Part, x: float, z: float, yaw: float, floor: float, number: int) -> _Placed:
    turn = _rotation(yaw, 0.0)
    centre = np.array([x, floor, z]) + turn @ np.array(part.centre)
    return _Placed(KINDS[part.kind], centre, _rotation(yaw + part.yaw, part.tilt), part.half, (number, part.role))


def _wall_things(rng: np.random.Generator, size: np.ndarray) -> list[_Placed]:
    """Pictures, a door, a window and skirting: thin boxes on the walls; two tilted boxes leaning about."""
    things = []
    for i in range(int(rng.integers(3, 6))):
        wide, high = rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.4)
        things.append(("picture", i, wide, high, rng.uniform(-0.6, 0.0) * (size[1] - high)))
    things.append(("door", 0, 0.42, min(1.0, size[1] - 0.05), size[1] - min(1.0, size[1] - 0.05)))
    things.append(("window", 0, rng.uniform(0.35, 0.7), rng.uniform(0.35, 0.55), -0.15))
    placed = []
    for role, i, wide, high, y in things:
        wall = int(rng.integers(4))
        side = size[0] if wall < 2 else size[2]
        along = rng.uniform(-1, 1) * max(side - wide - 0.05, 0)
        thin = rng.uniform(0.008, 0.025)
        yaw = (0.0, math.pi, math.pi / 2, -math.pi / 2)[wall]
        x, z = [
            (along, -size[2] + thin),
            (along, size[2] - thin),
            (-size[0] + thin, along),
            (size[0] - thin, along),
        ][wall]
        half = (wide, high, thin)
        placed.append(_Placed(BOX, np.array([x, y, z]), _rotation(yaw, 0.0), half, (100 + i, role)))
    for i in range(2):
        half = tuple(rng.uniform(0.06, 0.16, 3))
        x, z = rng.uniform(-0.8, 0.8, 2) * size[[0, 2]]
        lift = float(np.linalg.norm(half)) * 0.8
        turn = _rotation(rng.uniform(-math.pi, math.pi), rng.uniform(0.3, 1.2))
        placed.append(_Placed(BOX, np.array([x, size[1] - lift, z]), turn, half, (200 + i, "box")))
    return placed


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.asarray(srgb, dtype=np.float64) ** 2.2


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Five sRGB colours [5, 3]: two light and calm, one dark, two free.

    Most rooms are furnished as people do, in off-white, grey and wood with an accent; the others in any colours.
    """
    if rng.random() < 0.65:
        hues = rng.uniform([0.05, 0.05, 0.0, 0.05, 0.0], [0.15, 0.65, 1.0, 0.1, 1.0])
        saturation = rng.uniform([0.02, 0.02, 0.05, 0.25, 0.3], [0.15, 0.12, 0.3, 0.55, 0.8])
        value = rng.uniform([0.75, 0.45, 0.12, 0.35, 0.35], [0.95, 0.85, 0.35, 0.7, 0.8])
        return _from_hsv(hues, saturation, value)
    hue = rng.random()
    hues = (hue + np.array([0.0, 0.04, 0.08, 0.5, 0.33]) + rng.normal(0, 0.04, 5)) % 1
    saturation = np.array([0.12, 0.2, 0.45, 0.6, 0.5]) * rng.uniform(0.3, 1.3, 5)
    value = np.array([0.88, 0.75, 0.3, 0.65, 0.55]) * rng.uniform(0.75, 1.1, 5)
    return _from_hsv(hues, saturation, value)


def _from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Hue, saturation, value, each [n] in 0..1, to RGB [n, 3]."""
    turn = np.stack([hue, hue - 1 / 3, hue + 1 / 3], axis=1)
    wave = np.clip(np.abs((turn % 1) * 6 - 3) - 1, 0, 1)
    return np.asarray(np.clip(value[:, None] * (1 - saturation[:, None] * (1 - wave)), 0.02, 1))


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
_FACE_ROLES = ("wall", "wall", "ceiling", "floor", "wall", "wall")


class _Materials:
    """Draws a material per name and remembers it, so that the four legs of a table match."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.palette = _palette(rng)
        self.known: dict[tuple[int, str], dict[str, np.ndarray]] = {}

    def get(self, key: tuple[int, str]) -> dict[str, np.ndarray]:
        if key not in self.known:
            self.known[key] = self._draw(key[1])
        return self.known[key]

    def _draw(self, role: str) -> dict[str, np.ndarray]:
        rng = self.rng
        styles, (small, large) = _STYLES_OF.get(role, _ANY)
        style = STYLES.index(styles[int(rng.integers(len(styles)))])
        repeat = int(rng.integers(COUNT // len(STYLES)))
        weights = np.array([0.45, 0.35, 0.05, 0.1, 0.05]) if role in ("wall", "ceiling") else np.full(5, 0.2)
        chosen = self.palette[rng.choice(5, size=3, p=weights, replace=role in ("wall", "ceiling"))]
        colours = np.clip(chosen * rng.uniform(0.8, 1.15, (3, 1)), 0.03, 0.95)
        if role == "leaves":
            colours = np.array([[0.2, 0.4, 0.15], [0.35, 0.5, 0.2], [0.1, 0.25, 0.1]]) * rng.uniform(0.7, 1.3)
        return {
            "texture": np.array(repeat * len(STYLES) + style),
            "colours": _linear(colours),
            "tile": np.array(rng.uniform(small, large)),
            "turn": np.array(int(rng.integers(4)) * math.pi / 2),
            "offset": rng.random(2),
            "gloss": np.array(rng.choice([0.0, 0.05, 0.3], p=[0.5, 0.35, 0.15])),
            "glow": np.array(_GLOW.get(role, 0.0)),
        }


def _to_tensors(rng: np.random.Generator, size: np.ndarray, placed: list[_Placed]) -> Rooms:
    materials = _Materials(rng)
    walls = materials.get((-1, "wall"))
    accent = int(rng.integers(8))  # one wall differs in half of the rooms
    faces = []
    for face, role in enumerate(_FACE_ROLES):
        plain_wall = role == "wall" and face != accent
        faces.append(walls if plain_wall else materials.get((-2 - face, role)))
    spare = MAX_PARTS - len(placed)
    filler = _Placed(BOX, np.zeros(3), np.eye(3), (0.0, 0.0, 0.0), (-1, "wall"))
    parts = placed + [filler] * spare
    table = [materials.get(p.material) for p in parts] + faces

    def column(name: str) -> np.ndarray:
        return np.stack([m[name] for m in table])

    def tensor(values: object) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).unsqueeze(0)

    half = np.stack([np.asarray(p.half) for p in parts])
    kind = np.array([p.kind for p in parts])
    bound = np.where(
        kind == SPHERE,
        half[:, 0],
        np.where(kind == CYLINDER, np.hypot(half[:, 0], half[:, 1]), np.linalg.norm(half, axis=1)),
    )
    heights = np.array([0.85, rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)])
    lamps = np.stack([rng.uniform(-0.7, 0.7, 3), -heights, rng.uniform(-0.7, 0.7, 3)], axis=1) * size
    warmth = rng.uniform(-0.15, 0.15, (LIGHTS, 1)) * np.array([1.0, 0.0, -1.0])
    strength = np.array([1.6, 0.8, 0.6])[:, None] * rng.uniform(0.6, 1.3, (LIGHTS, 1))
    return Rooms(
        size=tensor(size),
        kind=torch.from_numpy(kind).long().unsqueeze(0),
        centre=tensor(np.stack([p.centre for p in parts])),
        rotation=tensor(np.stack([p.rotation for p in parts])),
        half=tensor(half),
        radius=tensor(bound),
        texture=torch.from_numpy(column("texture")).long().unsqueeze(0),
        colours=tensor(column("colours")),
        tile=tensor(column("tile")),
        turn=tensor(column("turn")),
        offset=tensor(column("offset")),
        gloss=tensor(column("gloss")),
        glow=tensor(column("glow")),
        lamp=tensor(lamps),
        power=tensor(strength * (1 + warmth)),
        ambient=tensor(rng.uniform(0.25, 0.5) * (1 + 0.1 * rng.uniform(-1, 1, 3))),
    )
