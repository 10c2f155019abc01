"""What scale-free comparisons of pointmaps fix first: size, depth and centre of a set, best scale between two.

The published losses and protocols of DUSt3R and CUT3R use these beside the plain mean distance of `geometry.scale`.
All views of a sample are taken jointly. Medians are torch's: of an even number of values the lower middle one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from threer.geometry.scale import SMALLEST_SCALE

Measure = Literal["mean", "median", "sqrt", "log1p", "warp-log1p"]
Fit = Literal["mean", "median", "weiszfeld"]

FIT_ITERATIONS = 10


def size_of(
    points: Tensor, masks: Tensor | None = None, how: Measure = "mean", weights: Tensor | None = None
) -> Tensor:
    """How large pointmaps [..., V, H, W, 3] are: one factor [...] from the distances of their points.

    masks    [..., V, H, W] bool, or None when every point counts
    how      mean or median distance, squared mean root, or mean of ln(1 + distance) (``warp-log1p`` as well)
    weights  [..., V, H, W] ≥ 0 for a weighted mean; not with the median
    """
    distance = torch.linalg.vector_norm(points, dim=-1)
    if how == "median":
        if weights is not None:
            raise ValueError("a median takes no weights")
        return _median(distance, masks).nan_to_num(nan=SMALLEST_SCALE).clamp(min=SMALLEST_SCALE)
    measured = {"mean": distance, "sqrt": distance.sqrt()}.get(how, distance.log1p())
    counted = torch.ones_like(distance) if weights is None else weights
    if masks is not None:
        counted, measured = torch.where(masks, counted, 0.0), torch.where(masks, measured, 0.0)
    total = counted.sum(dim=(-3, -2, -1)).clamp(min=SMALLEST_SCALE)
    factor: Tensor = (counted * measured).sum(dim=(-3, -2, -1)) / total
    return (factor.square() if how == "sqrt" else factor).clamp(min=SMALLEST_SCALE)


def divide_by_size(points: Tensor, masks: Tensor | None = None, how: Measure = "mean") -> tuple[Tensor, Tensor]:
    """Pointmaps [..., V, H, W, 3] divided by `size_of` them, and the factor [...].

    ``warp-log1p`` first shortens every point to ln(1 + distance), and puts those that do not count at the origin.
    """
    factor = size_of(points, masks, how)
    if how == "warp-log1p":
        distance = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
        points = points * (distance.log1p() / distance.clamp(min=SMALLEST_SCALE))
        points = points if masks is None else torch.where(masks[..., None], points, 0.0)
    return points / factor[..., None, None, None, None], factor


def joint_depth(points: Tensor, masks: Tensor | None = None) -> Tensor:
    """Median z [...] of pointmaps [..., V, H, W, 3]."""
    return _median(points[..., 2], masks)


def joint_centre(points: Tensor, masks: Tensor | None = None, *, depth_only: bool = False) -> Tensor:
    """Median [..., 3] of each coordinate of pointmaps [..., V, H, W, 3]; x and y are 0 with ``depth_only``."""
    median = torch.stack([_median(points[..., axis], masks) for axis in range(3)], dim=-1)
    return median * median.new_tensor([0.0, 0.0, 1.0]) if depth_only else median


def joint_scale(points: Tensor, masks: Tensor | None = None, centre: Tensor | None = None) -> Tensor:
    """Median distance [...] of pointmaps [..., V, H, W, 3] from ``centre`` [..., 3], None for the origin."""
    if centre is not None:
        points = points - centre[..., None, None, None, :]
    return _median(torch.linalg.vector_norm(points, dim=-1), masks)


def best_scale(source: Tensor, target: Tensor, masks: Tensor | None = None, how: Fit = "mean") -> Tensor:
    """The factor [...] that brings pointmaps ``source`` closest to ``target``, both [..., V, H, W, 3].

    mean       least squares
    median     median of the factors that each point asks for
    weiszfeld  least sum of distances, by ten reweighted least squares
    """
    if masks is not None:  # what does not count may be anything, NaN as well
        source, target = (torch.where(masks[..., None], points, 0.0) for points in (source, target))
    dot, square = (source * target).sum(dim=-1), source.square().sum(dim=-1)
    if how == "median":
        return _median(dot / square, masks)
    counted = torch.ones_like(dot) if masks is None else masks.to(dot.dtype)

    def solve(weights: Tensor) -> Tensor:
        factor: Tensor = (weights * dot).sum(dim=(-3, -2, -1)) / (weights * square).sum(dim=(-3, -2, -1))
        return factor

    factor = solve(counted)
    for _ in range(FIT_ITERATIONS if how == "weiszfeld" else 0):
        apart = torch.linalg.vector_norm(target - factor[..., None, None, None, None] * source, dim=-1)
        factor = solve(counted / apart.clamp(min=1e-8))
    return factor


def _median(values: Tensor, masks: Tensor | None) -> Tensor:
    """Median [...] over [..., V, H, W]; NaN where no value counts."""
    if masks is not None:
        values = torch.where(masks, values, torch.nan)
    return values.flatten(-3).nanmedian(dim=-1).values
