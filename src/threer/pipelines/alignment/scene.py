"""What global alignment looks for, and how good an answer is (DUSt3R 3.4, pipelines.md 2.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from threer.geometry.projection import unproject
from threer.geometry.transforms import apply, invert
from threer.pipelines.alignment.predictions import Pairs
from threer.types import FloatArray

Weighting = Literal["log", "sqrt", "minus-one", "identity"]

MEAN_SCALE = 0.5
"""Geometric mean of the pairs' scales, which fixes the size of the whole."""


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of N photos' cameras beforehand, NaN where nothing is; it is never changed.

    c2w               [N, 4, 4]
    focals            [N] network pixels
    principal_points  [N, 2] network pixels
    aspects           [N] height of a pixel's focal length over its width, 1 for square pixels: never estimated
    """

    c2w: FloatArray
    focals: FloatArray
    principal_points: FloatArray
    aspects: FloatArray

    @classmethod
    def nothing(cls, count: int) -> Known:
        nan = np.nan
        return cls(np.full((count, 4, 4), nan), np.full(count, nan), np.full((count, 2), nan), np.ones(count))

    @property
    def poses(self) -> npt.NDArray[np.bool_]:
        """[N] bool: photos whose pose is known."""
        return np.asarray(np.isfinite(self.c2w).all(axis=(1, 2)))

    @property
    def fixes_scale(self) -> bool:
        """Two known cameras say how large the scene is."""
        return int(self.poses.sum()) >= 2

    @property
    def hub(self) -> FloatArray:
        """[3] the point that stays where it is while the scene's size is free: a single known camera's centre."""
        rows = np.flatnonzero(self.poses)
        return self.c2w[rows[0], :3, 3] if len(rows) == 1 else np.zeros(3)

    def subset(self, photos: Sequence[int]) -> Known:
        rows = list(photos)
        return Known(self.c2w[rows], self.focals[rows], self.principal_points[rows], self.aspects[rows])


@dataclass(frozen=True, eq=False)
class Aligned:
    """A scene of N photos and the place of E pairs in it. float64 but for depth.

    c2w               [N, 4, 4]
    focals            [N] network pixels
    principal_points  [N, 2] network pixels
    aspects           [N] fy / fx
    depth             N maps [H, W]: z
    rotations         [E, 3, 3], scales [E], shifts [E, 3]: a pair's point X lies at scale · R X + shift
    """

    c2w: Tensor
    focals: Tensor
    principal_points: Tensor
    aspects: Tensor
    depth: Sequence[Tensor]
    rotations: Tensor
    scales: Tensor
    shifts: Tensor

    def K(self, photo: int) -> Tensor:
        """[3, 3] in network pixels."""
        K = torch.eye(3, dtype=torch.float64)
        K[0, 0] = self.focals[photo]
        K[1, 1] = self.focals[photo] * self.aspects[photo]
        K[:2, 2] = self.principal_points[photo]
        return K

    def points(self, photo: int) -> Tensor:
        """[H, W, 3] in the world: the depth seen along the pixels' rays."""
        return apply(self.c2w[photo], unproject(self.depth[photo].double(), self.K(photo)))

    def moved(self, pair: int, points: Tensor) -> Tensor:
        """Points [..., 3] of a pair, in the world."""
        return self.scales[pair] * points.double() @ self.rotations[pair].T + self.shifts[pair]

    def in_camera(self, photo: int, points: Tensor) -> Tensor:
        """World points [..., 3] in the frame of a photo's camera."""
        return apply(invert(self.c2w[photo]), points)

    def resized(self, factor: float, hub: Tensor) -> Aligned:
        """The scene made larger by ``factor`` about a point [3]."""
        c2w = self.c2w.clone()
        c2w[:, :3, 3] = hub + factor * (c2w[:, :3, 3] - hub)
        return dataclasses.replace(
            self,
            c2w=c2w,
            depth=[factor * depth for depth in self.depth],
            scales=factor * self.scales,
            shifts=hub + factor * (self.shifts - hub),
        )

    @property
    def pair_poses(self) -> Tensor:
        """[E, 4, 4] with the scale in the rotation."""
        poses = torch.eye(4, dtype=torch.float64).repeat(len(self.scales), 1, 1)
        poses[:, :3, :3] = self.scales[:, None, None] * self.rotations
        poses[:, :3, 3] = self.shifts
        return poses


def weights_of(conf: Tensor, weighting: Weighting = "log") -> Tensor:
    """How much a pixel counts, from its confidence ≥ 1; what a mask set to 0 counts nothing."""
    certain = conf.clamp(min=1)
    if weighting == "log":
        weight = certain.log()
    elif weighting == "sqrt":
        weight = certain.sqrt()
    else:
        weight = certain - 1 if weighting == "minus-one" else certain
    return torch.where(conf > 0, weight, 0.0)


def role_areas(pairs: Pairs) -> tuple[int, int]:
    """Pixels of all first and of all second photos: what their sums of distances are divided by."""
    areas = [0, 0]
    for _, _, role, points in pairs.maps():
        areas[role] += points.conf.numel()
    return areas[0], areas[1]


def alignment_loss(scene: Aligned, pairs: Pairs, weighting: Weighting = "log") -> float:
    """Mean confidence-weighted distance of the scene's points from the pairs', first and second photos added."""
    areas = role_areas(pairs)
    total = 0.0
    for photo in range(pairs.count):
        points = scene.points(photo).float()
        for pair, role, seen in pairs.seen(photo):
            moved = (scene.scales[pair] * scene.rotations[pair]).float()
            apart = points - seen.xyz.float() @ moved.T - scene.shifts[pair].float()
            distance = torch.linalg.vector_norm(apart, dim=-1)
            total += float((weights_of(seen.conf.float(), weighting) * distance).sum()) / areas[role]
    return total
