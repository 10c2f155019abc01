"""A mesh of a finished run: its depth maps fused, weighted by confidence, and the surface between drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from threer.config import MeshConfig
from threer.errors import ReconstructionError, ThreerError
from threer.geometry.projection import invert_affine, transform_intrinsics
from threer.geometry.surface import Mesh, compact, drop_small, extract, fill_holes
from threer.geometry.tsdf import BYTES_PER_BLOCK, Keys, Volume, blocks_near
from threer.io.runs import Scene
from threer.types import FloatArray

VOXELS_PER_PIXEL = 1.5
"""A voxel is as wide as so many pixels are at the usual depth: smaller ones are measured too rarely."""
GROWTH = 1.05
_GIB = 1 << 30

Watch = Callable[[Iterable[int], str], Iterable[int]]
"""Goes through positions and tells somebody what is being done: (positions, what)."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """A frame as fusion wants it: depth [H, W] (NaN where unknown or not sure enough), weights [H, W],
    rgb [H, W, 3], K in the pixels of the depth map, c2w."""

    depth: FloatArray
    weights: FloatArray
    rgb: npt.NDArray[np.uint8]
    K: FloatArray
    c2w: FloatArray

    @property
    def points(self) -> FloatArray:
        """[M, 3] world points of the known depths."""
        v, u = np.nonzero(np.isfinite(self.depth))
        z = self.depth[v, u]
        x, y = (u - self.K[0, 2]) / self.K[0, 0] * z, (v - self.K[1, 2]) / self.K[1, 1] * z
        points: FloatArray = np.stack([x, y, z], axis=-1) @ self.c2w[:3, :3].T + self.c2w[:3, 3]
        return points


@dataclass(frozen=True, eq=False)
class SurfaceResult:
    """A mesh, and how it came about.

    voxel    side of a voxel, in the unit of the run
    frames   depth maps in it
    left_out frames without a camera or without depth
    notes    what else the user should know
    """

    mesh: Mesh
    voxel: float
    frames: int
    left_out: int
    notes: Sequence[str]


def surface(scene: Scene, config: MeshConfig | None = None, watch: Watch = lambda them, _: them) -> SurfaceResult:
    """The surface that the depth maps of a run agree on; holes stay open unless `fill_holes` is set.

    Depth is each point's z in its frame's camera, so a frame takes part if its camera was found. Memory is bounded
    by `memory`, beside the mesh itself; frames are read three times.

    Raises `ReconstructionError` where there is nothing to fuse, `ThreerError` for voxels too small for `memory`.
    """
    config = config or MeshConfig()
    if not len(scene):
        raise ReconstructionError(f"{scene.path} holds no frames: there is no surface to find")
    cameras = scene.cameras
    usable = np.flatnonzero(cameras.found & np.isfinite(cameras.K).all(axis=(1, 2)))
    if not len(usable):
        raise ReconstructionError(
            f"no camera of {scene.path} was found, so there is no depth to fuse; look at its report for the reason"
        )
    maps = _Maps(scene, config.keep)
    footprints = {k: _footprint(found) for k, found in maps.read(watch(usable.tolist(), "measuring"))}
    if not footprints:
        raise ReconstructionError(
            f"none of the {len(usable)} frames of {scene.path} with a camera has a known point in front of it: "
            "everything is masked or failed"
        )
    positions = list(footprints)
    notes: list[str] = []
    voxel = config.voxel or VOXELS_PER_PIXEL * float(np.median(list(footprints.values())))
    wanted, budget = voxel, max(1, int(config.memory * _GIB / BYTES_PER_BLOCK))
    while len(keys := _blocks(maps, watch(positions, "finding surfaces"), voxel, budget)) > budget:
        if config.voxel is not None:
            raise ThreerError(
                f"voxels of {voxel:g} need more than {config.memory:g} GiB: give more --memory or a larger --voxel"
            )
        voxel *= GROWTH * math.sqrt(len(keys) / budget)  # blocks cover surfaces, so their number falls squared
    if voxel > wanted:
        notes.append(f"voxels are {voxel / wanted:.2g} times as large as the pictures allow, to fit into --memory")
    volume = Volume(voxel, keys)
    for _, found in maps.read(watch(positions, "fusing")):
        volume.integrate(found.depth, found.weights, found.rgb, found.K, found.c2w)
    mesh = finish(extract(volume, config.views), config)
    if not len(mesh.faces):
        raise ReconstructionError(
            f"no surface came out of {len(positions)} depth maps: they agree nowhere; try a larger --voxel than "
            f"{voxel:.3g}, fewer --views, or --smallest 0"
        )
    return SurfaceResult(mesh, voxel, len(positions), len(scene) - len(positions), notes)


def finish(mesh: Mesh, config: MeshConfig) -> Mesh:
    """Drop small pieces, close small holes and simplify, as far as that is wanted."""
    if config.smallest and len(mesh.faces):
        mesh = drop_small(mesh, math.ceil(config.smallest * len(mesh.faces)))
    if config.fill_holes:
        mesh = fill_holes(mesh, config.fill_holes)
    if config.faces is not None and len(mesh.faces) > config.faces:
        mesh = simplify(mesh, config.faces)
    return mesh


def simplify(mesh: Mesh, faces: int) -> Mesh:
    """About ``faces`` faces that follow the same surface (quadric errors); colours come from the nearest vertex.

    Raises ThreerError if fast-simplification is not installed.
    """
    try:
        import fast_simplification
    except ImportError:
        raise ThreerError("simpler meshes need one more package: pip install 'threer[mesh]'") from None
    from scipy.spatial import cKDTree

    vertices, triangles = fast_simplification.simplify(
        mesh.vertices, mesh.faces.astype(np.int32), target_count=faces
    )
    nearest = cKDTree(mesh.vertices).query(vertices)[1]
    return compact(vertices.astype(np.float32), triangles.astype(np.int64), mesh.rgb[nearest])


class _Maps:
    """Depth maps of a scene, one in memory at a time."""

    def __init__(self, scene: Scene, keep: float) -> None:
        self._scene, self._keep = scene, keep

    def read(self, positions: Iterable[int]) -> Iterator[tuple[int, DepthMap]]:
        """Those at ``positions`` that know any depth."""
        for position in positions:
            frame = self._scene.frame(position)
            depth = self._scene.depth(position)
            known = np.isfinite(depth) & (depth > 0) & (frame.conf > 0)
            if not known.any():
                continue
            sure = frame.conf >= np.quantile(frame.conf[known], 1 - self._keep)
            K = transform_intrinsics(frame.K, invert_affine(frame.to_original))
            depth = np.where(known & sure, depth, np.nan)
            yield position, DepthMap(depth, frame.conf, frame.colours, K, frame.c2w)


def _footprint(found: DepthMap) -> float:
    """How wide a pixel is at the usual depth."""
    return float(np.nanmedian(found.depth) / math.sqrt(found.K[0, 0] * found.K[1, 1]))


def _blocks(maps: _Maps, positions: Iterable[int], voxel: float, budget: int) -> Keys:
    """All blocks near points; of many more than ``budget``, enough to tell how far it is exceeded."""
    keys: Keys = np.empty(0, np.int64)
    for _, found in maps.read(positions):
        keys = np.union1d(keys, blocks_near(found.points, voxel))
        if len(keys) > 4 * budget:
            break
    return keys
