"""Answers that look at no image. A method that does not beat them has learned nothing."""

from __future__ import annotations

import numpy as np

from threer.types import FloatArray, Trajectory


def constant_depth(shape: tuple[int, ...]) -> FloatArray:
    """The same depth everywhere."""
    return np.ones(shape)


def straight_line(timestamps: FloatArray) -> Trajectory:
    """A camera that goes ahead at constant speed and never turns."""
    timestamps = np.asarray(timestamps, dtype=np.float64)
    c2w = np.tile(np.eye(4), (len(timestamps), 1, 1))
    c2w[:, 2, 3] = timestamps
    return Trajectory(timestamps, c2w)
