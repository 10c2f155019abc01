"""A camera from matches of pixels with points, and whether it can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from threer.geometry.epipolar import Status
from threer.geometry.uncertainty import PoseUncertainty, pose_uncertainty
from threer.pipelines.classical.colmap import pycolmap, quiet
from threer.types import FloatArray

DRAWS = 10_000
CONFIDENCE = 0.9999
LEAST_RATIO = 0.01
ROUNDS = 3
"""The inliers are drawn up anew so often for the last refinement."""
PLAUSIBLE_FOCAL = (0.3, 5.0)
"""In units of the longer image side."""
FOCAL_GUESS = 1.2
FOCALS_TRIED = 21
LEAST_INLIERS = 12
SURE, SURE_SHARE = 2.5, 1 / 3
"""Fewer inliers than so many times the least must be this share of what was matched, or they may be chance: things
that repeat themselves, like wallpaper and chairs, agree on a camera here and there."""
LEAST_CELLS = 6
"""Inliers must lie in so many cells of a grid over the picture: in one spot, any far camera fits any points."""
GRID = 12
MOST_BEHIND = 0.5
"""Share of the inliers that may be seen under more than a right angle to how the run saw them."""
MOST_POSITION_SIGMA = 0.1
"""In units of the inliers' median depth."""
MOST_ROTATION_SIGMA_DEG = 5.0
SECOND_SHARE = 0.7
"""Another camera with so many times the inliers of the best one makes the answer ambiguous,"""
APART_DEG, APART = 10.0, 0.25
"""unless it is nearly the same one: turned less than this, and nearer than this times the median depth."""


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Pixels of a picture and points of a run that may be the same.

    pixels  [M, 2] of the original picture, centres at integers
    points  [M, 3] world
    frames  [M] index of the frame that each was matched with
    seen_from  [M, 3] where that frame's camera is
    """

    pixels: FloatArray
    points: FloatArray
    frames: npt.NDArray[np.int64]
    seen_from: FloatArray

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: npt.NDArray[Any]) -> Correspondences:
        return Correspondences(self.pixels[rows], self.points[rows], self.frames[rows], self.seen_from[rows])


@dataclass(frozen=True, eq=False)
class Candidate:
    """A camera that some matches agree with: c2w [4, 4], K [3, 3], inliers [M] bool, depth: their median."""

    c2w: FloatArray
    K: FloatArray
    inliers: npt.NDArray[np.bool_]
    error_px: float
    depth: float

    @property
    def count(self) -> int:
        return int(self.inliers.sum())


@dataclass(frozen=True, eq=False)
class Judgement:
    """A status, why it is not ``found``, the best camera there is, and how well it is determined."""

    status: Status
    why: str
    camera: Candidate | None = None
    uncertainty: PoseUncertainty | None = None


def find_camera(
    matches: Correspondences,
    size: tuple[int, int],
    K: FloatArray | None,
    *,
    threshold: float,
    least: int = LEAST_INLIERS,
    least_share: float = 0.0,
    seed: int = 0,
) -> Judgement:
    """The camera that most matches agree with (P3P in LO-RANSAC, refined on all inliers), under checks.

    size         (W, H) of the picture
    K            [3, 3], or None to find one focal length as well, with the principal point in the middle
    threshold    pixels within which a match agrees
    least        inliers, those that lie together counted once, below which it is chance
    least_share  of the matches with one frame at least, which must agree
    """
    if len(matches) < least:
        return Judgement("failed", f"{len(matches)} of its pixels match points of the run, {least} are needed")
    best = _draw(matches, size, K, threshold, seed)
    if best is None:
        return Judgement("failed", f"no camera agrees with any of the {len(matches)} matches")
    agreeing = matches[best.inliers]
    distinct = _distinct(agreeing, best, 2 * threshold)
    if distinct < least:
        why = f"only {distinct} of {len(matches)} matches agree on a camera, {least} are needed: another place?"
        return Judgement("failed", why, best)
    behind = ((agreeing.points - best.c2w[:3, 3]) * (agreeing.points - agreeing.seen_from)).sum(axis=1) <= 0
    if behind.mean() > MOST_BEHIND:  # a mirrored picture of a wall is what one would see through it
        why = f"the camera that {best.count} matches agree on would see them from behind: is the picture mirrored?"
        return Judgement("failed", why, best)
    cells = len(np.unique((agreeing.pixels * GRID / max(size)).astype(int), axis=0))
    if cells < LEAST_CELLS:
        why = f"the {best.count} matches that agree lie in one spot of the picture"
        return Judgement("failed", why, best)
    share = max(float(best.inliers[matches.frames == k].mean()) for k in np.unique(agreeing.frames))
    if share < least_share:
        why = f"at most {share:.0%} of the matches with one frame agree on a camera: another place?"
        return Judgement("failed", why, best)
    matched = _distinct(matches, best, 2 * threshold)
    if distinct < min(SURE * least, SURE_SHARE * matched):
        why = f"only {distinct} of {matched} things that match agree on a camera: that may be chance"
        return Judgement("ambiguous", why, best)
    focal = float(best.K[0, 0]) / max(size)
    if not PLAUSIBLE_FOCAL[0] <= focal <= PLAUSIBLE_FOCAL[1]:
        why = f"a focal length of {focal:.2f} image sides is not plausible: give --intrinsics"
        return Judgement("failed", why, best)
    known = pose_uncertainty(
        agreeing.points, agreeing.pixels, best.K, best.c2w, focal_known=K is not None, independent=distinct
    )
    if (
        known.position_sigma > MOST_POSITION_SIGMA * best.depth
        or known.rotation_sigma_deg > MOST_ROTATION_SIGMA_DEG
    ):
        why = (
            f"the matches hardly determine the camera: ±{known.position_sigma / best.depth:.0%} of the distance, "
            f"±{known.rotation_sigma_deg:.1f}°" + ("" if K is not None else "; give --intrinsics")
        )
        return Judgement("ambiguous", why, best, known)
    other = _draw(matches[~best.inliers], size, best.K, threshold, seed)
    if other is not None and other.count >= max(least, SECOND_SHARE * best.count) and _apart(best, other):
        why = f"two places fit, with {best.count} and {other.count} matches"
        return Judgement("ambiguous", why, best, known)
    return Judgement("found", "", best, known)


def _distinct(matches: Correspondences, camera: Candidate, pixels: float) -> int:
    """How many matches there are when those within so many pixels count once, in the picture and in the world.

    What a pixel shows matches with many frames, whose points for it differ a little: that is one witness.
    """
    side = pixels * camera.depth / camera.K[0, 0]
    cells = matches.pixels / pixels, matches.points / side
    return min(len(np.unique(np.floor(cell).astype(np.int64), axis=0)) for cell in cells)


def _apart(a: Candidate, b: Candidate) -> bool:
    cosine = (np.trace(a.c2w[:3, :3].T @ b.c2w[:3, :3]) - 1) / 2
    turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    moved = float(np.linalg.norm(a.c2w[:3, 3] - b.c2w[:3, 3]))
    return bool(turned > APART_DEG or moved > APART * min(a.depth, b.depth))


def _draw(
    matches: Correspondences, size: tuple[int, int], K: FloatArray | None, threshold: float, seed: int
) -> Candidate | None:
    """LO-RANSAC, then refinement on all inliers. The world is brought to size 1, so that its unit cannot matter."""
    if len(matches) < 4:
        return None
    centre = np.median(matches.points, axis=0)
    scale = float(np.median(np.linalg.norm(matches.points - centre, axis=1)))
    if not scale > 0:
        return None
    points = (matches.points - centre) / scale
    pixels = matches.pixels + 0.5  # COLMAP's pixels begin at the edge
    colmap = pycolmap()
    camera = _camera(colmap, size, K)
    drawing, refining = colmap.AbsolutePoseEstimationOptions(), colmap.AbsolutePoseRefinementOptions()
    drawing.estimate_focal_length = refining.refine_focal_length = K is None
    drawing.ransac.max_error, drawing.ransac.random_seed = threshold, seed
    drawing.ransac.max_num_trials, drawing.ransac.confidence = DRAWS, CONFIDENCE
    drawing.ransac.min_inlier_ratio = LEAST_RATIO
    refining.gradient_tolerance = 1e-6
    with quiet():
        found = colmap.estimate_and_refine_absolute_pose(pixels, points, camera, drawing, refining)
        if found is None and K is None:  # points on a plane defeat the minimal solver, but not a search
            found, camera = _search_focal(colmap, pixels, points, size, drawing)
        if found is None:
            return None
        pose = found["cam_from_world"]
        errors, depths = _errors(pose, camera, points, pixels)
        for _ in range(ROUNDS):
            inside = errors < threshold
            if inside.sum() < 4:
                return None
            finer = colmap.refine_absolute_pose(pose, points2D=pixels, points3D=points, inlier_mask=inside,
                                                camera=camera, refinement_options=refining)  # fmt: skip
            if finer is None:
                break
            pose = finer["cam_from_world"]
            errors, depths = _errors(pose, camera, points, pixels)
    inside = errors < threshold
    if inside.sum() < 4 or not np.isfinite(pose.matrix()).all():
        return None
    c2w = np.eye(4)
    c2w[:3, :3] = pose.matrix()[:, :3].T
    c2w[:3, 3] = centre - scale * c2w[:3, :3] @ pose.matrix()[:, 3]
    own_K = np.array(camera.calibration_matrix())
    own_K[:2, 2] -= 0.5
    error = float(np.sqrt(np.square(errors[inside]).mean()))
    return Candidate(c2w, own_K, inside, error, scale * float(np.median(depths[inside])))


def _search_focal(
    colmap: Any, pixels: FloatArray, points: FloatArray, size: tuple[int, int], drawing: Any
) -> tuple[dict[str, Any] | None, Any]:
    """The focal length, out of some in equal ratios, that most matches agree with (geometry.md section 6)."""
    drawing.estimate_focal_length = False
    best: dict[str, Any] | None = None
    chosen = None
    for focal in np.geomspace(0.5, 3, FOCALS_TRIED) * max(size):
        camera = _camera(colmap, size, None)
        camera.params = [focal, *camera.params[1:]]
        found = colmap.estimate_and_refine_absolute_pose(pixels, points, camera, drawing)
        if found is not None and (best is None or found["num_inliers"] > best["num_inliers"]):
            best, chosen = found, camera
    return best, chosen


def _camera(colmap: Any, size: tuple[int, int], K: FloatArray | None) -> Any:
    width, height = size
    if K is None:
        params = [FOCAL_GUESS * max(size), width / 2, height / 2]
        return colmap.Camera(model="SIMPLE_PINHOLE", width=width, height=height, params=params)
    params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    return colmap.Camera(model="PINHOLE", width=width, height=height, params=params)


def _errors(pose: Any, camera: Any, points: FloatArray, pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """[M] reprojection errors, infinite behind the camera, and [M] depths."""
    matrix, K = pose.matrix(), camera.calibration_matrix()
    local = points @ matrix[:, :3].T + matrix[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = local[:, :2] / local[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]
        error = np.linalg.norm(seen - pixels, axis=1)
    return np.where((local[:, 2] > 0) & np.isfinite(error), error, np.inf), local[:, 2]
