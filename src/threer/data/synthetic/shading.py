"""Colours of hit points: texture, three lights with shadows of the first, gloss, glow, darker corners, mirrors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threer.data.synthetic import light
from threer.data.synthetic.quads import light_of_quads
from threer.data.synthetic.raycast import Hits, blocked, cast, dot
from threer.data.synthetic.rooms import BOX, CYLINDER, Rooms
from threer.data.synthetic.textures import SIZE, TextureBank

SHADOW = 0.25  # share of the first light that reaches a shadowed point of a plain room
_DEEP = 0.06  # of a rich one, which has light from walls and floor besides
_MIRRORED_AT_ONCE = 16_384  # rays


@dataclass(frozen=True, eq=False)
class Bundles:
    """G groups of k rays; those of a group start at one point.

    room       [G] int64 the room they are in
    origin     [G, 3]
    direction  [G, k, 3] of any length
    pixel      [G] angle of a pixel in radians, for the mip level
    """

    room: Tensor
    origin: Tensor
    direction: Tensor
    pixel: Tensor

    def at(self, distance: Tensor) -> Tensor:
        """Points [G, k, 3] so far [G, k] along the rays, in units of their direction."""
        return self.origin.unsqueeze(1) + distance.unsqueeze(-1) * self.direction


def shade(
    rooms: Rooms, bank: TextureBank, rays: Bundles, hits: Hits, size: tuple[int, int] | None = None
) -> Tensor:
    """Linear RGB [G, k, 3] seen along rays, whose first hits are ``hits``.

    ``size`` (W, H) of the frames if the groups are all their tiles: shadows of rich rooms are then worked out for
    quads of pixels, which is several times as fast
    """
    colour = _shade_once(rooms, bank, rays, hits, size)
    if rooms.rich:
        _mirror(rooms, bank, rays, hits, colour)
    return colour


def _shade_once(
    rooms: Rooms, bank: TextureBank, rays: Bundles, hits: Hits, size: tuple[int, int] | None = None
) -> Tensor:
    """As ``shade``, with mirrors dark."""
    room, direction = rays.room, rays.direction
    points = rays.at(hits.distance)
    shape = hits.part.shape
    rooms_of_ray = room.unsqueeze(1).expand(shape).reshape(-1)
    part = hits.part.reshape(-1)
    flat = points.reshape(-1, 3)
    normal, uv_metres = _surface(rooms, rooms_of_ray, part, flat)
    view = -(direction / direction.norm(dim=-1, keepdim=True)).reshape(-1, 3)
    facing = dot(normal, view).unsqueeze(-1)
    normal = torch.where(facing < 0, -normal, normal)

    span = (hits.distance * direction.norm(dim=-1) * rays.pixel.unsqueeze(1)).reshape(-1)
    material = rooms_of_ray * rooms.tile.shape[1] + part
    colour = _albedo(rooms, bank, material, uv_metres, span / facing.squeeze(-1).abs().clamp(min=0.1))
    gloss, glow = (_of(values, material).unsqueeze(-1) for values in (rooms.gloss, rooms.glow))
    if not rooms.rich:
        shadow = blocked(rooms, room, points + 1e-3 * normal.view_as(points), rooms.lamp[room, 0]).reshape(-1, 1)
        reached = torch.where(shadow, SHADOW, 1.0)
        ambient = rooms.ambient[rooms_of_ray] * _corners(rooms.size[rooms_of_ray], flat)
        lit, highlight = light.lamps(rooms, rooms_of_ray, flat, normal, view, ambient, reached, 32)
        return (colour * lit + gloss * highlight + glow * colour).view(*shape, 3)

    faces = light.face_light(rooms, bank)
    facing_us = normal.view_as(points)
    ambient = light.indirect(rooms, faces, room, points, facing_us).reshape(-1, 3)
    if size is None:
        reached = light.main_lamp(rooms, room, points, facing_us)
        openness = light.openness(rooms, room, points, facing_us)
    else:
        reached, openness = light_of_quads(rooms, room, points, facing_us, hits.part, size)
    ambient = ambient * openness.reshape(-1, 1)
    reached = _DEEP + (1 - _DEEP) * reached.reshape(-1, 1)
    sheen = _of(rooms.sheen, material).unsqueeze(-1)
    lit, highlight = light.lamps(rooms, rooms_of_ray, flat, normal, view, ambient, reached, 24 + 200 * sheen)
    seen, share = light.surroundings(faces[room], facing_us, view.view_as(points))
    seen, share = seen.reshape(-1, 3), share.reshape(-1, 1)
    mirrored = sheen * share
    total = colour * lit * (1 - mirrored) + mirrored * seen
    total = total + (gloss + 2 * mirrored) * highlight + glow * colour
    return (total * (1 - _of(rooms.mirror, material).unsqueeze(-1))).view(*shape, 3)


def _mirror(rooms: Rooms, bank: TextureBank, rays: Bundles, hits: Hits, colour: Tensor) -> None:
    """Add to ``colour``, in place, what mirrors show: one further ray for each pixel that hits one."""
    share = rooms.mirror[rays.room.unsqueeze(1), hits.part]
    mirrors = (share > 0).nonzero()
    for first in range(0, len(mirrors), _MIRRORED_AT_ONCE):
        group, ray = mirrors[first : first + _MIRRORED_AT_ONCE].unbind(1)
        onward = rays.direction[group, ray]
        part, room = hits.part[group, ray], rays.room[group]
        at = rays.origin[group] + hits.distance[group, ray].unsqueeze(-1) * onward
        normal, _ = _surface(rooms, room, part, at)
        slant = (onward * normal).sum(-1, keepdim=True)
        mirrored = (onward - 2 * slant * normal).unsqueeze(1)
        reflected = Bundles(room, at - 1e-3 * slant.sign() * normal, mirrored, 2 * rays.pixel[group])
        beyond = cast(rooms, room, reflected.origin, reflected.direction)
        shown = _shade_once(rooms, bank, reflected, beyond).squeeze(1)
        colour[group, ray] += share[group, ray].unsqueeze(-1) * shown


def _surface(rooms: Rooms, room: Tensor, part: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """World normals [n, 3] (outward; inward for the room) and surface coordinates in metres [n, 2]."""
    count = rooms.kind.shape[1]
    is_face = part >= count
    index = part.clamp(max=count - 1)
    row = room * count + index
    rotation, half, kind = _of(rooms.rotation, row), _of(rooms.half, row), _of(rooms.kind, row)
    local = ((points - _of(rooms.centre, row)).unsqueeze(1) @ rotation).squeeze(1)

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


def _of(table: Tensor, row: Tensor) -> Tensor:
    """Rows [n] int64 of a table [S, M, ...] whose first two dimensions are one; faster than by two indices."""
    return table.flatten(0, 1).index_select(0, row)


def _albedo(rooms: Rooms, bank: TextureBank, material: Tensor, uv_metres: Tensor, footprint: Tensor) -> Tensor:
    """Surface colour [n, 3] of materials as in ``_of``; footprint [n] is the size of a pixel there in metres."""
    tile, turn = _of(rooms.tile, material), _of(rooms.turn, material)
    cosine, sine = turn.cos(), turn.sin()
    u, v = uv_metres.unbind(-1)
    uv = torch.stack([cosine * u - sine * v, sine * u + cosine * v], dim=-1) / tile.unsqueeze(-1)
    level = (footprint / tile * SIZE).clamp(min=1e-6).log2()
    uv = uv + _of(rooms.offset, material)
    return bank.colour(_of(rooms.texture, material), uv, level, _of(rooms.colours, material))


def _corners(size: Tensor, points: Tensor) -> Tensor:
    """[n, 1] ambient share: darker near where two room faces meet."""
    gap = (size - points.abs()).clamp(min=0).sort(dim=-1).values[:, 1]
    return (1 - 0.45 * torch.exp(-gap / 0.25)).unsqueeze(-1)
