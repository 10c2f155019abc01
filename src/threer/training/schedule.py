"""Which parameters learn how fast, and when; and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from threer.errors import ThreerError
from threer.training.recipes.recipe import Optimizer, Recipe, Schedule

_Some = list[nn.Parameter]


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the matrices inside the blocks and AdamW for the rest; no decay on norms, biases, tokens.

    Heads and patch embeddings stay with AdamW: Muon is meant for hidden layers (Jordan et al. 2024). Each group
    carries its peak rate as ``peak``. Raises ThreerError where torch has no Muon.
    """
    settings = recipe.optimizer
    hidden, matrices, vectors = _parameters(model, settings)
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        if not hasattr(torch.optim, "Muon"):
            raise ThreerError(f"Muon needs torch 2.9 or newer; this is torch {torch.__version__}")
        decay, lr = settings.weight_decay, settings.muon_lr
        optimizers.append(torch.optim.Muon(hidden, lr=lr, weight_decay=decay))
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": settings.weight_decay if settings.decay_vectors else 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        optimizers.append(torch.optim.AdamW(groups, lr=recipe.schedule.lr, betas=settings.betas))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _parameters(model: nn.Module, settings: Optimizer) -> tuple[_Some, _Some, _Some]:
    """Trained parameters: matrices of the blocks (for Muon), other matrices, vectors."""
    hidden: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if settings.name == "muon" and parameter.ndim == 2 and "_head" not in name:
            hidden.append(parameter)
        elif sum(size > 1 for size in parameter.shape) >= 2:
            matrices.append(parameter)
        else:
            vectors.append(parameter)
    return hidden, matrices, vectors


def share_of_peak(progress: float, schedule: Schedule) -> float:
    """Of the peak rate at ``progress`` 0..1 of the run: linear warm-up from 0, then half a cosine to ``min_lr``."""
    warmup, least = schedule.warmup_share, schedule.min_lr / schedule.lr if schedule.lr else 0.0
    if progress < warmup:
        return progress / warmup
    falling = min((progress - warmup) / (1 - warmup), 1.0)
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * falling))


def set_rates(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


class RunningMean:
    """Exponential mean of a network's weights, float32; early on over what there is, so that it is never behind."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.values = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.count += 1
        decay = min(self.decay, self.count / (self.count + 9))
        torch._foreach_lerp_(self.values, [p.detach() for p in model.parameters()], 1 - decay)

    @contextmanager
    def within(self, model: nn.Module) -> Iterator[None]:
        """The mean in the place of the weights."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for value, parameter in zip(self.values, model.parameters(), strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)
