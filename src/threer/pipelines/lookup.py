"""The points of a frame at given pixels."""

from __future__ import annotations

import numpy as np

from threer.geometry.projection import invert_affine
from threer.io.runs.layout import StoredFrame
from threer.types import FloatArray

KEEP = 0.7
"""Share of a frame's points, the most confident ones, that pixels may be matched with."""
FOLD = 0.05
"""Between pixels whose points differ by more of their distance there is an edge, and no point to be had."""


def points_at(frame: StoredFrame, pixels: FloatArray, *, small: bool = False) -> FloatArray:
    """[M, 3] the frame's points at pixels [M, 2] of its original (or ``small``) picture, NaN where not known.

    Between pixels they are interpolated, but not over edges, and only the most confident ones count.
    """
    if not small:
        affine = invert_affine(frame.to_original)
        pixels = pixels @ affine[:, :2].T + affine[:, 2]
    height, width = frame.conf.shape
    known = np.isfinite(frame.points).all(axis=-1) & (frame.conf > 0)
    out = np.full((len(pixels), 3), np.nan)
    if not known.any():
        return out
    known &= frame.conf >= np.quantile(frame.conf[known], 1 - KEEP)
    low = np.floor(pixels).astype(np.int64)
    inside = (low >= 0).all(axis=1) & (low[:, 0] < width - 1) & (low[:, 1] < height - 1)
    low, part = low[inside], (pixels - low)[inside]
    corners = [(low[:, 0] + dx, low[:, 1] + dy) for dy in (0, 1) for dx in (0, 1)]
    weights = [(part[:, 0] if dx else 1 - part[:, 0]) * (part[:, 1] if dy else 1 - part[:, 1])
               for dy in (0, 1) for dx in (0, 1)]  # fmt: skip
    values = np.stack([frame.points[v, u].astype(np.float64) for u, v in corners])  # [4, M, 3]
    good = np.all([known[v, u] for u, v in corners], axis=0)
    middle = np.einsum("km,kmi->mi", np.stack(weights), np.nan_to_num(values))
    spread = np.linalg.norm(values - middle, axis=-1).max(axis=0)
    distance = np.linalg.norm(middle - frame.c2w[:3, 3], axis=-1)
    with np.errstate(invalid="ignore"):
        good &= spread <= FOLD * distance
    out[inside] = np.where(good[:, None], middle, np.nan)
    return out
