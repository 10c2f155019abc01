"""Is this the same place? Pairs of frames of a run that show one, and how far the run finds them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from threer.geometry.projection import invert_affine, transform_intrinsics
from threer.geometry.similarity_search import agreeing, find_similarity
from threer.io.runs.layout import StoredFrame
from threer.pipelines.refine.pose_graph import Edge, between
from threer.types import FloatArray, Sim3

NEAR = 0.05
"""Share of its depth to which a point must meet its counterpart."""
LEAST_SPREAD = 0.1
"""Standard deviation of the matched points across their main axis, as a share of their depth."""
INDEPENDENT = 5
"""So many points of a frame count as measured on their own, as errors of depth maps are alike over whole surfaces:
the errors of edges then have the spread that their covariances say."""
LEAST_ERROR = np.array([np.radians(0.3)] * 3 + [0.005] * 3 + [0.005])
"""Standard deviation that an edge has at least: rotation, translation in depths, log scale."""
RIVAL = 0.6
"""A second answer with this share of the first one's points makes a pair ambiguous."""
SAME_SURFACE = 0.15
"""Share of the depth to which surfaces of two frames must agree where both show them."""
STRIDE = 2
"""Of the pixels at which they are compared."""
LEAST_OVERLAP = 0.15
LEAST_ALIKE = 0.3
"""Correlation of the brightness of what both frames show."""
LEAST_LIKENESS = 0.25
"""Of two frames, in that of the median pair of neighbours: below it they are not compared."""
LOOKS = 16
"""Cameras between two frames that are asked whether the way led elsewhere."""
LEAST_GAIN = 0.8
"""Of the distance of held-back points, so much may be left."""
FAR = 5.0
"""Factor of scale beyond which a pair is chance."""
NEIGHBOURS = 10
"""Frames to either side in which another pair can confirm one."""
SAME_TURN_DEG, SAME_PLACE, SAME_SCALE = 8.0, 0.15, 0.15
"""To which neighbouring pairs must agree; places in depths."""


@dataclass(frozen=True)
class Limits:
    """What a loop needs.

    inliers    points that agree on one similarity
    share      of the matches, that they are
    agreement  share of the pixels both frames see whose depths agree
    support    neighbouring pairs that say the same
    """

    inliers: int = 25
    share: float = 0.5
    agreement: float = 0.6
    support: int = 1


@dataclass(frozen=True, eq=False)
class Loop:
    """Two frames that show one place.

    edge    between them, by their positions; the covariance is in the units of the run
    depth   [2] median depths of the matched points
    points  [M, 2, 3] the agreeing points of either frame, in its own camera
    """

    edge: Edge
    depth: tuple[float, float]
    points: FloatArray


def as_similarity(c2w: FloatArray) -> Sim3:
    """A camera-to-world pose [4, 4]."""
    return Sim3(1.0, np.asarray(c2w[:3, :3], np.float64), np.asarray(c2w[:3, 3], np.float64))


def left_meanwhile(
    first: StoredFrame, c2w: FloatArray, K: FloatArray, size: npt.NDArray[np.integer], least_share: float = 0.2
) -> bool:
    """Whether some camera of those between two frames saw less than ``least_share`` of the first one's points.

    c2w, K, size  [N, 4, 4], [N, 3, 3] and [N, 2] (W, H) of the cameras between; those not found are left out

    Otherwise the later frame is no return: the chain of frames in between never lost what both show.
    """
    points = first.points[(first.conf > 0) & np.isfinite(first.points).all(axis=-1)].astype(np.float64)
    points = points[:: max(1, len(points) // 200)]
    for pose, lens, wide in zip(c2w, K, size, strict=True):
        if not np.isfinite(pose).all() or not len(points):
            continue
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixel = local[:, :2] / local[:, 2:] * lens[[0, 1], [0, 1]] + lens[:2, 2]
            seen = (local[:, 2] > 0) & (pixel >= -0.5).all(axis=1) & (pixel <= wide - 0.5).all(axis=1)
        if seen.mean() < least_share:
            return True
    return False


def verify(
    positions: tuple[int, int],
    frames: tuple[StoredFrame, StoredFrame],
    points: tuple[FloatArray, FloatArray],
    limits: Limits,
    *,
    seed: int = 0,
) -> Loop | str:
    """The similarity between the cameras of two frames as their own points measure it, or why there is none.

    points  [M, 3] each: world points of either frame at pixels that features match

    Enough of them must agree on one similarity and lie in more than a line, no other similarity may explain nearly
    as many, and all that both frames show must agree in depth and look alike: a poster that hangs in two rooms
    passes everything but that.
    """
    known = np.isfinite(points[0]).all(axis=1) & np.isfinite(points[1]).all(axis=1)
    poses = [as_similarity(frame.c2w) for frame in frames]
    here, there = (pose.inverse().apply(p[known]) for pose, p in zip(poses, points, strict=True))
    front = (here[:, 2] > 0) & (there[:, 2] > 0)
    here, there = here[front], there[front]
    if len(here) < limits.inliers:
        return f"{len(here)} matches with known points are too few: it takes {limits.inliers}"
    tolerance = NEAR * here[:, 2]
    found = find_similarity(there, here, tolerance, seed=seed)
    if found is None:
        return "the matched points lie on a line"
    relative, inliers = found
    if inliers.sum() < limits.inliers or inliers.mean() < limits.share:
        return f"only {inliers.sum()} of {len(here)} matched points agree"
    if not 1 / FAR < relative.scale < FAR:
        return f"the scale would change {relative.scale:.2g} times"
    depth = float(np.median(here[inliers, 2])), float(np.median(there[inliers, 2]))
    spread = np.linalg.svd(here[inliers] - here[inliers].mean(axis=0), compute_uv=False) / np.sqrt(inliers.sum())
    if spread[1] < LEAST_SPREAD * depth[0]:
        return "the matched points lie too close together to tell"
    rival = find_similarity(there[~inliers], here[~inliers], tolerance[~inliers], seed=seed)
    if rival is not None:
        count = int(agreeing(rival[0], there, here, tolerance).sum())
        if count >= RIVAL * inliers.sum() and _apart(rival[0], relative, depth):
            return f"ambiguous: {inliers.sum()} matches say one thing, {count} another"
    for a, b, sim3 in ((*frames, relative), (*frames[::-1], relative.inverse())):
        why = _contradiction(a, b, sim3, limits.agreement)
        if why:
            return why
    covariance = _covariance(relative, there[inliers], here[inliers], depth)
    edge = Edge(*positions, relative, covariance)
    return Loop(edge, depth, np.stack([here[inliers], there[inliers]], axis=1))


def without_support(loops: list[Loop], poses: Mapping[int, Sim3], least: int) -> list[int]:
    """The loops, by their number, that fewer than ``least`` neighbouring ones confirm.

    poses  of cameras to the world, which are right over a few frames, however far they drift over many
    """
    alone = []
    for number, loop in enumerate(loops):
        first, second = loop.edge.first, loop.edge.second
        confirming = 0
        for other in loops:
            a, b = other.edge.first, other.edge.second
            if other is loop or max(abs(a - first), abs(b - second)) > NEIGHBOURS:
                continue
            implied = (
                between(poses[first], poses[a]).after(other.edge.relative).after(between(poses[b], poses[second]))
            )
            confirming += not _apart(implied, loop.edge.relative, loop.depth)
        if confirming < least:
            alone.append(number)
    return alone


def misfit(loops: list[Loop], poses: dict[int, Sim3]) -> float:
    """Median distance of matched points in the world, as a share of their depth; NaN without loops.

    poses  of cameras to the world, with the scale that their points have in it
    """
    apart = []
    for loop in loops:
        a, b = poses[loop.edge.first], poses[loop.edge.second]
        here, there = a.apply(loop.points[:, 0]), b.apply(loop.points[:, 1])
        apart.append(np.linalg.norm(here - there, axis=1) / (a.scale * loop.points[:, 0, 2]))
    return float(np.median(np.concatenate(apart))) if apart else float("nan")


def split(loop: Loop) -> tuple[Loop, Loop]:
    """The same loop with three quarters of its points, and with the others, which no edge knows of."""
    number = np.arange(len(loop.points)) % 4
    kept, held = loop.points[number > 0], loop.points[number == 0]
    tolerance = NEAR * kept[:, 0, 2]
    found = find_similarity(kept[:, 1], kept[:, 0], tolerance)
    if found is None:
        return loop, replace(loop, points=held)
    relative, inliers = found
    covariance = _covariance(relative, kept[inliers, 1], kept[inliers, 0], loop.depth)
    edge = Edge(loop.edge.first, loop.edge.second, relative, covariance)
    return Loop(edge, loop.depth, kept), replace(loop, points=held)


def _apart(one: Sim3, other: Sim3, depth: tuple[float, float]) -> bool:
    """Whether two similarities differ by more than drift over some frames and noise explain."""
    change = one.inverse().after(other)
    turn = np.degrees(np.arccos(np.clip((np.trace(change.R) - 1) / 2, -1, 1)))
    far = float(np.linalg.norm(change.t)) > SAME_PLACE * depth[1]
    return bool(turn > SAME_TURN_DEG or far or abs(np.log(change.scale)) > SAME_SCALE)


def _contradiction(into: StoredFrame, from_: StoredFrame, relative: Sim3, least: float) -> str:
    """What is wrong with showing the points of one frame in the other; empty if nothing is.

    Points behind what the other frame shows are hidden there and say nothing, as long as they are few.
    """
    K = transform_intrinsics(into.K, invert_affine(into.to_original))
    height, width = into.conf.shape
    part = (slice(None, None, STRIDE), slice(None, None, STRIDE))
    known = (from_.conf[part] > 0) & np.isfinite(from_.points[part]).all(axis=-1)
    points = from_.points[part][known].astype(np.float64)
    local = relative.apply(as_similarity(from_.c2w).inverse().apply(points))
    with np.errstate(divide="ignore", invalid="ignore"):
        pixel = np.round(local[:, :2] / local[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2])
    inside = (local[:, 2] > 0) & (pixel >= 0).all(axis=1) & (pixel < (width, height)).all(axis=1)
    if inside.sum() < LEAST_OVERLAP * max(1, len(points)):
        return f"only {inside.sum() / max(1, len(points)):.0%} of one picture would lie in the other"
    column, row = pixel[inside].astype(np.int64).T
    depth = as_similarity(into.c2w).inverse().apply(into.points[row, column].astype(np.float64))[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(np.log(local[inside, 2] / np.where(into.conf[row, column] > 0, depth, np.nan)))
    both = np.isfinite(off)
    agree = both & (off <= SAME_SURFACE)
    if not both.any() or agree.sum() < least * both.sum():
        return f"only {agree.sum() / max(1, both.sum()):.0%} of what both show has the same depth"
    mine = into.colours[row, column].astype(np.float64).mean(axis=1)[agree]
    theirs = from_.colours[part][known][inside].astype(np.float64).mean(axis=1)[agree]
    spread = mine.std() * theirs.std()
    alike = float(np.mean((mine - mine.mean()) * (theirs - theirs.mean())) / spread) if spread > 0 else 0.0
    return "" if alike >= LEAST_ALIKE else f"what both show looks different (correlation {alike:.2f})"


def _covariance(relative: Sim3, there: FloatArray, here: FloatArray, depth: tuple[float, float]) -> FloatArray:
    """[7, 7] of the error of ``relative`` in the coordinates of ``there``, from how well the points meet."""
    share = np.linalg.norm(relative.apply(there) - here, axis=1) / here[:, 2]
    sigma = max(float(np.sqrt(np.mean(np.square(share)) / 3)), 1e-3)
    x, y, z = there.T
    zero, one = np.zeros(len(there)), np.ones(len(there))
    rows = np.stack(
        [
            np.stack([zero, z, -y, one, zero, zero, x], axis=1),
            np.stack([-z, zero, x, zero, one, zero, y], axis=1),
            np.stack([y, -x, zero, zero, zero, one, z], axis=1),
        ]
    )  # [3, M, 7] change of a point with rotation, translation and log scale
    rows = rows * (relative.scale / (sigma * here[:, 2]))[:, None]
    information = np.einsum("kmi,kmj->ij", rows, rows) * min(1.0, INDEPENDENT / len(there))
    least = LEAST_ERROR * np.array([1, 1, 1, depth[1], depth[1], depth[1], 1])
    return np.asarray(np.linalg.inv(information) + np.diag(np.square(least)))
