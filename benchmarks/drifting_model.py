"""A streaming network that knows the truth, and drifts: every step of the camera is off, the map grows as it goes.

It registers a frame against the one nearest in time among those that are given, so it never notices by itself that
the camera came back; and it takes those where they are said to be, so it follows when the world is corrected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor

from threer.config import InputSpec
from threer.data.synthetic.clips import Clip
from threer.geometry.procrustes import align_points
from threer.geometry.projection import unproject
from threer.types import Checkpoint, FloatArray, Pointmap, Prediction, Sim3, View

SURE = 10.0
SIGNATURE = 8
MEMORY = 20.0
"""Frames after which what two of them are taken to have in common has fallen to a third."""


class DriftingModel(torch.nn.Module):
    """What `StreamingModel` asks for, of one clip.

    way   [N] where a network that drifts puts each camera: camera to world
    bend  standard deviation of the smooth error of depth maps, as a share
    """

    def __init__(self, clip: Clip, way: Sequence[Sim3], bend: float = 0.02, seed: int = 0) -> None:
        super().__init__()
        height, width = clip.depth.shape[1:]
        self.input = InputSpec(max(height, width), square=False, patch=math.gcd(height, width), allow_square=True)
        self.checkpoint = Checkpoint("drifting", "none", (), "nothing learned")
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self._way = list(way)
        self._true = [Sim3(1.0, pose[:3, :3], pose[:3, 3]) for pose in clip.c2w.double().numpy()]
        self._signatures = _signature(clip.images * 2 - 1)
        generator = np.random.default_rng(seed)
        self._local = []
        for depth, K in zip(clip.depth, clip.K, strict=True):
            error = zoom(generator.normal(0, bend, (4, 5)), (height / 4, width / 5), order=3)[:height, :width]
            self._local.append(unproject(depth.double() * torch.from_numpy(np.exp(error)), K.double()).numpy())

    def encode(self, images: Tensor) -> Tensor:
        """[B, 1, 1] which frame of the clip each is."""
        found = torch.cdist(_signature(images.cpu()), self._signatures).argmin(dim=1)
        return found.float()[:, None, None].to(images.device)

    def local(self, views: Sequence[View], ref: int = 0, *, reference_only: bool = False) -> list[Prediction]:
        """Exact but for the depths: windows are short."""
        shown = [ref] if reference_only else range(len(views))
        references = _frames(views[ref])
        return [
            _predicted(
                self._true[r].inverse().after(self._true[k]).apply(self._local[k])
                for r, k in zip(references, _frames(views[v]), strict=True)
            )
            for v in shown
        ]

    def register(self, scene: Sequence[View], keys: Sequence[View], *, keys_only: bool = False) -> list[Prediction]:
        assert keys_only
        return [_predicted(self._place(k, scene, row) for row, k in enumerate(_frames(key))) for key in keys]

    def affinity(self, key: View, candidates: Sequence[View]) -> Tensor:
        rows = [
            [[1 + 9 * np.exp(-abs(a - b) / MEMORY)] for a, b in zip(_frames(c), _frames(key), strict=True)]
            for c in candidates
        ]
        return torch.tensor(rows)

    def _place(self, frame: int, scene: Sequence[View], row: int) -> FloatArray:
        nearest = min(scene, key=lambda view: abs(_frames(view)[row] - frame))
        other = _frames(nearest)[row]
        assert nearest.points is not None
        known = nearest.points[row].double().cpu().numpy()[::4, ::4].reshape(-1, 3)
        mine = self._local[other][::4, ::4].reshape(-1, 3)
        there = align_points(mine, known, (known != 0).any(axis=1).astype(np.float64))
        assert there is not None
        step = self._way[other].inverse().after(self._way[frame])
        placed: FloatArray = there.after(step).apply(self._local[frame])
        return placed


def _frames(view: View) -> list[int]:
    assert view.tokens is not None
    return [int(value) for value in view.tokens[:, 0, 0].round().tolist()]


def _signature(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), SIGNATURE).flatten(1)


def _predicted(points: object) -> Prediction:
    xyz = torch.from_numpy(np.stack(list(points))).float()  # type: ignore[call-overload]
    return Prediction(Pointmap(xyz, torch.full(xyz.shape[:-1], SURE)), "reference")
