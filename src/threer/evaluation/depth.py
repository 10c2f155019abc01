"""How well depth maps agree (Eigen et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from threer.errors import ThreerError
from threer.types import FloatArray

Alignment = Literal["median", "scale", "none"]
SMALLEST_DEPTH = 1e-5
SMALLEST_SCALE = 1e-3
SCALE_STEPS = 10


@dataclass(frozen=True)
class DepthResult:
    """Errors over the pixels with a true depth.

    abs_rel        mean |predicted - true| / true, where there is a prediction
    delta_1_25     share within a factor of 1.25; a pixel without a prediction is not within
    scale          what the prediction was multiplied by
    pixels         with a true depth
    missing_share  of these, without a finite predicted depth
    """

    abs_rel: float
    delta_1_25: float
    scale: float
    pixels: int
    missing_share: float


def depth_errors(
    predicted: FloatArray,
    truth: FloatArray,
    mask: npt.NDArray[np.bool_] | None = None,
    *,
    align: Alignment = "median",
    max_depth_m: float = np.inf,
) -> DepthResult:
    """Compare depth maps of one shape [..., H, W]; everything given shares one scale.

    mask         pixels to count, of those with 0 < truth < max_depth_m; the scale is fitted to all of these
    align        median: by the ratio of medians · scale: by the least sum of absolute errors · none: metres

    Raises ThreerError where nothing can be compared.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != truth.shape or (mask is not None and mask.shape != truth.shape):
        shapes = [predicted.shape, truth.shape] + ([] if mask is None else [mask.shape])
        raise ValueError(f"prediction, truth and mask must have one shape, got {shapes}")
    known = np.isfinite(truth) & (truth > 0) & (truth < max_depth_m)
    both = known & np.isfinite(predicted)
    if not both.any():
        raise ThreerError("no pixel has both a true and a predicted depth: nothing to compare")
    scale = _scale(predicted[both], truth[both], align)

    counted = known if mask is None else known & mask
    compared = both & counted
    if not compared.any():
        raise ThreerError("the mask leaves no pixel with both a true and a predicted depth: nothing to compare")
    d, p = truth[compared], np.maximum(scale * predicted[compared], SMALLEST_DEPTH)
    pixels = int(counted.sum())
    return DepthResult(
        abs_rel=float((np.abs(p - d) / d).mean()),
        delta_1_25=float((np.maximum(p / d, d / p) < 1.25).sum() / pixels),
        scale=scale,
        pixels=pixels,
        missing_share=1 - len(d) / pixels,
    )


def _scale(predicted: FloatArray, truth: FloatArray, align: Alignment) -> float:
    if align == "none":
        return 1.0
    middle = float(np.median(predicted) if align == "median" else predicted.mean())
    if not middle > 0:
        raise ThreerError(f"the predicted depth is {middle:g} in the middle, not positive: no scale fits")
    if align == "median":
        return float(np.median(truth)) / middle
    scale = float(truth.mean()) / middle
    for _ in range(SCALE_STEPS):
        weight = 1 / (np.abs(scale * predicted - truth) + 1e-8)
        scale = float((weight * predicted * truth).sum() / (weight * predicted**2).sum())
    return max(scale, SMALLEST_SCALE)
