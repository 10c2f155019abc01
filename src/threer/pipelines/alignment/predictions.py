"""What a network says about every pair of a graph: each photo encoded once, pairs decoded in batches (quirk D5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from threer.pipelines.alignment.pairs import Pair
from threer.pipelines.sessions import Progress, check_finite
from threer.types import FloatArray, Frame, Pointmap, View

Storage = Literal["float32", "float16"]

LARGEST_HALF = 6e4


@dataclass(frozen=True, eq=False)
class Pairs:
    """Predictions for E ordered pairs of N photos; sizes may differ between photos.

    edges  [E, 2] photos (i, j)
    own    [H_i, W_i] points of photo i in its own camera's frame, one map a pair
    other  [H_j, W_j] points of photo j in the camera frame of photo i
    sizes  (H, W) of each photo

    Each pair has a unit of length of its own.
    """

    edges: npt.NDArray[np.int64]
    own: Sequence[Pointmap]
    other: Sequence[Pointmap]
    sizes: Sequence[tuple[int, int]]

    def __post_init__(self) -> None:
        if self.edges.shape != (len(self.own), 2) or len(self.own) != len(self.other):
            raise ValueError(f"{len(self.own)} and {len(self.other)} maps do not fit edges {self.edges.shape}")
        for e, i, v, points in self.maps():
            if tuple(points.conf.shape) != tuple(self.sizes[i]):
                raise ValueError(
                    f"map {v} of pair {e} is {list(points.conf.shape)}, photo {i} is {list(self.sizes[i])}"
                )

    def __len__(self) -> int:
        return len(self.own)

    @property
    def count(self) -> int:
        """How many photos."""
        return len(self.sizes)

    def maps(self) -> Iterator[tuple[int, int, int, Pointmap]]:
        """All 2E maps: pair, photo, role (0 own, 1 other), points."""
        for e, (i, j) in enumerate(self.edges.tolist()):
            yield e, i, 0, self.own[e]
            yield e, j, 1, self.other[e]

    def seen(self, photo: int) -> list[tuple[int, int, Pointmap]]:
        """The maps of one photo: pair, role, points."""
        first = [(e, 0, self.own[e]) for e in np.flatnonzero(self.edges[:, 0] == photo).tolist()]
        return first + [(e, 1, self.other[e]) for e in np.flatnonzero(self.edges[:, 1] == photo).tolist()]

    def partners(self, photo: int) -> set[int]:
        """The photos that one is paired with, in either order."""
        rows = (self.edges == photo).any(axis=1)
        return set(self.edges[rows].flatten().tolist()) - {photo}

    def scores(self) -> FloatArray:
        """[E] how sure the network is of each pair: product of both mean confidences."""
        return np.array(
            [
                float(a.conf.float().mean() * b.conf.float().mean())
                for a, b in zip(self.own, self.other, strict=True)
            ]
        )

    def confidence(self) -> list[Tensor]:
        """For each photo [H, W] the largest confidence that any pair gives its pixels; 0 where no pair has it."""
        best = [torch.zeros(size) for size in self.sizes]
        for _, i, _, points in self.maps():
            best[i] = torch.maximum(best[i], points.conf.float())
        return best

    def subset(self, photos: Sequence[int]) -> Pairs:
        """Only the pairs among ``photos``, which are counted from 0 in that order."""
        number = {photo: k for k, photo in enumerate(photos)}
        rows = [e for e, (i, j) in enumerate(self.edges.tolist()) if i in number and j in number]
        edges = np.array([[number[k] for k in self.edges[e].tolist()] for e in rows], dtype=np.int64)
        return Pairs(
            edges.reshape(-1, 2),
            [self.own[e] for e in rows],
            [self.other[e] for e in rows],
            [self.sizes[photo] for photo in photos],
        )

    def masked(self) -> Pairs:
        """The same, with points that are not finite at the origin and of confidence 0, as no sum stands them."""

        def mask(points: Pointmap) -> Pointmap:
            known = torch.isfinite(points.xyz).all(dim=-1) & torch.isfinite(points.conf)
            if known.all():
                return points
            return Pointmap(torch.where(known[..., None], points.xyz, 0), torch.where(known, points.conf, 0))

        return Pairs(self.edges, [mask(p) for p in self.own], [mask(p) for p in self.other], self.sizes)

    def without(self, rows: Iterable[int]) -> Pairs:
        """All but the pairs of these rows."""
        gone = set(rows)
        stay = [e for e in range(len(self)) if e not in gone]
        return Pairs(self.edges[stay], [self.own[e] for e in stay], [self.other[e] for e in stay], self.sizes)


def predict(
    model: Any,
    frames: Sequence[Frame],
    views: Sequence[View],
    pairs: Sequence[Pair],
    *,
    batch: int = 8,
    storage: Storage = "float32",
    progress: Progress | None = None,
) -> Pairs:
    """Run ``model`` on every pair.

    frames  the photos
    views   one for each photo, batch 1, with its tokens
    batch   so many pairs of equal sizes are decoded together
    storage precision in which the maps are kept

    Raises CheckpointError, naming the photo, for output that is not finite.
    """
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    own: list[Pointmap | None] = [None] * len(pairs)
    other: list[Pointmap | None] = [None] * len(pairs)

    def sizes_of(e: int) -> tuple[tuple[int, int], ...]:
        return tuple(frames[k].size for k in pairs[e])

    done = 0
    for _, group in groupby(sorted(range(len(pairs)), key=sizes_of), key=sizes_of):
        rows = list(group)
        for start in range(0, len(rows), batch):
            chunk = rows[start : start + batch]
            stacked = [_stacked([views[pairs[e][role]] for e in chunk]) for role in (0, 1)]
            first, second = (prediction.points for prediction in model(stacked))
            for place, e in enumerate(chunk):
                for role, (kept, maps) in enumerate(((own, first), (other, second))):
                    points = Pointmap(maps.xyz[place].float().cpu(), maps.conf[place].float().cpu())
                    check_finite(frames[pairs[e][role]], points)
                    kept[e] = _stored(points, storage)
            done += len(chunk)
            if progress:
                progress("pairs", done, len(pairs))
    sizes = [(frame.size[1], frame.size[0]) for frame in frames]
    return Pairs(edges, [p for p in own if p is not None], [p for p in other if p is not None], sizes)


def pooled_likeness(views: Sequence[View]) -> FloatArray:
    """[N, N] likeness of photos: the cosine between the means of their encoder tokens, less what all have alike."""
    pooled = torch.stack([view.tokens[0].float().mean(dim=0) for view in views if view.tokens is not None]).cpu()
    centred = torch.nn.functional.normalize(pooled - pooled.mean(dim=0), dim=1)
    return np.asarray((centred @ centred.T).double().numpy())


def _stacked(views: Sequence[View]) -> View:
    tokens = torch.cat([view.tokens for view in views if view.tokens is not None])
    return View(true_shape=torch.cat([view.shape for view in views]), tokens=tokens)


def _stored(points: Pointmap, storage: Storage) -> Pointmap:
    """The map in the precision it is kept in; half precision holds nothing beyond 65504."""
    if storage == "float32":
        return points
    return Pointmap(
        points.xyz.clamp(-LARGEST_HALF, LARGEST_HALF).half(), points.conf.clamp(max=LARGEST_HALF).half()
    )
