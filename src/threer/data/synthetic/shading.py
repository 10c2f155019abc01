"""Colours of hit points: texture, three lights with shadows of the first, gloss, glow, darker corners, mirrors."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.data.synthetic import light
from threer.data.synthetic.raycast import Hits, blocked, cast
from threer.data.synthetic.rooms import BOX, CYLINDER, Rooms
from threer.data.synthetic.textures import SIZE, TextureBank

SHADOW = 0.25  # share of the first light that reaches a shadowed point of a plain room
_DEEP = 0.06  # of a rich one, which has light from walls and floor besides
_MIRRORED_AT_ONCE = 16_384  # rays


def shade(
    rooms: Rooms, bank: TextureBank, room: Tensor, origin: Tensor, direction: Tensor, hits: Hits, pixel: Tensor
) -> Tensor:
    """Linear RGB [G, k, 3] seen along rays.

    room [G] int64, origin [G, 3], direction [G, k, 3], pixel [G] angle of a pixel in radians (for the mip level)
    """
    colour = _shade_once(rooms, bank, room, origin, direction, hits, pixel)
    if rooms.rich:
        _mirror(rooms, bank, room, origin, direction, hits, pixel, colour)
    return colour


def _shade_once(
    rooms: Rooms, bank: TextureBank, room: Tensor, origin: Tensor, direction: Tensor, hits: Hits, pixel: Tensor
) -> Tensor:
    """As ``shade``, with mirrors dark."""
    points = origin.unsqueeze(1) + hits.distance.unsqueeze(-1) * direction  # [G, k, 3]
    shape = hits.part.shape
    rooms_of_ray = room.unsqueeze(1).expand(shape).reshape(-1)
    part = hits.part.reshape(-1)
    flat = points.reshape(-1, 3)
    normal, uv_metres = _surface(rooms, rooms_of_ray, part, flat)
    view = -(direction / direction.norm(dim=-1, keepdim=True)).reshape(-1, 3)
    facing = (normal * view).sum(-1, keepdim=True)
    normal = torch.where(facing < 0, -normal, normal)

    span = (hits.distance * direction.norm(dim=-1) * pixel.unsqueeze(1)).reshape(-1)
    colour = _albedo(rooms, bank, rooms_of_ray, part, uv_metres, span / facing.squeeze(-1).abs().clamp(min=0.1))
    gloss, glow = rooms.gloss[rooms_of_ray, part].unsqueeze(-1), rooms.glow[rooms_of_ray, part].unsqueeze(-1)
    if not rooms.rich:
        shadow = blocked(rooms, room, points + 1e-3 * normal.view_as(points), rooms.lamp[room, 0]).reshape(-1, 1)
        reached = torch.where(shadow, SHADOW, 1.0)
        ambient = rooms.ambient[rooms_of_ray] * _corners(rooms.size[rooms_of_ray], flat)
        lit, highlight = light.lamps(rooms, rooms_of_ray, flat, normal, view, ambient, reached, 32)
        return (colour * lit + gloss * highlight + glow * colour).view(*shape, 3)

    faces = light.face_light(rooms, bank)
    ambient = light.indirect(rooms, faces, rooms_of_ray, flat, normal)
    ambient = ambient * light.openness(rooms, room, points, normal.view_as(points)).reshape(-1, 1)
    reached = light.main_lamp(rooms, room, points, normal.view_as(points)).reshape(-1, 1)
    reached = _DEEP + (1 - _DEEP) * reached
    sheen = rooms.sheen[rooms_of_ray, part].unsqueeze(-1)
    lit, highlight = light.lamps(rooms, rooms_of_ray, flat, normal, view, ambient, reached, 24 + 200 * sheen)
    seen, share = light.surroundings(faces, rooms_of_ray, normal, view)
    mirrored = sheen * share
    total = colour * lit * (1 - mirrored) + mirrored * seen
    total = total + (gloss + 2 * mirrored) * highlight + glow * colour
    return (total * (1 - rooms.mirror[rooms_of_ray, part].unsqueeze(-1))).view(*shape, 3)


def _mirror(
    rooms: Rooms,
    bank: TextureBank,
    room: Tensor,
    origin: Tensor,
    direction: Tensor,
    hits: Hits,
    pixel: Tensor,
    colour: Tensor,
) -> None:
    """Add to ``colour``, in place, what mirrors show: one further ray for each pixel that hits one."""
    share = rooms.mirror[room.unsqueeze(1), hits.part]
    mirrors = (share > 0).nonzero()
    for first in range(0, len(mirrors), _MIRRORED_AT_ONCE):
        group, ray = mirrors[first : first + _MIRRORED_AT_ONCE].unbind(1)
        onward = direction[group, ray]
        part, of_room = hits.part[group, ray], room[group]
        at = origin[group] + hits.distance[group, ray].unsqueeze(-1) * onward
        normal, _ = _surface(rooms, of_room, part, at)
        slant = (onward * normal).sum(-1, keepdim=True)
        onward = (onward - 2 * slant * normal).unsqueeze(1)
        at = at - 1e-3 * slant.sign() * normal
        beyond = cast(rooms, of_room, at, onward)
        shown = _shade_once(rooms, bank, of_room, at, onward, beyond, 2 * pixel[group]).squeeze(1)
        colour[group, ray] += share[group, ray].unsqueeze(-1) * shown


def _surface(rooms: Rooms, room: Tensor, part: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """World normals [n, 3] (outward; inward for the room) and surface coordinates in metres [n, 2]."""
    count = rooms.kind.shape[1]
    is_face = part >= count
    index = part.clamp(max=count - 1)
    rotation = rooms.rotation[room, index]
    local = ((points - rooms.centre[room, index]).unsqueeze(1) @ rotation).squeeze(1)
    half = rooms.half[room, index]
    kind = rooms.kind[room, index]

    # Boxes: the axis on which the point is farthest out.
    axis = (local.abs() - half).argmax(-1)
    normal = torch.zeros_like(local).scatter_(1, axis.unsqueeze(1), local.gather(1, axis.unsqueeze(1)).sign())
    uv = _two_axes(local, axis)

    around = torch.atan2(local[:, 2], local[:, 0]) * half[:, 0]
    # Cylinders: cap or side.
    cap = local[:, 1].abs() > half[:, 1] - 1e-4
    side = torch.stack([local[:, 0], torch.zeros_like(around), local[:, 2]], dim=-1)
    lid = torch.stack([torch.zeros_like(around), local[:, 1].sign(), torch.zeros_like(around)], dim=-1)
    tube = torch.where(cap.unsqueeze(1), lid, side)
    tube_uv = torch.where(cap.unsqueeze(1), local[:, [0, 2]], torch.stack([around, local[:, 1]], dim=-1))
    is_tube = (kind == CYLINDER).unsqueeze(1)
    is_ball = ((kind != CYLINDER) & (kind != BOX)).unsqueeze(1)
    normal = torch.where(is_tube, tube, torch.where(is_ball, local, normal))
    uv = torch.where(is_tube, tube_uv, torch.where(is_ball, torch.stack([around, local[:, 1]], dim=-1), uv))
    normal = (rotation @ normal.unsqueeze(-1)).squeeze(-1)

    # The room: normal points inwards.
    face = (part - count).clamp(min=0)
    face_axis = face // 2
    inward = torch.zeros_like(local).scatter_(1, face_axis.unsqueeze(1), (1.0 - 2.0 * (face % 2)).unsqueeze(1))
    normal = torch.where(is_face.unsqueeze(1), inward, normal)
    uv = torch.where(is_face.unsqueeze(1), _two_axes(points, face_axis), uv)
    return normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-9), uv


def _two_axes(points: Tensor, axis: Tensor) -> Tensor:
    """The two coordinates other than ``axis``; the vertical one comes second."""
    first = torch.tensor([2, 0, 0], device=points.device)[axis]
    second = torch.tensor([1, 2, 1], device=points.device)[axis]
    return torch.stack(
        [points.gather(1, first.unsqueeze(1)), points.gather(1, second.unsqueeze(1))], dim=1
    ).squeeze(-1)


def _albedo(
    rooms: Rooms, bank: TextureBank, room: Tensor, part: Tensor, uv_metres: Tensor, footprint: Tensor
) -> Tensor:
    """Surface colour [n, 3]; footprint [n] is the size of a pixel on the surface in metres."""
    tile, turn = rooms.tile[room, part], rooms.turn[room, part]
    cosine, sine = turn.cos(), turn.sin()
    u, v = uv_metres.unbind(-1)
    uv = torch.stack([cosine * u - sine * v, sine * u + cosine * v], dim=-1) / tile.unsqueeze(-1)
    level = (footprint / tile * SIZE).clamp(min=1e-6).log2()
    return bank.colour(rooms.texture[room, part], uv + rooms.offset[room, part], level, rooms.colours[room, part])


def _corners(size: Tensor, points: Tensor) -> Tensor:
    """[n, 1] ambient share: darker near where two room faces meet."""
    gap = (size - points.abs()).clamp(min=0).sort(dim=-1).values[:, 1]
    return (1 - 0.45 * torch.exp(-gap / 0.25)).unsqueeze(-1)
