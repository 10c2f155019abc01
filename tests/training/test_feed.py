"""What every batch is asked for: formats by their weights and numbers of views, one draw for all processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from threer.training.recipes import load_recipe
from threer.training.recipes.recipe import Resolution
from threer.training.sources import Feed

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
    asked = [feed(0).request(number) for number in range(1200)]
    sizes = Counter(request.size for request in asked)
    assert set(sizes) == {WIDE, TALL}
    assert 740 < sizes[WIDE] < 860  # expected 800, standard deviation 16
    views = Counter(request.views for request in asked)
    assert set(views) == {2, 3, 4, 5, 6}
    assert all(190 < count < 290 for count in views.values())  # expected 240, standard deviation 14
