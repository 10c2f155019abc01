"""Lists of overlapping pairs, as preprocessing writes them, brought to one form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threer.data.datasets.format import IntArray
from threer.errors import SourceError
from threer.types import FloatArray


def columns(table: Any, least: int, where: Path) -> list[Any]:
    """Columns of a table that may be a plain array or a structured one. Raises `SourceError` for too few."""
    table = np.asarray(table)
    if table.dtype.names:
        found = [table[name] for name in table.dtype.names]
    elif table.ndim == 2:
        found = list(table.T)
    elif table.size == 0:
        found = [np.empty(0, np.int64)] * least
    else:
        found = []
    if len(found) < least:
        raise SourceError(f"{where}: pairs need {least} columns or more, got shape {list(table.shape)}")
    return found


def by_group(group: Any, *values: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Each group and its rows of the values, in rising order of the groups."""
    group = np.asarray(group)
    order = np.argsort(group, kind="stable")
    names, starts = np.unique(group[order], return_index=True)
    for name, rows in zip(names, np.split(order, starts[1:]), strict=True):
        yield name, [None if v is None else np.asarray(v)[rows] for v in values]


def numbered(first: Any, second: Any) -> tuple[tuple[Any, ...], IntArray]:
    """The members of pairs, sorted, and the pairs [E, 2] as their positions."""
    members, positions = np.unique(np.stack([first, second], axis=1), return_inverse=True)
    return tuple(members.tolist()), positions.reshape(-1, 2).astype(np.int64)


def neighbours_in_time(tracks: Sequence[IntArray]) -> tuple[IntArray, FloatArray]:
    """Edges between what follows each other, and between what was taken at once by two cameras."""
    edges = [np.stack([track[:-1], track[1:]], 1) for track in tracks if len(track) > 1]
    shortest = min((len(track) for track in tracks), default=0)
    edges += [np.stack([a[:shortest], b[:shortest]], 1) for a, b in itertools.pairwise(tracks)]
    joined = np.concatenate(edges) if edges else np.empty((0, 2), np.int64)
    return joined, np.ones(len(joined))
