"""What every batch is asked for: formats by their weights and numbers of views, one draw for all processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from threer.training.batch import Batch
from threer.training.recipes import load_recipe
from threer.training.recipes.recipe import Resolution
from threer.training.sources import Feed, Request

WIDE, TALL = (64, 48), (48, 64)


def feed(rank: int, seed: int = 0) -> Feed:
    recipe = load_recipe("cut3r-mini")
    views = replace(recipe.views, count=(2, 6), ramp=0)
    formats = Resolution((WIDE, TALL), (2.0, 1.0))
    return Feed(replace(recipe, views=views, resolution=formats, seed=seed), {}, world=2, rank=rank)


def test_formats_and_numbers_of_views_are_those_of_all_processes() -> None:
    first, second, other = (
        [one.request(number) for number in range(60)] for one in (feed(0), feed(1), feed(0, seed=1))
    )
    assert first == second
    assert first != other


def test_formats_are_drawn_by_their_weights_and_views_evenly() -> None:
    one = feed(0)
    asked = [one.request(number) for number in range(1200)]
    sizes = Counter(request.size for request in asked)
    assert set(sizes) == {WIDE, TALL}
    assert 740 < sizes[WIDE] < 860  # expected 800, standard deviation 16
    views = Counter(request.views for request in asked)
    assert set(views) == {2, 3, 4, 5, 6}
    assert all(190 < count < 290 for count in views.values())  # expected 240, standard deviation 14


class Numbers:
    """A source whose samples are drawn numbers, as depth."""

    on_disk = False

    def advance(self, samples: int) -> None:
        pass

    def draw(self, count: int, request: Request, lane: int, generator: torch.Generator) -> Batch:
        numbers = torch.rand(count, request.views, 1, 1, generator=generator).expand(-1, -1, 2, 2)
        c2w, K = (torch.eye(n).expand(count, request.views, n, n) for n in (4, 3))
        return Batch.of(torch.zeros(count, request.views, 3, 2, 2), numbers, c2w, K, roles=request.roles)

    def close(self) -> None:
        pass


def test_no_two_samples_of_a_run_are_drawn_alike_in_any_lane_batch_or_run() -> None:
    recipe = load_recipe("cut3r-mini")
    (name,) = recipe.data.shares()
    recipe = replace(recipe, views=replace(recipe.views, count=(2, 2), ramp=0))
    drawn = []
    for seed in (0, 1):
        for rank in (0, 1):
            feed = Feed(replace(recipe, seed=seed), {name: Numbers()}, world=2, rank=rank)
            assert len(feed.own) > 1
            drawn += [feed.batch(number).depth[:, :, 0, 0].flatten() for number in range(3)]
    numbers = torch.cat(drawn)
    assert len(numbers.unique()) > 0.99 * len(numbers)
