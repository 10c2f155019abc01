"""How well camera paths agree (Sturm et al. 2012): absolute and relative trajectory error after a similarity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from threer.errors import ThreerError
from threer.geometry.procrustes import align_points
from threer.geometry.transforms import rotation_angle
from threer.types import FloatArray, Sim3, Trajectory

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]
MAX_TIME_DIFFERENCE_S = 0.01


@dataclass(frozen=True)
class Coverage:
    """What became of the predicted frames: matched + missing + without_truth = frames."""

    frames: int
    matched: int
    missing: int
    without_truth: int

    @property
    def missing_share(self) -> float:
        """Share of frames whose camera was not found."""
        return self.missing / self.frames if self.frames else 0.0


@dataclass(frozen=True, eq=False)
class AteResult:
    """Absolute trajectory error, in the truth's unit (metres).

    path_length_m  of the true path through the matched frames
    share_of_path  rmse_m / path_length_m
    sim3           moves the prediction onto the truth
    """

    rmse_m: float
    median_m: float
    path_length_m: float
    share_of_path: float
    sim3: Sim3
    coverage: Coverage


@dataclass(frozen=True, eq=False)
class RpeResult:
    """Relative pose error over ``delta`` frames, after the alignment of `ate`; NaN where no pair is complete."""

    translation_rmse_m: float
    translation_median_m: float
    rotation_rmse_deg: float
    rotation_median_deg: float
    delta: int
    pairs: int
    coverage: Coverage


def associate(
    predicted: Trajectory, truth: Trajectory, max_difference_s: float = MAX_TIME_DIFFERENCE_S
) -> tuple[IndexArray, IndexArray]:
    """Pair frames by time: those that are each other's nearest and no further apart than allowed.

    Returns the indices into both trajectories, in the order of the prediction.
    """
    if len(predicted.timestamps) == 0 or len(truth.timestamps) == 0:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    to_truth = _nearest(predicted.timestamps, truth.timestamps)
    to_predicted = _nearest(truth.timestamps, predicted.timestamps)
    rows = np.arange(len(predicted.timestamps))
    near = np.abs(predicted.timestamps - truth.timestamps[to_truth]) <= max_difference_s
    mutual = near & (to_predicted[to_truth] == rows)
    return rows[mutual], to_truth[mutual]


def ate(predicted: Trajectory, truth: Trajectory, *, max_difference_s: float = MAX_TIME_DIFFERENCE_S) -> AteResult:
    """Absolute trajectory error: distances of camera centres after the best similarity.

    Frames without a camera (NaN) are counted in ``coverage``, never dropped in silence.
    Raises ThreerError where fewer than 3 frames match or the predicted camera never moves.
    """
    i, j, coverage = _match(predicted, truth, max_difference_s)
    sim3 = _alignment(predicted, truth, i, j)
    target = truth.positions[j]
    errors = np.linalg.norm(sim3.apply(predicted.positions[i]) - target, axis=1)
    length = float(np.linalg.norm(np.diff(target, axis=0), axis=1).sum())
    rmse = float(np.sqrt(np.square(errors).mean()))
    share = rmse / length if length > 0 else float("nan")
    return AteResult(rmse, float(np.median(errors)), length, share, sim3, coverage)


def rpe(
    predicted: Trajectory,
    truth: Trajectory,
    *,
    delta: int = 1,
    max_difference_s: float = MAX_TIME_DIFFERENCE_S,
) -> RpeResult:
    """Relative pose error over all pairs of predicted frames (k, k + delta) that both have a camera and a truth."""
    if delta < 1:
        raise ThreerError(f"delta must be at least 1 frame, got {delta}")
    i, j, coverage = _match(predicted, truth, max_difference_s)
    sim3 = _alignment(predicted, truth, i, j)
    n = len(predicted.timestamps)
    moved, target = np.full((n, 4, 4), np.nan), np.full((n, 4, 4), np.nan)
    moved[i], target[i] = sim3.apply_to_cameras(predicted.c2w[i]), truth.c2w[j]
    complete = _found(moved)
    starts: IndexArray = np.flatnonzero(complete[:-delta] & complete[delta:])
    if len(starts) == 0:
        nothing = float("nan")
        return RpeResult(nothing, nothing, nothing, nothing, delta, 0, coverage)
    true_step = np.linalg.inv(target[starts]) @ target[starts + delta]
    step = np.linalg.inv(moved[starts]) @ moved[starts + delta]
    error = np.linalg.inv(true_step) @ step
    distance = np.linalg.norm(error[:, :3, 3], axis=1)
    angle = np.degrees(
        rotation_angle(torch.eye(3, dtype=torch.float64), torch.from_numpy(error[:, :3, :3])).numpy()
    )
    return RpeResult(
        float(np.sqrt(np.square(distance).mean())),
        float(np.median(distance)),
        float(np.sqrt(np.square(angle).mean())),
        float(np.median(angle)),
        delta,
        len(starts),
        coverage,
    )


def _match(
    predicted: Trajectory, truth: Trajectory, max_difference_s: float
) -> tuple[IndexArray, IndexArray, Coverage]:
    found, known = _found(predicted.c2w), _found(truth.c2w)
    i, j = associate(predicted, truth, max_difference_s)
    both = found[i] & known[j]
    frames, missing, matched = len(found), int((~found).sum()), int(both.sum())
    return i[both], j[both], Coverage(frames, matched, missing, frames - missing - matched)


def _found(c2w: FloatArray) -> BoolArray:
    """[N, 4, 4] -> [N] which cameras are known."""
    return np.asarray(np.isfinite(c2w).all(axis=(1, 2)))


def _alignment(predicted: Trajectory, truth: Trajectory, i: IndexArray, j: IndexArray) -> Sim3:
    if len(i) < 3:
        raise ThreerError(
            f"only {len(i)} of {len(predicted.timestamps)} predicted cameras were found and have a true one at "
            "their time, need 3: check that both trajectories use the same clock"
        )
    # A straight path leaves the turn about itself open, which moves no camera centre: the error is defined.
    sim3 = align_points(predicted.positions[i], truth.positions[j], allow_line=True)
    if sim3 is None:
        raise ThreerError("one of the trajectories stands still, so that no scale fits: nothing to compare")
    return sim3


def _nearest(times: FloatArray, among: FloatArray) -> IndexArray:
    order = np.argsort(among, kind="stable")
    ranked = among[order]
    right = np.clip(np.searchsorted(ranked, times), 1, max(len(ranked) - 1, 1))
    right = np.minimum(right, len(ranked) - 1)
    left = np.maximum(right - 1, 0)
    nearer = np.where(np.abs(times - ranked[left]) <= np.abs(ranked[right] - times), left, right)
    return order[nearer]
