"""Ways of a camera through space."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

from threer.types import FloatArray


def interpolate_path(c2w: FloatArray, count: int) -> FloatArray:
    """``count`` cameras [count, 4, 4] evenly spread, in number, along the way through ``c2w`` [N, 4, 4].

    The way begins at the first camera and ends at the last one. Centres run along a smooth curve that does not
    overshoot, turns are even between two cameras. Cameras not found (NaN) are left out; a single one stands still.
    Raises ValueError if none is found.
    """
    found = np.asarray(c2w, dtype=np.float64)[np.isfinite(c2w).all(axis=(1, 2))]
    if not len(found):
        raise ValueError("no camera to go along: none was found")
    if len(found) == 1:
        return np.tile(found, (count, 1, 1))
    stations = np.arange(len(found))
    times = np.linspace(0, len(found) - 1, count)
    path = np.tile(np.eye(4), (count, 1, 1))
    path[:, :3, :3] = Slerp(stations, Rotation.from_matrix(found[:, :3, :3]))(times).as_matrix()
    path[:, :3, 3] = PchipInterpolator(stations, found[:, :3, 3])(times)
    return path
