"""Did it help? What adjusted cameras must show before they replace those they began from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation, Slerp

from threer.pipelines.refine.bundle import SIDE, Adjusted, same_world
from threer.pipelines.refine.observations import HeldBack, Observations
from threer.pipelines.refine.triangulation import reprojection, triangulate
from threer.types import FloatArray

FEWEST_OBSERVATIONS = 20
"""A camera with fewer follows its neighbours."""
MOST_FOLLOWING = 0.25
MOST_ERROR_PX = 1.5
"""Median of the observations that agree, in pictures of `SIDE`: good models have about 0.5."""
LEAST_AGREEING = 0.3
MOST_MOVED = 0.5
"""Root mean square way of the cameras, as a share of their spread."""
MOST_TURNED_DEG = 25.0
FEWEST_HELD_BACK = 30
LEAST_GAIN = 0.95
"""Of the error of matches that no track knows of, so much may be left."""
LOSS_PX = 4.0
START_ERROR_PX = 40.0


@dataclass(frozen=True)
class Verdict:
    """What was found. Errors are in pixels of the original pictures.

    accepted          whether the cameras are replaced; ``why`` not, in a line
    observations      that agree with the result, of ``offered``
    reprojection_px   median (before, after): of what agrees with each to 40 px
    held_back_px      mean robust distance of held-back matches from their epipolar lines (before, after)
    held_back         how many there are
    moved             root mean square way of the cameras as a share of their spread, after the best similarity
    turned_deg        median turn of the cameras
    following         frames with too few observations, which follow their neighbours
    focal_px          median (before, after)
    """

    accepted: bool
    why: str
    observations: int
    offered: int
    reprojection_px: tuple[float, float]
    held_back_px: tuple[float, float]
    held_back: int
    moved: float
    turned_deg: float
    following: int
    focal_px: tuple[float, float]


def judge(
    found: Adjusted,
    seen: Observations,
    held: HeldBack,
    c2w: FloatArray,
    K: FloatArray,
    *,
    side: float | None = None,
) -> Verdict:
    """Hold an adjustment of ``seen`` against the start ``c2w`` [N, 4, 4] and ``K`` [N, 3, 3].

    The errors of the observations themselves cannot tell: any cameras can be bent until those that are kept agree.
    Matches of points that took no part can.

    side  longer side of the pictures, or None for `SIDE`
    """
    unit = max(1.0, (side or SIDE) / SIDE)
    few = found.counts < FEWEST_OBSERVATIONS
    followed = follow(found.c2w, c2w, few)
    before = float(np.mean(robust_epipolar_error(held, c2w, K, LOSS_PX * unit))) if len(held) else np.nan
    after = float(np.mean(robust_epipolar_error(held, followed, found.K, LOSS_PX * unit))) if len(held) else np.nan
    error = float(np.median(found.error)) if len(found.error) else np.nan
    moved, turned = _moved(followed, c2w)
    agreeing = len(found.seen.track) / max(1, len(seen.track))
    why = ""
    if not len(seen):
        why = "no point is seen in two pictures"
    elif few.mean() > MOST_FOLLOWING:
        why = f"{few.sum()} of {len(few)} frames keep fewer than {FEWEST_OBSERVATIONS} points"
    elif agreeing < LEAST_AGREEING:
        why = f"only {agreeing:.0%} of the observations agree with one scene"
    elif not error <= MOST_ERROR_PX * unit:
        why = f"the error stays at {error:.2g} px"
    elif not np.isfinite(followed).all():
        why = "the adjustment came apart"
    elif not moved <= MOST_MOVED:
        why = f"the cameras would move by {moved:.0%} of their spread, which is another path"
    elif not turned <= MOST_TURNED_DEG:
        why = f"the cameras would turn by {turned:.0f}°, which is another path"
    elif len(held) < FEWEST_HELD_BACK:
        why = f"{len(held)} matches are too few to tell whether it helps: it takes {FEWEST_HELD_BACK}"
    elif not after <= LEAST_GAIN * before:
        why = f"matches that took no part fit no better: {before:.3g} px before, {after:.3g} px after"
    return Verdict(
        not why,
        why,
        len(found.seen.track),
        len(seen.track),
        (_start_error(seen, c2w, K, unit), error),
        (before, after),
        len(held),
        moved,
        turned,
        int(few.sum()),
        (float(np.median(K[:, 0, 0])), float(np.median(found.K[:, 0, 0]))),
    )


def follow(after: FloatArray, before: FloatArray, few: npt.NDArray[np.bool_]) -> FloatArray:
    """Cameras ``after`` [N, 4, 4]; those of ``few`` [N] keep their own motion, corrected as their neighbours are.

    A correction is the rigid motion in the camera's own frame from ``before``. Between two frames it is
    interpolated, beyond the first and last it stays.
    """
    sure = np.flatnonzero(~few)
    if not len(sure) or len(sure) == len(after):
        return after
    change = np.linalg.inv(before[sure]) @ after[sure]
    frames = np.clip(np.arange(len(after)), sure[0], sure[-1])
    between = np.tile(np.eye(4), (len(after), 1, 1))
    between[:, :3, 3] = np.stack([np.interp(frames, sure, change[:, k, 3]) for k in range(3)], axis=1)
    turns = Rotation.from_matrix(change[:, :3, :3])
    turned = Slerp(sure, turns)(frames) if len(sure) > 1 else turns[np.zeros(len(after), int)]
    between[:, :3, :3] = turned.as_matrix()
    out = before @ between
    out[sure] = after[sure]
    return np.asarray(out)


def robust_epipolar_error(held: HeldBack, c2w: FloatArray, K: FloatArray, scale: float) -> FloatArray:
    """[M] Sampson distance e in pixels, as ``scale`` · log(1 + e / scale), so that a wrong match counts little."""
    relative = np.linalg.inv(c2w[held.second]) @ c2w[held.first]
    R, t = relative[:, :3, :3], relative[:, :3, 3]
    cross = np.zeros((len(t), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = t[:, [0, 1, 2]]
    cross[:, [1, 2, 0], [2, 0, 1]] = -t[:, [0, 1, 2]]
    inverse = np.linalg.inv(K)
    F = np.swapaxes(inverse[held.second], 1, 2) @ cross @ R @ inverse[held.first]
    a, b = (np.concatenate([p, np.ones((len(p), 1))], axis=1) for p in (held.pixel_a, held.pixel_b))
    lines_b, lines_a = np.einsum("mij,mj->mi", F, a), np.einsum("mij,mi->mj", F, b)
    steep = np.square(lines_b[:, :2]).sum(axis=1) + np.square(lines_a[:, :2]).sum(axis=1)
    error = np.abs((b * lines_b).sum(axis=1)) / np.sqrt(np.maximum(steep, 1e-30))
    return np.asarray(scale * np.log1p(error / scale))


def _start_error(seen: Observations, c2w: FloatArray, K: FloatArray, unit: float) -> float:
    points, keep = triangulate(seen, c2w, K, most_error_px=START_ERROR_PX * unit, least_angle_deg=0.0)
    error = reprojection(seen.chosen(keep), points, c2w, K)[0]
    return float(np.median(error)) if len(error) else float("nan")


def _moved(after: FloatArray, before: FloatArray) -> tuple[float, float]:
    """Way as a share of the spread, and turn in degrees, after the best similarity."""
    if not np.isfinite(after).all():
        return float("inf"), float("inf")
    moved = same_world(after, before).apply_to_cameras(after)
    centres = before[:, :3, 3]
    spread = np.sqrt(np.square(centres - centres.mean(axis=0)).sum(axis=1).mean())
    way = np.sqrt(np.square(moved[:, :3, 3] - centres).sum(axis=1).mean())
    turn = Rotation.from_matrix(np.swapaxes(before[:, :3, :3], 1, 2) @ moved[:, :3, :3]).magnitude()
    return float(way / max(spread, 1e-12)), float(np.degrees(np.median(turn)))
