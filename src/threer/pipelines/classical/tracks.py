"""Tracks: which features of many pictures are one point, from the matches of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from threer.pipelines.classical.features import IdArray


@dataclass(frozen=True, eq=False)
class Tracks:
    """Observations in the order of their tracks.

    track    [M] 0 … len - 1, ascending
    image    [M] ids
    feature  [M] index of the feature in its picture
    """

    track: IdArray
    image: IdArray
    feature: IdArray

    def __len__(self) -> int:
        return int(self.track[-1]) + 1 if len(self.track) else 0


def build_tracks(matches: Mapping[tuple[int, int], IdArray], *, shortest: int = 2) -> Tracks:
    """Join matched features ([M, 2] for each pair of ids) into tracks.

    A track with two features in one picture contradicts itself and is left out, as is one of fewer than
    ``shortest`` pictures. Union-find, by scipy's connected components.
    """
    ends = [
        (np.full((len(m), 2), pair, np.int64), np.asarray(m, np.int64)) for pair, m in matches.items() if len(m)
    ]
    nothing = np.empty(0, np.int64)
    if not ends:
        return Tracks(nothing, nothing, nothing)
    image = np.concatenate([i for i, _ in ends]).reshape(-1)
    feature = np.concatenate([f for _, f in ends]).reshape(-1)
    nodes, inverse = np.unique(np.stack([image, feature], axis=1), axis=0, return_inverse=True)
    edges = inverse.reshape(-1, 2)
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(nodes),) * 2)
    number, label = connected_components(graph, directed=False)
    label = label.astype(np.int64)
    length = np.bincount(label, minlength=number)
    pictures = np.unique(np.stack([label, nodes[:, 0]], axis=1), axis=0)[:, 0]
    keep = (np.bincount(pictures, minlength=number) == length) & (length >= shortest)
    chosen = keep[label]
    order = np.argsort(label[chosen], kind="stable")
    _, track = np.unique(label[chosen][order], return_inverse=True)
    return Tracks(track.astype(np.int64), nodes[chosen, 0][order], nodes[chosen, 1][order])
