"""Light of rich rooms: soft shadows, darkening where surfaces meet, light from walls and floor, reflections.

Everything is a function of the points alone, so that a clip does not depend on what it is rendered with.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from threer.data.synthetic.raycast import blocked, gap_within
from threer.data.synthetic.rooms import LIGHTS, Rooms
from threer.data.synthetic.textures import TextureBank

SHADOW_RAYS = 2  # a pixel; a quad of pixels shares them, so that each sees eight places of the lamp
_REACH = 0.18  # metres within which surfaces darken each other
_SENT_ON = 0.75  # of the light that a room's faces send out, the share that furniture lets through
_POLISHED = 0.04  # reflection of polished surfaces seen head on


@lru_cache(maxsize=4)
def _lamp_places(device: str) -> Tensor:
    """[4, SHADOW_RAYS, 3] over the lower half of a flattened unit ball: what lamps hang from casts no shadow."""
    number = torch.arange(4 * SHADOW_RAYS, device=device)
    turn = number * (math.pi * (3 - math.sqrt(5)))
    spread = ((number + 0.5) / len(number)).sqrt()
    return torch.stack([spread * turn.cos(), 0.3 * (1 - spread), spread * turn.sin()], dim=-1).view(
        4, SHADOW_RAYS, 3
    )


def main_lamp(rooms: Rooms, room: Tensor, points: Tensor, normal: Tensor) -> Tensor:
    """Share of the first lamp [G, k, 1] that reaches points [G, k, 3] with normals [G, k, 3]."""
    side = math.isqrt(points.shape[1])
    lamp, disc = rooms.lamp[room, 0].unsqueeze(1), rooms.disc[room].view(-1, 1, 1)
    number = torch.arange(points.shape[1], device=points.device)
    member = 2 * (number // side % 2) + number % side % 2
    places = _lamp_places(str(points.device))[member]
    start = points + 1e-3 * normal
    share = torch.zeros(points.shape[:2], device=points.device)
    for ray in range(SHADOW_RAYS):
        share += 1 - blocked(rooms, room, start, lamp + disc * places[:, ray]).float()
    share = share / SHADOW_RAYS
    if side % 2 == 0 and side * side == points.shape[1]:
        share = _shared_by_quads(share, normal, side)
    return share.unsqueeze(-1)


def _shared_by_quads(share: Tensor, normal: Tensor, side: int) -> Tensor:
    """[G, side²] means over quads of 2×2 pixels, among pixels that face the same way."""

    def quads(values: Tensor) -> Tensor:  # [G, side², c] -> [G, side²/4, 4, c]
        blocks = values.view(len(values), side // 2, 2, side // 2, 2, -1).transpose(2, 3)
        return blocks.reshape(len(values), side * side // 4, 4, values.shape[-1])

    facing = quads(normal)
    alike = ((facing @ facing.mT) > 0.9).float()
    mean = alike @ quads(share.unsqueeze(-1)) / alike.sum(-1, keepdim=True).clamp(min=1)
    blocks = mean.view(len(share), side // 2, side // 2, 2, 2).transpose(2, 3)
    return blocks.reshape(share.shape)


def openness(rooms: Rooms, room: Tensor, points: Tensor, normal: Tensor) -> Tensor:
    """Share of the ambient light [G, k, 1] that gets to points: less where another surface is close in front."""
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
    """Ambient light [n, 3] at points [n, 3]: even, and from the faces that are near and in front.

    room [n] int64, faces [S, 6, 3] as ``face_light`` gives them
    """
    size = rooms.size[room]
    distance = torch.stack([size + points, size - points], dim=-1).flatten(1).clamp(min=0)  # -x +x -y +y -z +z
    facing = torch.stack([-normal, normal], dim=-1).flatten(1)
    weight = (0.5 + 0.5 * facing) / (0.3 + distance)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    bounced = (weight.unsqueeze(-1) * faces[room]).sum(1)
    share = rooms.bounce[room].unsqueeze(-1)
    return torch.lerp(rooms.ambient[room], _SENT_ON * bounced, share)


def surroundings(faces: Tensor, room: Tensor, normal: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    """What polished surfaces reflect: light [n, 3] and its share [n, 1] (Schlick's Fresnel term)."""
    cosine = (normal * view).sum(-1, keepdim=True)
    away = 2 * cosine * normal - view
    weight = torch.stack([-away, away], dim=-1).flatten(1).clamp(min=0) ** 2
    seen = (weight.unsqueeze(-1) * faces[room]).sum(1)
    return seen, _POLISHED + (1 - _POLISHED) * (1 - cosine.clamp(0, 1)) ** 5


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
        towards = rooms.lamp[room, lamp] - points
        squared = (towards * towards).sum(-1, keepdim=True)
        towards = towards * squared.clamp(min=1e-6).rsqrt()
        power = rooms.power[room, lamp] / (1 + rooms.falloff[room].unsqueeze(-1) * squared)
        if lamp == 0:
            power = reached * power
        total = total + power * (normal * towards).sum(-1, keepdim=True).clamp(min=0)
        between = towards + view
        between = between / between.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        highlight = highlight + power * (normal * between).sum(-1, keepdim=True).clamp(min=0) ** sharpness
    return total, highlight
