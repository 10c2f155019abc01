"""Data sets put together: `k*D`, `n @ D` and `A + B` of the published recipes, as objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from threer.data.datasets.format import IntArray
from threer.errors import ThreerError

SHUFFLE_SEED = 777
"""Added to the epoch, for permutations and formats: every process draws the same ones."""


class Countable(Protocol):
    """Anything with a number of draws."""

    def __len__(self) -> int: ...


class Mix(Protocol):
    """Draws of several data sets, numbered through."""

    def __len__(self) -> int: ...

    def locate(self, index: int, epoch: int) -> tuple[int, int]:
        """The position of the data set among `leaves`, and which of its draws it is."""
        ...

    @property
    def leaves(self) -> tuple[Countable, ...]: ...


@dataclass(frozen=True, eq=False)
class One:
    """A single data set."""

    source: Countable

    def __len__(self) -> int:
        return len(self.source)

    def locate(self, index: int, epoch: int) -> tuple[int, int]:
        return 0, _inside(index, len(self))

    @property
    def leaves(self) -> tuple[Countable, ...]:
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Repeated:
    """`times * D`: every draw so many times in an epoch."""

    times: int
    source: Mix

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ThreerError(f"a data set is repeated once or more, got {self.times}")

    def __len__(self) -> int:
        return self.times * len(self.source)

    def locate(self, index: int, epoch: int) -> tuple[int, int]:
        return self.source.locate(_inside(index, len(self)) // self.times, epoch)

    @property
    def leaves(self) -> tuple[Countable, ...]:
        return self.source.leaves


@dataclass(frozen=True, eq=False)
class Resized:
    """`count @ D`: so many draws in each epoch, by a new permutation each time, wrapped around."""

    count: int
    source: Mix

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ThreerError(f"an epoch needs one sample or more of a data set, got {self.count}")

    def __len__(self) -> int:
        return self.count

    def locate(self, index: int, epoch: int) -> tuple[int, int]:
        order = permutation(len(self.source), epoch)
        return self.source.locate(int(order[_inside(index, len(self)) % len(order)]), epoch)

    @property
    def leaves(self) -> tuple[Countable, ...]:
        return self.source.leaves


@dataclass(frozen=True, eq=False)
class Joined:
    """`A + B + …`: one after the other."""

    parts: tuple[Mix, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ThreerError("nothing to put together: name a data set")

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def locate(self, index: int, epoch: int) -> tuple[int, int]:
        index, leaf = _inside(index, len(self)), 0
        for part in self.parts:
            if index < len(part):
                inner, draw = part.locate(index, epoch)
                return leaf + inner, draw
            index -= len(part)
            leaf += len(part.leaves)
        raise AssertionError("unreachable: the index was checked")

    @property
    def leaves(self) -> tuple[Countable, ...]:
        return tuple(leaf for part in self.parts for leaf in part.leaves)


def by_shares(sources: Mapping[str, Countable], weights: Mapping[str, float], samples: int) -> Joined:
    """``samples`` draws per epoch, each source its share; what rounding leaves goes to the largest remainders."""
    counts = counts_of([weights[name] for name in sources], samples)
    return Joined(tuple(
        Resized(count, One(source)) for source, count in zip(sources.values(), counts, strict=True) if count
    ))  # fmt: skip


def counts_of(weights: Sequence[float], samples: int) -> list[int]:
    """Whole numbers that add up to ``samples``, as near to the weights as can be."""
    if not weights or min(weights) < 0 or not sum(weights) > 0:
        raise ThreerError(f"weights must be positive, got {list(weights)}")
    exact = np.asarray(weights, float) / sum(weights) * samples
    counts = np.floor(exact).astype(int)
    largest = np.argsort(-(exact - counts), kind="stable")[: samples - int(counts.sum())]
    counts[largest] += 1
    return [int(count) for count in counts]


@lru_cache(maxsize=64)
def permutation(count: int, epoch: int, seed: int = 0) -> IntArray:
    """The order of an epoch, the same in every process."""
    order = np.random.default_rng([SHUFFLE_SEED + epoch, seed]).permutation(count)
    order.flags.writeable = False
    return order


def _inside(index: int, count: int) -> int:
    if not 0 <= index < count:
        raise IndexError(f"draw {index} of {count}")
    return index
