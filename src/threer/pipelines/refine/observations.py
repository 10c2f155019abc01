"""From matched pictures to points seen by several cameras, some of which are held back for the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array

from threer.pipelines.classical.features import IdArray
from threer.pipelines.classical.tracks import build_tracks
from threer.types import FloatArray

Matches = Mapping[tuple[int, int], IdArray]
"""[M, 2] features of both views, for pairs of views."""
HELD_BACK = 0.1
AT_ONCE = 100_000


@dataclass(frozen=True, eq=False)
class Observations:
    """Where points are seen, in the order of the points.

    track  [M] 0 … len - 1, ascending
    view   [M] row of the camera
    pixel  [M, 2] pixels of the original, centres at integers
    """

    track: IdArray
    view: IdArray
    pixel: FloatArray

    def __len__(self) -> int:
        return int(self.track[-1]) + 1 if len(self.track) else 0

    def chosen(self, keep: npt.NDArray[np.bool_]) -> Observations:
        """Those of ``keep`` [M]; points keep their numbers."""
        return Observations(self.track[keep], self.view[keep], self.pixel[keep])


@dataclass(frozen=True, eq=False)
class HeldBack:
    """Matches that no track knows of.   first, second [M] views, pixel_a, pixel_b [M, 2]"""

    first: IdArray
    second: IdArray
    pixel_a: FloatArray
    pixel_b: FloatArray

    def __len__(self) -> int:
        return len(self.first)


def gather(matches: Matches, pixels: Sequence[FloatArray], *, seed: int = 0) -> tuple[Observations, HeldBack]:
    """Observations of nine tenths of the points, and the matches of the others.

    matches  features of pairs of views that geometry confirmed
    pixels   [F, 2] of every view's features

    Whole points are held back, not matches: one match of a point that is used elsewhere would prove nothing.
    """
    tracks = build_tracks(without_doubtful(matches, [len(p) for p in pixels]))
    held = np.random.default_rng(seed).permutation(len(tracks)) < round(HELD_BACK * len(tracks))
    used = ~held[tracks.track]
    _, numbered = np.unique(tracks.track[used], return_inverse=True)
    offsets = _offsets([len(p) for p in pixels])
    stacked = np.concatenate([np.asarray(p, np.float64).reshape(-1, 2) for p in pixels])
    nodes = offsets[tracks.image] + tracks.feature
    seen = Observations(numbered.astype(np.int64), tracks.image[used], stacked[nodes[used]])
    label = np.full(offsets[-1], -1, np.int64)
    label[nodes[~used]] = tracks.track[~used]
    first, second, view_a, view_b = _joined(matches, offsets)
    back = (label[first] >= 0) & (label[first] == label[second])
    return seen, HeldBack(view_a[back], view_b[back], stacked[first[back]], stacked[second[back]])


def without_doubtful(matches: Matches, features: Sequence[int]) -> dict[tuple[int, int], IdArray]:
    """Leave matches out that no third picture agrees with, where one of their ends has better ones.

    One wrong match merges two points into one that contradicts itself, and both are lost. Right ones close
    triangles: a with b, b with c, a with c; wrong ones hardly ever do.
    """
    offsets = _offsets(features)
    first, second, _, _ = _joined(matches, offsets)
    size = (int(offsets[-1]),) * 2
    graph = coo_array((np.ones(len(first), np.int32), (first, second)), shape=size).tocsr()
    graph = graph + graph.T
    supported = np.zeros(len(first), bool)
    for begin in range(0, len(first), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        supported[part] = graph[first[part]].multiply(graph[second[part]]).sum(axis=1) > 0
    confirmed = np.zeros(offsets[-1], bool)
    confirmed[first[supported]] = confirmed[second[supported]] = True
    keep = supported | ~(confirmed[first] | confirmed[second])
    ends = np.cumsum([len(found) for found in matches.values()])
    parts = np.split(keep, ends[:-1]) if len(ends) else []
    return {pair: np.asarray(found)[part] for (pair, found), part in zip(matches.items(), parts, strict=True)}


def _offsets(features: Sequence[int]) -> IdArray:
    return np.concatenate([[0], np.cumsum(features)]).astype(np.int64)


def _joined(matches: Matches, offsets: IdArray) -> tuple[IdArray, IdArray, IdArray, IdArray]:
    """Both features of all matches, counted through all views, and both views."""
    pairs = [np.asarray(found, np.int64).reshape(-1, 2) for found in matches.values()]
    joined = np.concatenate([*pairs, np.empty((0, 2), np.int64)])
    views = np.array(list(matches), np.int64).reshape(-1, 2)
    views = np.repeat(views, [len(found) for found in pairs], axis=0)
    return offsets[views[:, 0]] + joined[:, 0], offsets[views[:, 1]] + joined[:, 1], views[:, 0], views[:, 1]
