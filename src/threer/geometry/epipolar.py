"""Where a second camera stands, seen from the first: from pointmaps, or from matched pixels alone.

Every answer has a status, so that a guess is never taken for a camera: ``found``, ``ambiguous`` (the data fit more
than one answer) or ``failed`` (they fit none), with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from threer.geometry.pnp import BoolArray
from threer.geometry.procrustes import align_points
from threer.types import FloatArray, Pointmap

Status = Literal["found", "ambiguous", "failed"]

RANSAC_CONFIDENCE = 0.9999
RANSAC_ITERATIONS = 10_000
LEAST_MATCHES = 8
LEAST_SHARE = 0.25
"""A motion that fewer of the matches agree with is chance."""
ALL_BUT_FEW = 0.9
"""Where a simpler motion explains this share of what the full one explains, the full one is not determined."""
NO_BASELINE = 1e-3
"""A camera nearer to the first than this share of the points' distance stands in the same place."""


@dataclass(frozen=True, eq=False)
class RelativePose:
    """The second camera in the frame of the first.

    status     see above; ``why`` says in a line what is wrong unless it is ``found``
    c2w        [4, 4] camera-to-world with the first camera as the world; NaN unless found
    rotation   [3, 3] where at least that is determined, else NaN
    scale      units of the second pointmap in one of the first; NaN for pixels, whose translation has length 1
    inliers    [M] bool: the correspondences that agree
    """

    status: Status
    why: str
    c2w: FloatArray
    rotation: FloatArray
    scale: float
    inliers: BoolArray


def pose_from_pointmaps(own: Pointmap, seen: Pointmap, *, keep: float = 0.7, rounds: int = 5) -> RelativePose:
    """Relative pose by weighted Procrustes between two maps [H, W] of the *same* photo (DUSt3R 3.3).

    own   the second photo's points in its own camera's frame
    seen  the same pixels in the frame of the first photo

    Weights are products of confidences; outliers lose theirs over some rounds of reweighting. A camera in the same
    place is ``ambiguous``: the photos may be the same, or the camera only turned.
    """
    if own.conf.shape != seen.conf.shape:
        raise ValueError(f"both maps must be of one photo, got {list(own.conf.shape)} and {list(seen.conf.shape)}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
    source, target = (p.xyz.detach().reshape(-1, 3).double().cpu().numpy() for p in (own, seen))
    conf = (own.conf.double() * seen.conf.double()).detach().flatten().cpu().numpy()
    usable = (conf > 0) & np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    if usable.any():
        usable &= conf >= np.quantile(conf[usable], 1 - keep)
    if usable.sum() < LEAST_MATCHES:
        return _failed(f"only {int(usable.sum())} pixels have points and confidence", len(conf))
    weights = np.where(usable, conf, 0.0)
    similarity = align_points(source, target, weights)
    apart = np.full(len(conf), np.inf)
    for _ in range(rounds):
        if similarity is None:
            break
        apart = np.linalg.norm(similarity.apply(source) - target, axis=1)
        floor = np.median(apart[usable])
        similarity = align_points(source, target, weights / np.hypot(apart, floor + 1e-12))
    if similarity is None:
        return _failed("the points lie on a line or in one spot", len(conf))
    apart = np.linalg.norm(similarity.apply(source) - target, axis=1)
    distance = np.linalg.norm(target, axis=1)
    inliers = usable & (apart < 0.05 * distance)
    if inliers.sum() < LEAST_SHARE * usable.sum():
        share = inliers.sum() / usable.sum()
        return _failed(f"only {share:.0%} of the surest pixels agree on a motion", len(conf), inliers)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = similarity.R, similarity.t
    if np.linalg.norm(similarity.t) < NO_BASELINE * np.median(distance[usable]):
        why = "both photos were taken from one place: the camera only turned, or the photos are the same"
        return _ambiguous(why, inliers, similarity.R)
    return RelativePose("found", "", pose, similarity.R, similarity.scale, inliers)


def pose_from_matches(
    pixels_a: FloatArray,
    pixels_b: FloatArray,
    K_a: FloatArray,
    K_b: FloatArray,
    *,
    threshold: float = 1.0,
    distortion_a: FloatArray | None = None,
    distortion_b: FloatArray | None = None,
    seed: int = 0,
) -> RelativePose:
    """Relative pose by the essential matrix: 5-point RANSAC on undistorted, normalised pixels, polished; |t| = 1.

    pixels_a, pixels_b  [M, 2] matched pixels
    threshold           pixels from the epipolar line within which a match agrees
    seed                order in which matches are drawn

    ``ambiguous`` where a pure turn, or one plane, explains the matches as well: there is no parallax to tell the
    translation from, or two motions fit. ``failed`` for too few matches, or too few that agree.
    """
    pixels_a, pixels_b = np.asarray(pixels_a, dtype=np.float64), np.asarray(pixels_b, dtype=np.float64)
    if pixels_a.ndim != 2 or pixels_a.shape[1] != 2 or pixels_a.shape != pixels_b.shape:
        raise ValueError(f"pixels must both be [M, 2], got {pixels_a.shape} and {pixels_b.shape}")
    for K in (K_a, K_b):
        if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise ValueError(f"K must be finite with positive focal lengths, got {np.asarray(K).tolist()}")
    total = len(pixels_a)
    rows = np.flatnonzero(np.isfinite(pixels_a).all(axis=1) & np.isfinite(pixels_b).all(axis=1))
    if len(rows) < LEAST_MATCHES:
        return _failed(f"{len(rows)} matches are too few: it takes {LEAST_MATCHES}", total)
    rows = np.random.default_rng(seed).permutation(rows)
    a, b = _normalised(pixels_a[rows], K_a, distortion_a), _normalised(pixels_b[rows], K_b, distortion_b)
    limit = threshold / float(np.mean([K_a[0, 0], K_a[1, 1], K_b[0, 0], K_b[1, 1]]))

    turn, turned = _pure_turn(a, b, limit)
    try:
        essential, agree = cv2.findEssentialMat(
            a, b, np.eye(3), method=cv2.RANSAC, prob=RANSAC_CONFIDENCE, threshold=limit, maxIters=RANSAC_ITERATIONS
        )
    except cv2.error:  # how OpenCV reports matches without a solution
        essential, agree = None, None
    inside = np.zeros(len(rows), dtype=bool) if agree is None else agree.ravel().astype(bool)
    most = max(int(inside.sum()), int(turned.sum()))
    inliers = np.zeros(total, dtype=bool)
    if most < max(LEAST_MATCHES, LEAST_SHARE * len(rows)):
        inliers[rows[inside]] = True
        return _failed(f"only {most} of {len(rows)} matches agree on a motion", total, inliers)
    if turned.sum() >= ALL_BUT_FEW * most:
        inliers[rows[turned]] = True
        why = "the camera only turned, or the photos are the same: without parallax its place is not determined"
        return _ambiguous(why, inliers, turn.T)
    flat = _on_a_plane(a, b, limit)
    if flat.sum() >= ALL_BUT_FEW * most:
        inliers[rows[flat]] = True
        return _ambiguous("the matches lie on one plane: two motions explain them equally well", inliers)
    if essential is None or agree is None or essential.shape != (3, 3):
        return _failed("no single motion explains the matches", total)
    front, rotation, translation, ahead = cv2.recoverPose(essential, a, b, np.eye(3), mask=agree.copy())
    inside &= ahead.ravel() > 0
    inliers[rows[inside]] = True
    if front < max(LEAST_MATCHES, LEAST_SHARE * len(rows)):
        return _failed(f"only {front} of {len(rows)} matches lie in front of both cameras", total, inliers)
    drawn = np.asarray(rotation, dtype=np.float64), np.asarray(translation, dtype=np.float64)[:, 0]
    rotation, translation = _polished(a[inside], b[inside], *drawn, limit)
    pose = np.eye(4)
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -rotation.T @ translation
    return RelativePose("found", "", pose, pose[:3, :3].copy(), float("nan"), inliers)


def _polished(
    a: FloatArray, b: FloatArray, rotation: FloatArray, translation: FloatArray, limit: float
) -> tuple[FloatArray, FloatArray]:
    """The motion with the least robust epipolar (Sampson) error near a drawn one; the translation has length 1."""
    a, b = (np.concatenate([p, np.ones((len(p), 1))], axis=1) for p in (a, b))

    def motion(change: FloatArray) -> tuple[FloatArray, FloatArray]:
        turned = Rotation.from_rotvec(change[:3]).as_matrix() @ rotation
        moved = translation + change[3:]
        return turned, moved / np.linalg.norm(moved)

    def errors(change: FloatArray) -> FloatArray:
        R, t = motion(change)
        E = np.cross(np.eye(3), t).T @ R  # [t]× R
        lines_b, lines_a = a @ E.T, b @ E
        steep = np.square(lines_a[:, :2]).sum(axis=1) + np.square(lines_b[:, :2]).sum(axis=1)
        error: FloatArray = (b * lines_b).sum(axis=1) / np.sqrt(steep + 1e-30)
        return error

    best = least_squares(errors, np.zeros(6), loss="soft_l1", f_scale=limit)
    return motion(best.x)


def _normalised(pixels: FloatArray, K: FloatArray, distortion: FloatArray | None) -> FloatArray:
    """[M, 2] where the rays of pixels meet the plane at depth 1, without the lens's distortion."""
    bent = None if distortion is None else np.asarray(distortion, dtype=np.float64)
    ideal = cv2.undistortPoints(pixels[:, None], np.asarray(K, dtype=np.float64), bent)
    return np.asarray(ideal, dtype=np.float64).reshape(-1, 2)


def _pure_turn(a: FloatArray, b: FloatArray, limit: float) -> tuple[FloatArray, BoolArray]:
    """Rotation [3, 3] from the first camera's frame to the second's that moves most rays onto their match."""
    rays_a, rays_b = (
        np.concatenate([p, np.ones((len(p), 1))], axis=1) / np.sqrt(1 + np.square(p).sum(axis=1))[:, None]
        for p in (a, b)
    )
    weights = np.ones(len(a))
    R = np.eye(3)
    for _ in range(20):
        U, _, Vt = np.linalg.svd((weights[:, None] * rays_b).T @ rays_a)
        R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
        apart = np.linalg.norm(rays_a @ R.T - rays_b, axis=1)
        weights = 1 / np.hypot(apart, limit)
    return R, np.linalg.norm(rays_a @ R.T - rays_b, axis=1) < 2 * limit


def _on_a_plane(a: FloatArray, b: FloatArray, limit: float) -> BoolArray:
    """[M] bool: matches that one homography explains."""
    _, agree = cv2.findHomography(a, b, cv2.RANSAC, 2 * limit, maxIters=2000, confidence=RANSAC_CONFIDENCE)
    none: npt.NDArray[np.bool_] = np.zeros(len(a), dtype=bool)
    return none if agree is None else agree.ravel().astype(bool)


def _failed(why: str, total: int, inliers: BoolArray | None = None) -> RelativePose:
    nothing = np.zeros(total, dtype=bool) if inliers is None else inliers
    nan = float("nan")
    return RelativePose("failed", why, np.full((4, 4), nan), np.full((3, 3), nan), nan, nothing)


def _ambiguous(why: str, inliers: BoolArray, rotation: FloatArray | None = None) -> RelativePose:
    nan = float("nan")
    known = np.full((3, 3), nan) if rotation is None else rotation
    return RelativePose("ambiguous", why, np.full((4, 4), nan), known, nan, inliers)
