"""Depth, pointmaps, clouds and the baselines."""

import numpy as np
import pytest

from threer.errors import ThreerError
from threer.evaluation.baselines import constant_depth, straight_line
from threer.evaluation.clouds import cloud_errors
from threer.evaluation.depth import depth_errors
from threer.evaluation.pointmaps import pointmap_error

RNG = np.random.default_rng(0)
AHEAD = np.array([0.0, 0.0, 3.0])
TRUTH = RNG.uniform(1, 4, size=(2, 30, 40))


@pytest.mark.parametrize("align", ["median", "scale"])
def test_another_unit_is_no_error(align: str) -> None:
    result = depth_errors(TRUTH / 7, TRUTH, align=align)
    assert result.abs_rel == pytest.approx(0, abs=1e-9)
    assert result.delta_1_25 == 1.0
    assert result.scale == pytest.approx(7)


def test_without_alignment_the_unit_counts() -> None:
    result = depth_errors(1.3 * TRUTH, TRUTH, align="none")
    assert result.abs_rel == pytest.approx(0.3)
    assert result.delta_1_25 == 0.0
    assert result.scale == 1.0


def test_pixels_without_truth_do_not_count_and_without_prediction_do() -> None:
    truth, predicted = TRUTH.copy(), TRUTH.copy()
    truth[0, :10] = 0.0
    truth[0, 10] = np.nan
    predicted[1, :15] = np.nan
    result = depth_errors(predicted, truth, align="median")
    assert result.pixels == 2 * 30 * 40 - 11 * 40
    assert result.missing_share == pytest.approx(15 * 40 / result.pixels)
    assert result.delta_1_25 == pytest.approx(1 - result.missing_share)
    assert result.abs_rel == pytest.approx(0, abs=1e-9)


def test_mask_counts_but_does_not_fit() -> None:
    predicted = TRUTH.copy()
    predicted[0] *= 1.1
    mask = np.zeros(TRUTH.shape, dtype=bool)
    mask[0] = True
    result = depth_errors(predicted, TRUTH, mask, align="none")
    assert result.abs_rel == pytest.approx(0.1)
    assert result.pixels == 1200


def test_depth_says_what_is_missing() -> None:
    with pytest.raises(ThreerError, match="no pixel has both"):
        depth_errors(np.full_like(TRUTH, np.nan), TRUTH)
    with pytest.raises(ThreerError, match="mask leaves no pixel"):
        depth_errors(TRUTH, TRUTH, np.zeros(TRUTH.shape, dtype=bool))
    with pytest.raises(ThreerError, match="not positive"):
        depth_errors(-TRUTH, TRUTH)
    with pytest.raises(ValueError, match="one shape"):
        depth_errors(TRUTH[0], TRUTH)


def test_constant_depth_is_a_poor_prediction() -> None:
    assert depth_errors(constant_depth(TRUTH.shape), TRUTH).abs_rel > 0.2


def test_clouds_a_known_distance_apart() -> None:
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20), [0]), axis=-1).reshape(-1, 3).astype(float)
    result = cloud_errors(grid + np.array([0.0, 0.0, 0.3]), grid, thresholds_m=(0.2, 0.4))
    assert result.accuracy_m == pytest.approx(0.3)
    assert result.completeness_median_m == pytest.approx(0.3)
    assert result.chamfer_m == pytest.approx(0.3)
    assert result.f_score[0.2] == pytest.approx(0)
    assert result.f_score[0.4] == pytest.approx(1)


def test_what_is_missing_costs_completeness_only() -> None:
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20), [0]), axis=-1).reshape(-1, 3).astype(float)
    half = grid[grid[:, 0] < 10]
    result = cloud_errors(half, grid, thresholds_m=(0.5,))
    assert result.accuracy_m == 0
    assert result.completeness_m == pytest.approx(np.maximum(np.arange(20) - 9, 0).mean())
    assert result.f_score[0.5] == pytest.approx(2 * 0.5 / 1.5)
    swapped = cloud_errors(grid, half, thresholds_m=(0.5,))
    assert swapped.completeness_m == 0
    assert swapped.accuracy_m == result.completeness_m


def test_large_clouds_are_thinned_the_same_way_each_time() -> None:
    cloud = RNG.normal(size=(5000, 3))
    first, again = (cloud_errors(cloud, cloud[:3000], max_points=1000, seed=3) for _ in range(2))
    assert first == again
    assert first.points == (1000, 1000)


def test_clouds_say_what_is_wrong() -> None:
    cloud = RNG.normal(size=(10, 3))
    with pytest.raises(ThreerError, match="predicted cloud is empty"):
        cloud_errors(np.empty((0, 3)), cloud)
    with pytest.raises(ThreerError, match="true cloud has points that are not finite"):
        cloud_errors(cloud, np.full((3, 3), np.nan))


def test_pointmaps_compare_after_each_is_scaled() -> None:
    truth = RNG.normal(size=(3, 8, 9, 3)) + AHEAD
    assert pointmap_error(5 * truth, truth).error == pytest.approx(0)
    assert pointmap_error(5 * truth, truth).predicted_scale == pytest.approx(
        5 * np.linalg.norm(truth, axis=-1).mean()
    )
    assert pointmap_error(-truth, truth).error == pytest.approx(2)


def test_pointmaps_count_only_what_has_a_truth() -> None:
    truth = RNG.normal(size=(3, 8, 9, 3)) + AHEAD
    predicted = truth.copy()
    predicted[1] = 77.0
    mask = np.ones((3, 8, 9), dtype=bool)
    mask[1] = False
    assert pointmap_error(predicted, truth, mask).error == pytest.approx(0)
    assert pointmap_error(predicted, truth).error > 0.5
    truth[1] = np.nan
    assert pointmap_error(predicted, truth).points == 2 * 8 * 9
    with pytest.raises(ThreerError, match="no point of the window"):
        pointmap_error(predicted, truth, np.zeros_like(mask))
    with pytest.raises(ThreerError, match="not finite"):
        pointmap_error(np.full_like(truth, np.nan), predicted)


def test_straight_line_goes_ahead_at_constant_speed() -> None:
    line = straight_line(np.array([1.0, 2.0, 4.0]))
    assert line.positions[:, 2].tolist() == [1.0, 2.0, 4.0]
    assert np.array_equal(line.c2w[:, :3, :3], np.tile(np.eye(3), (3, 1, 1)))
