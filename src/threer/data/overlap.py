"""How much two views share, from their depth and cameras: for lists of pairs, and to find wrong cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threer.data.crops import resized_intrinsics
from threer.data.datasets.format import nearest
from threer.data.samples import RawView
from threer.types import FloatArray

AGREE = 0.1
SIDE = 64
"""Longest side at which views are compared."""


@dataclass(frozen=True)
class Overlap:
    """What of a first view is seen by a second one.

    inside    share of its points that fall into the second picture, before its camera, where depth is known
    agree     share of those whose depth there agrees within 10 %
    overlap   share of all its points that fall inside and agree
    parallax  median angle in degrees between the rays of both cameras to those, NaN if there are none
    """

    inside: float
    agree: float
    overlap: float
    parallax: float


def overlap(first: RawView, second: RawView, side: int = SIDE) -> Overlap:
    """Warp the first view's depth into the second. Both need depth and a pose."""
    depth, K = _small(first, side)
    other_depth, other_K = _small(second, side)
    v, u = np.nonzero(depth > 0)
    if not len(u):
        return Overlap(0.0, 0.0, 0.0, float("nan"))
    z = depth[v, u].astype(np.float64)
    camera = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], 1)
    world = camera @ first.c2w[:3, :3].T + first.c2w[:3, 3]
    there = (world - second.c2w[:3, 3]) @ np.linalg.inv(second.c2w[:3, :3]).T
    front = there[:, 2] > 1e-6
    safe = np.where(front, there[:, 2], 1.0)
    x = np.rint(other_K[0, 0] * there[:, 0] / safe + other_K[0, 2])
    y = np.rint(other_K[1, 1] * there[:, 1] / safe + other_K[1, 2])
    height, width = other_depth.shape
    inside = front & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    found = np.zeros(len(u))
    found[inside] = other_depth[y[inside].astype(int), x[inside].astype(int)]
    known = inside & (found > 0)
    agree = known & (np.abs(there[:, 2] - found) < AGREE * np.maximum(found, 1e-12))
    parallax = float("nan")
    if agree.any():
        rays = [world[agree] - c2w[:3, 3] for c2w in (first.c2w, second.c2w)]
        cosine = (rays[0] * rays[1]).sum(1) / np.maximum(
            np.prod([np.linalg.norm(r, axis=1) for r in rays], 0), 1e-12
        )
        parallax = float(np.degrees(np.median(np.arccos(cosine.clip(-1, 1)))))
    return Overlap(
        float(known.mean()), float(agree.sum() / max(known.sum(), 1)), float(agree.mean()), parallax
    )  # fmt: skip


def _small(view: RawView, side: int) -> tuple[FloatArray, FloatArray]:
    W, H = view.size
    ratio = min(1.0, side / max(W, H))
    size = max(1, round(W * ratio)), max(1, round(H * ratio))
    return nearest(view.depth, size), resized_intrinsics(view.K, view.size, size)
