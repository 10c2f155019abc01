"""Depth maps brought to agree with adjusted cameras and points: a scale for each frame, and a smooth correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from threer.geometry.projection import invert_affine, transform_intrinsics
from threer.io.runs import StoredFrame
from threer.types import FloatArray

FEWEST_FOR_SCALE = 10
FEWEST_FOR_SHAPE = 60
ROUNDS = 10
STIFFNESS = 0.05
"""Of the smooth correction: how many of a frame's samples, as a share, vote for none."""
FARTHEST_FACTOR = 1.5
"""The smooth correction stays within this factor."""
NEXT_TO = 1.05
"""Between neighbouring pixels whose depths differ by a larger factor is an edge: samples there say little."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Depths of one frame at sparse points.

    pixel   [M, 2] network pixels
    mapped  [M] depth in the frame's map
    sparse  [M] depth of the adjusted point
    """

    pixel: FloatArray
    mapped: FloatArray
    sparse: FloatArray


@dataclass(frozen=True, eq=False)
class Correction:
    """Factor of a depth map: ``scale`` times a smooth one, exp of a polynomial in place and log depth, or None."""

    scale: float
    shape: FloatArray | None
    middle: float = 0.0

    def factor(self, depth: FloatArray, pixel: FloatArray, size: tuple[int, int]) -> FloatArray:
        """[...] for depths [...] at network pixels [..., 2] of a map of ``size`` (W, H)."""
        if self.shape is None:
            return np.full(depth.shape, self.scale)
        log = _terms(depth, pixel, size, self.middle) @ self.shape
        return np.asarray(self.scale * np.exp(np.clip(log, -np.log(FARTHEST_FACTOR), np.log(FARTHEST_FACTOR))))


def depth_of(frame: StoredFrame) -> FloatArray:
    """[H, W] depth of a frame's points in its own camera; NaN where unknown or behind it."""
    with np.errstate(invalid="ignore"):
        depth = (frame.points.astype(np.float64) - frame.c2w[:3, 3]) @ frame.c2w[:3, 2]
        return np.where((frame.conf > 0) & (depth > 0), depth, np.nan)


def sample(frame: StoredFrame, pixels: FloatArray, sparse: FloatArray) -> Samples:
    """The depths of a frame's map at pixels [M, 2] of the original, beside those of sparse points [M].

    Only where the map is smooth and known.
    """
    affine = invert_affine(frame.to_original)
    pixels = np.asarray(pixels) @ affine[:, :2].T + affine[:, 2]
    depth = depth_of(frame)
    height, width = depth.shape
    column, row = np.round(pixels).astype(np.int64).T
    inside = (column >= 1) & (row >= 1) & (column < width - 1) & (row < height - 1) & (sparse > 0)
    pixels, sparse, column, row = pixels[inside], sparse[inside], column[inside], row[inside]
    around = np.stack([depth[row + dy, column + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    with np.errstate(invalid="ignore"):
        good = around.max(axis=0) <= NEXT_TO**2 * around.min(axis=0)  # unknown ones are NaN, so False
    return Samples(pixels[good], np.median(around[:, good], axis=0), sparse[good])


def fit(samples: Samples, size: tuple[int, int]) -> Correction | None:
    """The correction that brings a map of ``size`` (W, H) to its samples; None for too few of them.

    The smooth part is taken only if, fitted to one half of the samples, it serves the other half better than the
    scale alone, both ways.
    """
    ratio = np.log(samples.sparse / samples.mapped)
    if len(ratio) < FEWEST_FOR_SCALE:
        return None
    log_scale = float(np.median(ratio))
    plain = Correction(float(np.exp(log_scale)), None)
    if len(ratio) < FEWEST_FOR_SHAPE:
        return plain
    middle = float(np.median(np.log(samples.mapped)))
    terms, rest = _terms(samples.mapped, samples.pixel, size, middle), ratio - log_scale
    odd = np.arange(len(rest)) % 2 == 1
    for half in (odd, ~odd):
        left = rest[~half] - terms[~half] @ _robust_fit(terms[half], rest[half])
        if not np.median(np.abs(left)) < 0.95 * np.median(np.abs(rest[~half])):
            return plain
    return Correction(plain.scale, _robust_fit(terms, rest), middle)


def between(found: list[Correction | None]) -> list[Correction]:
    """A correction for every frame: those without take the scale of their neighbours, or 1 if none has any."""
    known = [k for k, correction in enumerate(found) if correction is not None]
    if not known:
        return [Correction(1.0, None) for _ in found]
    logs = np.interp(range(len(found)), known, [np.log(c.scale) for c in found if c is not None])
    return [
        Correction(float(np.exp(log)), None) if correction is None else correction
        for correction, log in zip(found, logs, strict=True)
    ]


def corrected_points(
    frame: StoredFrame, correction: Correction, c2w: FloatArray, K: FloatArray
) -> npt.NDArray[np.float32]:
    """[H, W, 3] world points on the rays of the adjusted camera (``K`` in original pixels), NaN where unknown."""
    depth = depth_of(frame)
    height, width = depth.shape
    pixel = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)
    depth = depth * correction.factor(depth, pixel, (width, height))
    lens = transform_intrinsics(K, invert_affine(frame.to_original))
    rays = (pixel - lens[:2, 2]) / lens[[0, 1], [0, 1]]
    local = np.concatenate([rays, np.ones((height, width, 1))], axis=-1) * depth[..., None]
    return np.asarray(local @ c2w[:3, :3].T + c2w[:3, 3], np.float32)


def _terms(depth: FloatArray, pixel: FloatArray, size: tuple[int, int], middle: float) -> FloatArray:
    """[..., 7] what the correction is made of: place to the second order, and log depth."""
    x, y = np.moveaxis(2 * np.asarray(pixel) / (np.array(size) - 1) - 1, -1, 0)
    with np.errstate(invalid="ignore"):
        log = np.clip(np.log(depth) - middle, -1.5, 1.5)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, log], axis=-1)


def _robust_fit(terms: FloatArray, values: FloatArray) -> FloatArray:
    """Coefficients with the least Cauchy loss and a pull to zero, by reweighting."""
    found = np.zeros(terms.shape[1])
    stiff = STIFFNESS * len(values) * np.eye(terms.shape[1])
    for _ in range(ROUNDS):
        left = values - terms @ found
        scale = 1.4826 * float(np.median(np.abs(left))) + 1e-6
        weights = 1 / (1 + np.square(left / (2 * scale)))
        weighted = terms * weights[:, None]
        found = np.linalg.solve(weighted.T @ terms + stiff * weights.mean(), weighted.T @ values)
    return found
