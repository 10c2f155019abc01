"""Small pictures: colour-mapped values, panels side by side, PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from threer.types import FloatArray

ByteImage = npt.NDArray[np.uint8]

# Turbo (Mikhailov 2019, Apache-2.0) as polynomials of degree 5, one column for each of red, green, blue.
TURBO = np.array(
    [
        [0.13572138, 0.09140261, 0.10667330],
        [4.61539260, 2.19418839, 12.64194608],
        [-42.66032258, 4.84296658, -60.58204836],
        [132.13108234, -14.18503333, 110.36276771],
        [-152.94239396, 4.27729857, -89.90310912],
        [59.28637943, 2.82956604, 27.34824973],
    ]
)
NO_VALUE = (70, 70, 70)
GAP_PX = 6
GAP_COLOR = (255, 255, 255)
TEXT_COLOR = (60, 60, 60)


def colorize(values: FloatArray, low: float | None = None, high: float | None = None) -> ByteImage:
    """Values [...] to Turbo colours [..., 3], blue to red; grey where not finite.

    low, high  values of the ends; by default the 2nd and 98th percentile
    """
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    if low is None:
        low = float(np.percentile(values[known], 2)) if known.any() else 0.0
    if high is None:
        high = float(np.percentile(values[known], 98)) if known.any() else 1.0
    share = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-12), 0, 1)
    powers = share[..., None] ** np.arange(len(TURBO))
    colours = np.clip(powers @ TURBO, 0, 1) * 255 + 0.5
    return np.where(known[..., None], colours, np.array(NO_VALUE)).astype(np.uint8)


def panels(images: Sequence[ByteImage]) -> ByteImage:
    """Pictures of one height next to each other, with a gap."""
    heights = {image.shape[0] for image in images}
    if len(heights) != 1:
        raise ValueError(f"panels need pictures of one height, got {sorted(heights)}")
    gap = np.full((heights.pop(), GAP_PX, 3), GAP_COLOR, dtype=np.uint8)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, axis=1)


def caption(text: str, size: tuple[int, int], background: tuple[int, int, int] = (255, 255, 255)) -> ByteImage:
    """A picture of ``size`` (W, H) with a line of text in the middle."""
    canvas = Image.new("RGB", size, background)
    font = ImageFont.load_default(size=max(10, min(size[0] // (len(text) // 2 + 4), 32)))
    middle = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(canvas).text(middle, text, fill=TEXT_COLOR, font=font, anchor="mm")
    return np.asarray(canvas)


def save_png(path: Path | str, image: ByteImage) -> None:
    """Write an [H, W, 3] picture."""
    Image.fromarray(image).save(path, format="PNG")
