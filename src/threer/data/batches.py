"""Which samples are read together: batches of one format and one number of views, the same on every process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from threer.data.mixing import SHUFFLE_SEED, permutation
from threer.errors import ThreerError


@dataclass(frozen=True)
class Request:
    """One sample to be read: draw ``index`` of an epoch, with so many views, at ``size`` (W, H)."""

    index: int
    views: int
    size: tuple[int, int]
    epoch: int


@dataclass(frozen=True)
class Position:
    """How far a run has come: ``batch`` batches of ``epoch`` are done. A plain dict when saved."""

    epoch: int = 0
    batch: int = 0

    def after(self, plan: BatchPlan) -> Position:
        """One batch further."""
        last = self.batch + 1 >= plan.batches
        return Position(self.epoch + 1, 0) if last else Position(self.epoch, self.batch + 1)


@dataclass(frozen=True)
class BatchPlan:
    """Batches of an epoch of ``length`` samples. Formats and numbers of views are drawn for each batch.

    length    samples of an epoch
    batch     samples of a batch on one process
    sizes     formats (W, H), with ``weights``
    views     fewest and most views of a sample
    rank      this process of ``world``: the order, formats and views are those of all
    seed      beside the published 777 + epoch

    What does not fill a batch on every process is left out of the epoch. Raises `ThreerError` when
    nothing is left.
    """

    length: int
    batch: int
    sizes: tuple[tuple[int, int], ...]
    weights: tuple[float, ...] | None = None
    views: tuple[int, int] = (2, 2)
    rank: int = 0
    world: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ThreerError(f"process {self.rank} of {self.world} does not exist")
        if self.batch < 1 or self.batches < 1:
            raise ThreerError(
                f"{self.length} samples do not fill one batch of {self.batch} on {self.world} processes"
            )
        if not self.sizes or (self.weights is not None and len(self.weights) != len(self.sizes)):
            raise ThreerError(f"{len(self.sizes)} formats need as many weights, got {self.weights}")
        if not 1 <= self.views[0] <= self.views[1]:
            raise ThreerError(f"views must be two numbers that rise from 1 or more, got {self.views}")

    @property
    def batches(self) -> int:
        """Batches of an epoch on each process."""
        return self.length // (self.batch * self.world)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[list[Request]]:
        """The batches of this process, from the batch ``first`` on."""
        order = permutation(self.length, epoch, self.seed)
        rng = np.random.default_rng([SHUFFLE_SEED + epoch, self.seed])
        share = None if self.weights is None else np.asarray(self.weights) / sum(self.weights)
        formats = rng.choice(len(self.sizes), self.batches, p=share)
        views = rng.integers(self.views[0], self.views[1] + 1, self.batches)
        together = self.batch * self.world
        for number in range(first, self.batches):
            start = number * together + self.rank * self.batch
            yield [
                Request(int(index), int(views[number]), self.sizes[formats[number]], epoch)
                for index in order[start : start + self.batch]
            ]

    def from_position(self, position: Position) -> Iterator[list[Request]]:
        """Batches without end, epoch after epoch."""
        epoch, first = position.epoch, position.batch
        while True:
            yield from self.epoch(epoch, first)
            epoch, first = epoch + 1, 0

    def state(self, position: Position) -> dict[str, Any]:
        """What to save with a checkpoint: plain numbers, the same on every process."""
        fixed = asdict(self)
        return {**asdict(position), "plan": {k: _plain(v) for k, v in fixed.items() if k != "rank"}}

    def restored(self, state: Mapping[str, Any]) -> Position:
        """The position of a saved state. Raises `ThreerError` if it is that of other data, saying how."""
        mine, saved = self.state(Position())["plan"], state.get("plan", {})
        other = [f"{key} was {saved.get(key)}, is {mine[key]}" for key in mine if saved.get(key) != mine[key]]
        if other:
            raise ThreerError(f"the saved position belongs to other data: {'; '.join(other)}")
        return Position(int(state["epoch"]), int(state["batch"]))

    def on(self, rank: int, world: int) -> Self:
        """The same plan for another process."""
        return type(self)(**{**asdict(self), "rank": rank, "world": world})


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
