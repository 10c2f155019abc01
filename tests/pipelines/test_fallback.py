"""Any model for pairs streams: exact pairs in unknown frames and scales give the exact scene."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from threer.config import InputSpec, StreamingConfig
from threer.geometry.procrustes import align_points
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.fallback import PairStreaming
from threer.types import Frame, Pointmap, Prediction, View

SIZE = 16
COUNT = 40
REACH = 12
"""Frames further apart than this have nothing in common."""


def truth(index: int) -> Tensor:
    """[H, W, 3] what frame ``index`` sees: a piece of a wavy surface, further along for each frame."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    x = u + 0.1 * index
    return torch.stack([x, v, 3 + 0.3 * torch.sin(2 * x) * torch.cos(3 * v)], dim=-1)


def picture(index: int) -> Frame:
    return Frame(
        torch.full((3, SIZE, SIZE), index / 100), index, index / 10, str(index), (SIZE, SIZE), np.eye(2, 3)
    )


class ExactPairs(torch.nn.Module):
    """Knows the truth about every frame, and tells it in a random frame and scale for each pair.

    A pair without overlap is told wrongly, and with the lowest confidence. Tokens are points on a circle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input = InputSpec(SIZE)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self._draws = torch.Generator().manual_seed(1)
        self.pairs = 0

    def encode(self, images: Tensor) -> Tensor:
        angle = (images.mean(dim=(1, 2, 3)) + 1) / 2 * math.pi
        circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return torch.cat([circle, -circle], dim=-1)[:, None]  # as layer norm wants them: mean 0

    def forward(self, views: Sequence[View]) -> list[Prediction]:
        first, second = (self._indices(view) for view in views)
        self.pairs += len(first)
        maps: list[list[Pointmap]] = [[], []]
        for pair in zip(first, second, strict=True):
            R = torch.linalg.qr(torch.randn(3, 3, generator=self._draws)).Q
            R = R * torch.linalg.det(R)
            scale, t = 0.5 + torch.rand(1, generator=self._draws), torch.randn(3, generator=self._draws)
            overlap = max(0.0, 1 - abs(pair[0] - pair[1]) / REACH)
            for side, index in enumerate(pair):
                points = truth(index) if overlap else torch.randn(SIZE, SIZE, 3, generator=self._draws)
                maps[side].append(Pointmap(scale * points @ R.T + t, torch.full((SIZE, SIZE), 1 + 20 * overlap)))
        return [
            Prediction(Pointmap(torch.stack([m.xyz for m in side]), torch.stack([m.conf for m in side])), "first")
            for side in maps
        ]

    @staticmethod
    def _indices(view: View) -> list[int]:
        assert view.tokens is not None
        return [round(100 * math.atan2(t[0][1], t[0][0]) / math.pi) for t in view.tokens.tolist()]


def seen(model: ExactPairs, *indices: int, points: Sequence[Tensor] | None = None) -> View:
    """A view whose batch is the frames ``indices``."""
    images = torch.stack([picture(i).image for i in indices])
    shape = torch.tensor([[SIZE, SIZE]] * len(indices))
    stacked = None if points is None else torch.stack(list(points))
    return View(tokens=model.encode(images * 2 - 1), true_shape=shape, points=stacked)


def off(maps: Sequence[Tensor], indices: Sequence[int]) -> float:
    """Largest distance from the truth after one similarity for all ``maps``."""
    got = torch.stack(list(maps)).reshape(-1, 3).double().numpy()
    want = torch.stack([truth(i) for i in indices]).reshape(-1, 3).double().numpy()
    motion = align_points(got, want)
    assert motion is not None
    return float(np.linalg.norm(motion.apply(got) - want, axis=1).max())


@pytest.mark.parametrize("ref", [0, 1, 3])
def test_a_window_is_put_together_in_one_frame(ref: int) -> None:
    model = ExactPairs()
    window = [5, 4, 6, 3, 30]  # the last one has nothing in common with the others
    predictions = PairStreaming(model).local([seen(model, i, i + 2) for i in window], ref)
    assert model.pairs == 8
    for row in range(2):
        maps = [p.points.xyz[row] for p in predictions]
        assert off(maps[:4], [i + 2 * row for i in window[:4]]) < 1e-4
        assert float(predictions[4].points.conf[row].max()) == 1


def test_the_reference_alone_is_the_same() -> None:
    views = [seen(ExactPairs(), i) for i in (5, 4, 6)]
    (alone,) = PairStreaming(ExactPairs()).local(views, reference_only=True)
    torch.testing.assert_close(alone.points.xyz, PairStreaming(ExactPairs()).local(views)[0].points.xyz)


def test_registration_recovers_the_world_exactly() -> None:
    model = ExactPairs()
    streaming = PairStreaming(model)
    worlds = [[truth(i) * 0.7 for i in row] for row in ((2, 9), (4, 11), (30, 30))]
    worlds[0][0][:3] = 0  # unknown there
    scene = [seen(model, *row, points=p) for row, p in zip(((2, 9), (4, 11), (30, 30)), worlds, strict=True)]
    local = [truth(i) * 3 - 1 for i in (6, 8)]
    local[1][5:9] = 0
    (key,) = streaming.register(scene, [seen(model, 6, 8, points=local)], keys_only=True)
    for row, index in enumerate((6, 8)):
        torch.testing.assert_close(key.points.xyz[row], truth(index) * 0.7, rtol=0, atol=2e-5)
    assert key.points.conf.min() > 10
    everything = streaming.register(scene, [seen(model, 6, 8, points=local)])
    assert len(everything) == 4
    torch.testing.assert_close(everything[1].points.xyz, torch.stack(worlds[1]))


def test_a_frame_that_shows_nothing_known_is_not_placed() -> None:
    model = ExactPairs()
    scene = [seen(model, i, points=[truth(i)]) for i in (1, 2)]
    (key,) = PairStreaming(model).register(scene, [seen(model, 30, points=[truth(30)])], keys_only=True)
    assert float(key.points.conf.max()) == 1
    assert not key.points.xyz.any()


def test_retrieval_prefers_frames_that_look_alike() -> None:
    model = ExactPairs()
    scores = PairStreaming(model).affinity(seen(model, 9, 9), [seen(model, i, i) for i in (30, 10, 1)])
    assert scores.shape == (3, 2, 1)
    assert scores[:, 0, 0].argsort(descending=True).tolist() == [1, 2, 0]
    assert float(scores.min()) >= 1


@pytest.mark.parametrize("stride", [1, 2])
def test_exact_pairs_stream_to_the_exact_scene(stride: int) -> None:
    config = StreamingConfig(
        stride=stride, radius=2, init_frames=3, scene_frames=4, buffer_size=12, duplicate_tolerance=0
    )
    session = StreamingSession(PairStreaming(ExactPairs()), config)
    updates = [u for i in range(COUNT) for u in session.push(picture(i))] + session.finish()
    assert [u.kind for u in updates] == ["final"] * COUNT
    assert off([u.points.xyz for u in updates if u.points], range(COUNT)) < 2e-3


def test_an_untrained_dust3r_streams(frames: list[Frame]) -> None:
    torch.manual_seed(0)
    model = DUSt3R(
        DUSt3RConfig(image_size=32, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=1, dec_heads=2)
    ).eval()
    wide = [Frame(f.image[:, :16], f.index, f.timestamp, f.name, (32, 16), np.eye(2, 3)) for f in frames[:20]]
    config = StreamingConfig(stride=1, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, track_min_conf=0)
    session = StreamingSession(PairStreaming(model), config)
    updates = [u for f in wide for u in session.push(f)] + session.finish()
    assert [u.frame.index for u in updates] == list(range(20))
    for update in updates:
        assert update.points is not None
        assert update.points.conf.shape == (16, 32)
        assert torch.isfinite(update.points.xyz).all()
