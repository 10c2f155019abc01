"""How well the pointmaps of one window agree, whatever their scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from threer.errors import ThreerError
from threer.types import FloatArray


@dataclass(frozen=True)
class PointmapResult:
    """error: mean distance between points after each side is divided by its mean distance from the origin, so
    that 1 is as large as the scene. The scales are what each side was divided by; points were compared."""

    error: float
    predicted_scale: float
    true_scale: float
    points: int


def pointmap_error(
    predicted: FloatArray, truth: FloatArray, mask: npt.NDArray[np.bool_] | None = None
) -> PointmapResult:
    """Compare pointmaps [V, H, W, 3] of the views of one window, in one frame, scaled jointly over the views.

    mask  [V, H, W] points to compare, or None for all with a finite truth

    Raises ThreerError where nothing can be compared or a prediction is not finite.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != truth.shape or predicted.shape[-1] != 3:
        raise ValueError(f"prediction and truth must both be [V, H, W, 3], got {predicted.shape}, {truth.shape}")
    counted = np.isfinite(truth).all(axis=-1) if mask is None else mask & np.isfinite(truth).all(axis=-1)
    p, t = predicted[counted], truth[counted]
    if len(t) == 0:
        raise ThreerError("no point of the window has a known truth: nothing to compare")
    if not np.isfinite(p).all():
        raise ThreerError("the predicted pointmap is not finite: nothing to compare")
    scales = [max(float(np.linalg.norm(x, axis=1).mean()), 1e-8) for x in (p, t)]
    error = float(np.linalg.norm(p / scales[0] - t / scales[1], axis=1).mean())
    return PointmapResult(error, scales[0], scales[1], len(t))
