"""Cameras that see points, without any picture: what refinement is tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from threer.geometry.procrustes import align_points
from threer.pipelines.classical.features import IdArray
from threer.types import FloatArray

SIZE = 640, 480


@dataclass(frozen=True, eq=False)
class TrackedScene:
    """points [P, 3], c2w and K of N views, pixels [F, 2] of each view's features, and matches of pairs."""

    points: FloatArray
    c2w: FloatArray
    K: FloatArray
    pixels: list[FloatArray]
    matches: dict[tuple[int, int], IdArray]

    def disturbed(self, degrees: float = 3.0, share: float = 0.05, seed: int = 1) -> FloatArray:
        """Cameras turned by ``degrees`` and moved by ``share`` of the path's half, root mean square."""
        rng = np.random.default_rng(seed)
        c2w, n = self.c2w.copy(), len(self.c2w)
        turns = Rotation.from_rotvec(np.radians(degrees) / np.sqrt(3) * rng.normal(size=(n, 3)))
        c2w[:, :3, :3] = c2w[:, :3, :3] @ turns.as_matrix()
        c2w[:, :3, 3] += 2 * share / np.sqrt(3) * rng.normal(size=(n, 3))
        return c2w

    def error(self, c2w: FloatArray) -> float:
        """Root mean square distance of camera centres from the truth, after the best similarity."""
        sim3 = align_points(c2w[:, :3, 3], self.c2w[:, :3, 3])
        assert sim3 is not None
        return float(np.sqrt(np.square(sim3.apply(c2w[:, :3, 3]) - self.c2w[:, :3, 3]).sum(axis=1).mean()))


def tracked_scene(
    views: int = 16, points: int = 400, *, noise_px: float = 0.4, wrong: float = 0.0, seed: int = 0
) -> TrackedScene:
    """A camera 4 units along a bent path; ``wrong`` of the matches join features of different points."""
    rng = np.random.default_rng(seed)
    cloud = rng.uniform([-4, -2, 4], [4, 2, 9], (points, 3))
    t = np.linspace(-1, 1, views)
    c2w = np.tile(np.eye(4), (views, 1, 1))
    c2w[:, :3, 3] = np.stack([2 * t, 0.3 * np.sin(4 * t), 0.5 * np.cos(3 * t)], axis=1)
    c2w[:, :3, :3] = Rotation.from_rotvec(np.outer(np.radians(-12 * t), [0, 1, 0])).as_matrix()
    K = np.tile([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]], (views, 1, 1))
    pixels, ids = [], []
    for pose in c2w:
        local = (cloud - pose[:3, 3]) @ pose[:3, :3]
        shown = local[:, :2] / local[:, 2:] * 500 + K[0, :2, 2] + rng.normal(0, noise_px, (points, 2))
        seen = (shown > 0).all(axis=1) & (shown < SIZE).all(axis=1) & (rng.random(points) < 0.7)
        pixels.append(shown[seen])
        ids.append(np.flatnonzero(seen))
    matches = {}
    for i in range(views):
        for j in range(i + 1, min(views, i + 6)):
            _, a, b = np.intersect1d(ids[i], ids[j], return_indices=True)
            chance = rng.random(len(a)) < wrong
            b[chance] = rng.integers(0, len(ids[j]), chance.sum())
            matches[i, j] = np.stack([a, b], axis=1)
    return TrackedScene(cloud, c2w, K, pixels, matches)
