"""What an objective is: from a network and a batch to losses that a trainer descends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from threer.training.batch import Batch

M = TypeVar("M", bound=nn.Module, contravariant=True)


@dataclass(frozen=True, eq=False)
class Step:
    """Where a run is, and its random numbers.

    progress   share of the run that is done, 0..1
    generator  on the batch's device
    """

    generator: torch.Generator
    progress: float = 0.0


@dataclass(frozen=True, eq=False)
class Losses:
    """One loss to call backward on.

    total  float32 scalar
    parts  detached scalars by name, to log; each batch of an objective has the same names
    more   further losses of the same batch follow
    step   the optimiser is to step after this loss, although more follow
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    more: bool = False
    step: bool = False


class Objective(Protocol[M]):
    """Yields the losses of one batch, one after the other.

    Most objectives yield one. One that goes through a long sequence in chunks yields one for each chunk that has
    gradients and computes the next only when asked for it, so that the graph of the last can be freed: call
    backward before asking. Gradients add up to those of the objective.
    """

    def __call__(self, model: M, batch: Batch, step: Step) -> Iterator[Losses]: ...


def finite_everywhere(value: Tensor) -> bool:
    """Whether a scalar, the loss or the norm of the gradient, is finite in every process; all of them must ask.

    One that skipped a step alone would wait for the others for ever (SLAM3R did).
    """
    flag = torch.isfinite(value.detach()).to(torch.int32)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)
