"""Which photos look at each other: the pair graphs of DUSt3R (pipelines.md 2.1), and the one found by likeness."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from threer.errors import ReconstructionError
from threer.types import FloatArray

Pair = tuple[int, int]


def complete(count: int) -> list[Pair]:
    """Every photo with every other one."""
    return [(i, j) for i in range(count) for j in range(i)]


def sliding_window(count: int, window: int = 3, *, cyclic: bool = True, self_pairs: bool = False) -> list[Pair]:
    """Every photo with the next ``window`` ones; the last is followed by the first if ``cyclic``.

    self_pairs  keep a photo's pair with itself, which a window around a small circle meets (quirk D9)
    """
    return _around(count, range(1, window + 1), cyclic, self_pairs)


def log_window(count: int, window: int = 3, *, cyclic: bool = True) -> list[Pair]:
    """Every photo with those 1, 2, 4, … away on both sides, ``window`` steps."""
    steps = [sign * 2**k for k in range(window) for sign in (-1, 1)]
    return _around(count, steps, cyclic, self_pairs=False)


def one_reference(count: int, reference: int = 0) -> list[Pair]:
    """One photo with every other one."""
    if not 0 <= reference < count:
        raise ReconstructionError(f"the reference photo must be one of 0 to {count - 1}, got {reference}")
    return [(reference, j) for j in range(count) if j != reference]


def most_alike(likeness: FloatArray, neighbours: int) -> list[Pair]:
    """Every photo with the ``neighbours`` it resembles most, and what else it takes for all to hang together.

    likeness  [N, N] how well a pair promises to go together, larger is better; both orders are averaged

    The best spanning tree is always in it, so no photo is cut off by a bad guess.
    """
    count = len(likeness)
    mutual = (likeness + likeness.T) / 2
    np.fill_diagonal(mutual, -np.inf)
    ranked = np.argsort(-mutual, axis=1, kind="stable")[:, : min(neighbours, count - 1)]
    pairs = {(min(i, int(j)), max(i, int(j))) for i in range(count) for j in ranked[i]}
    rows, columns = np.triu_indices(count, 1)
    costs = mutual[rows, columns].max() + 1 - mutual[rows, columns]  # above 0: a zero would be no edge at all
    tree = minimum_spanning_tree(coo_array((costs, (rows, columns)), shape=(count, count)))
    pairs |= {(int(i), int(j)) for i, j in zip(*tree.nonzero(), strict=True)}
    return sorted(pairs)


def within(pairs: Iterable[Pair], distance: int, *, cyclic_of: int | None = None) -> list[Pair]:
    """Only the pairs at most ``distance`` apart in order; in a circle of ``cyclic_of`` photos if given."""

    def apart(i: int, j: int) -> int:
        straight = abs(i - j)
        return straight if cyclic_of is None else min(straight, cyclic_of - straight)

    return [(i, j) for i, j in pairs if apart(i, j) <= distance]


def symmetrized(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs, then each of them the other way round."""
    forth = list(pairs)
    return forth + [(j, i) for i, j in forth]


def components(count: int, pairs: Iterable[Pair]) -> list[list[int]]:
    """Photos that hang together by pairs, the largest set first."""
    edges = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    number, labels = connected_components(graph, directed=False)
    sets = [np.flatnonzero(labels == k).tolist() for k in range(number)]
    return sorted(sets, key=lambda members: (-len(members), members[0]))


def _around(count: int, steps: Iterable[int], cyclic: bool, self_pairs: bool) -> list[Pair]:
    """Pairs (smaller, larger) of photos some steps apart, each once, in the order they are met."""
    steps = list(steps)
    found: dict[Pair, None] = {}
    for i in range(count):
        for step in steps:
            j = (i + step) % count if cyclic else i + step
            if 0 <= j < count and (self_pairs or i != j):
                found[min(i, j), max(i, j)] = None
    return list(found)
