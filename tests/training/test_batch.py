"""The batch that data sets yield and objectives take."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from threer.geometry.projection import project
from threer.geometry.transforms import invert
from threer.training.batch import Batch, Roles, cat


def batch(samples: int = 2, views: int = 3, size: tuple[int, int] = (4, 6), seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    c2w = torch.eye(4).repeat(samples, views, 1, 1)
    c2w[..., :3, 3] = torch.randn(samples, views, 3, generator=generator)
    K = torch.tensor([[5.0, 0, 2.5], [0, 5.0, 1.5], [0, 0, 1]]).repeat(samples, views, 1, 1)
    return Batch.of(
        torch.rand(samples, views, 3, height, width, generator=generator),
        torch.rand(samples, views, height, width, generator=generator) + 0.5,
        c2w,
        K,
        sources=[f"set/{seed}/{i}" for i in range(samples)],
    )


def test_points_project_to_their_pixels() -> None:
    made = batch()
    pixels = project(made.camera, made.K)
    torch.testing.assert_close(pixels[0, 0, 2, 5], torch.tensor([5.0, 2.0]))
    in_first = made.points_in(made.reference)
    torch.testing.assert_close(in_first[:, 0], made.camera[:, 0])
    offset = (invert(made.c2w[:, 0]) @ made.c2w[:, 1])[:, None, None, :3, 3]
    torch.testing.assert_close(in_first[:, 1], made.camera[:, 1] + offset)


def test_depth_that_is_not_valid_reaches_nothing() -> None:
    made = batch()
    depth = made.depth.clone()
    depth[0, 0, 0] = torch.tensor([torch.nan, torch.inf, -1.0, 0.0, 1.0, 2.0])
    holes = Batch.of(made.images, depth, made.c2w, made.K)
    assert holes.valid[0, 0, 0].tolist() == [False] * 4 + [True] * 2
    assert torch.isfinite(holes.points_in(holes.reference)).all()
    assert (holes.camera[0, 0, 0, :4] == 0).all()


def test_portrait_pictures_stored_landscape_keep_their_points() -> None:
    upright = batch(1, 2, (6, 4))
    stored = Batch.of(upright.images.mT, upright.depth.mT, upright.c2w, upright.K, true_shape=upright.true_shape)
    assert stored.turned.all()
    assert not upright.turned.any()
    torch.testing.assert_close(stored.camera.transpose(2, 3), upright.camera)


def test_samples_and_views_are_chosen_and_joined() -> None:
    one, two = batch(1, seed=1), batch(2, seed=2)
    both = cat([one, two])
    assert len(both) == 3
    assert both.sources == ("set/1/0", "set/2/0", "set/2/1")
    assert both.samples(slice(1, 3)).sources == two.sources
    assert torch.equal(both.samples(torch.tensor([0])).images, one.images)
    roles = Roles(scene=(0,), keys=(1,))
    left = both.with_world_of(0, roles)
    assert left.views == 2
    assert torch.equal(left.world, both.c2w[:, 0])
    assert torch.equal(left.depth[:, 1], both.depth[:, 2])
    assert torch.equal(left.to("cpu").valid, left.valid)
    with pytest.raises(ValueError, match="do not fit"):
        cat([one, left])
    with pytest.raises(ValueError, match="nothing"):
        cat([])


def test_what_does_not_fit_is_refused() -> None:
    made = batch()
    with pytest.raises(ValueError, match=r"Batch\.K must be"):
        replace(made, K=made.K[:1])
    with pytest.raises(ValueError, match=r"Batch\.valid must be bool"):
        replace(made, valid=made.valid.float())
    with pytest.raises(ValueError, match="beyond"):
        replace(made, roles=Roles(reference=3))
    with pytest.raises(ValueError, match="no colour"):
        Batch.of(made.images, made.depth, made.c2w, made.K, colour=made.valid)
    with pytest.raises(ValueError, match="scene and key"):
        Roles(scene=(0,))
    with pytest.raises(ValueError, match="twice"):
        Roles(scene=(0, 1), keys=(1,))
