"""Distances of predicted from true points, and their means over a view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threer.training.losses.scale import Normalization, normalize_points


@dataclass(frozen=True, eq=False)
class ViewLosses:
    """A criterion's value for each view [V]; ``total`` is their sum."""

    per_view: Tensor

    @property
    def total(self) -> Tensor:
        return self.per_view.sum()


def point_distances(
    prediction: Tensor,
    truth: Tensor,
    valid: Tensor,
    normalization: Normalization = "avg_dis",
    keep_truth: bool = False,
) -> Tensor:
    """Euclidean distance [B, V, H, W] of predicted from true points, 0 where not ``valid``.

    Prediction and truth are each divided by their own scale, joint over the views of a sample; ``keep_truth``
    leaves the truth as it is, and so does ``normalization`` "none" for both. DUSt3R, section 3.2; SLAM3R, 3.2.
    """
    prediction, _ = normalize_points(prediction, valid, normalization)
    truth, _ = normalize_points(truth, valid, "none" if keep_truth else normalization)
    return distances(prediction, truth)


def distances(prediction: Tensor, truth: Tensor) -> Tensor:
    """Euclidean distance [...] of points [..., 3]."""
    lengths: Tensor = torch.linalg.vector_norm(prediction - truth, dim=-1)
    return lengths


def within(truth: Tensor, valid: Tensor, far: float) -> Tensor:
    """The valid pixels [B, V, H, W] whose true points [B, V, H, W, 3] are at most ``far`` from the origin."""
    distance = torch.linalg.vector_norm(torch.where(valid.unsqueeze(-1), truth, 0.0), dim=-1)
    near: Tensor = valid & (distance <= far)
    return near


def regression_loss(distances: Tensor, valid: Tensor) -> ViewLosses:
    """Mean of ``distances`` [B, V, H, W] over the valid pixels of each view."""
    return ViewLosses(view_means(distances, valid))


def view_means(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid pixels of a view: [B, V, H, W] -> [V]."""
    count = valid.sum(dim=(0, 2, 3))
    return torch.where(valid, values, 0.0).sum(dim=(0, 2, 3)) / count.clamp(min=1)
