"""How large a reconstruction really is: from a known distance, or from a known way of the camera."""

from __future__ import annotations

import math

import numpy as np

from threer.errors import ReconstructionError, ThreerError
from threer.geometry.procrustes import align_points
from threer.geometry.projection import invert_affine
from threer.io.intrinsics import without_distortion
from threer.io.runs import Scene
from threer.io.runs.placing import Placement
from threer.types import FloatArray, Sim3, Trajectory

FARTHEST_IN_TIME = 0.02
"""Seconds between a frame and the pose that is taken for it."""
LARGEST_MISFIT = 0.5
"""A path that lies further beside the true one than this share of its spread is another one."""
COARSEST = 1e-3
"""Points are in single precision: its step at the path may be this share of the path's spread."""
SAME_SURFACE = 0.05
"""Points around a pixel whose depths differ by no more than this share belong together."""

Mark = tuple[int, float, float]
"""A point seen in a picture: (index of the frame in the source, u, v in pixels of the original picture)."""


def from_distance(scene: Scene, first: Mark, second: Mark, metres: float) -> Placement:
    """The scale at which two points seen in pictures are ``metres`` apart; nothing is turned or moved.

    Raises ThreerError for a distance that is none, for marks outside the run, or where no point is known.
    """
    if not 0 < metres < math.inf:
        raise ThreerError(f"the distance must be positive, got {metres} m")
    a, b = marked_point(scene, first), marked_point(scene, second)
    apart = float(np.linalg.norm(a - b))
    if not apart > 1e-6 * max(float(np.abs(a).max()), float(np.abs(b).max())):
        raise ThreerError(f"{_shown(first)} and {_shown(second)} are the same point: mark two that are apart")
    source = f"{metres:g} m between {_shown(first)} and {_shown(second)}, which were {apart:.6g} apart"
    return Placement(Sim3(metres / apart, np.eye(3), np.zeros(3)), source)


def marked_point(scene: Scene, mark: Mark) -> FloatArray:
    """The world point [3] at a pixel of an original picture; between pixels of one surface it is interpolated.

    Raises ThreerError where the frame is not in the run, the pixel not in what the network saw, or no point known.
    """
    index, u, v = mark
    places = np.flatnonzero(scene.table.indices == index)
    if not len(places):
        known = f"{scene.table.indices.min()} to {scene.table.indices.max()}" if len(scene) else "none"
        raise ThreerError(f"{scene.path} has no frame {index}; there are: {known}")
    position = int(places[0])
    frame, cameras = scene.frame(position), scene.cameras
    pixel = np.array([u, v])
    if cameras.distortion is not None:
        pixel = without_distortion(pixel, cameras.K[position], cameras.distortion[position], cameras.fisheye)
    x, y = invert_affine(frame.to_original) @ np.append(pixel, 1)
    height, width = frame.conf.shape
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        low, high = frame.to_original @ [[-0.5, width - 0.5], [-0.5, height - 0.5], [1, 1]]
        raise ThreerError(
            f"{_shown(mark)} is outside of what was reconstructed of that picture: u from {low[0]:.1f} to "
            f"{low[1]:.1f}, v from {high[0]:.1f} to {high[1]:.1f}"
        )
    points = np.where((frame.conf > 0)[..., None], frame.points, np.nan).astype(np.float64)
    nearest = points[min(max(round(y), 0), height - 1), min(max(round(x), 0), width - 1)]
    if not np.isfinite(nearest).all():
        raise ThreerError(f"no point is known at {_shown(mark)}: mark a place that was reconstructed")
    left, top = int(np.clip(np.floor(x), 0, max(width - 2, 0))), int(np.clip(np.floor(y), 0, max(height - 2, 0)))
    around = points[top : top + 2, left : left + 2].reshape(-1, 3)
    away = np.linalg.norm(around - cameras.c2w[position][:3, 3], axis=1)
    if len(around) < 4 or not np.ptp(away) <= SAME_SURFACE * away.mean():  # unknown ones are NaN, so False
        return np.asarray(nearest)
    x, y = min(max(x - left, 0), 1), min(max(y - top, 0), 1)
    mixed: FloatArray = np.array([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y]) @ around
    return mixed


def from_trajectory(scene: Scene, truth: Trajectory) -> Placement:
    """The similarity that moves the cameras of a run onto a known path in metres (Umeyama 1991).

    Frames and poses belong together by time, to 0.02 s. Along a straight line the turn about it stays open: only
    the scale is taken then. Raises `ReconstructionError` where too few cameras match, or the paths do not agree.
    """
    path = scene.trajectory
    found = np.flatnonzero(np.isfinite(path.c2w).all(axis=(1, 2)))
    order = np.argsort(truth.timestamps, kind="stable")
    times = truth.timestamps[order]
    if not len(found) or not len(times):
        raise ReconstructionError(f"{len(found)} cameras and {len(times)} known poses: there is nothing to compare")
    later = np.clip(np.searchsorted(times, path.timestamps[found]), 1, max(len(times) - 1, 1))
    later = np.minimum(later, len(times) - 1)
    earlier = np.maximum(later - 1, 0)
    after = np.abs(times[later] - path.timestamps[found])
    before = np.abs(times[earlier] - path.timestamps[found])
    nearest = np.where(after < before, later, earlier)
    close = np.minimum(after, before) <= FARTHEST_IN_TIME
    cameras, poses = path.positions[found[close]], truth.positions[order][nearest[close]]
    if len(cameras) < 3:
        raise ReconstructionError(
            f"only {len(cameras)} of {len(path.timestamps)} frames have a camera and a known pose within "
            f"{FARTHEST_IN_TIME} s, need 3: both must count time from the start of the source"
        )
    sim3 = align_points(cameras, poses)
    straight = sim3 is None
    sim3 = sim3 or align_points(cameras, poses, allow_line=True)
    if sim3 is None:
        raise ReconstructionError("one of the paths stands still, so no scale follows from it")
    misfit = float(np.sqrt(np.square(sim3.apply(cameras) - poses).sum(axis=1).mean()))
    spread = float(np.sqrt(np.square(poses - poses.mean(axis=0)).sum(axis=1).mean()))
    if misfit > LARGEST_MISFIT * spread:
        raise ReconstructionError(
            f"the paths do not agree: {misfit:.3g} m apart, in a path of {spread:.3g} m about its middle; check "
            "that both are of the same recording and clock"
        )
    step = float(np.spacing(np.float32(np.abs(poses).max())))
    if not straight and step > COARSEST * spread:
        raise ReconstructionError(
            f"the path lies {np.abs(poses).max():.3g} m from its origin, where points could only be told apart by "
            f"{step:.2g} m: subtract the same offset from all its positions"
        )
    source = f"a known path, {len(cameras)} cameras, {misfit:.3g} m apart after alignment"
    if straight:
        return Placement(Sim3(sim3.scale, np.eye(3), np.zeros(3)), f"{source}; straight, so only its length counts")
    return Placement(sim3, source)


def _shown(mark: Mark) -> str:
    return f"frame {mark[0]} at {mark[1]:g},{mark[2]:g}"
