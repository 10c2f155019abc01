"""How well pixels determine a camera: first-order covariance of its pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threer.types import FloatArray


@dataclass(frozen=True, eq=False)
class PoseUncertainty:
    """What noise of the pixels does to a camera.

    covariance          [6, 6] of a turn in the camera's frame (radians) and of the position in the world
    position_sigma      root mean square distance of the position from the true one, in the world's unit
    rotation_sigma_deg  the same for the angle
    """

    covariance: FloatArray
    position_sigma: float
    rotation_sigma_deg: float


def pose_uncertainty(
    points: FloatArray,
    pixels: FloatArray,
    K: FloatArray,
    c2w: FloatArray,
    *,
    focal_known: bool = True,
    independent: int | None = None,
) -> PoseUncertainty:
    """Uncertainty of a camera that was fitted to points and pixels, from how far these miss each other.

    points       [M, 3] world, in front of the camera: those the camera was fitted to
    pixels       [M, 2]
    K, c2w       the camera
    focal_known  False if one focal length was fitted as well
    independent  how many of the pixels have errors of their own, if not all: the others repeat them

    Errors that points have in common, such as those of a reconstruction that is bent, are not in it. Infinite where
    the points do not determine the camera.
    """
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    depth = np.median(local[:, 2]) if len(local) else np.nan
    unknowns = 6 if focal_known else 7
    freedom = 2 * len(points) - unknowns
    nothing = PoseUncertainty(np.full((6, 6), np.inf), np.inf, np.inf)
    if freedom < 1 or not depth > 0:
        return nothing
    x, y, z = (local / depth).T  # so that no unit matters to what is singular
    zero = np.zeros_like(z)
    du = K[0, 0] * np.stack([1 / z, zero, -x / z**2], axis=1)
    dv = K[1, 1] * np.stack([zero, 1 / z, -y / z**2], axis=1)
    J = np.concatenate([np.hstack([np.cross(local / depth, d), d]) for d in (du, dv)])  # [2M, 6]
    if not focal_known:
        J = np.hstack([J, K[0, 0] * np.concatenate([x / z, y / z])[:, None]])
    seen = np.stack([x, y], axis=1) / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
    variance = float(np.square(pixels - seen).sum()) / freedom
    values, vectors = np.linalg.eigh(J.T @ J)
    if not values[0] > np.finfo(float).eps * unknowns * values[-1]:
        return nothing
    repeated = len(points) / (independent or len(points))
    moved = ((vectors / values) @ vectors.T)[:6, :6] * variance * repeated
    change = np.zeros((6, 6))
    change[:3, :3] = np.eye(3)
    change[3:, 3:] = -depth * c2w[:3, :3]  # a shift of the points in the camera's frame moves the camera back
    covariance: FloatArray = change @ moved @ change.T
    turn, shift = (float(np.sqrt(np.trace(part))) for part in (covariance[:3, :3], covariance[3:, 3:]))
    return PoseUncertainty(covariance, shift, float(np.degrees(turn)))
