"""Global alignment by DUSt3R's own schedule: Adam on every pixel (DUSt3R 3.4, pipelines.md 2.3). For parity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from threer.geometry.transforms import matrix_from_quaternion, quaternion_from_matrix
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.scene import MEAN_SCALE, Aligned, Known, Weighting, role_areas, weights_of
from threer.pipelines.sessions import Progress

Schedule = Literal["cosine", "linear"]

BETAS = (0.9, 0.9)
LAST_RATE = 1e-6
FOCAL_GAIN = 20.0
CENTRE_GAIN = 10.0


@dataclass(frozen=True, eq=False)
class Course:
    """How an optimisation went: loss before each step, and the learning rate of the step."""

    losses: Sequence[float]
    rates: Sequence[float]


def learning_rate(progress: float, rate: float, schedule: Schedule) -> float:
    """The rate at ``progress`` 0..1 on the way from ``rate`` to 1e-6."""
    share = (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress
    return LAST_RATE + (rate - LAST_RATE) * share


def optimise_published(
    start: Aligned,
    pairs: Pairs,
    known: Known,
    *,
    iterations: int = 300,
    rate: float = 0.01,
    schedule: Schedule = "cosine",
    weighting: Weighting = "log",
    principal_points: bool = False,
    shared_focal: bool = False,
    progress: Progress | None = None,
) -> tuple[Aligned, Course]:
    """Better scene, and its course.

    principal_points  move those that are not known as well
    shared_focal      one focal length for all photos; they start from the mean of their logarithms
    """
    variables = _Variables(start, pairs, known, principal_points, shared_focal)
    observed = _Observed(pairs, weighting)
    optimizer = torch.optim.Adam(variables.free, lr=rate, betas=BETAS)
    losses, rates = [], []
    with torch.enable_grad():
        for step in range(iterations):
            now = learning_rate(step / iterations, rate, schedule)
            for group in optimizer.param_groups:
                group["lr"] = now
            optimizer.zero_grad()
            loss = observed.loss(*variables())
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            rates.append(now)
            if progress:
                progress("alignment", step + 1, iterations)
    with torch.no_grad():
        return variables.scene(pairs), Course(losses, rates)


def _signed_log(values: Tensor) -> Tensor:
    return values.sign() * values.abs().log1p()


def _signed_exp(values: Tensor) -> Tensor:
    return values.sign() * values.abs().expm1()


class _Variables:
    """The scene as numbers that Adam can move: logarithms of what is positive, quaternions, signed logarithms."""

    def __init__(
        self, start: Aligned, pairs: Pairs, known: Known, principal_points: bool, shared_focal: bool
    ) -> None:
        sizes = pairs.sizes
        self.area = max(h * w for h, w in sizes)
        depth = torch.ones(len(sizes), self.area)
        pixels = torch.zeros(len(sizes), self.area, 2)
        for i, (h, w) in enumerate(sizes):
            depth[i, : h * w] = start.depth[i].flatten()
            v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            pixels[i, : h * w] = torch.stack([u, v], dim=-1).reshape(-1, 2).float()
        self.pixels = pixels
        self.log_depth = depth.log().requires_grad_()
        self.turns = _quaternions(start.c2w[:, :3, :3]).requires_grad_()
        self.shifts = _signed_log(start.c2w[:, :3, 3].float()).requires_grad_()
        log_focal = FOCAL_GAIN * start.focals.float().log()
        if shared_focal:
            log_focal = log_focal.mean().expand_as(log_focal[:1]).clone()
        self.log_focal = log_focal.requires_grad_()
        self.centre_start = start.principal_points.float()
        self.centre_moves = torch.zeros_like(self.centre_start).requires_grad_()
        self.pair_turns = _quaternions(start.rotations).requires_grad_()
        self.pair_shifts = _signed_log((start.shifts / start.scales[:, None]).float()).requires_grad_()
        self.pair_sizes = start.scales.float().log().requires_grad_()
        self.fixed_poses = torch.from_numpy(known.poses)[:, None]
        self.fixed_focals = torch.from_numpy(np.isfinite(known.focals))
        self.fixed_centres = torch.from_numpy(np.isfinite(known.principal_points).all(axis=1))
        self.start = start
        self.aspects = start.aspects.float()
        self.gauged = not known.fixes_scale
        self.free = [self.log_depth, self.pair_turns, self.pair_shifts, self.pair_sizes]
        if not known.poses.all():
            self.free += [self.turns, self.shifts]
        if not self.fixed_focals.all():
            self.free.append(self.log_focal)
        if principal_points:
            self.free.append(self.centre_moves)

    def cameras(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotations [N, 3, 3], centres [N, 3], focals [N], principal points [N, 2]; known ones as they are."""
        rotations = torch.where(
            self.fixed_poses[..., None], self.start.c2w[:, :3, :3].float(), matrix_from_quaternion(self.turns)
        )
        centres = torch.where(self.fixed_poses, self.start.c2w[:, :3, 3].float(), _signed_exp(self.shifts))
        focals = torch.where(
            self.fixed_focals, self.start.focals.float(), (self.log_focal / FOCAL_GAIN).exp().expand(len(centres))
        )
        middles = self.centre_start + torch.where(self.fixed_centres[:, None], 0.0, CENTRE_GAIN * self.centre_moves)
        return rotations, centres, focals, middles

    def pair_motions(self) -> tuple[Tensor, Tensor]:
        """Scaled rotations [E, 3, 3] and shifts [E, 3]."""
        log_sizes = self.pair_sizes
        if self.gauged:
            log_sizes = log_sizes + math.log(MEAN_SCALE) - log_sizes.mean()
        sizes = log_sizes.exp()
        rotations = sizes[:, None, None] * matrix_from_quaternion(self.pair_turns)
        return rotations, sizes[:, None] * _signed_exp(self.pair_shifts)

    def __call__(self) -> tuple[Tensor, Tensor, Tensor]:
        """World points [N, A, 3] of all photos; motions of all pairs."""
        rotations, centres, focals, middles = self.cameras()
        depth = self.log_depth.exp()
        lengths = focals[:, None] * torch.stack([torch.ones_like(self.aspects), self.aspects], dim=1)
        xy = (self.pixels - middles[:, None]) * depth[..., None] / lengths[:, None]
        local = torch.cat([xy, depth[..., None]], dim=-1)
        return local @ rotations.mT + centres[:, None], *self.pair_motions()

    def scene(self, pairs: Pairs) -> Aligned:
        rotations, centres, focals, middles = self.cameras()
        c2w = torch.eye(4, dtype=torch.float64).repeat(pairs.count, 1, 1)
        c2w[:, :3, :3], c2w[:, :3, 3] = rotations.double(), centres.double()
        moves, shifts = self.pair_motions()
        scales = torch.linalg.det(moves.double()) ** (1 / 3)
        depth = [self.log_depth[i, : h * w].exp().reshape(h, w) for i, (h, w) in enumerate(pairs.sizes)]
        rotated = moves.double() / scales[:, None, None]
        return Aligned(
            c2w, focals.double(), middles.double(), self.start.aspects, depth, rotated, scales, shifts.double()
        )


class _Observed:
    """All predictions in two blocks, first and second photos, filled up to the largest photo with weight 0."""

    def __init__(self, pairs: Pairs, weighting: Weighting) -> None:
        area = max(h * w for h, w in pairs.sizes)
        self.points = [torch.zeros(len(pairs), area, 3) for _ in (0, 1)]
        self.weights = [torch.zeros(len(pairs), area) for _ in (0, 1)]
        self.photos = [torch.from_numpy(pairs.edges[:, role]) for role in (0, 1)]
        self.areas = role_areas(pairs)
        for e, _, role, seen in pairs.maps():
            size = seen.conf.numel()
            self.points[role][e, :size] = seen.xyz.reshape(-1, 3).float()
            self.weights[role][e, :size] = weights_of(seen.conf.flatten().float(), weighting)

    def loss(self, world: Tensor, rotations: Tensor, shifts: Tensor) -> Tensor:
        total = world.new_zeros(())
        for points, weights, photos, area in zip(self.points, self.weights, self.photos, self.areas, strict=True):
            apart = world[photos] - points @ rotations.mT - shifts[:, None]
            total = total + (weights * torch.linalg.vector_norm(apart, dim=-1)).sum() / area
        return total


def _quaternions(rotations: Tensor) -> Tensor:
    return quaternion_from_matrix(rotations).float()
