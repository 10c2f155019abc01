"""Fit a cloud of any length into a number of points, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from threer.geometry.normals import pointmap_normals
from threer.io.ply import Cloud
from threer.io.runs.layout import StoredFrame

# Odd 64-bit numbers without structure, so that the products of neighbouring voxels spread over all bits.
_KEY_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


def confident_points(frame: StoredFrame, keep: float, min_conf: float | None, normals: bool = False) -> Cloud:
    """The ``keep`` share of a frame's known points with the highest confidence (ties are kept), as a cloud.

    With ``normals``, each has one that faces the frame's camera; NaN where none is known.
    """
    known = frame.conf > 0
    conf = frame.conf[known]
    dropped = len(conf) - max(1, round(keep * len(conf)))
    threshold = float(np.partition(conf, dropped)[dropped]) if len(conf) else 0.0
    if min_conf is not None:
        threshold = max(threshold, min_conf)
    chosen = known & (frame.conf >= threshold)
    facing = None
    if normals:
        points = np.where(known[..., None], frame.points, np.nan)
        facing = pointmap_normals(points, frame.c2w)[chosen].astype(np.float32)
    return Cloud(frame.points[chosen], frame.colours[chosen], frame.conf[chosen], facing)


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
    """The most confident point of each voxel (of equals the earliest), in the order given.

    One sort of single numbers does it: the upper bits are a hash of the voxel, the lower ones the point's place.
    Of two million points about one is lost to another voxel with the same hash.
    """
    assert cloud.conf is not None
    count = len(cloud)
    place_bits = np.uint64(max(1, (count - 1).bit_length()))
    packed = _voxel_hash(cloud.xyz, voxel) << place_bits | np.arange(count, dtype=np.uint64)
    packed.sort()
    hashes = packed >> place_bits
    places = (packed & ((np.uint64(1) << place_bits) - np.uint64(1))).astype(np.intp)

    first = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))  # of each voxel
    conf = cloud.conf[places]
    voxel_size = np.diff(first, append=count)
    is_best = conf == np.repeat(np.maximum.reduceat(conf, first), voxel_size)
    # Counting the best ones before each voxel gives the first best one in it.
    before = np.concatenate([[0], np.cumsum(is_best)])[first]
    return _take(cloud, np.sort(places[np.flatnonzero(is_best)[before]]))


def _voxel_hash(xyz: npt.NDArray[np.float32], voxel: float) -> npt.NDArray[np.uint64]:
    """A 64-bit number per point, mixed so that its low bits depend on all three coordinates."""
    mixed = np.zeros(len(xyz), np.uint64)
    for axis, factor in enumerate(_KEY_FACTORS):
        cells = np.floor(xyz[:, axis].astype(np.float64) / voxel).clip(-(2.0**62), 2.0**62).astype(np.int64)
        mixed += cells.view(np.uint64) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(_KEY_FACTORS[0])
    return mixed ^ mixed >> np.uint64(29)


def _take(cloud: Cloud, chosen: npt.NDArray[np.intp]) -> Cloud:
    assert cloud.conf is not None
    normals = None if cloud.normals is None else cloud.normals[chosen]
    return Cloud(cloud.xyz[chosen], cloud.rgb[chosen], cloud.conf[chosen], normals)


def _joined(clouds: list[Cloud]) -> Cloud:
    """Of clouds with confidence that all have normals, or none has; empty ones count as either."""
    full = [cloud for cloud in clouds if len(cloud)]
    if not full:
        return _empty()
    normals = [cloud.normals for cloud in full if cloud.normals is not None]
    return Cloud(
        np.concatenate([cloud.xyz for cloud in full]),
        np.concatenate([cloud.rgb for cloud in full]),
        np.concatenate([cloud.conf for cloud in full if cloud.conf is not None]),
        np.concatenate(normals) if normals else None,
    )


def _empty() -> Cloud:
    return Cloud(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32))
