"""The similarity between two sets of corresponding points (Umeyama 1991), weighted."""

from __future__ import annotations

import numpy as np

from threer.types import FloatArray, Sim3

# Squared extent across the main axis over that along it, below which points count as a line. Rounding of
# float32 input gives about 1e-14.
FLATTEST = 1e-10


def align_points(
    source: FloatArray,
    target: FloatArray,
    weights: FloatArray | None = None,
    *,
    with_scale: bool = True,
    allow_line: bool = False,
) -> Sim3 | None:
    """Least-squares similarity that moves ``source`` onto ``target``.

    source, target  [N, 3]; pairs with a value that is not finite are left out
    weights         [N] ≥ 0, or None
    with_scale      False fits a rigid motion, scale 1
    allow_line      accept points on a line: the turn about it stays arbitrary, all distances are still optimal

    Returns None where the points do not determine the answer: fewer than 3 of them, or all on one line.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.ndim != 2 or source.shape[1] != 3 or source.shape != target.shape:
        raise ValueError(f"source and target must both be [N, 3], got {source.shape} and {target.shape}")
    w = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(source),):
        raise ValueError(f"weights must be [{len(source)}], got {w.shape}")
    good = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1) & np.isfinite(w) & (w > 0)
    if good.sum() < 3:
        return None
    source, target, w = source[good], target[good], w[good] / w[good].sum()

    source_centre, target_centre = w @ source, w @ target
    x, y = source - source_centre, target - target_centre
    spread = float(w @ np.square(x).sum(axis=1))
    target_spread = float(w @ np.square(y).sum(axis=1))
    U, D, Vt = np.linalg.svd((w[:, None] * y).T @ x)
    needed = 0 if allow_line else 1  # this many singular values beyond the first must stand out
    if not D[needed] > FLATTEST * np.sqrt(spread * target_spread) or D[0] == 0:
        return None
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = U * signs @ Vt
    scale = float(D @ signs / spread) if with_scale else 1.0
    if not scale > 0:
        return None
    return Sim3(scale, R, target_centre - scale * R @ source_centre)


def align_cameras(source: FloatArray, target: FloatArray) -> Sim3 | None:
    """Similarity that moves cameras ``source`` [N, 4, 4] onto ``target`` [N, 4, 4], both camera-to-world.

    Beside its centre each camera gives a point a little way along its optical axis, so that two are enough.
    Cameras not found (NaN) in either set are left out. None where the rest does not determine the answer.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    both = np.isfinite(source).all(axis=(1, 2)) & np.isfinite(target).all(axis=(1, 2))
    if both.sum() < 2:
        return None
    return align_points(_centres_and_axes(source[both]), _centres_and_axes(target[both]))


def _centres_and_axes(c2w: FloatArray) -> FloatArray:
    """[2N, 3] camera centres, then points a hundredth of the median camera distance in front of them."""
    centres = c2w[:, :3, 3]
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    step = np.median(distances[np.triu_indices(len(centres), k=1)]) / 100
    both: FloatArray = np.concatenate([centres, centres + step * c2w[:, :3, 2]])
    return both
