import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from threer.geometry.procrustes import align_cameras, align_points
from threer.types import Sim3


def similarity(seed: int) -> Sim3:
    rng = np.random.default_rng(seed)
    return Sim3(float(rng.uniform(0.1, 10)), Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 40))
def test_any_similarity_is_recovered(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points, truth = rng.normal(size=(count, 3)), similarity(seed)
    found = align_points(points, truth.apply(points), rng.uniform(0.1, 1, size=count))
    assert found is not None
    assert found.scale == pytest.approx(truth.scale, rel=1e-6)
    assert np.allclose(found.R, truth.R, atol=1e-6)
    assert np.allclose(found.t, truth.t, atol=1e-5)


def test_a_mirrored_cloud_gives_a_rotation_still() -> None:
    points = np.random.default_rng(0).normal(size=(30, 3))
    found = align_points(points, points * [1.0, 1.0, -1.0])
    assert found is not None
    assert np.linalg.det(found.R) == pytest.approx(1.0)


def test_points_in_a_plane_are_enough() -> None:
    points = np.random.default_rng(0).normal(size=(30, 3)) * [1.0, 1.0, 0.0]
    truth = similarity(3)
    found = align_points(points, truth.apply(points))
    assert found is not None
    assert np.allclose(found.R, truth.R)


def test_weight_zero_and_values_not_finite_do_not_count() -> None:
    points, truth = np.random.default_rng(0).normal(size=(30, 3)), similarity(4)
    moved = truth.apply(points)
    moved[:5] += 100.0
    moved[5] = np.nan
    weights = np.ones(30)
    weights[:5] = 0.0
    found = align_points(points, moved, weights)
    assert found is not None
    assert np.allclose(found.t, truth.t)


def test_heavy_points_fit_better() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 3))
    moved = points + 0.1 * rng.normal(size=(30, 3))
    weights = np.ones(30)
    weights[:5] = 1e4
    even, heavy = align_points(points, moved), align_points(points, moved, weights)
    assert even is not None
    assert heavy is not None
    miss = [np.linalg.norm(found.apply(points[:5]) - moved[:5]) for found in (even, heavy)]
    assert miss[1] < miss[0]


def test_without_scale_the_scale_is_one() -> None:
    points = np.random.default_rng(0).normal(size=(30, 3))
    found = align_points(points, 5.0 * points, with_scale=False)
    assert found is not None
    assert found.scale == 1.0
    assert np.allclose(found.R, np.eye(3))


def test_what_does_not_determine_the_answer_has_none() -> None:
    rng = np.random.default_rng(0)
    line = rng.normal(size=(30, 1)) * np.array([1.0, 2.0, 3.0]) + 7.0
    for points in (
        rng.normal(size=(2, 3)),
        np.ones((10, 3)),
        line,
        line.astype(np.float32),
        np.full((9, 3), np.nan),
    ):
        assert align_points(points, points) is None
    assert align_points(np.ones((10, 3)), rng.normal(size=(10, 3)), allow_line=True) is None


def test_a_line_can_be_allowed_and_all_its_points_still_fit() -> None:
    line = np.linspace(0, 1, 20)[:, None] * np.array([1.0, 2.0, 3.0])
    truth = similarity(5)
    found = align_points(line, truth.apply(line), allow_line=True)
    assert found is not None
    assert np.allclose(found.apply(line), truth.apply(line))


def cameras(count: int) -> np.ndarray:
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.random(count, random_state=8).as_matrix()
    c2w[:, :3, 3] = np.random.default_rng(8).normal(size=(count, 3))
    return c2w


@pytest.mark.parametrize("count", [2, 3, 10])
def test_cameras_align_from_two_on(count: int) -> None:
    source, truth = cameras(count), similarity(6)
    found = align_cameras(source, truth.apply_to_cameras(source))
    assert found is not None
    assert found.scale == pytest.approx(truth.scale)
    assert np.allclose(found.apply_to_cameras(source), truth.apply_to_cameras(source))


def test_cameras_not_found_are_left_out() -> None:
    source, truth = cameras(6), similarity(7)
    target = truth.apply_to_cameras(source)
    source[1], target[4] = np.nan, np.nan
    found = align_cameras(source, target)
    assert found is not None
    assert found.scale == pytest.approx(truth.scale)
    source[2:] = np.nan
    assert align_cameras(source, target) is None


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="source and target"):
        align_points(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="weights must be"):
        align_points(np.zeros((4, 3)), np.zeros((4, 3)), np.ones(3))
