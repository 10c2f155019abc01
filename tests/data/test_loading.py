"""Samples: decided by their seed, and geometry that holds to the last step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import layouts
from threer.data.datasets import open_dataset
from threer.data.loading import Look, ViewSource
from threer.data.sampling import ViewPlan
from threer.errors import SourceError
from threer.geometry.projection import project, unproject
from threer.geometry.transforms import apply, invert


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
