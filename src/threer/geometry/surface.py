"""Triangles from a volume of signed distances (marching cubes), and what is done to them afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from threer.errors import ThreerError
from threer.geometry.tsdf import BLOCK, Volume, block_coordinates, block_keys
from threer.types import FloatArray

BRICK = 4
"""Blocks along the side of a brick: what marching cubes walks through at once."""
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A coloured triangle mesh; a face's normal, by the right hand, points to where it was seen from.

    vertices  [M, 3] float32, world
    faces     [F, 3] int64
    rgb       [M, 3] uint8
    """

    vertices: npt.NDArray[np.float32]
    faces: IntArray
    rgb: npt.NDArray[np.uint8]

    @property
    def components(self) -> IntArray:
        """[F] which connected piece each face belongs to, numbered from 0."""
        edges = np.concatenate([self.faces[:, :2], self.faces[:, 1:]])
        graph = coo_array((np.ones(len(edges), bool), edges.T), shape=(len(self.vertices),) * 2)
        labels = connected_components(graph, directed=False)[1][self.faces[:, 0]]
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def extract(volume: Volume, views: int = 1) -> Mesh:
    """The surface of a volume. Only cubes of which all eight corners were measured have triangles: holes stay open.

    views  depth maps that must have measured a voxel

    Raises ThreerError if scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise ThreerError("meshes need one more package: pip install 'threer[mesh]'") from None
    vertices, faces, colours, on_border, count = [], [], [], [], 0
    bricks = np.unique(block_coordinates(volume.keys) // BRICK, axis=0)
    for brick in bricks:
        distance, seen, rgb = _gather(volume, brick, views)
        if not (seen & (distance < 0)).any() or not (seen & (distance > 0)).any():
            continue
        found, triangles, _, _ = marching_cubes(distance, 0.0, gradient_direction="descent")  # type: ignore[no-untyped-call]
        whole = seen[1:, 1:, 1:].copy()
        for corner in range(7):
            x, y, z = (slice(1, None) if corner >> bit & 1 else slice(None, -1) for bit in range(3))
            whole &= seen[x, y, z]
        cube = np.minimum(found[triangles].mean(axis=1).astype(np.intp), whole.shape[0] - 1)
        triangles = triangles[whole[tuple(cube.T)]]
        used, triangles = np.unique(triangles, return_inverse=True)
        if not len(used):
            continue
        found = found[used]
        faces.append(triangles.reshape(-1, 3) + count)
        colours.append(_colour(found, rgb))
        on_border.append(((found == 0) | (found == BRICK * BLOCK)).any(axis=1))
        vertices.append(found + brick * (BRICK * BLOCK))
        count += len(found)
    if not vertices:
        return Mesh(np.empty((0, 3), np.float32), np.empty((0, 3), np.int64), np.empty((0, 3), np.uint8))
    grid = np.concatenate(vertices).astype(np.float64)
    joined = _weld(grid, np.concatenate(on_border))[np.concatenate(faces)]
    return compact((grid * volume.voxel).astype(np.float32), joined, np.concatenate(colours))


def _gather(volume: Volume, brick: IntArray, views: int) -> tuple[FloatArray, BoolArray, FloatArray]:
    """A brick and the first voxels of the next ones: distances [33, 33, 33], which are known, colours [.., 4].

    Unknown distances are 1, as in free space. The fourth of the colours is their weight.
    """
    axis = np.arange(BRICK + 1)
    blocks = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3) + brick * BRICK
    place = volume.find(block_keys(blocks))
    there = place >= 0
    held = place[there]

    def joined(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        filled = np.zeros((len(place), *values.shape[1:]), values.dtype)
        filled[there] = values
        cubes = filled.reshape(*[BRICK + 1] * 3, *[BLOCK] * 3, -1).transpose(0, 3, 1, 4, 2, 5, 6)
        side = (BRICK + 1) * BLOCK
        end = BRICK * BLOCK + 1
        return cubes.reshape(side, side, side, -1)[:end, :end, :end]

    known = joined((volume.weight[held] > 0) & (volume.views[held] >= views))[..., 0]
    distance = np.where(known, joined(volume.distance[held])[..., 0], np.float32(1))
    rgb = joined(np.concatenate([volume.rgb[held], volume.rgb_weight[held][..., None]], axis=-1))
    return distance, known, rgb


def _colour(vertices: FloatArray, rgb: FloatArray) -> npt.NDArray[np.uint8]:
    """[M, 3] of vertices on the edges of a grid: mixed from the ends of the edge, as far as these have a colour."""
    low, high = np.floor(vertices).astype(np.intp), np.ceil(vertices).astype(np.intp)
    share = (vertices - low).max(axis=1, keepdims=True)  # two coordinates are whole
    first, second = rgb[tuple(low.T)], rgb[tuple(high.T)]
    near, far = (1 - share) * (first[:, 3:] > 0), share * (second[:, 3:] > 0)
    mixed = (near * first[:, :3] + far * second[:, :3]) / np.maximum(near + far, 1e-9)
    colours: npt.NDArray[np.uint8] = np.rint(mixed).clip(0, 255).astype(np.uint8)
    return colours


def _weld(grid: FloatArray, on_border: BoolArray) -> IntArray:
    """[M] the vertex that stands for each: those on the borders of bricks come once from each brick."""
    joined = np.arange(len(grid))
    border = np.flatnonzero(on_border)
    _, first, inverse = np.unique(
        np.rint(grid[border] * 4096).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    joined[border] = border[first][inverse.reshape(-1)]
    return joined


def compact(vertices: npt.NDArray[np.float32], faces: IntArray, rgb: npt.NDArray[np.uint8]) -> Mesh:
    """A mesh without faces that have collapsed and without vertices that no face uses."""
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    used, renumbered = np.unique(faces, return_inverse=True)
    return Mesh(vertices[used], renumbered.reshape(-1, 3).astype(np.int64), rgb[used])


def drop_small(mesh: Mesh, least: int) -> Mesh:
    """Without the connected pieces of fewer than ``least`` faces."""
    labels = mesh.components
    large = np.bincount(labels, minlength=1)[labels] >= least
    return compact(mesh.vertices, mesh.faces[large], mesh.rgb)


def fill_holes(mesh: Mesh, most: int) -> Mesh:
    """Close every hole whose rim has at most ``most`` edges, by triangles to the middle of its rim.

    A rim that touches itself, or another one, in a vertex is left open.
    """
    rims = [rim for rim in _rims(mesh) if len(rim) <= most]
    if not rims:
        return mesh
    vertices, faces, rgb = [mesh.vertices], [mesh.faces], [mesh.rgb]
    for middle, rim in enumerate(rims, len(mesh.vertices)):
        vertices.append(mesh.vertices[rim].mean(axis=0, keepdims=True))
        rgb.append(np.rint(mesh.rgb[rim].mean(axis=0, keepdims=True)).astype(np.uint8))
        # The rim runs against its faces, as a neighbour's edges do.
        faces.append(np.stack([rim, np.roll(rim, -1), np.full(len(rim), middle)], axis=1))
    return Mesh(np.concatenate(vertices), np.concatenate(faces), np.concatenate(rgb))


def _rims(mesh: Mesh) -> list[IntArray]:
    """The closed lines of edges that belong to one face only, each against the direction of its faces."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    count = len(mesh.vertices)
    forth, back = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    start, end = edges[~np.isin(forth, back)].T
    follow = dict(zip(end.tolist(), start.tolist(), strict=True))
    crossed = set(end[np.bincount(end, minlength=count)[end] > 1].tolist())
    rims, seen = [], set[int]()
    for first in follow:
        rim, vertex = [], first
        while vertex not in seen and vertex in follow:
            seen.add(vertex)
            rim.append(vertex)
            vertex = follow[vertex]
        if vertex == first and len(rim) >= 3 and not crossed.intersection(rim):
            rims.append(np.array(rim, np.int64))
    return rims
