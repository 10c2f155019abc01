"""Random numbers of several clips at once, each clip's from its own generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Numbers [S, ...] for S clips: those of a clip are the same whichever clips it is drawn together with."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.stack([torch.rand(shape, generator=g) for g in self.generators])

    def normal(self, *shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])

    def seeds(self) -> list[int]:
        """One for each clip, for a generator on another device."""
        return [int(torch.randint(2**62, (), generator=g)) for g in self.generators]
