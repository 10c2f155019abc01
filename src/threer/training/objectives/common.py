"""What the objectives share: predictions stacked, pixels thinned out, points disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from threer.nn.encoder import PATCH
from threer.training.batch import Batch
from threer.types import Prediction, View


@dataclass(frozen=True)
class Thinning:
    """Every ``step``-th pixel of maps [B, V, H, W] or [B, V, H, W, 3], from (row, column) on."""

    step: int
    row: int
    column: int

    @classmethod
    def draw(cls, step: int, generator: torch.Generator) -> Thinning:
        """With a random offset; full maps cost a quarter of a step of a small network."""
        if step == 1:
            return cls(1, 0, 0)
        row, column = torch.randint(step, (2,), generator=generator, device=generator.device).tolist()
        return cls(step, row, column)

    def __call__(self, maps: Tensor) -> Tensor:
        return maps[:, :, self.row :: self.step, self.column :: self.step]


def image_views(batch: Batch) -> list[View]:
    """The images of a batch as network input."""
    return [View(batch.images[:, v], batch.true_shape[:, v]) for v in range(batch.views)]


def stack_points(predictions: Sequence[Prediction]) -> tuple[Tensor, Tensor]:
    """Points [B, V, H, W, 3] and confidences [B, V, H, W] of a list of views, float32."""
    return (
        torch.stack([p.points.xyz.float() for p in predictions], dim=1),
        torch.stack([p.points.conf.float() for p in predictions], dim=1),
    )


def without_autocast(device: torch.device) -> torch.autocast:
    """Losses are float32: point activations are exponentials, and sums run over many pixels."""
    return torch.autocast(device.type, enabled=False)


def mean_error(distances: Tensor, valid: Tensor) -> Tensor:
    """Detached mean of ``distances`` over ``valid``, to log; 0 where nothing is valid."""
    return torch.where(valid, distances.detach(), 0.0).sum() / valid.sum().clamp(min=1)


def perturb(points: Tensor, noise: float, holes: float, generator: torch.Generator) -> Tensor:
    """Points [B, V, H, W, 3] as a network would give them: smooth relative noise, one scale error a view, holes.

    noise  size of the relative noise; half of it also moves each view as a whole along its rays
    holes  share of the patches that are put at the origin, in half of the views
    """
    batch, views, height, width, _ = points.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch * views, 1, *shape, generator=generator, device=points.device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch * views, 1, *shape, generator=generator, device=points.device)

    smooth = F.interpolate(normal(4, 4), size=(height, width), mode="bilinear", align_corners=True)
    factor = 1 + noise * (smooth + 0.5 * normal(1, 1))
    patches = uniform(height // PATCH, width // PATCH)
    kept = F.interpolate((patches >= holes * (uniform(1, 1) < 0.5)).float(), scale_factor=PATCH)
    return points * (factor * kept).view(batch, views, height, width, 1)
