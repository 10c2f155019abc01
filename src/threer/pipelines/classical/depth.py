"""Dense depth for the pictures of a sparse model, each from its best partners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from threer.geometry.plane_sweep import Others, consistency, inverse_depths, plane_sweep
from threer.geometry.projection import invert_affine, transform_intrinsics, unproject
from threer.geometry.transforms import apply
from threer.pipelines.classical.model import SparseModel
from threer.types import FloatArray, Pointmap

NEARER, FARTHER = 0.7, 1.3
"""How far beyond the sparse points, its own and its partners', depths of a picture are looked for."""
EDGE_PERCENT = 2.0
MOST_RANGE = 4.0
FEWEST_POINTS = 5
TOLERANCE = 0.05
LEAST = 0.05
"""What is left of the confidence where no other picture confirms a depth: such pixels keep their order."""
LUMA = (0.299, 0.587, 0.114)


class DenseDepth:
    """Depth maps of a model's pictures, made when asked for and kept in half precision for the check of others.

    model         cameras and points
    pictures      [3, H, W] uint8 RGB, one for each camera of the model, of any sizes
    to_original   [2, 3] of each: its pixel -> pixel of the original
    partners      pictures each one is compared with
    planes        of the sweep
    """

    def __init__(
        self,
        model: SparseModel,
        pictures: Sequence[Tensor],
        to_original: Sequence[FloatArray],
        *,
        partners: int = 8,
        planes: int = 64,
        device: str = "cpu",
    ) -> None:
        self._model, self._pictures, self._device = model, pictures, device
        self._planes = planes
        self._partners = model.partners(partners)
        K = [transform_intrinsics(k, invert_affine(a)) for k, a in zip(model.K, to_original, strict=True)]
        self._K = torch.tensor(np.array(K), dtype=torch.float32, device=device).reshape(-1, 3, 3)
        self._depths = model.depths
        self._maps: dict[int, tuple[Tensor, Tensor]] = {}

    def pointmap(self, row: int) -> Pointmap | None:
        """[H, W] points in the frame of camera ``row`` with confidence 0..1; None where too little is known."""
        own = self._map(row)
        if own is None:
            return None
        depth, conf = own[0].float(), own[1].float()
        compared = {other: found for other in self._partners[row] if (found := self._map(other)) is not None}
        if compared:
            others = list(compared)
            agreed = consistency(
                depth,
                self._K[row],
                _padded([found[0].float() for found in compared.values()], torch.nan),
                self._K[others],
                self._motions(row, others),
                TOLERANCE,
            )
            conf = conf * (LEAST + agreed) / (1 + LEAST)
        return Pointmap(unproject(depth, self._K[row]).cpu(), conf.cpu())

    def world(self, row: int, local: Pointmap) -> Pointmap:
        """Points of camera ``row`` in the world."""
        pose = torch.from_numpy(self._model.c2w[row])
        return Pointmap(apply(pose, local.xyz.double()).float(), local.conf)

    def _map(self, row: int) -> tuple[Tensor, Tensor] | None:
        if row not in self._maps:
            others = self._partners[row]
            limits = [found for camera in (row, *others) if (found := self._limits(camera)) is not None]
            if not len(others) or self._limits(row) is None:
                return None
            near, far = min(limit[0] for limit in limits), max(limit[1] for limit in limits)
            greys = [self._grey(other) for other in others]
            compared = Others(
                _padded(greys, 0.0),
                self._K[others],
                torch.tensor([grey.shape for grey in greys], device=self._device),
                self._motions(row, others),
            )
            inverse = inverse_depths(NEARER * near, FARTHER * far, self._planes, device=torch.device(self._device))
            swept = plane_sweep(self._grey(row), self._K[row], compared, inverse)
            self._maps[row] = swept.depth.half(), swept.conf.half()
        return self._maps[row]

    def _limits(self, row: int) -> tuple[float, float] | None:
        """Depths between which the points of a camera lie; None where it sees too few."""
        depths = self._depths[self._model.seen == row]
        depths = depths[depths > 0]
        if len(depths) < FEWEST_POINTS:
            return None
        near, middle, far = np.percentile(depths, [EDGE_PERCENT, 50, 100 - EDGE_PERCENT])
        # A few wrong points right before the camera would take all planes for themselves.
        return float(max(near, middle / MOST_RANGE)), float(min(far, middle * MOST_RANGE))

    def _grey(self, row: int) -> Tensor:
        weights = torch.tensor(LUMA, device=self._device)
        return torch.einsum("c,chw->hw", weights, self._pictures[row].to(self._device).float() / 255)

    def _motions(self, row: int, others: Sequence[int] | np.ndarray) -> Tensor:
        motions = np.linalg.inv(self._model.c2w[others]) @ self._model.c2w[row]
        return torch.tensor(motions, dtype=torch.float32, device=self._device)


def _padded(images: Sequence[Tensor], value: float) -> Tensor:
    """[N, H, W] of images of any sizes."""
    height, width = (max(image.shape[k] for image in images) for k in (0, 1))
    out = torch.full((len(images), height, width), value, device=images[0].device)
    for place, image in zip(out, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return out
