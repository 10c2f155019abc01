"""Reference cases of image preparation: every variant that the original loaders offer, for every input image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from threer.config import InputSpec
from threer.io.images import RGBImage, prepare_image


def run_case(config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    for name, image in inputs.items():  # uint8 [H, W, 3]
        pixels = image.numpy()
        variants = {"size224": InputSpec(size=224, square=True), "size512": InputSpec(size=512, square=False)}
        if image.shape[0] == image.shape[1]:
            variants["size512.square_ok"] = InputSpec(size=512, square=False, allow_square=True)
        for variant, spec in variants.items():
            results |= _summary(f"{name}.{variant}", pixels, spec)
            if not spec.square:  # Fast3R's loader may turn or cut the original before anything else
                turned = np.ascontiguousarray(np.rot90(pixels, -1))
                results |= _summary(f"{name}.{variant}.rotate_clockwise_90", turned, spec)
                results |= _summary(f"{name}.{variant}.crop_to_landscape", _landscape(pixels), spec)
    return results


def _landscape(pixels: RGBImage) -> RGBImage:
    """The centre of an image, 4:3."""
    height, width = pixels.shape[:2]
    kept_height, kept_width = (height, height * 4 // 3) if width * 3 > height * 4 else (width * 3 // 4, width)
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return pixels[top : top + kept_height, left : left + kept_width]


def _summary(name: str, image: RGBImage, spec: InputSpec) -> dict[str, Tensor]:
    """What the reference keeps of a prepared image."""
    prepared, _ = prepare_image(image, spec)  # [3, H, W] in 0..1
    height, width = prepared.shape[1:]
    network_input = ((prepared - 0.5) / 0.5)[None]
    pixels = (prepared * 255).round().to(torch.uint8)
    top, left = height // 2 - 12, width // 2 - 12
    wide = network_input.double()
    summary = {
        "tensor_shape": torch.tensor(network_input.shape),
        "true_shape": torch.tensor([[height, width]], dtype=torch.int32),
        "u8_every8": pixels[:, ::8, ::8].contiguous(),
        "u8_centre24": pixels[:, top : top + 24, left : left + 24].contiguous(),
        "mean_std": torch.stack([wide.mean(), wide.std()]),
    }
    return {f"{name}.{key}": value for key, value in summary.items()}
