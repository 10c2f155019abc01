"""What a pool of generated rooms hands out is what was rendered: image, depth, pose, lens and world of one clip."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from threer.training.batch import Batch, Roles
from threer.training.pool import PoolPlan, RoomPool
from threer.training.rounds import Kept
from threer.training.sources import Request
from tiny_training import WINDOWS, tiny_recipe

LANES, ROUNDS = 2, 3
SIZE = (32, 32)
_TINY = tiny_recipe(WINDOWS)
RECIPE = replace(_TINY, synthetic=replace(_TINY.synthetic, style="hand-held", clutter=(0.0, 0.0), colour=0.0))
ALONE = Request(2, SIZE, Roles())


@pytest.fixture(scope="module")
def pool() -> RoomPool:
    """Of two rounds in each lane, after the first of three was replaced."""
    pool = RoomPool(RECIPE, PoolPlan(2, 2), LANES, range(LANES))
    pool.advance(0)
    pool.render_round()
    return pool


@pytest.fixture(scope="module")
def rounds(pool: RoomPool) -> list[Kept]:
    return [pool.course.render(k, pool.course.draw(k), torch.device("cpu")) for k in range(ROUNDS)]


@pytest.mark.parametrize("lane", range(LANES))
def test_windows_are_of_one_clip_each(pool: RoomPool, rounds: list[Kept], lane: int) -> None:
    slots = {0: 2, 1: 1}  # the newest round is where the oldest was
    clips, frames = torch.tensor([1, 0, 1]), torch.tensor([[0, 3], [2, 1], [3, 2]])
    world = torch.tensor([1, 3, 0])
    batch = pool.windows(lane, clips, frames, world, ALONE)
    for row, clip in enumerate(clips.tolist()):
        kept, at = rounds[slots[clip]], frames[row]
        pictures = ((batch.images[row] + 1) * 127.5).round().to(torch.uint8)
        assert torch.equal(pictures, kept.images[lane, at])
        for name, values in (("depth", kept.depth.float()), ("c2w", kept.c2w), ("K", kept.K)):
            assert torch.equal(getattr(batch, name)[row], values[lane, at]), name
        assert torch.equal(batch.distortion[row], kept.distortion[lane].expand(2, 2))
        assert torch.equal(batch.world[row], kept.c2w[lane, world[row]])


def test_no_two_clips_of_a_run_are_alike(pool: RoomPool, rounds: list[Kept]) -> None:
    seeds = [seed for number in range(50) for seed in pool.course.seeds(number)]
    assert len(set(seeds)) == 50 * LANES
    lenses = torch.cat([kept.K[:, 0].flatten(1) for kept in rounds])
    assert len(lenses.unique(dim=0)) == ROUNDS * LANES
    assert len(torch.cat([kept.distortion for kept in rounds]).unique(dim=0)) == ROUNDS * LANES


def test_all_lanes_together_render_as_often_as_the_recipe_says(pool: RoomPool) -> None:
    """Each clip of a lane stands for as many samples as are drawn from it on average."""
    reuse = RECIPE.synthetic.reuse
    assert pool.due(int(10 * reuse * LANES)) - pool.due(0) == 10
    assert pool.due(int(reuse * LANES) - 1) == pool.due(0) == 2


def test_drawn_views_and_worlds_are_of_the_clip_they_are_drawn_from(pool: RoomPool, rounds: list[Kept]) -> None:
    batch: Batch = pool.draw(40, ALONE, 1, torch.Generator().manual_seed(0))
    clips = {float(kept.K[1, 0, 0, 0]): kept for kept in rounds[1:]}
    assert {float(fx) for fx in batch.K[:, 0, 0, 0]} == set(clips)
    elsewhere = 0
    for row in range(len(batch)):
        kept = clips[float(batch.K[row, 0, 0, 0])]
        of_clip = [pose for pose in kept.c2w[1] if torch.equal(pose, batch.world[row])]
        assert len(of_clip) == 1
        elsewhere += not any(torch.equal(pose, batch.world[row]) for pose in batch.c2w[row])
        for view in range(2):
            assert any(torch.equal(pose, batch.c2w[row, view]) for pose in kept.c2w[1])
    assert 4 < elsewhere < 20  # half of the worlds are any frame of the clip, half of these no view


def test_batches_have_the_roles_that_were_asked_for_and_colours_of_their_own(
    pool: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = Roles(2, (0, 1), (2,))
    request = Request(3, SIZE, roles)
    plain = pool.draw(3, request, 0, torch.Generator().manual_seed(5))
    assert plain.roles == roles
    monkeypatch.setattr(pool, "settings", replace(pool.settings, colour=1.0))
    coloured = pool.draw(3, request, 0, torch.Generator().manual_seed(5))
    assert torch.equal(coloured.depth, plain.depth)
    assert ((coloured.images - plain.images).abs().mean((1, 2, 3, 4)) > 0.02).all()
    assert coloured.images.min() >= -1
    assert coloured.images.max() <= 1


def test_colours_are_kept_to_half_a_step() -> None:
    images = torch.rand(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    clips: Any = SimpleNamespace(
        images=images, depth=images[:, :, 0], c2w=torch.eye(4), K=torch.eye(3), distortion=torch.zeros(1, 2)
    )
    assert (Kept.of(clips).images / 255 - images).abs().max() <= 0.5 / 255 + 1e-6
