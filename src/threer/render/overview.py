"""One picture that shows a reconstruction: the cloud from a good side, from above, and the way the camera took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threer.render import path, splat
from threer.render.pictures import caption
from threer.render.splat import ByteImage, Layer
from threer.types import FloatArray, Trajectory

VIEW_DEGREES = 45  # horizontal
MAP_DEGREES = 12
ELEVATION_DEGREES = 35
HEADINGS = 16  # directions around the scene that are tried
MARGIN = 1.06
GRID = 64  # voxels along the scene, in which its extent is measured
SMALLEST_COUNT = 3  # points that make a voxel part of the scene
EXTENT_PERCENT = (1, 99)  # voxels outside are not framed
CENTRING_ROUNDS = 4
FILL_CELL_PX = 16
MAP_SHARE = 0.34  # of the width
CEILING_SHARE = 0.3  # of the ground plan, above which what hangs over all cameras is taken off
CEILING_CLEARANCE = 0.1  # of the scene's height
PATH_REACH = 0.5  # of the extent of scene and usual camera, beyond which a camera is a failed estimate
FARTHEST_PATH = (
    5.0  # extents of the scene between it and the usual camera: a telephoto lens sees 0.2 of its distance
)
BACKGROUND = (250, 250, 248)
SEPARATOR = (225, 225, 222)

Size = tuple[int, int]


def overview(
    xyz: FloatArray, rgb: ByteImage, trajectory: Trajectory | None = None, size: Size = (1280, 720)
) -> ByteImage:
    """Picture [H, W, 3] of a cloud xyz [M, 3], rgb [M, 3] uint8, in ``size`` (W, H): three-quarter view and map.

    The path is coloured from its start (blue) to its end (red), both marked; where the cloud hides it, it shines
    through.
    Cameras not found are left out. A cloud without points gives a picture that says so.
    """
    width, height = size
    good = np.isfinite(xyz).all(axis=1)
    if good.sum() < 4:
        return caption("No points to show: the reconstruction is empty.", size, BACKGROUND)
    xyz, rgb = np.asarray(xyz)[good], rgb[good]
    radii = splat.point_radii(xyz)
    whole = _Scene.of(xyz, trajectory)
    heights = xyz @ whole.axes[2]

    map_width = int(width * MAP_SHARE)
    main_size, map_size = (width - map_width - 2, height), (map_width, height)
    panels = []
    for panel_size, elevation, degrees, ceiling_share in (
        (main_size, ELEVATION_DEGREES, VIEW_DEGREES, CEILING_SHARE),
        (map_size, 90, MAP_DEGREES, 0.0),
    ):
        scene, top = whole.without_ceiling(ceiling_share)
        shown = heights <= top
        K, c2w = scene.best_view(elevation, degrees, panel_size)
        layer = splat.rasterize(xyz[shown], rgb[shown], radii[shown], K, c2w, panel_size)
        layer = splat.close_gaps(layer)
        layer = Layer(layer.depth, splat.shade(layer))
        if len(scene.cameras):
            layer = path.over(path.draw(scene.cameras, K, c2w, panel_size), layer, BACKGROUND)
        panel = splat.resolve(layer.rgb, layer.depth, BACKGROUND)
        panels.append(path.mark_ends(panel, scene.cameras, K, c2w))
    line = np.full((height, 2, 3), SEPARATOR, dtype=np.uint8)
    return np.concatenate([panels[0], line, panels[1]], axis=1)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What decides the view.

    cameras  [N, 4, 4] those that were found
    axes     [3, 3] rows: two horizontal directions, and up
    voxels   [V, 3] centres of the voxels that make up the bulk of the cloud; each counts once, however dense
    """

    cameras: FloatArray
    axes: FloatArray
    voxels: FloatArray

    @classmethod
    def of(cls, xyz: FloatArray, trajectory: Trajectory | None) -> _Scene:
        cameras = np.empty((0, 4, 4)) if trajectory is None else trajectory.c2w
        cameras = cameras[np.isfinite(cameras).all(axis=(1, 2))]
        return cls(cameras, _upright(cameras), _bulk(xyz))

    def without_ceiling(self, least_share: float) -> tuple[_Scene, float]:
        """The scene below what hangs over all cameras, and the height of that; itself and infinity where that
        covers less than ``least_share`` of the ground plan, or is most of the scene."""
        if not len(self.cameras):
            return self, np.inf
        heights = self.voxels @ self.axes[2]
        limit = float((self.cameras[:, :3, 3] @ self.axes[2]).max())
        limit += CEILING_CLEARANCE * float(heights.max() - heights.min())
        step = max(float(np.ptp(self.voxels, axis=0).max()), 1e-9) / GRID
        plan = np.floor(self.voxels @ self.axes[:2].T / step).astype(np.int64)
        above = heights > limit
        covered = len(np.unique(plan[above], axis=0)) / len(np.unique(plan, axis=0))
        if covered < least_share or above.mean() > 0.5:
            return self, np.inf
        return _Scene(self.cameras, self.axes, self.voxels[~above]), limit

    def best_view(self, elevation: float, degrees: float, size: Size) -> tuple[FloatArray, FloatArray]:
        """K and c2w of the side that fills the picture and shows surfaces from where the cameras saw them."""
        looks = self.cameras[:, :3, 2].mean(axis=0) if len(self.cameras) else np.zeros(3)
        candidates = []
        for heading in np.arange(HEADINGS) * 2 * np.pi / HEADINGS:
            K, c2w = self.view(heading, elevation, degrees, size)
            agreement = float(c2w[:3, 2] @ looks)
            candidates.append((_filled(self.voxels, K, c2w, size) * (1 + agreement), K, c2w))
        _, K, c2w = max(candidates, key=lambda candidate: candidate[0])
        return K, c2w

    def view(self, heading: float, elevation: float, degrees: float, size: Size) -> tuple[FloatArray, FloatArray]:
        """K and c2w of a camera that looks along ``heading`` (radians), down by ``elevation`` (degrees), and has
        bulk and path in its picture."""
        drop = np.radians(elevation)
        level = np.cos(heading) * self.axes[0] + np.sin(heading) * self.axes[1]
        forward = np.cos(drop) * level - np.sin(drop) * self.axes[2]
        down = -(np.sin(drop) * level + np.cos(drop) * self.axes[2])
        R = np.stack([np.cross(down, forward), down, forward], axis=1)
        framed = np.concatenate([self.voxels, self.near_path()]) @ R
        half = np.array(size) / 2 / MARGIN
        focal = size[0] / 2 / float(np.tan(np.radians(degrees) / 2))
        middle = (framed.min(axis=0) + framed.max(axis=0)) / 2
        distance = 0.0
        for _ in range(CENTRING_ROUNDS):
            local = framed - middle
            distance = max(float((focal * np.abs(local[:, :2]) / half - local[:, 2:]).max()), 1e-6)
            # What is near looks larger: the middle of the scene is not the middle of the picture.
            slopes = local[:, :2] / (local[:, 2:] + distance)
            middle[:2] += (slopes.min(axis=0) + slopes.max(axis=0)) / 2 * distance
        c2w = np.eye(4)
        c2w[:3, :3] = R
        c2w[:3, 3] = R @ (middle - [0.0, 0.0, distance])
        K = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
        return K, c2w

    def near_path(self) -> FloatArray:
        """Camera centres, without those that a failed estimate put far away from everything.

        The usual camera is not far away, though the cloud may begin as far in front of it as it is deep.
        """
        low, high = self.voxels.min(axis=0), self.voxels.max(axis=0)
        extent = float((high - low).max())
        centres = self.cameras[:, :3, 3]
        if len(centres):
            usual = np.median(centres, axis=0)
            if ((usual > low - FARTHEST_PATH * extent) & (usual < high + FARTHEST_PATH * extent)).all():
                low, high = np.minimum(low, usual), np.maximum(high, usual)
                extent = float((high - low).max())
        reach = PATH_REACH * extent
        near: FloatArray = centres[((centres > low - reach) & (centres < high + reach)).all(axis=1)]
        return near


def _upright(cameras: FloatArray) -> FloatArray:
    """Rows: two horizontal directions, and up.

    Cameras are pitched but seldom rolled: up is square to their x axes where these differ enough to tell, else
    the mean of where the tops of the pictures point.
    """
    tops = -cameras[:, :3, 1].mean(axis=0) if len(cameras) else np.array([0.0, -1.0, 0.0])
    up = tops
    if len(cameras):
        sides = cameras[:, :3, 0]
        spread, directions = np.linalg.eigh(sides.T @ sides / len(sides))
        if spread[1] > 0.02:
            up = directions[:, 0] * np.sign(directions[:, 0] @ tops)
    length = np.linalg.norm(up)
    up = up / length if length > 1e-3 else np.array([0.0, -1.0, 0.0])
    side = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(up, side), up])


def _bulk(xyz: FloatArray) -> FloatArray:
    """[V, 3] voxel centres of the cloud without its strays."""
    low, high = np.percentile(xyz[:: max(1, len(xyz) // 50_000)], [2, 98], axis=0)
    voxel = max(float((high - low).max()), 1e-9) / GRID
    near = (np.abs(xyz - (low + high) / 2) < 10 * GRID * voxel).all(axis=1)
    cells, counts = np.unique(np.floor(xyz[near] / voxel).astype(np.int64), axis=0, return_counts=True)
    centres = (cells + 0.5) * voxel
    solid = centres[counts >= SMALLEST_COUNT]
    centres = solid if len(solid) >= 4 else centres
    low, high = np.percentile(centres, EXTENT_PERCENT, axis=0)
    inner = centres[((centres >= low) & (centres <= high)).all(axis=1)]
    return inner if len(inner) >= 4 else centres


def _filled(points: FloatArray, K: FloatArray, c2w: FloatArray, size: Size) -> float:
    """Share of coarse cells of the picture that hold a point."""
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    ahead = local[:, 2] > 0
    pixels = local[ahead, :2] / local[ahead, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]
    cells = np.floor(pixels / FILL_CELL_PX).astype(np.int64)
    columns, rows = -(-size[0] // FILL_CELL_PX), -(-size[1] // FILL_CELL_PX)
    inside = ((cells >= 0) & (cells < [columns, rows])).all(axis=1)
    return len(np.unique(cells[inside] @ [1, columns])) / (columns * rows)
