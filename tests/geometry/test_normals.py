"""Normals of pointmaps and clouds, against planes and balls."""

import numpy as np
import pytest

from threer.geometry.normals import cloud_normals, pointmap_normals

K = np.array([[50.0, 0, 19.5], [0, 50, 14.5], [0, 0, 1]])


def plane(normal, distance=2.0, size=(30, 40)):
    """Pointmap of the plane ``normal`` · x = ``distance`` in front of the camera at the origin."""
    v, u = np.indices(size)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(size)], axis=-1)
    return rays * (distance / (rays @ normal))[..., None]


def test_every_pixel_of_a_plane_has_its_normal_towards_the_camera():
    normal = np.array([0.3, -0.2, 1.0]) / np.linalg.norm([0.3, -0.2, 1.0])
    found = pointmap_normals(plane(normal), np.eye(4))
    np.testing.assert_allclose(found, np.broadcast_to(-normal, found.shape), atol=1e-9)


def test_the_camera_moves_with_the_points():
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = turn, (5, 6, 7)
    normal = np.array([0.0, 0.6, 0.8])
    found = pointmap_normals(plane(normal) @ turn.T + c2w[:3, 3], c2w)
    np.testing.assert_allclose(found, np.broadcast_to(-turn @ normal, found.shape), atol=1e-9)


def test_no_normal_reaches_over_an_edge_or_into_the_unknown():
    points = plane(np.array([0.0, 0, 1]))
    points[:, 20:] *= 1.5  # a wall behind: depth jumps by half
    points[10, 5] = np.nan
    found = pointmap_normals(points, np.eye(4))
    known = np.isfinite(points).all(axis=-1)
    np.testing.assert_allclose(found[known], np.broadcast_to([0, 0, -1], found[known].shape), atol=1e-9)
    assert np.isnan(found[10, 5]).all()
    lonely = np.full((5, 5, 3), np.nan)
    lonely[2, 2] = 0, 0, 1
    assert np.isnan(pointmap_normals(lonely, np.eye(4))).all()


def test_a_ball_of_loose_points_has_normals_outwards():
    rng = np.random.default_rng(0)
    outwards = rng.normal(size=(3000, 3))
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    points = outwards + np.array([1, 2, 3])
    found = cloud_normals(points, points + outwards)
    assert np.degrees(np.arccos((found * outwards).sum(axis=1).clip(-1, 1))).max() < 8


def test_points_without_a_plane_have_no_normal():
    line = np.linspace(0, 1, 50)[:, None] * [1.0, 2, 3]
    assert np.isnan(cloud_normals(line, np.zeros(3))).all()
    few = np.array([[0.0, 0, 1], [1, 0, 1], [np.nan, 0, 0]])
    assert np.isnan(cloud_normals(few, np.zeros(3))).all()
    assert cloud_normals(np.empty((0, 3)), np.zeros(3)).shape == (0, 3)
    with pytest.raises(ValueError, match="at least 3"):
        cloud_normals(line, np.zeros(3), neighbours=2)
