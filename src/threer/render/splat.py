"""Pictures of point clouds on the CPU: discs in a depth buffer, small gaps closed, edges darkened by depth.

The shading is eye-dome lighting (Boucheny 2009): a pixel is darkened by how far its neighbours stand in front of
it, which shows the structure of a cloud that has no normals.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from threer.types import FloatArray

ByteImage = npt.NDArray[np.uint8]

SUPERSAMPLING = 2
LARGEST_RADIUS_PX = 5  # of the final picture
SMALLEST_RADIUS_PX = 0.5
BACKGROUND = (255, 255, 255)
EDL_STRENGTH = 1.0
EDL_BOUND = 0.06  # octaves of depth
EDL_RINGS_PX = (1, 3)  # of the supersampled picture
OVERLAP = 1.1  # radius over spacing; below 0.7 a square grid shows holes
STRAY_NEIGHBOURS = 3
LARGEST_SPACING = 2.5  # times the usual one: sparse places stay sparse instead of turning into blots
BULGE = 0.1  # how much deeper a disc's rim is than its middle, in radii: enough to order them, too flat to shade
SURFACE_RADII = 2.0  # discs no further behind the front than this many radii belong to the same surface
LOW_BITS = (1 << 32) - 1
NEAR_SHARE = 1e-3  # points closer than this share of the median depth are behind the lens


@dataclass(frozen=True, eq=False)
class Layer:
    """What one set of points looks like: depth [H, W], infinite where empty, and rgb [H, W, 3] float32 0..255."""

    depth: FloatArray
    rgb: FloatArray


def render_points(
    xyz: FloatArray,
    rgb: ByteImage,
    K: FloatArray,
    c2w: FloatArray,
    size: tuple[int, int],
    *,
    radius: float | Literal["auto"] = "auto",
    background: tuple[int, int, int] = BACKGROUND,
) -> ByteImage:
    """Picture [H, W, 3] of a coloured cloud.

    xyz     [M, 3] world; points that are not finite are left out
    rgb     [M, 3] uint8
    K, c2w  the camera, for a picture of ``size`` (W, H)
    radius  of a point in world units; "auto" takes it from how dense the cloud is around each point
    """
    radii = point_radii(xyz) if radius == "auto" else np.full(len(xyz), float(radius), dtype=np.float32)
    layer = close_gaps(rasterize(xyz, rgb, radii, K, c2w, size))
    return resolve(shade(layer), layer.depth, background)


def point_radii(xyz: FloatArray) -> FloatArray:
    """[M] world radii with which neighbouring points of a surface just overlap, from counts in a voxel grid."""
    good = np.asarray(np.isfinite(xyz).all(axis=1))
    if not good.any():
        return np.zeros(len(xyz), dtype=np.float32)
    low, high = np.percentile(xyz[good][:: max(1, good.sum() // 50_000)], [2, 98], axis=0)
    extent = float(np.max(high - low)) or 1.0
    voxel = extent / np.clip(np.sqrt(good.sum()) / 4, 8, 256)
    cells = np.clip((np.where(good[:, None], xyz, low) - low) / voxel, -(2**19), 2**19).astype(np.int64) + 2**20
    keys = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
    occupied, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    around = np.zeros(len(occupied), dtype=np.int64)  # points in the 3×3×3 voxels; a surface fills nine of them
    for dx, dy, dz in itertools.product((-1, 0, 1), repeat=3):
        shifted = occupied + ((dx << 42) + (dy << 21) + dz)
        place = np.minimum(np.searchsorted(occupied, shifted), len(occupied) - 1)
        around += np.where(occupied[place] == shifted, counts[place], 0)
    spacing = 3 * voxel / np.sqrt(around)
    usual = np.median(spacing[inverse])
    # Where hardly anything is near, a point is rather a stray one than a large piece of surface.
    spacing = np.where(around <= STRAY_NEIGHBOURS, 0.5 * usual, np.minimum(spacing, LARGEST_SPACING * usual))
    radii: FloatArray = (OVERLAP * spacing[inverse]).astype(np.float32)
    return radii


def rasterize(
    xyz: FloatArray, rgb: ByteImage, radii: FloatArray, K: FloatArray, c2w: FloatArray, size: tuple[int, int]
) -> Layer:
    """Draw points as discs that face the camera, the nearest in front; twice the resolution of ``size``.

    The depth of a disc grows towards its rim, so that overlapping discs meet half way between their centres.
    """
    width, height = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    x, y, z, order = _project(xyz, K, c2w, width, height)
    focal = float(K[0, 0]) * SUPERSAMPLING
    largest = LARGEST_RADIUS_PX * SUPERSAMPLING
    r = np.clip(radii[order] * focal / z, SMALLEST_RADIUS_PX * SUPERSAMPLING, largest)
    rank = np.argsort(-r, kind="stable")  # the points an offset reaches are then a prefix
    x, y, z, r, order = x[rank], y[rank], z[rank].astype(np.float32), r[rank].astype(np.float32), order[rank]
    pad = 2 * largest  # a disc may lie a radius outside and reach a radius further: no offset leaves the buffer
    stride = width + 2 * pad
    discs = _Discs(x + pad + (y + pad) * stride, z, r, radii[order], rgb[order])
    front = np.full((height + 2 * pad) * stride, np.inf, dtype=np.float32)
    for offset, reached, depth in discs.offsets(stride):
        np.minimum.at(front, discs.place[:reached] + offset, depth)
    # All discs that lie on the front surface share its colour: without this the noise of overlapping frames shows.
    red_green, blue_weight = np.zeros(len(front), dtype=np.int64), np.zeros(len(front), dtype=np.int64)
    for offset, reached, depth in discs.offsets(stride):
        where = discs.place[:reached] + offset
        on_front = depth <= front[where] + SURFACE_RADII * discs.world[:reached]
        where = where[on_front]
        np.add.at(red_green, where, discs.red_green[:reached][on_front])
        np.add.at(blue_weight, where, discs.blue_one[:reached][on_front])
    weight = np.maximum(blue_weight & LOW_BITS, 1)
    channels = [red_green >> 32, red_green & LOW_BITS, blue_weight >> 32]
    colour = np.stack([(c / weight).astype(np.float32) for c in channels], axis=-1)
    inner = np.s_[pad:-pad, pad:-pad]
    return Layer(front.reshape(-1, stride)[inner], colour.reshape(-1, stride, 3)[inner])


@dataclass(frozen=True, eq=False)
class _Discs:
    """Points sorted by falling radius: those that an offset reaches are a prefix. Two colours share an integer."""

    place: npt.NDArray[np.int64]
    z: FloatArray
    r: FloatArray
    world: FloatArray
    rgb: ByteImage

    @cached_property
    def red_green(self) -> npt.NDArray[np.int64]:
        return (self.rgb[:, 0].astype(np.int64) << 32) | self.rgb[:, 1]

    @cached_property
    def blue_one(self) -> npt.NDArray[np.int64]:
        return (self.rgb[:, 2].astype(np.int64) << 32) | 1

    def offsets(self, stride: int) -> Iterator[tuple[int, int, FloatArray]]:
        """(step in the buffer, how many discs reach so far, their depth there)."""
        largest = LARGEST_RADIUS_PX * SUPERSAMPLING
        bulge = BULGE * self.world / self.r**2
        for dy in range(-largest, largest + 1):
            for dx in range(-largest, largest + 1):
                square = dx * dx + dy * dy
                reached = int(np.searchsorted(-self.r, -np.sqrt(square), side="right"))
                if reached:
                    yield dy * stride + dx, reached, self.z[:reached] + bulge[:reached] * np.float32(square)


def close_gaps(layer: Layer, rounds: int = 3) -> Layer:
    """Fill empty pixels that most of their neighbours surround, so that outlines stay where they are."""
    depth, rgb = layer.depth, layer.rgb
    for _ in range(rounds):
        filled = np.isfinite(depth)
        around = _box(filled.astype(np.float32))
        gaps = ~filled & (around >= 5)
        if not gaps.any():
            break
        mean_depth = _box(np.where(filled, depth, 0))[gaps] / around[gaps]
        mean_rgb = np.stack([_box(np.where(filled, rgb[..., c], 0))[gaps] for c in range(3)], axis=-1)
        depth, rgb = depth.copy(), rgb.copy()
        depth[gaps] = mean_depth
        rgb[gaps] = mean_rgb / around[gaps][:, None]
    return Layer(depth, rgb)


def shade(layer: Layer, strength: float = EDL_STRENGTH) -> FloatArray:
    """Colours [H, W, 3] after eye-dome lighting."""
    log_depth = np.log2(layer.depth, dtype=np.float32)  # empty space is infinitely far and darkens nothing
    obscurance = np.zeros_like(log_depth)
    h, w = log_depth.shape
    steps = [step for step in itertools.product((-1, 0, 1), repeat=2) if step != (0, 0)]
    for ring in EDL_RINGS_PX:
        padded = np.pad(log_depth, ring, constant_values=np.inf)
        for dy, dx in steps:
            top, left = ring * (1 + dy), ring * (1 + dx)
            with np.errstate(invalid="ignore"):  # empty beside empty
                step_back = log_depth - padded[top : top + h, left : left + w]
            # Bounded: next to the outline of something near it would be black otherwise.
            obscurance += np.clip(step_back, 0, EDL_BOUND)
    share = np.nan_to_num(obscurance / (len(steps) * len(EDL_RINGS_PX) * EDL_BOUND))
    shaded: FloatArray = layer.rgb * np.exp(-strength * share)[..., None]
    return shaded


def resolve(rgb: FloatArray, depth: FloatArray, background: tuple[int, int, int]) -> ByteImage:
    """Average the supersampled colours down to the picture; empty pixels take the background."""
    full = np.where(np.isfinite(depth)[..., None], rgb, np.array(background, dtype=np.float32))
    h, w = full.shape[0] // SUPERSAMPLING, full.shape[1] // SUPERSAMPLING
    small = full.reshape(h, SUPERSAMPLING, w, SUPERSAMPLING, 3).mean(axis=(1, 3))
    picture: ByteImage = np.clip(small + 0.5, 0, 255).astype(np.uint8)
    return picture


def _project(
    xyz: FloatArray, K: FloatArray, c2w: FloatArray, width: int, height: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray, npt.NDArray[np.intp]]:
    """Supersampled pixel x, y, depth and row of every point that can touch the picture."""
    local = (np.asarray(xyz, dtype=np.float64) - c2w[:3, 3]) @ c2w[:3, :3]
    z = local[:, 2]
    ahead = np.isfinite(local).all(axis=1) & (z > 0)
    if ahead.any():
        ahead &= z > NEAR_SHARE * np.median(z[ahead])
    rows = np.flatnonzero(ahead)
    local, z = local[rows], z[rows]
    pixels = local[:, :2] / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
    pixels = np.rint((pixels + 0.5) * SUPERSAMPLING - 0.5)
    margin = LARGEST_RADIUS_PX * SUPERSAMPLING
    inside = ((pixels >= -margin) & (pixels < np.array([width, height]) + margin)).all(axis=1)
    x, y = pixels[inside].astype(np.int64).T
    return x, y, z[inside], rows[inside]


def _box(values: FloatArray) -> FloatArray:
    """Sum over the 3×3 neighbourhood."""
    padded = np.pad(values, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
