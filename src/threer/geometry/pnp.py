"""Camera pose from points and the pixels that see them (perspective-n-point, robust)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from threer.types import FloatArray

BoolArray = npt.NDArray[np.bool_]

RANSAC_CONFIDENCE = 0.9999
REFINE_STEPS = 10
REFINE_GAIN = 1e-6  # relative; a smaller gain ends the refinement
FLATTEST = 1e-4  # second over first extent of a point set, below which it is a line and fixes no pose
# A camera that fewer of a pointmap's pixels agree with is chance, not a pose: 5 px around a pixel of a 224² image
# are 0.2 % of it, but a mirrored or bent map still finds a camera that a sixth of its pixels agree with.
LEAST_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class PnPResult:
    """A camera and what speaks for it.

    c2w      [4, 4] camera-to-world
    inliers  [M] bool: the points in front of the camera and within the threshold of their pixel
    count    how many inliers
    reprojection_error_px  root mean square over the inliers
    """

    c2w: FloatArray
    inliers: BoolArray
    count: int
    reprojection_error_px: float


def solve_pnp(
    points: FloatArray,
    pixels: FloatArray,
    K: FloatArray,
    *,
    threshold: float = 5.0,
    iterations: int = 100,
    seed: int = 0,
    distortion: FloatArray | None = None,
) -> PnPResult | None:
    """Robust camera pose: RANSAC with SQPnP, then Gauss-Newton on all inliers.

    points      [M, 3] world, any unit; rows that are not finite count as outliers
    pixels      [M, 2] (u, v)
    K           [3, 3]
    threshold   pixels within which a point agrees with a camera (after undistortion)
    seed        order in which points are drawn; equal seeds give equal results
    distortion  OpenCV coefficients, or None

    Returns None where no camera can be found: fewer than 4 points, points on a line, no agreement.
    """
    points, pixels = np.asarray(points, dtype=np.float64), np.asarray(pixels, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or pixels.shape != (len(points), 2):
        raise ValueError(f"need points [M, 3] and pixels [M, 2], got {points.shape} and {pixels.shape}")
    rows = np.flatnonzero(np.isfinite(points).all(axis=1) & np.isfinite(pixels).all(axis=1))
    # OpenCV draws from a fixed sequence of its own: shuffling the rows is what makes the draw depend on the seed.
    rows = np.random.default_rng(seed).permutation(rows)
    K = np.asarray(K, dtype=np.float64)
    ideal = pixels[rows] if distortion is None or len(rows) == 0 else _undistort(pixels[rows], K, distortion)
    problem = _Problem.of(points[rows], ideal, K, threshold)
    pose = None if problem is None else problem.draw(iterations)
    if problem is None or pose is None:
        return None
    return problem.polish(pose, rows, len(points))


def camera_from_pointmap(
    xyz: Tensor,
    conf: Tensor,
    K: FloatArray,
    *,
    keep: float = 0.7,
    min_conf: float | None = None,
    max_points: int = 20_000,
    threshold: float = 5.0,
    seed: int = 0,
) -> PnPResult | None:
    """The camera that sees a pointmap: every pixel is a correspondence.

    xyz         [H, W, 3] world
    conf        [H, W]; pixels at 0 never count
    K           [3, 3] of the pointmap's own pixels
    keep        share of pixels to use, the most confident ones
    min_conf    use only pixels above this confidence as well
    max_points  so many pixels, spread over the image, decide; all kept ones are counted and refine the result

    Returns None where no camera can be found or too few pixels agree. ``inliers`` is [H·W] in row order.
    """
    height, width = conf.shape
    if tuple(xyz.shape) != (height, width, 3):
        raise ValueError(f"xyz {list(xyz.shape)} does not fit conf {list(conf.shape)}")
    points = xyz.detach().reshape(-1, 3).to("cpu", torch.float64).numpy()
    confidence = conf.detach().reshape(-1).to("cpu", torch.float64).numpy()
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(np.float64)

    usable = np.isfinite(points).all(axis=1) & (confidence > 0)
    if min_conf is not None:
        usable &= confidence > min_conf
    if usable.sum() < 4:
        return None
    usable &= confidence >= np.quantile(confidence[usable], 1 - keep)
    rows = np.flatnonzero(usable)
    sample = _spread(rows, max_points, seed)
    found = solve_pnp(points[sample], pixels[sample], K, threshold=threshold, seed=seed)
    problem = _Problem.of(points[rows], pixels[rows], np.asarray(K, dtype=np.float64), threshold)
    if found is None or problem is None or found.count < LEAST_SHARE * len(sample):
        return None
    result = problem.polish(problem.pose_of(found.c2w), rows, len(points))
    return result if result is not None and result.count >= LEAST_SHARE * len(rows) else None


def _spread(rows: npt.NDArray[np.intp], at_most: int, seed: int) -> npt.NDArray[np.intp]:
    """One random row from each of ``at_most`` equal runs of ``rows``: spread over the image like the rows are."""
    if len(rows) <= at_most:
        return rows
    edges = np.linspace(0, len(rows), at_most + 1)
    picks = edges[:-1] + np.random.default_rng(seed).random(at_most) * np.diff(edges)
    return rows[np.minimum(picks.astype(np.intp), len(rows) - 1)]


def _undistort(pixels: FloatArray, K: FloatArray, distortion: FloatArray) -> FloatArray:
    """Where a lens without distortion would have put the pixels [M, 2]."""
    ideal = cv2.undistortPoints(pixels[:, None], K, np.asarray(distortion, dtype=np.float64), P=K)
    return np.asarray(ideal, dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Correspondences in coordinates where the cloud lies around the origin with size 1: its unit cannot matter.

    A pose in here is [3, 4], world to camera.
    """

    points: FloatArray
    pixels: FloatArray
    K: FloatArray
    threshold: float
    centre: FloatArray
    scale: float

    @classmethod
    def of(cls, points: FloatArray, pixels: FloatArray, K: FloatArray, threshold: float) -> _Problem | None:
        """None where the points are too few or on one line."""
        if len(points) < 4:
            return None
        centre = np.median(points, axis=0)
        scale = float(np.median(np.linalg.norm(points - centre, axis=1)))
        extent = np.linalg.eigvalsh(np.cov(points.T))
        if not scale > 0 or extent[1] < FLATTEST**2 * extent[2]:
            return None
        return cls((points - centre) / scale, pixels, K, threshold, centre, scale)

    def draw(self, iterations: int) -> FloatArray | None:
        """A pose that many points agree with, by random draws."""
        try:
            found, rotation, translation, _ = cv2.solvePnPRansac(
                self.points,
                self.pixels,
                self.K,
                None,
                iterationsCount=iterations,
                reprojectionError=self.threshold,
                confidence=RANSAC_CONFIDENCE,
                flags=cv2.SOLVEPNP_SQPNP,
            )
        except cv2.error:  # how OpenCV reports points without a solution
            return None
        if not found or not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            return None
        pose: FloatArray = np.concatenate([cv2.Rodrigues(rotation)[0], translation], axis=1)
        return pose

    def polish(self, pose: FloatArray, rows: npt.NDArray[np.intp], total: int) -> PnPResult | None:
        """Gauss-Newton on the inliers, drawn up anew at each step; the points are ``rows`` out of ``total``."""
        errors = self.errors(pose)
        for _ in range(REFINE_STEPS):
            better = self.step(pose, errors < self.threshold)
            better_errors = self.errors(better)
            if not self.cost(better_errors) < self.cost(errors) * (1 - REFINE_GAIN):
                break
            pose, errors = better, better_errors
        inside = errors < self.threshold
        if inside.sum() < 4:
            return None
        inliers = np.zeros(total, dtype=bool)
        inliers[rows[inside]] = True
        error = float(np.sqrt(np.square(errors[inside]).mean()))
        return PnPResult(self.c2w_of(pose), inliers, int(inside.sum()), error)

    def step(self, pose: FloatArray, inside: BoolArray) -> FloatArray:
        """One Gauss-Newton step of the reprojection error, turning and moving the camera in its own frame."""
        local = self.points[inside] @ pose[:, :3].T + pose[:, 3]
        x, y, z = local.T
        zero = np.zeros_like(z)
        du = self.K[0, 0] * np.stack([1 / z, zero, -x / z**2], axis=1)
        dv = self.K[1, 1] * np.stack([zero, 1 / z, -y / z**2], axis=1)
        J = np.concatenate([np.hstack([np.cross(local, d), d]) for d in (du, dv)])  # [2M, 6]
        residual = (self.pixels[inside] - self.seen(local)).T.ravel()  # [2M], u then v
        change = np.linalg.lstsq(J.T @ J, J.T @ residual, rcond=None)[0]
        turn = cv2.Rodrigues(change[:3])[0]
        moved: FloatArray = turn @ pose
        moved[:, 3] += change[3:]
        return moved

    def seen(self, local: FloatArray) -> FloatArray:
        """[M, 2] pixels of points in the camera's frame."""
        pixels: FloatArray = local[:, :2] / local[:, 2:] * self.K[[0, 1], [0, 1]] + self.K[:2, 2]
        return pixels

    def errors(self, pose: FloatArray) -> FloatArray:
        """[M] reprojection error in pixels, infinite behind the camera."""
        local = self.points @ pose[:, :3].T + pose[:, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.linalg.norm(self.seen(local) - self.pixels, axis=1)
        return np.where((local[:, 2] > 0) & np.isfinite(error), error, np.inf)

    def cost(self, errors: FloatArray) -> float:
        """Squared error, where an outlier costs as much as a point at the threshold."""
        return float(np.square(np.minimum(errors, self.threshold)).sum())

    def c2w_of(self, pose: FloatArray) -> FloatArray:
        """[4, 4] camera-to-world in the world's own coordinates."""
        c2w = np.eye(4)
        c2w[:3, :3] = pose[:, :3].T
        c2w[:3, 3] = self.centre - self.scale * c2w[:3, :3] @ pose[:, 3]
        return c2w

    def pose_of(self, c2w: FloatArray) -> FloatArray:
        rotation = c2w[:3, :3].T
        translation = -rotation @ (c2w[:3, 3] - self.centre) / self.scale
        pose: FloatArray = np.concatenate([rotation, translation[:, None]], axis=1)
        return pose
