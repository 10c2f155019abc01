import numpy as np
import pytest
from evo.core import metrics
from evo.core.trajectory import PoseTrajectory3D
from scipy.spatial.transform import Rotation

from threer.errors import ThreerError
from threer.evaluation.baselines import straight_line
from threer.evaluation.trajectory import associate, ate, rpe
from threer.types import Sim3, Trajectory


def walk(count: int = 60, seed: int = 0) -> Trajectory:
    """A smooth path with turns, at 10 Hz."""
    rng = np.random.default_rng(seed)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.from_rotvec(np.cumsum(0.05 * rng.normal(size=(count, 3)), axis=0)).as_matrix()
    c2w[:, :3, 3] = np.cumsum(0.1 * rng.normal(size=(count, 3)), axis=0)
    return Trajectory(np.arange(count) / 10, c2w)


def disturbed(truth: Trajectory, noise: float = 0.02) -> Trajectory:
    """The same path in another frame and unit, with errors."""
    rng = np.random.default_rng(1)
    other = Sim3(0.3, Rotation.random(random_state=1).as_matrix(), np.array([1.0, 2.0, 3.0]))
    c2w = other.apply_to_cameras(truth.c2w)
    c2w[:, :3, :3] = c2w[:, :3, :3] @ Rotation.from_rotvec(noise * rng.normal(size=(len(c2w), 3))).as_matrix()
    c2w[:, :3, 3] += noise * rng.normal(size=(len(c2w), 3))
    return Trajectory(truth.timestamps.copy(), c2w)


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_those_of_evo(seed: int) -> None:
    truth = walk(seed=seed)
    predicted = disturbed(truth)
    theirs = PoseTrajectory3D(poses_se3=list(predicted.c2w), timestamps=predicted.timestamps)
    reference = PoseTrajectory3D(poses_se3=list(truth.c2w), timestamps=truth.timestamps)
    theirs.align(reference, correct_scale=True)

    absolute = metrics.APE(metrics.PoseRelation.translation_part)
    absolute.process_data((reference, theirs))
    mine = ate(predicted, truth)
    assert mine.rmse_m == pytest.approx(absolute.get_statistic(metrics.StatisticsType.rmse))
    assert mine.median_m == pytest.approx(absolute.get_statistic(metrics.StatisticsType.median))
    assert mine.path_length_m == pytest.approx(reference.path_length)

    mine_relative = rpe(predicted, truth, delta=3)
    for relation, value in (
        (metrics.PoseRelation.translation_part, mine_relative.translation_rmse_m),
        (metrics.PoseRelation.rotation_angle_deg, mine_relative.rotation_rmse_deg),
    ):
        relative = metrics.RPE(relation, delta=3, delta_unit=metrics.Unit.frames, all_pairs=True)
        relative.process_data((reference, theirs))
        assert value == pytest.approx(relative.get_statistic(metrics.StatisticsType.rmse))


def test_a_moved_and_scaled_path_has_no_error() -> None:
    truth = walk()
    result = ate(disturbed(truth, noise=0.0), truth)
    assert result.rmse_m < 1e-9
    assert result.sim3.scale == pytest.approx(1 / 0.3)
    assert rpe(disturbed(truth, noise=0.0), truth).rotation_rmse_deg < 1e-5


def test_missing_cameras_are_counted() -> None:
    truth = walk(20)
    predicted = disturbed(truth)
    predicted.c2w[[3, 4, 11]] = np.nan
    predicted.timestamps[15] += 0.05  # between two true ones
    result = ate(predicted, truth)
    assert result.coverage.frames == 20
    assert result.coverage.missing == 3
    assert result.coverage.without_truth == 1
    assert result.coverage.matched == 16
    assert result.coverage.missing_share == pytest.approx(0.15)
    relative = rpe(predicted, truth)
    assert relative.pairs == 19 - 3 - 2 - 2
    assert relative.coverage.missing == 3


def test_error_of_one_frame_shows_in_its_size() -> None:
    truth = walk(50)
    predicted = Trajectory(truth.timestamps, truth.c2w.copy())
    predicted.c2w[:25, :3, 3] += [0.1, 0.0, 0.0]
    result = ate(predicted, truth)
    assert 0.01 < result.rmse_m <= 0.05 + 1e-9
    assert result.share_of_path == pytest.approx(result.rmse_m / result.path_length_m)


def test_frames_pair_with_their_nearest_once() -> None:
    predicted = Trajectory(np.array([0.0, 0.101, 0.109, 0.5]), np.tile(np.eye(4), (4, 1, 1)))
    truth = Trajectory(np.array([0.3, 0.1, 0.001]), np.tile(np.eye(4), (3, 1, 1)))  # order does not matter
    i, j = associate(predicted, truth)
    assert list(zip(i, j, strict=True)) == [(0, 2), (1, 1)]
    none = Trajectory(np.empty(0), np.empty((0, 4, 4)))
    assert len(associate(none, truth)[0]) == len(associate(truth, none)[0]) == 0


def test_one_true_frame_can_be_paired() -> None:
    one = Trajectory(np.array([0.1]), np.eye(4)[None])
    i, j = associate(walk(5), one)
    assert (i.tolist(), j.tolist()) == ([1], [0])


def test_straight_line_baseline_has_an_error_and_a_standstill_has_none() -> None:
    truth = walk()
    result = ate(straight_line(truth.timestamps), truth)
    assert 0.02 < result.share_of_path < 0.2
    still = Trajectory(truth.timestamps, np.tile(np.eye(4), (60, 1, 1)))
    with pytest.raises(ThreerError, match="stands still"):
        ate(still, truth)


def test_too_few_matches_say_why() -> None:
    truth = walk()
    late = Trajectory(truth.timestamps + 1000, truth.c2w)
    with pytest.raises(ThreerError, match=r"only 0 of 60 .* same clock"):
        ate(late, truth)
    with pytest.raises(ThreerError, match="delta must be"):
        rpe(truth, truth, delta=0)


def test_no_complete_pair_is_nan() -> None:
    truth = walk(9)
    predicted = disturbed(truth)
    predicted.c2w[1::2] = np.nan
    result = rpe(predicted, truth)
    assert result.pairs == 0
    assert np.isnan(result.translation_rmse_m)
