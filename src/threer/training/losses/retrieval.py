"""SLAM3R's retrieval score learns to foretell confidences (SLAM3R 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from threer.training.losses.regression import ViewLosses


def retrieval_loss(logits: Sequence[Tensor], confidences: Sequence[Tensor]) -> ViewLosses:
    """How far the retrieval score of each source view is from the confidence that its pointmap got.

    logits       [B, N] raw patch scores of each source view
    confidences  [B, H, W] of the same views, at least 1

    With a = mean exp(logit) and b = mean (C − 1), each view costs the mean over samples of |a/(1+a) − b/(1+b)|.
    """
    scores = torch.stack([x.exp().mean(dim=1) for x in logits])  # [V, B]
    targets = torch.stack([c.flatten(1).mean(dim=1) - 1 for c in confidences])
    return ViewLosses((scores / (1 + scores) - targets / (1 + targets)).abs().mean(dim=1))
