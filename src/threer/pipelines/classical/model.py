"""A finished model in our terms: camera-to-world, pixel centres at integers, a sane unit, NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from threer.pipelines.classical.colmap import pycolmap
from threer.types import FloatArray

IDEAL_ANGLE_DEG = 2.0
NARROW_DEG, WIDE_DEG = 1.0, 5.0
"""How fast the worth of a common point falls below and above the ideal angle."""


@dataclass(frozen=True, eq=False)
class SparseModel:
    """Cameras and points, found together.

    images  [N] ids of the pictures, ascending
    c2w     [N, 4, 4] camera-to-world
    K       [N, 3, 3] pixels of the originals, centres at integers
    points  [P, 3] world
    seen    [M] row of the camera, ``point`` [M] row of the point: the observations, in the order of the points
    """

    images: tuple[int, ...]
    c2w: FloatArray
    K: FloatArray
    points: FloatArray
    seen: npt.NDArray[np.int64]
    point: npt.NDArray[np.int64]

    @property
    def depths(self) -> FloatArray:
        """[M] depth of each observed point in the camera that observes it."""
        offset = self.points[self.point] - self.c2w[self.seen, :3, 3]
        return np.asarray((offset * self.c2w[self.seen, :3, 2]).sum(axis=1))

    def partners(self, most: int) -> list[npt.NDArray[np.int64]]:
        """For each camera the rows of up to ``most`` others to compare it with, the best first.

        Each point that both see counts by the angle between its rays: most at 2°, less where the baseline is too
        short to tell depths apart or too long to look alike (Yao et al. 2018).
        """
        starts = np.searchsorted(self.point, np.arange(len(self.points) + 1))
        chosen = []
        for row in range(len(self.images)):
            mine = self.point[self.seen == row]
            tracks = [np.arange(starts[p], starts[p + 1]) for p in mine]
            entries = np.concatenate(tracks) if tracks else np.empty(0, np.int64)
            other, target = self.seen[entries], self.points[self.point[entries]]
            to_me, to_other = target - self.c2w[row, :3, 3], target - self.c2w[other, :3, 3]
            norms = np.linalg.norm(to_me, axis=1) * np.linalg.norm(to_other, axis=1)
            cosine = (to_me * to_other).sum(axis=1) / np.maximum(norms, 1e-12)
            off = np.degrees(np.arccos(np.clip(cosine, -1, 1))) - IDEAL_ANGLE_DEG
            worth = np.exp(-0.5 * np.square(off / np.where(off < 0, NARROW_DEG, WIDE_DEG)))
            score = np.bincount(other, worth, minlength=len(self.images))
            score[row] = 0
            best = np.argsort(-score, kind="stable")[:most]
            chosen.append(best[score[best] > 0])
        return chosen


def normalise(model: Any, first: int) -> None:
    """Move a pycolmap Reconstruction: the camera of picture ``first`` is the world's, the median depth is 1."""
    pose = model.images[first].cam_from_world()
    scale = 1 / float(np.median(as_sparse_model(model).depths))
    model.transform(pycolmap().Sim3d(scale, pose.rotation, scale * pose.translation))


def as_sparse_model(model: Any) -> SparseModel:
    """Read a pycolmap Reconstruction, which is world-to-camera with pixel centres at halves."""
    ids = sorted(model.reg_image_ids())
    rows = {image: row for row, image in enumerate(ids)}
    w2c = np.tile(np.eye(4), (len(ids), 1, 1))
    w2c[:, :3] = [model.images[image].cam_from_world().matrix() for image in ids]
    K = np.array([model.cameras[model.images[image].camera_id].calibration_matrix() for image in ids])
    K[:, :2, 2] -= 0.5
    points, seen, point = [], [], []
    for row, key in enumerate(sorted(model.points3D)):
        found = model.points3D[key]
        points.append(found.xyz)
        observers = sorted({rows[element.image_id] for element in found.track.elements})
        seen += observers
        point += [row] * len(observers)
    return SparseModel(
        tuple(ids),
        np.linalg.inv(w2c),
        K,
        np.array(points).reshape(-1, 3),
        np.array(seen, np.int64),
        np.array(point, np.int64),
    )
