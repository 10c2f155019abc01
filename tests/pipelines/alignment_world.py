"""Scenes whose pairs are known exactly, in a unit of each pair's own, for the tests of global alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from threer.geometry.projection import centred_intrinsics, unproject
from threer.pipelines.alignment.pairs import Pair
from threer.pipelines.alignment.predictions import Pairs
from threer.types import FloatArray, Pointmap


@dataclass(frozen=True, eq=False)
class World:
    """c2w [N, 4, 4], focals [N], own points [H, W, 3] of each photo in its camera's frame, sizes (H, W)."""

    c2w: FloatArray
    focals: FloatArray
    own: Sequence[Tensor]
    sizes: Sequence[tuple[int, int]]

    @property
    def size(self) -> float:
        """The scene's: the median distance of its points from their middle."""
        points = torch.cat([self.points(i).reshape(-1, 3) for i in range(len(self.own))])
        return float(torch.linalg.vector_norm(points - points.median(dim=0).values, dim=1).median())

    def points(self, photo: int) -> Tensor:
        """[H, W, 3] in the world."""
        pose = torch.from_numpy(self.c2w[photo])
        return self.own[photo] @ pose[:3, :3].T + pose[:3, 3]

    def pairs(self, graph: Sequence[Pair], *, noise: float = 0.0, outliers: float = 0.0, seed: int = 0) -> Pairs:
        """Predictions of the pairs of ``graph``, with smooth errors of a share ``noise`` of each point's distance.

        outliers  share of pixels that are far off, and unsure
        """
        generator = np.random.default_rng(seed)
        own, other = [], []
        for i, j in graph:
            unit = generator.uniform(0.5, 2)
            relative = torch.from_numpy(np.linalg.inv(self.c2w[i]) @ self.c2w[j])
            moved = self.own[j] @ relative[:3, :3].T + relative[:3, 3]
            for maps, points in ((own, self.own[i]), (other, moved)):
                h, w = points.shape[:2]
                v, u = torch.meshgrid(torch.linspace(0, 3, h), torch.linspace(0, 3, w), indexing="ij")
                a, b, c = generator.uniform(-1, 1, 3)
                xyz = unit * points * (1 + noise * torch.sin(3 * a * u + 3 * b * v + 6 * c))[..., None]
                conf = torch.from_numpy(generator.uniform(3, 9, (h, w)))
                bad = torch.from_numpy(generator.random((h, w)) < outliers)
                wrong = torch.from_numpy(generator.uniform(0.2, 4, (h, w)))
                xyz = torch.where(bad[..., None], xyz * wrong[..., None], xyz)
                conf = torch.where(bad, 1.5, conf)
                maps.append(Pointmap(xyz.float(), conf.float()))
        return Pairs(np.array(graph, dtype=np.int64), own, other, self.sizes)


def world(
    count: int = 5, sizes: Sequence[tuple[int, int]] = ((24, 36),), *, spread: float = 1.0, seed: int = 0
) -> World:
    """``count`` photos of bumpy surfaces two to four metres away, from cameras ``spread`` metres around."""
    generator = np.random.default_rng(seed)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.from_rotvec(generator.uniform(-0.3, 0.3, (count, 3))).as_matrix()
    c2w[:, :3, 3] = generator.uniform(-spread / 2, spread / 2, (count, 3))
    shapes = [sizes[i % len(sizes)] for i in range(count)]
    focals = generator.uniform(1.0, 1.5, count) * [max(s) for s in shapes]
    own = []
    for (h, w), focal in zip(shapes, focals, strict=True):
        v, u = torch.meshgrid(torch.linspace(0, 6, h), torch.linspace(0, 6, w), indexing="ij")
        depth = 3 + 0.6 * torch.sin(u + generator.uniform(0, 6)) + 0.4 * torch.cos(v + generator.uniform(0, 6))
        own.append(unproject(depth.double(), torch.from_numpy(centred_intrinsics(focal, w, h))))
    return World(c2w, focals, own, shapes)
