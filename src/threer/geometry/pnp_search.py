"""Camera pose as the published programs of DUSt3R and Fast3R find it: OpenCV's draws alone, focal length by search.

`geometry.pnp` is what threer itself uses. This is for parity: points go to OpenCV in their own order, nothing is
refined, and an unknown focal length is the one, out of some, that most points agree with.
"""

from __future__ import annotations

import cv2
import numpy as np

from threer.types import FloatArray

FOCALS_TRIED = 21


def search_camera(
    points: FloatArray,
    pixels: FloatArray,
    principal_point: FloatArray,
    size: tuple[int, int],
    *,
    focal: float | None = None,
    tried: int = FOCALS_TRIED,
    iterations: int = 10,
    threshold: float = 5.0,
) -> tuple[FloatArray, float] | None:
    """Camera-to-world [4, 4] and focal length that most of the points agree with.

    points           [M, 3] world
    pixels           [M, 2] (u, v)
    principal_point  [2]
    size             (W, H) of the image; an unknown focal length lies between half and three times the longer side
    focal            in pixels, or None to search
    tried            how many focal lengths, in equal ratios

    Returns None for fewer than 4 points, or where OpenCV finds no camera. Of equally good ones the first counts.
    """
    if len(points) < 4:
        return None
    points, pixels = np.ascontiguousarray(points, np.float32), np.ascontiguousarray(pixels, np.float32)
    longer = max(size)
    focals = np.geomspace(longer / 2, longer * 3, tried) if focal is None else [focal]
    best: tuple[FloatArray, float] | None = None
    most = 0
    for length in focals:
        K = np.array([[length, 0, principal_point[0]], [0, length, principal_point[1]], [0, 0, 1]], np.float32)
        try:
            found, turn, shift, inliers = cv2.solvePnPRansac(
                points,
                pixels,
                K,
                None,
                iterationsCount=iterations,
                reprojectionError=threshold,
                flags=cv2.SOLVEPNP_SQPNP,
            )
        except cv2.error:  # how OpenCV reports points without a solution
            continue
        if not found or inliers is None or not len(inliers) > most:
            continue
        rotation = np.asarray(cv2.Rodrigues(turn)[0], dtype=np.float64)
        if not np.isfinite(rotation).all() or not np.isfinite(shift).all():
            continue
        c2w = np.eye(4)
        c2w[:3, :3] = rotation.T
        c2w[:3, 3] = -rotation.T @ np.asarray(shift, dtype=np.float64)[:, 0]
        most, best = len(inliers), (c2w, float(length))
    return best
