"""Light of rich rooms: soft shadows, darkening where surfaces meet, light from walls and floor, reflections.

Everything is a function of the points alone, so that a clip does not depend on what it is rendered with.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from threer.data.synthetic.raycast import blocked, dot, gap_within
from threer.data.synthetic.rooms import LIGHTS, Rooms
from threer.data.synthetic.textures import TextureBank

LAMP_PLACES = 8  # of the main lamp that shadow rays go to
_REACH = 0.18  # metres within which surfaces darken each other
_SENT_ON = 0.75  # of the light that a room's faces send out, the share that furniture lets through
_POLISHED = 0.04  # reflection of polished surfaces seen head on


@lru_cache(maxsize=4)
def lamp_places(device: str) -> Tensor:
    """[LAMP_PLACES, 3] over the lower half of a flattened unit ball: what lamps hang from casts no shadow."""
    number = torch.arange(LAMP_PLACES, device=device)
    turn = number * (math.pi * (3 - math.sqrt(5)))
    spread = ((number + 0.5) / LAMP_PLACES).sqrt()
    return torch.stack([spread * turn.cos(), 0.3 * (1 - spread), spread * turn.sin()], dim=-1)


def main_lamp(rooms: Rooms, room: Tensor, points: Tensor, normal: Tensor, places: Tensor | None = None) -> Tensor:
    """Share of the first lamp [G, k, 1] that reaches points [G, k, 3] with normals [G, k, 3].

    places [k, r, 3] of the unit lamp that each point sees; all of them when not given
    """
    if not bool(rooms.disc.any()):
        places = points.new_zeros(1, 1, 3)
    elif places is None:
        places = lamp_places(str(points.device)).unsqueeze(0)
    lamp = rooms.lamp[room, 0].unsqueeze(1)
    share = torch.zeros(points.shape[:2], device=points.device)
    facing = dot(lamp - points, normal) > 0
    some = facing.any(1).nonzero().squeeze(1)
    if not len(some):
        return share.unsqueeze(-1)
    start = (points + 1e-3 * normal)[some].unsqueeze(2)
    goal = lamp[some].unsqueeze(1) + rooms.disc[room[some]].view(-1, 1, 1, 1) * places
    shape = (len(some), points.shape[1], places.shape[1], 3)
    dark = blocked(rooms, room[some], start.expand(shape).flatten(1, 2), goal.expand(shape).flatten(1, 2))
    share[some] = 1 - dark.view(shape[:3]).float().mean(-1)
    return (share * facing).unsqueeze(-1)


def openness(rooms: Rooms, room: Tensor, points: Tensor, normal: Tensor) -> Tensor:
    """Share of the ambient light [G, k, 1] that gets to points: less where another surface is close in front."""
    if not bool(rooms.occlusion.any()):
        return torch.ones_like(points[..., :1])
    gap = gap_within(rooms, room, points + _REACH * normal, _REACH)
    return (1 - rooms.occlusion[room].unsqueeze(1) * (1 - gap / _REACH).clamp(0, 1)).unsqueeze(-1)


def face_light(rooms: Rooms, bank: TextureBank) -> Tensor:
    """Linear RGB [S, 6, 3] that the room's faces send back: their mean colours in the light that falls on them."""
    index = rooms.texture[:, -6:]
    mean = bank.mean_colour(index, rooms.colours[:, -6:])
    axis = torch.arange(6, device=index.device) // 2
    sign = torch.tensor([-1.0, 1.0], device=index.device).repeat(3)
    out = torch.nn.functional.one_hot(axis, 3) * sign.unsqueeze(1)  # [6, 3] outward
    middle = out * rooms.size.unsqueeze(1)
    towards = rooms.lamp.unsqueeze(1) - middle.unsqueeze(2)  # [S, 6, 3 lamps, 3]
    squared = (towards * towards).sum(-1, keepdim=True)
    slant = -(towards * out.view(1, 6, 1, 3)).sum(-1, keepdim=True) * squared.clamp(min=0.3).rsqrt()
    power = rooms.power.unsqueeze(1) / (1 + rooms.falloff.view(-1, 1, 1, 1) * squared)
    return mean * (rooms.ambient.unsqueeze(1) + (power * slant.clamp(min=0)).sum(2))


def indirect(rooms: Rooms, faces: Tensor, room: Tensor, points: Tensor, normal: Tensor) -> Tensor:
    """Ambient light [G, k, 3] at points [G, k, 3]: even, and from the faces that are near and in front.

    room [G] int64, faces [S, 6, 3] as ``face_light`` gives them, normal [G, k, 3]
    """
    size = rooms.size[room].unsqueeze(1)
    distance = torch.cat([size + points, size - points], dim=-1).clamp(min=0)  # -x -y -z +x +y +z
    weight = (0.5 + 0.5 * torch.cat([-normal, normal], dim=-1)) / (0.3 + distance)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    bounced = weight @ _paired(faces[room])
    share = rooms.bounce[room].view(-1, 1, 1)
    return torch.lerp(rooms.ambient[room].unsqueeze(1), _SENT_ON * bounced, share)


def surroundings(faces: Tensor, normal: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    """What polished surfaces reflect: light [G, k, 3] and its share [G, k, 1] (Schlick's Fresnel term).

    faces [G, 6, 3] of the group's room; normal, view [G, k, 3]
    """
    cosine = dot(normal, view).unsqueeze(-1)
    away = 2 * cosine * normal - view
    weight = torch.cat([-away, away], dim=-1).clamp(min=0) ** 2
    return weight @ _paired(faces), _POLISHED + (1 - _POLISHED) * (1 - cosine.clamp(0, 1)) ** 5


def _paired(faces: Tensor) -> Tensor:
    """Faces in the order -x -y -z +x +y +z, from -x +x -y +y -z +z."""
    return faces[:, [0, 2, 4, 1, 3, 5]]


def lamps(
    rooms: Rooms,
    room: Tensor,
    points: Tensor,
    normal: Tensor,
    view: Tensor,
    ambient: Tensor,
    reached: Tensor,
    sharpness: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Ambient light and that of the lamps, and the lamps' highlights, both [n, 3].

    room [n] int64; points, normal, view, ambient [n, 3]; ``reached`` [n, 1] share of the first lamp; ``sharpness``
    [n, 1] or a number: the exponent of the highlights
    """
    total, highlight = ambient, torch.zeros_like(points)
    for lamp in range(LIGHTS):
        towards = rooms.lamp[:, lamp].index_select(0, room) - points
        squared = dot(towards, towards).unsqueeze(-1)
        towards = towards * squared.clamp(min=1e-6).rsqrt()
        power = rooms.power[:, lamp].index_select(0, room) / (1 + rooms.falloff[room].unsqueeze(-1) * squared)
        if lamp == 0:
            power = reached * power
        total = total + power * dot(normal, towards).unsqueeze(-1).clamp(min=0)
        between = towards + view
        between = between / between.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        highlight = highlight + power * dot(normal, between).unsqueeze(-1).clamp(min=0) ** sharpness
    return total, highlight
