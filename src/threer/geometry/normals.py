"""Surface normals: of a pointmap by its neighbouring pixels, of a loose cloud by its neighbouring points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from threer.types import FloatArray

LARGEST_JUMP = 0.05
"""Neighbouring pixels whose depths differ by more than this share belong to different surfaces."""
_AT_ONCE = 1 << 17  # points whose neighbours are looked at together


def pointmap_normals(points: FloatArray, c2w: FloatArray) -> FloatArray:
    """Unit normals [H, W, 3] of a pointmap [H, W, 3], towards the camera c2w [4, 4]; NaN where they are not known.

    The cross product of the differences to the next pixel and the next row. At the last column and row, and where
    those pixels are unknown or on another surface (depth jumps by more than 5 %), the pixels before are taken; each
    of the four corners may serve.
    """
    centre, forward = c2w[:3, 3], c2w[:3, 2]
    points = np.asarray(points, dtype=np.float64)
    depth = (points - centre) @ forward
    normals = np.full(points.shape, np.nan)
    for across in (1, -1):
        for down in (1, -1):
            right, right_depth = _neighbour(points, 1, across), _neighbour(depth, 1, across)
            below, below_depth = _neighbour(points, 0, down), _neighbour(depth, 0, down)
            found = _unit(np.cross(right - points, below - points))
            with np.errstate(invalid="ignore"):
                near = (np.abs(right_depth - depth) < LARGEST_JUMP * np.abs(depth)) & (
                    np.abs(below_depth - depth) < LARGEST_JUMP * np.abs(depth)
                )
            take = near & np.isfinite(found).all(axis=-1) & ~np.isfinite(normals).all(axis=-1)
            normals[take] = found[take]
    return _towards(normals, centre - points)


def cloud_normals(points: FloatArray, viewpoints: FloatArray, neighbours: int = 30) -> FloatArray:
    """Unit normals [M, 3] of a cloud [M, 3]: the direction in which its nearest neighbours spread least (PCA).

    viewpoints  [M, 3] or [3]: from where each point was seen; normals face it
    neighbours  points that decide, the point itself included; at least 3

    NaN where neighbours lie on a line, or fewer than 3 points are known.
    """
    if neighbours < 3:
        raise ValueError(f"a plane needs at least 3 neighbours, got {neighbours}")
    points = np.asarray(points, dtype=np.float64)
    normals = np.full(points.shape, np.nan)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(known) < 3:
        return normals
    tree = cKDTree(points[known])
    for first in range(0, len(known), _AT_ONCE):
        rows = known[first : first + _AT_ONCE]
        nearest = tree.query(points[rows], min(neighbours, len(known)))[1]
        normals[rows] = _flattest(points[known[nearest]])
    return _towards(normals, np.broadcast_to(viewpoints, points.shape) - points)


def _flattest(groups: FloatArray) -> FloatArray:
    """[G, k, 3] -> [G, 3] the axis of least spread; NaN where there are two such axes."""
    centred = groups - groups.mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(np.einsum("gki,gkj->gij", centred, centred))  # ascending
    line = spread[:, 1] <= 1e-10 * spread[:, 2]
    return np.where(line[:, None], np.nan, axes[:, :, 0])


def _neighbour(values: FloatArray, axis: int, step: int) -> FloatArray:
    """The next (1) or previous (-1) value along an axis; NaN beyond the edge."""
    moved = np.roll(values, -step, axis)
    edge: list[slice | int] = [slice(None)] * values.ndim
    edge[axis] = -1 if step > 0 else 0
    moved[tuple(edge)] = np.nan
    return moved


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: FloatArray = np.where(length > 0, vectors / length, np.nan)
    return unit


def _towards(normals: FloatArray, direction: FloatArray) -> FloatArray:
    away: npt.NDArray[np.bool_] = (normals * direction).sum(axis=-1) < 0
    turned: FloatArray = np.where(away[..., None], -normals, normals)
    return turned
