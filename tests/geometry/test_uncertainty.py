"""The stated uncertainty is what noise does: checked against repeated draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from threer.geometry.pnp import solve_pnp
from threer.geometry.uncertainty import pose_uncertainty

K = np.array([[500.0, 0, 319.5], [0, 510.0, 239.5], [0, 0, 1]])


def world(count: int, unit: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    c2w = np.eye(4)
    c2w[:3, :3] = Rotation.from_rotvec([0.3, -0.7, 0.2]).as_matrix()
    c2w[:3, 3] = unit * np.array([1.0, 2.0, -3.0])
    local = unit * np.stack(
        [rng.uniform(-1, 1, count), rng.uniform(-1, 1, count), rng.uniform(2, 6, count)], axis=1
    )
    pixels = local @ K.T
    return local @ c2w[:3, :3].T + c2w[:3, 3], pixels[:, :2] / pixels[:, 2:], c2w


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_it_is_what_repeated_draws_of_the_noise_give(unit: float) -> None:
    points, pixels, truth = world(60, unit)
    rng = np.random.default_rng(1)
    shifts, turns, told = [], [], []
    for _ in range(150):
        noisy = pixels + rng.normal(size=pixels.shape)
        found = solve_pnp(points, noisy, K, threshold=20)
        assert found is not None
        shifts.append(found.c2w[:3, 3] - truth[:3, 3])
        turns.append(Rotation.from_matrix(truth[:3, :3].T @ found.c2w[:3, :3]).magnitude())
        told.append(pose_uncertainty(points, noisy, K, found.c2w))
    observed = np.cov(np.array(shifts).T)
    claimed = np.mean([each.covariance[3:, 3:] for each in told], axis=0)
    np.testing.assert_allclose(np.sqrt(np.diag(claimed)), np.sqrt(np.diag(observed)), rtol=0.25)
    assert np.corrcoef(claimed.ravel(), observed.ravel())[0, 1] > 0.95
    sigma = np.sqrt(np.square(shifts).sum(axis=1).mean())
    assert np.mean([each.position_sigma for each in told]) == pytest.approx(sigma, rel=0.2)
    angle = np.degrees(np.sqrt(np.square(turns).mean()))
    assert np.mean([each.rotation_sigma_deg for each in told]) == pytest.approx(angle, rel=0.2)


def test_an_unknown_focal_length_makes_the_distance_less_sure() -> None:
    points, pixels, truth = world(60)
    noisy = pixels + np.random.default_rng(1).normal(size=pixels.shape)
    known = pose_uncertainty(points, noisy, K, truth)
    free = pose_uncertainty(points, noisy, K, truth, focal_known=False)
    assert free.position_sigma > 2 * known.position_sigma
    # Along the axis of the camera, above all.
    axis = truth[:3, 2]
    assert axis @ known.covariance[3:, 3:] @ axis < 0.7 * np.trace(known.covariance[3:, 3:])
    assert axis @ free.covariance[3:, 3:] @ axis > 0.8 * np.trace(free.covariance[3:, 3:])


def test_repeated_pixels_tell_nothing_new() -> None:
    points, pixels, truth = world(60)
    noisy = pixels + np.random.default_rng(1).normal(size=pixels.shape)
    once = pose_uncertainty(points, noisy, K, truth)
    often = pose_uncertainty(np.tile(points, (9, 1)), np.tile(noisy, (9, 1)), K, truth, independent=60)
    assert often.position_sigma == pytest.approx(once.position_sigma, rel=0.05)


def test_what_does_not_determine_a_camera_is_infinitely_unsure() -> None:
    points, pixels, truth = world(60)
    few = pose_uncertainty(points[:3], pixels[:3], K, truth)
    assert np.isinf([few.position_sigma, few.rotation_sigma_deg]).all()
    spot = pose_uncertainty(np.repeat(points[:1], 20, axis=0), np.repeat(pixels[:1] + 1, 20, axis=0), K, truth)
    assert np.isinf(spot.position_sigma)
    assert np.isinf(pose_uncertainty(points[:0], pixels[:0], K, truth).position_sigma)
