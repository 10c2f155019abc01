"""Which points of a run make up its cloud."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threer.io.ply import Cloud
from threer.io.runs import StoredFrame
from threer.io.runs.cloud import _best_per_voxel, confident_points, within_budget


def frame_with(conf: np.ndarray) -> StoredFrame:
    height, width = conf.shape
    points = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.ones_like(conf)], axis=-1)
    return StoredFrame(
        "a",
        0,
        0.0,
        points.astype(np.float32),
        conf.astype(np.float32),
        np.zeros((height, width, 3), np.uint8),
        np.eye(4),
        np.eye(3),
        np.array([width, height]),
        np.eye(3)[:2],
    )


def random_cloud(rng: np.random.Generator, count: int) -> Cloud:
    xyz = rng.uniform(-3, 3, (count, 3)).astype(np.float32)
    xyz[:, 2] = 0.3 * np.sin(xyz[:, 0])  # a surface
    conf = rng.integers(1, 40, count).astype(np.float32)  # with many ties
    return Cloud(xyz, rng.integers(0, 256, (count, 3), dtype=np.uint8), conf)


def test_keep_is_a_share_of_the_known_points() -> None:
    conf = np.arange(1, 101, dtype=float).reshape(10, 10)
    conf[0, :] = 0  # unknown: 90 points are left, 11 … 100
    for keep, lowest in ((1.0, 11), (0.5, 56), (0.1, 92)):
        assert confident_points(frame_with(conf), keep, None).conf.min() == lowest  # type: ignore[union-attr]
    assert confident_points(frame_with(conf), 0.5, 80).conf.min() == 80  # type: ignore[union-attr]
    assert confident_points(frame_with(conf), 0.5, 20).conf.min() == 56  # type: ignore[union-attr]
    # The share does not change when a model's confidences are all ten times as high.
    assert len(confident_points(frame_with(conf * 10), 0.5, None)) == len(
        confident_points(frame_with(conf), 0.5, None)
    )


def test_equal_confidences_are_not_cut_by_chance() -> None:
    assert len(confident_points(frame_with(np.full((4, 5), 2.0)), 0.3, None)) == 20
    assert len(confident_points(frame_with(np.zeros((4, 5))), 0.3, None)) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 400), voxel=st.floats(0.01, 10))
def test_best_per_voxel_by_brute_force(seed: int, count: int, voxel: float) -> None:
    cloud = random_cloud(np.random.default_rng(seed), count)
    assert cloud.conf is not None
    best: dict[tuple[int, ...], int] = {}
    for k, point in enumerate(cloud.xyz.astype(np.float64)):
        cell = tuple(np.floor(point / voxel).astype(int))
        if cell not in best or cloud.conf[k] > cloud.conf[best[cell]]:
            best[cell] = k
    thinned = _best_per_voxel(cloud, voxel)
    chosen = sorted(best.values())
    np.testing.assert_array_equal(thinned.xyz, cloud.xyz[chosen])
    np.testing.assert_array_equal(thinned.rgb, cloud.rgb[chosen])
    np.testing.assert_array_equal(thinned.conf, cloud.conf[chosen])


def test_a_cloud_within_the_budget_is_left_alone() -> None:
    parts = [random_cloud(np.random.default_rng(k), 50) for k in range(4)]
    whole = within_budget(iter(parts), 200)
    np.testing.assert_array_equal(whole.xyz, np.concatenate([part.xyz for part in parts]))
    assert len(within_budget([], 10)) == 0


@pytest.mark.parametrize("budget", [1, 7, 500, 5000])
def test_the_budget_is_kept_and_used(budget: int) -> None:
    parts = [random_cloud(np.random.default_rng(k), 1000) for k in range(20)]
    thinned = within_budget(iter(parts), budget)
    assert budget / 3 <= len(thinned) <= budget
    points = {tuple(point) for part in parts for point in part.xyz.tolist()}
    assert all(tuple(point) in points for point in thinned.xyz.tolist())
    again = within_budget(iter(parts), budget)
    np.testing.assert_array_equal(again.xyz, thinned.xyz)
    if budget >= 500:  # the confident ones were preferred, and the whole surface is covered
        everything = np.concatenate([part.conf for part in parts])  # type: ignore[arg-type]
        assert thinned.conf.mean() > everything.mean() + 5  # type: ignore[union-attr]
        assert (np.histogram2d(*thinned.xyz[:, :2].T, bins=4, range=[[-3, 3]] * 2)[0] > 0).all()


def test_late_points_are_thinned_like_early_ones() -> None:
    cloud = random_cloud(np.random.default_rng(0), 1000)
    late = Cloud(cloud.xyz[:50], cloud.rgb[:50], cloud.conf[:50])  # type: ignore[index]
    thinned = within_budget([cloud, cloud, cloud, late], 1000)
    assert len(np.unique(thinned.xyz, axis=0)) == len(thinned)


def test_voxels_that_meet_in_a_corner_are_thinned_too() -> None:
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), np.float32).reshape(3, -1).T
    cloud = Cloud(corners, np.zeros((8, 3), np.uint8), np.arange(1, 9, dtype=np.float32))
    assert sorted(within_budget([cloud], 3).conf.tolist()) == [6, 7, 8]  # type: ignore[union-attr]


def test_points_in_one_place_and_far_outliers() -> None:
    same = Cloud(np.ones((300, 3), np.float32), np.zeros((300, 3), np.uint8), np.arange(1, 301, dtype=np.float32))
    assert within_budget([same], 100).conf.tolist() == [300]  # type: ignore[union-attr]
    spread = random_cloud(np.random.default_rng(0), 3000)
    spread.xyz[:3] = [[1e30, 0, 0], [-1e30, 0, 0], [0, 3e38, 0]]
    assert 300 < len(within_budget([spread], 1000)) <= 1000


def test_memory_follows_the_budget_not_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    from threer.io.runs import cloud as module

    largest = []
    original = module._thin
    monkeypatch.setattr(module, "_thin", lambda held, *rest: largest.append(len(held)) or original(held, *rest))
    rng = np.random.default_rng(0)
    within_budget((random_cloud(rng, 400) for _ in range(100)), 1000)
    assert len(largest) > 10
    assert max(largest) <= 2 * 1000 + 400
