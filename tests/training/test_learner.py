"""Steps of the optimisers: what is accumulated, clipped, skipped and kept as a mean."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from threer.training.learner import Learner
from threer.training.objectives import Losses, Step
from threer.training.parallel import make_fabric
from threer.training.schedule import share_of_peak
from threer.training.state import Progress
from tiny_training import PAIRS, tiny_recipe

RECIPE = tiny_recipe(PAIRS)


@dataclass
class Inputs:
    """Stands for a batch."""

    x: Tensor

    def to(self, *_: Any, **__: Any) -> Inputs:
        return self


def squares(network: Any, inputs: Any, _: object) -> Iterator[Losses]:
    loss = network(inputs.x).square().mean()
    yield Losses(loss, {"loss": loss.detach()})


def inputs(seed: int, size: float = 1.0) -> Inputs:
    return Inputs(size * torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)))


class Student:
    """A linear layer that learns to answer zero."""

    def __init__(self, accumulate: int = 1, objective: Any = squares) -> None:
        torch.manual_seed(0)
        self.layer: Any = nn.Linear(4, 3)
        recipe = replace(RECIPE, batch=replace(RECIPE.batch, accumulate=accumulate))
        self.fabric = make_fabric("cpu", "ddp", False)
        self.learner = Learner(self.layer, recipe, self.fabric)
        self.learner.objective = objective
        self.progress = Progress(done=0.5)

    def step(self, *batches: Any) -> None:
        self.learner.step(iter(batches), self.progress)

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten().clone() for p in self.layer.parameters()])

    def mean(self) -> Tensor:
        assert self.learner.ema is not None
        return torch.cat([value.flatten().clone() for value in self.learner.ema.values])

    def momentum(self) -> Tensor:
        """The first moments of AdamW."""
        state = self.learner.optimizers[0].state
        return torch.cat([state[p]["exp_avg"].flatten() for p in self.layer.parameters()])


def test_a_step_without_finite_gradients_leaves_nothing_behind() -> None:
    student, other = Student(), Student()
    for each in (student, other):
        each.step(inputs(1))
    weights, mean = student.weights(), student.mean()
    student.step(inputs(2, torch.inf))
    assert student.progress.skipped == 1
    assert torch.equal(student.weights(), weights)
    assert torch.equal(student.mean(), mean)
    for each in (student, other):
        each.step(inputs(3))
    assert torch.equal(student.weights(), other.weights()), "nor does its gradient live on"
    assert torch.equal(student.mean(), other.mean())


def test_batches_of_a_step_count_as_one() -> None:
    parts = [inputs(k, 0.3) for k in range(3)]
    together, apart = Student(), Student(accumulate=3)
    together.step(Inputs(torch.cat([part.x for part in parts])))
    apart.step(*parts)
    torch.testing.assert_close(apart.momentum(), together.momentum())
    assert (apart.progress.step, apart.progress.number) == (1, 3)
    assert apart.progress.samples == 3 * together.progress.samples
    assert apart.learner.mean_losses()["loss"] == pytest.approx(together.learner.mean_losses()["loss"])


def test_gradients_are_no_longer_than_the_recipe_says() -> None:
    student = Student()
    student.step(inputs(1, 100.0))
    beta = RECIPE.optimizer.betas[0]
    assert float(student.momentum().norm()) == pytest.approx((1 - beta) * 1.0, rel=1e-4)


def test_the_mean_follows_every_step_and_is_what_others_see() -> None:
    student = Student()
    seen = [student.weights()]
    for k in range(3):
        student.step(inputs(k))
        seen.append(student.weights())
    expected = seen[0]
    for count, weights in zip(itertools.count(1), seen[1:], strict=False):
        expected = torch.lerp(expected, weights, 1 - count / (count + 9))
    torch.testing.assert_close(student.mean(), expected)
    assert not torch.allclose(expected, seen[-1])
    with student.learner.mean_in_place():
        torch.testing.assert_close(student.weights(), expected)
    assert torch.equal(student.weights(), seen[-1])


def test_a_loss_may_ask_for_a_step_of_its_own_once_all_batches_are_in() -> None:
    def chunks(network: Any, batch: Any, _: object) -> Iterator[Losses]:
        for more in (True, False):
            loss = network(batch.x).square().mean()
            yield Losses(loss, {"loss": loss.detach()}, more=more, step=more)

    student = Student(accumulate=2, objective=chunks)
    student.step(inputs(1), inputs(2))
    assert student.learner.ema is not None
    assert student.learner.ema.count == 2  # one between the chunks of the last batch, one at the end
    assert student.progress.step == 1


def test_rate_mode_and_chance_are_those_of_the_place_in_the_run() -> None:
    told: list[tuple[float, bool, int]] = []

    def listening(network: Any, batch: Any, step: Step) -> Iterator[Losses]:
        told.append((step.progress, network.training, int(torch.randint(2**60, (), generator=step.generator))))
        return squares(network, batch, step)

    student = Student(objective=listening)
    places, rates, evaluated = (0.0, 0.05, 0.5, 1.0), [], []
    for progress in places:
        student.progress.done = progress
        evaluated.append(student.learner.evaluate(lambda network: network.training))
        student.step(inputs(1))
        rates.append(student.learner.optimizers[0].param_groups[0]["lr"] / RECIPE.schedule.lr)
    assert rates == pytest.approx([share_of_peak(progress, RECIPE.schedule) for progress in places])
    assert [(progress, training) for progress, training, _ in told] == [(progress, True) for progress in places]
    assert evaluated == [False] * 4
    assert len({drawn for *_, drawn in told}) == 4

    class Second:
        """The same fabric, in another process."""

        global_rank = 1

        def __getattr__(self, name: str) -> Any:
            return getattr(student.fabric, name)

    student.learner.fabric, student.progress.number = Second(), 0
    student.step(inputs(1))
    assert told[-1][2] != told[0][2]


def test_a_learner_goes_on_from_the_state_of_another() -> None:
    whole, first, second = Student(), Student(), Student()
    for each in (whole, first):
        for k in range(2):
            each.step(inputs(k))
    second.learner.restore(first.learner.state(), Path("a run"))
    second.progress = replace(first.progress)
    for each in (whole, second):
        each.step(inputs(3))
    assert torch.equal(second.weights(), whole.weights())
    assert torch.equal(second.mean(), whole.mean())
    assert torch.equal(second.momentum(), whole.momentum())
    assert second.learner.mean_losses() == whole.learner.mean_losses()
