"""The scale of a pointmap, which a prediction without units must not be judged by (DUSt3R 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from threer.geometry.scale import SMALLEST_SCALE

Normalization = Literal[
    "none", "avg_dis", "avg_log1p", "avg_warp-log1p", "median_dis", "median_log1p", "median_warp-log1p",
    "sqrt_dis", "sqrt_log1p", "sqrt_warp-log1p",
]  # fmt: skip
"""How scale is measured: mean, median or squared mean of roots; of distances or of ln(1 + distance).

"warp" moves every point to the logarithm of its distance before it is divided.
"""


def normalize_points(points: Tensor, valid: Tensor, mode: Normalization = "avg_dis") -> tuple[Tensor, Tensor]:
    """Divide points [B, V, H, W, 3] by the joint scale of the ``valid`` ones of each sample.

    Returns the points, 0 where not valid, and the scales [B], at least 1e-8 (1 with "none"). Gradients flow through
    scales, except through medians, which follow one pixel only.
    """
    # Cleared before any arithmetic: an invalid NaN would come back in the gradient.
    points = torch.where(valid.unsqueeze(-1), points, 0.0)
    if mode == "none":
        return points, points.new_ones(len(points))
    measure, _, of = mode.partition("_")
    lengths: Tensor = torch.linalg.vector_norm(points, dim=-1)
    if of != "dis":
        logarithms = lengths.log1p()
        if of == "warp-log1p":
            points = points * (logarithms / lengths.clamp(min=SMALLEST_SCALE)).unsqueeze(-1)
        lengths = logarithms
    scale = _average(lengths, valid, measure).clamp(min=SMALLEST_SCALE)
    return points / per_sample(scale), scale


def _average(lengths: Tensor, valid: Tensor, measure: str) -> Tensor:
    """[B] of [B, V, H, W] over what is valid."""
    if measure == "median":
        return joint_median(lengths.detach(), valid)
    if measure == "sqrt":  # the root has no slope at 0
        lengths = torch.where(valid & (lengths > 0), lengths, 1.0).sqrt() * (lengths > 0)
    count = valid.flatten(1).sum(1).clamp(min=1)
    mean = torch.where(valid, lengths, 0.0).flatten(1).sum(1) / count
    return mean.square() if measure == "sqrt" else mean


def joint_median(values: Tensor, valid: Tensor) -> Tensor:
    """Median [B] of the valid ``values`` [B, ...] of a sample (the lower one of two), 0 where there is none."""
    return torch.where(valid, values, torch.nan).flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)


def per_sample(factor: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1, 1]."""
    return factor[:, None, None, None, None]
