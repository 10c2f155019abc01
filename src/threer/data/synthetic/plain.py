"""Plain rooms: furniture from templates, pictures, a door, a window. A seed's room is fixed: figures rest on it."""

from __future__ import annotations

import math

import numpy as np

from threer.data.synthetic import furniture
from threer.data.synthetic.furniture import Vector
from threer.data.synthetic.materials import PlainMaterials
from threer.data.synthetic.placing import Placed, Spot, free_spot, place, wall_spot
from threer.data.synthetic.scene import Light, Scene

MAX_PARTS = 56
_FACE_ROLES = ("wall", "wall", "ceiling", "floor", "wall", "wall")


def plain_scene(seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    size = (rng.uniform(1.5, 3.6), rng.uniform(1.15, 1.7), rng.uniform(1.5, 3.6))
    parts = (_furnish(rng, size) + _wall_things(rng, size))[:MAX_PARTS]
    materials = _materials(rng, parts)
    return Scene(size, parts, materials, _light(rng, size))


def _furnish(rng: np.random.Generator, size: Vector) -> list[Placed]:
    """Pieces against walls and in the open, not overlapping, leaving room to walk."""
    placed: list[Placed] = []
    taken: list[Spot] = []
    wanted = int(rng.integers(6, 10))
    for number in range(40):
        if len(taken) >= wanted or len(placed) > MAX_PARTS - 14:
            break
        on_wall = rng.random() < 0.67
        templates = furniture.WALL_PIECES if on_wall else furniture.FREE_PIECES
        piece = templates[int(rng.integers(len(templates)))](rng)
        if on_wall:
            wall, along, gap = int(rng.integers(4)), rng.uniform(-1, 1), rng.uniform(0.005, 0.04)
            spot = wall_spot(size, piece, wall, along, gap)
            if wall > 1:
                spot = spot._replace(yaw=-spot.yaw)  # at the side walls these have always shown their backs
        else:
            spot = free_spot(rng, size, piece)
        inside = abs(spot.x) + spot.half_x <= size[0] and abs(spot.z) + spot.half_z <= size[2]
        if not inside or any(spot.meets(other, 0.04) for other in taken):
            continue
        floor = sum(4 * other.half_x * other.half_z for other in taken) + 4 * spot.half_x * spot.half_z
        if floor > 0.45 * 4 * size[0] * size[2]:
            continue
        taken.append(spot)
        placed += place(piece, spot.x, spot.z, spot.yaw, size[1], number)
    return placed


def _wall_things(rng: np.random.Generator, size: Vector) -> list[Placed]:
    """Pictures, a door and a window: thin boxes on the walls; two tilted boxes leaning about."""
    things = []
    for i in range(int(rng.integers(3, 6))):
        wide, high = rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.4)
        things.append(("picture", i, wide, high, rng.uniform(-0.6, 0.0) * (size[1] - high)))
    tall = min(1.0, size[1] - 0.05)
    things.append(("door", 0, 0.42, tall, size[1] - tall))
    things.append(("window", 0, rng.uniform(0.35, 0.7), rng.uniform(0.35, 0.55), -0.15))
    placed = []
    for role, i, wide, high, y in things:
        wall = int(rng.integers(4))
        side = size[0] if wall < 2 else size[2]
        along = rng.uniform(-1, 1) * max(side - wide - 0.05, 0)
        thin = rng.uniform(0.008, 0.025)
        yaw = (0.0, math.pi, math.pi / 2, -math.pi / 2)[wall]
        x, z = (
            (along, -size[2] + thin),
            (along, size[2] - thin),
            (-size[0] + thin, along),
            (size[0] - thin, along),
        )[wall]
        placed.append(_alone((x, y, z), yaw, 0.0, (wide, high, thin), 100 + i, role))
    for i in range(2):
        half_x, half_y, half_z = rng.uniform(0.06, 0.16, 3).tolist()
        x, z = rng.uniform(-0.8, 0.8, 2).tolist()
        lift = math.hypot(half_x, half_y, half_z) * 0.8
        yaw, tilt = rng.uniform(-math.pi, math.pi), rng.uniform(0.3, 1.2)
        at = (x * size[0], size[1] - lift, z * size[2])
        placed.append(_alone(at, yaw, tilt, (half_x, half_y, half_z), 200 + i, "box"))
    return placed


def _alone(at: Vector, yaw: float, tilt: float, half: Vector, number: int, role: str) -> Placed:
    return Placed("box", at, 0.0, (0.0, 0.0, 0.0), yaw, tilt, half, (number, role))


def _materials(rng: np.random.Generator, parts: list[Placed]) -> dict[str, np.ndarray]:
    materials = PlainMaterials(rng)
    walls = materials.get((-1, "wall"))
    accent = int(rng.integers(8))  # one wall differs in half of the rooms
    faces = [
        walls if role == "wall" and face != accent else materials.get((-2 - face, role))
        for face, role in enumerate(_FACE_ROLES)
    ]
    return materials.columns([materials.get(part.material) for part in parts] + faces)


def _light(rng: np.random.Generator, size: Vector) -> Light:
    heights = np.array([0.85, rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)])
    lamp = np.stack([rng.uniform(-0.7, 0.7, 3), -heights, rng.uniform(-0.7, 0.7, 3)], axis=1) * size
    warmth = rng.uniform(-0.15, 0.15, (3, 1)) * np.array([1.0, 0.0, -1.0])
    strength = np.array([1.6, 0.8, 0.6])[:, None] * rng.uniform(0.6, 1.3, (3, 1))
    ambient = rng.uniform(0.25, 0.5) * (1 + 0.1 * rng.uniform(-1, 1, 3))
    return Light(lamp, strength * (1 + warmth), ambient)
