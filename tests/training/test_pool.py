"""Generated rooms as a source: rings, lanes, frames, modalities, and batches by their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from threer.data.synthetic import HAND_HELD, Lens
from threer.data.synthetic.raycast import clearance
from threer.data.synthetic.room_style import PLAIN
from threer.data.synthetic.rooms import sample_room
from threer.errors import ThreerError
from threer.geometry.transforms import apply
from threer.training.batch import Batch, Roles, cat
from threer.training.pool import PoolPlan, RoomPool
from threer.training.recipes.recipe import Recipe, Source
from threer.training.rounds import PLAIN_FOV, style_of
from threer.training.sources import Feed, Request, lanes_for, number_of
from tiny_training import PAIRS, WINDOWS, tiny_recipe

RECIPE = tiny_recipe(WINDOWS)


@pytest.fixture(scope="module")
def pool() -> RoomPool:
    pool = RoomPool(RECIPE, PoolPlan(2, 2), 2, [0, 1])
    pool.advance(0)
    return pool


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames_of(pool: RoomPool, views: int, count: int = 200) -> torch.Tensor:
    return pool._frames(count, views, generator(1))


def test_the_same_numbers_draw_the_same_windows_in_other_colours_otherwise(pool: RoomPool) -> None:
    request = Request(3, (32, 32), Roles())
    windows = pool.draw(4, request, 0, generator())
    assert windows.images.min() >= -1
    assert windows.images.max() <= 1
    assert torch.equal(windows.images, pool.draw(4, request, 0, generator()).images)
    other = pool.draw(4, request, 1, generator())
    assert not torch.equal(windows.depth, other.depth), "lanes have rooms of their own"
    for b in range(4):
        assert len({tuple(p.flatten().tolist()) for p in windows.c2w[b]}) == 3, "frames repeat in a window"
    assert bool(windows.metric.all())


@pytest.mark.parametrize("seed", [-1, 100])
def test_no_seed_leads_to_the_rooms_of_validation(seed: int) -> None:
    with pytest.raises(ThreerError, match=f"seed must be from 0 to 99, got {seed}"):
        RoomPool(replace(RECIPE, seed=seed), PoolPlan(2, 2), 2, [0, 1])


def test_a_run_that_goes_on_renders_what_it_had() -> None:
    plan = PoolPlan(2, 1)
    whole = RoomPool(RECIPE, plan, 1, [0])
    for samples in (0, 4, 8, 12):
        whole.advance(samples)
    later = RoomPool(RECIPE, plan, 1, [0])
    later.advance(12)
    assert whole.rounds == later.rounds == 1 + 12 / RECIPE.synthetic.reuse
    request = Request(3, (32, 32), Roles())
    a, b = (p.draw(6, request, 0, generator()) for p in (whole, later))
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.depth, b.depth)


def test_windows_are_in_order_and_pairs_and_sets_are_not(pool: RoomPool) -> None:
    windows = frames_of(pool, 3)
    assert (windows.diff(dim=1) > 0).all()
    assert len(windows.unique(dim=0)) == 10, "all windows of three frames out of five"
    pairs = RoomPool(tiny_recipe(PAIRS), PoolPlan(1, 1), 1, [0])
    gaps = frames_of(pairs, 2).diff(dim=1)
    assert (gaps != 0).all()
    assert 0.35 < (gaps > 0).float().mean() < 0.65


def test_strides_and_gaps_of_the_recipe_are_kept() -> None:
    def pool(sampling: str, **source: object) -> RoomPool:
        views = replace(RECIPE.views, sampling=sampling, reference="first")
        data = replace(RECIPE.data, sources={"synthetic": Source(**source)})  # type: ignore[arg-type]
        recipe = replace(RECIPE, views=views, data=data, synthetic=replace(RECIPE.synthetic, frames=9))
        return RoomPool(recipe, PoolPlan(1, 1), 1, [0])

    assert (frames_of(pool("window", interval=2), 4).diff(dim=1) == 2).all()
    steady = frames_of(pool("clip", ordered=1.0, steady=1.0, interval=2), 3).diff(dim=1)
    assert set(steady[:, 0].tolist()) == {1, 2}
    assert torch.equal(steady[:, 0], steady[:, 1])
    shuffled = frames_of(pool("clip", ordered=0.0), 3).diff(dim=1)
    assert (shuffled < 0).any()
    assert (shuffled > 0).any()


def test_clips_give_some_views_as_rays_but_never_the_first() -> None:
    views = replace(RECIPE.views, sampling="clip", reference="first")
    data = replace(RECIPE.data, sources={"synthetic": Source(modality=(0.5, 0.3, 0.2))})
    pool = RoomPool(replace(RECIPE, views=views, data=data), PoolPlan(1, 1), 1, [0])
    pool.advance(0)
    batch = pool.draw(300, Request(4, (32, 32), Roles()), 0, generator())
    assert bool(batch.seen[:, 0].all())
    assert not bool(batch.rays[:, 0].any())
    assert bool((batch.seen | batch.rays).all())
    assert (~batch.seen[:, 1:]).float().mean() == pytest.approx(0.3, abs=0.05)
    assert (batch.seen & batch.rays)[:, 1:].float().mean() == pytest.approx(0.2, abs=0.05)


def test_a_view_in_front_becomes_the_world(pool: RoomPool) -> None:
    request = Request(3, (32, 32), Roles(0, (0, 1), (2,)), before=True)
    batch = pool.draw(20, request, 0, generator())
    assert batch.views == 3
    assert not (batch.world.unsqueeze(1) == batch.c2w).all(-1).all(-1).any(), "the world is none of the views"


def test_what_generated_rooms_cannot_do_is_said() -> None:
    sizes = replace(RECIPE.resolution, sizes=((32, 32), (48, 32)))
    with pytest.raises(ThreerError, match="one size"):
        RoomPool(replace(RECIPE, resolution=sizes), PoolPlan(1, 1), 1, [0])
    data = replace(RECIPE.data, sources={"synthetic": Source(background=0.5)})
    with pytest.raises(ThreerError, match="no use for 'background'"):
        RoomPool(replace(RECIPE, data=data), PoolPlan(1, 1), 1, [0])
    with pytest.raises(ThreerError, match="do not fit into clips"):
        replace(RECIPE, synthetic=replace(RECIPE.synthetic, frames=4))


# Batches by their number ----------------------------------------------------------------------------------------


class Numbers:
    """A source whose samples say which lane and number of the generator made them."""

    def __init__(self, value: float, on_disk: bool = False) -> None:
        self.value, self.on_disk, self.asked = value, on_disk, 0
        self.fail = False

    def advance(self, samples: int) -> None:
        self.asked = samples

    def draw(self, count: int, request: Request, lane: int, generator: torch.Generator) -> Batch:
        if self.fail:
            raise ThreerError("a file is broken")
        shape = (count, request.views, 16, 16)
        images = torch.full((count, request.views, 3, 16, 16), self.value)
        depth = 1 + lane + torch.rand(count, 1, 1, 1, generator=generator).expand(shape)
        eye = torch.eye(4).expand(count, request.views, 4, 4)
        return Batch.of(images, depth, eye, eye[..., :3, :3], roles=request.roles)


def mixed(weights: dict[str, float], per_device: int) -> Recipe:
    data = replace(RECIPE.data, sources={name: Source(weight=w) for name, w in weights.items()})
    return replace(RECIPE, data=data, batch=replace(RECIPE.batch, per_device=per_device))


def test_processes_share_the_batch_that_one_would_have() -> None:
    whole = Feed(mixed({"a": 1}, 16), {"a": Numbers(0)}, 1, 0)
    halves = [Feed(mixed({"a": 1}, 8), {"a": Numbers(0)}, 2, rank) for rank in range(2)]
    for number in (0, 5):
        together = cat([half.batch(number) for half in halves])
        assert torch.equal(together.depth, whole.batch(number).depth)
        assert together.roles == whole.batch(number).roles
    assert not torch.equal(whole.batch(0).depth, whole.batch(1).depth)


def test_lanes_divide_batches_and_processes() -> None:
    assert lanes_for(1, 64) == lanes_for(2, 64) == lanes_for(8, 64) == 8
    assert lanes_for(1, 6) == lanes_for(2, 6) == 2
    assert lanes_for(3, 12) == 3
    assert len({number_of(0, 1, k) for k in range(100)} | {number_of(1, 0, k) for k in range(100)}) == 200


def test_sources_are_mixed_by_weight_and_told_how_far_the_run_is() -> None:
    sources = {"a": Numbers(-1.0), "b": Numbers(1.0)}
    feed = Feed(mixed({"a": 3, "b": 1}, 64), sources, 1, 0)
    drawn = torch.cat([feed.batch(number).images[:, 0, 0, 0, 0] for number in range(20)])
    assert (drawn < 0).float().mean() == pytest.approx(0.75, abs=0.05)
    assert sources["a"].asked == 19 * 64


def test_batches_made_ahead_are_the_same_and_their_errors_arrive() -> None:
    plain, source = Numbers(0), Numbers(0, on_disk=True)
    recipe = mixed({"a": 1}, 4)
    direct: Iterator[Batch] = Feed(recipe, {"a": plain}, 1, 0).batches(3)
    ahead: Iterator[Batch] = Feed(recipe, {"a": source}, 1, 0).batches(3, ahead=2)
    for _ in range(3):
        assert torch.equal(next(direct).depth, next(ahead).depth)
    source.fail = True
    with pytest.raises(ThreerError, match="broken"):
        list(islice(ahead, 5))


# Hand-held clips ------------------------------------------------------------------------------------------------


def hand_held(**settings: object) -> Recipe:
    synthetic = replace(RECIPE.synthetic, style="hand-held", **settings)  # type: ignore[arg-type]
    return replace(RECIPE, synthetic=synthetic)


def test_points_of_hand_held_clips_go_through_their_lenses(monkeypatch: pytest.MonkeyPatch) -> None:
    style = replace(HAND_HELD, room=PLAIN, sensor=None, lens=Lens(k1=(0.2, 0.2), k2=(0.0, 0.0)))
    monkeypatch.setattr("threer.training.rounds.HAND_HELD", style)
    pool = RoomPool(hand_held(clutter=(0.0, 0.0)), PoolPlan(1, 1), 1, [0])
    pool.advance(0)
    batch = pool.draw(3, Request(2, (32, 32), Roles()), 0, generator())
    middle = batch.K[:, :, :2, 2]
    corner = torch.maximum(middle, 31 - middle) / batch.K[:, :, [0, 1], [0, 1]]
    at_the_corner = batch.distortion[..., 0] * corner.square().sum(-1)
    torch.testing.assert_close(at_the_corner, torch.full((3, 2), 0.2), atol=1e-4, rtol=0)
    assert not batch.distortion[..., 1].any()
    room = sample_room(pool.course.first_seed)
    world = apply(batch.c2w, batch.camera).flatten(0, 3)
    assert clearance(room, torch.zeros(1, dtype=torch.long), world[None]).abs().max() < 0.02  # depth is 16-bit
    both = cat([batch, replace(batch, distortion=torch.zeros(3, 2, 2))])
    assert both.samples(slice(3, None)).lens is None
    assert not torch.allclose(both.camera[:3], both.camera[3:], atol=1e-3)


def test_clutter_and_views_rise_over_the_run() -> None:
    pool = RoomPool(hand_held(clutter=(0.2, 1.0), ramp=400, reuse=10.0), PoolPlan(8, 4), 1, [0])

    def clutter(first: int, last: int) -> list[float]:
        return [pool.course.style(number).room.clutter for number in range(first, last)]

    assert clutter(0, 3) == [pytest.approx(0.2)] * 3
    assert max(clutter(4, 12)) < 0.4
    assert max(clutter(44, 80)) > 0.8
    assert min(clutter(44, 80)) < 0.5, "empty rooms stay among them"
    assert clutter(20, 22) == clutter(20, 22)

    views = replace(RECIPE.views, count=(3, 5), ramp=4 * 400)
    feed = Feed(replace(RECIPE, views=views), {}, 1, 0)
    assert {feed.request(n).views for n in range(0, 130)} == {3}
    assert {feed.request(n).views for n in range(140, 260)} == {3, 4}
    assert {feed.request(n).views for n in range(400, 480)} == {3, 4, 5}


def test_settings_of_hand_held_clips_are_checked() -> None:
    assert style_of(hand_held(fov=(50.0, 60.0)).synthetic).fov == (50.0, 60.0)
    assert style_of(hand_held().synthetic).fov == HAND_HELD.fov
    assert style_of(RECIPE.synthetic).fov == PLAIN_FOV
    assert style_of(hand_held().synthetic).motion == HAND_HELD.motion
    assert style_of(hand_held(rate=(1.5, 5.0)).synthetic).motion == replace(HAND_HELD.motion, rate=(1.5, 5.0))
    with pytest.raises(ThreerError, match="rate must be two numbers"):
        replace(RECIPE.synthetic, rate=(5.0, 1.5))
    with pytest.raises(ThreerError, match="no such folder of textures"):
        style_of(hand_held(textures="nowhere").synthetic)
    with pytest.raises(ThreerError, match="textures are for style 'hand-held'"):
        replace(RECIPE.synthetic, textures="nowhere")
    with pytest.raises(ThreerError, match="clutter must be two numbers"):
        hand_held(clutter=(0.5, 0.2))
    with pytest.raises(ThreerError, match="ramp must not be below 0"):
        hand_held(ramp=-1)
    with pytest.raises(ThreerError, match="ramp must not be below 0"):
        replace(RECIPE.views, ramp=-1)
