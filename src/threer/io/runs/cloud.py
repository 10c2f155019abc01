"""Fit a cloud of any length into a number of points, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from threer.io.ply import Cloud
from threer.io.runs.layout import StoredFrame

# Odd 64-bit numbers without structure: keys of two voxels coincide with a chance of 2⁻⁶⁴.
_KEY_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


def confident_points(frame: StoredFrame, keep: float, min_conf: float | None) -> Cloud:
    """The ``keep`` share of a frame's known points with the highest confidence (ties are kept), as a cloud."""
    known = (frame.conf > 0) & np.isfinite(frame.points).all(axis=-1)
    threshold = float(np.quantile(frame.conf[known], 1 - keep, method="lower")) if known.any() else 0.0
    if min_conf is not None:
        threshold = max(threshold, min_conf)
    chosen = known & (frame.conf >= threshold)
    return Cloud(frame.points[chosen], frame.colours[chosen], frame.conf[chosen])


def within_budget(clouds: Iterable[Cloud], max_points: int) -> Cloud:
    """All points if they are no more than ``max_points``, else the most confident one of each voxel.

    The voxel is the smallest that was needed. At most 2 · max_points and one more cloud are held at a time.
    """
    held = _empty()
    waiting: list[Cloud] = []
    voxel = 0.0
    for cloud in clouds:
        waiting.append(cloud)
        if len(held) + sum(map(len, waiting)) > 2 * max_points:
            held, voxel = _thin(_joined([held, *waiting]), voxel, max_points)
            waiting.clear()
    held = _joined([held, *waiting])
    # Once something was thinned, the late points must be thinned the same way.
    return _thin(held, voxel, max_points)[0] if voxel or len(held) > max_points else held


def _thin(cloud: Cloud, voxel: float, max_points: int) -> tuple[Cloud, float]:
    """At most ``max_points`` points, and the voxel size that was used; never less than ``voxel``."""
    assert cloud.conf is not None
    extent = float(np.ptp(cloud.xyz.astype(np.float64), axis=0).max())
    voxel = voxel or _first_voxel(cloud.xyz, max_points)
    while True:
        cloud = _best_per_voxel(cloud, voxel)
        if len(cloud) <= max_points:
            return cloud, voxel
        if voxel > extent:  # even the few voxels that meet in a corner are more than were asked for
            assert cloud.conf is not None
            return _take(cloud, np.argsort(-cloud.conf, kind="stable")[:max_points]), voxel
        # Clouds are surfaces, so the number of voxels falls with the square of their size.
        voxel *= max(1.1, math.sqrt(len(cloud) / max_points))


def _first_voxel(xyz: npt.NDArray[np.float32], max_points: int) -> float:
    """Small enough that a cloud which fills its box only with surfaces has more voxels than ``max_points``."""
    low, high = np.percentile(xyz[:: max(1, len(xyz) // 100_000)].astype(np.float64), [5, 95], axis=0)
    diagonal = float(np.linalg.norm(high - low))
    return max(diagonal / (2 * math.sqrt(max_points)), 1e-9)


def _best_per_voxel(cloud: Cloud, voxel: float) -> Cloud:
    assert cloud.conf is not None
    cells = np.floor(cloud.xyz.astype(np.float64) / voxel).clip(-(2.0**62), 2.0**62).astype(np.int64)
    keys = (cells.view(np.uint64) * _KEY_FACTORS).sum(axis=1, dtype=np.uint64)
    by_confidence = np.argsort(-cloud.conf, kind="stable")
    _, first = np.unique(keys[by_confidence], return_index=True)
    return _take(cloud, np.sort(by_confidence[first]))


def _take(cloud: Cloud, chosen: npt.NDArray[np.intp]) -> Cloud:
    assert cloud.conf is not None
    return Cloud(cloud.xyz[chosen], cloud.rgb[chosen], cloud.conf[chosen])


def _joined(clouds: list[Cloud]) -> Cloud:
    return Cloud(*(np.concatenate(parts) for parts in zip(*clouds, strict=True)))


def _empty() -> Cloud:
    return Cloud(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32))
