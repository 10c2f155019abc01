"""Rates over a run, parameters and their decay, the running mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from threer.errors import ThreerError
from threer.training.networks import build
from threer.training.recipes.recipe import Schedule
from threer.training.schedule import RunningMean, make_optimizers, set_rates, share_of_peak
from tiny_training import PAIRS, WINDOWS, tiny_recipe

RECIPE = tiny_recipe(WINDOWS)


def test_a_torch_without_muon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ThreerError, match=r"Muon needs torch 2\.9 or newer; this is torch \d"):
        make_optimizers(build(RECIPE), RECIPE)
    assert len(make_optimizers(build(tiny_recipe(PAIRS)), tiny_recipe(PAIRS))) == 1


def test_the_rate_rises_then_falls() -> None:
    schedule = Schedule(lr=1e-3, min_lr=1e-5, epochs=100, warmup=3)
    shares = [share_of_peak(p / 100, schedule) for p in range(101)]
    assert shares[0] == 0
    assert shares[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert shares[3:] == sorted(shares[3:], reverse=True)
    assert shares[-1] == pytest.approx(0.01)
    assert share_of_peak(0.0, replace(schedule, warmup=0)) == 1
    optimizers = make_optimizers(build(RECIPE), RECIPE)
    set_rates(optimizers, 0.5)
    set_rates(optimizers, 0.5)
    assert [o.param_groups[0]["lr"] for o in optimizers] == pytest.approx([5e-4, 5e-4])


@pytest.mark.parametrize("decay_vectors", [False, True])
def test_every_parameter_has_one_optimizer_and_vectors_no_decay(decay_vectors: bool) -> None:
    recipe = replace(RECIPE, optimizer=replace(RECIPE.optimizer, decay_vectors=decay_vectors))
    model = build(recipe)
    model.get_parameter("i2p.encoder_norm.weight").requires_grad_(False)
    decay: dict[int, float] = {}
    for optimizer in make_optimizers(model, recipe):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert id(parameter) not in decay
                decay[id(parameter)] = group["weight_decay"]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in decay
        else:
            vector = parameter.squeeze().ndim < 2
            assert (decay[id(parameter)] == 0) == (vector and not decay_vectors), name


def test_the_running_mean_follows_and_gives_the_weights_back() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0)
    mean = RunningMean(model, decay=0.9)
    with torch.no_grad():
        model.weight.fill_(1)
    mean.update(model)
    assert float(mean.values[0]) == pytest.approx(0.9), "early on it is not behind"
    for _ in range(200):
        mean.update(model)
    assert float(mean.values[0]) == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        model.weight.fill_(5)
    with mean.within(model):
        assert float(model.weight.detach()) == pytest.approx(1, abs=1e-4)
    assert float(model.weight.detach()) == 5
