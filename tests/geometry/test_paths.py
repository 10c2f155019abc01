"""A way through cameras: through each of them, evenly turning, without detours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from threer.geometry.paths import interpolate_path


def cameras(angles: list[float], x: list[float]) -> np.ndarray:
    c2w = np.tile(np.eye(4), (len(x), 1, 1))
    c2w[:, :3, :3] = Rotation.from_euler("y", np.array(angles)[:, None], degrees=True).as_matrix()
    c2w[:, 0, 3] = x
    return c2w


def test_passes_through_every_camera() -> None:
    given = cameras([0, 40, 90, 100], [0, 1, 5, 6])
    path = interpolate_path(given, 31)
    np.testing.assert_allclose(path[::10], given, atol=1e-12)
    np.testing.assert_allclose(path[:, :3, :3] @ path[:, :3, :3].mT, np.tile(np.eye(3), (31, 1, 1)), atol=1e-12)


def test_turns_evenly_and_never_overshoots() -> None:
    path = interpolate_path(cameras([0, 60, 60], [0, 4, 4]), 9)
    angles = Rotation.from_matrix(path[:, :3, :3]).as_euler("yxz", degrees=True)[:, 0]
    np.testing.assert_allclose(angles, [0, 15, 30, 45, 60, 60, 60, 60, 60], atol=1e-9)
    assert (np.diff(path[:, 0, 3]) >= 0).all()
    assert path[:, 0, 3].max() == 4


def test_cameras_not_found_are_left_out() -> None:
    given = cameras([0, 0, 0], [0, 7, 2])
    given[1] = np.nan
    np.testing.assert_allclose(interpolate_path(given, 3)[:, 0, 3], [0, 1, 2], atol=1e-12)
    np.testing.assert_array_equal(interpolate_path(given[:2], 4), np.tile(given[0], (4, 1, 1)))
    with pytest.raises(ValueError, match="none was found"):
        interpolate_path(given[1:2], 4)
