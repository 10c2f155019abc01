"""Global alignment by second-order steps: the published objective, sooner and closer to its minimum.

The objective is DUSt3R's (3.4): confidence-weighted distances between the scene's points and those of all pairs.
Depth enters it linearly, so for any cameras and places of the pairs the best depth of each pixel is known in closed
form. What is left is small: 7 numbers a photo (pose, focal length) and 7 a pair. They are found on a sample of the
pixels by reweighted least squares (Weiszfeld's way of minimising distances), each step solved with the depths
eliminated (Schur) and accepted only if the loss falls (Levenberg-Marquardt). Then every pixel gets its best depth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from threer.pipelines.alignment.depths import SMOOTHEST, best_depth, full_depth, reweighted
from threer.pipelines.alignment.linear import motion_rows, photo_block, skew
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.scene import MEAN_SCALE, Aligned, Known, Weighting, role_areas, weights_of
from threer.pipelines.alignment.system import System
from threer.pipelines.sessions import Progress

SAMPLED = 2000
"""Pixels of each photo that decide about cameras."""
MOST_STEPS = 60
LEAST_GAIN = 2e-5
"""The steps end when three in a row gain less than this share of the loss."""
SMOOTHING = (0.3, SMOOTHEST)
"""Distances below this share of the median one count as squares: at first, and at last."""
DAMPING = (1e-4, 1e-9, 1e6)
"""Levenberg-Marquardt's: at first, at least, and what ends the steps."""
LARGEST_STEP = 0.4


@dataclass(frozen=True, eq=False)
class Settled:
    """How an optimisation went: loss on the sample before each step and after the last."""

    losses: Sequence[float]
    converged: bool


def optimise(
    start: Aligned,
    pairs: Pairs,
    known: Known,
    *,
    weighting: Weighting = "log",
    principal_points: bool = False,
    shared_focal: bool = False,
    sampled: int = SAMPLED,
    steps: int = MOST_STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Aligned, Settled]:
    """The best scene near ``start``, and how it was found.

    pairs             of N photos, all with a place in ``start``; no photo with itself
    principal_points  move those that are not known as well
    shared_focal      one focal length for all photos whose own is not known
    sampled           pixels of each photo that decide about cameras
    steps             at most so many
    """
    problem = _Problem(start, pairs, known, weighting, principal_points, shared_focal, sampled, seed)
    state = problem.first()
    losses = [problem.loss(state)]
    damping, small, converged = DAMPING[0], 0, False
    for step in range(steps):
        share = SMOOTHING[0] * (SMOOTHING[1] / SMOOTHING[0]) ** min(1.0, step / 10)
        system = problem.linearised(state, share)
        while True:
            try:
                moved = problem.refined(problem.moved(state, system.solve(damping)), share)
                loss = problem.loss(moved)
            except np.linalg.LinAlgError:  # too close to singular for this damping
                moved, loss = state, math.inf
            if loss <= losses[-1] or damping > DAMPING[2]:
                break
            damping *= 10
        if progress:
            progress("alignment", step + 1, steps)
        if not loss <= losses[-1]:  # nothing gets better, however short the step
            converged = True
            break
        state, damping = moved, max(damping / 10, DAMPING[1])
        small = small + 1 if losses[-1] - loss < LEAST_GAIN * losses[-1] and step >= 10 else 0
        losses.append(loss)
        if small == 3 or loss < 1e-9 * problem.unit:
            converged = True
            break
    return problem.scene(state, start), Settled(losses, converged)


@dataclass(frozen=True, eq=False)
class _State:
    """turns [N, 3, 3], centres [N, 3], focals [N], middles [N, 2]; pairs' turns, sizes, shifts; depth [N, P]."""

    turns: Tensor
    centres: Tensor
    focals: Tensor
    middles: Tensor
    pair_turns: Tensor
    pair_sizes: Tensor
    pair_shifts: Tensor
    depth: Tensor


class _Problem:
    def __init__(
        self,
        start: Aligned,
        pairs: Pairs,
        known: Known,
        weighting: Weighting,
        principal_points: bool,
        shared_focal: bool,
        sampled: int,
        seed: int,
    ) -> None:
        self.pairs, self.weighting, self.start = pairs, weighting, start
        self.gauged = not known.fixes_scale
        self.hub = torch.from_numpy(known.hub)
        self.areas = role_areas(pairs)
        generator = np.random.default_rng(seed)
        count = min(sampled, *(h * w for h, w in pairs.sizes))
        self.rows = [_spread(h * w, count, generator) for h, w in pairs.sizes]
        self.pixels = torch.stack(
            [torch.stack([r % w, r // w], dim=1).double() for r, (_, w) in zip(self.rows, pairs.sizes, strict=True)]
        )
        self.seen = [pairs.seen(photo) for photo in range(pairs.count)]
        self.pair_of = [torch.tensor([e for e, _, _ in seen], dtype=torch.int64) for seen in self.seen]
        self.points, self.weights = [], []
        for photo, seen in enumerate(self.seen):
            rows, (h, w) = self.rows[photo], pairs.sizes[photo]
            self.points.append(torch.stack([p.xyz.reshape(-1, 3)[rows].double() for _, _, p in seen]))
            self.weights.append(
                torch.stack(
                    [
                        weights_of(p.conf.flatten()[rows].double(), weighting) * (h * w / count / self.areas[role])
                        for _, role, p in seen
                    ]
                )
            )
        self.middle = self._middles()
        self._layout(known, principal_points, shared_focal)
        self.unit = float(torch.cat([d.flatten() for d in start.depth]).median())

    def _middles(self) -> Tensor:
        """[E, 3] mean point of each pair, about which it turns and grows."""
        total = torch.zeros(len(self.pairs), 3, dtype=torch.float64)
        for of, points in zip(self.pair_of, self.points, strict=True):
            total.index_add_(0, of, points.mean(dim=1) / 2)
        return total

    def _layout(self, known: Known, principal_points: bool, shared_focal: bool) -> None:
        """Which number of the system is what: 6 a pose, focal lengths, principal points, then 7 a pair."""
        count = self.pairs.count
        focals = 1 if shared_focal else count
        self.first_centre = 6 * count + focals
        self.first_pair = self.first_centre + (2 * count if principal_points else 0)
        self.size = self.first_pair + 7 * len(self.pairs)
        self.columns = []
        self.free = []
        self.move_centres = principal_points
        for photo in range(count):
            own = [6 * photo + k for k in range(6)] + [6 * count + (0 if shared_focal else photo)]
            free = [not known.poses[photo]] * 6 + [not np.isfinite(known.focals[photo])]
            if principal_points:
                own += [self.first_centre + 2 * photo + k for k in (0, 1)]
                free += [not np.isfinite(known.principal_points[photo]).all()] * 2
            placed = self.first_pair + 7 * self.pair_of[photo][:, None] + torch.arange(7)
            self.columns.append(torch.cat([torch.tensor(own), placed.flatten()]))
            self.free.append(torch.tensor(free, dtype=torch.float64))
        self.focal_column = torch.tensor([columns[6] for columns in self.columns])
        self.focal_free = torch.from_numpy(~np.isfinite(known.focals))

    def first(self) -> _State:
        start = self.start
        focals = start.focals.clone()
        if self.focal_free.any() and len(set(self.focal_column.tolist())) == 1:  # shared
            focals[self.focal_free] = focals[self.focal_free].log().mean().exp()
        depth = torch.stack([d.flatten()[r].double() for d, r in zip(start.depth, self.rows, strict=True)])
        state = _State(
            start.c2w[:, :3, :3].clone(),
            start.c2w[:, :3, 3].clone(),
            focals,
            start.principal_points.clone(),
            start.rotations.clone(),
            start.scales.clone(),
            start.shifts.clone(),
            depth,
        )
        return self.refined(state, SMOOTHING[0])

    def rays(self, state: _State, photo: int) -> Tensor:
        """[P, 3] rays of a photo's sampled pixels."""
        xy = (self.pixels[photo] - state.middles[photo]) / state.focals[photo]
        xy[:, 1] /= self.start.aspects[photo]
        return torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)

    def targets(self, state: _State, photo: int) -> Tensor:
        """[D, P, 3] where D pairs put a photo's sampled points, in its camera's frame."""
        of = self.pair_of[photo]
        turns = state.turns[photo].T @ state.pair_turns[of] * state.pair_sizes[of, None, None]
        shifts = (state.pair_shifts[of] - state.centres[photo]) @ state.turns[photo]
        return self.points[photo] @ turns.mT + shifts[:, None]

    def loss(self, state: _State) -> float:
        """The loss on the sample, if the pairs had their usual size: a scene is not better for being small."""
        total = 0.0
        for photo in range(self.pairs.count):
            seen = self.rays(state, photo) * state.depth[photo][:, None]
            apart = torch.linalg.vector_norm(seen - self.targets(state, photo), dim=-1)
            total += float((self.weights[photo] * apart).sum())
        merit = total * MEAN_SCALE / float(state.pair_sizes.log().mean().exp())
        return merit if math.isfinite(merit) else math.inf

    def refined(self, state: _State, share: float) -> _State:
        """The state with the best depth for its cameras and pairs."""
        depth = torch.stack(
            [
                best_depth(
                    self.rays(state, photo),
                    self.targets(state, photo),
                    self.weights[photo],
                    state.depth[photo],
                    steps=3,
                    share=share,
                )
                for photo in range(self.pairs.count)
            ]
        )
        return dataclasses.replace(state, depth=depth)

    def linearised(self, state: _State, share: float) -> System:
        """The normal equations of all small motions, depths eliminated."""
        system = System(self.size)
        for photo in range(self.pairs.count):
            system.add(self.columns[photo], *self._block(state, photo, share))
        growths = self.first_pair + 6 + 7 * torch.arange(len(self.pairs))
        if self.gauged:
            system.hold(growths)
        else:  # known cameras fix the size: what counts is the loss relative to it, whose slope this is
            size = float(state.pair_sizes.log().mean().exp()) / MEAN_SCALE
            system.push(growths, self.loss(state) * size / len(self.pairs))
        return system

    def _block(self, state: _State, photo: int, share: float) -> tuple[Tensor, Tensor]:
        """Matrix and right side of one photo's part of the equations."""
        of, turn, depth = self.pair_of[photo], state.turns[photo], state.depth[photo]
        seen = self.rays(state, photo)  # [P, 3]
        targets = self.targets(state, photo)  # [D, P, 3]
        apart = seen * depth[:, None] - targets
        weights = reweighted(self.weights[photo], torch.linalg.vector_norm(apart, dim=-1), share)  # [D, P]

        middle = (self._world_middle(state)[of] - state.centres[photo]) @ turn
        rows = motion_rows(turn, middle, len(self.free[photo]))
        if self.move_centres:
            across = state.focals[photo] * torch.stack(
                [torch.ones_like(state.focals[0]), self.start.aspects[photo]]
            )
            rows[:, [0, 1], 6, [7, 8]] = -1 / across
        rows[..., : len(self.free[photo])] *= self.free[photo]
        return photo_block(seen, depth, targets, weights, rows)

    def _world_middle(self, state: _State) -> Tensor:
        turned = torch.einsum("eij,ej->ei", state.pair_turns, self.middle)
        return state.pair_sizes[:, None] * turned + state.pair_shifts

    def moved(self, state: _State, change: Tensor) -> _State:
        """The state after a solution of the equations; the whole keeps its size."""
        count = self.pairs.count
        poses = change[: 6 * count].reshape(count, 6)
        placed = change[self.first_pair :].reshape(-1, 7)
        turns = state.turns @ _rotations(poses[:, :3])
        centres = state.centres + torch.einsum("nij,nj->ni", state.turns, poses[:, 3:])
        growth = change[self.focal_column].clamp(-LARGEST_STEP, LARGEST_STEP)
        focals = torch.where(self.focal_free, state.focals * growth.exp(), state.focals)
        middles = state.middles
        if self.move_centres:
            middles = middles + change[self.first_centre : self.first_pair].reshape(count, 2)
        world = self._world_middle(state)
        spin = _rotations(placed[:, :3])
        growth = placed[:, 6].clamp(-LARGEST_STEP, LARGEST_STEP).exp()
        sizes = state.pair_sizes * growth
        away = torch.einsum("eij,ej->ei", spin, state.pair_shifts - world)
        shifts = world + placed[:, 3:6] + growth[:, None] * away
        depth = state.depth
        if self.gauged:
            factor = MEAN_SCALE / sizes.log().mean().exp()
            centres = self.hub + factor * (centres - self.hub)
            shifts = self.hub + factor * (shifts - self.hub)
            sizes, depth = sizes * factor, depth * factor
        return _State(turns, centres, focals, middles, spin @ state.pair_turns, sizes, shifts, depth)

    def scene(self, state: _State, start: Aligned) -> Aligned:
        """The scene at full resolution: every pixel with its best depth."""
        c2w = torch.eye(4, dtype=torch.float64).repeat(self.pairs.count, 1, 1)
        c2w[:, :3, :3], c2w[:, :3, 3] = state.turns, state.centres
        scene = Aligned(
            c2w,
            state.focals,
            state.middles,
            start.aspects,
            start.depth,
            state.pair_turns,
            state.pair_sizes,
            state.pair_shifts,
        )
        return dataclasses.replace(scene, depth=full_depth(scene, self.pairs, self.weighting))


def _spread(area: int, count: int, generator: np.random.Generator) -> Tensor:
    """``count`` rows out of ``area``, one from each of as many equal runs."""
    edges = np.linspace(0, area, count + 1)
    picks = edges[:-1] + generator.random(count) * np.diff(edges)
    return torch.from_numpy(np.minimum(picks.astype(np.int64), area - 1))


def _rotations(vectors: Tensor) -> Tensor:
    """Rotation vectors [..., 3] to matrices [..., 3, 3]."""
    rotations: Tensor = torch.linalg.matrix_exp(skew(vectors))
    return rotations
