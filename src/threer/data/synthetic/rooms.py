"""Rooms as tensors: what stands where, of which material, lit by what; sampled from a seed and stacked.

World axes follow the camera's: x right, y **down**, z forward; the room's centre is the origin. Metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from threer.data.synthetic.lived_in import lived_in_scene
from threer.data.synthetic.placing import BOX, CYLINDER, SPHERE, geometry
from threer.data.synthetic.plain import MAX_PARTS, plain_scene
from threer.data.synthetic.room_style import PLAIN, RoomStyle
from threer.data.synthetic.scene import Scene

__all__ = ["BOX", "CYLINDER", "LIGHTS", "MAX_PARTS", "SPHERE", "Rooms", "sample_room", "stack_rooms"]

ROOM_FACES = 6  # -x, +x, ceiling, floor, -z, +z: the order of faces in every material table
LIGHTS = 3
_PARTS_STEP = 8  # rooms are padded to a multiple of it


@dataclass(frozen=True, eq=False)
class Rooms:
    """S rooms. P primitives each (``radius`` 0 where unused), M = P + 6 materials, room faces last.

    size       [S, 3] half sizes of the room (x, y, z)
    kind       [S, P] int64 BOX, CYLINDER or SPHERE
    centre     [S, P, 3]; rotation [S, P, 3, 3] world from local; half [S, P, 3] half sizes
    radius     [S, P] of the bounding sphere
    texture    [S, M] int64 index into the texture bank; photographs come after the drawn textures
    colours    [S, M, 3, 3] three linear RGB colours that the texture's channels mix; the first tints a photograph
    tile       [S, M] metres one texture tile covers;  turn [S, M] radians, offset [S, M, 2] in tiles
    gloss      [S, M] specular strength;  glow [S, M] emitted share of the colour
    sheen      [S, M] 0..1 reflection of the surroundings;  mirror [S, M] share of the colour that is a mirror's
    lamp       [S, 3, 3] positions of the point lights;  power [S, 3, 3] their linear RGB
    falloff    [S] lamps fade by 1 + falloff · distance²;  disc [S] radius of the first lamp in metres
    ambient    [S, 3] linear RGB;  bounce [S] share of it that comes from the room's faces
    occlusion  [S] 0..1 how dark the ambient light gets where surfaces meet
    rich       whether they are of another style than plain, whose light is simpler
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
    sheen: Tensor
    mirror: Tensor
    lamp: Tensor
    power: Tensor
    falloff: Tensor
    disc: Tensor
    ambient: Tensor
    bounce: Tensor
    occlusion: Tensor
    rich: bool = False

    def __len__(self) -> int:
        return len(self.size)

    def to(self, device: str | torch.device) -> Rooms:
        return Rooms(**{name: getattr(self, name).to(device) for name in _TENSORS}, rich=self.rich)


_TENSORS = tuple(f.name for f in fields(Rooms) if f.name != "rich")
_OF_PARTS = ("kind", "centre", "rotation", "half", "radius")
_OF_MATERIALS = ("texture", "colours", "tile", "turn", "offset", "gloss", "glow", "sheen", "mirror")


def stack_rooms(rooms: Sequence[Rooms]) -> Rooms:
    """Rooms of several batches as one batch, with unused primitives up to the largest number.

    Raises ValueError for plain rooms among others: their light is worked out another way.
    """
    if len({r.rich for r in rooms}) > 1:
        raise ValueError("plain rooms and rooms of another style cannot be rendered together; stack them apart")
    most = max(r.kind.shape[1] for r in rooms)
    padded = [_padded(r, most) for r in rooms]
    columns = {name: torch.cat([getattr(r, name) for r in padded]) for name in _TENSORS}
    return Rooms(**columns, rich=rooms[0].rich)


def _padded(rooms: Rooms, parts: int) -> Rooms:
    spare = parts - rooms.kind.shape[1]
    if spare == 0:
        return rooms
    columns = {name: getattr(rooms, name) for name in _TENSORS}
    for name in (*_OF_PARTS, *_OF_MATERIALS):
        used = columns[name].flatten(2) if columns[name].dim() > 2 else columns[name].unsqueeze(2)
        # faces stay last: the padding of materials goes in front of them
        cut = used.shape[1] - (ROOM_FACES if name in _OF_MATERIALS else 0)
        used = torch.cat([F.pad(used[:, :cut], (0, 0, 0, spare)), used[:, cut:]], dim=1)
        columns[name] = used.reshape(len(rooms), -1, *columns[name].shape[2:])
    return Rooms(**columns, rich=rooms.rich)


def sample_room(seed: int, style: RoomStyle = PLAIN) -> Rooms:
    """One furnished, textured and lit room (S = 1) for a seed."""
    if style == PLAIN:
        return _to_tensors(plain_scene(seed), style, MAX_PARTS)
    scene = lived_in_scene(seed, style)
    return _to_tensors(scene, style, -(-len(scene.parts) // _PARTS_STEP) * _PARTS_STEP)


def _to_tensors(scene: Scene, style: RoomStyle, room_for: int) -> Rooms:
    """The scene with unused primitives up to ``room_for``."""
    count, light = len(scene.parts), scene.light

    def tensor(values: object) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).unsqueeze(0)

    def spread(values: np.ndarray, spare: int) -> Tensor:
        """One row for each primitive, those of the faces behind them all."""
        kind = np.int64 if values.dtype.kind == "i" else np.float32
        table = np.zeros((1, room_for + spare, *values.shape[1:]), dtype=kind)
        table[0, :count] = values[:count]
        table[0, room_for:] = values[count:]
        return torch.from_numpy(table)

    unlit = np.zeros(count + ROOM_FACES)
    materials = {"sheen": unlit, "mirror": unlit, **scene.materials}
    return Rooms(
        size=tensor(scene.size),
        **{name: spread(values, 0) for name, values in geometry(scene.parts).items()},
        **{name: spread(values, ROOM_FACES) for name, values in materials.items()},
        lamp=tensor(light.lamp),
        power=tensor(light.power),
        falloff=tensor(light.falloff),
        disc=tensor(light.disc),
        ambient=tensor(light.ambient),
        bounce=tensor(style.bounce),
        occlusion=tensor(style.occlusion),
        rich=style != PLAIN,
    )
