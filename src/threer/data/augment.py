"""Changes of colour, one for each view or one for a whole sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
Jitter = tuple[float, float, float, float]
"""Largest changes of brightness, contrast, saturation (as shares) and hue (as a share of the circle)."""


@dataclass(frozen=True)
class ColourChange:
    """Factors of brightness, contrast and saturation, a turn of the hue, and the order in which they come."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[int, ...]

    @classmethod
    def draw(cls, strength: Jitter, rng: np.random.Generator) -> ColourChange:
        """Factors from 1 ± strength, never below 0; the hue from ± strength."""
        brightness, contrast, saturation = (float(rng.uniform(max(0.0, 1 - s), 1 + s)) for s in strength[:3])
        hue = float(rng.uniform(-strength[3], strength[3]))
        return cls(brightness, contrast, saturation, hue, tuple(int(i) for i in rng.permutation(4)))

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB, changed."""
        pixels: npt.NDArray[Any] = image.astype(np.float32) / 255
        for step in self.order:
            if step == 0:
                pixels = pixels * np.float32(self.brightness)
            elif step == 1:
                grey = float((pixels @ LUMA).mean())
                pixels = grey + (pixels - grey) * np.float32(self.contrast)
            elif step == 2:
                grey_pixels = (pixels @ LUMA)[..., None]
                pixels = grey_pixels + (pixels - grey_pixels) * np.float32(self.saturation)
            elif self.hue:
                hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
                hsv[..., 0] = (hsv[..., 0] + 360 * self.hue) % 360
                pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
            pixels = pixels.clip(0, 1)
        changed: npt.NDArray[np.uint8] = np.rint(pixels * 255).astype(np.uint8)
        return changed
