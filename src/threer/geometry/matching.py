"""Matches between two pointmaps in one frame: points that are each other's nearest neighbour (DUSt3R 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from threer.types import FloatArray, Pointmap

IntArray = npt.NDArray[np.intp]

GRID_STRIDE = 8
ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Matches:
    """M pixels of one image and the pixels of another that show the same points.

    pixels_a, pixels_b  [M, 2] (u, v), pixel centres at integers
    points_a, points_b  [M, 3] what the pointmaps say there, in their common frame
    conf                [M] geometric mean of both confidences
    """

    pixels_a: FloatArray
    pixels_b: FloatArray
    points_a: FloatArray
    points_b: FloatArray
    conf: FloatArray

    def __len__(self) -> int:
        return len(self.conf)


def reciprocal_neighbours(a: FloatArray, b: FloatArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """For each point of ``b`` [M, 3] its nearest one in ``a`` [N, 3], and whether that one's nearest is it again.

    Returns indices [M] into ``a`` and reciprocal [M] bool. Both empty sets give empty results.
    """
    if not len(a) or not len(b):
        return np.zeros(len(b), dtype=np.intp), np.zeros(len(b), dtype=bool)
    nearest_a = np.asarray(KDTree(a).query(b)[1], dtype=np.intp)
    nearest_b = np.asarray(KDTree(b).query(a)[1], dtype=np.intp)
    return nearest_a, np.asarray(nearest_b[nearest_a] == np.arange(len(b)))


def match_pointmaps(
    a: Pointmap,
    b: Pointmap,
    *,
    keep: float = 0.7,
    min_conf: float | None = None,
    max_distance: float | None = None,
    min_product: float | None = None,
    grid: int | None = None,
) -> Matches:
    """Match the pixels of two pointmaps [H, W] that are in one frame, by reciprocal nearest neighbours in space.

    keep          share of each map's pixels that take part, the most confident ones; confidence 0 never does
    min_conf      those at or below this confidence do not, either
    max_distance  a match may be this far apart, as a share of its distance from the frame's origin; None for any
    min_product   least product of both confidences; None for any
    grid          None matches every pixel; a stride starts from that grid in ``a`` only and follows nearest
                  neighbours forth and back until they close (MASt3R 3.3): fewer matches, many times faster

    Matches come in the order of the pixels of ``b``, with a grid of those of ``a``.
    """
    if grid is not None and grid < 1:
        raise ValueError(f"grid must be at least 1, got {grid}")
    chosen_a, chosen_b = _chosen(a, keep, min_conf), _chosen(b, keep, min_conf)
    points_a, points_b = _flat(a)[chosen_a], _flat(b)[chosen_b]
    if grid is None:
        index_a, closed = reciprocal_neighbours(points_a, points_b)
        rows_a, rows_b = index_a[closed], np.flatnonzero(closed)
    else:
        width = a.conf.shape[-1]
        v, u = np.divmod(chosen_a, width)
        starts = np.flatnonzero((u % grid == grid // 2) & (v % grid == grid // 2))
        rows_a, rows_b = _follow(points_a, points_b, starts)
    matches = _gather(a, b, chosen_a[rows_a], chosen_b[rows_b])
    good = np.ones(len(matches), dtype=bool)
    if max_distance is not None:
        apart = np.linalg.norm(matches.points_a - matches.points_b, axis=1)
        good &= apart <= max_distance * np.linalg.norm(matches.points_a, axis=1)
    if min_product is not None:
        good &= matches.conf**2 >= min_product
    return Matches(*(getattr(matches, name)[good] for name in Matches.__dataclass_fields__))


def _follow(a: FloatArray, b: FloatArray, starts: IntArray) -> tuple[IntArray, IntArray]:
    """Reciprocal pairs reached from rows ``starts`` of ``a`` by going to the nearest neighbour forth and back."""
    nothing = np.zeros(0, dtype=np.intp)
    if not len(starts) or not len(b):
        return nothing, nothing
    tree_a, tree_b = KDTree(a), KDTree(b)
    here, found_a, found_b = starts, [nothing], [nothing]
    for _ in range(ROUNDS):
        there = np.asarray(tree_b.query(a[here])[1], dtype=np.intp)
        back = np.asarray(tree_a.query(b[there])[1], dtype=np.intp)
        closed = back == here
        found_a.append(here[closed])
        found_b.append(there[closed])
        here = np.unique(back[~closed])
        if not len(here):
            break
    rows_a, first = np.unique(np.concatenate(found_a), return_index=True)
    return rows_a, np.concatenate(found_b)[first]


def _flat(points: Pointmap) -> FloatArray:
    return np.asarray(points.xyz.detach().reshape(-1, 3).double().cpu().numpy())


def _conf(points: Pointmap) -> FloatArray:
    return np.asarray(points.conf.detach().reshape(-1).double().cpu().numpy())


def _chosen(points: Pointmap, keep: float, min_conf: float | None) -> IntArray:
    """Rows of the pixels that take part."""
    if points.conf.ndim != 2:
        raise ValueError(f"a pointmap of one image is [H, W], got {list(points.conf.shape)}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
    conf = _conf(points)
    usable = (conf > 0) & np.isfinite(_flat(points)).all(axis=1)
    if min_conf is not None:
        usable &= conf > min_conf
    if usable.any() and keep < 1:
        usable &= conf >= np.quantile(conf[usable], 1 - keep)
    return np.flatnonzero(usable)


def _gather(a: Pointmap, b: Pointmap, rows_a: IntArray, rows_b: IntArray) -> Matches:
    def pixels(points: Pointmap, rows: IntArray) -> FloatArray:
        v, u = np.divmod(rows, points.conf.shape[-1])
        return np.stack([u, v], axis=1).astype(np.float64)

    conf = np.sqrt(_conf(a)[rows_a] * _conf(b)[rows_b])
    return Matches(pixels(a, rows_a), pixels(b, rows_b), _flat(a)[rows_a], _flat(b)[rows_b], conf)
