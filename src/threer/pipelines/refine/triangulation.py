"""Points from the rays of all cameras that see them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from threer.pipelines.refine.observations import Observations
from threer.types import FloatArray

ROUNDS = 4
"""Of reweighting, so that single wrong observations lose their say."""


def triangulate(
    seen: Observations, c2w: FloatArray, K: FloatArray, *, most_error_px: float, least_angle_deg: float
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Points [T, 3] by the reweighted linear method (Hartley & Zisserman 12.2), and which observations fit [M].

    c2w, K  [N, 4, 4] and [N, 3, 3] of the views, finite

    A point that fewer than two observations agree on, or whose rays meet at less than ``least_angle_deg``, is NaN
    and has no observations.
    """
    if not len(seen):
        return np.empty((0, 3)), np.zeros(0, bool)
    w2c = np.linalg.inv(c2w)[seen.view]
    lens = K[seen.view]
    rays = np.stack([(seen.pixel[:, k] - lens[:, k, 2]) / lens[:, k, k] for k in range(2)], axis=1)
    rows = rays[:, :, None] * w2c[:, None, 2] - w2c[:, :2]  # [M, 2, 4]
    products = np.einsum("mri,mrj->mij", rows, rows)
    starts = np.searchsorted(seen.track, np.arange(len(seen)))
    weights = np.ones(len(rays))
    for _ in range(ROUNDS):
        sums = np.add.reduceat(weights[:, None, None] * products, starts)
        homogeneous = np.linalg.eigh(sums)[1][..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            points = homogeneous[:, :3] / homogeneous[:, 3:]
        error, depth = reprojection(seen, points, c2w, K)
        # An algebraic error grows with depth; what lies behind a camera must still be able to come in front.
        scale = np.maximum(np.nan_to_num(np.abs(depth)), 1e-9)
        weights = 1 / np.square(scale) / (1 + np.square(np.nan_to_num(error, nan=1e6) / (most_error_px / 2)))
    keep = (error <= most_error_px) & (depth > 0)
    count = np.add.reduceat(keep.astype(np.int64), starts)
    good = (count >= 2) & (widest_angle(seen.chosen(keep), points, c2w) >= least_angle_deg)
    points[~good] = np.nan
    return points, keep & good[seen.track]


def reprojection(
    seen: Observations, points: FloatArray, c2w: FloatArray, K: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Error [M] in pixels, NaN behind the camera, and depth [M]."""
    offset = points[seen.track] - c2w[seen.view, :3, 3]
    local = np.einsum("mij,mi->mj", c2w[seen.view, :3, :3], offset)
    depth = local[:, 2]
    lens = K[seen.view]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shown = np.stack([local[:, k] / depth * lens[:, k, k] + lens[:, k, 2] for k in range(2)], axis=1)
        error = np.linalg.norm(shown - seen.pixel, axis=1)
    return np.where(depth > 0, error, np.nan), depth


def widest_angle(seen: Observations, points: FloatArray, c2w: FloatArray) -> FloatArray:
    """[len(points)] degrees between the ray farthest from a point's first one and the one farthest from that."""
    widest = np.zeros(len(points))
    if not len(seen.track):
        return widest
    offset = points[seen.track] - c2w[seen.view, :3, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        rays = offset / np.linalg.norm(offset, axis=1, keepdims=True)
    present, starts, which = np.unique(seen.track, return_index=True, return_inverse=True)
    far = starts
    cosine = np.ones(len(rays))
    for _ in range(2):
        cosine = np.nan_to_num((rays * rays[far][which]).sum(axis=1), nan=1.0)
        far = np.lexsort((cosine, seen.track))[starts]  # the smallest cosine of each point comes first
    widest[present] = np.degrees(np.arccos(np.clip(cosine[far], -1, 1)))
    return widest
