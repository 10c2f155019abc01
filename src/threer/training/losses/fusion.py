"""Fast3R's points: all views in the first's frame, and each in its own (Fast3R 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.training.losses.regression import distances, point_distances
from threer.training.losses.scale import Normalization, normalize_points, per_sample


def fusion_distances(
    prediction: tuple[Tensor, Tensor],
    truth: tuple[Tensor, Tensor],
    valid: Tensor,
    normalization: Normalization = "avg_dis",
    *,
    consistent: bool = False,
    keep_truth: bool = False,
) -> tuple[Tensor, Tensor]:
    """Distances [B, V, H, W] of global and local points, each [B, V, H, W, 3], 0 where not ``valid``.

    Global points share one scale over the views of a sample. Local points have one for each view, or with
    ``consistent`` that of the global points. ``keep_truth`` leaves the truth in its own scale.
    """
    world = point_distances(prediction[0], truth[0], valid, normalization, keep_truth)
    if not consistent:
        # every view alone: views become samples of one view
        apart = [t.flatten(0, 1).unsqueeze(1) for t in (prediction[1], truth[1], valid)]
        own = point_distances(apart[0], apart[1], apart[2], normalization, keep_truth)
        return world, own.view_as(world)
    local = [torch.where(valid.unsqueeze(-1), t, 0.0) for t in (prediction[1], truth[1])]
    scale = normalize_points(prediction[0], valid, normalization)[1]
    true_scale = normalize_points(truth[0], valid, "none" if keep_truth else normalization)[1]
    return world, distances(local[0] / per_sample(scale), local[1] / per_sample(true_scale))
