"""Training criteria of SLAM3R: pointmap regression, its confidence-aware form, and the retrieval loss.

Points of a batch are [B, V, H, W, 3] (B samples, V views), confidences and masks [B, V, H, W]. A mean over valid
pixels runs over a view of the whole batch; views are added up; a view without valid pixels counts 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from threer.geometry.scale import mean_distance

Normalization = Literal["both", "prediction", "none"]


@dataclass(frozen=True, eq=False)
class ViewLosses:
    """A criterion's value for each view [V]; ``total`` is their sum."""

    per_view: Tensor

    @property
    def total(self) -> Tensor:
        return self.per_view.sum()


def point_distances(
    prediction: Tensor, truth: Tensor, valid: Tensor, normalization: Normalization = "both"
) -> Tensor:
    """Euclidean distance [B, V, H, W] of predicted from true points, 0 where not ``valid``.

    ``both`` divides prediction and truth each by its own mean distance over the valid points of all views of a
    sample; ``prediction`` leaves the truth in its own scale; ``none`` compares as given (Local-to-World). SLAM3R,
    section 3.2.
    """
    # Cleared before any arithmetic: an invalid NaN would come back in the gradient.
    mask = valid.unsqueeze(-1)
    prediction, truth = torch.where(mask, prediction, 0.0), torch.where(mask, truth, 0.0)
    if normalization != "none":
        prediction = prediction / _per_sample(mean_distance(prediction, valid))
    if normalization == "both":
        truth = truth / _per_sample(mean_distance(truth, valid))
    distances: Tensor = torch.linalg.vector_norm(prediction - truth, dim=-1)
    return distances


def regression_loss(distances: Tensor, valid: Tensor) -> ViewLosses:
    """Mean of ``distances`` [B, V, H, W] over the valid pixels of each view."""
    return ViewLosses(_view_means(distances, valid))


def confidence_loss(distances: Tensor, confidence: Tensor, valid: Tensor, alpha: float = 0.2) -> ViewLosses:
    """Mean of C·ℓ − α ln C over the valid pixels of each view (DUSt3R, section 3.2).

    distances ℓ and confidence C (above 0) are [B, V, H, W].
    """
    confidence = torch.where(valid, confidence, 1.0)
    return ViewLosses(_view_means(confidence * distances - alpha * confidence.log(), valid))


def retrieval_loss(logits: Sequence[Tensor], confidences: Sequence[Tensor]) -> ViewLosses:
    """How far the retrieval score of each source view is from the confidence that its pointmap got.

    logits       [B, N] raw patch scores of each source view
    confidences  [B, H, W] of the same views, at least 1

    With a = mean exp(logit) and b = mean (C − 1), each view costs the mean over samples of |a/(1+a) − b/(1+b)|.
    """
    scores = torch.stack([x.exp().mean(dim=1) for x in logits])  # [V, B]
    targets = torch.stack([c.flatten(1).mean(dim=1) - 1 for c in confidences])
    return ViewLosses((scores / (1 + scores) - targets / (1 + targets)).abs().mean(dim=1))


def _per_sample(factor: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1, 1]."""
    return factor[:, None, None, None, None]


def _view_means(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid pixels of a view: [B, V, H, W] -> [V]."""
    count = valid.sum(dim=(0, 2, 3))
    return torch.where(valid, values, 0.0).sum(dim=(0, 2, 3)) / count.clamp(min=1)
