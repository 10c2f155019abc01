"""The pose between two photos: truth comes back, and what does not determine it is named."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from threer.geometry.epipolar import RelativePose, pose_from_matches, pose_from_pointmaps
from threer.types import FloatArray, Pointmap

K = np.array([[300.0, 0, 159.5], [0, 310.0, 119.5], [0, 0, 1]])


def second(shift: float = 0.5) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.05, -0.2, 0.1]).as_matrix()
    pose[:3, 3] = shift * np.array([1.0, 0.2, -0.1])
    return pose


def seen(
    points: FloatArray, pose: FloatArray, lens: FloatArray = K, distortion: FloatArray | None = None
) -> FloatArray:
    inverse = np.linalg.inv(pose)
    turn = cv2.Rodrigues(inverse[:3, :3])[0]
    return cv2.projectPoints(points, turn, inverse[:3, 3], lens, distortion)[0].reshape(-1, 2)


def cloud(count: int = 300, flat: bool = False) -> FloatArray:
    generator = np.random.default_rng(0)
    points = generator.uniform([-1.5, -1, 3], [1.5, 1, 6], (count, 3))
    if flat:
        points[:, 2] = 4 + 0.3 * points[:, 0]
    return points


def matched(pose: FloatArray, *, noise: float = 0.3, outliers: float = 0.2, flat: bool = False) -> RelativePose:
    points, generator = cloud(flat=flat), np.random.default_rng(1)
    a, b = seen(points, np.eye(4)), seen(points, pose)
    b += noise * generator.normal(size=b.shape)
    wrong = generator.random(len(b)) < outliers
    b[wrong] = generator.uniform(0, 240, (wrong.sum(), 2))
    return pose_from_matches(a, b, K, K)


def nothing(answer: RelativePose) -> bool:
    return bool(np.isnan(answer.c2w).all())


def test_matches_give_the_pose() -> None:
    answer, truth = matched(second()), second()
    assert (answer.status, answer.why) == ("found", "")
    turn = Rotation.from_matrix(answer.c2w[:3, :3].T @ truth[:3, :3]).magnitude()
    assert np.degrees(turn) < 0.3
    direction = truth[:3, 3] / np.linalg.norm(truth[:3, 3])
    assert np.degrees(np.arccos(direction @ answer.c2w[:3, 3])) < 1
    assert np.linalg.norm(answer.c2w[:3, 3]) == pytest.approx(1)
    assert 0.7 < answer.inliers.mean() < 0.85


def test_distortion_is_undone() -> None:
    bent, points = np.array([-0.3, 0.1, 0.002, -0.001, 0.0]), cloud()
    a, b = (seen(points, pose, K, bent) for pose in (np.eye(4), second()))
    answer = pose_from_matches(a, b, K, K, distortion_a=bent, distortion_b=bent)
    np.testing.assert_allclose(answer.c2w[:3, :3], second()[:3, :3], atol=1e-3)
    crooked = pose_from_matches(a, b, K, K)
    assert nothing(crooked) or np.abs(crooked.c2w[:3, :3] - second()[:3, :3]).max() > 3e-3


def test_a_pure_turn_is_ambiguous() -> None:
    answer = matched(second(0.0))
    assert answer.status == "ambiguous"
    assert "only turned" in answer.why
    assert nothing(answer)
    np.testing.assert_allclose(answer.rotation, second()[:3, :3], atol=5e-3)


def test_identical_pictures_are_ambiguous() -> None:
    answer = matched(np.eye(4), noise=0, outliers=0)
    assert answer.status == "ambiguous"
    assert nothing(answer)


def test_a_plane_is_ambiguous() -> None:
    answer = matched(second(), flat=True)
    assert answer.status == "ambiguous"
    assert "one plane" in answer.why
    assert nothing(answer)


def test_other_places_and_too_little_fail() -> None:
    generator = np.random.default_rng(2)
    answer = pose_from_matches(generator.uniform(0, 240, (200, 2)), generator.uniform(0, 240, (200, 2)), K, K)
    assert answer.status == "failed"
    assert nothing(answer)
    assert "agree on a motion" in answer.why or "in front" in answer.why
    few = pose_from_matches(np.zeros((5, 2)), np.zeros((5, 2)), K, K)
    assert (few.status, few.why) == ("failed", "5 matches are too few: it takes 8")
    lost = pose_from_matches(np.full((50, 2), np.nan), np.zeros((50, 2)), K, K)
    assert lost.status == "failed"
    with pytest.raises(ValueError, match=r"both be \[M, 2\]"):
        pose_from_matches(np.zeros((5, 2)), np.zeros((6, 2)), K, K)
    for broken in (np.zeros((3, 3)), K * np.nan):
        with pytest.raises(ValueError, match="K must be finite with positive focal lengths"):
            pose_from_matches(np.zeros((50, 2)), np.zeros((50, 2)), K, broken)


def maps(
    pose: FloatArray, scale: float = 2.0, noise: float = 0.01, outliers: float = 0.1
) -> tuple[Pointmap, Pointmap]:
    """The second photo's points in its own frame, and in the first's, which has units ``scale`` times as long."""
    v, u = np.meshgrid(np.linspace(-0.5, 0.5, 20), np.linspace(-0.6, 0.6, 30), indexing="ij")
    depth = 4 + np.sin(5 * u) + np.cos(4 * v)
    own = np.stack([u * depth, v * depth, depth], axis=-1)
    generator = np.random.default_rng(3)
    there = (own @ pose[:3, :3].T + pose[:3, 3]) * scale + noise * generator.normal(size=own.shape)
    wrong = generator.random(depth.shape) < outliers
    there[wrong] *= generator.uniform(0.3, 3, (wrong.sum(), 1))
    conf = torch.from_numpy(generator.uniform(2, 5, depth.shape))
    return Pointmap(torch.from_numpy(own), conf), Pointmap(torch.from_numpy(there), conf)


def test_pointmaps_give_pose_and_scale() -> None:
    answer = pose_from_pointmaps(*maps(second()))
    assert answer.status == "found"
    assert answer.scale == pytest.approx(2, rel=0.005)
    np.testing.assert_allclose(answer.c2w[:3, :3], second()[:3, :3], atol=3e-3)
    np.testing.assert_allclose(answer.c2w[:3, 3], 2 * second()[:3, 3], atol=0.02)


def test_pointmaps_of_one_place_are_ambiguous() -> None:
    answer = pose_from_pointmaps(*maps(second(0.0), noise=0.0, outliers=0))
    assert answer.status == "ambiguous"
    assert "one place" in answer.why
    assert nothing(answer)
    np.testing.assert_allclose(answer.rotation, second()[:3, :3], atol=1e-6)


def test_pointmaps_that_say_nothing_fail() -> None:
    own, there = maps(second())
    blank = pose_from_pointmaps(own, Pointmap(there.xyz, torch.zeros_like(there.conf)))
    assert (blank.status, blank.why) == ("failed", "only 0 pixels have points and confidence")
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    shuffled = Pointmap(there.xyz.reshape(-1, 3)[order].reshape(there.xyz.shape), there.conf)
    assert pose_from_pointmaps(own, shuffled).status == "failed"
    line = Pointmap(torch.ones(20, 30, 3) * torch.arange(30)[:, None], own.conf)
    assert pose_from_pointmaps(line, line).status == "failed"
