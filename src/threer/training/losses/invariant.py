"""Forgive a prediction its shift along the optical axis, its scale, or both (DUSt3R's test criteria)."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.training.losses.scale import joint_median, per_sample

SCALES = (1e-3, 1e3)


def match_shift(prediction: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Both points [B, V, H, W, 3] with the joint median of their own z taken off z. Medians carry no gradient."""
    return _shifted(prediction, valid), _shifted(truth, valid)


def match_scale(
    prediction: Tensor, truth: Tensor, valid: Tensor, keep_truth: bool = False
) -> tuple[Tensor, Tensor]:
    """Both points [B, V, H, W, 3] divided by the joint median distance from their median point.

    ``keep_truth`` brings the prediction to the scale of the truth instead. Medians carry no gradient.
    """
    own, true = _spread(prediction, valid).clamp(*SCALES), _spread(truth, valid)
    if keep_truth:
        return prediction * per_sample(true / own), truth
    return prediction / per_sample(own), truth / per_sample(true.clamp(min=torch.finfo(true.dtype).tiny))


def _shifted(points: Tensor, valid: Tensor) -> Tensor:
    depth = joint_median(points[..., 2].detach(), valid)
    return points - torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth], -1)[:, None, None, None]


def _spread(points: Tensor, valid: Tensor) -> Tensor:
    """[B] median distance from the median point."""
    points = points.detach()
    centre = torch.stack([joint_median(points[..., i], valid) for i in range(3)], dim=-1)
    return joint_median((points - centre[:, None, None, None]).norm(dim=-1), valid)
