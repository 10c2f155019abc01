"""Reference cases of image preparation: every variant that the original loaders offer, for every input image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threer.config import InputSpec
from threer.io.images import prepare_image


def run_case(config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    for name, image in inputs.items():  # uint8 [H, W, 3]
        variants = {"size224": InputSpec(size=224, square=True), "size512": InputSpec(size=512, square=False)}
        if image.shape[0] == image.shape[1]:
            variants["size512.square_ok"] = InputSpec(size=512, square=False, allow_square=True)
        for variant, spec in variants.items():
            prepared, _ = prepare_image(image.numpy(), spec)
            results |= {f"{name}.{variant}.{key}": value for key, value in _summary(prepared).items()}
    return results


def _summary(prepared: Tensor) -> dict[str, Tensor]:
    """What the reference keeps of a prepared image [3, H, W] in 0..1."""
    height, width = prepared.shape[1:]
    network_input = ((prepared - 0.5) / 0.5)[None]
    pixels = (prepared * 255).round().to(torch.uint8)
    top, left = height // 2 - 12, width // 2 - 12
    wide = network_input.double()
    return {
        "tensor_shape": torch.tensor(network_input.shape),
        "true_shape": torch.tensor([[height, width]], dtype=torch.int32),
        "u8_every8": pixels[:, ::8, ::8].contiguous(),
        "u8_centre24": pixels[:, top : top + 24, left : left + 24].contiguous(),
        "mean_std": torch.stack([wide.mean(), wide.std()]),
    }
