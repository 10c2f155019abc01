"""Regression that the network may weigh by its own confidence (DUSt3R 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.training.losses.regression import ViewLosses, view_means


def confidence_loss(distances: Tensor, confidence: Tensor, valid: Tensor, alpha: float = 0.2) -> ViewLosses:
    """Mean of C·ℓ − α ln C over the valid pixels of each view (DUSt3R, section 3.2).

    distances ℓ and confidence C (above 0) are [B, V, H, W].
    """
    confidence = torch.where(valid, confidence, 1.0)
    return ViewLosses(view_means(confidence * distances - alpha * confidence.log(), valid))
