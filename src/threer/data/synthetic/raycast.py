"""Analytic ray casting against rooms of boxes, capped cylinders and spheres, in batches of pixel tiles.

Rays come in groups (8×8 pixels). A primitive is tested against a group only if its bounding sphere and then its
bounding box can touch the group's bundle of rays, which leaves a few per cent of all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threer.data.synthetic.rooms import BOX, CYLINDER, SPHERE, Rooms

EPSILON = 1e-4
_BOUNDS = ((0, 1, 2), (0, 1, 0), (0, 0, 0))  # the half sizes that bound x, y and z of a box, a cylinder, a sphere


@dataclass(frozen=True, eq=False)
class Hits:
    """What G groups of k rays meet first.

    distance  [G, k] along the ray, in units of its direction
    part      [G, k] int64 primitive, or P + face for the room's own faces
    """

    distance: Tensor
    part: Tensor


def cast(rooms: Rooms, room: Tensor, origin: Tensor, direction: Tensor) -> Hits:
    """First hits of bundles of rays that start at one point each.

    room [G] int64, origin [G, 3], direction [G, k, 3] (any length) -> distances in units of ``direction``
    """
    axis = direction.mean(dim=1)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    unit = direction / direction.norm(dim=-1, keepdim=True)
    spread = dot(unit, axis.unsqueeze(1)).amin(1).clamp(-1, 1).acos()  # [G] half angle of the bundle
    to_centre = rooms.centre[room] - origin.unsqueeze(1)  # [G, P, 3]
    reach = _length(to_centre).clamp(min=1e-6)
    radius = rooms.radius[room]
    angle = (dot(to_centre, axis.unsqueeze(1)) / reach).clamp(-1, 1).acos()
    swell = (radius / reach).clamp(max=1).asin()
    near = ((angle < spread.unsqueeze(1) + swell) | (reach <= radius)) & (radius > 0)
    group, part = near.nonzero(as_tuple=True)
    wide = (reach + radius)[group, part] * spread.clamp(max=1.5).tan()[group]
    group, part = _met(rooms, room, group, part, origin, axis, torch.inf, wide)

    starts = origin.unsqueeze(1).expand_as(direction)
    distance, face = _leave_room(rooms.size[room], starts, direction)
    count = rooms.kind.shape[1]
    best = distance.clone()
    found = face + count
    hits = _intersect(rooms, room, group, part, origin.unsqueeze(1), direction)  # [pairs, k]
    best.scatter_reduce_(0, group.unsqueeze(1).expand_as(hits), hits, reduce="amin")
    pair, ray = (hits == best[group]).logical_and(hits < distance[group]).nonzero(as_tuple=True)
    # amax settles exact ties the same way each time
    winner = torch.full_like(found, -1).flatten()
    winner.scatter_reduce_(0, group[pair] * direction.shape[1] + ray, part[pair], reduce="amax")
    winner = winner.view_as(found)
    return Hits(best, torch.where(winner >= 0, winner, found))


def first_of(rooms: Rooms, room: Tensor, parts: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """Which of a few parts rays meet first, [m, r] int64 column of ``parts``; 0 where they meet none of them.

    room [m] int64, parts [m, c] int64 as in ``Hits`` or -1 for none, origin [m, 3], direction [m, r, 3]
    """
    count = rooms.kind.shape[1]
    distance = torch.full((*parts.shape, direction.shape[1]), torch.inf, device=direction.device)
    group, column = ((parts >= 0) & (parts < count)).nonzero(as_tuple=True)
    distance[group, column] = _intersect(rooms, room, group, parts[group, column], origin.unsqueeze(1), direction)
    exits, face = _leave_room(rooms.size[room], origin.unsqueeze(1).expand_as(direction), direction)
    leaves = parts.unsqueeze(2) == count + face.unsqueeze(1)
    return torch.where(leaves, exits.unsqueeze(1), distance).argmin(1)


def blocked(rooms: Rooms, room: Tensor, start: Tensor, goal: Tensor) -> Tensor:
    """Whether something stands between points and a goal, or goals of their own.

    room [G] int64, start [G, k, 3], goal [G, 3] or [G, k, 3] -> [G, k] bool
    """
    goals = goal if goal.dim() == 3 else goal.unsqueeze(1)
    middle, end = start.mean(dim=1), goals.mean(dim=1)
    slack = _length(start - middle.unsqueeze(1)).amax(1)  # [G] radius of the start points
    slack = torch.maximum(slack, _length(goals - end.unsqueeze(1)).amax(1))
    towards = end - middle
    length2 = (towards * towards).sum(-1, keepdim=True).clamp(min=1e-9)
    to_centre = rooms.centre[room] - middle.unsqueeze(1)  # [G, P, 3]
    along = (dot(to_centre, towards.unsqueeze(1)) / length2).clamp(0, 1)
    gap = _length(to_centre - along.unsqueeze(-1) * towards.unsqueeze(1))
    radius = rooms.radius[room]
    near = (gap < radius + slack.unsqueeze(1)) & (radius > 0)
    group, part = near.nonzero(as_tuple=True)
    group, part = _met(rooms, room, group, part, middle, towards, 1.0, slack[group])
    hits = _intersect(rooms, room, group, part, start, goals - start)
    closest = torch.full(start.shape[:2], torch.inf, device=start.device)
    closest.scatter_reduce_(0, group.unsqueeze(1).expand_as(hits), hits, reduce="amin")
    return closest < 1


def clearance(rooms: Rooms, room: Tensor, points: Tensor) -> Tensor:
    """Distance from points to the nearest surface, negative inside a primitive or outside the room.

    room [G] int64, points [G, k, 3] -> [G, k] metres
    """
    used = rooms.radius[room].unsqueeze(1) > 0
    away = torch.cdist(points, rooms.centre[room], compute_mode="donot_use_mm_for_euclid_dist")  # [G, k, P]
    walls = (rooms.size[room].unsqueeze(1) - points.abs()).amin(-1)
    # a surface is at least this far, and the nearest one at most as far as the nearest centre
    least = away - rooms.radius[room].unsqueeze(1)
    most = torch.minimum(walls, away.masked_fill(~used, torch.inf).amin(-1))
    group, point, part = ((least <= most.unsqueeze(-1)) & used).nonzero(as_tuple=True)
    distance = _part_distance(rooms, room[group], part, points[group, point].unsqueeze(1)).squeeze(1)
    nearest = walls.flatten().scatter_reduce(0, group * points.shape[1] + point, distance, reduce="amin")
    return nearest.view_as(walls)


def gap_within(rooms: Rooms, room: Tensor, points: Tensor, reach: float) -> Tensor:
    """``clearance`` where it is at most ``reach``; some distance of at least ``reach`` elsewhere.

    A primitive is looked at only by groups of points that it comes near to: for points close to each other, this is
    far cheaper.
    """
    middle = points.mean(dim=1)
    slack = _length(points - middle.unsqueeze(1)).amax(1) + reach
    away = _length(rooms.centre[room] - middle.unsqueeze(1))
    radius = rooms.radius[room]
    group, part = ((away < radius + slack.unsqueeze(1)) & (radius > 0)).nonzero(as_tuple=True)
    group, part = _met(rooms, room, group, part, middle, torch.zeros_like(middle), 0.0, slack[group])
    distance = _part_distance(rooms, room[group], part, points.index_select(0, group))
    walls = (rooms.size[room].unsqueeze(1) - points.abs()).amin(-1)
    return walls.scatter_reduce(0, group.unsqueeze(1).expand_as(distance), distance, reduce="amin")


def dot(a: Tensor, b: Tensor) -> Tensor:
    """[..., 3] twice -> [...]; ``sum`` takes twice as long where the last dimension is this short."""
    x, y, z = (a * b).unbind(-1)
    return x + y + z


def _length(vectors: Tensor) -> Tensor:
    return dot(vectors, vectors).sqrt()


def _met(
    rooms: Rooms,
    room: Tensor,
    group: Tensor,
    part: Tensor,
    origin: Tensor,
    direction: Tensor,
    until: float,
    slack: Tensor,
) -> tuple[Tensor, Tensor]:
    """Those pairs of a group and a primitive whose boxes, larger by ``slack`` [n], the middle of a bundle meets.

    room [G] int64; group, part [n] int64; the middle is origin [G, 3] + t direction [G, 3], t in 0..``until``
    """
    row = room[group] * rooms.kind.shape[1] + part
    rotation = rooms.rotation.flatten(0, 1).index_select(0, row)
    half = rooms.half.flatten(0, 1).index_select(0, row)
    axes = torch.tensor(_BOUNDS, device=row.device)[rooms.kind.flatten()[row]]
    half = half.gather(1, axes) * 1.0001 + (slack + 1e-4).unsqueeze(1)
    offset = origin.index_select(0, group) - rooms.centre.flatten(0, 1).index_select(0, row)
    offset = (offset.unsqueeze(2) * rotation).sum(1)
    along = (direction.index_select(0, group).unsqueeze(2) * rotation).sum(1)
    inverse = torch.where(along.abs() < 1e-9, 1e-9, along).reciprocal()
    middle, extent = -offset * inverse, half * inverse.abs()
    enter, leave = (middle - extent).amax(-1), (middle + extent).amin(-1)
    kept = ((enter <= leave) & (leave >= 0) & (enter <= until)).nonzero().squeeze(1)
    return group[kept], part[kept]


def _part_distance(rooms: Rooms, room: Tensor, part: Tensor, points: Tensor) -> Tensor:
    """Signed distances of primitives to k points: room, part [n] int64, points [n, k, 3] -> [n, k]."""
    result = torch.empty(points.shape[:2], device=points.device)
    kinds = rooms.kind[room, part]
    for kind, solve in ((BOX, _from_box), (CYLINDER, _from_cylinder), (SPHERE, _from_sphere)):
        chosen = (kinds == kind).nonzero().squeeze(1)
        r, p = room[chosen], part[chosen]
        local = (points.index_select(0, chosen) - rooms.centre[r, p].unsqueeze(1)) @ rooms.rotation[r, p]
        result[chosen] = solve(local, rooms.half[r, p].unsqueeze(1))
    return result


def _from_box(point: Tensor, half: Tensor) -> Tensor:
    x, y, z = (point.abs() - half).unbind(-1)
    beyond = (x.clamp(min=0) ** 2 + y.clamp(min=0) ** 2 + z.clamp(min=0) ** 2).sqrt()
    return beyond + torch.maximum(torch.maximum(x, y), z).clamp(max=0)


def _from_cylinder(point: Tensor, half: Tensor) -> Tensor:
    x, y, z = point.unbind(-1)
    aside, above = (x * x + z * z).sqrt() - half[..., 0], y.abs() - half[..., 1]
    return torch.hypot(aside.clamp(min=0), above.clamp(min=0)) + torch.maximum(aside, above).clamp(max=0)


def _from_sphere(point: Tensor, half: Tensor) -> Tensor:
    return _length(point) - half[..., 0]


def _leave_room(size: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays from inside meet the room: distance [G, k] and face [G, k] (-x +x -y +y -z +z)."""
    towards = torch.where(direction < 0, -1.0, 1.0)
    safe = torch.where(direction.abs() < 1e-9, towards * 1e-9, direction)
    exits = (towards * size.unsqueeze(1) - origin) / safe
    distance, axis = exits.min(dim=-1)
    positive = towards.gather(-1, axis.unsqueeze(-1)).squeeze(-1) > 0
    return distance, 2 * axis + positive.long()


def _intersect(
    rooms: Rooms, room: Tensor, group: Tensor, part: Tensor, origin: Tensor, direction: Tensor
) -> Tensor:
    """Nearest positive hit for pairs of a primitive and the k rays of a group, inf where they miss.

    room [G] int64; group, part [n] int64; origin [G, k or 1, 3]; direction [G, k, 3] -> [n, k]
    """
    result = torch.empty(len(group), direction.shape[1], device=direction.device)
    row = room[group] * rooms.kind.shape[1] + part
    kinds = rooms.kind.flatten()[row]
    for kind, solve in ((BOX, _hit_box), (CYLINDER, _hit_cylinder), (SPHERE, _hit_sphere)):
        chosen = (kinds == kind).nonzero().squeeze(1)
        r, g = row[chosen], group[chosen]
        rotation = rooms.rotation.flatten(0, 1).index_select(0, r)
        centre = rooms.centre.flatten(0, 1).index_select(0, r).unsqueeze(1)
        local_origin = (origin.index_select(0, g) - centre) @ rotation
        local_direction = direction.index_select(0, g) @ rotation
        result[chosen] = solve(local_origin, local_direction, rooms.half.flatten(0, 1)[r].unsqueeze(1))
    return result


def _first_positive(enter: Tensor, leave: Tensor, hit: Tensor) -> Tensor:
    """The entry if it lies ahead, else the exit (ray started inside), else inf."""
    distance = torch.where(enter > EPSILON, enter, leave)
    return torch.where(hit & (distance > EPSILON), distance, torch.inf)


def _hit_box(origin: Tensor, direction: Tensor, half: Tensor) -> Tensor:
    safe = torch.where(direction.abs() < 1e-9, 1e-9, direction)
    inverse = safe.reciprocal()
    middle = -origin * inverse
    extent = half * inverse.abs()
    x, y, z = (middle - extent).unbind(-1)
    enter = torch.maximum(torch.maximum(x, y), z)
    x, y, z = (middle + extent).unbind(-1)
    leave = torch.minimum(torch.minimum(x, y), z)
    return _first_positive(enter, leave, enter < leave)


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roots of a t² + 2 b t + c in order, and whether they are real."""
    inner = b * b - a * c
    root = inner.clamp(min=0).sqrt()
    a = a.clamp(min=1e-12)
    return (-b - root) / a, (-b + root) / a, inner > 0


def _hit_cylinder(origin: Tensor, direction: Tensor, half: Tensor) -> Tensor:
    ox, oy, oz = origin.unbind(-1)
    dx, dy, dz = direction.unbind(-1)
    radius, height = half[..., 0], half[..., 1]
    enter, leave, hit = _roots(dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - radius * radius)
    inverse = torch.where(dy.abs() < 1e-9, 1e-9, dy).reciprocal()
    middle, extent = -oy * inverse, height * inverse.abs()
    enter = torch.maximum(enter, middle - extent)
    leave = torch.minimum(leave, middle + extent)
    return _first_positive(enter, leave, hit & (enter < leave))


def _hit_sphere(origin: Tensor, direction: Tensor, half: Tensor) -> Tensor:
    enter, leave, hit = _roots(
        dot(direction, direction),
        dot(origin, direction),
        dot(origin, origin) - half[..., 0] ** 2,
    )
    return _first_positive(enter, leave, hit)
