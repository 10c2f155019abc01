"""A camera for every frame: focal length from local pointmaps, pose from registered ones."""

from __future__ import annotations

import statistics
from collections import deque

import numpy as np
import torch

from threer.geometry.focal import weiszfeld_focal
from threer.geometry.pnp import camera_from_pointmap
from threer.geometry.projection import centred_intrinsics, invert_affine, transform_intrinsics
from threer.types import FloatArray, Frame, Pointmap

PLAUSIBLE_FOCAL = (0.3, 5.0)
"""Focal lengths outside this range, in units of the longer image side, are taken for failures."""
MEMORY = 500
"""How many focal estimates the running median remembers: bounded, for streams without end."""


class CameraTracker:
    """Finds the camera of each frame of one stream (geometry.md sections 6 and 7, quirk S16).

    Unless told otherwise the lens does not zoom: every frame gets the median of the focal lengths estimated so far
    (Weiszfeld, confident points only). Poses come from seeded PnP-RANSAC between pixels and registered pointmap.

    intrinsics  [3, 3] known K in original pixels; nothing is estimated then
    keep        share of each pointmap, by confidence, that is used
    shared      all frames have one focal length; otherwise each its own, as far as its own pointmap tells
    """

    def __init__(
        self, intrinsics: FloatArray | None = None, *, keep: float = 0.7, seed: int = 0, shared: bool = True
    ) -> None:
        self._known: FloatArray | None = None if intrinsics is None else np.asarray(intrinsics, dtype=np.float64)
        self._keep = keep
        self._seed = seed
        self._shared = shared
        self._focals: deque[float] = deque(maxlen=MEMORY)

    @property
    def focal(self) -> float | None:
        """Focal length in network pixels, as far as known."""
        return statistics.median(self._focals) if self._focals else None

    def observe(self, local: Pointmap, *, keep: float | None = None, iterations: int = 10) -> None:
        """Learn about the focal length from a pointmap in its own camera's frame."""
        if self._known is not None:
            return
        focal = self._estimate(local, self._keep if keep is None else keep, iterations)
        if focal is not None:
            self._focals.append(focal)

    def lens(self, frame: Frame, local: Pointmap | None = None) -> tuple[FloatArray, FloatArray] | None:
        """K [3, 3] in the pixels of the network and in original ones; None as long as it is not known.

        local  the frame's own pointmap, which decides where each has its own focal length
        """
        if self._known is not None:
            return transform_intrinsics(self._known, invert_affine(frame.to_original)), self._known
        own = None if self._shared or local is None else self._estimate(local, self._keep, 10)
        focal = self.focal if own is None else own
        if focal is None:
            return None
        network_K = centred_intrinsics(focal, *frame.size)
        return network_K, transform_intrinsics(network_K, frame.to_original)

    def _estimate(self, local: Pointmap, keep: float, iterations: int) -> float | None:
        """Focal length in network pixels; None where it is not plausible."""
        focal = estimate_focal(local, keep=keep, iterations=iterations)
        unit = max(local.conf.shape[-2:])
        return focal if PLAUSIBLE_FOCAL[0] * unit <= focal <= PLAUSIBLE_FOCAL[1] * unit else None

    def track(self, frame: Frame, world: Pointmap, local: Pointmap | None = None) -> tuple[FloatArray, FloatArray]:
        """Camera-to-world [4, 4] and K [3, 3] in original pixels; NaN where not found. ``local`` as in `lens`."""
        lens = self.lens(frame, local)
        if lens is None:
            return self.missing()
        network_K, K = lens
        found = camera_from_pointmap(world.xyz, world.conf, network_K, keep=self._keep, seed=self._seed)
        return (np.full((4, 4), np.nan) if found is None else found.c2w), K

    @staticmethod
    def missing() -> tuple[FloatArray, FloatArray]:
        """The camera of a frame that could not be reconstructed."""
        return np.full((4, 4), np.nan), np.full((3, 3), np.nan)


def estimate_focal(
    local: Pointmap, *, keep: float, iterations: int = 10, principal_point: torch.Tensor | None = None
) -> float:
    """Focal length in network pixels of a pointmap [H, W] in its own camera's frame, NaN if nothing is usable.

    keep             share of the pixels, the most confident ones, that decide
    principal_point  [2] (u, v), None for the exact image centre
    """
    confident = local.conf >= torch.quantile(local.conf.float().flatten(), 1 - keep)
    return float(
        weiszfeld_focal(local.xyz.float(), principal_point, weights=confident.float(), iterations=iterations)
    )
