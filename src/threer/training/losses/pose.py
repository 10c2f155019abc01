"""Errors of predicted cameras (CUT3R 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.geometry.transforms import quaternion_from_matrix
from threer.training.losses.sequence import SMALLEST_SCALE

SMALLEST_PATH = 1e-8


def pose_errors(
    prediction: Tensor,
    truth: Tensor,
    predicted_scale: Tensor,
    true_scale: Tensor,
    own_path: Tensor | None = None,
    either_sign: bool = True,
) -> tuple[Tensor, Tensor]:
    """How far cameras are off: translations and rotations, [B, V] each.

    prediction       [B, V, 7] translation, then quaternion (w, x, y, z)
    truth            [B, V, 4, 4] camera-to-world in the same frame
    predicted_scale  [B] that predicted translations are divided by, and true_scale [B] the true ones
    own_path         [B] samples without points: translations are divided by their mean length instead
    either_sign      a quaternion and its negative are one rotation; otherwise w ≥ 0 in the truth decides
    """
    moved, turned = truth[..., :3, 3], quaternion_from_matrix(truth[..., :3, :3])
    predicted = prediction[..., :3]
    scales = [predicted_scale, true_scale]
    if own_path is not None:
        lengths = [_mean_length(predicted), _mean_length(moved)]
        scales = [torch.where(own_path, length, s) for length, s in zip(lengths, scales, strict=True)]
    translation = torch.linalg.vector_norm(
        predicted / scales[0][:, None, None] - moved / scales[1][:, None, None], dim=-1
    )
    rotation = torch.linalg.vector_norm(prediction[..., 3:] - turned, dim=-1)
    if either_sign:
        rotation = torch.minimum(rotation, torch.linalg.vector_norm(prediction[..., 3:] + turned, dim=-1))
    return translation, rotation


def mean_pose_error(errors: tuple[Tensor, Tensor], true_scale: Tensor, own_path: Tensor, judged: Tensor) -> Tensor:
    """Mean of translation and rotation errors [B, V] over the cameras that are ``judged`` [B, V]; 0 if none is.

    Samples whose ``true_scale`` [B] is as small as scales get are left out: their translations mean nothing. Those
    with their ``own_path`` [B] have another scale.
    """
    judged = judged & ((true_scale > SMALLEST_SCALE) | own_path).unsqueeze(1)
    total = torch.where(judged, errors[0] + errors[1], 0.0).sum()
    return total / judged.sum().clamp(min=1)


def _mean_length(translation: Tensor) -> Tensor:
    """[B, V, 3] -> [B]."""
    lengths: Tensor = torch.linalg.vector_norm(translation, dim=-1)
    return lengths.mean(dim=1).clamp(min=SMALLEST_PATH)
