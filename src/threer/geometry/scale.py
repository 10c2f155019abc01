"""Scale of pointmaps: the mean distance of their points from the origin (DUSt3R 3.2, SLAM3R 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-8  # keeps an empty or collapsed pointmap from dividing by zero


def mean_distance(points: Tensor, masks: Tensor | None = None) -> Tensor:
    """Mean distance from the origin over all valid points of all views, one factor for each sample.

    points  [..., V, H, W, 3]; the views V are taken jointly
    masks   [..., V, H, W] bool, or None when every point counts

    Returns [...], at least 1e-8.
    """
    _check(points, masks)
    if masks is None:
        masks = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
    # Zeroed before the norm, not after: an invalid NaN would otherwise come back in the gradient.
    distance: Tensor = torch.linalg.vector_norm(torch.where(masks[..., None], points, 0.0), dim=-1)
    count = masks.sum(dim=(-3, -2, -1)).clamp(min=1)
    return (distance.sum(dim=(-3, -2, -1)) / count).clamp(min=SMALLEST_SCALE)  # [...]


def normalize(points: Tensor, masks: Tensor | None = None, *, zero_invalid: bool = False) -> tuple[Tensor, Tensor]:
    """Divide the views of each sample by their joint mean distance.

    points        [..., V, H, W, 3]
    masks         [..., V, H, W] bool: which points decide the factor; None takes all
    zero_invalid  put the points outside ``masks`` at the origin

    Returns the points [..., V, H, W, 3] and the factor [...] they were divided by.
    """
    factor = mean_distance(points, masks)
    scaled = points / factor[..., None, None, None, None]
    if zero_invalid and masks is not None:
        scaled = torch.where(masks[..., None], scaled, 0.0)
    return scaled, factor


def _check(points: Tensor, masks: Tensor | None) -> None:
    if points.ndim < 4 or points.shape[-1] != 3:
        raise ValueError(f"points must be [..., V, H, W, 3], got {list(points.shape)}")
    if masks is not None and masks.shape != points.shape[:-1]:
        raise ValueError(f"masks must be {list(points.shape[:-1])} like the points, got {list(masks.shape)}")
