"""Which parameters learn how fast, and when."""

from __future__ import annotations

import math

import torch
from torch import nn

from threer.errors import ThreerError
from threer.training.mini import SLAM3RMini


def make_optimizers(model: nn.Module, recipe: SLAM3RMini) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest; no decay on norms, biases and single tokens.

    Heads and patch embeddings stay with AdamW: Muon is meant for hidden layers (Jordan et al. 2024). Raises
    ThreerError where torch has no Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ThreerError(f"training needs torch 2.9 or newer, for its Muon; this is torch {torch.__version__}")
    hidden, matrices, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim == 2 and "_head" not in name:
            hidden.append(parameter)
        elif parameter.squeeze().ndim >= 2:
            matrices.append(parameter)
        else:
            vectors.append(parameter)
    adam = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.adam_lr,
        betas=(0.9, 0.95),
    )
    muon = torch.optim.Muon(hidden, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)
    return [muon, adam]


def rate(progress: float, recipe: SLAM3RMini) -> float:
    """Share of the peak learning rate at ``progress`` 0..1 of the run: linear warm-up, then half a cosine."""
    if progress < recipe.warmup:
        return max(progress, 1e-4) / recipe.warmup
    falling = min((progress - recipe.warmup) / (1 - recipe.warmup), 1.0)
    return recipe.last_lr + (1 - recipe.last_lr) * 0.5 * (1 + math.cos(math.pi * falling))
