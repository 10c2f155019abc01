"""What JPEG leaves of a picture: blocks of 8×8 in the cosine domain, rounded; in batches on any device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8
# The example tables of ITU-T T.81, annex K, which encoders scale by the quality (libjpeg's rule).
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# ITU-T T.871: full-range YCbCr
_FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Pictures [n, 3, H, W] in 0..1 as JPEG of a quality [n] in 1..100 gives them back, colour at half the size.

    Nothing is coded: only what rounding takes away is taken away.
    """
    height, width = images.shape[-2:]
    right, below = -width % (2 * BLOCK), -height % (2 * BLOCK)
    padded = F.pad(images, (0, right, 0, below), mode="replicate")
    ycc = torch.einsum("ij,njhw->nihw", images.new_tensor(_FROM_RGB), padded) * 255
    scale = _scale(quality.to(images))
    luma = _rounded(ycc[:, :1] - 128, images.new_tensor(_LUMA), scale) + 128
    chroma = _rounded(F.avg_pool2d(ycc[:, 1:], 2), images.new_tensor(_CHROMA), scale)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    rgb = torch.einsum("ij,njhw->nihw", images.new_tensor(_TO_RGB), torch.cat([luma, chroma], dim=1)) / 255
    return rgb[..., :height, :width].clamp(0, 1)


def _scale(quality: Tensor) -> Tensor:
    """[n] per cent of the tables."""
    quality = quality.clamp(1, 100)
    return torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)


def _rounded(planes: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    """Planes [n, c, H, W], sides multiples of 8, with their cosine coefficients rounded to steps."""
    n, c, height, width = planes.shape
    steps = ((table * scale.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255).view(n, 1, 1, 1, BLOCK, BLOCK)
    basis = _cosines(planes)
    blocks = planes.view(n, c, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    kept = ((basis @ blocks @ basis.mT) / steps).round() * steps
    return (basis.mT @ kept @ basis).transpose(3, 4).reshape(n, c, height, width)


def _cosines(like: Tensor) -> Tensor:
    """[8, 8] orthonormal DCT-II: rows are frequencies."""
    place = torch.arange(BLOCK, device=like.device, dtype=like.dtype)
    basis = (math.pi / BLOCK * place.unsqueeze(1) * (place + 0.5)).cos() * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis
