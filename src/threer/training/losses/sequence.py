"""CUT3R's points: each view in its own frame and in the first's, in one scale (CUT3R 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threer.training.losses.regression import distances
from threer.training.losses.scale import per_sample

SMALLEST_SCALE = 1e-3
SMALLEST_WEIGHT = 1e-3
RAY_LIMIT = 2.0
"""Rays are compared up to this slope: two times the depth to the side."""


@dataclass(frozen=True, eq=False)
class SequencePoints:
    """own and world points [B, V, H, W, 3]: in each view's camera, and in the first view's."""

    own: Tensor
    world: Tensor


def sequence_scales(
    prediction: SequencePoints,
    truth: SequencePoints,
    valid: Tensor,
    metric: Tensor | None = None,
    confidence: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Scales [B] of prediction and truth: mean distance over own and world points of all views together.

    valid       [B, V, H, W] bool
    metric      [B] samples whose prediction is measured in the scale of the truth, so that metres are learnt
    confidence  predicted confidences (own, world) [B, V, H, W] whose logarithms weigh the points, of prediction and
                truth alike; None weighs all alike
    """
    if confidence is None:
        weights = [valid.to(truth.own.dtype)] * 2
    else:
        weights = [torch.where(valid, c.detach().log().clamp(min=SMALLEST_WEIGHT), 0.0) for c in confidence]
    true = _weighted_distance(truth, valid, weights)
    own = _weighted_distance(prediction, valid, weights)
    return (own if metric is None else torch.where(metric, true, own)), true


def sequence_distances(
    prediction: SequencePoints, truth: SequencePoints, valid: Tensor, scales: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Distances (own, world) [B, V, H, W] after dividing prediction and truth by ``scales``; 0 where not valid."""
    cleared, true = _cleared(prediction, valid), _cleared(truth, valid)
    predicted_scale, true_scale = (per_sample(s) for s in scales)
    return (
        distances(cleared.own / predicted_scale, true.own / true_scale),
        distances(cleared.world / predicted_scale, true.world / true_scale),
    )


def typed_distances(
    plain: tuple[Tensor, Tensor],
    prediction: SequencePoints,
    truth: SequencePoints,
    valid: Tensor,
    counted: Tensor,
    *,
    camera_only: Tensor,
    depth_only: Tensor,
    loose: Tensor,
) -> tuple[Tensor, Tensor]:
    """Distances ``plain`` (own, world) [B, V, H, W] where samples have their own rules.

    counted      [B, V, H, W] pixels of the loss, sky included: they decide scales and shifts of a view
    camera_only  [B] own points are compared as rays (x/z, y/z, 1); world points are not to be counted
    depth_only   [B] z is compared after taking off its mean and dividing by its mean deviation, in each view
    loose        [B] unrelated views without unit: each is compared in its own scale
    """
    where = [flags[:, None, None, None] for flags in (depth_only, loose, camera_only)]
    cleared, true = _cleared(prediction, counted), _cleared(truth, counted)
    results = []
    for plain_one, one, true_one in zip(plain, _both(cleared), _both(true), strict=True):
        affine = (_affine(one[..., 2], counted) - _affine(true_one[..., 2], counted)).abs()
        scaled = distances(_view_scaled(one, counted), _view_scaled(true_one, counted))
        results.append(torch.where(where[0], affine, torch.where(where[1], scaled, plain_one)))
    rays = distances(_rays(cleared.own, valid), _rays(true.own, valid))
    return torch.where(where[2], rays, results[0]), results[1]


def sky_included(distances: Tensor, valid: Tensor, sky: Tensor, error: float) -> Tensor:
    """Distances [B, V, H, W] with a constant ``error`` at sky pixels, if it is above 0.

    No point is right for the sky, but a constant error pushes its confidence down.
    """
    return torch.where(sky & ~valid, error, distances) if error > 0 else distances


def colour_errors(prediction: Tensor, images: Tensor, squared: bool = True) -> Tensor:
    """[B, V] error of colours [B, V, H, W, 3] from ``images`` [B, V, 3, H, W], both in [-1, 1].

    Mean squared difference, or mean distance in colour space.
    """
    difference = prediction - images.movedim(2, -1)
    if squared:
        return difference.square().mean(dim=(2, 3, 4))
    lengths: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return lengths.mean(dim=(2, 3))


def _both(points: SequencePoints) -> tuple[Tensor, Tensor]:
    return points.own, points.world


def _cleared(points: SequencePoints, valid: Tensor) -> SequencePoints:
    """0 where not valid: an invalid NaN would come back in the gradient."""
    mask = valid.unsqueeze(-1)
    return SequencePoints(*(torch.where(mask, p, 0.0) for p in _both(points)))


def _weighted_distance(points: SequencePoints, valid: Tensor, weights: list[Tensor]) -> Tensor:
    """[B], at least 1e-3."""
    lengths = [torch.linalg.vector_norm(p, dim=-1) for p in _both(_cleared(points, valid))]
    total = sum((w * x).flatten(1).sum(1) for w, x in zip(weights, lengths, strict=True))
    weight = sum(w.flatten(1).sum(1) for w in weights)
    assert isinstance(total, Tensor)
    return (total / (weight + 1e-8)).clamp(min=SMALLEST_SCALE)


def _affine(depth: Tensor, counted: Tensor) -> Tensor:
    """Depth [B, V, H, W] less its mean over a view, over its mean deviation."""
    centred = depth - _map_mean(depth, counted)
    return centred / _map_mean(centred.abs(), counted).clamp(min=SMALLEST_SCALE)


def _view_scaled(points: Tensor, counted: Tensor) -> Tensor:
    """Points [B, V, H, W, 3] over their mean distance in a view."""
    lengths: Tensor = torch.linalg.vector_norm(points, dim=-1)
    return points / _map_mean(lengths, counted).clamp(min=SMALLEST_SCALE).unsqueeze(-1)


def _map_mean(values: Tensor, counted: Tensor) -> Tensor:
    """[B, V, 1, 1] mean of [B, V, H, W] over the counted pixels of one view of one sample."""
    count = counted.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return torch.where(counted, values, 0.0).sum(dim=(2, 3), keepdim=True) / count


def _rays(points: Tensor, valid: Tensor) -> Tensor:
    """Slopes (x/z, y/z) [..., 2] within ±2 of points [..., 3]; 0 where there is no depth."""
    depth = points[..., 2:]
    usable = valid.unsqueeze(-1) & (depth.abs() > SMALLEST_WEIGHT**2)
    slopes = torch.where(usable, points[..., :2], 0.0) / torch.where(usable, depth, 1.0)
    return slopes.clamp(-RAY_LIMIT, RAY_LIMIT)
