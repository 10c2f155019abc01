"""DUSt3R on many photos: each encoded once, pairs in batches, and the scene that comes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.alignment_world import World, world
from threer.config import AlignmentConfig, InputSpec
from threer.errors import CheckpointError, ReconstructionError
from threer.geometry.procrustes import align_cameras
from threer.models import DUSt3R, DUSt3RConfig
from threer.pipelines.alignment.pairs import complete, components, most_alike
from threer.pipelines.alignment.predictions import predict
from threer.pipelines.alignment.session import AlignmentSession, choose_pairs
from threer.types import Frame, Pointmap, Prediction, Update, View

SIZES = [(24, 36), (36, 24)]


class Seer:
    """A model that knows a world by heart: tokens carry a photo's number, pairs come in units of their own."""

    input = InputSpec(64, square=False)

    def __init__(self, truth: World) -> None:
        self.truth = truth
        self.encoded = 0
        self.batches: list[int] = []

    def parameters(self):
        yield torch.zeros(1)

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return images.mean(dim=(1, 2, 3))[:, None, None].expand(-1, 4, 3)

    def __call__(self, views: Sequence[View]) -> list[Prediction]:
        assert all(view.image is None for view in views), "tokens are enough"
        self.batches.append(views[0].batch)
        count = len(self.truth.own)
        numbers = [[round(float((t.mean() + 1) / 2 * count)) for t in view.tokens] for view in views]
        maps: list[list[Tensor]] = [[], []]
        for i, j in zip(*numbers, strict=True):
            relative = torch.from_numpy(np.linalg.inv(self.truth.c2w[i]) @ self.truth.c2w[j])
            other = self.truth.own[j] @ relative[:3, :3].T + relative[:3, 3]
            for kept, points in zip(maps, (self.truth.own[i], other), strict=True):
                kept.append((1 + 0.1 * i) * points.float())
        return [
            Prediction(Pointmap(torch.stack(m), torch.full(torch.stack(m).shape[:-1], 5.0)), "first") for m in maps
        ]


def frames(truth: World) -> list[Frame]:
    found = []
    for i, (h, w) in enumerate(truth.sizes):
        image = torch.full((3, h, w), i / len(truth.sizes))
        half = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5]])
        found.append(Frame(image, i, float(i), f"{'abcdefgh'[i]}.png", (2 * w, 2 * h), half))
    return found


def run(session: AlignmentSession, photos: Sequence[Frame]) -> list[Update]:
    for photo in photos:
        assert session.push(photo) == []
    return list(session.finish())


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_known_world_comes_back(storage: str) -> None:
    truth = world(5, SIZES, seed=30)
    model, heard = Seer(truth), []
    config = AlignmentConfig(pair_storage=storage, pairs_at_once=3, hide_floaters=False)  # type: ignore[arg-type]
    session = AlignmentSession(model, config, progress=lambda *what: heard.append(what))
    updates = run(session, frames(truth))
    assert model.encoded == 5
    assert sum(model.batches) == 20
    assert max(model.batches) == 3
    assert {what for what, _, _ in heard} == {"photos", "pairs", "alignment"}
    assert ("pairs", 20, 20) in heard
    assert [update.kind for update in updates] == ["final"] * 5
    np.testing.assert_allclose(updates[0].c2w, np.eye(4), atol=1e-9)
    move = align_cameras(np.stack([update.c2w for update in updates]), truth.c2w)
    close = 1e-4 if storage == "float32" else 2e-3
    for i, update in enumerate(updates):
        np.testing.assert_allclose(move.apply(update.points.xyz.double().numpy()), truth.points(i), atol=5 * close)
        assert update.K[0, 0] == pytest.approx(2 * truth.focals[i], rel=close)  # original pixels are half as large
        np.testing.assert_allclose(update.K[:2, 2], [update.frame.size[0] - 0.5, update.frame.size[1] - 0.5])
        local = update.points.xyz.double().numpy() @ update.c2w[:3, :3] - update.c2w[:3, 3] @ update.c2w[:3, :3]
        np.testing.assert_allclose(local, update.local.xyz, atol=1e-5)
    assert session.report["pairs"] == 20
    assert session.report["unplaced"] == {}
    assert session.report["ambiguous"] == []


def test_the_published_preset_runs() -> None:
    truth = world(3, seed=36)
    session = AlignmentSession(Seer(truth), AlignmentConfig.parity(alignment_steps=5))
    updates = run(session, frames(truth))
    assert all(np.isfinite(update.c2w).all() for update in updates)
    np.testing.assert_allclose(
        updates[0].K[:2, 2], [36.5, 24.5]
    )  # W/2 and H/2 of the network's picture, as published


def test_known_intrinsics_and_poses_stay() -> None:
    truth = world(4, seed=31)
    photos = frames(truth)
    K = np.array([[90.0, 0, 35.5], [0, 92.0, 23.5], [0, 0, 1]])
    session = AlignmentSession(Seer(truth), intrinsics=K, poses={1: truth.c2w[1], 2: truth.c2w[2]})
    updates = run(session, photos)
    for update in updates:
        np.testing.assert_array_equal(update.K, K)
    for i in (1, 2):
        np.testing.assert_allclose(updates[i].c2w, truth.c2w[i], atol=1e-9)


def test_a_blank_photo_fails_and_says_why() -> None:
    truth = world(4, seed=32)

    class Doubting(Seer):
        def __call__(self, views: Sequence[View]) -> list[Prediction]:
            predictions = super().__call__(views)
            for view, prediction in zip(views, predictions, strict=True):
                for row, token in enumerate(view.tokens):
                    if round(float((token.mean() + 1) / 2 * 4)) == 2:
                        prediction.points.conf[row] = 1.0
            return predictions

    session = AlignmentSession(Doubting(truth))
    updates = run(session, frames(truth))
    assert [update.kind for update in updates] == ["final", "final", "failed", "final"]
    assert np.isnan(updates[2].c2w).all()
    assert updates[2].points is None
    assert session.report["unplaced"] == {"c.png": "no sure pair joins it to the 3 photos of the scene"}


def test_one_and_two_photos_go_the_short_way() -> None:
    truth = world(2, seed=33)
    model = DUSt3R(
        DUSt3RConfig(image_size=64, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=2, dec_heads=2)
    )
    photos = [Frame(torch.rand(3, 32, 48), i, 0.0, f"{i}.png", (48, 32), np.eye(2, 3)) for i in range(2)]
    session = AlignmentSession(model.eval())
    assert len(run(session, photos)) == 2
    assert session.report["anchor"] in ("0.png", "1.png")
    assert len(truth.own) == 2


def test_a_graph_in_parts_is_named() -> None:
    truth = world(5, seed=34)
    config = AlignmentConfig(pair_graph="one-reference", pair_reference=4, pair_distance=2)
    with pytest.raises(
        ReconstructionError, match=r"3 parts that never meet: c.png, d.png, e.png; a.png; b.png\. Choose"
    ):
        run(AlignmentSession(Seer(truth), config), frames(truth))
    with pytest.raises(ReconstructionError, match="must be one of 0 to 4, got 7"):
        run(
            AlignmentSession(Seer(truth), AlignmentConfig(pair_graph="one-reference", pair_reference=7)),
            frames(truth),
        )
    with pytest.raises(ReconstructionError, match="no frame"):
        AlignmentSession(Seer(truth)).finish()


def test_broken_weights_are_named() -> None:
    class Broken(Seer):
        def __call__(self, views: Sequence[View]) -> list[Prediction]:
            predictions = super().__call__(views)
            predictions[1].points.conf[-1, 1, 1] = torch.nan
            return predictions

    truth = world(3, seed=35)
    with pytest.raises(CheckpointError, match=r"\([abc]\.png\)"):
        run(AlignmentSession(Broken(truth)), frames(truth))


def test_graphs_by_settings() -> None:
    def likeness_views(count: int) -> list[View]:
        """Photos on a ring, each most like its neighbours."""
        angles = 2 * torch.pi * torch.arange(count) / count
        tokens = torch.stack([angles.cos(), angles.sin()], dim=1)
        return [View(tokens=t.expand(1, 3, 2), true_shape=torch.tensor([[32, 32]])) for t in tokens]

    few, many = likeness_views(8), likeness_views(20)
    assert choose_pairs(few, AlignmentConfig()) == complete(8)
    ring = choose_pairs(many, AlignmentConfig(pair_neighbours=2))
    assert set(ring) == {(min(i, (i + 1) % 20), max(i, (i + 1) % 20)) for i in range(20)}
    assert choose_pairs(few, AlignmentConfig(pair_graph="sliding", pair_window=1)) == [(i, i + 1) for i in range(7)]
    closed = choose_pairs(few, AlignmentConfig(pair_graph="sliding", pair_window=1, pair_cycle=True))
    assert set(closed) == {(i, i + 1) for i in range(7)} | {(0, 7)}
    steps = choose_pairs(few, AlignmentConfig(pair_graph="log"))
    assert {j - i for i, j in steps} == {1, 2, 4}
    assert choose_pairs(few, AlignmentConfig(pair_distance=1)) == [(i + 1, i) for i in range(7)]


def test_what_is_alike_always_hangs_together() -> None:
    likeness = np.eye(6)
    likeness[:3, :3] = likeness[3:, 3:] = 0.9
    likeness[2, 3] = 0.2
    pairs = most_alike(likeness, 1)
    assert len(components(6, pairs)) == 1
    assert (2, 3) in pairs


def test_batches_do_not_change_what_pairs_say() -> None:
    torch.manual_seed(2)
    sizes = {"enc_dim": 16, "enc_depth": 1, "enc_heads": 2, "dec_dim": 16, "dec_depth": 2, "dec_heads": 2}
    model = DUSt3R(DUSt3RConfig(image_size=64, ray_prior=0.6, **sizes)).eval()
    shapes = [(32, 48), (48, 32), (32, 48), (32, 48)]
    photos = [Frame(torch.rand(3, *s), i, 0.0, f"{i}.png", s[::-1], np.eye(2, 3)) for i, s in enumerate(shapes)]
    with torch.no_grad():
        views = [View(p.image[None] * 2 - 1) for p in photos]
        cached = [View(tokens=model.encode(v.image), true_shape=v.shape) for v in views]
        graph = [(0, 1), (0, 2), (3, 2), (1, 0), (2, 3)]
        pairs = predict(model, photos, cached, graph, batch=4)
        for e, (i, j) in enumerate(graph):
            own, other = (p.points for p in model([views[i], views[j]]))
            torch.testing.assert_close(pairs.own[e].xyz, own.xyz[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(pairs.other[e].conf, other.conf[0], atol=1e-5, rtol=1e-4)
