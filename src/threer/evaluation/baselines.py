"""Answers that look at no image. A method that does not beat them has learned nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from threer.errors import ThreerError
from threer.types import FloatArray, Trajectory


def constant_depth(shape: tuple[int, ...]) -> FloatArray:
    """The same depth everywhere."""
    return np.ones(shape)


def mean_pointmap(pointmaps: Iterable[FloatArray]) -> FloatArray:
    """The mean of pointmaps [V, H, W, 3], each divided by its mean distance from the origin; needs at least one."""
    total, count = np.zeros(()), 0
    for points in pointmaps:
        distance = float(np.linalg.norm(points, axis=-1).mean())
        total, count = total + points / max(distance, 1e-8), count + 1
    if count == 0:
        raise ThreerError("the mean of no pointmaps is undefined: give at least one")
    return total / count


def straight_line(timestamps: FloatArray) -> Trajectory:
    """A camera that goes ahead at constant speed and never turns."""
    timestamps = np.asarray(timestamps, dtype=np.float64)
    c2w = np.tile(np.eye(4), (len(timestamps), 1, 1))
    c2w[:, 2, 3] = timestamps
    return Trajectory(timestamps, c2w)
