"""Depth maps fused into a signed distance (Curless and Levoy 1996), kept near surfaces only.

Space is cut into voxels, and those into blocks of 8×8×8. Only blocks near a measured point exist, so memory grows
with the area of surfaces, not with the volume around them. A voxel knows the weighted mean of its distances to the
surface along viewing rays, positive in front, in units of the truncation and cut off at 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from threer.types import FloatArray

BLOCK = 8
"""Voxels along the side of a block."""
TRUNCATION = 4
"""Voxels in front of and behind a surface that measure their distance from it; half a block."""
BYTES_PER_BLOCK = BLOCK**3 * (4 + 4 + 4 + 3 * 4 + 1)
_REACH = 1 << 20  # blocks on either side of the origin, along each axis
_AT_ONCE = 1 << 11  # blocks

Keys = npt.NDArray[np.int64]


def block_keys(blocks: npt.NDArray[np.int64]) -> Keys:
    """Block coordinates [M, 3] as single numbers [M], ordered like the coordinates."""
    shifted = blocks + _REACH
    keys: Keys = (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]
    return keys


def block_coordinates(keys: Keys) -> npt.NDArray[np.int64]:
    """What `block_keys` was given."""
    mask = (1 << 21) - 1
    return np.stack([keys >> 42, (keys >> 21) & mask, keys & mask], axis=-1) - _REACH


def blocks_near(points: FloatArray, voxel: float) -> Keys:
    """Sorted keys of all blocks within the truncation of points [M, 3]; unknown and far-off points have none."""
    half = BLOCK // 2 * voxel  # equals the truncation, so that one step to each side covers it
    cells = np.floor(np.asarray(points, dtype=np.float64) / half)
    with np.errstate(invalid="ignore"):
        inside = (np.abs(cells) < 2 * (_REACH - 2)).all(axis=1)
    # Points of a cell touch the same blocks. Cells are numbered like blocks: there are as many again on an axis.
    whole = cells[inside].astype(np.int64)
    odd = (whole & 1) @ np.array([4, 2, 1])
    near = []
    for parity in range(8):
        blocks = block_coordinates(np.unique(block_keys(whole[odd == parity] >> 1)))
        # An even cell begins its block, so the blocks in reach are this one and the one before.
        low = np.array([parity >> 2 & 1, parity >> 1 & 1, parity & 1]) - 1
        near += [block_keys(blocks + low + (x, y, z)) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    return np.unique(np.concatenate(near))


class Volume:
    """Voxels of given blocks.

    voxel     length of a voxel's side, in world units
    keys      [B] sorted, of the blocks
    distance  [B, 512] float32 in -1..1, in units of the truncation
    weight    [B, 512] float32, 0 where nothing was measured
    rgb       [B, 512, 3] float32 0..255, where ``rgb_weight`` [B, 512] is positive
    views     [B, 512] uint8: how many depth maps have measured a voxel, 255 for more

    Voxel (i, j, k) of a block is at index 64 i + 8 j + k; its centre lies at ``voxel`` · (8 block + (i, j, k)).
    """

    def __init__(self, voxel: float, keys: Keys) -> None:
        if not voxel > 0:
            raise ValueError(f"a voxel needs a positive size, got {voxel}")
        self.voxel = voxel
        self.keys = keys
        shape = (len(keys), BLOCK**3)
        self.distance = np.zeros(shape, np.float32)
        self.weight = np.zeros(shape, np.float32)
        self.rgb = np.zeros((*shape, 3), np.float32)
        self.rgb_weight = np.zeros(shape, np.float32)
        self.views = np.zeros(shape, np.uint8)
        axis = np.arange(BLOCK)
        self._inner = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)

    def find(self, keys: Keys) -> npt.NDArray[np.intp]:
        """Where blocks are; -1 for those that do not exist."""
        place = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        if not len(self.keys):
            return np.full(len(keys), -1, np.intp)
        found: npt.NDArray[np.intp] = np.where(self.keys[place] == keys, place, -1)
        return found

    def integrate(
        self, depth: FloatArray, weights: FloatArray, rgb: npt.NDArray[np.uint8], K: FloatArray, c2w: FloatArray
    ) -> None:
        """Add a depth map to all voxels near its points.

        depth    [H, W] z in the camera's frame; what is not positive and finite does not count
        weights  [H, W] ≥ 0; 0 does not count
        rgb      [H, W, 3]
        K, c2w   [3, 3] in the pixels of the depth map, [4, 4]
        """
        good = np.isfinite(depth) & (depth > 0) & np.isfinite(weights) & (weights > 0)
        v, u = np.nonzero(good)
        z = depth[v, u].astype(np.float64)
        local = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=-1)
        place = self.find(blocks_near(local @ c2w[:3, :3].T + c2w[:3, 3], self.voxel))
        place = place[place >= 0]
        measured = np.where(good, depth, np.nan).astype(np.float32)
        for first in range(0, len(place), _AT_ONCE):
            self._update(place[first : first + _AT_ONCE], measured, weights, rgb, K, c2w)

    def _update(
        self,
        place: npt.NDArray[np.intp],
        depth: npt.NDArray[np.float32],
        weights: FloatArray,
        rgb: npt.NDArray[np.uint8],
        K: FloatArray,
        c2w: FloatArray,
    ) -> None:
        centres = (block_coordinates(self.keys[place])[:, None] * BLOCK + self._inner) * self.voxel
        local = ((centres - c2w[:3, 3]) @ c2w[:3, :3]).astype(np.float32)
        z = local[..., 2]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = local[..., 0] / z * np.float32(K[0, 0]) + np.float32(K[0, 2])
            v = local[..., 1] / z * np.float32(K[1, 1]) + np.float32(K[1, 2])
        height, width = depth.shape
        seen = (z > 0) & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
        row, cell = np.nonzero(seen)
        u, v, z = u[row, cell], v[row, cell], z[row, cell]
        truncation = TRUNCATION * self.voxel
        nearest = np.rint(v).astype(np.intp), np.rint(u).astype(np.intp)
        ahead = (_sample(depth, u, v, nearest, truncation) - z) / truncation
        with np.errstate(invalid="ignore"):
            measured = ahead > -1
        row, cell, ahead = row[measured], cell[measured], np.minimum(ahead[measured], 1)
        y, x = nearest[0][measured], nearest[1][measured]
        where = place[row], cell
        weight = weights[y, x].astype(np.float32)
        before = self.weight[where]
        self.weight[where] = before + weight
        self.distance[where] += (ahead - self.distance[where]) * (weight / (before + weight))
        self.views[where] += self.views[where] < 255
        near = np.abs(ahead) < 1
        where = place[row[near]], cell[near]
        weight, before = weight[near], self.rgb_weight[where]
        self.rgb_weight[where] = before + weight
        share = (weight / (before + weight))[:, None]
        self.rgb[where] += (rgb[y[near], x[near]] - self.rgb[where]) * share


def _sample(
    depth: npt.NDArray[np.float32],
    u: FloatArray,
    v: FloatArray,
    nearest: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
    jump: float,
) -> FloatArray:
    """Depth between pixels, where the four around differ by no more than ``jump``; elsewhere the nearest one.

    Inverse depths are mixed: on a plane this is exact, at any angle.
    """
    height, width = depth.shape
    left = np.clip(np.floor(u).astype(np.intp), 0, max(width - 2, 0))
    top = np.clip(np.floor(v).astype(np.intp), 0, max(height - 2, 0))
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    corners = np.stack([depth[top, left], depth[top, right], depth[below, left], depth[below, right]])
    x, y = u - left, v - top
    with np.errstate(invalid="ignore"):
        a, b, c, d = 1 / corners
        between = 1 / ((a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y)
        smooth = np.ptp(corners, axis=0) <= jump  # False where one of them is not known
    sampled: FloatArray = np.where(smooth, between, depth[nearest])
    return sampled
