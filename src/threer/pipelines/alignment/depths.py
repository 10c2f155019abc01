"""The depth of every pixel for given cameras and pairs: in closed form, but for the weights of distances."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.geometry.projection import rays
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.scene import Aligned, Weighting, weights_of
from threer.pipelines.alignment.spanning_tree import positive

DEPTH_STEPS = 30
SMOOTHEST = 0.002
"""Distances below this share of the median one count as squares."""


def full_depth(scene: Aligned, pairs: Pairs, weighting: Weighting = "log") -> list[Tensor]:
    """The best depth [H, W] of every pixel of every photo, for the cameras and pairs of ``scene``."""
    maps = []
    for photo, (height, width) in enumerate(pairs.sizes):
        seen = pairs.seen(photo)
        turn, centre = scene.c2w[photo, :3, :3], scene.c2w[photo, :3, 3]
        targets, weights = [], []
        for pair, _, points in seen:
            motion = (scene.scales[pair] * turn.T @ scene.rotations[pair]).float()
            shift = ((scene.shifts[pair] - centre) @ turn).float()
            targets.append(points.xyz.reshape(-1, 3).float() @ motion.T + shift)
            weights.append(weights_of(points.conf.flatten().float(), weighting))
        along = rays(scene.K(photo), height, width).reshape(-1, 3).float()
        first = torch.stack([t[:, 2] for t in targets]).mean(dim=0)
        depth = best_depth(
            along, torch.stack(targets), torch.stack(weights), first, steps=DEPTH_STEPS, share=SMOOTHEST
        )
        maps.append(depth.reshape(height, width))
    return maps


def best_depth(
    along: Tensor, targets: Tensor, weights: Tensor, depth: Tensor, *, steps: int, share: float
) -> Tensor:
    """Depths [P] along rays [P, 3] with the least weighted distance to targets [D, P, 3], from ``depth`` on.

    Where nothing has weight the mean of all targets is taken. All depths are positive.
    """
    weights = torch.where(weights.sum(dim=0) > 0, weights, 1.0)
    dot = (targets * along).sum(dim=-1)
    square = along.square().sum(dim=-1)
    for _ in range(steps):
        apart = torch.linalg.vector_norm(along * depth[:, None] - targets, dim=-1)
        pull = reweighted(weights, apart, share)
        depth = (pull * dot).sum(dim=0) / (pull.sum(dim=0) * square)
    return positive(depth)


def reweighted(weights: Tensor, apart: Tensor, share: float) -> Tensor:
    """Weights of squares that stand for distances; below ``share`` of the median they are squares."""
    floor = share * apart.median() + 1e-12
    return weights / torch.sqrt(apart.square() + floor.square())
