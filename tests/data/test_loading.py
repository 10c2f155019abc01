"""Mixtures, batches and samples: shares, alignment, exact resumption, and geometry that holds to the last step."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import layouts
from threer.data.batches import BatchPlan, Position
from threer.data.datasets import open_dataset
from threer.data.loading import Look, Samples, Stream, ViewSource
from threer.data.mixing import Joined, One, Repeated, Resized, by_shares, counts_of
from threer.data.sampling import ViewPlan
from threer.errors import SourceError, ThreerError
from threer.geometry.projection import project, unproject
from threer.geometry.transforms import apply, invert

SIZES = ((64, 48), (48, 32))


def located(mix: Joined | Repeated | Resized, epoch: int = 0) -> list[tuple[int, int]]:
    return [mix.locate(i, epoch) for i in range(len(mix))]


def test_repeating_resizing_and_joining() -> None:
    a, b = One(range(3)), One(range(5))
    assert located(Repeated(2, a)) == [(0, 0), (0, 0), (0, 1), (0, 1), (0, 2), (0, 2)]
    assert located(Joined((a, b)))[2:5] == [(0, 2), (1, 0), (1, 1)]
    wrapped = [draw for _, draw in located(Resized(11, b))]
    assert sorted(wrapped[:5]) == sorted(wrapped[5:10]) == [0, 1, 2, 3, 4]
    assert wrapped[10] == wrapped[0]
    assert located(Resized(4, b), 0) == located(Resized(4, b), 0)
    assert len({tuple(located(Resized(4, b), epoch)) for epoch in range(5)}) > 2
    nested = Joined((Resized(4, Joined((a, b))), Repeated(2, a)))
    assert len(nested.leaves) == 3
    assert {leaf for leaf, _ in located(nested)[4:]} == {2}
    with pytest.raises(IndexError):
        nested.locate(len(nested), 0)


def test_shares_are_kept_to_the_sample() -> None:
    assert counts_of([2, 1, 1], 10) == [5, 3, 2]
    assert sum(counts_of([0.3, 0.3, 0.4, 1e-9], 806)) == 806
    mix = by_shares({"a": range(7), "b": range(100)}, {"a": 3, "b": 1}, 40)
    assert Counter(leaf for leaf, _ in located(mix)) == {0: 30, 1: 10}
    with pytest.raises(ThreerError, match="weights must be positive"):
        counts_of([1, -1], 3)


def test_batches_are_aligned_over_processes_and_cover_the_epoch_once() -> None:
    plan = BatchPlan(103, 4, SIZES, views=(2, 6), world=3)
    ranks = [list(plan.on(rank, 3).epoch(1)) for rank in range(3)]
    assert plan.batches == len(ranks[0]) == 103 // 12
    together = [request for batches in ranks for batch in batches for request in batch]
    assert len({request.index for request in together}) == len(together) == 96
    for same in zip(*ranks, strict=True):
        assert len({(r.size, r.views) for batch in same for r in batch}) == 1
    assert list(plan.epoch(1)) == ranks[0]
    assert list(plan.epoch(2)) != ranks[0]
    weighted = BatchPlan(3000, 2, SIZES, weights=(2, 1))
    sizes = Counter(batch[0].size for batch in weighted.epoch(0))
    assert 930 < sizes[SIZES[0]] < 1070
    many = [batch[0] for epoch in range(8) for batch in plan.epoch(epoch)]
    assert {request.views for request in many} == {2, 3, 4, 5, 6}
    assert {request.size for request in many} == set(SIZES)
    with pytest.raises(ThreerError, match="3 samples do not fill one batch of 2 on 2 processes"):
        BatchPlan(3, 2, SIZES, world=2)


def test_positions_go_on_where_they_were() -> None:
    plan = BatchPlan(20, 3, SIZES)
    endless = plan.from_position(Position())
    expected = [next(endless) for _ in range(15)]
    position = Position()
    for _ in range(8):
        position = position.after(plan)
    assert position == Position(1, 2)
    state = json.loads(json.dumps(plan.state(position)))
    rest = plan.from_position(plan.restored(state))
    assert [next(rest) for _ in range(7)] == expected[8:]
    with pytest.raises(ThreerError, match="length was 20, is 21"):
        BatchPlan(21, 3, SIZES).restored(state)


def source(root: Path, name: str = "bedlam", kind: str = "clip", look: Look | None = None) -> ViewSource:
    if not root.exists():
        layouts.write(name, root)
    plan = ViewPlan(kind, interval=2)  # type: ignore[arg-type]
    return ViewSource(open_dataset(name, root), plan, 2, look)


def test_samples_hold_together_through_crop_zoom_and_turn(tmp_path: Path) -> None:
    """Depth of one view, warped by pose and intrinsics, meets the depth of the other."""
    views = source(tmp_path / "a", look=Look(portrait=True, crop_jitter=12))
    for size, turned in (((48, 32), False), ((32, 48), True)):
        sample = views.sample(1, 3, size, (4, 2))
        assert sample.images.shape == (3, 3, size[1], size[0])
        assert (sample.true_shape == torch.tensor([32, 48])).all()
        depth = sample.depth.mT if turned else sample.depth
        points = apply(sample.c2w, unproject(depth, sample.K))
        torch.testing.assert_close(sample.c2w[0], torch.eye(4))
        there = apply(invert(sample.c2w[1:2]), points[:1])
        pixels = project(there, sample.K[1:2])[0].round()
        inside = (pixels >= 0).all(-1) & (pixels[..., 0] < 48) & (pixels[..., 1] < 32)
        u, v = pixels[inside].long().unbind(-1)
        agree = (depth[1][v, u] / there[0][inside][..., 2] - 1).abs() < 0.1
        assert inside.float().mean() > 0.5
        assert agree.float().mean() > 0.95


def test_the_same_seed_gives_the_same_sample(tmp_path: Path) -> None:
    views = source(tmp_path / "a")
    first, again, other = (views.sample(2, 4, (48, 32), (seed, 0, 2)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.K, again.K)
    assert first.source == again.source
    assert first.seed == (1, 0, 2)
    assert not torch.equal(first.images, other.images)


def test_one_jitter_for_all_views_or_one_for_each(tmp_path: Path) -> None:
    truth = layouts.write("bedlam", tmp_path / "a")
    for together in (True, False):
        look = Look(jitter=(0.9, 0.0, 0.0, 0.0), together=together, crop_jitter=0)
        sample = source(tmp_path / "a", look=look).sample(0, 8, layouts.SIZE, (1,))
        frames = [int(name.split("/")[-1].split(".")[0]) for name in sample.source.split(", ")]
        changed = ((sample.images + 1) * 127.5).permute(0, 2, 3, 1).numpy()
        original = truth.images[frames].astype(float)
        factors = []
        for new, old in zip(changed, original, strict=True):
            unclipped = (old > 60) & (old < 120)
            factors.append(float(np.median(new[unclipped] / old[unclipped])))
        assert len(factors) == 8
        assert abs(factors[0] - 1) > 0.02
        assert (np.ptp(factors) < 0.02) == together


def test_background_is_masked_where_asked(tmp_path: Path) -> None:
    look = Look(background=1.0, jitter=None, crop_jitter=0)
    masked = source(tmp_path / "c", "co3d", "pair", look).sample(0, 2, (64, 48))
    kept = source(tmp_path / "c", "co3d", "pair", Look(background=0.0, jitter=None, crop_jitter=0)).sample(
        0, 2, (64, 48)
    )
    assert 0.3 < masked.valid.float().mean() < 0.7
    assert kept.valid.float().mean() > 0.95


def test_cameras_alone_and_sky(tmp_path: Path) -> None:
    alone = source(tmp_path / "r", "re10k").sample(0, 3, (64, 48))
    assert alone.traits.camera_only
    assert (alone.depth == 1).all()
    assert alone.valid.all()
    sky = source(tmp_path / "d", "dl3dv", look=Look(crop_jitter=0)).sample(0, 3, (64, 48))
    assert sky.sky[:, :4, 3:].all()
    assert not (sky.sky & sky.valid).any()
    assert (sky.depth >= 0).all()


def test_draws_of_no_use_are_replaced_and_damage_is_reported(tmp_path: Path) -> None:
    views = source(tmp_path / "a")
    for frame in range(6):
        np.save(tmp_path / "a" / "scene0" / "depth" / f"{frame:05d}.npy", np.zeros((48, 64)))
    sample = ViewSource(views.dataset, ViewPlan("pair", interval=1), 2).sample(0, 2, (48, 32), (3,))
    assert "00006" in sample.source
    assert "00007" in sample.source
    np.save(tmp_path / "a" / "scene0" / "depth" / "00006.npy", np.zeros((48, 64)))
    with pytest.raises(SourceError, match=r"20 draws of bedlam in a row were of no use; the last: .* has no depth"):
        views.sample(0, 2, (48, 32))
    (tmp_path / "a" / "scene0" / "rgb" / "00003.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"00003\.png is not an image"):
        views.dataset.read(0, 3)


def test_a_stream_resumes_exactly_with_any_number_of_workers(tmp_path: Path) -> None:
    mix = by_shares({"a": source(tmp_path / "a"), "b": source(tmp_path / "b", "wildrgbd")}, {"a": 1, "b": 1}, 12)
    plan = BatchPlan(len(mix), 2, SIZES, views=(2, 3))
    expected = []
    reading = iter(Stream(Samples(mix, seed=5), plan, list))
    for _ in range(8):
        expected.append([(s.source, s.images) for s in next(reading)])
    before = torch.random.get_rng_state()
    stream = Stream(Samples(mix, seed=5), plan, list, workers=1)
    reading = iter(stream)
    for _ in range(5):
        next(reading)
    assert torch.equal(torch.random.get_rng_state(), before)
    resumed = iter(Stream(Samples(mix, seed=5), plan, list, state=json.loads(json.dumps(stream.state()))))
    for batch in expected[5:]:
        for (name, images), sample in zip(batch, next(resumed), strict=True):
            assert sample.source == name
            assert torch.equal(sample.images, images)
    assert len({name.split()[0] for batch in expected for name, _ in batch}) == 2
