"""Data sets on disk feed every kind of recipe, and every source of every recipe has a loader."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import layouts
from threer.data.datasets import names
from threer.errors import ThreerError
from threer.geometry.projection import project
from threer.geometry.transforms import apply, invert
from threer.training.batch import Roles
from threer.training.photographs import Photographs, batch_of
from threer.training.recipes import load_recipe, parse_recipe, recipe_names
from threer.training.sources import Request

TEXT = """
description = "for the test"
family = "dust3r"
network = { image_size = 32, enc_dim = 32, enc_heads = 2, dec_dim = 32, dec_heads = 2 }
views = { count = [2, 2], sampling = "pair" }
resolution = { sizes = [[48, 32]], portrait = true }
objective = { name = "dust3r", alpha = 1 }
schedule = { lr = 1e-3, min_lr = 0.0, epochs = 4, warmup = 1 }
batch = { per_device = 2 }
data = { samples_per_epoch = 10, sources = { bedlam = { interval = 2, far = 3.0, crop_jitter = 8 } } }
"""


def photographs(folder: Path, text: str = TEXT, **views: object) -> Photographs:
    if not (folder / "bedlam").exists():
        layouts.write("bedlam", folder / "bedlam")
    recipe = parse_recipe("test", tomllib.loads(text))
    return Photographs("bedlam", replace(recipe, views=replace(recipe.views, **views)), folder)  # type: ignore[arg-type]


def test_every_source_of_every_recipe_has_a_loader() -> None:
    used = {source for name in recipe_names() for source in load_recipe(name).data.sources}
    assert len(used) > 25
    assert used - set(names()) == {"synthetic"}


def test_batches_hold_what_the_recipe_asks_for(tmp_path: Path) -> None:
    source = photographs(tmp_path)
    request = Request(2, (48, 32), Roles())
    batch = source.draw(3, request, 0, torch.Generator().manual_seed(4))
    again = source.draw(3, request, 0, torch.Generator().manual_seed(4))
    other = source.draw(3, request, 0, torch.Generator().manual_seed(5))
    assert batch.images.shape == (3, 2, 3, 32, 48)
    assert torch.equal(batch.images, again.images)
    assert batch.sources != other.sources
    assert batch.metric.all()
    assert (batch.depth[batch.valid] <= 3.0).all()  # the recipe's limit, not the set's
    there = project(
        apply(invert(batch.c2w[:, 1]), batch.points_in(torch.eye(4).expand(3, 4, 4))[:, 0]), batch.K[:, 1]
    )
    inside = ((there >= 0) & (there < torch.tensor([48, 32]))).all(-1)
    assert inside[batch.valid[:, 0]].float().mean() > 0.6


def test_bounds_on_what_views_share_leave_out_pairs(tmp_path: Path) -> None:
    layouts.write("mp3d", tmp_path / "mp3d")  # neighbours share 0.6

    def pairs(bounds: str) -> int:
        text = TEXT[: TEXT.index("sources = ")] + f"sources = {{ mp3d = {{ {bounds} }} }} }}"
        return len(Photographs("mp3d", parse_recipe("test", tomllib.loads(text)), tmp_path).views)

    assert pairs("overlap = [0.5, 0.7]") == pairs("") > 0
    with pytest.raises(ThreerError, match="no pair of 2 views"):
        pairs("overlap = [0.7, 1.0]")


def test_the_view_in_front_becomes_the_world(tmp_path: Path) -> None:
    text = TEXT.replace("interval = 2", "interval = 1")
    source = photographs(tmp_path, text, count=(4, 4), sampling="window", drop_world=True)
    roles = Roles(0, (0, 1), (2, 3))
    batch = source.draw(1, Request(4, (48, 32), roles, before=True), 0, torch.Generator().manual_seed(0))
    assert batch.views == 4
    assert batch.roles == roles
    torch.testing.assert_close(batch.world, torch.eye(4)[None])  # samples are in the frame of their first view
    assert not torch.allclose(batch.c2w[:, 0], batch.world)


def test_standing_batches_keep_upright_cameras(tmp_path: Path) -> None:
    source = photographs(tmp_path)
    upright = source.draw(1, Request(2, (48, 32), Roles()), 0, torch.Generator().manual_seed(1))
    turned = source.draw(1, Request(2, (32, 48), Roles()), 0, torch.Generator().manual_seed(1))
    assert turned.turned.all()
    assert not upright.turned.any()
    torch.testing.assert_close(turned.camera.transpose(2, 3), upright.camera)
    torch.testing.assert_close(turned.images.transpose(3, 4), upright.images)


def test_what_is_missing_or_does_not_fit_is_said(tmp_path: Path) -> None:
    source = photographs(tmp_path, sampling="clip")
    samples = [source.views.sample(0, views, (48, 32)) for views in (2, 3)]
    with pytest.raises(ValueError, match="do not fit together"):
        batch_of(samples)
    with pytest.raises(ThreerError, match="recipe test needs bedlam, and there is no folder"):
        Photographs("bedlam", parse_recipe("test", tomllib.loads(TEXT)), tmp_path / "none")
