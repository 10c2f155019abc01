"""What a camera does to the light: exposure, white balance, tone, vignette, blur, noise; seeded per clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def develop(linear: Tensor, exposure: float) -> Tensor:
    """Linear RGB [..., 3] -> display values 0..1: soft shoulder, then gamma 2.2."""
    return (1 - torch.exp(-exposure * linear.clamp(min=0))).pow(1 / 2.2)


def augment(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Colour changes drawn once per clip and a little per frame.

    images [B, N, 3, H, W] in 0..1 -> the same shape. ``strength`` 0 changes nothing. ``generator`` must live on the
    images' device.
    """
    batch, frames, _, height, width = images.shape

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=images.device).clamp(-2, 2) * strength

    def per_clip_and_frame(scale: float, channels: int = 1) -> Tensor:
        return scale * (draw(batch, 1, channels, 1, 1) + 0.25 * draw(batch, frames, channels, 1, 1))

    images = images * (per_clip_and_frame(0.15) + per_clip_and_frame(0.06, 3)).exp()
    images = images.clamp(0, 1).pow(per_clip_and_frame(0.12).exp())
    mean = images.mean(dim=(-1, -2), keepdim=True)
    images = mean + (images - mean) * per_clip_and_frame(0.12).exp()
    grey = images.mean(dim=2, keepdim=True)
    images = grey + (images - grey) * per_clip_and_frame(0.25).exp()
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device),
        torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )
    images = images * (1 - per_clip_and_frame(0.06).abs() * (x * x + y * y))
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + 0.012 * strength * noise).clamp(0, 1)


def soften(images: Tensor, amount: float) -> Tensor:
    """Blend [N, 3, H, W] with a 3×3 blur: ``amount`` 0 keeps, 1 blurs."""
    kernel = torch.tensor([1.0, 2.0, 1.0], device=images.device)
    weights = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), weights, groups=3)
    return torch.lerp(images, blurred, amount)
