"""Line charts drawn with Pillow: enough for a curve over frame numbers, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from threer.types import FloatArray

WIDTH, HEIGHT = 960, 260
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 34, 40
COLORS = ((33, 102, 172), (214, 96, 77), (77, 146, 33), (118, 42, 131))
INK, GRID = (50, 50, 50), (225, 225, 225)


def line_chart(title: str, x_label: str, curves: Mapping[str, tuple[FloatArray, FloatArray]]) -> Image.Image:
    """Curves of (x [N], y [N]) by name over one pair of axes; y starts at 0."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    curves = {name: (x, y) for name, (x, y) in curves.items() if len(x)}
    end = max(float(x.max()) for x, _ in curves.values()) or 1.0
    ceiling = 1.15 * max(float(y.max()) for _, y in curves.values()) or 1.0
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    for tick in _ticks(ceiling):
        y = HEIGHT - BOTTOM - tick / ceiling * down
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=GRID)
        draw.text((LEFT - 8, y), f"{tick:g}", fill=INK, font=font, anchor="rm")
    for tick in _ticks(end):
        x = LEFT + tick / end * across
        draw.line([(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 4)], fill=INK)
        draw.text((x, HEIGHT - BOTTOM + 6), f"{tick:g}", fill=INK, font=font, anchor="mt")
    draw.line([(LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], fill=INK)
    draw.text((LEFT, 8), title, fill=INK, font=font)
    draw.text((WIDTH - RIGHT, HEIGHT - 4), x_label, fill=INK, font=font, anchor="rb")

    place = WIDTH - RIGHT
    for color, (name, (x, y)) in zip(COLORS, curves.items(), strict=False):
        points = np.stack([LEFT + x / end * across, HEIGHT - BOTTOM - y / ceiling * down], axis=1)
        draw.line([tuple(p) for p in points], fill=color, width=2)
        draw.text((place, 8), name, fill=color, font=font, anchor="ra")
        place -= int(draw.textlength(name, font=font)) + 18
    return image


def stacked(charts: Sequence[Image.Image]) -> Image.Image:
    """Charts below one another."""
    image = Image.new("RGB", (WIDTH, HEIGHT * len(charts)), "white")
    for row, chart in enumerate(charts):
        image.paste(chart, (0, HEIGHT * row))
    return image


def binned(x: FloatArray, y: FloatArray, bins: int = 200) -> tuple[FloatArray, FloatArray]:
    """Means of ``y`` over up to ``bins`` equal stretches of ``x``."""
    groups = np.array_split(np.arange(len(x)), min(bins, len(x)))
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])


def _ticks(end: float) -> FloatArray:
    """Round numbers from 0 to at most ``end``, about five."""
    rough = end / 5
    step = 10.0 ** np.floor(np.log10(rough))
    step *= next(f for f in (1, 2, 5, 10) if f * step >= rough)
    return np.arange(0, end + step * 1e-6, step)
