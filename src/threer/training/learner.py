"""A network in training: steps of its optimisers, the running mean, and what of it a state on disk holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from threer.errors import ThreerError
from threer.training.batch import Batch
from threer.training.networks import Network
from threer.training.objectives import Losses, Step, finite_everywhere, make_objective
from threer.training.parallel import Inside, as_dealt, fill, fill_optimizer, mean_of_all, whole, whole_tree
from threer.training.recipes.recipe import Recipe
from threer.training.schedule import RunningMean, make_optimizers, set_rates, share_of_peak
from threer.training.sources import number_of
from threer.training.state import Progress

MOST_SKIPPED = 20
T = TypeVar("T")


class Learner:
    """A network with its optimisers and, if the recipe wants one, the running mean of its weights.

    fabric  launched; see `threer.training.parallel`
    """

    def __init__(self, network: Network, recipe: Recipe, fabric: Any) -> None:
        self.network, self.recipe, self.fabric = network, recipe, fabric
        self.inside = fabric.setup_module(Inside(network))
        self.optimizers = make_optimizers(network, recipe)
        wrapped = fabric.setup_optimizers(*self.optimizers)
        self._wrapped = wrapped if isinstance(wrapped, tuple) else (wrapped,)
        decay = recipe.optimizer.ema
        self.ema = RunningMean(network, decay) if decay is not None else None
        self.objective = make_objective(recipe.objective)
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    def step(self, batches: Iterator[Batch], progress: Progress) -> None:
        """One step of the optimisers, on as many batches as the recipe accumulates; ``progress`` is brought on.

        Raises `ThreerError` when too many steps had no finite gradients.
        """
        recipe, fabric = self.recipe, self.fabric
        accumulate = recipe.batch.accumulate
        set_rates(self.optimizers, share_of_peak(progress.done, recipe.schedule))
        self.inside.train()
        for part in range(accumulate):
            last = part + 1 == accumulate
            batch = next(batches).to(fabric.device, non_blocking=True)
            generator = torch.Generator(fabric.device)
            generator.manual_seed(number_of(recipe.seed, 3, progress.number, fabric.global_rank))
            losses = self.objective(self.network, batch, Step(generator, progress.done))
            with fabric.no_backward_sync(self.inside, enabled=not last):
                while self._backward(losses, accumulate, last, progress):
                    pass
            progress.number += 1
        self._descend(progress)
        progress.step += 1
        progress.samples += recipe.batch.per_device * accumulate * fabric.world_size

    def _backward(self, losses: Iterator[Losses], accumulate: int, last: bool, progress: Progress) -> bool:
        """One loss of a batch; whether there are more."""
        found: list[Losses] = []

        def next_loss(_: Network) -> Tensor:
            found.append(next(losses))
            return found[0].total / accumulate

        self.fabric.backward(self.inside(next_loss))
        for name, value in found[0].parts.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._summed += 1
        if found[0].step and last:
            self._descend(progress)
        return found[0].more

    def _descend(self, progress: Progress) -> None:
        """One step of the optimisers, or of none in any process where the gradient is not finite."""
        clip = self.recipe.optimizer.clip
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip))
        if finite_everywhere(norm):
            for optimizer in self._wrapped:
                optimizer.step()
            if self.ema is not None:
                self.ema.update(self.network)
        else:
            progress.skipped += 1
            if progress.skipped > max(MOST_SKIPPED, 0.01 * progress.step):
                raise ThreerError(f"training diverged: {progress.skipped} steps without finite gradients")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def mean_losses(self) -> dict[str, float]:
        """Means over all processes since the last call."""
        means = {name: float(mean_of_all(v.float() / max(self._summed, 1))) for name, v in self._sums.items()}
        self._sums, self._summed = {}, 0
        return means

    def evaluate(self, action: Callable[[Network], T]) -> T:
        """What ``action`` makes of the network outside of training."""
        self.inside.eval()
        result: T = self.inside(action)
        return result

    def mean_in_place(self) -> AbstractContextManager[None]:
        """Within it the network has the mean of its weights, if there is one."""
        return self.ema.within(self.network) if self.ema is not None else nullcontext()

    def tensors(self) -> dict[str, Tensor]:
        """Those of the network, put together from all processes."""
        tensors: dict[str, Tensor] = whole_tree(dict(self.network.state_dict()))
        return tensors

    def state(self) -> dict[str, Any]:
        """What `restore` takes; all processes must ask for it."""
        return {
            "model": self.tensors(),
            "optimizers": [whole_tree(o.state_dict()) for o in self.optimizers],
            "ema": None if self.ema is None else {"count": self.ema.count, "values": whole_tree(self.ema.values)},
            "sums": whole_tree(self._sums),
            "summed": self._summed,
        }

    def restore(self, saved: Mapping[str, Any], folder: Path) -> None:
        """Go on from the state of ``folder``. Raises `ThreerError` if it is that of other optimisers."""
        fill(self.network, saved["model"])
        if len(saved["optimizers"]) != len(self.optimizers):
            raise ThreerError(f"{folder} was trained with other optimisers; choose another folder")
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            fill_optimizer(optimizer, state)
        if self.ema is not None and saved["ema"] is not None:
            self.ema.count = saved["ema"]["count"]
            for value, kept in zip(self.ema.values, saved["ema"]["values"], strict=True):
                value.copy_(as_dealt(kept, value))
        self._sums = {name: value.to(self.fabric.device) for name, value in saved["sums"].items()}
        self._summed = saved["summed"]
