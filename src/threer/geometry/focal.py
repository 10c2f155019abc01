"""Focal length from a pointmap in its own camera's frame (DUSt3R 3.3). Square pixels, known principal point."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from threer.geometry.projection import pixel_grid

Bounds = tuple[float, float]


def weiszfeld_focal(
    points: Tensor,
    principal_point: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    iterations: int = 10,
    bounds: Bounds | None = None,
) -> Tensor:
    """The focal length that minimises the sum of reprojection distances, by reweighted least squares.

    points           [..., H, W, 3] in the camera's frame
    principal_point  [..., 2] (u, v), None for the image centre ((W-1)/2, (H-1)/2)
    weights          [..., H, W] ≥ 0, or a bool mask, or None
    bounds           keep the result within these multiples of the focal length of a 60° view

    Returns [...] pixels, NaN where no point is usable. Points that are not finite or not in front of the
    camera do not count.
    """
    pixels, slopes, weight = _observations(points, principal_point, weights)
    dot = (pixels * slopes).sum(dim=-1)  # [..., HW]
    square = slopes.square().sum(dim=-1)

    def solve(w: Tensor) -> Tensor:
        return (w * dot).sum(dim=-1) / (w * square).sum(dim=-1)

    focal = solve(weight)
    for _ in range(iterations):
        distance = torch.linalg.vector_norm(pixels - focal[..., None, None] * slopes, dim=-1)
        focal = solve(weight / distance.clamp(min=1e-8))
    return _within(focal, bounds, points)


def median_focal(
    points: Tensor,
    principal_point: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    bounds: Bounds | None = None,
) -> Tensor:
    """The median of the focal lengths that each coordinate of each point asks for; arguments as above."""
    pixels, slopes, weight = _observations(points, principal_point, mask)
    votes = torch.where((weight > 0)[..., None], pixels / slopes, torch.nan)  # 0 / 0 at the centre is NaN too
    focal = votes.flatten(-2).nanmedian(dim=-1).values
    return _within(focal, bounds, points)


def _observations(
    points: Tensor, principal_point: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Centred pixels and slopes x/z, y/z, both [..., HW, 2], and weights [..., HW], 0 for unusable points."""
    if points.ndim < 3 or points.shape[-1] != 3:
        raise ValueError(f"points must be [..., H, W, 3], got {list(points.shape)}")
    height, width = points.shape[-3:-1]
    if principal_point is None:
        principal_point = points.new_tensor([(width - 1) / 2, (height - 1) / 2])
    grid = pixel_grid(height, width, device=points.device, dtype=points.dtype)
    pixels = (grid - principal_point[..., None, None, :]).expand(*points.shape[:-1], 2)
    usable = points.isfinite().all(dim=-1) & (points[..., 2] > 0)
    slopes = torch.where(usable[..., None], points[..., :2] / points[..., 2:], 0.0)
    weight = usable.to(points.dtype) if weights is None else usable * weights.to(points.dtype)
    return pixels.flatten(-3, -2), slopes.flatten(-3, -2), weight.flatten(-2)


def _within(focal: Tensor, bounds: Bounds | None, points: Tensor) -> Tensor:
    if bounds is None:
        return focal
    base = max(points.shape[-3:-1]) / (2 * math.tan(math.radians(30)))
    return focal.clamp(bounds[0] * base, bounds[1] * base)
