"""Where pieces stand, and all their parts brought into the world at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from threer.data.synthetic.chance import Source
from threer.data.synthetic.furniture import Kind, Piece, Vector
from threer.data.synthetic.materials import Key

BOX, CYLINDER, SPHERE = 0, 1, 2
_KINDS: dict[Kind, int] = {"box": BOX, "cylinder": CYLINDER, "sphere": SPHERE}


class Placed(NamedTuple):
    """A part of a piece that stands at (x, y down, z) in the world, turned by ``pose_yaw``."""

    kind: Kind
    at: Vector
    pose_yaw: float
    centre: Vector  # in the piece's axes, y up
    yaw: float
    tilt: float
    half: Vector
    material: Key


class Spot(NamedTuple):
    """Floor that a piece takes: its middle, yaw, and half extents along x and z."""

    x: float
    z: float
    yaw: float
    half_x: float
    half_z: float

    def meets(self, other: Spot, gap: float) -> bool:
        return (
            abs(self.x - other.x) < self.half_x + other.half_x + gap
            and abs(self.z - other.z) < self.half_z + other.half_z + gap
        )


def place(piece: Piece, x: float, z: float, yaw: float, floor: float, number: int) -> list[Placed]:
    at = (x, floor, z)
    return [
        Placed(part.kind, at, yaw, part.centre, part.yaw, part.tilt, part.half, (number, part.role))
        for part in piece.parts
    ]


def wall_spot(size: Vector, piece: Piece, wall: int, along: float, gap: float) -> Spot:
    """With the back at a wall (-z, +z, -x, +x); ``along`` it in -1..1, ``gap`` metres from it."""
    wide, deep = piece.footprint
    if wall == 0:
        return Spot(along * max(size[0] - wide, 0), -size[2] + deep + gap, 0.0, wide, deep)
    if wall == 1:
        return Spot(along * max(size[0] - wide, 0), size[2] - deep - gap, math.pi, wide, deep)
    if wall == 2:
        return Spot(-size[0] + deep + gap, along * max(size[2] - wide, 0), -math.pi / 2, deep, wide)
    return Spot(size[0] - deep - gap, along * max(size[2] - wide, 0), math.pi / 2, deep, wide)


def free_spot(rng: Source, size: Vector, piece: Piece) -> Spot:
    """Anywhere, turned in any direction."""
    reach = math.hypot(*piece.footprint) * 0.9
    x, z = rng.uniform(-1, 1), rng.uniform(-1, 1)
    yaw = rng.uniform(-math.pi, math.pi)
    return Spot(x * max(size[0] - reach - 0.02, 0), z * max(size[2] - reach - 0.02, 0), yaw, reach, reach)


def geometry(parts: Sequence[Placed]) -> dict[str, np.ndarray]:
    """World geometry of n parts: kind [n], centre [n, 3], rotation [n, 3, 3], half [n, 3], radius [n]."""
    kind = np.array([_KINDS[p.kind] for p in parts])
    numbers = np.array([(*p.at, *p.centre, *p.half, p.pose_yaw, p.yaw, p.tilt) for p in parts])
    at, local, half = numbers[:, :3], numbers[:, 3:6], numbers[:, 6:9]
    pose_yaw, yaw, tilt = numbers[:, 9:].T
    turn = _rotations(pose_yaw, np.zeros(len(parts)))
    centre = at + (turn @ local[:, :, None])[:, :, 0]
    rotation = _rotations(pose_yaw + yaw, tilt)
    round_ = np.where(kind == SPHERE, half[:, 0], np.hypot(half[:, 0], half[:, 1]))
    radius = np.where(kind == BOX, np.linalg.norm(half, axis=1), round_)
    return {"kind": kind, "centre": centre, "rotation": rotation, "half": half, "radius": radius}


def _rotations(yaw: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """[n, 3, 3] world (y down) from part axes (y up): tilt about x, then yaw, then half a turn about z."""
    cy, sy, cx, sx = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
    zero = np.zeros_like(yaw)
    rows = [[-cy, -sy * sx, -sy * cx], [zero, -cx, sx], [-sy, cy * sx, cy * cx]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
