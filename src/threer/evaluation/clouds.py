"""How well point clouds agree: accuracy, completeness, F-score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from threer.errors import ThreerError
from threer.types import FloatArray

CHUNK = 200_000  # queries at a time: the tree's answers for the whole cloud need not exist at once


@dataclass(frozen=True)
class CloudResult:
    """Distances in the clouds' unit (metres), both ways between nearest neighbours.

    accuracy      from the prediction to the truth
    completeness  from the truth to the prediction
    chamfer_m     mean of the two means
    f_score       threshold in metres -> harmonic mean of the shares of points within it
    points        compared: (predicted, true), after thinning
    """

    accuracy_m: float
    accuracy_median_m: float
    completeness_m: float
    completeness_median_m: float
    chamfer_m: float
    f_score: Mapping[float, float]
    points: tuple[int, int]


def cloud_errors(
    predicted: FloatArray,
    truth: FloatArray,
    *,
    thresholds_m: Sequence[float] = (0.05,),
    max_points: int = 1_000_000,
    seed: int = 0,
) -> CloudResult:
    """Compare clouds [M, 3] and [N, 3] that lie in one frame already.

    max_points  larger clouds are thinned to so many random points each

    Raises ThreerError on an empty cloud or a point that is not finite.
    """
    predicted = _thin(predicted, "predicted", max_points, seed)
    truth = _thin(truth, "true", max_points, seed)
    accuracy = _distances(predicted, truth)
    completeness = _distances(truth, predicted)
    scores = {}
    for threshold in thresholds_m:
        precision, recall = float((accuracy < threshold).mean()), float((completeness < threshold).mean())
        scores[threshold] = 2 * precision * recall / (precision + recall + 1e-8)
    return CloudResult(
        accuracy_m=float(accuracy.mean()),
        accuracy_median_m=float(np.median(accuracy)),
        completeness_m=float(completeness.mean()),
        completeness_median_m=float(np.median(completeness)),
        chamfer_m=float(accuracy.mean() + completeness.mean()) / 2,
        f_score=scores,
        points=(len(predicted), len(truth)),
    )


def _thin(points: FloatArray, name: str, max_points: int, seed: int) -> FloatArray:
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"the {name} cloud must be [N, 3], got {points.shape}")
    if len(points) == 0:
        raise ThreerError(f"the {name} cloud is empty: nothing to compare")
    if not np.isfinite(points).all():
        raise ThreerError(f"the {name} cloud has points that are not finite: filter them first")
    if len(points) > max_points:
        points = points[np.random.default_rng(seed).choice(len(points), max_points, replace=False)]
    return np.asarray(points, dtype=np.float64)


def _distances(points: FloatArray, among: FloatArray) -> FloatArray:
    """[M] distance of each point to its nearest in ``among``."""
    tree = KDTree(among)
    out = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), CHUNK):
        out[start : start + CHUNK] = tree.query(points[start : start + CHUNK], workers=-1)[0]
    return out
