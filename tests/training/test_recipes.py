"""Every packaged recipe: it parses, its network is what the table of the published training says, its parts fit."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from threer.models.dust3r import DUSt3R
from threer.models.slam3r import SLAM3R
from threer.training.initialise import Report
from threer.training.networks import Network, build, mark_trainable
from threer.training.objectives import make_objective
from threer.training.recipes import load_recipe, recipe_names
from threer.training.start import RESULT, frozen_at_random, name_of

# name: views, epochs, warm-up, lr, min lr, effective batch, samples an epoch, sources, sizes, parameters (millions)
PUBLISHED = {
    "dust3r-224-linear": ((2, 2), 100, 10, 1e-4, 1e-6, 128, 800_000, 8, 1, 532.342784),
    "dust3r-512-linear": ((2, 2), 100, 20, 1e-4, 1e-6, 64, 80_000, 8, 5, 532.342784),
    "dust3r-512-dpt": ((2, 2), 90, 15, 1e-4, 1e-6, 64, 80_000, 8, 5, 571.171208),
    "slam3r-i2p": ((11, 11), 100, 10, 5e-5, 5e-7, 32, 8_000, 3, 1, 532.934913),
    "slam3r-i2p-retrieval": ((11, 11), 50, 5, 1e-4, 1e-6, 32, 8_000, 3, 1, 532.934913),
    "slam3r-l2w": ((12, 12), 200, 20, 5e-5, 5e-7, 32, 8_000, 3, 1, 532.933376),
    "cut3r-1": ((4, 4), 100, 10, 1e-4, 1e-6, 128, 806_000, 15, 1, 748.443655),
    "cut3r-2": ((4, 4), 35, 1, 5e-6, 1e-6, 128, 802_000, 32, 1, 748.443655),
    "cut3r-3": ((4, 4), 40, 2, 1e-5, 1e-6, 128, 729_000, 31, 10, 793.307858),
    "cut3r-4": ((32, 32), 10, 0.5, 1e-6, 1e-7, 128, 399_000, 26, 10, 793.307858),
    "cut3r-vary-4-64": ((4, 64), 10, 0.5, 1e-6, 1e-7, 128, 756_000, 26, 10, 793.307858),
    "cut3r-224-finetune": ((16, 16), 10, 0.5, 1e-6, 1e-7, 96, 797_000, 26, 1, 748.443655),
    "fast3r": ((20, 20), 500, 10, 1e-4, 1e-6, 1, 480_000, 6, 5, 647.551368),
}
MINI = ["cut3r-mini", "dust3r-mini", "fast3r-mini", "slam3r-mini"]
MINI_CPU = [f"{name}-cpu" for name in MINI]


@cache
def network(name: str) -> Network:
    with torch.device("meta"):
        return build(load_recipe(name))


def parameters(model: torch.nn.Module, *prefixes: str) -> float:
    return sum(p.numel() for n, p in model.named_parameters() if n.startswith(prefixes or "")) / 1e6


def test_the_packaged_recipes_are_these() -> None:
    assert recipe_names() == sorted([*PUBLISHED, *MINI, *MINI_CPU])


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_stages_are_those_of_the_table(name: str) -> None:
    recipe = load_recipe(name)
    schedule, views = recipe.schedule, recipe.views
    found = (
        views.count, schedule.epochs, schedule.warmup, schedule.lr, schedule.min_lr, recipe.batch.effective,
        recipe.data.samples_per_epoch, len(recipe.data.sources), len(recipe.resolution.sizes),
    )  # fmt: skip
    assert found == PUBLISHED[name][:-1]
    assert getattr(recipe.objective, "alpha", 0.2) == 0.2
    assert recipe.optimizer.betas == (0.9, 0.95)
    assert recipe.optimizer.weight_decay == 0.05
    model = network(name)
    # Published counts hold what is never used: CroCo's mask token, and of each DPT head a unit without input.
    assert parameters(model) == pytest.approx(
        PUBLISHED[name][-1], abs=0.001 if recipe.network.head == "linear" else 4
    )


@pytest.mark.parametrize("name", [*PUBLISHED, *MINI, *MINI_CPU])
@pytest.mark.parametrize("published", [False, True])
def test_every_recipe_fits_its_network(name: str, published: bool) -> None:
    recipe = load_recipe(name, published)
    model = network(name)
    make_objective(recipe.objective)
    trained = mark_trainable(model, recipe)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert len(trained) + len(frozen) == len(list(model.parameters()))
    if name in ("slam3r-i2p", "slam3r-l2w", "cut3r-4", "cut3r-vary-4-64", "cut3r-224-finetune"):
        assert {n.partition(".")[0] for n in frozen} == {"encoder"}
        assert "encoder_norm.weight" in trained
    elif name == "slam3r-i2p-retrieval":
        assert {n.partition(".")[0] for n in trained} == {"affinity_head"}
    elif name not in (*MINI, *MINI_CPU):  # which have a test of their own
        assert not frozen
    if recipe.init is not None and not recipe.init.weights.endswith(".pth"):
        before = load_recipe(recipe.init.weights)
        assert before.family == recipe.init.family, "a stage starts from another one's result"


def test_published_switches_are_a_layer_above_ours() -> None:
    ours, theirs = load_recipe("cut3r-4"), load_recipe("cut3r-4", published=True)
    assert ours.objective != theirs.objective
    assert theirs.objective.colour_views == "all"  # type: ignore[union-attr]
    assert theirs.objective.alpha == ours.objective.alpha  # type: ignore[union-attr]
    assert load_recipe("slam3r-l2w", published=True).objective.noise_from == 1  # type: ignore[union-attr]
    fast = load_recipe("fast3r", published=True)
    assert fast.optimizer.decay_vectors
    assert fast.data.sources["co3d"].background == 1
    assert fast.data.sources["habitat"] == load_recipe("fast3r").data.sources["habitat"]


@pytest.mark.parametrize("family", [MINI, MINI_CPU])
def test_a_mini_family_shares_an_encoder_and_fits_its_budget(family: list[str]) -> None:
    models = {name: network(name) for name in family}
    first = models[family[1]]
    assert isinstance(first, DUSt3R)
    wanted = {n: p.shape for n, p in first.named_parameters() if n.startswith(("encoder.", "encoder_norm."))}
    total = parameters(first, "encoder.")
    for name, model in models.items():
        trunk = model.i2p if isinstance(model, SLAM3R) else model
        shapes = {n: p.shape for n, p in trunk.named_parameters() if n.startswith(("encoder.", "encoder_norm."))}
        assert shapes == wanted, name
        total += parameters(model) - parameters(trunk, "encoder.")
    assert total <= 20  # 40 MB in half precision


@pytest.mark.parametrize("name", [*MINI, *MINI_CPU])
def test_the_encoder_that_a_mini_family_shares_learns_with_pairs_alone(name: str) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = build(recipe)
    mark_trainable(model, recipe)
    trunk = model.i2p if isinstance(model, SLAM3R) else model
    learning = {p.requires_grad for n, p in trunk.named_parameters() if n.startswith(("encoder.", "encoder_norm."))}
    assert learning == {isinstance(model, DUSt3R)}
    assert bool(frozen_at_random(model, None)) != isinstance(model, DUSt3R)
    names = tuple(dict(model.named_parameters()))
    assert not frozen_at_random(model, Report(names, (), ()))


def test_weights_without_a_card_are_called_after_their_run_or_file() -> None:
    assert name_of(Path("out") / "slam3r-i2p" / RESULT) == "slam3r-i2p"
    assert name_of(Path("given.pth")) == "given.pth"
