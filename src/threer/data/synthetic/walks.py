"""Hand-held camera paths as a person with a phone makes them: way, pace, gait, gaze. All clips of a batch at once.

The person's way is a chain of straight legs through free space at eye height, smoothed, walked to its end and back
again. The camera is held before the body, so that turning always moves it, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from threer.data.synthetic.cameras import look, look_around, spline
from threer.data.synthetic.draws import Draws
from threer.data.synthetic.raycast import clearance
from threer.data.synthetic.rooms import Rooms

WAYS = ("walk", "strafe", "orbit", "turn")
MIN_CLEARANCE = 0.15  # metres between the camera and any surface
MARGIN = 0.3  # metres that the legs of a way keep: smoothing, sway and the arm take some of it
GRID = 20  # places along each side at which free space is measured
BAND = 0.5  # metres; what is further above or below the eye does not matter
TRIES = 16  # next places that are thought of at each corner
LOOKS = 3
PROBE = 6  # rays along each side of the looks that judge a candidate


@dataclass(frozen=True)
class HandHeld:
    """How a person with a phone moves. Ranges are (smallest, largest), drawn once per clip.

    rate     frames per second
    speed    metres per second of the body while it walks; it slows down and stops on the way
    ways     relative frequency of walking on, walking with the gaze to the side, walking with the gaze on one
             point, and turning on the spot
    back     share of clips that turn round early and come back the way they went
    pauses   share of clips that stop and go
    turn     degrees per second: the fastest turn of the gaze
    glance   degrees, standard deviation of single quick turns of the gaze, one in about two seconds
    eye      metres above the floor
    arm      metres from the body's axis to the camera
    bob      metres of rise and fall at a brisk walk; the sway to the sides is as large
    pitch    degrees downwards: mean and standard deviation
    roll     degrees, standard deviation over clips
    shake    degrees, standard deviation of the hand's tremor
    tries    candidate paths, of which the best is taken
    """

    rate: tuple[float, float] = (3.0, 10.0)
    speed: tuple[float, float] = (0.2, 1.4)
    ways: tuple[float, float, float, float] = (0.3, 0.25, 0.3, 0.15)
    back: float = 0.3
    pauses: float = 0.3
    turn: float = 75.0
    glance: float = 22.0
    eye: tuple[float, float] = (1.1, 1.75)
    arm: tuple[float, float] = (0.1, 0.3)
    bob: tuple[float, float] = (0.005, 0.025)
    pitch: tuple[float, float] = (11.0, 9.0)
    roll: float = 2.5
    shake: float = 0.5
    tries: int = 6


@dataclass(frozen=True, eq=False)
class Walks:
    """c2w [S, N, 4, 4]; interval [S] seconds between frames."""

    c2w: Tensor
    interval: Tensor


def sample_walks(
    rooms: Rooms, frames: int, fov: Tensor, style: HandHeld, generators: Sequence[torch.Generator]
) -> Walks:
    """A walk through each room. fov [S] horizontal field of view in radians, one generator for each room.

    Of a few candidates the one that sees most wins; the last of them only turns on the spot, at the clearest place,
    and is taken where no other is clear of everything.
    """
    draws, count, tries = Draws(generators), len(rooms), style.tries + 1
    interval = draws.uniform(1 / style.rate[1], 1 / style.rate[0])
    height = torch.maximum(rooms.size[:, 1] - draws.uniform(*style.eye), 0.3 - rooms.size[:, 1])
    space = _FreeSpace(rooms, height)
    way = _choose(style.ways, draws.uniform(0, 1)).unsqueeze(1).repeat(1, tries)  # [S, C]
    way[:, -1] = WAYS.index("turn")
    time = interval.unsqueeze(1) * torch.arange(frames)  # [S, N]

    travelled = _pace(draws, time, way, style)
    legs = 4 + int(1.5 * frames / style.rate[0] * style.speed[0]) + frames // 16
    path = _Path(_chain(space, draws, tries, legs), travelled.amax(-1), draws, style.back)
    body, ahead = path.at(travelled), path.heading(travelled)
    yaw, pitch = _gaze(draws, space, time, way, body, ahead, style)
    c2w = _cameras(draws, space, height, time, travelled, body, yaw, pitch, style)

    room = torch.arange(count).repeat_interleave(tries)
    gap = clearance(space.level, room, c2w[..., :3, 3].reshape(-1, frames, 3)).amin(1).view(count, tries)
    seen = c2w[:, :, torch.linspace(0, frames - 1, min(LOOKS, frames)).long()]
    score = torch.where(gap > MIN_CLEARANCE, _sights(rooms, seen, fov), gap - 10)
    score[:, -1] -= 5
    return Walks(c2w[torch.arange(count), score.argmax(1)], interval)


def _sights(rooms: Rooms, views: Tensor, fov: Tensor) -> Tensor:
    """How much there is to see: views [S, C, L, 4, 4] -> [S, C], by the share of
    neighbouring rays that meet different things.

    Half of it counts on average, half in the emptiest view; less for what is too close.
    """
    hits = look_around(rooms, views, fov, PROBE)
    part = hits.part.view(*hits.part.shape[:-1], PROBE, PROBE)
    across, down = (part.diff(dim=axis) != 0 for axis in (-1, -2))
    edges = 0.5 * (across.float().mean((-1, -2)) + down.float().mean((-1, -2)))
    near = (hits.distance < 0.7).float().mean(-1)
    score: Tensor = edges.mean(-1) + edges.amin(-1) - near.amax(-1)
    return score


class _FreeSpace:
    """Distances to the nearest surface at eye height [S], on a grid, and the places they were measured at."""

    def __init__(self, rooms: Rooms, height: Tensor) -> None:
        self.level = _at_height(rooms, height)
        self.half = (rooms.size[:, [0, 2]] - 0.2).clamp(min=0.05)  # [S, 2]
        side = torch.linspace(-1, 1, GRID)
        x, z = torch.meshgrid(side, side, indexing="ij")
        self.spots = torch.stack([x, z], dim=-1).view(1, -1, 2) * self.half.unsqueeze(1)  # [S, GRID², 2]
        points = _at(self.spots, height.unsqueeze(1))
        self.gap = clearance(self.level, torch.arange(len(rooms)), points).clamp(max=BAND)  # [S, GRID²]

    def around(self, place: Tensor) -> Tensor:
        """Metres free around places [S, ..., 2], between the four nearest of the grid."""
        flat = place.reshape(len(self.half), -1, 2)
        grid = ((flat / self.half.unsqueeze(1) + 1) * ((GRID - 1) / 2)).clamp(0, GRID - 1 - 1e-3)
        corner = grid.long()
        share = grid - corner
        index = corner[..., 0] * GRID + corner[..., 1]
        a, b, c, d = (self.gap.gather(1, index + step) for step in (0, 1, GRID, GRID + 1))
        low, high = torch.lerp(a, b, share[..., 1]), torch.lerp(c, d, share[..., 1])
        return torch.lerp(low, high, share[..., 0]).view(place.shape[:-1])


def _at_height(rooms: Rooms, height: Tensor) -> Rooms:
    """The rooms with only those parts that come near the height [S]."""
    near = ((rooms.centre[..., 1] - height.unsqueeze(1)).abs() < rooms.radius + BAND) & (rooms.radius > 0)
    most = max(1, int(near.sum(1).max()))
    order = near.float().argsort(dim=1, descending=True, stable=True)[:, :most]
    row = torch.arange(len(rooms)).unsqueeze(1)
    kept = {name: getattr(rooms, name)[row, order] for name in ("kind", "centre", "rotation", "half")}
    return replace(rooms, **kept, radius=torch.where(near, rooms.radius, 0.0)[row, order])


def _at(place: Tensor, height: Tensor) -> Tensor:
    """(x, z) [..., 2] and y [...] to points [..., 3]."""
    return torch.stack([place[..., 0], height.expand(place.shape[:-1]), place[..., 1]], dim=-1)


def _choose(weights: Sequence[float], drawn: Tensor) -> Tensor:
    """Indices with the given relative frequencies, from numbers drawn in 0..1."""
    edges = torch.tensor(weights).cumsum(0)
    return torch.bucketize(drawn * edges[-1], edges[:-1], right=True)


def _pace(draws: Draws, time: Tensor, way: Tensor, style: HandHeld) -> Tensor:
    """[S, C, N] metres walked since the first frame."""
    tries, frames = way.shape[1], time.shape[1]
    speed = draws.uniform(*style.speed, tries, 1)
    speed = torch.where((way == WAYS.index("turn")).unsqueeze(-1), 0.0, speed)
    knots = 4 + frames // 4
    change = spline(draws.normal(tries, knots, 2), frames)
    stops = (draws.uniform(0, 1, tries, 1) < style.pauses).float()
    going = torch.lerp(torch.ones(()), torch.sigmoid(8 * change[..., 0] + 2), stops)
    pace = speed * going * (1 + 0.4 * change[..., 1]).clamp(0.5, 1.3)
    step = pace.clamp(max=style.speed[1]) * (time[:, 1:2] if frames > 1 else 0 * time[:, :1]).unsqueeze(-1)
    return step.cumsum(-1) - step[..., :1]


def _chain(space: _FreeSpace, draws: Draws, tries: int, legs: int) -> Tensor:
    """Corners [S, C, legs + 1, 2] joined by free legs, as far as there are any; the last starts at the clearest."""
    count = len(space.half)
    offered = draws.uniform(-1, 1, tries, TRIES, 2) * space.half.view(-1, 1, 1, 2)
    offered[:, -1, 0] = space.spots[torch.arange(count), space.gap.argmax(1)]
    preference = draws.uniform(0, 0.1, tries, TRIES)
    preference[:, -1, 0] = 1.0
    pick = (space.around(offered).clamp(max=MARGIN + 0.05) + preference).argmax(-1)
    corners = [offered.gather(2, pick[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)]
    angle = draws.uniform(-math.pi, math.pi, legs, tries, TRIES)
    length = draws.uniform(0.4, 3.0, legs, tries, TRIES)
    along = torch.linspace(0, 1, 12).view(-1, 1)
    last = torch.zeros(count, tries, 2)
    for leg in range(legs):
        here = corners[-1].unsqueeze(2)  # [S, C, 1, 2]
        towards = torch.stack([angle[:, leg].cos(), angle[:, leg].sin()], dim=-1)
        half = space.half.view(-1, 1, 1, 2)
        there = torch.maximum(torch.minimum(here + length[:, leg].unsqueeze(-1) * towards, half), -half)
        step = there - here  # [S, C, T, 2]
        free = space.around(here.unsqueeze(3) + along * step.unsqueeze(3)).amin(-1)
        onward = (towards * last.unsqueeze(2)).sum(-1)  # turning back at once is rare
        merit = step.norm(dim=-1).clamp(max=1.5) + 0.5 * onward - 20 * (free < MARGIN).float()
        top, pick = merit.max(dim=-1)
        index = pick[..., None, None].expand(-1, -1, 1, 2)
        stays = (top < -10).unsqueeze(-1)
        corners.append(torch.where(stays, corners[-1], there.gather(2, index).squeeze(2)))
        last = torch.where(stays, last, towards.gather(2, index).squeeze(2))
    return torch.stack(corners, dim=2)


class _Path:
    """Chains of legs, by metres walked; at the end it goes back, and so on."""

    _SMOOTH = 0.25  # metres before and after that a place is the mean of
    _AHEAD = 0.6  # metres ahead that a walker looks

    def __init__(self, corners: Tensor, longest: Tensor, draws: Draws, back: float) -> None:
        """longest [S, C] metres that will be walked; ``back`` share of clips that use about half of that."""
        legs = corners.diff(dim=2)
        self.corners = corners
        self.ends = legs.norm(dim=-1).cumsum(-1)  # [S, C, legs]
        self.lengths = self.ends.diff(dim=-1, prepend=torch.zeros_like(self.ends[..., :1]))
        early = draws.uniform(0, 1) < back
        turning = longest * draws.uniform(0.35, 0.6).unsqueeze(1)
        whole = self.ends[..., -1]
        self.end = torch.where(early.unsqueeze(1), torch.minimum(turning, whole), whole)

    def at(self, metres: Tensor) -> Tensor:
        """Places [S, C, n, 2] after metres [S, C, n]."""
        spread = torch.linspace(-self._SMOOTH, self._SMOOTH, 5)
        return self._corner(metres.unsqueeze(-1) + spread).mean(-2)

    def heading(self, metres: Tensor) -> Tensor:
        """Yaw [S, C, n] of the way ahead."""
        ahead = self.at(metres + self._AHEAD) - self.at(metres)
        return torch.atan2(ahead[..., 0], ahead[..., 1])

    def _corner(self, metres: Tensor) -> Tensor:
        """On the legs themselves, [S, C, ..., 2]."""
        shape = metres.shape
        end = self.end.unsqueeze(-1).clamp(min=1e-3)
        flat = metres.reshape(*shape[:2], -1)
        s = end - (flat.remainder(2 * end) - end).abs()  # there and back again
        leg = torch.searchsorted(self.ends.contiguous(), s.contiguous()).clamp(max=self.ends.shape[-1] - 1)
        length = self.lengths.gather(-1, leg).clamp(min=1e-6)
        share = ((s - self.ends.gather(-1, leg) + length) / length).clamp(0, 1).unsqueeze(-1)
        index = leg.unsqueeze(-1).expand(*leg.shape, 2)
        place = torch.lerp(self.corners.gather(2, index), self.corners.gather(2, index + 1), share)
        return place.view(*shape, 2)


def _gaze(
    draws: Draws, space: _FreeSpace, time: Tensor, way: Tensor, body: Tensor, ahead: Tensor, style: HandHeld
) -> tuple[Tensor, Tensor]:
    """Yaw and pitch (down is positive) [S, C, N] in radians: the way's, with glances and drift, not too fast."""
    tries, frames = body.shape[1:3]
    clock = time.unsqueeze(1)
    side = draws.uniform(0.8, 2.2, tries, 1) * draws.normal(tries, 1).sign()
    point = (draws.uniform(-0.9, 0.9, tries, 1, 2) * space.half.view(-1, 1, 1, 2)) - body
    spin = draws.uniform(-1, 1, tries, 1)
    asked = torch.stack([
        ahead,
        ahead + side,
        torch.atan2(point[..., 0], point[..., 1]),
        math.pi * draws.uniform(-1, 1, tries, 1) + math.radians(style.turn) * 0.7 * spin * clock,
    ])  # fmt: skip
    yaw = asked.gather(0, way[None, :, :, None].expand(1, -1, -1, frames)).squeeze(0)
    glances = 2 + frames // 12
    begin = draws.uniform(-0.2, 1.0, tries, glances, 1) * time[:, -1].view(-1, 1, 1, 1)
    lasts = draws.uniform(0.25, 0.7, tries, glances, 1)
    done = ((clock.unsqueeze(2) - begin) / lasts).clamp(0, 1)
    done = done * done * (3 - 2 * done)  # [S, C, glances, N]
    size = math.radians(style.glance) * draws.normal(tries, glances, 2).clamp(-2.5, 2.5)
    drift = math.radians(3) * spline(draws.normal(tries, 4 + frames // 4, 2), frames)
    mean, spread = style.pitch
    pitch = math.radians(mean) + math.radians(spread) * draws.normal(tries, 1).clamp(-2, 2)
    pitch = pitch + 0.4 * (size[..., 1:] * done).sum(2) + drift[..., 1]
    yaw = yaw + (size[..., :1] * done).sum(2) + drift[..., 0]
    most = (math.radians(style.turn) * time[:, 1:2]) if frames > 1 else time
    return _bounded(yaw, most), _bounded(pitch.clamp(-0.5, 0.9), 0.5 * most)


def _bounded(angle: Tensor, most: Tensor) -> Tensor:
    """Angles [S, C, N] followed at no more than ``most`` [S, 1] radians a frame, the short way round."""
    followed = [angle[..., 0]]
    for frame in range(1, angle.shape[-1]):
        gap = torch.remainder(angle[..., frame] - followed[-1] + math.pi, 2 * math.pi) - math.pi
        followed.append(followed[-1] + torch.maximum(torch.minimum(gap, most), -most))
    return torch.stack(followed, dim=-1)


def _cameras(
    draws: Draws,
    space: _FreeSpace,
    height: Tensor,
    time: Tensor,
    travelled: Tensor,
    body: Tensor,
    yaw: Tensor,
    pitch: Tensor,
    style: HandHeld,
) -> Tensor:
    """c2w [S, C, N, 4, 4]: the body's place, the arm before it, bob and sway of each step, tremor and roll."""
    tries, frames = yaw.shape[1:]
    # a step is about 0.7 m; a standing person sways a little, too
    phase = 2 * math.pi * (travelled / 0.7 + draws.uniform(0, 1, tries, 1)) + 2 * time.unsqueeze(1)
    pace = (
        travelled.diff(dim=-1, append=travelled[..., -1:]) / time[:, 1:2].unsqueeze(1) if frames > 1 else travelled
    )
    strength = draws.uniform(*style.bob, 1, 1) * (0.15 + pace / style.speed[1]).clamp(max=1.15)
    sway, bob = strength * (phase / 2).sin(), strength * phase.cos()
    forward = torch.stack([yaw.sin(), yaw.cos()], dim=-1)
    across = torch.stack([yaw.cos(), -yaw.sin()], dim=-1)
    reach = draws.uniform(*style.arm, 1, 1).expand_as(yaw)
    room_left = (space.around(body).amin(-1, keepdim=True) - 0.05 - MIN_CLEARANCE).clamp(min=0)
    place = body + torch.minimum(reach, room_left).unsqueeze(-1) * forward + sway.unsqueeze(-1) * across
    position = _at(place, height.view(-1, 1, 1)) + bob.unsqueeze(-1) * torch.tensor([0.0, 1.0, 0.0])
    level = pitch.cos().unsqueeze(-1)
    gaze = torch.stack([forward[..., 0] * level[..., 0], pitch.sin(), forward[..., 1] * level[..., 0]], dim=-1)
    tremor = math.radians(style.shake) * draws.normal(tries, frames, 3).clamp(-2.5, 2.5)
    roll = math.radians(style.roll) * draws.normal(tries, 1).clamp(-2.5, 2.5) + 0.5 * sway
    tilt = tremor + torch.stack([torch.zeros_like(roll), torch.zeros_like(roll), roll], dim=-1)
    c2w = torch.eye(4).repeat(len(height), tries, frames, 1, 1)
    c2w[..., :3, :3] = look(gaze) @ _small_turn(tilt)
    c2w[..., :3, 3] = position
    return c2w


def _small_turn(vector: Tensor) -> Tensor:
    """Rotations [..., 3, 3] by rotation vectors [..., 3], through unit quaternions."""
    half = torch.cat([torch.ones_like(vector[..., :1]), 0.5 * vector], dim=-1)
    w, x, y, z = (half / half.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = torch.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], dim=-1)  # fmt: skip
    return rows.view(*vector.shape[:-1], 3, 3)
