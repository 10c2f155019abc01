"""A streaming model that sees the truth: cameras on a line, and pictures that say where they were taken.

Its confidence is the real overlap of what two frames see, so the logic around the networks can be tested for what
it is meant to do. A picture encodes (place, clarity, pattern) in its three channels; clarity 1 is a good picture, 0
a black one, in between a blurred one. The third has a texture, without which it would show nothing. A frame at
place p sees the points p + u, u from -1 to 1, at depth 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from threer.config import InputSpec
from threer.types import Frame, Pointmap, Prediction, View

SIZE = 16
SPAN = 1000.0
TEXTURE = 0.1
VIEW = 12.0
"""Frames see something in common when they are nearer to each other than this."""
SURE = 9.0
"""Confidence - 1 of two clear frames from one place."""


def frame(index: int, place: float, clarity: float = 1.0) -> Frame:
    """Frame ``index``, taken at ``place`` in 0..1000."""
    image = torch.empty(3, SIZE, SIZE)
    image[0], image[1] = place / SPAN, clarity
    image[2] = (place * 0.37) % 1  # neighbours look different; the same place looks the same
    image[2] += clarity * TEXTURE * torch.tensor([[1.0, -1], [-1, 1]]).kron(torch.ones(SIZE // 2, SIZE // 2))
    return Frame(image, index, index / 10, f"{index}", (SIZE, SIZE), np.eye(2, 3))


class ToyModel(torch.nn.Module):
    """What `StreamingModel` asks for, exact. ``blind_retrieval``: affinity knows nothing."""

    def __init__(self, blind_retrieval: bool = False) -> None:
        super().__init__()
        self.input = InputSpec(SIZE)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.blind_retrieval = blind_retrieval
        self.encoded = 0
        self.windows: list[list[float]] = []
        self.registrations = 0

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        values = (images.mean(dim=(2, 3)) + 1) / 2
        return (values * torch.tensor([SPAN, 1.0, 1.0]))[:, None]

    def local(self, views: Sequence[View], ref: int = 0, *, reference_only: bool = False) -> list[Prediction]:
        self.windows.append([float(_place(v)[0]) for v in views])
        predictions = []
        for i, view in enumerate(views):
            others = [o for j, o in enumerate(views) if j != (ref if i != ref else i)]
            seen = torch.stack([_overlap(view, o) for o in others]).amax(0)
            points = _grid(_place(view) - _place(views[ref]))
            predictions.append(_prediction(points, 1 + SURE * _clarity(view) * seen))
        return predictions[ref : ref + 1] if reference_only else predictions

    def register(self, scene: Sequence[View], keys: Sequence[View], *, keys_only: bool = False) -> list[Prediction]:
        self.registrations += len(keys)
        assert keys_only
        predictions = []
        for key in keys:
            overlaps = torch.stack([_overlap(s, key) for s in scene])  # [V, B]
            best = overlaps.argmax(0)
            points = torch.stack([self._place_in(scene[int(v)], key, b) for b, v in enumerate(best)])
            predictions.append(_prediction(points, 1 + SURE * _clarity(key) ** 2 * overlaps.amax(0)))
        return predictions

    def affinity(self, key: View, candidates: Sequence[View]) -> Tensor:
        if self.blind_retrieval:
            return torch.full((len(candidates), key.batch, 1), 2.0)
        return torch.stack([1 + SURE * _overlap(c, key)[:, None] for c in candidates])

    @staticmethod
    def _place_in(scene: View, key: View, row: int) -> Tensor:
        """[H, W, 3] points of ``key`` in the scale and frame of the points known of ``scene``."""
        assert scene.points is not None
        known = scene.points[row, 0]
        scale = (known[-1, 0] - known[0, 0]) / 2
        points: Tensor = _grid(_place(key)[row : row + 1] - _place(scene)[row : row + 1])[0] * scale
        points[..., 0] += known[:, 0].mean()
        return points


def _place(view: View) -> Tensor:
    assert view.tokens is not None
    return view.tokens[:, 0, 0]


def _clarity(view: View) -> Tensor:
    assert view.tokens is not None
    return view.tokens[:, 0, 1]


def _overlap(a: View, b: View) -> Tensor:
    return (1 - (_place(a) - _place(b)).abs() / VIEW).clamp(min=0)


def _grid(offset: Tensor) -> Tensor:
    """[B] -> [B, H, W, 3] points seen from ``offset``."""
    u = torch.linspace(-1, 1, SIZE)
    grid = torch.stack([u.expand(SIZE, SIZE), u[:, None].expand(SIZE, SIZE), torch.ones(SIZE, SIZE)], dim=-1)
    points = grid.repeat(len(offset), 1, 1, 1)
    points[..., 0] += offset[:, None, None]
    return points


def _prediction(points: Tensor, confidence: Tensor) -> Prediction:
    conf = confidence[:, None, None].expand(points.shape[:-1]).clone()
    return Prediction(Pointmap(points, conf), "reference")
