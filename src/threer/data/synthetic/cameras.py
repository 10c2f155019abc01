"""Hand-held camera paths through rooms: smooth curves of position and gaze, chosen for what there is to see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from threer.data.synthetic.raycast import Hits, cast, clearance
from threer.data.synthetic.rooms import Rooms

ROUNDS = 6
MAX_TURN = math.radians(14)  # between neighbouring frames: a camera that passes what it looks at would whirl
MIN_CLEARANCE = 0.18  # metres between the camera and any surface
PROBE = 8  # rays along each side of the grid that judges a candidate
PROBE_EVERY = 12  # frames between the looks taken to judge it, at least three looks in all


@dataclass(frozen=True)
class Motion:
    """How cameras move. Ranges are (smallest, largest), drawn once per clip.

    step    metres from frame to frame
    gaze    metres that the point looked at wanders from frame to frame
    eye     metres above the floor
    roll    degrees, standard deviation over clips
    shake   degrees, standard deviation of the smooth hand tremor
    tries   candidate paths of a round, of which the best is taken
    """

    step: tuple[float, float] = (0.02, 0.11)
    gaze: tuple[float, float] = (0.0, 0.09)
    eye: tuple[float, float] = (0.8, 1.7)
    roll: float = 3.0
    shake: float = 0.8
    tries: int = 8


def sample_paths(rooms: Rooms, frames: int, fov: Tensor, motion: Motion, generator: torch.Generator) -> Tensor:
    """A path for each room: c2w [S, frames, 4, 4]. fov [S] horizontal field of view in radians.

    Of several candidates, the one that keeps clear of everything, turns calmly, sees depth and objects, wins. If
    none is clear, the next round moves less.
    """
    count = len(rooms)
    best = torch.full((count,), -torch.inf)
    chosen = torch.empty(count, frames, 4, 4)
    for turn in range(ROUNDS):
        reach = 0.5 ** max(turn - 1, 0)
        paths = _candidates(rooms, frames, motion, reach, generator)  # [S, C, frames, 4, 4]
        score = _score(rooms, paths, fov)
        top, index = score.max(dim=1)
        better = top > best
        chosen[better] = paths[torch.arange(count), index][better]
        best = torch.maximum(best, top)
        if (best > 0).all():
            break
    return chosen


def _candidates(rooms: Rooms, frames: int, motion: Motion, reach: float, generator: torch.Generator) -> Tensor:
    shape = (len(rooms), motion.tries)

    def uniform(low: float, high: float, *tail: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, *tail, generator=generator)

    size = rooms.size.unsqueeze(1)
    start = uniform(-1, 1, 3) * (size - 0.35)
    start[..., 1] = torch.maximum(size[..., 1] - uniform(*motion.eye), 0.25 - size[..., 1])
    travel = uniform(*motion.step, 1, 1) * frames * reach
    wander = uniform(*motion.gaze, 1, 1) * frames * reach
    position = start.unsqueeze(2) + travel * _curve(shape, frames, 0.25, generator)
    # look into the room: a point beyond its middle, as seen from the start
    inward = -start * torch.tensor([1.0, 0.0, 1.0])
    inward = inward / inward.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    angle = torch.randn(shape, generator=generator) * 0.9
    cosine, sine = angle.cos(), angle.sin()
    ahead = torch.stack([
        cosine * inward[..., 0] + sine * inward[..., 2],
        uniform(-0.05, 0.4),
        cosine * inward[..., 2] - sine * inward[..., 0],
    ], dim=-1)  # fmt: skip
    target = (start + uniform(1.5, 3.5, 1) * ahead).unsqueeze(2) + wander * _curve(shape, frames, 0.4, generator)
    rotation = look(target - position)
    tremor = math.radians(motion.shake) * _smooth_noise(shape, frames, generator)
    roll = math.radians(motion.roll) * torch.randn(*shape, 1, generator=generator)
    tremor = torch.cat([tremor[..., :2], (tremor[..., 2] + roll).unsqueeze(-1)], dim=-1)
    c2w = torch.eye(4).repeat(*shape, frames, 1, 1)
    c2w[..., :3, :3] = rotation @ torch.matrix_exp(_skew(tremor))
    c2w[..., :3, 3] = position
    return c2w


def _curve(shape: tuple[int, int], frames: int, height: float, generator: torch.Generator) -> Tensor:
    """Smooth curves of about unit length from the origin, flattened in y: [S, C, frames, 3]."""
    legs = max(2, frames // 16)
    heading = torch.rand(*shape, 1, generator=generator) * 2 * math.pi
    turns = torch.randn(*shape, legs + 3, generator=generator) * 0.8
    heading = heading + turns.cumsum(-1)
    rise = height * torch.randn(*shape, legs + 3, generator=generator) * 0.5
    steps = torch.stack([heading.cos(), rise, heading.sin()], dim=-1) / legs
    controls = steps.cumsum(2)
    curve = spline(controls, frames)
    return curve - curve[..., :1, :]


def _smooth_noise(shape: tuple[int, int], frames: int, generator: torch.Generator) -> Tensor:
    return spline(torch.randn(*shape, frames // 4 + 4, 3, generator=generator), frames)


def spline(controls: Tensor, frames: int) -> Tensor:
    """Uniform cubic B-spline through [..., n, d] control points, sampled at ``frames`` places: [..., frames, d]."""
    spans = controls.shape[-2] - 3
    place = torch.linspace(0, spans - 1e-3, frames)
    index = place.long()
    t = (place - index).unsqueeze(-1)
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    return torch.stack([w * controls[..., index + k, :] for k, w in enumerate(weights)]).sum(0)


def look(forward: Tensor) -> Tensor:
    """Upright camera rotations [..., 3, 3] that look along [..., 3] (y down)."""
    forward = forward / forward.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    down = torch.tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = torch.linalg.cross(down, forward)
    right = right / right.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1)


def _skew(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1)
    return rows.reshape(*vector.shape[:-1], 3, 3)


def _score(rooms: Rooms, paths: Tensor, fov: Tensor) -> Tensor:
    """[S, C]: above 0 only where the path keeps clear and calm; more for depth, objects, nothing too close."""
    count, candidates, frames = paths.shape[:3]
    room = torch.arange(count).repeat_interleave(candidates)
    gap = clearance(rooms, room, paths[..., :3, 3].reshape(-1, frames, 3)).amin(1)
    looks = max(3, frames // PROBE_EVERY)
    score = _sights(rooms, paths[:, :, torch.linspace(0, frames - 1, looks).long()], fov).view(-1)
    allowed = (gap > MIN_CLEARANCE) & (_largest_turn(paths).view(-1) < MAX_TURN)
    return torch.where(allowed, score.clamp(min=0.01), gap.clamp(max=0.5) - 1).view(count, candidates)


def _sights(rooms: Rooms, views: Tensor, fov: Tensor) -> Tensor:
    """How much candidate paths see: views [S, C, L, 4, 4], fov [S] radians -> [S, C].

    More for objects, on average and in the emptiest view, and for depth; less for what is too close.
    """
    hits = look_around(rooms, views, fov, PROBE)
    depth = hits.distance.flatten(2)
    objects = (hits.part < rooms.kind.shape[1]).float().mean(-1)
    near = (depth < 0.6).float().mean(-1)
    middle = depth.median(-1).values.clamp(max=3)
    return 0.5 + 0.5 * objects.mean(-1) + 0.5 * objects.amin(-1) + 0.25 * middle - 1.5 * near


def look_around(rooms: Rooms, views: Tensor, fov: Tensor, side: int) -> Hits:
    """What side × side rays of square pictures meet: views [S, C, L, 4, 4], fov [S] radians -> [S, C, L, side²]."""
    count, candidates, looks = views.shape[:3]
    room = torch.arange(count).repeat_interleave(candidates * looks)
    probes = views.reshape(-1, 4, 4)
    line = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(-1, 3)
    half = (fov / 2).tan().repeat_interleave(candidates * looks).view(-1, 1, 1)
    rays = (grid * torch.cat([half, half, torch.ones_like(half)], dim=-1)) @ probes[:, :3, :3].transpose(1, 2)
    hits = cast(rooms, room, probes[:, :3, 3], rays)
    shape = (count, candidates, looks, side * side)
    return Hits(hits.distance.view(shape), hits.part.view(shape))


def _largest_turn(paths: Tensor) -> Tensor:
    """[S, C, frames, 4, 4] -> [S, C] largest angle in radians between the gazes of neighbouring frames."""
    gaze = paths[..., :3, 2]
    cosine = (gaze[:, :, 1:] * gaze[:, :, :-1]).sum(-1).clamp(-1, 1)
    return F.pad(cosine, (0, 1), value=1.0).amin(-1).acos()  # a single frame has turned by nothing
